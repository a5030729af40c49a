"""Where the positions of a sequence stand and which see which, where that is not simply one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np


@dataclass(frozen=True)
class Positions:
    """What a family says of its prompt of T positions; those after it go on one by one, as text.

    coordinates (3, T) int: time, row and column of M-RoPE; None counts 0, 1, 2, ... blocks (T,) int: positions that
    share a number above 0 see each other both ways; None is causal. features: arrays (1, T, D), the i-th added to the
    output of layer i (DeepStack, arXiv 2406.04334).
    """

    coordinates: np.ndarray | None = None
    blocks: np.ndarray | None = None
    features: Sequence[mx.array] = ()

    def at(self, start: int, length: int) -> int | mx.array:
        """Where `length` positions from `start` stand: the first of consecutive ones, or coordinates (3, length)."""
        if self.coordinates is None:
            return start
        known = self.coordinates[:, start : start + length]
        following = int(self.coordinates.max()) + 1 - self.coordinates.shape[1]
        rest = np.arange(start + known.shape[1], start + length) + following
        places = np.concatenate([known, np.broadcast_to(rest, (3, len(rest)))], axis=1)
        if (places == places[0, 0] + np.arange(length)).all():
            return int(places[0, 0])
        return mx.array(places)

    def mask(self, start: int, length: int, window: int | None = None) -> mx.array | None:
        """What positions from `start` see of all up to them, (length, start + length) bool; None: everything.

        `window` is how many positions, itself included, one sees back, in a block, too.
        """
        stop = start + length
        if length == 1 and (window is None or stop <= window):
            return None
        queries, keys = mx.arange(start, stop)[:, None], mx.arange(stop)[None]
        seen = queries >= keys
        if self.blocks is not None and start < len(self.blocks):
            blocks = np.zeros(stop, dtype=np.int32)
            blocks[: len(self.blocks)] = self.blocks[:stop]
            numbers = mx.array(blocks)
            seen = seen | ((numbers[start:, None] == numbers[None]) & (numbers[start:, None] > 0))
        return seen if window is None else seen & (queries - keys < window)

    def feature(self, layer: int, start: int, length: int) -> mx.array | None:
        """What is added to the output of `layer` at these positions, (1, length, D), or nothing."""
        if layer >= len(self.features) or start >= self.features[layer].shape[1]:
            return None
        known = self.features[layer][:, start : start + length]
        return mx.pad(known, [(0, 0), (0, length - known.shape[1]), (0, 0)])

    def beginning(self, length: int) -> "Positions":
        """That of a prompt which has the first `length` positions of this one, and after them only text."""
        coordinates = None if self.coordinates is None else self.coordinates[:, :length]
        blocks = None if self.blocks is None else self.blocks[:length]
        return Positions(coordinates, blocks, [feature[:, :length] for feature in self.features])

    def cut(self, stop: int) -> int:
        """The first place from `stop` on at which the sequence can be cut without cutting a block."""
        if self.blocks is not None:
            while stop < len(self.blocks) and self.blocks[stop] and self.blocks[stop] == self.blocks[stop - 1]:
                stop += 1
        return stop


SEQUENCE = Positions()
