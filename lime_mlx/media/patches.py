"""A picture of any shape as a grid of patches, for the towers of Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni and Qwen3-VL.

Wang et al. 2024, "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution"
(arXiv 2409.12191).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import limits
from ..errors import MediaError
from ..files import Json
from .image import to_rgb
from .pixels import CLIP_MEAN, CLIP_STD
from .preprocess import Preprocessor, positive, refuse_long, sides, unsupported

if TYPE_CHECKING:
    from typing_extensions import Self

SPELLINGS = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
LIMITS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}


@dataclass(frozen=True, kw_only=True)
class Patches(Preprocessor):
    """Patches of `patch` x `patch` pixels, `frames` times each, in windows of `merge` x `merge` that become a token.

    A picture is resized to `least` to `most` pixels (None: not at all), each side a multiple of patch * merge.
    """

    least: int | None
    most: int | None
    patch: int = 14
    frames: int = 2
    merge: int = 2
    resample: int = Image.Resampling.BICUBIC
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    @classmethod
    def _read(cls, settings: Json, side: int) -> Self:
        named = sides(settings.get("size", LIMITS), limits.PREPARED_PIXELS.value)
        edges = {SPELLINGS.get(key, key): value for key, value in named.items()}
        edges |= {SPELLINGS[key]: positive(settings, key, 0) for key in SPELLINGS if key in settings}
        if edges.keys() != LIMITS.keys():
            raise unsupported(edges)
        limits.PREPARED_PIXELS.check(max(edges.values()), "min_pixels or max_pixels", ValueError)
        resize = settings.get("do_resize", True)
        return cls(
            least=edges["shortest_edge"] if resize else None,
            most=edges["longest_edge"] if resize else None,
            patch=positive(settings, "patch_size", cls.patch),
            frames=positive(settings, "temporal_patch_size", cls.frames),
            merge=positive(settings, "merge_size", cls.merge),
            **cls._levels(settings),
        )

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, NDArray[np.generic]]:
        """`pixel_values` (patches of all pictures, 3 * frames * patch * patch) float32, window after window, and
        `image_grid_thw` (N, 3), the time (1), rows and columns of each picture.

        Raises `MediaError` for a picture more than `MAX_RATIO` times as long as it is wide, or the other way round.
        """
        parts, grids = [], []
        for image in images:
            height, width = self.size(image)
            image = to_rgb(image)
            pixels = self.channels(image if self.least is None else self.resized(image, height, width))
            parts.append(self._cut(pixels))
            grids.append((1, height // self.patch, width // self.patch))
        return {"pixel_values": np.concatenate(parts), "image_grid_thw": np.array(grids)}

    def tokens(self, grids: NDArray[np.generic]) -> list[int]:
        """The number of tokens of each picture of `image_grid_thw`."""
        counts: list[int] = (np.asarray(grids, dtype=np.intp).prod(axis=1) // self.merge**2).tolist()
        return counts

    def size(self, image: Image.Image) -> tuple[int, int]:
        """(height, width) after the resize."""
        refuse_long(image)
        height, width, unit = image.height, image.width, self.patch * self.merge
        if self.least is None or self.most is None:
            if height % unit or width % unit:
                raise MediaError(
                    f"Cannot use a picture of {width} x {height}: the model does not resize, and takes only sides that "
                    f"are multiples of {unit}; resize it."
                )
            return height, width
        tall, wide = (round(side / unit) * unit for side in (height, width))
        if tall * wide > self.most:
            shrink = math.sqrt(height * width / self.most)
            tall, wide = (max(unit, math.floor(side / shrink / unit) * unit) for side in (height, width))
        elif tall * wide < self.least:
            grow = math.sqrt(self.least / (height * width))
            tall, wide = (math.ceil(side * grow / unit) * unit for side in (height, width))
        return tall, wide

    def _cut(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(patches, 3 * frames * patch * patch) of (3, H, W), the patches of a window side by side."""
        _, height, width = pixels.shape
        unit = self.patch * self.merge
        split = pixels.reshape(3, height // unit, self.merge, self.patch, width // unit, self.merge, self.patch)
        windows = split.transpose(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
        return np.repeat(windows, self.frames, axis=5).reshape(-1, 3 * self.frames * self.patch**2)
