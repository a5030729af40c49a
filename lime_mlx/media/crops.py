"""A picture squeezed into a square, and crops of a long picture ("pan and scan"), for Gemma 3.

Gemma Team 2025, "Gemma 3 Technical Report" (arXiv 2503.19786), section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import CheckpointError, MediaError
from ..files import Json
from .image import to_rgb
from .pixels import shorter
from .preprocess import HALF, Preprocessor, positive

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class Crops(Preprocessor):
    """Squares of `side` pixels, what the tower takes: the second argument of `from_dict`.

    With `scan`, a picture at least `ratio` times as long as it is wide is also cut along its longer side into at most
    `most` crops, none with a side under `least` pixels.
    """

    side: int
    resize: bool = True
    scan: bool = False
    least: int = 256
    most: int = 4
    ratio: float = 1.2
    resample: int = Image.Resampling.BILINEAR
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF

    @classmethod
    def _read(cls, settings: Json, side: int) -> Self:
        size = settings.get("size", side)
        size = (size, size) if isinstance(size, int) else shorter(size)
        if size != (side, side):
            raise CheckpointError(
                f"preprocessor_config.json gives pictures of size {size}, but the vision tower takes {side} x {side}."
            )
        return cls(
            side=side,
            resize=bool(settings.get("do_resize", True)),
            scan=bool(settings.get("do_pan_and_scan", cls.scan)),
            least=positive(settings, "pan_and_scan_min_crop_size", cls.least),
            most=positive(settings, "pan_and_scan_max_num_crops", cls.most),
            ratio=float(settings.get("pan_and_scan_min_ratio_to_activate", cls.ratio)),
            **cls._levels(settings),
        )

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, NDArray[np.generic]]:
        """`pixel_values` (pictures and crops, 3, side, side) float32, each picture before its crops, and
        `num_crops` (N,).

        Raises `MediaError` for a picture of another size where the settings say not to resize.
        """
        parts, counts = [], []
        for image in map(to_rgb, images):
            boxes = self.boxes(image.width, image.height)
            parts += [self._square(part) for part in (image, *map(image.crop, boxes))]
            counts.append(len(boxes))
        return {"pixel_values": np.stack(parts), "num_crops": np.array(counts)}

    def boxes(self, width: int, height: int) -> list[tuple[int, int, int, int]]:
        """The crops (left, top, right, bottom) of a picture, from left to right or from top to bottom."""
        short, long = sorted((width, height))
        if not self.scan or long / short < self.ratio:
            return []
        count = min(self.most, max(2, min(long // self.least, math.floor(long / short + 0.5))))
        step = math.ceil(long / count)
        if min(step, short) < self.least:
            return []
        ends = [(start, min(start + step, long)) for start in range(0, long, step)]
        return [(a, 0, b, height) if width >= height else (0, a, width, b) for a, b in ends]

    def _square(self, image: Image.Image) -> NDArray[np.float32]:
        if self.resize:
            image = self.resized(image, self.side, self.side)
        elif image.size != (self.side, self.side):
            raise MediaError(
                f"Cannot use a picture of {image.width} x {image.height}: the model does not resize, and takes only "
                f"{self.side} x {self.side}; resize it."
            )
        return self.channels(image)


def crops_text(
    crops: int,
    tokens: int,
    image: str = "<image_soft_token>",
    begin: str = "<start_of_image>",
    end: str = "<end_of_image>",
) -> str:
    """What stands for a picture and its crops, each of `tokens` tokens."""
    one = f"\n\n{begin}{image * tokens}{end}\n\n"
    if not crops:
        return one
    return f"Here is the original image {one} and here are some crops to help you see better {' '.join([one] * crops)}"
