"""Property-based fuzz: whatever is in a configuration, image, mask, checkpoint, index or file name, there is a result or one clear line.

The suite runs a few cases of each property; python -m pytest tests/test_fuzz.py --fuzz-cases 300 runs as many of each.
"""

import contextlib
import dataclasses
import getpass
import io
import json
import logging
import math
import os
import pickle
import resource
import signal
import struct
import time
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args, get_origin, get_type_hints

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import count_case
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from strdiffusion import StrDiffusion
from strdiffusion.app.picture import Picture
from strdiffusion.app.reading import open_picture
from strdiffusion.app.web.calls import Function, Malformed, read_call
from strdiffusion.app.web.limits import Limits
from strdiffusion.app.web.offers import Offers
from strdiffusion.app.web.photo import Example
from strdiffusion.app.web.service import Service, Settings
from strdiffusion.app.web.session import Sessions
from strdiffusion.app.windows import LayoutOptions
from strdiffusion.app.writing import FORMATS, Metadata
from strdiffusion.checkpoints import load_network
from strdiffusion.checkpoints.files import read_checkpoint
from strdiffusion.checkpoints.pickles import LEGACY
from strdiffusion.config import (
    TrainDGTSConfig,
    TrainDiscriminatorConfig,
    TrainPriorConfig,
    TrainStructureConfig,
    TrainTextureConfig,
    TrainUpsamplerConfig,
)
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.config.model import ModelConfig, PriorModelConfig
from strdiffusion.data import find_images, read_image, read_mask
from strdiffusion.evaluation.folder import inpaint_folder
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.table import read_rows
from strdiffusion.figures.trace import read_traces, summarise
from strdiffusion.figures.tradeoff import read_points
from strdiffusion.methods import METHODS
from strdiffusion.methods.dgts_loading import DGTSModelConfig
from strdiffusion.methods.loading import from_checkpoints
from strdiffusion.networks import UNet
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system import distributed
from strdiffusion.system.cli import CleanFormatter, CleanStream
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build, load_config, read_yaml
from strdiffusion.system.user import name_the_user
from strdiffusion.training.folder import CheckpointFolder
from strdiffusion.training.journal import forget_later_lines
from strdiffusion.training.state import TrainingState
from strdiffusion.training.tasks import StructureTask

ROOT = Path(__file__).parents[1]
CONFIGS = {"structure": TrainStructureConfig, "texture": TrainTextureConfig, "discriminator": TrainDiscriminatorConfig, "test": TestConfig}
LONGEST_LINE = 3000


@contextlib.contextmanager
def one_clear_line(case):
    """Allow a UserError of one line, and nothing else."""
    count_case(case)
    try:
        yield
    except UserError as error:
        assert 10 < len(str(error)) < LONGEST_LINE


class TooLong(BaseException):
    """Ends what hangs. No `except Exception` on the way takes it for an error of a file."""


@contextlib.contextmanager
def within(seconds=20, gigabytes=2):
    """No more time and memory than this: the peak of what the process holds, without what it held before."""

    def end(signum, frame):
        raise TooLong

    began, before = time.monotonic(), memory(reset=True)
    handlers = {number: signal.signal(number, end) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)  # ends what computes without end
    signal.alarm(15 * seconds)  # for what waits and computes nothing
    try:
        yield
    except TooLong:
        pytest.fail(f"took more than {seconds} seconds")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert time.monotonic() - began < seconds and memory() - before < gigabytes * 10**9


def memory(reset=False):
    """The largest number of bytes that this process has held, since a reset if the system can do that."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def out_of_bounds(config):
    """The names of all numbers in a tree of dataclasses that are not in the bounds of their types."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        if get_origin(hint) is not ClassVar:
            yield from (f"{name}={value}" for value, bounds in bounded(hint, getattr(config, name)) if value not in bounds)


def bounded(hint, value, bounds=None):
    """The numbers in a value of a type, each with its bounds; those that are not in theirs in dataclasses below it, with none."""
    origin, inner = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        yield from ((found, ()) for found in out_of_bounds(value))
    elif origin is Annotated:
        yield from bounded(inner[0], value, inner[1])
    elif origin in (list, tuple):
        hints = inner if origin is tuple else inner * len(value)
        yield from (found for part, each in zip(hints, value, strict=True) for found in bounded(part, each, bounds))
    elif origin is not None and origin is not Literal and value is not None:
        yield from bounded(next(part for part in inner if part is not type(None)), value, bounds)
    elif hint in (int, float) and bounds is not None:
        yield value, bounds


def snapshot(folder):
    """Everything below a folder: names, contents and link targets."""
    found = {}
    for root, folders, names in os.walk(os.fsencode(folder)):
        for name in folders + names:
            path = os.path.join(root, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            else:
                found[path] = None if os.path.isdir(path) else Path(os.fsdecode(path)).read_bytes()
    return found


# ---- configurations -----------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.sampled_from(["auto", "none", "1e-4", "../..", "a\0b", "~", ".inf", "-1", "", "cuda", "fp16", "9" * 5000, "1:2:3", "0x1", "a: b"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4)
)


