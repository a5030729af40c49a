"""A picture as the pixels a CLIP tower takes: resized, cropped, scaled and normalised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CheckpointError
from .image import to_rgb
from .preprocess import Preprocessor, refuse_long, sides, unsupported

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
    def from_dict(cls, settings: Mapping[str, Any], size: int) -> "Pixels":
        """Read preprocessor_config.json; `size` is the side of the tower's input.

        Raises `CheckpointError` for settings that are not supported or give pixels of another size.
        """
        pixels = super().from_dict(settings, size)
        given = pixels.crop or pixels.resize
        if given != (size, size):
            raise CheckpointError(
                f"preprocessor_config.json gives pictures of size {given}, but the vision tower takes {size} x {size}."
            )
        return pixels

    @classmethod
    def _read(cls, settings: Mapping[str, Any], size: int) -> "Pixels":
        if settings.get("do_pad"):
            raise ValueError("do_pad is not supported")
        crop = shorter(settings.get("crop_size", size)) if settings.get("do_center_crop", True) else None
        return cls(
            resize=shorter(settings.get("size", size)) if settings.get("do_resize", True) else None,
            crop=(crop, crop) if isinstance(crop, int) else crop,
            **cls._levels(settings),
        )

    def __call__(self, image: Image.Image) -> np.ndarray:
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
        """What the crop leaves (left, top, right, bottom), as fractions of the picture; larger than it, maybe."""
        height, width = (image.height, image.width) if self.resize is None else self._target(image.width, image.height)
        tall, wide = self.crop or (height, width)
        left, top = (width - wide) // 2, (height - tall) // 2
        return left / width, top / height, (left + wide) / width, (top + tall) / height

    def _target(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) after the resize."""
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((width, height))
        target = self.resize, int(self.resize * long / short)
        return target[::-1] if width <= height else target


def _crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
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
    found = sides({"shortest_edge": value} if isinstance(value, int) else value)
    if found.keys() == {"shortest_edge"}:
        return found["shortest_edge"]
    if found.keys() == {"height", "width"}:
        return found["height"], found["width"]
    raise unsupported(found)
