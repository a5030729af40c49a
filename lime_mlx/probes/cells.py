"""A picture or a sound cut into cells, of which some are covered: what the model is given to test a map.

A covered cell of a picture has the mean colour of the picture. A covered cell of a sound is as quiet as the quietest
part of its log-mel spectrogram. So what is covered says nothing, and stays close to what the model knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.errors import PromptError
from lime_mlx.models.base import LEVELS, Model
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt

Mask = NDArray[np.bool_]


class Cells(Protocol):
    """Cells over one picture or sound of a prompt. shape: their rows and columns."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def covered(self, mask: Mask) -> Prompt:
        """The prompt with those cells covered that are true in `mask` (rows, columns)."""
        ...


@dataclass(frozen=True)
class PictureCells:
    """Rows and columns that divide a whole picture evenly. number: which of the pictures, from 0."""

    processor: Processor
    prompt: Prompt
    pictures: Sequence[Image.Image]
    number: int
    shape: tuple[int, int]

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        return np.asarray(self.pictures[self.number].convert("RGB"))

    def covered(self, mask: Mask) -> Prompt:
        height, width = self._pixels.shape[:2]
        places = np.ix_(_cell_of(height, self.shape[0]), _cell_of(width, self.shape[1]))
        mean = self._pixels.mean(axis=(0, 1)).round().astype(np.uint8)
        pixels = np.where(np.asarray(mask)[places][..., None], mean, self._pixels)
        pictures = [*self.pictures]
        pictures[self.number] = Image.fromarray(pixels.astype(np.uint8))
        arrays = self.processor.prepare(pictures).arrays
        return replace(self.prompt, media={**self.prompt.media, **arrays}, sources={})


@dataclass(frozen=True)
class SoundCells:
    """Cells over the log-mel spectrogram of a sound: rows are bands, the lowest first; columns are times.

    number: which of the sounds, from 0. A row of all bands tests a map that knows times alone.
    """

    model: Model
    prompt: Prompt
    number: int
    shape: tuple[int, int]

    def covered(self, mask: Mask) -> Prompt:
        valid = self._valid

        def cover(levels: NDArray[np.float32]) -> NDArray[np.float32]:
            if levels.ndim != 3:
                raise PromptError("The map of this sound cannot be checked: its frames do not stand one by one.")
            levels = levels.copy()
            part = levels[self.number, :, :valid]
            places = np.ix_(_cell_of(part.shape[0], self.shape[0]), _cell_of(part.shape[1], self.shape[1]))
            part[np.asarray(mask)[places]] = part.min()
            return levels

        return self.model.changed(self.prompt, "audio", cover)

    @property
    def _valid(self) -> int:
        """How many frames are sound; the rest is padding."""
        frames = np.asarray(self.prompt.media[LEVELS["audio"]]).shape[-1]
        mask = self.prompt.media.get("feature_attention_mask")
        return int(frames if mask is None else np.asarray(mask)[self.number].astype(bool).sum())


def _cell_of(length: int, cells: int) -> NDArray[np.intp]:
    """For each of `length` pixels or frames, the cell that it lies in."""
    return np.minimum(np.arange(length) * cells // length, cells - 1)
