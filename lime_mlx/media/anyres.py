"""Any resolution: a small copy of the picture, and tiles of it at the resolution that fits it best.

Liu et al. 2024, "LLaVA-NeXT: Improved reasoning, OCR, and world knowledge". Sizes are (height, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx import limits
from lime_mlx.errors import CheckpointError, short

from ..files import Json
from .image import to_rgb
from .pixels import Pixels, shorter
from .preprocess import given_keys, reading

if TYPE_CHECKING:
    from typing_extensions import Self

RESOLUTIONS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


@dataclass(frozen=True)
class AnyResolution:
    """`pixels` prepares the small copy, of the size `whole`, and each tile for a tower of `side` pixels."""

    pixels: Pixels
    side: int
    whole: tuple[int, int]
    resolutions: tuple[tuple[int, int], ...] = RESOLUTIONS

    @classmethod
    def from_dict(cls, settings: Json, side: int) -> Self:
        """Read preprocessor_config.json; `side` is that of the tower's input.

        Raises `CheckpointError` for settings that are not supported or give tiles of another size.
        """
        pixels = Pixels.from_dict({**settings, "do_pad": None}, side)
        with reading():
            given = given_keys(settings)
            whole, tile = shorter(given.get("size", side)), shorter(given.get("crop_size", side))
            points = resolutions(given.get("image_grid_pinpoints", RESOLUTIONS), side)
        if tile not in (side, (side, side)):
            raise CheckpointError(f"crop_size gives tiles of {tile}, but the vision tower takes {side} x {side}.")
        return cls(pixels, side, (whole, whole) if isinstance(whole, int) else whole, points)

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, NDArray[np.generic]]:
        """`pixel_values` (N, 1 + most tiles, 3, side, side) float32, zeros after the last tile of a picture, and
        `image_sizes` (N, 2), the heights and widths of the pictures."""
        cut = [np.concatenate([self.pixels(part) for part in self.parts(to_rgb(image))]) for image in images]
        most = max(map(len, cut))
        padded = [np.pad(parts, [(0, most - len(parts)), (0, 0), (0, 0), (0, 0)]) for parts in cut]
        return {
            "pixel_values": np.stack(padded),
            "image_sizes": np.array([(image.height, image.width) for image in images]),
        }

    def parts(self, image: Image.Image) -> list[Image.Image]:
        """The small copy and the tiles of an RGB picture, row by row. Black fills the rest of the resolution."""
        size = image.height, image.width
        target = best_resolution(size, self.resolutions)
        height, width = _inside(size, target)
        canvas = Image.new("RGB", target[::-1])
        canvas.paste(self.pixels.resized(image, height, width), ((target[1] - width) // 2, (target[0] - height) // 2))
        corners = [(x, y) for y in range(0, target[0], self.side) for x in range(0, target[1], self.side)]
        tiles = [canvas.crop((x, y, x + self.side, y + self.side)) for x, y in corners]
        return [self.pixels.resized(image, *self.whole), *tiles]

    def tokens(self, size: Sequence[int], edge: int, newline: bool = True) -> int:
        """How many features stand for a picture of `size`, where a tile has edge x edge of them.

        `newline`: each row of the joined tiles ends in one more.
        """
        height, width = best_resolution(size, self.resolutions)
        rows, columns = unpadded_shape((height // self.side * edge, width // self.side * edge), size)
        return edge * edge + rows * (columns + newline)


def resolutions(points: Sequence[Sequence[int]], side: int) -> tuple[tuple[int, int], ...]:
    """The pairs of image_grid_pinpoints; `CheckpointError` where they are not multiples of `side`."""
    valid = (
        isinstance(points, Sequence)
        and points
        and all(
            isinstance(pair, Sequence)
            and len(pair) == 2
            and all(isinstance(edge, int) and edge > 0 and edge % side == 0 for edge in pair)
            for pair in points
        )
    )
    limits.PINPOINTS.check(len(points) if isinstance(points, Sequence) else 0, "image_grid_pinpoints", ValueError)
    if not valid:
        raise CheckpointError(
            f"image_grid_pinpoints is {short(points)}; it must hold heights and widths that are multiples of {side}."
        )
    return tuple((height, width) for height, width in points)


def best_resolution(size: Sequence[int], points: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The resolution that keeps the most pixels of a picture of `size`; among equals, the one with least padding."""
    height, width = size

    def kept(point: Sequence[int]) -> int:
        scale = min(point[1] / width, point[0] / height)
        return min(int(width * scale) * int(height * scale), width * height)

    best = max(points, key=lambda point: (kept(point), -point[0] * point[1]))
    return best[0], best[1]


def unpadded(shape: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) to leave out at each end of joined tiles of `shape`: what the picture of `size` does not fill."""
    (rows, columns), (height, width) = shape, size
    # Where an end is no whole row, transformers cuts it off after 7 decimals.
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2


def unpadded_shape(shape: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) of joined tiles of `shape` that the picture of `size` fills."""
    top, left = unpadded(shape, size)
    return shape[0] - 2 * top, shape[1] - 2 * left


def kept_box(size: Sequence[int], target: Sequence[int], shape: Sequence[int]) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of the features that are left of joined tiles, as fractions of the picture.

    size: that of the picture; target: that of the joined tiles in pixels, shape in features, which cover them evenly.
    The box may be a little larger than the picture, where a feature at the edge also covers padding.
    """
    ends = []
    for side, pixels, features, cut in zip(_inside(size, target), target, shape, unpadded(shape, size), strict=True):
        step, start = pixels / features, (pixels - side) // 2
        ends.append(((cut * step - start) / side, ((features - cut) * step - start) / side))
    (top, bottom), (left, right) = ends
    return left, top, right, bottom


def _inside(size: Sequence[int], target: Sequence[int]) -> tuple[int, int]:
    """The largest size of the same shape in `target`."""
    (height, width), (tall, wide) = size, target
    if wide / width < tall / height:
        return min(math.ceil(height * (wide / width)), tall), wide
    return tall, min(math.ceil(width * (tall / height)), wide)