odd_numbers = st.sampled_from([10**6, 10**9, 10**15, 65536, 1e30, 1e-300, -1, 0, 1, 2])  # of the right type, mostly out of bounds


def keys_of(tree, prefix=""):
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


KEYS = {kind: sorted(keys_of(yaml.safe_load((ROOT / "configs/demo" / f"{kind}.yml").read_text()))) for kind in CONFIGS}


@given(data=st.data(), kind=st.sampled_from(sorted(CONFIGS)))
def test_configurations(tmp_path_factory, data, kind):
    tree = yaml.safe_load((ROOT / "configs/demo" / f"{kind}.yml").read_text())
    for key in data.draw(st.lists(st.sampled_from(KEYS[kind]) | st.text(max_size=8), max_size=3)):
        *parents, leaf = key.split(".")
        place = tree
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[leaf] = data.draw(values)
    override = st.builds("{}={}".format, st.sampled_from(KEYS[kind]), st.text(max_size=12)) | st.text(max_size=12)
    overrides = data.draw(st.lists(override, max_size=2))
    path = tmp_path_factory.getbasetemp() / "fuzz.yml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with one_clear_line("configurations"):
        load_config(CONFIGS[kind], path, overrides)


yaml_pieces = st.sampled_from(
    [
        "&a ",
        "*a",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ": ",
        "<<: ",
        "\n",
        "  ",
        "!!python/object/apply:os.system ",
        "!!binary ",
        "!!set ",
        "!!timestamp ",
        "data",
        "output",
        "x",
        "&b ",
        "*b",
        "? ",
        "|",
        ">",
        "'",
        '"',
        "2026-99-99",
        "1_0",
        "0o7",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "\t",
        "#",
        ", ",
    ]
)


@given(text=st.lists(yaml_pieces | st.text(max_size=3), max_size=40).map("".join).map(str.encode) | st.binary(max_size=60))
def test_yaml_of_any_form(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_bytes(text)
    with one_clear_line("configurations"):
        load_config(TrainStructureConfig, path)


def laughs(levels, merge=False):
    first = "a0: &a0 {x: 1}\n" if merge else "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
    line = "a{0}: &a{0} {{<<: [{1}]}}\n" if merge else "a{0}: &a{0} [{1}]\n"
    return first + "".join(line.format(i, ", ".join([f"*a{i - 1}"] * 9)) for i in range(1, levels))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (laughs(12), "expand"),
        (laughs(12, merge=True), "expand"),
        ("&a [*a]", "expand"),
        ("a: &a\n  b: *a\n", "expand"),
        ("[" * 5000, "RecursionError"),
        ("a: " + "{b: " * 3000, "RecursionError"),
        ("x: !!python/object/apply:os.system ['touch owned']", "not valid YAML"),
        ("x: 1\n" * 100_000, "bytes"),
        ("output: '" + "9" * 5000 + "'\nseed: " + "9" * 5000, "not valid YAML"),
    ],
)
def test_yaml_that_would_explode(tmp_path, text, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(UserError, match=said) as error:
        load_config(TrainStructureConfig, tmp_path / "x.yml")
    assert len(str(error.value)) < 1000 and sorted(tmp_path.iterdir()) == [tmp_path / "x.yml"]


def test_anchors_are_allowed(tmp_path):
    (tmp_path / "x.yml").write_text("output: o\ndata: &d {images: i, masks: &m {hole_share: [0.1, 0.2]}}\nvalidation: {masks: *m}\n")
    assert load_config(TrainStructureConfig, tmp_path / "x.yml").validation.masks.hole_share == (0.1, 0.2)


# ---- images and masks ---------------------------------------------------------------------------------


def encodings():
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), (24, 20), interpolation=cv2.INTER_CUBIC)
    image = Image.fromarray(pixels)
    forms = [
        ("png", image),
        ("jpeg", image),
        ("webp", image),
        ("bmp", image),
        ("tiff", image),
        ("png", image.convert("P")),
        ("gif", image),
        ("jpeg", image.convert("CMYK")),
        ("tiff", image.convert("CMYK")),
        ("png", image.convert("1")),
        ("png", image.convert("RGBA")),
        ("tiff", image.convert("RGBA")),
        ("png", image.convert("L")),
        ("ppm", image),
        ("ico", image),
    ]
    for form, picture in forms:
        file = io.BytesIO()
        picture.save(file, form)
        yield file.getvalue()
    yield cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes()
    yield cv2.imencode(".tiff", pixels.astype(np.float32))[1].tobytes()
    yield cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


ENCODINGS = list(encodings())


