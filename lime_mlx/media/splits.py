"""A picture cut into rows and columns of squares, and one more square for all of it, for Idefics3 and SmolVLM.

Laurencon et al. 2024, "Building and better understanding vision-language models" (arXiv 2408.12637).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..files import Json
from .image import to_rgb
from .preprocess import HALF, Preprocessor, sides, unsupported

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class Splits(Preprocessor):
    """Squares of `side` pixels, cut where `split`, after a resize to the longer side or to (height, width)."""

    resize: int | tuple[int, int] | None = 4 * 364
    side: int = 364
    split: bool = True
    resample: int = Image.Resampling.LANCZOS
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF

    @classmethod
    def _read(cls, settings: Json, side: int) -> Self:
        size = _longer(settings.get("size", {"longest_edge": cls.resize}))
        return cls(
            resize=size if settings.get("do_resize", True) else None,
            side=sides(settings.get("max_image_size", {"longest_edge": cls.side}))["longest_edge"],
            split=bool(settings.get("do_image_splitting", True)),
            **cls._levels(settings),
        )

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, NDArray[np.generic]]:
        """`pixel_values` (1, squares of all pictures, 3, side, side) float32 and `pixel_attention_mask`
        (1, squares of all pictures, side, side) int64, all 1: every square is full."""
        squares = np.stack([self.channels(square) for image in images for square in self.squares(image)])[None]
        mask = np.ones((1, squares.shape[1], self.side, self.side), dtype=np.int64)
        return {"pixel_values": squares, "pixel_attention_mask": mask}

    def squares(self, image: Image.Image) -> list[Image.Image]:
        """The squares row by row, and the whole last; the whole alone where the picture is not split."""
        height, width = self._first(image)
        rows, columns = self.grid(image)
        image, side = self.resized(to_rgb(image), height, width), self.side
        if not rows:
            return [self.resized(image, side, side)]
        image = self.resized(image, rows * side, columns * side)
        corners = [(x * side, y * side) for y in range(rows) for x in range(columns)]
        return [*(image.crop((x, y, x + side, y + side)) for x, y in corners), self.resized(image, side, side)]

    def grid(self, image: Image.Image) -> tuple[int, int]:
        """Rows and columns of squares, (0, 0) where the picture is not split."""
        height, width = self._first(image)
        ratio = width / height
        if width >= height:
            columns = math.ceil(width / self.side)
            rows = math.ceil(int(columns * self.side / ratio) / self.side)
        else:
            rows = math.ceil(height / self.side)
            columns = math.ceil(int(rows * self.side * ratio) / self.side)
        return (rows, columns) if self.split and (rows, columns) != (1, 1) else (0, 0)

    def _first(self, image: Image.Image) -> tuple[int, int]:
        """(height, width) after the first resize, in which the shorter side is made even."""
        if self.resize is None:
            return image.height, image.width
        if isinstance(self.resize, tuple):
            return self.resize
        ratio = image.width / image.height
        short = int(self.resize / ratio if ratio >= 1 else self.resize * ratio)
        sizes = max(short + short % 2, 1), self.resize
        return sizes if ratio >= 1 else sizes[::-1]


def splits_text(
    rows: int,
    columns: int,
    tokens: int,
    image: str = "<image>",
    around: str = "<fake_token_around_image>",
    whole: str = "<global-img>",
) -> str:
    """What stands for a picture of rows x columns squares, (0, 0) where it is not split, each of `tokens` tokens."""
    square = image * tokens
    lines = [
        "".join(f"{around}<row_{row}_col_{column}>{square}" for column in range(1, columns + 1)) + "\n"
        for row in range(1, rows + 1)
    ]
    gap = "\n" if rows else ""
    return f"{''.join(lines)}{gap}{around}{whole}{square}{around}"


def _longer(value: Mapping[str, int]) -> int | tuple[int, int]:
    """One number, for the longer side, or (height, width)."""
    edges = sides(value)
    if edges.keys() == {"longest_edge"}:
        return edges["longest_edge"]
    if edges.keys() == {"height", "width"}:
        return edges["height"], edges["width"]
    raise unsupported(edges)
