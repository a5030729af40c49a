"""One picture, from any source, as RGB."""

import logging
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from .. import limits
from ..errors import MediaError
from .addresses import Private
from .fetch import Source, one_line, read_source, source_name
from .formats import HEIC_BRANDS, kind_of, silent_stderr, why_not

MIN_SIDE = 2
MAX_PIXELS = 120_000_000

# Not every format that Pillow knows: its EPS reader, for one, starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")

# What Pillow raises for damaged files (RuntimeError: AVIF, IndexError: GIF, TypeError: TIFF).
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NO_RGB = {"F": "floating-point numbers", "LAB": "LAB colours", "La": "premultiplied grey"}
_PILLOW_SETTINGS = threading.Lock()


# What `open_image` takes.
ImageSource = Source | Image.Image | np.ndarray


def open_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    stdin: BinaryIO | None = None,
    notice: Callable[[str], None] | None = None,
    private: Private = "typed",
) -> Image.Image:
    """Open a picture as 8-bit RGB, upright, its transparent parts on white.

    Args:
        source: a path, an http(s) URL, `-` for standard input, the bytes of a picture file, a PIL image,
            or an array of shape (H, W, 3) and dtype uint8.
        max_pixels: larger pictures are refused by their header, before they are decoded.
        stdin: the stream that `-` reads; the process's standard input when left out.
        notice: called with one sentence when only the first frame or page of several is used.
        private: whether a URL may lead to this machine and its networks, see `addresses`.

    Returns:
        A new PIL image of mode "RGB". 16-bit grey is scaled to 8 bit.

    Raises:
        MediaError: the source cannot be read, is not a picture, is damaged or cut short, has a side under
            `MIN_SIDE`, more than `max_pixels` pixels, or pixels that are neither 8 nor 16 bit.
    """
    data, content_type = b"", ""
    if isinstance(source, (Image.Image, np.ndarray)):
        name = "the given picture"
    else:
        name = source_name(source)
        data, content_type = read_source(source, stdin=stdin, private=private)
    try:
        with _strict_pillow(max_pixels):
            image = _identify(source, data, name)
            _check_size(image.size, max_pixels, name)
            rgb = _upright_rgb(image, name)
            # A JPEG with several frames (MPO) is one photograph and its previews.
            several = bool(data) and image.format != "MPO" and getattr(image, "is_animated", False)
    except UnidentifiedImageError as error:
        raise _error(name, _why_unknown(data, content_type)) from error
    except Image.DecompressionBombError as error:
        problem = f"it has more than {max_pixels:,} pixels, the limit; make it smaller"
        raise _error(name, problem) from error
    except DECODE_ERRORS as error:
        detail = one_line(str(error), 100) or type(error).__name__
        raise _error(name, f"it is damaged or cut short ({detail}); copy or download it again") from error
    if several and notice is not None:
        notice(f"{name} has several frames or pages: only the first one is used.")
    return rgb


def open_pictures(
    sources: Sequence[ImageSource], *, notice: Callable[[str], None] | None = None, private: Private = "typed"
) -> list[Image.Image]:
    """Open the pictures of one call. Raises `MediaError` as `open_image` does, and where all together are too large."""
    pictures: list[Image.Image] = []
    for source in sources:
        picture = open_image(source, notice=notice, private=private)
        pixels = picture.width * picture.height + sum(one.width * one.height for one in pictures)
        limits.OPENED_PIXELS.check(pixels, "The pixels of all pictures", MediaError)
        pictures.append(picture)
    return pictures


def _error(name: str, problem: str) -> MediaError:
    return MediaError(f"Cannot open {name}: {problem}.")


def to_rgb(image: Image.Image) -> Image.Image:
    """As 8-bit RGB, what is transparent on white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")


@contextmanager
def _strict_pillow(max_pixels: int) -> Iterator[None]:
    """Pillow refuses truncated and huge pictures and prints nothing, whatever its global settings are."""
    logger, silent = logging.getLogger("PIL"), logging.NullHandler()
    with _PILLOW_SETTINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, max_pixels
        logger.addHandler(silent)
        try:
            yield
        finally:
            logger.removeHandler(silent)
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


def _identify(source: object, data: bytes, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or source.size == 0:
            given = f"{source.dtype} and shape {source.shape}"
            raise _error(name, f"an array must be uint8 of shape (H, W, 3), and this one is {given}")
        return Image.fromarray(np.ascontiguousarray(source))
    formats = (*FORMATS, "HEIF") if _is_heic(data) and _add_heic() else FORMATS
    return Image.open(BytesIO(data), formats=formats)


def _check_size(size: tuple[int, int], max_pixels: int, name: str) -> None:
    width, height = size
    if min(size) < MIN_SIDE:
        raise _error(name, f"it is {width}x{height} pixels; give one of at least {MIN_SIDE}x{MIN_SIDE}")
    if width * height > max_pixels:
        raise _error(name, f"it is {width}x{height}, and the limit is {max_pixels:,} pixels; make it smaller")


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    with silent_stderr() if image.format == "TIFF" else nullcontext():
        image.load()
    transposition = _UPRIGHT.get(_orientation(image))
    if image.mode in _NO_RGB:
        raise _error(name, f"its pixels are {_NO_RGB[image.mode]}; save it as 8-bit RGB")
    rgb = _from_16_bit(image, name) if image.mode == "I" or image.mode.startswith("I;16") else to_rgb(image)
    if transposition is not None:
        rgb = rgb.transpose(transposition)
    rgb.info = {}  # an EXIF rotation left here would be applied again
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        orientation: int = image.getexif().get(_ORIENTATION_TAG, 1)
        return orientation
    except DECODE_ERRORS:  # damaged EXIF, sound pixels
        return 1


def _from_16_bit(image: Image.Image, name: str) -> Image.Image:
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise _error(name, "its pixels have more than 16 bit; save it with 8 or 16 bit")
    grey = ((np.arange(65536) + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[transparent] = 255
    return Image.fromarray(grey[pixels]).convert("RGB")


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS


def _add_heic() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _why_unknown(data: bytes, content_type: str) -> str:
    """Why Pillow cannot tell the format of `data`, and what to do."""
    if _is_heic(data):
        return "Pillow cannot read HEIC by itself; run `pip install pillow-heif`, or convert it to JPEG"
    if kind_of(data) == "picture":
        return "its header is damaged or cut short; copy or download it again"
    return why_not("picture", data, content_type)
