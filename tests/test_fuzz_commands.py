"""More properties of test_fuzz.py's kind: whole commands, folders that were meddled with, requests to the page, forms of other programs."""

import contextlib
import copy
import dataclasses
import io
import json
import os
import random
import re
import shutil
import struct
import time
import zlib
from pathlib import Path
from types import UnionType
from typing import Annotated, ClassVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from conftest import SIZE, SMALL_DGTS, count_case, write_dgts
from forks import fork
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kill_commands import folder_differences
from test_fuzz import PICTURE, broken, keys_of, odd_numbers, one_clear_line, out_of_bounds, png_chunk, snapshot, values, within
from test_repaint import HEADS, random_weights, write_prior
from test_web_guard import HOST, ask, call

from strdiffusion.app import Composition, StrDiffusion, open_picture
from strdiffusion.app.web.guard import EVENTS, JOIN, PREDICT
from strdiffusion.commands.main import main as strdiffusion
from strdiffusion.config.model import PriorModelConfig
from strdiffusion.data import read_image, read_mask, write_image
from strdiffusion.methods.dgts_loading import DGTSModelConfig
from strdiffusion.networks import GuidedUNet
from strdiffusion.networks.dgts import DGTS
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import load_config

ROOT = Path(__file__).parents[1]
FEW = settings(max_examples=max(settings.default.max_examples // 8, 1))  # of properties whose cases are whole commands
SOME = settings(max_examples=max(settings.default.max_examples // 4, 2))  # of properties whose cases load networks

# ---- files --------------------------------------------------------------------------------------------

HEADS_OF_OTHERS = [
    b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3),  # PSD
    b"DDS " + struct.pack("<7I", 124, 0x1007, 65_535, 65_535, 0, 0, 0) + b"\0" * 100,
    b"\0\0\2" + b"\0" * 9 + struct.pack("<HHBB", 65_535, 65_535, 24, 0),  # TGA
    b"icns" + struct.pack(">I", 2**31),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n%%EndComments\n(x) run\n",
    b"%PDF-1.4\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    b"SIMPLE  =                    T" + b" " * 50,  # FITS
    b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40,  # JPEG 2000
    b"\0\0\0\x1cftypavif\0\0\0\0avifmif1",
    b"\x0a\5\1\x08" + struct.pack("<HHHH", 0, 0, 65_535, 65_535),  # PCX
    b"\1\xda\1\1\0\3" + struct.pack(">HHH", 65_535, 65_535, 3),  # SGI
    b"#define im_width 999999999\n#define im_height 999999999\nstatic char im_bits[] = {",
    b"qoif" + struct.pack(">II", 2**31, 2**31),
    b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0" + struct.pack("<II", 10**6, 22) + PICTURE,  # ICO
    b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**40),  # BigTIFF
    b"\x1f\x8b\x08\0" + b"\0" * 20,
    b"RIFF" + struct.pack("<I", 2**31) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff" * 6,
]

ICO = next(i for i, head in enumerate(HEADS_OF_OTHERS) if PICTURE in head)  # which Pillow would open, were it asked to


@example(HEADS_OF_OTHERS[ICO], b"", "a.png")
@given(
    content=broken(HEADS_OF_OTHERS),
    more=st.binary(max_size=20),
    name=st.sampled_from(["a.png", "a.jpg", "a.tif", "a.webp", "a.gif", "a.eps", "a"]),
)
def test_forms_of_other_programs(tmp_path_factory, content, more, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content + more)
    with within(seconds=20, gigabytes=2):
        for reader in (read_image, read_mask, open_picture):
            with one_clear_line("forms of others"):
                reader(path)
                raise AssertionError("a picture was made of it")


chunk_names = st.sampled_from(
    [b"iCCP", b"iTXt", b"zTXt", b"tRNS", b"PLTE", b"sBIT", b"gAMA", b"cHRM", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"pHYs", b"bKGD", b"IHDR"]
    + [b"IEND", b"IDAT", b"caBX", b"????"]
)
chunk_contents = st.binary(max_size=30) | st.sampled_from(
    [
        b"icc\0\0" + zlib.compress(b"\0" * 10**7),
        b"x\0\1\0en\0x\0" + zlib.compress(b"x" * 10**7),
        struct.pack(">II", 2**31 - 1, 0),
        struct.pack(">8I", *[2**31] * 8),
        b"\0" * 769,
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\x08\0\0\0",  # EXIF, whose next directory is itself
        b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x63\0\0\0\0\0\0",
    ]
)


@given(chunks=st.lists(st.tuples(chunk_names, chunk_contents, st.booleans()), min_size=1, max_size=4), late=st.booleans())
def test_chunks_of_png_files(tmp_path_factory, chunks, late):
    at = PICTURE.rindex(b"IEND") - 4 if late else PICTURE.index(b"IDAT") - 4
    folder = tmp_path_factory.mktemp("chunks")
    path = folder / "a.png"
    path.write_bytes(PICTURE[:at] + b"".join(png_chunk(*chunk) for chunk in chunks) + PICTURE[at:])
    with one_clear_line("chunks"):
        assert np.isfinite(read_image(path)).all()
    with one_clear_line("chunks"):
        picture = open_picture(path)
        for suffix in (".png", ".jpg", ".webp"):
            with contextlib.suppress(UserError):  # alpha in a JPEG
                picture.save(folder / f"b{suffix}")
                assert open_picture(folder / f"b{suffix}").size == picture.size
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10**7
    shutil.rmtree(folder)


photos = st.tuples(st.sampled_from([1, 2, 7, 24, 40]), st.sampled_from([1, 3, 24, 41]), st.sampled_from([None, 1, 2, 3, 4, 5]))
kinds = st.sampled_from([np.uint8, np.uint16, np.int64, np.float32, np.float64, bool, np.complex64, object])


@given(photo=photos, mask=st.none() | photos, kind=kinds, of_mask=kinds, fill=st.sampled_from(["noise", 0, 1, 255, float("nan"), -1, 1e30]))
def test_arrays_as_photograph_and_mask(photo, mask, kind, of_mask, fill):
    def made(shape, dtype):
        height, width, channels = shape
        rng = np.random.default_rng(0)
        levels = rng.integers(0, 2, (height, width)) * 255 if fill == "noise" else np.full((height, width), fill, np.float64)
        with np.errstate(all="ignore"):
            levels = (levels / 255 if fill == "noise" and np.dtype(dtype).kind == "f" else levels).astype(dtype)
        return levels if channels is None else np.repeat(levels[..., None], channels, axis=2)

    image, upper_half = made(photo, kind), np.arange(photo[0])[:, None].repeat(photo[1], axis=1) < photo[0] / 2
    with one_clear_line("arrays"):
        result = StrDiffusion.load("mean_fill")(image, upper_half if mask is None else made(mask, of_mask)).images[0]
        levels = np.asarray(result, np.float64)
        assert result.size == photo[:2] and np.isfinite(levels).all() and levels.min() >= 0
        assert levels.max() <= 1 or np.dtype(kind).kind != "f"


# ---- model folders ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model folders of a prior and of DGTS, as `save` writes them."""
    sources, packed = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("packed")
    for name in ("prior", "dgts"):
        (sources / name).mkdir()
    write_prior(sources / "prior" / "prior.pt", "prior", random_weights(GuidedUNet(32, [32, 32], 1, [], **HEADS)))
    torch.manual_seed(0)
    write_dgts(sources / "dgts" / "dgts.pt", "dgts", DGTS(**SMALL_DGTS))
    return [StrDiffusion.load(sources / name).save(packed / name) for name in ("prior", "dgts")]


@given(data=st.data())
def test_model_folders_of_other_methods(folders, tmp_path_factory, data):
    source = data.draw(st.sampled_from(folders))
    tree = yaml.safe_load((source / "model.yml").read_text())
    for key in data.draw(st.lists(st.sampled_from(sorted(keys_of(tree))), min_size=1, max_size=2)):
        *parents, leaf = key.split(".")
        place = tree
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[leaf] = data.draw(odd_numbers | st.sampled_from([[1] * 40, [10**6]]) if data.draw(st.booleans()) else values)
    folder = tmp_path_factory.mktemp("model")
    for file in source.glob("*.safetensors"):
        (folder / file.name).symlink_to(file)
    (folder / "model.yml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    with within(seconds=20, gigabytes=2), one_clear_line("folders of others"):
        model = StrDiffusion.load(folder)
        method = model.method
        assert list(out_of_bounds(method.settings if method.name == "dgts" else method.model.config)) == []
        model.plan(np.zeros((SIZE, SIZE, 3), np.float32), np.eye(SIZE, dtype=bool))
    shutil.rmtree(folder)


def numbers_with_bounds(hint, path=()):
    """The keys of all numbers below a dataclass, each with its bounds."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield path, inner[1]
    elif dataclasses.is_dataclass(hint):
        for name, part in get_type_hints(hint, include_extras=True).items():
            if get_origin(part) is not ClassVar:
                yield from numbers_with_bounds(part, (*path, name))
    elif origin in (Union, UnionType):
        for part in inner:
            yield from numbers_with_bounds(part, path)


@pytest.mark.parametrize("of, config, count", [("prior", PriorModelConfig, 10), ("dgts", DGTSModelConfig, 8)])
def test_numbers_beyond_their_bounds_are_refused_by_name(folders, tmp_path, of, config, count):
    source = next(folder for folder in folders if folder.name == of)
    tree = yaml.safe_load((source / "model.yml").read_text())
    tried = 0
    for (*parents, leaf), bounds in numbers_with_bounds(config):
        changed = copy.deepcopy(tree)
        place = changed
        for parent in parents:
            place = place[parent] or {}
        if leaf not in place:  # of a network that this folder does not have
            continue
        place[leaf] = [2 * bounds.high + 2] if isinstance(place[leaf], list) else 2 * bounds.high + 2
        (tmp_path / "model.yml").write_text(yaml.safe_dump(changed), encoding="utf-8")
        with pytest.raises(UserError, match=rf"{leaf}\b.*{re.escape(str(bounds))}"):
            load_config(config, tmp_path / "model.yml")
        tried += 1
    assert tried >= count


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "F64", "BOOL", "F8_E4M3", "x", 3]),
        "shape": st.lists(st.sampled_from([0, 1, 3, 4, 2**31, 2**62, -1, "x"]), max_size=4),
        "data_offsets": st.lists(st.sampled_from([0, 4, 8, 100, 2**62, -1]), max_size=3),
    }
)


@given(data=st.data())
def test_safetensors_of_strangers(folders, tmp_path_factory, data):
    source = folders[1]
    (file,) = source.glob("*.safetensors")
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    names = sorted(json.loads(content[8 : 8 + length]))
    if data.draw(st.booleans()):
        header = json.loads(content[8 : 8 + length])
        header[data.draw(st.sampled_from(names) | st.text(max_size=5))] = data.draw(entries | st.none() | st.integers())
        text = json.dumps(header).encode() + data.draw(st.binary(max_size=3))
        number = data.draw(st.sampled_from([len(text), 0, 2**62, 2**64 - 1, 10**8]) | st.just(len(text)))
        content = struct.pack("<Q", number) + text + content[8 + length :]
    else:
        content = data.draw(broken([content]))
    folder = tmp_path_factory.mktemp("tensors")
    shutil.copy(source / "model.yml", folder)
    (folder / file.name).write_bytes(content)
    with within(seconds=20, gigabytes=2), one_clear_line("safetensors"):
        model = StrDiffusion.load(folder)
        assert all(value.shape is not None for value in model.method.model.core.state_dict().values())
    shutil.rmtree(folder)


of_a_training = values | st.just({"data": None}) | st.builds(lambda size: {"data": {"size": size}}, values)


@SOME
@given(content=of_a_training, raw=broken([b"data: {size: 24}\n"]))
def test_configurations_beside_checkpoints(runs, tmp_path_factory, content, raw):
    folder = tmp_path_factory.mktemp("runs")
    for kind in ("texture", "structure"):
        (folder / kind).mkdir()
        (folder / kind / "latest.pt").symlink_to(runs / kind / "latest.pt")
    (folder / "texture" / "config.yml").write_bytes(yaml.safe_dump(content).encode() if content != 0 else raw)
    with one_clear_line("configurations beside checkpoints"):
        assert 8 <= StrDiffusion.load(folder).size <= 2048
    shutil.rmtree(folder)


@given(data=st.data())
def test_compositions_of_strangers(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    write_image(folder / "cut.png", np.zeros((8, 8, 3)))
    cutout = {"image": "cut.png", "position": [5, 5], "scale": 1, "angle": 3}
    tree = {"objects": [cutout], "width": 32, "height": 24, "opaque": 0.5, "erode": 0}
    place = data.draw(st.sampled_from([tree, cutout]))
    odd = odd_numbers | st.sampled_from([1e-3, 8192, "/dev/zero", ".."])
    place[data.draw(st.sampled_from(sorted(place)) | st.text(max_size=5))] = data.draw(odd if data.draw(st.booleans()) else values)
    (folder / "scene.yml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    with within(seconds=20, gigabytes=2), one_clear_line("compositions"):
        composition = Composition.load(folder / "scene.yml")
        assert list(out_of_bounds(composition)) == []
        composition.render()


# ---- commands -----------------------------------------------------------------------------------------

COMMANDS = ["inpaint", "compose", "masks", "info", "check", "evaluate", "test", "reproduce", "adapt", "train", "nothing", ""]
words = st.sampled_from(
    [
        "-o",
        "--output",
        "--seed",
        "--samples",
        "--steps",
        "--model",
        "--method",
        "telea",
        "mean_fill",
        "--polarity",
        "--feather",
        "--resampling",
    ]
    + ["--device", "cpu", "cuda", "--count", "--size", "--overwrite", "-opt", "--precision", "fp16", "--quality", "--", "-", "-h", "a.png"]
    + ["b.png", "out", "out.png", "absent", "scene.yml", "key=value", "output=", "=", "texture", "x" * 300, "é\udcff\n\x1b[2J"]
    + ["-1", "0", "1e999", "nan", "9" * 30, "1.5", "..", "~", ""]
) | st.text(st.characters(blacklist_characters="\0/"), max_size=6)


@contextlib.contextmanager
def inside_of(folder):
    """Work in a folder, with streams that are files of an encoding."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@SOME
@given(st.sampled_from(COMMANDS), st.lists(words, max_size=6), st.sampled_from(["utf-8", "ascii", "cp1252", "utf-16"]))
@example("inpaint", ["é\udcff.png", "b.png", "-o", "out.png", "--method", "telea"], "ascii")
def test_words_of_a_command_line(tmp_path_factory, command, rest, encoding):
    """Whatever is typed, into whatever terminal: a status, no traceback, and nothing beside the outputs is touched."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "a.png").write_bytes(PICTURE)
    write_image(folder / "b.png", np.eye(16))
    (folder / "scene.yml").write_text("objects: []\n")
    before = snapshot(folder)
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    count_case("command lines")
    began = time.monotonic()
    with inside_of(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = strdiffusion([command, *rest]) or 0
        except SystemExit as ended:  # --help
            status = ended.code or 0
    error.flush()
    said = error.buffer.getvalue().decode(encoding, "replace")
    assert status in (0, 1, 2, 141) and "Traceback" not in said and time.monotonic() - began < 20
    assert status != 2 or said.count("error: ") == 1
    after = snapshot(folder)
    assert "--overwrite" in rest or {path: content for path, content in after.items() if path in before} == before
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def finished(quick, tmp_path_factory):
    """The folder of a finished test."""
    folder = tmp_path_factory.mktemp("finished") / "whole"
    assert strdiffusion(quick("test", folder)) == 0
    return folder


@FEW
@given(data=st.data())
def test_results_that_were_meddled_with(quick, finished, tmp_path_factory, data):
    """Files of a finished test are damaged, missing, or said to be unfinished: the same command mends it or refuses, and never says that
    results are whole that are not.
    """
    folder = tmp_path_factory.mktemp("meddled") / "out"
    shutil.copytree(finished, folder)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for name in data.draw(st.lists(st.sampled_from(found) | st.sampled_from(["unfinished.txt", ".lock", "x.png"]), min_size=1, max_size=2)):
        path = folder / name
        how = data.draw(st.sampled_from(["empty", "gone", "broken", "cut"]))
        content = path.read_bytes() if path.exists() else b"This folder is not whole.\nkey\n"
        path.unlink(missing_ok=True)
        if how == "broken" and path.suffix != ".png":  # a bit of a picture that flips later is nothing that a command does
            path.write_bytes(data.draw(broken([content])))
        elif how != "gone":
            path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    count_case("meddled results")
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        status = strdiffusion(quick("test", folder))
    assert status in (0, 2) and "Traceback" not in said.getvalue()
    if status == 0 and not (folder / "x.png").exists():
        pictures = [path.relative_to(finished) for path in finished.rglob("*.png")]
        assert all((folder / name).read_bytes() == (finished / name).read_bytes() for name in pictures)
        assert yaml.safe_load((folder / "config.yml").read_text()) and (folder / "summary.md").stat().st_size > 100
    shutil.rmtree(folder.parent)


@FEW
@given(kind=st.sampled_from(["test", "inpaint", "masks"]), delay=st.floats(0, 0.3), seed=st.integers(0, 99))
def test_two_processes_race(quick, tmp_path_factory, kind, delay, seed):
    """One of two equal commands does the work, whichever comes first; the other refuses."""
    count_case("races")
    folder = tmp_path_factory.mktemp("race")
    line = quick(kind, folder / "out")
    first = fork(line, folder / "first")
    time.sleep(delay * random.Random(seed).random())
    second = fork(line, folder / "second")
    ended = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in (first, second)]
    assert sorted(ended) == [0, 2], (folder / "first").read_text() + (folder / "second").read_text()
    strdiffusion(quick(kind, folder / "alone"))
    assert folder_differences(folder / "alone", folder / "out") == []
    shutil.rmtree(folder)


# ---- requests to the page -----------------------------------------------------------------------------

header_names = st.sampled_from(
    [
        b"host",
        b"origin",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"cookie",
        b"range",
    ]
)
header_values = st.sampled_from(
    [b"localhost", b"evil.example", b"", b"-1", b"9" * 30, b"1e3", b"null", b"http://[", b"chunked", b"\xff\xfe", b"bytes=0-,1-2,3-" * 99]
) | st.binary(max_size=12)
paths = st.sampled_from(
    ["/", PREDICT, JOIN, EVENTS, "/config", "/session/a/picture", "/session/../x", "/gradio_api/upload", "/gradio_api/file=/etc/passwd"]
    + ["//", "/assets/../../x", "/session/" + "a" * 70 + "/b", "/proxy=http://evil", "/static/%2e%2e/x", "\0", "/é"]
) | st.text(max_size=12)


@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "x", ""]),
    path=paths,
    headers=st.lists(st.tuples(header_names, header_values), max_size=4),
    body=broken([json.dumps(call([1], 1)).encode(), b"[" * 3000, b'{"data": 1e999, "data": "\\ud800"}']),
    query=st.sampled_from([b"", b"session_hash=abc123", b"session_hash=../x", b"%ff=&&&=", b"session_hash=" + b"a" * 10**4]),
    named=st.booleans(),
)
def test_requests_of_strangers(method, path, headers, body, query, named):
    count_case("requests")
    status, _ = ask(method, path, body, [*[HOST] * named, *headers], query=query)
    assert status in (200, 400, 403, 404, 408, 413, 503)
    if any(name == b"host" for name, _ in headers) or not named:
        names = [value for name, value in headers if name == b"host"] + [HOST[1]] * named
        assert status == 403 or len(names) == 1 and names[0].startswith(b"localhost")