@st.composite
def broken(draw, originals):
    """One of the originals with some bytes changed, removed, put in or cut off, or any bytes."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1) | st.integers(0, min(80, len(content) - 1)))  # headers are where it hurts
        how = draw(st.sampled_from(["flip", "cut", "set", "large", "insert", "remove"]))
        if how == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del content[at:]
        elif how == "set":
            content[at] = draw(st.sampled_from([0, 1, 127, 128, 255]))
        elif how == "large":
            number = draw(st.sampled_from([0, 1, 65535, 100_000, 2**31, 2**32 - 1]))
            content[at : at + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
        elif how == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        else:
            del content[at : at + draw(st.integers(1, 16))]
    return bytes(content)


@given(content=broken(ENCODINGS) | st.binary(max_size=64))
def test_images(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(content)
    with one_clear_line("images"):
        image = read_image(path)
        assert image.dtype == np.float32 and image.ndim == 3 and image.shape[2] == 3 and image.size
        assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1


@given(content=broken(ENCODINGS), polarity=st.sampled_from(["white_hole", "white_known"]))
def test_masks(tmp_path_factory, content, polarity):
    path = tmp_path_factory.getbasetemp() / "fuzz_mask.png"
    path.write_bytes(content)
    with one_clear_line("masks"):
        known = read_mask(path, polarity)
        assert known.ndim == 2 and set(np.unique(known)) <= {0.0, 1.0}


# ---- checkpoints --------------------------------------------------------------------------------------


class Saved:
    """A checkpoint as content and as bytes; no dataclass, whose repr hypothesis would print."""

    def __init__(self, config, folder, content, data):
        self.config, self.folder, self.content, self.data = config, folder, content, data


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small training with a checkpoint of it after one step, and the checkpoint's bytes."""
    tree = {"output": "o", "data": {"images": "i"}, "network": {"width": 4, "depth": 1}, "sde": {"T": 6}}
    config = build(TrainStructureConfig, tree, "test")
    folder = tmp_path_factory.mktemp("fuzz_checkpoints")
    state = fresh(config, folder)
    loss = state.task.network(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), 2).square().mean()
    loss.backward()
    state.optimizer.step()
    state.standing.step = 1
    state.save()
    return Saved(config, folder, torch.load(folder / "latest.pt", weights_only=True), (folder / "latest.pt").read_bytes())


def fresh(config, folder):
    torch.manual_seed(0)
    sde = MeanRevertingSDE(**vars(config.sde))
    return TrainingState(CheckpointFolder(folder, 1), StructureTask(config, sde), sde, config, torch.device("cpu"))


def load_in_every_way(path, config):
    with one_clear_line("checkpoints"):
        loaded = load_network(path)
        assert all(value.isfinite().all() for value in loaded.network.state_dict().values())
    with one_clear_line("checkpoints"):
        state = fresh(config, path.parent / "new")
        state.resume(str(path))
        state.task.network(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), 2).square().mean().backward()
        state.optimizer.step()
        group = state.optimizer.param_groups[0]
        assert (
            isinstance(state.step, int)
            and group["eps"] == 1e-8
            and not group["maximize"]
            and 0 <= group["lr"] <= 1
            and 0 <= state.rate <= 1
        )


@given(data=st.data())
def test_bytes_of_checkpoints(saved, data):
    path = saved.folder / "fuzz.pt"
    path.write_bytes(data.draw(broken([saved.data])))
    load_in_every_way(path, saved.config)


tensors = st.builds(
    lambda shape, kind, value: torch.full(shape, value).to(kind),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64]),
    st.sampled_from([0.0, 1.0, float("nan"), float("inf"), 3e38]),
)
odd_tensors = st.sampled_from(
    [torch.zeros(1).expand(10**9), torch.zeros(2, 2).to_sparse(), torch.empty(3, device="meta"), torch.nn.Parameter(torch.zeros(2))]
)
things = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | tensors | odd_tensors,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


# attributes that loading into an optimizer or a schedule could overwrite
attributes = st.sampled_from(["step", "get_lr", "_step_count", "last_epoch", "eps", "lr", "maximize", "betas", "foreach", "exp_avg"])


def changed_below(data, tree):
    """A copy of a dictionary or list in which something, however deep, is another thing, or something was added."""
    if isinstance(tree, dict) and data.draw(st.booleans()):
        key = data.draw(attributes)
        return tree | {key: data.draw(things)}
    tree = tree.copy()
    key = data.draw(st.sampled_from(sorted(tree, key=str) if isinstance(tree, dict) else range(len(tree))))
    deeper = isinstance(tree[key], dict | list) and tree[key] and data.draw(st.booleans())
    tree[key] = changed_below(data, tree[key]) if deeper else data.draw(things)
    return tree


@given(data=st.data())
def test_contents_of_checkpoints(saved, data):
    content = dict(saved.content)
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from(sorted(content)))
        if isinstance(content[key], dict | list) and content[key] and data.draw(st.booleans()):
            content[key] = changed_below(data, content[key])
        elif data.draw(st.booleans()):
            content[key] = data.draw(things)
        else:
            del content[key]
    torch.save(content, saved.folder / "fuzz.pt")
    load_in_every_way(saved.folder / "fuzz.pt", saved.config)


