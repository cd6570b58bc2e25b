"""Pictures of every kind: read upright, written with everything that is not pixels as it was."""

import io
import logging

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

from strdiffusion.app import Picture, open_picture
from strdiffusion.system.errors import UserError

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(channels=3, dtype=np.uint8, shape=(6, 10), seed=0):
    high = {np.uint8: 256, np.uint16: 65536}[dtype]
    return np.random.default_rng(seed).integers(0, high, (*shape, channels), dtype=dtype)


def exif(orientation=None):
    data = Image.Exif()
    data[ExifTags.Base.Make], data[ExifTags.Base.DateTime] = "Maker", "2024:01:02 03:04:05"
    data[ExifTags.IFD.Exif] = {int(ExifTags.Base.LensModel): "a lens"}
    data[ExifTags.IFD.GPSInfo] = {int(ExifTags.GPS.GPSLatitudeRef): "N"}
    if orientation:
        data[ExifTags.Base.Orientation] = orientation
    return data


def metadata(folder):
    """What a picture with all of it says."""
    Image.fromarray(pixels()).save(folder / "metadata.png", exif=exif(), icc_profile=PROFILE, dpi=(300, 300))
    return open_picture(folder / "metadata.png").metadata


def require_metadata(path):
    with Image.open(path) as image:
        found = image.getexif()
        assert found[ExifTags.Base.Make] == "Maker" and found[ExifTags.Base.DateTime] == "2024:01:02 03:04:05"
        assert found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "a lens"
        assert found.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert found.get(ExifTags.Base.Orientation, 1) == 1
        assert image.info["icc_profile"] == PROFILE
        if image.format != "WEBP":
            assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_eight_bits_come_back_bit_for_bit(tmp_path, suffix, channels):
    levels = pixels(channels)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    image = Image.fromarray(levels[..., 0] if channels == 1 else levels)
    assert image.mode == mode
    if suffix == ".webp" and channels < 3:
        pytest.skip("WebP has no gray")
    if suffix == ".tif":  # Pillow writes no EXIF into one
        Picture(levels, metadata(tmp_path)).save(tmp_path / "in.tif")
        assert np.array_equal(tifffile.imread(tmp_path / "in.tif").reshape(levels.shape), levels)
    else:
        options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        image.save(tmp_path / f"in{suffix}", exif=exif(), icc_profile=PROFILE, dpi=(300, 300), **options)
    picture = open_picture(tmp_path / f"in{suffix}")
    assert np.array_equal(picture.levels, levels) and picture.levels.dtype == np.uint8
    picture.save(tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as out:
        assert out.mode == mode and np.array_equal(np.asarray(out).reshape(levels.shape), levels)
    require_metadata(tmp_path / f"out{suffix}")


def png_16(path, levels):
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[levels.shape[2]]
    assert cv2.imwrite(str(path), levels[..., order])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_of_16_bits(tmp_path, channels):
    levels = pixels(channels, np.uint16)
    png_16(tmp_path / "plain.png", levels)
    plain = open_picture(tmp_path / "plain.png")
    assert np.array_equal(plain.levels, levels) and plain.levels.dtype == np.uint16
    Picture(levels, metadata(tmp_path)).save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    picture.save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        read = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert read.dtype == np.uint16 and np.array_equal(open_picture(tmp_path / name).levels, levels)
        require_metadata(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiff_of_16_bits(tmp_path, channels, compression):
    levels = pixels(channels, np.uint16, (70, 9))
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    if compression is None or channels == 4:  # OpenCV writes no other alpha than associated
        options = {1: {}, 3: {"photometric": "rgb"}, 4: {"photometric": "rgb", "extrasamples": ["unassalpha"]}}[channels]
        tifffile.imwrite(tmp_path / "in.tif", levels.squeeze(), **options)
    else:
        cv2.imwrite(str(tmp_path / "in.tif"), levels[..., order], [cv2.IMWRITE_TIFF_COMPRESSION, 5 if compression == "lzw" else 8])
    picture = open_picture(tmp_path / "in.tif")
    assert np.array_equal(picture.levels, levels) and picture.levels.dtype == np.uint16
    Picture(picture.levels, metadata(tmp_path)).save(tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:  # another reader
        assert np.array_equal(file.pages[0].asarray().reshape(levels.shape), levels)
        assert file.pages[0].tags["ExifTag"].value["LensModel"] == "a lens"
    again = open_picture(tmp_path / "out.tif")
    assert np.array_equal(again.levels, levels)
    again.save(tmp_path / "again.tif")
    for name in ("out.tif", "again.tif"):
        require_metadata(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, orientation):
    upright, sixteen = pixels(shape=(6, 10)), pixels(3, np.uint16, (6, 10))
    store = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(store(upright)))
    stored.save(tmp_path / "a.png", exif=exif(orientation), icc_profile=PROFILE, dpi=(300, 300))
    picture = open_picture(tmp_path / "a.png")
    assert np.array_equal(picture.levels, upright)
    picture.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as out:
        assert np.array_equal(np.asarray(out), upright)
    require_metadata(tmp_path / "out.png")
    # the same with 16 bits, which take another way
    metadata = open_picture(tmp_path / "a.png").metadata
    metadata.exif[ExifTags.Base.Orientation] = orientation
    for name in ("b.png", "b.tif"):
        Picture(np.ascontiguousarray(store(sixteen)), metadata).save(tmp_path / name)
        assert np.array_equal(open_picture(tmp_path / name).levels, sixteen), name


def test_jpeg_keeps_its_quality(tmp_path):
    smooth = cv2.resize(pixels(shape=(4, 4)), (64, 48), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(tmp_path / "in.jpg", quality=80, subsampling=2, exif=exif(), icc_profile=PROFILE, dpi=(300, 300))
    picture = open_picture(tmp_path / "in.jpg")
    picture.save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "in.jpg") as before, Image.open(tmp_path / "out.jpg") as after:
        assert before.quantization == after.quantization
        assert np.abs(np.asarray(before, int) - np.asarray(after, int)).max() <= 8
    require_metadata(tmp_path / "out.jpg")
    picture.save(tmp_path / "out.png")  # what was read, without loss
    assert np.array_equal(open_picture(tmp_path / "out.png").levels, picture.levels)
    require_metadata(tmp_path / "out.png")


def test_palette_with_transparency(tmp_path):
    image = Image.fromarray(pixels(1)[..., 0] % 4, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image.save(tmp_path / "p.png", transparency=bytes([255, 0, 128, 255]))
    with Image.open(tmp_path / "p.png") as opened:
        assert opened.mode == "P"
        expected = np.asarray(opened.convert("RGBA"))
    picture = open_picture(tmp_path / "p.png")
    assert np.array_equal(picture.levels, expected) and set(np.unique(picture.alpha)) == {0, 128, 255}
    picture.save(tmp_path / "out.png")
    assert np.array_equal(open_picture(tmp_path / "out.png").levels, expected)


def test_cmyk_becomes_rgb_with_a_notice(tmp_path, caplog):
    Image.fromarray(np.full((6, 10, 4), (0, 255, 255, 0), np.uint8), "CMYK").save(tmp_path / "c.jpg", quality=95)
    picture = open_picture(tmp_path / "c.jpg")
    assert picture.levels.shape == (6, 10, 3) and "CMYK" in caplog.text
    red, *others = picture.levels.reshape(-1, 3).mean(axis=0)
    assert red > 230 and max(others) < 60
    picture.save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as out:
        assert out.mode == "RGB" and out.info["icc_profile"]


def test_stale_tags_of_how_a_tiff_was_stored_are_not_copied(tmp_path):
    levels = pixels(3, shape=(64, 64))
    tifffile.imwrite(tmp_path / "tiled.tif", levels, tile=(16, 16), photometric="rgb", compression="zlib", predictor=True)
    picture = open_picture(tmp_path / "tiled.tif")
    picture.save(tmp_path / "out.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), levels)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.eye(4) > 0, np.eye(4, dtype=np.uint8)[..., None] * 255),
        (pixels(3), pixels(3)),
        (pixels(1, np.uint16)[..., 0], pixels(1, np.uint16)),
        (torch.from_numpy(pixels(3)).permute(2, 0, 1), pixels(3)),
        (torch.full((1, 3, 4, 5), 0.25), np.full((4, 5, 3), 0.25, np.float32)),
        (Image.fromarray(pixels(4)), pixels(4)),
        (np.full((4, 5), 0.5), np.full((4, 5, 1), 0.5, np.float32)),
    ],
)
def test_arrays_tensors_and_pillow_images(array, expected):
    picture = open_picture(array)
    assert np.array_equal(picture.levels, expected) and picture.levels.dtype == expected.dtype


def test_as_array_tensor_and_pillow_image(tmp_path):
    levels = pixels(4)
    picture = Picture(levels)
    assert np.array_equal(np.asarray(picture), levels) and np.array_equal(np.asarray(picture.pil()), levels)
    assert torch.equal(picture.tensor(), torch.from_numpy(levels).permute(2, 0, 1).float() / 255)
    sixteen = Picture(pixels(3, np.uint16))
    assert np.abs(np.asarray(sixteen.pil(), float) * 257 - sixteen.levels).max() <= 129
    Image.fromarray(pixels()).save(tmp_path / "a.png", exif=exif(), icc_profile=PROFILE, dpi=(300, 300))
    out = io.BytesIO()
    pil = open_picture(tmp_path / "a.png").pil()
    pil.save(out, "PNG", exif=pil.getexif(), icc_profile=pil.info["icc_profile"], dpi=pil.info["dpi"])
    (tmp_path / "b.png").write_bytes(out.getvalue())
    require_metadata(tmp_path / "b.png")


def test_sixteen_bits_in_a_format_of_eight(tmp_path, caplog):
    Picture(pixels(3, np.uint16)).save(tmp_path / "out.webp")
    assert "rounded" in caplog.text and np.asarray(Image.open(tmp_path / "out.webp")).dtype == np.uint8


def truncated(tmp_path):
    Image.fromarray(pixels(shape=(60, 60))).save(tmp_path / "whole.png")
    return (tmp_path / "whole.png").read_bytes()[:900]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        (b"", "empty file"),
        (b"text", "not an image"),
        (truncated, "damaged"),
        ("animation", "2 frames"),
        ("float", "type float"),
        ("bomb", "megapixels"),
    ],
)
def test_files_that_are_no_picture(tmp_path, content, said, monkeypatch):
    path = tmp_path / "x.png"
    if content == "animation":
        path = tmp_path / "x.gif"
        Image.new("RGB", (4, 4), "red").save(path, save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    elif content == "float":
        path = tmp_path / "x.tif"
        Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    elif content == "bomb":
        Image.fromarray(pixels()).save(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content(tmp_path))
    with pytest.raises(UserError, match=said) as error:
        open_picture(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 5)), np.zeros((3, 4), int), np.full((3, 4), 200.0), np.full((3, 4), np.nan), np.zeros((0, 3))]
)
def test_arrays_that_are_no_picture(array):
    with pytest.raises(UserError):
        open_picture(array)


