"""Image files against Pillow, and the listing of folders."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from strdiffusion.data import images, listing
from strdiffusion.system.errors import UserError

OLD = 1_600_000_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def levels(rng, *shape, dtype=np.uint8):
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def save(path, array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_rgb_and_gray_files(tmp_path, rng, suffix):
    rgb = levels(rng, 5, 7, 3)
    options = {"lossless": True} if suffix == "webp" else {}
    image = images.read_image(save(tmp_path / f"bild-ü-画.{suffix}", rgb, **options))
    assert image.dtype == np.float32 and np.array_equal(image, rgb / np.float32(255))
    gray = rgb[..., 0]
    image = images.read_image(save(tmp_path / f"g.{suffix}", gray, **options))
    assert image.shape == (5, 7, 3) and np.array_equal(np.rint(image * 255), np.repeat(gray[..., None], 3, 2))


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_is_dropped(tmp_path, rng, suffix):
    rgba = levels(rng, 5, 7, 4)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    image = images.read_image(save(tmp_path / f"a.{suffix}", rgba, **options))
    assert np.array_equal(np.rint(image * 255), rgba[..., :3])


def test_gray_alpha_palette_and_bilevel(tmp_path, rng):
    rgb = levels(rng, 6, 7, 3)
    palette = Image.fromarray(rgb).quantize(8)
    bilevel = Image.fromarray(rgb[..., 0] > 127)
    gray_alpha = Image.fromarray(rgb[..., :2].copy(), "LA")
    for name, image, options in [("p", palette, {}), ("t", palette, {"transparency": 2}), ("b", bilevel, {}), ("la", gray_alpha, {})]:
        read = images.read_image(save(tmp_path / f"{name}.png", image, **options))
        expected = np.array((image.getchannel(0) if name == "la" else image).convert("RGB"))
        assert np.array_equal(np.rint(read * 255), expected), name


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit(tmp_path, rng, suffix):
    gray = levels(rng, 5, 7, dtype=np.uint16)
    image = images.read_image(save(tmp_path / f"g.{suffix}", gray))
    assert np.abs(image - (gray / 65535)[..., None]).max() < 1e-7
    for channels in (3, 4):
        bgr = levels(rng, 5, 7, channels, dtype=np.uint16)
        images.opencv().imwrite(str(tmp_path / f"c.{suffix}"), bgr)
        image = images.read_image(tmp_path / f"c.{suffix}")
        assert np.abs(image - bgr[..., 2::-1] / 65535).max() < 1e-7


def test_float_tiff(tmp_path, rng):
    gray = rng.random((5, 7)).astype(np.float32)
    assert np.array_equal(images.read_pixels(save(tmp_path / "f.tif", gray)), gray)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(tmp_path, rng, orientation, suffix):
    smooth = np.array(Image.fromarray(levels(rng, 4, 5, 3)).resize((40, 24), Image.BICUBIC))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 98, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    path = save(tmp_path / f"e.{suffix}", smooth, exif=exif, **options)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"), int)
    assert (expected.shape[0] == 40) == (orientation >= 5)
    assert np.abs(images.read_image(path) * 255 - expected).max() < 4


def test_unreadable_files_name_the_path(tmp_path, rng):
    whole = io.BytesIO()
    Image.fromarray(levels(rng, 64, 64, 3)).save(whole, "PNG")
    contents = {
        "text.png": b"hello, I am a text",
        "empty.jpg": b"",
        "cut.png": whole.getvalue()[:3000],
        "fake.tif": b"II*\0garbage and more garbage",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            images.read_image(tmp_path / name)
    for name in ("missing.png", "."):
        with pytest.raises(UserError, match="cannot read image"):
            images.read_image(tmp_path / name)


def test_opencv_prints_nothing(tmp_path):
    (tmp_path / "text.tif").write_bytes(b"II*\0garbage and more garbage")
    code = (
        "from strdiffusion.data.images import read_image\nfrom strdiffusion.system.errors import UserError\n"
        f"try: read_image({str(tmp_path / 'text.tif')!r})\nexcept UserError: print('refused')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("refused\n", "")


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5), (6, 5, 1)])
def test_write_image(tmp_path, rng, shape):
    image = rng.uniform(-0.2, 1.2, shape)
    images.write_image(tmp_path / "new" / "out.png", image)
    written = np.array(Image.open(tmp_path / "new" / "out.png"))
    assert written.dtype == np.uint8
    assert np.array_equal(written, np.rint(image.clip(0, 1).astype(np.float32) * 255).reshape(written.shape))
    assert os.listdir(tmp_path / "new") == ["out.png"]


def test_write_image_failures(tmp_path, rng, monkeypatch, caplog):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="out.png"):
        images.write_image(tmp_path / "file" / "out.png", rng.random((4, 4)))
    images.write_image(tmp_path / "a.png", np.zeros((4, 4)))
    before = (tmp_path / "a.png").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="No space left"):
        images.write_image(tmp_path / "a.png", np.ones((4, 4)))
    assert (tmp_path / "a.png").read_bytes() == before and len(os.listdir(tmp_path)) == 2
    with pytest.raises(ValueError):
        images.write_image(tmp_path / "b.png", np.zeros((3, 4, 4)))
    monkeypatch.undo()
    images.write_image(tmp_path / "nan.png", np.full((4, 4), np.nan))
    assert "nan.png" in caplog.text and np.array(Image.open(tmp_path / "nan.png")).max() == 0


def test_resize(rng):
    image = rng.random((8, 12, 3)).astype(np.float32)
    means = image.reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(images.resize_image(image, 4, 6) - means).max() < 1e-6
    step = np.zeros((4, 4), np.float32)
    step[:, 2:] = 1
    large = images.resize_image(step, 16, 16)
    assert large.min() == 0 and large.max() == 1 and large.shape == (16, 16)
    rows = np.repeat(rng.random((8, 1)).astype(np.float32), 12, 1)
    both = images.resize_image(rows, 4, 24)  # shrinks one way and grows the other: rows are still averaged
    assert np.abs(both - rows.reshape(4, 2, 12).mean(1)[:, :1]).max() < 1e-6
    assert images.resize_image(image, 8, 12) is image


def test_side_lengths_and_crop():
    image = np.zeros((50, 75, 3), np.float32)
    assert images.enlarge_to(image, 64).shape == (64, 96, 3) and images.enlarge_to(image, 50) is image
    assert images.enlarged_size(75, 50, 64) == (96, 64)
    assert images.resize_short_side(image, 20).shape == (20, 30, 3)
    numbers = np.arange(30).reshape(5, 6)
    assert np.array_equal(images.center_crop(numbers, 3, 2), numbers[1:4, 2:4])
    with pytest.raises(ValueError):
        images.center_crop(numbers, 6, 2)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def found(folder, index=None):
    return [path.relative_to(folder).as_posix() for path in listing.find_images(folder, index)]


def test_find_images_order_links_and_hidden(tmp_path):
    root = tmp_path / "root"
    touch(root, "b.PNG", "a/2.jpg", "a/10.jpeg", "a.x/1.tif", "note.txt", "z/q/1.webp")
    touch(root, ".hidden/1.png", "a/.secret.png")
    touch(tmp_path / "other", "o.bmp")
    (root / "a" / "loop").symlink_to(root)
    (root / "b-link").symlink_to(root / "z")
    (root / "away").symlink_to(tmp_path / "other")
    (root / "broken").symlink_to(tmp_path / "nowhere")
    assert found(root) == ["a.x/1.tif", "a/10.jpeg", "a/2.jpg", "away/o.bmp", "b.PNG", "z/q/1.webp"]


def test_find_images_refuses(tmp_path):
    touch(tmp_path, "a.png", "empty/none.txt")
    for path, text in [("missing", "does not exist"), ("a.png", "is a file"), ("empty", "no image")]:
        with pytest.raises(UserError, match=text) as error:
            listing.find_images(tmp_path / path)
        assert str(tmp_path / path) in str(error.value) and "\n" not in str(error.value)


def age(root):
    """Give all folders an old modification time, as after a quiet while."""
    for at, _, _ in os.walk(root):
        os.utime(at, (OLD, OLD))


@pytest.fixture
def listed(monkeypatch):
    """The folders that were listed since."""
    seen, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(str(path)) or scandir(path))
    return seen


def test_index_lists_only_what_changed(tmp_path, listed):
    root, index = tmp_path / "root", tmp_path / "cache" / "index.json"
    touch(root, "a/1.png", "b/1.png", "b/c/1.png")
    age(root)
    first = found(root, index)
    listed.clear()
    assert found(root, index) == first == ["a/1.png", "b/1.png", "b/c/1.png"] and listed == []
    touch(root, "b/2.png", "b/d/9.png")
    listed.clear()
    assert found(root, index) == ["a/1.png", "b/1.png", "b/2.png", "b/c/1.png", "b/d/9.png"]
    assert sorted(listed) == [str(root / "b"), str(root / "b" / "d")]
    # Just changed: a second change within the clock's tick would be missed, so it is listed again.
    listed.clear()
    found(root, index)
    assert str(root / "b") in listed
    (root / "b" / "2.png").unlink()
    age(root)
    os.utime(root / "b", (OLD + 1, OLD + 1))
    assert "b/2.png" not in found(root, index)


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"folders": {"": [1]}}', b'{"folders": {"": [1, 2, [3], [], []]}}', b'{"root": "/elsewhere"}']
)
def test_unusable_index_is_rebuilt(tmp_path, content, caplog):
    root, index = tmp_path / "root", tmp_path / "index.json"
    touch(root, "1.png")
    age(root)
    if content.startswith(b'{"folders"') or content.startswith(b'{"root"'):
        head = {"format": listing.INDEX_FORMAT, "root": os.path.realpath(root)}
        content = json.dumps({**head, **json.loads(content)}).encode()
    index.write_bytes(content)
    assert found(root, index) == ["1.png"] and "index.json" in caplog.text
    caplog.clear()
    assert found(root, index) == ["1.png"] and caplog.text == ""


@pytest.mark.parametrize("content", [b"[]", b"\xff\xd8\xff\xe0", b'{"format": "other"}', b"my notes\n"])
def test_a_file_that_is_no_index_is_not_overwritten(tmp_path, content, caplog):
    """data.index=photo.png must not cost the photograph."""
    touch(tmp_path, "root/1.png")
    (tmp_path / "theirs").write_bytes(content)
    assert found(tmp_path / "root", tmp_path / "theirs") == ["1.png"] and "another kind and stays" in caplog.text
    assert (tmp_path / "theirs").read_bytes() == content


def test_index_that_cannot_be_written(tmp_path, caplog):
    touch(tmp_path, "root/1.png", "file")
    assert found(tmp_path / "root", tmp_path / "file" / "index.json") == ["1.png"] and "cannot be" in caplog.text
    (tmp_path / "folder").mkdir()
    assert found(tmp_path / "root", tmp_path / "folder") == ["1.png"] and os.listdir(tmp_path / "folder") == []


def test_default_index(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    touch(tmp_path, "a/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    path = listing.default_index(tmp_path / "a")
    assert path.parent == tmp_path / "cache" / "strdiffusion" / "index"
    assert path == listing.default_index(tmp_path / "link") != listing.default_index(tmp_path)