entries = st.sampled_from(
    ["init_conv.weight", "final_conv.weight", "start_conv.weight", "downs.0.0.x", "downs.999999999999.0.x", "format", "version", "kind"]
)


@given(content=st.dictionaries(entries | st.text(max_size=8), things, max_size=5))
def test_any_named_things_as_a_checkpoint(saved, content):
    torch.save(content, saved.folder / "fuzz.pt")
    load_in_every_way(saved.folder / "fuzz.pt", saved.config)


# ---- names, and where results go ----------------------------------------------------------------------

names = st.lists(
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)
    | st.sampled_from(["..", "...", "a b", "it's", '"', "new\nline", "日本", "-rf", "~", "$HOME", "%s", "a.png", "x" * 200, "\\..\\.."])
    | st.binary(min_size=1, max_size=6).filter(lambda b: b"/" not in b and b"\0" not in b).map(os.fsdecode),
    min_size=1,
    max_size=3,
)
PICTURE = cv2.imencode(".png", cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8), (16, 16)))[1].tobytes()


@given(found=st.lists(st.tuples(names, st.sampled_from([".png", ".PNG", ".jpg", ".tif"]), st.booleans()), min_size=1, max_size=4))
def test_results_stay_in_their_folder(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("names")
    for parts, suffix, sound in found:
        with contextlib.suppress(OSError, ValueError):  # no file can have this name
            path = folder / "images" / "/".join(part for part in parts if part not in (".", "..")).replace("\0", "")
            path = Path(str(path) + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PICTURE if sound else PICTURE[:40])
    (folder / "images").mkdir(exist_ok=True)
    before = snapshot(folder)
    tree = {
        "output": str(folder / "out"),
        "device": "cpu",
        "method": "masked_input",
        "sde": {"T": 4},
        "checkpoints": {"texture": "t"},
        "sampler": {"guidance": False, "resampling": "none"},
        "data": {"images": str(folder / "images"), "size": 16, "index": None},
    }
    config = build(TestConfig, tree, "test")
    with one_clear_line("names"), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        inpaint_folder(config)
    after = snapshot(folder)
    assert {path: content for path, content in after.items() if not path.startswith(os.fsencode(folder / "out"))} == before
    if any(path.startswith(os.fsencode(folder / "out")) and content is not None for path, content in after.items()):
        with pytest.raises(UserError, match="nothing is overwritten|were left out"):  # where some were left out, it goes on
            inpaint_folder(config)
        assert snapshot(folder) == after


index_names = st.sampled_from(["a.png", "../secret.png", "..", "/etc/x.png", "sub/../../x.png", "", ".hidden.png", "b.png", "a\0.png"])


@given(
    images=st.lists(index_names, max_size=3),
    below=st.lists(index_names, max_size=2),
    at=st.sampled_from(["", "..", "sub"]),
    odd=st.sampled_from([None, 3, "x", [], {"": 3}, {"": [1]}, {"": None}]),
)
def test_an_index_cannot_lead_out_of_the_folder(tmp_path_factory, images, below, at, odd):
    folder = tmp_path_factory.mktemp("index")
    (folder / "images" / "sub").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(PICTURE)
    status = (folder / "images").stat()
    folders = {at: [status.st_mtime_ns, status.st_ino, images, below, []]} if odd is None else odd
    content = {"format": "strdiffusion image index 1", "root": os.path.realpath(folder / "images"), "folders": folders}
    (folder / "index.json").write_text(json.dumps(content))
    with one_clear_line("indices"):
        for path in find_images(folder / "images", folder / "index.json"):
            assert path.parent == folder / "images" and ".." not in path.parts


@given(content=st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_tables_and_metrics_of_earlier_runs(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "results.csv").write_bytes(content)
    with one_clear_line("tables"):
        read_rows(folder / "results.csv")
    (folder / "metrics.jsonl").write_bytes(content)
    with one_clear_line("tables"):
        forget_later_lines(folder / "metrics.jsonl", 3, 3)


# ---- pictures that ask for more than they hold --------------------------------------------------------


def png_chunk(name, content, sound=True):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ (not sound))


@st.composite
def bombs(draw):
    """A small file that declares millions of pixels, megabytes of text, or the same bytes thousands of times."""
    width, height = draw(st.tuples(*[st.sampled_from([1, 9, 5000, 30_000, 60_000, 2**20, 2**31 - 1])] * 2))
    kind = draw(st.sampled_from(["png", "png 16", "radiance", "pnm", "bmp", "tiff", "directories", "exif", "gif"]))
    if kind.startswith("png"):
        header = struct.pack(">IIBBBBB", width, height, 16 if kind == "png 16" else 8, draw(st.sampled_from([0, 2, 4, 6])), 0, 0, 0)
        text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * draw(st.sampled_from([10, 10**6, 10**7]))), draw(st.booleans()))
        pixels = png_chunk(b"IDAT", zlib.compress(b"\0" * 10**5))
        parts = [text, pixels] if draw(st.booleans()) else [pixels, text]
        return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(parts) + png_chunk(b"IEND", b"")
    if kind == "radiance":
        return f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode() + b"\2\2" * 100
    if kind == "pnm":
        form, most = draw(st.sampled_from(["P4", "P5", "P6", "Pf", "PF", "P7"])), draw(st.sampled_from([1, 255, 65535]))
        return f"{form}\n{width} {height}\n{most}\n".encode()
    if kind == "bmp":
        return b"BM" + struct.pack("<IIIIiiHHIIIIII", 1000, 0, 54, 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0) + b"\0" * 900
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HHBBB", width % 65536, height % 65536, 0x80, 0, 0) + b"\0" * 900
    if kind == "tiff":
        tags = [
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 1, 8),
            (259, 3, 1, draw(st.sampled_from([1, 5, 8, 32773]))),
            (262, 3, 1, 1),
        ]
        tags += [(273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, 900)]
        tags = [tag for tag in tags if draw(st.integers(0, 9))]  # TIFF without dimensions
        return b"II*\0" + struct.pack("<I", 8) + directory(tags) + b"\0" * 900
    block = same_bytes_again(draw(st.sampled_from([10, 4000])), draw(st.lists(st.sampled_from([1, 2, 3, 4, 5, 7]), min_size=1, max_size=3)))
    return block if kind == "directories" else exif_of(block)


