"""Shared steps of the preprocessing of pictures: reading settings, resizing, normalising."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import CheckpointError, MediaError
from ..files import Json

if TYPE_CHECKING:
    from typing_extensions import Self

HALF = (0.5, 0.5, 0.5)
MAX_RATIO = 200
MAX_SIDE = 4096
LARGEST = 1e6  # of what the levels of a picture become; usual ones are at most 3


@dataclass(frozen=True, kw_only=True)
class Preprocessor(ABC):
    """How a level 0 to 255 becomes a number, (level * scale - mean) / std, and by which filter pictures are resized.

    The defaults of a subclass are those of its processor in transformers.
    """

    resample: int = Image.Resampling.BICUBIC
    scale: float = 1 / 255
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF

    def __post_init__(self) -> None:
        if not all(0 < value < math.inf for value in (self.scale, *self.std)):
            raise ValueError("rescale_factor and image_std must be positive")
        if not all((255 * self.scale + abs(m)) / s <= LARGEST for m, s in zip(self.mean, self.std, strict=True)):
            raise ValueError("image_mean, image_std and rescale_factor make values that are too large")

    @classmethod
    def from_dict(cls, settings: Json, side: int = 0) -> Self:
        """Read preprocessor_config.json. A key that is missing or null takes its default.

        side: that of the tower's input, for the preprocessors that depend on it. Raises `CheckpointError` for settings
        that are not supported.
        """
        with reading():
            return cls._read(given_keys(settings), side)

    @classmethod
    @abstractmethod
    def _read(cls, settings: Json, side: int) -> Self:
        """The preprocessor that the settings describe."""

    @classmethod
    def _levels(cls, settings: Json) -> Json:
        """The fields that all families have."""
        normalise = settings.get("do_normalize", True)
        return {
            "resample": Image.Resampling(settings.get("resample", cls.resample)),
            "scale": float(settings.get("rescale_factor", cls.scale)) if settings.get("do_rescale", True) else 1.0,
            "mean": _three(settings.get("image_mean", cls.mean) if normalise else 0.0),
            "std": _three(settings.get("image_std", cls.std) if normalise else 1.0),
        }

    def resized(self, image: Image.Image, height: int, width: int) -> Image.Image:
        return image.resize((width, height), self.resample)

    def channels(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.float32]:
        """(3, H, W) float32 of an RGB picture, or of (H, W, 3) uint8."""
        scaled = (np.arange(256) * self.scale).astype(np.float32)[:, None]
        mean, std = np.array(self.mean, dtype=np.float32), np.array(self.std, dtype=np.float32)
        levels: NDArray[np.float32] = (scaled - mean) / std
        return np.stack([np.take(levels[:, c], np.asarray(image)[..., c]) for c in range(3)])


@contextmanager
def reading() -> Iterator[None]:
    """`CheckpointError` for what cannot be read."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise CheckpointError(f"preprocessor_config.json cannot be used: {error}.") from error


def given_keys(settings: Mapping[str, object]) -> Json:
    """Without those that are null."""
    return {key: value for key, value in settings.items() if value is not None}


def sides(value: Mapping[str, int], limit: int = MAX_SIDE) -> dict[str, int]:
    """The edges that a size of preprocessor_config.json names; `ValueError` for any that is not 1 to `limit`."""
    edges = given_keys(value)
    if not all(isinstance(side, int) and 0 < side <= limit for side in edges.values()):
        raise ValueError(f"a side of a size must be 1 to {limit}")
    return edges


def unsupported(edges: Mapping[str, int]) -> ValueError:
    return ValueError(f"a size with {', '.join(edges) or 'nothing'} is not supported")


def positive(settings: Json, key: str, default: int) -> int:
    value = settings.get(key, default)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} must be a positive number, got {value!r}")
    return value


def refuse_long(image: Image.Image) -> None:
    """`MediaError` for a picture more than `MAX_RATIO` times as long as it is wide, or the other way round."""
    if max(image.size) > MAX_RATIO * min(image.size):
        raise MediaError(
            f"Cannot use a picture of {image.width} x {image.height}: one side is more than {MAX_RATIO} times "
            "the other; crop it."
        )


def _three(values: float | Sequence[float]) -> tuple[float, ...]:
    red, green, blue = (float(v) for v in (values if isinstance(values, Sequence) else [values] * 3))
    return red, green, blue
