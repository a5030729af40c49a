"""The coordinates of positions and the mask of attention, for sequences that are not plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Positions:
    """What a family says of the T positions of its prompt. The positions after the prompt are plain text.

    coordinates (3, T) int: time, row and column for M-RoPE; None counts 0, 1, 2, ... blocks (T,) int: positions with
    the same number above 0 attend to each other in both directions; None is causal attention. features: arrays
    (1, T, D); the i-th is added to the output of layer i (DeepStack, arXiv 2406.04334). recent: in layers without a
    window of their own, a position attends to so many newest ones, itself included, and to the first `pinned`; None is
    all.
    """

    coordinates: NDArray[np.integer] | None = None
    blocks: NDArray[np.int32] | None = None
    features: Sequence[mx.array] = ()
    recent: int | None = None
    pinned: int = 0

    def reach(self, window: int | None) -> tuple[int | None, int]:
        """For a layer with this window: how many positions back a query attends to, and how many first ones beside."""
        return (self.recent, self.pinned) if window is None and self.recent is not None else (window, 0)

    def at(self, start: int, length: int) -> int | mx.array:
        """The coordinates of `length` positions from `start`: the first of consecutive ones, or (3, length)."""
        if self.coordinates is None:
            return start
        of_prompt = self.coordinates[:, start : start + length]
        shift = int(self.coordinates.max()) + 1 - self.coordinates.shape[1]
        of_text = np.arange(start + of_prompt.shape[1], start + length) + shift
        coordinates = np.concatenate([of_prompt, np.broadcast_to(of_text, (3, len(of_text)))], axis=1)
        first = int(coordinates[0, 0])
        return first if (coordinates == first + np.arange(length)).all() else mx.array(coordinates)

    def mask(self, start: int, length: int, window: int | None = None) -> mx.array | None:
        """The positions that those from `start` attend to, (length, start + length) bool; None is all of them.

        `window` is how many positions back a position attends to, itself included; it holds in blocks, too.
        """
        stop, (reach, pinned) = start + length, self.reach(window)
        if length == 1 and (reach is None or stop <= reach + pinned):
            return None
        queries, keys = mx.arange(start, stop)[:, None], mx.arange(stop)[None]
        mask = queries >= keys
        if self.blocks is not None and start < len(self.blocks):
            blocks = np.zeros(stop, dtype=np.int32)
            blocks[: len(self.blocks)] = self.blocks[:stop]
            numbers = mx.array(blocks)
            mask = mask | ((numbers[start:, None] == numbers[None]) & (numbers[start:, None] > 0))
        if reach is None:
            return mask
        near = queries - keys < reach
        return mask & (near | (keys < pinned) if pinned else near)

    def feature(self, layer: int, start: int, length: int) -> mx.array | None:
        """What is added to the output of `layer` at these positions, (1, length, D), or nothing."""
        if layer >= len(self.features) or start >= self.features[layer].shape[1]:
            return None
        of_prompt = self.features[layer][:, start : start + length]
        return mx.pad(of_prompt, [(0, 0), (0, length - of_prompt.shape[1]), (0, 0)])

    def beginning(self, length: int) -> Positions:
        """The positions of a prompt that has the first `length` of these, and after them only text."""
        coordinates = None if self.coordinates is None else self.coordinates[:, :length]
        blocks = None if self.blocks is None else self.blocks[:length]
        features = [feature[:, :length] for feature in self.features]
        return replace(self, coordinates=coordinates, blocks=blocks, features=features)

    def cut(self, stop: int) -> int:
        """The first position from `stop` on before which the sequence can be cut without cutting a block."""
        if self.blocks is not None:
            while stop < len(self.blocks) and self.blocks[stop] and self.blocks[stop] == self.blocks[stop - 1]:
                stop += 1
        return stop


SEQUENCE = Positions()
