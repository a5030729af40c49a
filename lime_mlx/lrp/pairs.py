"""The gradient of weighted relevance for deltas on keys and values, in closed form.

sum_i w_i R_i is the slope of the logit along the gates of `lime_mlx.cache.Overlay`, with w held. A pass carries value
and slope as two rows of a batch. With scores s = q.(K + dK) and outputs o = a (V + dV), and what arrives at them on the
way back, the gradient is a sum of two outer products for each query head: s_i q + s'_i q' for dK_i, where s and s' are
what arrives at the scores of value and slope, and a_i o + a'_i o' for dV_i. No array of the size of the cache is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lime_mlx.attention import AttentionRule, group_queries, hide, softmax
from lime_mlx.cache import NO_DELTA, Delta, Entries, delta_outputs, delta_scores
from lime_mlx.positions import SEQUENCE, Positions
from lime_mlx.products import slope

from .record import Pace, Record, recall
from .rules import Rules

if TYPE_CHECKING:
    from lime_mlx.models.decoder import Decoder


class Outer:
    """A sum of R outer products for each of H heads: rows (H, R, T) of positions and columns (H, R, d).

    It stands for rows^T @ columns, (1, H, T, d) float32, which `np.array` makes of it.
    """

    def __init__(self, rows: mx.array, columns: mx.array):
        self.rows, self.columns = rows, columns

    @property
    def shape(self) -> tuple[int, ...]:
        heads, _, length = self.rows.shape
        return 1, heads, length, self.columns.shape[2]

    def part(self, start: int, stop: int) -> mx.array:
        """(1, H, stop - start, d): of these positions."""
        return (self.rows[:, :, start:stop].swapaxes(1, 2) @ self.columns)[None]

    def square(self) -> mx.array:
        """The sum () of all squares."""
        alike = [x @ x.swapaxes(1, 2) for x in (self.rows, self.columns)]
        return (alike[0] * alike[1]).sum()

    def __mul__(self, other: mx.array | float) -> Outer:
        """Times a number, or a factor (T,) for each position."""
        return Outer(self.rows * other, self.columns)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> NDArray[np.float32]:
        return np.array(self.part(0, self.shape[2]), dtype=dtype)


class Pairs(Rules):
    """A rule set for two rows, a value and its slope: what a rule holds for the gradient it holds for the slope."""

    def __init__(self, rules: Rules, linear: Callable[[nn.Module, mx.array], mx.array]):
        super().__init__(linear)
        self.rules = rules

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        return _both(lambda row: self.rules.rms_norm(row, weight, eps), x)

    def layer_norm(self, x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
        return _both(lambda row: self.rules.layer_norm(row, weight, bias, eps), x)

    def activation(self, z: mx.array, kind: str) -> mx.array:
        return _both(lambda row: self.rules.activation(row, kind), z)

    def gate(self, activated: mx.array, up: mx.array) -> mx.array:
        return _both(self.rules.gate, activated, up)

    def operands(self, q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        rows = mx.jvp(self.rules.operands, [q[:1], k[:1], v[:1]], [q[1:], k[1:], v[1:]])
        q, k, v = (mx.concatenate(pair) for pair in zip(*rows, strict=True))
        return q, k, v


def _both(function: Callable[..., mx.array], *pairs: mx.array) -> mx.array:
    """The function of the first rows, and its slope along the second ones."""
    (value,), (tangent,) = mx.jvp(function, [x[:1] for x in pairs], [x[1:] for x in pairs])
    return mx.concatenate([value, tangent])


class PairMemory:
    """A layer's entries for a value and its slope along the gates; `scores` and `outputs` are added to what it gives.

    scores (2, K, G, 1, T + 1), outputs (2, K, G, 1, d): zeros, whose gradients are what arrives there. gates: slopes
    (T,) of those of the keys and of the values.
    """

    def __init__(
        self, past: Entries, delta: Delta, gates: tuple[mx.array, mx.array], scores: mx.array, outputs: mx.array
    ):
        self.past, self.delta, self.gates, self.scores, self.outputs = past, delta, gates, scores, outputs
        self.queries = self.weights = outputs

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: AttentionRule
    ) -> mx.array:
        old_k, old_v = (x[0].astype(q.dtype) for x in self.past)
        dk, dv = self.delta
        length = old_k.shape[1]
        grouped = self.queries = group_queries(q, k.shape[1], scale)
        first, second = _shared(grouped, old_k.swapaxes(1, 2))
        k, v = k[:, :, None], v[:, :, None]
        newest = (grouped * k[:1]).sum(axis=-1, keepdims=True)
        added = self.scores if dk is None else self.scores + delta_scores(grouped, dk)
        value = mx.concatenate([first, newest[:1]], axis=-1) + added[:1]
        turn = newest[1:] + (grouped[:1] * k[1:]).sum(axis=-1, keepdims=True)
        change = mx.concatenate([second + self.gates[0] * first, turn], axis=-1) + added[1:]
        if mask is not None:
            change = mx.where(mask, change, 0)
        weights = softmax(hide(value, mask))
        moved = weights * (change - (weights * change).sum(axis=-1, keepdims=True))
        both = self.weights = mx.concatenate([weights, moved])
        old = both[..., :length]
        gated = mx.concatenate([old[:1], old[1:] + self.gates[1] * old[:1]])
        out = mx.concatenate(_shared(gated, old_v)) + both[..., length:] * v[:1] + self.outputs
        out = out + mx.concatenate([mx.zeros_like(out[:1]), weights[..., length:] * v[1:]])
        if dv is not None:
            out = out + delta_outputs(both, dv)
        return out.reshape(*q.shape[:-1], -1)


def _shared(rows: mx.array, matrices: mx.array) -> tuple[mx.array, mx.array]:
    """Rows (2, K, G, 1, n) times matrices (K, n, m), each read once: twice (1, K, G, 1, m)."""
    _, heads, groups, _, size = rows.shape
    out = rows.swapaxes(0, 1).reshape(heads, 2 * groups, size) @ matrices
    out = out.reshape(heads, 2, groups, 1, -1).swapaxes(0, 1)
    return out[:1], out[1:]


def relevance_gradient(
    decoder: Decoder,
    record: Record,
    past: Sequence[Entries],
    weights: mx.array,
    rules: Rules,
    target: mx.array,
    rival: mx.array | None = None,
    deltas: Sequence[Delta] | None = None,
    positions: Positions = SEQUENCE,
    arriving: mx.array | None = None,
    per_query: bool = False,
) -> list[tuple[Outer, Outer]]:
    """The gradient of sum_i weights_i R_i, (T + 1,), for deltas on every layer's keys and values.

    R is that of `target`, less that of its rival, as `read` gives it for the record. arriving (V,): the gradient of
    what else is minimised, for the record's logits. per_query: deltas of each query head, not of each key head.
    """
    start = past[0][0].shape[2]
    gates = (rules.key_share * weights[:start], rules.value_share * weights[:start])
    values = [state.astype(mx.float32) for state in record.states]
    slopes: dict[int, mx.array] = {}
    pace = Pace()

    def along(layer: nn.Module, x: mx.array) -> mx.array:
        slopes[id(layer)] = slope(layer, x[1:])
        return mx.concatenate([record.recalled(layer, x[:1]), slopes[id(layer)]])

    def back(layer: nn.Module, x: mx.array) -> mx.array:
        y = mx.concatenate([record.outputs[id(layer)].astype(x.dtype), slopes[id(layer)]])
        return recall(layer, x, y)

    config = decoder.config
    heads, groups = config.key_heads, config.num_attention_heads // config.key_heads
    scores, outputs = (mx.zeros((2, heads, groups, 1, size)) for size in (start + 1, config.dim))

    def memory_of(index: int, scores: mx.array, outputs: mx.array) -> PairMemory:
        delta = NO_DELTA if deltas is None else deltas[index]
        return PairMemory(past[index], delta, gates, scores, outputs)

    tangents = [values[0] * weights[start]]
    for index in range(len(past)):
        pair = mx.concatenate([values[index], tangents[-1]])
        pair = decoder.block(index, pair, memory_of(index, scores, outputs), start, Pairs(rules, along), positions)
        tangents.append(pair[1:])
        pace.keep(pair)

    def explained(pair: mx.array) -> mx.array:
        def margin(h: mx.array) -> mx.array:
            hidden = decoder.model.norm(h[:, -1], rules)
            logit = decoder.logits_of(hidden, target[None], rules)
            return logit if rival is None else logit - decoder.logits_of(hidden, rival[None], rules)

        return _both(margin, pair)[1]

    def logits(pair: mx.array) -> mx.array:
        hidden = decoder.model.norm(pair[0, -1], rules)
        return decoder.head(hidden, rules.using(record.recalled))

    last = mx.concatenate([values[-1], tangents[-1]])
    _, (arrived,) = mx.vjp(explained, [last], [mx.array(1.0)])
    if arriving is not None:
        arrived = arrived + mx.vjp(logits, [last], [arriving])[1][0]
    gradient: list[tuple[Outer, Outer]] = []
    for index in reversed(range(len(past))):
        memory = memory_of(index, scores, outputs)

        def run(
            pair: mx.array, scores: mx.array, outputs: mx.array, index: int = index, memory: PairMemory = memory
        ) -> mx.array:
            memory.scores, memory.outputs = scores, outputs
            return decoder.block(index, pair, memory, start, Pairs(rules, back), positions)

        pair = mx.concatenate([values[index], tangents[index]])
        _, (arrived, at_scores, at_outputs) = mx.vjp(run, [pair, scores, outputs], [arrived])
        keys = _outer(at_scores, memory.queries, per_query)
        gradient.append((keys, _outer(memory.weights, at_outputs, per_query)))
        pace.keep(arrived, keys.rows, keys.columns, gradient[-1][1].rows, gradient[-1][1].columns)
    return gradient[::-1]


def _outer(rows: mx.array, columns: mx.array, per_query: bool) -> Outer:
    """Of rows (2, K, G, 1, T) and columns (2, K, G, 1, d): value and slope, and the queries that share a key head."""
    parts = []
    for x in (rows, columns):
        x = x[:, :, :, 0].transpose(1, 2, 0, 3)
        _, groups, _, size = x.shape
        parts.append(x.reshape(-1, 2 if per_query else 2 * groups, size))
    return Outer(*parts)
