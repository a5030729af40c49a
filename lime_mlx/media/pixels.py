"""A picture as the pixels a CLIP tower takes: resized, cropped, scaled and normalised."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CheckpointError, MediaError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_RATIO = 200
MAX_SIDE = 4096


@dataclass(frozen=True)
class Pixels:
    """What preprocessor_config.json asks for. `resize` is one number (the shorter side) or (height, width)."""

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int = Image.Resampling.BICUBIC
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], size: int) -> "Pixels":
        """Read preprocessor_config.json; `size` is the side of the tower's input.

        Raises `CheckpointError` for settings that are not supported or give pixels of another size.
        """
        try:
            pixels = cls._read(settings, size)
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"preprocessor_config.json cannot be used: {error}.") from error
        given = pixels.crop or pixels.resize
        if given != (size, size):
            raise CheckpointError(
                f"preprocessor_config.json gives pictures of size {given}, but the vision tower takes {size} x {size}."
            )
        return pixels

    @classmethod
    def _read(cls, settings: Mapping[str, Any], size: int) -> "Pixels":
        def asked(key: str, default: Any = None) -> Any:
            value = settings.get(key)
            return default if value is None else value

        if asked("do_pad"):
            raise ValueError("do_pad is not supported")
        crop = _size(asked("crop_size", size)) if asked("do_center_crop", True) else None
        normalise = asked("do_normalize", True)
        pixels = cls(
            resize=_size(asked("size", size)) if asked("do_resize", True) else None,
            crop=(crop, crop) if isinstance(crop, int) else crop,
            resample=Image.Resampling(asked("resample", cls.resample)),
            scale=float(asked("rescale_factor", cls.scale)) if asked("do_rescale", True) else 1.0,
            mean=_three(asked("image_mean", CLIP_MEAN)) if normalise else cls.mean,
            std=_three(asked("image_std", CLIP_STD)) if normalise else cls.std,
        )
        if not all(0 < value < math.inf for value in (pixels.scale, *pixels.std)):
            raise ValueError("rescale_factor and image_std must be positive")
        return pixels

    def __call__(self, image: Image.Image) -> np.ndarray:
        """(1, 3, height, width) float32 of a picture of any size and mode.

        Raises `MediaError` for a picture more than `MAX_RATIO` times as long as it is wide, or the other way round.
        """
        if max(image.size) > MAX_RATIO * min(image.size):
            raise MediaError(
                f"Cannot use a picture of {image.width} x {image.height}: one side is more than {MAX_RATIO} times "
                "the other; crop it."
            )
        image = image.convert("RGB")
        if self.resize is not None:
            height, width = self._resized(image.width, image.height)
            image = image.resize((width, height), self.resample)
        pixels = np.asarray(image)
        if self.crop is not None:
            pixels = _crop(pixels, *self.crop)
        pixels = (pixels * self.scale - np.array(self.mean)) / np.array(self.std)
        return pixels.astype(np.float32).transpose(2, 0, 1)[None]

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) after the resize."""
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((width, height))
        sides = self.resize, int(self.resize * long / short)
        return sides[::-1] if width <= height else sides


def _crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of (H, W, 3), with black around what is smaller."""
    tall, wide = pixels.shape[:2]
    top, left = (tall - height) // 2, (wide - width) // 2
    part = pixels[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    out = np.zeros((height, width, 3), dtype=pixels.dtype)
    top, left = max(-top, 0), max(-left, 0)
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def _size(value: int | Mapping[str, int]) -> int | tuple[int, int]:
    """One number, for the shorter side, or (height, width)."""
    sides = {"shortest_edge": value} if isinstance(value, int) else {k: v for k, v in value.items() if v is not None}
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides.values()):
        raise ValueError(f"a side of a size must be 1 to {MAX_SIDE}")
    if sides.keys() == {"shortest_edge"}:
        return sides["shortest_edge"]
    if sides.keys() == {"height", "width"}:
        return sides["height"], sides["width"]
    raise ValueError(f"a size with {', '.join(sides) or 'nothing'} is not supported")


def _three(values: float | Sequence[float]) -> tuple[float, ...]:
    red, green, blue = (float(v) for v in (values if isinstance(values, Sequence) else [values] * 3))
    return red, green, blue