def same_bytes_again(count, kinds):
    """A TIFF file of a megabyte, of which each of so many tags is the whole. kinds: of the tags, in turn."""
    tags = [(1000 + i, kinds[i % len(kinds)], 10**6, 8) for i in range(count)]
    return b"II*\0" + struct.pack("<I", 8) + directory(tags) + b"\1" * 10**6


def exif_of(block):
    """A photograph that has these EXIF data."""
    pieces = [block[at : at + 60_000] for at in range(0, len(block), 60_000)]
    return b"\xff\xd8" + b"".join(b"\xff\xe1" + struct.pack(">H", 8 + len(p)) + b"Exif\0\0" + p for p in pieces) + ENCODINGS[1][2:]


def directory(tags):
    return struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)


@example(same_bytes_again(4000, [7]))
@example(exif_of(same_bytes_again(4000, [7])))
@given(content=bombs())
def test_pictures_that_ask_for_more_than_they_hold(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bomb.png"
    path.write_bytes(content)
    with within(seconds=20, gigabytes=2):
        for reader in (read_image, read_mask, open_picture):
            with one_clear_line("bombs"):
                reader(path)


def test_pictures_with_many_scans_and_formats_of_others_are_refused(tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((3000, 4000, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = jpeg.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(jpeg[:-2] + jpeg[scan:-2] * 300 + b"\xff\xd9")
    (tmp_path / "b.png").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 20000 +X 20000\n" + b"\2\2" * 100)
    os.mkfifo(tmp_path / "c.png")
    for name, said in (("a.jpg", "too many scans"), ("b.png", "not an image"), ("c.png", "pipe")):
        for reader in (read_image, open_picture):
            with pytest.raises(UserError, match=said):
                reader(tmp_path / name)
    for reader in (read_yaml, read_checkpoint):
        with pytest.raises(UserError, match="pipe"):
            reader(tmp_path / "c.png")


# ---- numbers that overflow ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(runs):
    return StrDiffusion.load(runs)


@contextlib.contextmanager
def changed(model, kind):
    """The parameters of a network, to be changed in this context."""
    loaded = getattr(model.method.model.networks, kind)
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    loaded.forms.clear()
    try:
        with torch.no_grad():
            yield list(loaded.network.parameters())
    finally:
        loaded.network.load_state_dict(before)
        loaded.forms.clear()


@given(data=st.data())
def test_weights_that_overflow(model, data):
    chosen, factor = data.draw(st.sampled_from(["texture", "structure", "discriminator"])), data.draw(st.sampled_from([1, 1e3, 1e8, 1e20]))
    image, hole = np.random.default_rng(0).random((24, 24, 3)).astype(np.float32), np.zeros((24, 24), bool)
    hole[8:16, 8:16] = True
    solver, resampling = (
        data.draw(st.sampled_from(["ancestral", "posterior", "mars_sde"])),
        data.draw(st.sampled_from(["none", "released"])),
    )
    with one_clear_line("overflows"), changed(model, chosen) as parameters:
        for parameter in parameters:
            parameter.mul_(factor)
        filled = model(image, hole, sampler=solver, resampling=resampling, steps=2).images[0].levels[8:16, 8:16]
        assert np.isfinite(filled).all() and factor < 1e20 or chosen == "discriminator"


@pytest.mark.parametrize("network", ["texture", "structure"])
def test_a_prediction_that_is_not_finite_is_named(model, network):
    said = f"the {network} network predicts values .* at t=10, with precision fp32"
    with pytest.raises(UserError, match=said), changed(model, network) as parameters:
        parameters[0].fill_(1e38)
        model(np.zeros((24, 24, 3), np.float32), np.eye(24, dtype=bool))


# ---- pickles, and what is recorded --------------------------------------------------------------------

callables = st.sampled_from(
    ["builtins bytearray", "_codecs encode", "collections Counter", "torch Size", "builtins set", "torch FloatTensor", "posix system"]
    + ["collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch.storage UntypedStorage", "builtins complex"]
)
operands = st.sampled_from(
    [b"J\x00\xca\x9a\x3b", b"N", b")", b"]", b"}", b"K\x05", b"X\x05\0\0\0latin", b"\x8a\x05\0\0\0\0\x10", b"h\0", b"\x88"]
)


@st.composite
def pickles(draw):
    """A pickle that calls what torch's loader for weights may call, puts results into others, and keeps them."""
    made = b"\x80\x02}q\0"
    for i in range(draw(st.integers(1, 5))):
        how = draw(st.sampled_from(["kept", "left", "removed"]))
        arguments = b"".join(draw(st.lists(operands, max_size=4)))
        called = b"c%s\n(%stRq%c" % (draw(callables).replace(" ", "\n").encode(), arguments, i + 1)
        made += b"K%c%ss" % (i, called) if how == "kept" else called + (b"0" if how == "removed" else b"")
    return made + draw(st.sampled_from([b".", b"s.", b"b.", b"u.", b"\x85.", b""]))


KEPT = b"\x80\x02}q\0K\x01cbuiltins\nbytearray\n(K\x05tRs."  # {1: bytearray(5)}


def zipped(pickled):
    """A checkpoint whose content is this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, record in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", record)
    return file.getvalue()


def plain(content):
    """Whether there is nothing but containers, tensors and plain values."""
    if type(content) in (dict, OrderedDict):
        return all(map(plain, [*content, *content.values()]))
    if type(content) in (list, tuple):
        return all(map(plain, content))
    return type(content) in (str, int, float, bool, type(None), torch.Tensor)


@example(KEPT, False)
@example(KEPT, True)
@given(content=pickles(), legacy=st.booleans())
def test_pickles_that_call(saved, content, legacy):
    """Nothing that a file names is called but what makes dictionaries and tensors: no result of another call is there."""
    path = saved.folder / "calls.pt"
    begin = LEGACY + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    path.write_bytes(begin + content + pickle.dumps([], 2) if legacy else zipped(content))
    with within(seconds=60, gigabytes=0.5), one_clear_line("pickles"):
        assert plain(read_checkpoint(path))


def test_pickles_that_grow(saved):
    path = saved.folder / "grows.pt"
    call = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\0\0\0\0\x10\x85R."
    nested = b"\x80\x02}(K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(40)) + b"K\x01u."  # its hash would take years
    for content, said in ((call, "bytearray"), (nested, "damaged"), (call.replace(b"__builtin__", b"builtins"), "bytearray")):
        path.write_bytes(zipped(content))
        with pytest.raises(UserError, match=said):
            read_checkpoint(path)


@given(data=st.data())
def test_what_a_checkpoint_records(saved, data):
    content = dict(saved.content)
    section = data.draw(st.sampled_from(["sde", "structure", "architecture"]))
    key = data.draw(st.sampled_from(sorted(content[section])) | st.text(max_size=5))
    odd = st.sampled_from(["6", -1, 2.5, 1e9, 10**9, 0, "", "edge", float("nan"), [], {}, True, None, 1e-300, 1e30])
    content[section] = content[section] | {key: data.draw(odd | things)}
    torch.save(content, saved.folder / "fuzz.pt")
    load_in_every_way(saved.folder / "fuzz.pt", saved.config)
    with one_clear_line("records"):
        loaded = load_network(saved.folder / "fuzz.pt")
        for config, values in ((SDEConfig, loaded.sde), (StructureConfig, loaded.structure)):
            assert values.keys() == {field.name for field in dataclasses.fields(config)} and not list(out_of_bounds(config(**values)))
            assert all(fits(hint, values[name]) for name, hint in get_type_hints(config).items())
        from_checkpoints([loaded], None, None)


def fits(hint, value):
    """Whether a value is of a type, or one of a Literal's values."""
    if get_origin(hint) in (Literal, None):
        return value in get_args(hint) if get_args(hint) else type(value) is hint
    return any(fits(part, value) for part in get_args(hint))


@pytest.fixture(scope="module")
def packed(runs, tmp_path_factory):
    """A model folder, as `save` writes it."""
    return StrDiffusion.load(runs).save(tmp_path_factory.mktemp("packed") / "model")


@given(data=st.data())
def test_model_folders(packed, tmp_path_factory, data):
    tree = yaml.safe_load((packed / "model.yml").read_text())
    for key in data.draw(st.lists(st.sampled_from(sorted(keys_of(tree))), min_size=1, max_size=2)):
        *parents, leaf = key.split(".")
        place = tree
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[leaf] = data.draw(odd_numbers if data.draw(st.booleans()) else values)
    folder = tmp_path_factory.getbasetemp() / "model"
    folder.mkdir(exist_ok=True)
    (folder / "model.yml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    for file in packed.glob("*.safetensors"):
        with contextlib.suppress(FileExistsError):
            (folder / file.name).symlink_to(file)
    with within(seconds=20, gigabytes=2), one_clear_line("model folders"):
        model = StrDiffusion.load(folder)
        assert list(out_of_bounds(model.method.model.config)) == []
        model.plan(np.zeros((40, 40, 3), np.float32), np.eye(40, dtype=bool))


def bounds_of(hint, bounds=None):
    """The numbers of a type, each with its bounds."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from bounds_of(inner[0], inner[1])
    elif origin is not None:
        for part in inner if origin is not Literal else ():
            yield from bounds_of(part, bounds)
    elif hint in (int, float):
        yield bounds
    elif dataclasses.is_dataclass(hint):
        for name, part in get_type_hints(hint, include_extras=True).items():
            if get_origin(part) is not ClassVar:
                yield from ((hint.__name__, name) if found is None or math.isinf(found.high) else found for found in bounds_of(part))


@pytest.mark.parametrize(
    "config",
    [ModelConfig, PriorModelConfig, DGTSModelConfig, TestConfig, TrainTextureConfig, TrainStructureConfig, TrainDiscriminatorConfig]
    + [TrainPriorConfig, TrainDGTSConfig, TrainUpsamplerConfig, LayoutOptions, *(method.Options for method in METHODS.values())],
)
def test_every_number_has_an_upper_bound(config):
    assert [found for found in bounds_of(config) if isinstance(found, tuple)] == []


# ---- what cannot be written, tables and traces, the environment ---------------------------------------


@given(data=st.data())
def test_what_cannot_be_written_is_known_before(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("written")
    exif = Image.Exif()
    for tag in data.draw(st.lists(st.sampled_from([270, 282, 305, 700, 33432, 37510, 40961, 41492]), max_size=4)):
        exif[tag] = data.draw(st.sampled_from(["x", b"y" * 70_000, IFDRational(0, 0), 3, 2**40, (1, 2, 3), -1.5, "é\0z"]))
    dpi = data.draw(st.sampled_from([None, (72, 72), (0.01, 1)]))
    channels, kind = data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([np.uint8, np.uint16]))
    shape = data.draw(st.sampled_from([(9, 9), (2, 17_000)]))
    picture = Picture(np.zeros((*shape, channels), kind), Metadata(exif, data.draw(st.sampled_from([None, b"no profile"])), dpi))
    path = folder / f"a{data.draw(st.sampled_from(sorted(FORMATS)))}"
    with one_clear_line("writing"):
        picture.format_for(path)
        picture.save(path)
        assert open_picture(path).size == shape
        return
    with pytest.raises(UserError, match=r"saved as .*\.png"):
        picture.save(path)
    assert open_picture(next(folder.glob("*.png"))).size == shape


json_values = st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))
steps = st.fixed_dictionaries(
    {"t": st.integers(-1, 10**7) | json_values},
    optional={
        "scores": json_values,
        "decisions": st.lists(st.sampled_from(["accepted", "x"]) | json_values, max_size=2),
        "x_evaluations": json_values,
    },
)
near_steps = st.fixed_dictionaries(
    {
        "t": st.integers(0, 100),
        "scores": st.lists(st.floats(-20, 20), max_size=3),
        "decisions": st.lists(st.sampled_from(["accepted", "rejected", "x"]), max_size=3),
        "texture_evaluations": st.integers(0, 9),
    }
)


@given(found=st.lists(steps | near_steps, max_size=3) | json_values, cells=st.lists(st.text(max_size=8) | st.floats().map(str), max_size=9))
def test_traces_and_tables_that_are_damaged(tmp_path_factory, found, cells):
    folder = tmp_path_factory.getbasetemp()
    (folder / "trace.json").write_text(json.dumps({"steps": found}))
    with one_clear_line("traces"):
        summarise(list(read_traces(folder_of(folder / "trace.json")).values()))
    line = ",".join(json.dumps(cell, ensure_ascii=False) for cell in cells)
    (folder / "table.csv").write_bytes(f"source,row,bucket,metric,mean,low,high\nours,{line}\n".encode("utf-8", "surrogatepass"))
    with one_clear_line("tables"):
        read_points(folder / "table.csv")


def folder_of(path):
    """A folder that holds only this file."""
    alone = path.parent / "alone"
    alone.mkdir(exist_ok=True)
    os.replace(path, alone / path.name)
    return alone


@given(
    environment=st.fixed_dictionaries(
        {
            name: st.sampled_from(["0", "1", "2", "x", "", "-1", "1e3", "٣", "9" * 30, "70000"])
            for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
        }
    )
)
def test_the_environment_of_torchrun(environment):
    with pytest.MonkeyPatch.context() as patch, one_clear_line("environments"):
        for name, value in environment.items():
            patch.setenv(name, value)
        distributed.require_numbers()
        assert int(environment["RANK"]) < int(environment["WORLD_SIZE"])


def test_a_user_without_a_name(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    name_the_user()
    assert getpass.getuser() == f"user{os.getuid()}"


# ---- what strangers send to the page ------------------------------------------------------------------

FUNCTIONS = {0: Function(0, False), 1: Function(3, False), 2: Function(10, True)}
PARTS = st.sampled_from(["number", "hole", "hints", "canvas", "width", "height", "erode", "objects", "cutout", "x", "y", "scale", "angle"])
URLS = st.builds("data:image/png;base64,{}".format, st.text(max_size=9) | st.sampled_from(["AAAA", "iVBORw0KGgo="]))
FILE_DATA = st.fixed_dictionaries(
    {"path": st.text(max_size=5), "url": st.just("http://evil.example/x.png"), "meta": st.just({"_type": "gradio.FileData"})}
)
sent_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | URLS | FILE_DATA,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS | st.text(max_size=3), inner, max_size=4),
    max_leaves=6,
)
sent_calls = st.fixed_dictionaries(
    {},
    optional={
        "data": st.lists(sent_values, max_size=4) | sent_values,
        "fn_index": st.integers(-1, 25) | sent_values,
        "session_hash": st.just("abc123") | st.text(max_size=5) | sent_values,
        "trigger_id": st.integers(0, 9) | sent_values,
        "event_data": sent_values,
        "simple_format": st.booleans(),
    },
)


def forms_of(value):
    """All dictionaries in a value."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from forms_of(part)


near_calls = st.builds(
    lambda value, place: {"fn_index": 1, "session_hash": "abc123", "data": [*[0] * place, value, *[0] * (2 - place)]},
    value=sent_values | FILE_DATA,
    place=st.integers(0, 2),
)


@given(
    call=sent_calls | near_calls,
    body=broken([b'{"data": [{"number": 1, "hole": null}, 1, "a"], "fn_index": 1, "session_hash": "abc"}']),
    whole=st.booleans(),
)
def test_calls_of_the_page(call, body, whole):
    count_case("calls")
    try:
        read = read_call(json.dumps(call).encode() if whole else body, FUNCTIONS, queued=False)
    except Malformed as error:
        assert 5 < len(str(error)) < 100
        return
    function = FUNCTIONS[read["fn_index"]]
    assert not function.queued and len(read["data"]) == function.inputs and read["event_data"] is None
    assert all("meta" not in form and "path" not in form and "url" not in form for form in forms_of(read["data"]))


@pytest.fixture(scope="module")
def open_page(runs, tmp_path_factory):
    """A service with one open page and an example on it."""
    limits = Limits(megapixels=1)
    service = Service(
        Sessions(tmp_path_factory.mktemp("visits"), limits),
        Offers({"tiny": runs}, "cpu"),
        [Example("a.png", np.zeros((20, 30, 3), np.uint8))],
        limits,
    )
    service.sessions.open("page")
    service.open_example("page", 0)
    yield service
    service.sessions.close_all()


OUR_SETTINGS = ("tiny", "custom", "mars_sde", 2, "none", 0, 1, 0)


@given(painted=sent_values, arranged=sent_values, wrong=st.dictionaries(st.integers(0, 7), sent_values, max_size=2))
def test_values_of_the_page(open_page, painted, arranged, wrong):
    with one_clear_line("values"):
        chosen = Settings.read([wrong.get(place, value) for place, value in enumerate(OUR_SETTINGS)])
        assert all(type(value) is type(ours) for value, ours in zip(vars(chosen).values(), OUR_SETTINGS, strict=True))
        open_page.expected("page", painted, chosen, arranged)


@given(content=broken(ENCODINGS) | st.binary(max_size=64), name=st.text(max_size=12), cutout=st.booleans())
def test_uploads_to_the_page(open_page, content, name, cutout):
    session = open_page.sessions["page"]
    path = session.new_file()
    path.write_bytes(content)
    with one_clear_line("uploads"):
        (session.add_cutout if cutout else session.open_upload)(path, name)
    assert len(list(session.folder.iterdir())) <= 2 + 2 * len(session.pool)
    session.pool.clear()
    for left in session.folder.glob("*"):
        if left.name != "preview.png" and left != session.photo.path:
            left.unlink()


# ---- text on its way to a terminal --------------------------------------------------------------------


@given(text=st.text(max_size=30) | st.sampled_from(["\x1b[2Jx", "a\nb", "\x9b31m", "\u202ereverse", "\r", "\udcff"]))
def test_text_reaches_terminals_clean(text):
    count_case("texts")
    screen = io.StringIO()
    with contextlib.redirect_stdout(CleanStream(screen)):
        print(text)
    record = logging.LogRecord("x", logging.INFO, "x", 1, "image %s has %d and %.1f", (text, 3, torch.tensor(2.0)), None)
    for shown in (str(UserError(f"no {text}")), CleanFormatter().format(record), *screen.getvalue().split("\n")):
        assert all(character.isprintable() or character == "\t" for character in shown)


def test_the_network_in_the_fixture_is_the_smallest():
    assert sum(p.numel() for p in UNet(1, 4, 1).parameters()) < 20_000
