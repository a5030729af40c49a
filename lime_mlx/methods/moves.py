"""What fast LIME's updates make of gradients that are sums of outer products: deltas that are never kept.

Updates along the gradient are such sums themselves. Those that look at every entry are made again where they are used,
one piece of the positions after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.backend import is_cpu
from lime_mlx.cache import Change, Moves
from lime_mlx.lrp.pairs import Outer

from .updates import UPDATES, Deltas, Normalised

# Entries of a piece: small beside a layer's cache, large beside the work of starting to compute it.
PIECE_CPU, PIECE = 1 << 15, 1 << 24
# One dict a layer, from "k" and "v".
Gradient = list[dict[str, Outer]]
Moved = list[dict[str, Moves]]


class Sum(Moves):
    """A delta that is a sum of outer products."""

    def __init__(self, outer: Outer):
        self.outer = outer

    def scores(self, grouped: mx.array) -> mx.array:
        rows, columns = (_of_heads(x, grouped.shape[1]) for x in (self.outer.rows, self.outer.columns))
        return (grouped @ columns.swapaxes(-1, -2)) @ rows

    def outputs(self, weights: mx.array) -> mx.array:
        rows, columns = (_of_heads(x, weights.shape[1]) for x in (self.outer.rows, self.outer.columns))
        return (weights @ rows.swapaxes(-1, -2)) @ columns

    def paced(self, stages: list[mx.array]) -> Moves:
        return self

    def square(self) -> mx.array:
        return self.outer.square()

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> NDArray[np.float32]:
        return np.array(self.outer, dtype=dtype)


class EachEntry(Moves):
    """The delta that a step rule makes, entry by entry, of one gradient after the other."""

    def __init__(self, rule: str, lr: float, gradients: Sequence[Outer], stages: list[mx.array] | None = None):
        self.rule, self.lr, self.gradients, self.stages = rule, lr, gradients, stages
        self.shape = gradients[0].shape

    def paced(self, stages: list[mx.array]) -> Moves:
        return EachEntry(self.rule, self.lr, self.gradients, stages)

    def scores(self, grouped: mx.array) -> mx.array:
        parts = []
        for start, stop in self._pieces():
            piece = _of_heads(self.part(start, stop)[0], grouped.shape[1])
            parts.append(self._soon(grouped @ piece.swapaxes(-1, -2)))
        return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=-1)

    def outputs(self, weights: mx.array) -> mx.array:
        total = mx.array(0.0)
        for start, stop in self._pieces():
            total = self._soon(
                total + weights[..., start:stop] @ _of_heads(self.part(start, stop)[0], weights.shape[1])
            )
        return total

    def part(self, start: int, stop: int) -> mx.array:
        """(1, H, stop - start, d): the delta of these positions."""
        rule = UPDATES[self.rule](self.lr)
        values = [{"": mx.array(0.0)}]
        for gradient in self.gradients:
            values = rule.update([{"": gradient.part(start, stop)}], values)
        return values[0][""]

    def square(self) -> mx.array:
        total = mx.array(0.0)
        for start, stop in self._pieces():
            total = self._soon(total + self.part(start, stop).square().sum())
        return total

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> NDArray[np.float32]:
        return np.array(self.part(0, self.shape[2]), dtype=dtype)

    def _soon(self, x: mx.array) -> mx.array:
        """`x`, which is computed before the next piece is made."""
        if self.stages is not None:
            self.stages.append(x)
        elif is_cpu():
            mx.eval(x)
        return x

    def _pieces(self) -> Iterator[tuple[int, int]]:
        _, heads, length, size = self.shape
        count = max(1, (PIECE_CPU if is_cpu() else PIECE) // (heads * size))
        for start in range(0, length, count):
            yield start, min(start + count, length)


class FactoredUpdate:
    """A step rule of `updates` for gradients that are sums of outer products. It keeps these, not the deltas."""

    def __init__(self, rule: str, lr: float):
        self.rule, self.lr = rule, lr
        self.gradients: list[Gradient] = []
        self.sizes: list[mx.array] = []

    def update(self, gradient: Gradient) -> Moved:
        """The deltas after one step more down this gradient."""
        self.gradients.append(gradient)
        if self.rule == Normalised.name:
            self.sizes.append(Normalised(self.lr).size(gradient))
        return [{name: self._moves(index, name) for name in layer} for index, layer in enumerate(gradient)]

    def _moves(self, index: int, name: str) -> Moves:
        outers = [gradient[index][name] for gradient in self.gradients]
        if not self.sizes:
            return EachEntry(self.rule, self.lr, outers)
        rows = [outer.rows * -size for outer, size in zip(outers, self.sizes, strict=True)]
        columns = [outer.columns for outer in outers]
        return Sum(Outer(mx.concatenate(rows, axis=1), mx.concatenate(columns, axis=1)))


class WholeUpdate:
    """A step rule of `updates` that keeps its deltas and its own state as arrays: faster for several updates."""

    def __init__(self, rule: str, lr: float):
        self.rule = UPDATES[rule](lr)
        self.deltas: Deltas = []

    def update(self, gradient: Gradient) -> Deltas:
        """The deltas after one step more down this gradient."""
        whole = [{name: x.part(0, x.shape[2]) for name, x in layer.items()} for layer in gradient]
        self.deltas = self.rule.update(whole, self.deltas or [dict.fromkeys(layer, mx.array(0.0)) for layer in whole])
        mx.eval(self.deltas)
        return self.deltas


def pairs(deltas: Sequence[dict[str, mx.array]] | Moved) -> list[Change]:
    """Every layer's deltas on keys and values."""
    return [(layer.get("k"), layer.get("v")) for layer in deltas]


def _of_heads(x: mx.array, key_heads: int) -> mx.array:
    """(1, K, G, R, n) of (H, R, n), with G = 1 for factors of key heads, or the queries to one key head."""
    return x.reshape(1, key_heads, -1, *x.shape[1:])
