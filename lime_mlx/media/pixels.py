"""A picture as the pixels a CLIP tower takes: resized, cropped, scaled and normalised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CheckpointError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


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
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointError(f"preprocessor_config.json cannot be used: {error}.") from error
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
        resize = _size(settings.get("size", {"shortest_edge": size})) if settings.get("do_resize", True) else None
        crop = settings.get("crop_size", size) if settings.get("do_center_crop", True) else None
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        options = {}
        if not settings.get("do_normalize", True):
            means, stds = cls.mean, cls.std
        else:
            means, stds = settings.get("image_mean") or CLIP_MEAN, settings.get("image_std") or CLIP_STD
        if settings.get("resample") is not None:
            options["resample"] = Image.Resampling(settings["resample"])
        scale = float(settings.get("rescale_factor") or cls.scale) if settings.get("do_rescale", True) else 1.0
        return cls(resize, crop and _size(crop), scale=scale, mean=_three(means), std=_three(stds), **options)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """(1, 3, height, width) float32 of a picture of any size and mode.

        Only the part that the crop keeps is resized, so that a long, narrow picture costs no more than a square one.
        """
        image = image.convert("RGB")
        full = self._resized(image.width, image.height)
        height, width = crop = self.crop or full
        top, left = ((f - c) // 2 for f, c in zip(full, crop, strict=True))
        rows, columns = (slice(max(-start, 0), max(-start, 0) + min(f, c)) for start, f, c in zip((top, left), full, crop, strict=True))
        y, x = image.height / full[0], image.width / full[1]
        box = (max(left, 0) * x, max(top, 0) * y, (max(left, 0) + min(full[1], width)) * x, (max(top, 0) + min(full[0], height)) * y)
        kept = image.resize((min(full[1], width), min(full[0], height)), self.resample, box=box)
        pixels = np.zeros((height, width, 3), dtype=np.float32)
        pixels[rows, columns] = np.asarray(kept)
        pixels = (pixels * self.scale - np.float32(self.mean)) / np.float32(self.std)
        return pixels.astype(np.float32).transpose(2, 0, 1)[None]

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) after the resize."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((width, height))
        sides = self.resize, int(self.resize * long / short)
        return sides[::-1] if width <= height else sides


def _size(value: int | Mapping[str, int]) -> int | tuple[int, int]:
    if isinstance(value, int):
        return value
    known = {k: int(v) for k, v in value.items() if v is not None}
    if known.keys() == {"shortest_edge"}:
        return known["shortest_edge"]
    if known.keys() == {"height", "width"}:
        return known["height"], known["width"]
    raise ValueError(f"a size with {', '.join(known) or 'nothing'} is not supported")


def _three(values: float | Sequence[float]) -> tuple[float, ...]:
    values = [values] * 3 if isinstance(values, (int, float)) else values
    red, green, blue = (float(v) for v in values)
    return red, green, blue
