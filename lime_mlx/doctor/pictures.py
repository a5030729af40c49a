"""The pictures of the probes, drawn here: plain colours, digits, words, a dot at a side, dots to count, patterns."""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 448
LARGE, SMALL = 1024, 96
RGB = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
PLACES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
WORDS = tuple(
    "MAPLE RIVER TIGER PIANO LEMON CLOUD STONE BREAD HORSE CANDLE GARDEN WINTER ROCKET BUTTON PEPPER MARKET".split()
)
# What EXIF says of a picture that is stored turned, and how to store it so that it is shown upright.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
_ORIENTATION = 0x0112
Colour = tuple[int, int, int]
WHITE, BLACK = RGB["white"], RGB["black"]


def solid(colour: Colour, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """One colour all over."""
    return Image.new("RGB", size, colour)


def text(words: str, height: int, size: int = SIDE, ink: Colour = BLACK, paper: Colour = WHITE) -> Image.Image:
    """Text in the middle of a square picture, its letters `height` pixels high, or less where it would be too wide."""
    picture = solid(paper, (size, size))
    font = ImageFont.load_default(height / 0.7)
    left, top, right, bottom = font.getbbox(words)
    if right - left > 0.85 * size:
        font = ImageFont.load_default(height / 0.7 * 0.85 * size / (right - left))
        left, top, right, bottom = font.getbbox(words)
    corner = ((size - right - left) / 2, (size - bottom - top) / 2)
    ImageDraw.Draw(picture).text(corner, words, fill=ink, font=font)
    return picture


def place(
    side: str, size: tuple[int, int] = (SIDE, SIDE), reach: float = 0.7, ink: Colour = BLACK, paper: Colour = WHITE
) -> Image.Image:
    """A dot at a side. reach: how far it lies from the middle, 1 at the edge."""
    picture = solid(paper, size)
    radius = 0.1 * min(size)
    across, down = PLACES[side]
    x = size[0] / 2 + across * reach * (size[0] / 2 - radius)
    y = size[1] / 2 + down * reach * (size[1] / 2 - radius)
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    return picture


def dots(count: int, cells: Sequence[int]) -> Image.Image:
    """So many dots, in the first `count` of these cells of 3 x 3."""
    picture = solid(WHITE)
    pen, cell = ImageDraw.Draw(picture), SIDE / 3
    for index in cells[:count]:
        x, y = (index % 3 + 0.5) * cell, (index // 3 + 0.5) * cell
        pen.ellipse((x - 0.25 * cell, y - 0.25 * cell, x + 0.25 * cell, y + 0.25 * cell), fill=BLACK)
    return picture


def see_through(picture: Image.Image, paper: Colour = WHITE) -> Image.Image:
    """The picture with its paper transparent, and behind that the colour of its ink: without alpha nothing is left."""
    grey = np.asarray(picture.convert("L"), dtype=np.int32)
    levels = np.asarray(picture)
    ink = levels.reshape(-1, 3)[np.abs(levels.reshape(-1, 3).astype(int) - paper).sum(axis=1).argmax()]
    away = np.abs(grey - round(0.299 * paper[0] + 0.587 * paper[1] + 0.114 * paper[2]))
    alpha = (255 * away // max(1, int(away.max()))).astype(np.uint8)
    return Image.fromarray(np.dstack([np.broadcast_to(ink, levels.shape).astype(np.uint8), alpha]), "RGBA")


@lru_cache(32)
def noise(seed: int, band: tuple[int, int], size: int = SIDE) -> Image.Image:
    """Grey noise with `band` cycles across the picture, and nothing below or above: detail of one fineness."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.standard_normal((size, size)))
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(size) * size, np.fft.fftfreq(size) * size))
    levels = np.fft.ifft2(np.where((cycles >= band[0]) & (cycles < band[1]), spectrum, 0)).real
    grey = np.clip(128 + 55 * levels / levels.std(), 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([grey] * 3))


def swapped(picture: Image.Image) -> Image.Image:
    """Red and blue exchanged."""
    red, green, blue = picture.split()
    return Image.merge("RGB", (blue, green, red))


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    out = BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def jpeg(picture: Image.Image, orientation: int | None = None) -> bytes:
    """The bytes of a JPEG file; with an orientation, stored turned, and EXIF says how to turn it back."""
    out = BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[_ORIENTATION] = orientation
        picture = picture.transpose(STORED[orientation])
    picture.save(out, "JPEG", quality=95, subsampling=0, exif=exif)
    return out.getvalue()