def test_what_cannot_be_written(tmp_path):
    for name, channels, said in [("a.xyz", 3, "suffix"), ("a", 3, "suffix"), ("a.jpg", 4, "alpha"), ("a.bmp", 2, "alpha")]:
        with pytest.raises(UserError, match=said):
            Picture(pixels(channels)).save(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Picture(pixels()).save(tmp_path / "file" / "a.png")


def test_damaged_exif_is_left_out_with_a_notice(tmp_path, caplog, monkeypatch):
    Image.fromarray(pixels()).save(tmp_path / "a.png", exif=exif())
    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "tobytes", lambda *_: (_ for _ in ()).throw(ValueError("bad")))
    with caplog.at_level(logging.WARNING):
        assert open_picture(tmp_path / "a.png").metadata.exif is None
    assert "EXIF" in caplog.text


def test_a_notebook_shows_a_picture_and_its_repr_is_short():
    """The levels come back from the PNG; 16 bits are shown in 8."""
    levels = pixels(4)
    shown = np.asarray(Image.open(io.BytesIO(Picture(levels)._repr_png_())))
    assert np.array_equal(shown, levels)
    assert repr(Picture(levels, name="a.png")) == "<Picture a.png: 10x6, RGB with alpha, uint8>"
    deep = Picture(pixels(1, np.uint16))
    assert Image.open(io.BytesIO(deep._repr_png_())).mode == "L" and "gray, uint16" in repr(deep)
