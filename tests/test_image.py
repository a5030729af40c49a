import io
import random
import struct
import sys
import types
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from lime_mlx.errors import LimeError, MediaError
from lime_mlx.media.image import MAX_PIXELS, MIN_SIDE, open_image

IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data" / "images"
ORIENTATION = 0x0112


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth, with a different colour in each corner."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (255 * np.stack([x, y, 1 - x * y], axis=-1)).round().astype(np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source, **options) -> np.ndarray:
    image = open_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def problem(source, **options) -> str:
    """The message, which must be one short sentence or two on one line."""
    with pytest.raises(MediaError) as caught:
        open_image(source, **options)
    message = str(caught.value)
    assert message.startswith("Cannot ")
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 400
    return message


RGB = Image.fromarray(picture())
GREY = RGB.convert("L")


def test_media_error_is_a_user_error():
    assert issubclass(MediaError, LimeError)


# --- sources


def test_the_same_picture_from_every_source(tmp_path, monkeypatch):
    data = encode(RGB, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))
    for source in (path, str(path), data, RGB, picture(), "-"):
        np.testing.assert_array_equal(pixels(source), picture())
    np.testing.assert_array_equal(pixels("-", stdin=io.BytesIO(data)), picture())


def test_the_callers_image_is_left_alone():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.open(io.BytesIO(encode(RGB, "PNG", exif=exif)))
    once = open_image(image)
    assert image.size == RGB.size
    assert image.getexif()[ORIENTATION] == 6
    np.testing.assert_array_equal(pixels(once), np.asarray(once))  # not turned a second time
    assert open_image(RGB) is not RGB


def test_arrays_that_are_not_contiguous():
    np.testing.assert_array_equal(pixels(picture()[::-1, :, ::-1]), picture()[::-1, :, ::-1])


@pytest.mark.parametrize(
    "array",
    [picture() / 255, picture()[..., 0], np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8),
     np.array([{"a": 1}], dtype=object)],
    ids=["float", "grey", "rgba", "empty", "object"],
)  # fmt: skip
def test_other_arrays_are_refused(array):
    assert "uint8 of shape (H, W, 3)" in problem(array)


def test_saved_arrays_are_never_loaded(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    assert "not a picture" in problem(path)


# --- formats and modes


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "GIF", "TIFF", "WEBP", "JPEG", "JPEG2000"])
def test_formats(kind):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    close = {"GIF": 40, "JPEG": 8}.get(kind, 0)
    assert np.abs(pixels(encode(RGB, kind, **options)) - picture()).max() <= close


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation):
    corners = {  # top left and top right of the upright picture, as (row, column) of the stored one
        1: ((0, 0), (0, -1)), 2: ((0, -1), (0, 0)), 3: ((-1, -1), (-1, 0)), 4: ((-1, 0), (-1, -1)),
        5: ((0, 0), (-1, 0)), 6: ((-1, 0), (0, 0)), 7: ((-1, -1), (0, -1)), 8: ((0, -1), (-1, -1)),
    }  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for kind in ("PNG", "TIFF"):
        upright = pixels(encode(RGB, kind, exif=exif))
        assert upright.shape == ((32, 24, 3) if orientation > 4 else (24, 32, 3))
        left, right = corners[orientation]
        np.testing.assert_array_equal(upright[0, 0], picture()[left])
        np.testing.assert_array_equal(upright[0, -1], picture()[right])


