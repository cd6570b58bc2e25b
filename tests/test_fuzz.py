"""Property-based fuzz: whatever is in a configuration, image, mask, checkpoint, index or file name, there is a result or one clear line.

The suite runs a few cases of each property; python -m pytest tests/test_fuzz.py --fuzz-cases 300 runs as many of each.
"""

import contextlib
import io
import json
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import count_case
from hypothesis import given
from hypothesis import strategies as st

from strdiffusion.checkpoints import load_network
from strdiffusion.config import TrainDiscriminatorConfig, TrainStructureConfig, TrainTextureConfig
from strdiffusion.data import find_images, read_image, read_mask
from strdiffusion.evaluation.folder import inpaint_folder
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.table import read_rows
from strdiffusion.networks import UNet
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build, load_config
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
        with pytest.raises(UserError, match="nothing is overwritten"):
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


def test_the_network_in_the_fixture_is_the_smallest():
    assert sum(p.numel() for p in UNet(1, 4, 1).parameters()) < 20_000
