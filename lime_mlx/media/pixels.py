"""A picture as the pixels a CLIP tower takes: resized, cropped, scaled and normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import CheckpointError
from ..files import Json
from .image import to_rgb
from .preprocess import Preprocessor, refuse_long, sides, unsupported

if TYPE_CHECKING:
    from typing_extensions import Self

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Pixels(Preprocessor):
    """What preprocessor_config.json asks for. `resize` is one number (the shorter side) or (height, width)."""

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int = Image.Resampling.BICUBIC
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    @classmethod
    def from_dict(cls, settings: Json, side: int = 0) -> Self:
        """Read preprocessor_config.json; `side` is that of the tower's input.

        Raises `CheckpointError` for settings that are not supported or give pixels of another size.
        """
        pixels = super().from_dict(settings, side)
        given = pixels.crop or pixels.resize
        if given != (side, side):
            raise CheckpointError(
                f"preprocessor_config.json gives pictures of size {given}, but the vision tower takes {side} x {side}."
            )
        return pixels

    @classmethod
    def _read(cls, settings: Json, side: int) -> Self:
        if settings.get("do_pad"):
            raise ValueError("do_pad is not supported")
        crop = shorter(settings.get("crop_size", side)) if settings.get("do_center_crop", True) else None
        return cls(
            resize=shorter(settings.get("size", side)) if settings.get("do_resize", True) else None,
            crop=(crop, crop) if isinstance(crop, int) else crop,
            **cls._levels(settings),
        )

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """(1, 3, height, width) float32 of a picture of any size and mode.

        Raises `MediaError` for a picture more than `MAX_RATIO` times as long as it is wide, or the other way round.
        """
        refuse_long(image)
        image = to_rgb(image)
        if self.resize is not None:
            image = self.resized(image, *self._target(image.width, image.height))
        pixels = np.asarray(image)
        return self.channels(pixels if self.crop is None else _crop(pixels, *self.crop))[None]

    def box(self, image: Image.Image) -> tuple[float, float, float, float]:
        """The box (left, top, right, bottom) that the crop keeps, as fractions of the picture, which it may exceed."""
        height, width = self._target(image.width, image.height)
        tall, wide = self.crop or (height, width)
        left, top = (width - wide) // 2, (height - tall) // 2
        return left / width, top / height, (left + wide) / width, (top + tall) / height

    def _target(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) after the resize."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((width, height))
        small, large = self.resize, int(self.resize * long / short)
        return (large, small) if width <= height else (small, large)


def _crop(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle of (H, W, 3), with black around what is smaller."""
    tall, wide = pixels.shape[:2]
    top, left = (tall - height) // 2, (wide - width) // 2
    part = pixels[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    out = np.zeros((height, width, 3), dtype=pixels.dtype)
    top, left = max(-top, 0), max(-left, 0)
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def shorter(value: int | Mapping[str, int]) -> int | tuple[int, int]:
    """One number, for the shorter side, or (height, width)."""
    edges = sides({"shortest_edge": value} if isinstance(value, int) else value)
    if edges.keys() == {"shortest_edge"}:
        return edges["shortest_edge"]
    if edges.keys() == {"height", "width"}:
        return edges["height"], edges["width"]
    raise unsupported(edges)