def test_damaged_exif_does_not_spoil_a_picture():
    data = encode(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense")
    assert pixels(data).shape == (24, 32, 3)


def test_alpha_is_composited_on_white():
    image = RGB.copy()
    image.putalpha(Image.linear_gradient("L").resize(RGB.size))
    alpha = np.asarray(image)[..., 3:] / 255
    np.testing.assert_allclose(pixels(encode(image, "PNG")), picture() * alpha + 255 * (1 - alpha), atol=1)
    grey = GREY.copy()
    grey.putalpha(0)
    assert (pixels(encode(grey, "PNG")) == 255).all()
    assert (pixels(grey.convert("RGBA").convert("RGBa")) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_transparent_colour_of_a_png(mode):
    image = Image.new(mode, (4, 4), 0 if mode != "RGB" else (1, 2, 3))
    if mode == "P":
        image.putpalette([9, 9, 9, 200, 0, 0])
    transparent = (1, 2, 3) if mode == "RGB" else 0
    assert (pixels(encode(image, "PNG", transparency=transparent)) == 255).all()


def test_palette_and_black_and_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 30, 60])
    assert (pixels(encode(image, "PNG")) == (200, 30, 60)).all()
    assert (pixels(encode(Image.new("1", (4, 4), 1), "PNG")) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind):
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    shallow = pixels(encode(Image.fromarray(deep), kind))
    np.testing.assert_allclose(shallow, np.repeat(deep[..., None] / 257, 3, axis=-1), atol=0.5)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_16_bit_modes(mode):
    deep = np.array([[0, 257, 65535], [128, 129, 25700]])
    raw = deep.astype({"I;16B": ">u2", "I": "<i4"}.get(mode, "<u2")).tobytes()
    image = Image.frombytes(mode, (3, 2), raw)
    np.testing.assert_array_equal(pixels(image)[..., 0], [[0, 1, 255], [0, 1, 100]])


def test_transparent_grey_of_a_16_bit_png():
    image = Image.fromarray(np.array([[0, 5000], [60000, 65535]], np.uint16))
    chunk = b"tRNS" + struct.pack(">H", 5000)
    data = encode(image, "PNG")
    cut = data.index(b"IDAT") - 4
    data = data[:cut] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[cut:]
    np.testing.assert_array_equal(pixels(data)[..., 0], [[0, 255], [233, 255]])


def test_other_pixels_are_refused():
    assert "more than 16 bit" in problem(Image.fromarray(np.full((4, 4), 70000, np.int32)))
    assert "floating-point" in problem(encode(Image.new("F", (4, 4), 0.5), "TIFF"))
    assert "LAB" in problem(encode(Image.new("LAB", (4, 4)), "TIFF"))


def test_cmyk():
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):  # Pillow writes the JPEG inverted, as Adobe does
        assert np.abs(pixels(encode(cyan, kind)) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_several_is_used_and_said(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    said = []
    assert (pixels(data, notice=said.append) == (255, 0, 0)).all()
    assert len(said) == 1
    assert "only the first one" in said[0]
    assert (pixels(data) == (255, 0, 0)).all()  # without a listener too


def test_one_frame_says_nothing():
    said = []
    open_image(encode(RGB, "GIF"), notice=said.append)
    open_image(encode(RGB, "MPO", save_all=True, append_images=[RGB]), notice=said.append)
    assert said == []


def test_heic_without_a_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    message = problem(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    assert "HEIC" in message
    assert "pip install pillow-heif" in message
    assert "convert" in message


def test_heic_with_a_reader():
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.register_heif_opener()
    assert np.abs(pixels(encode(RGB, "HEIF", quality=95)) - picture()).max() < 40


# --- what is refused


def test_missing_file_directory_and_empty_file(tmp_path):
    assert "no such file" in problem(tmp_path / "none.png")
    assert "directory" in problem(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "0 bytes" in problem(tmp_path / "empty.png")
    assert "0 bytes" in problem("-", stdin=io.BytesIO())
    assert "0 bytes" in problem(b"")


def test_permission_denied(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    message = problem(tmp_path / "x.png")
    monkeypatch.undo()
    assert "permission denied" in message


@pytest.mark.parametrize("path", ["a" * 5000, "nul\0byte.png", "two\nlines.png", "data:image/png;base64," + "A" * 9000])
def test_odd_paths(path):
    assert "check the path" in problem(path)


def test_terminal_as_standard_input(monkeypatch):
    class Terminal(io.BytesIO):
        def isatty(self):
            return True

    assert "nothing is piped" in problem("-", stdin=Terminal())
    monkeypatch.setattr(sys, "stdin", None)
    assert "nothing is piped" in problem("-")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"Only a note, renamed.\n", "text"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<svg/>", "SVG"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
        (b"PK\3\4\0\0\0\0", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
        (b"\x89PNG\r\n\x1a\n\0\0", "damaged"),
        (b"\xff\xd8\xff", "damaged"),
    ],
)
def test_files_that_are_not_pictures(tmp_path, data, said):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    message = problem(path)
    assert said in message
    assert "picture.png" in message


def test_too_small():
    for size in ((1, 1), (1, 50), (50, 1)):
        message = problem(encode(Image.new("RGB", size), "PNG"))
        assert f"{size[0]}x{size[1]}" in message
        assert f"{MIN_SIDE}x{MIN_SIDE}" in message
    assert open_image(Image.new("RGB", (MIN_SIDE, MIN_SIDE))).size == (MIN_SIDE, MIN_SIDE)


def png_header(width: int, height: int) -> bytes:
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("size", [(30000, 30000), (13000, 13000), (11000, 11000)])
def test_too_large_is_refused_before_decoding(monkeypatch, size):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f"{MAX_PIXELS:,} pixels" in problem(png_header(*size))


def test_the_pixel_limit_can_be_set():
    data = encode(RGB, "PNG")
    assert "32x24" in problem(data, max_pixels=767)
    assert open_image(data, max_pixels=768).size == (32, 24)
    assert "limit" in problem(RGB, max_pixels=100)
    assert Image.MAX_IMAGE_PIXELS not in (100, 767, 768)


@pytest.mark.parametrize("tolerant", [False, True], ids=["strict", "tolerant"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files_are_never_loaded(kind, tolerant, monkeypatch):
    """Any prefix is refused, or lost nothing but bytes that hold no pixels."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    data = encode(RGB, kind, **({"compression": "tiff_deflate"} if kind == "TIFF" else {}))
    whole = pixels(data)
    for end in {*range(1, len(data), 41), *range(len(data) - 30, len(data))}:
        try:
            part = pixels(data[:end])
        except MediaError:
            continue
        assert end > 0.9 * len(data)
        np.testing.assert_array_equal(part, whole, err_msg=f"{end} of {len(data)} bytes")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant
    assert "damaged or cut short" in problem(data[: len(data) * 2 // 3])


def fuzz_samples() -> list[bytes]:
    rgba = RGB.copy()
    rgba.putalpha(128)
    frames = {"save_all": True, "append_images": [RGB.rotate(180)]}
    return [
        encode(RGB, "PNG"),
        encode(RGB, "JPEG"),
        encode(RGB.convert("CMYK"), "JPEG", progressive=True),
        encode(RGB, "WEBP"),
        encode(rgba, "WEBP", lossless=True),
        encode(RGB, "GIF", **frames),
        encode(RGB.quantize(16), "PNG", transparency=3),
        encode(RGB, "TIFF"),
        encode(RGB, "TIFF", compression="tiff_lzw"),
        encode(GREY.convert("1"), "TIFF", compression="group4"),
        encode(RGB, "BMP"),
    ]


def test_damaged_files_give_a_picture_or_a_media_error(capfd):
    """500 files with flipped bytes, most of them in the header."""
    choose = random.Random(0)
    samples = fuzz_samples()
    messages = []
    for case in range(500):
        data = bytearray(samples[case % len(samples)])
        reach = len(data) if case % 3 == 0 else min(len(data), 200)
        for _ in range(choose.choice((1, 2, 4, 12))):
            data[choose.randrange(reach)] = choose.randrange(256)
        try:
            assert open_image(bytes(data), max_pixels=1_000_000).mode == "RGB"
        except MediaError as error:
            messages.append(str(error))
    assert 100 < len(messages) < 400
    assert not any("\n" in message for message in messages)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not IMAGES.is_dir(), reason="the folder of real pictures is not beside this repository")
def test_real_pictures():
    paths = sorted(p for p in IMAGES.rglob("*") if p.suffix in (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif"))
    assert paths
    for path in paths:
        image = open_image(path)
        assert image.mode == "RGB"
        assert min(image.size) >= MIN_SIDE
        half = path.read_bytes()[: path.stat().st_size // 2]
        assert "damaged or cut short" in problem(half)
