"""The gradient of weighted relevance for deltas on keys and values, in closed form.

sum_i w_i R_i is the slope of the logit along the gates of `lime_mlx.cache.Overlay`, with w held. A pass carries value
and slope as two rows of a batch. With scores s = q.(K + dK) and outputs o = a (V + dV), and what arrives at them on the
way back, the gradient is a sum of two outer products for each query head: s_i q + s'_i q' for dK_i, where s and s' are
what arrives at the scores of value and slope, and a_i o + a'_i o' for dV_i. No array of the size of the cache is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lime_mlx.attention import AttentionRule, group_queries, hide, softmax
from lime_mlx.cache import Change, delta_outputs, delta_scores, paced
from lime_mlx.entries import Entries, Held, as_cached
from lime_mlx.positions import SEQUENCE, Positions
from lime_mlx.products import slope

from .record import Pace, Record, recall
from .rules import CPLRP, RATIOS, AttnLRP, Linear, Rules, divide

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

    def __init__(self, rules: Rules, linear: Linear):
        super().__init__(linear)
        self.rules = rules

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        return _both(lambda row: self.rules.rms_norm(row, weight, eps), x)

    def activation(self, z: mx.array, kind: str) -> mx.array:
        return _both(lambda row: self.rules.activation(row, kind), z)

    def gate(self, activated: mx.array, up: mx.array) -> mx.array:
        return _both(self.rules.gate, activated, up)

    def operands(self, q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        rows = mx.jvp(self.rules.operands, [q[:1], k[:1], v[:1]], [q[1:], k[1:], v[1:]])
        q, k, v = (mx.concatenate([*pair]) for pair in zip(*rows, strict=True))
        return q, k, v


class HeldPairs(Pairs):
    """`Pairs` for AttnLRP outside of attention, written out: norms and activations are factors that are held."""

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        return x * mx.stop_gradient(mx.rsqrt(x[:1].square().mean(axis=-1, keepdims=True) + eps) * weight)

    def activation(self, z: mx.array, kind: str) -> mx.array:
        return z * mx.stop_gradient(RATIOS[kind](z[:1]))

    def gate(self, activated: mx.array, up: mx.array) -> mx.array:
        value, tangent = activated[:1] * up[:1], activated[1:] * up[:1] + activated[:1] * up[1:]
        return mx.concatenate([divide(value, 2), 0.5 * tangent])

    def operands(self, q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        if self.rules.key_share == 1:
            return q, k, v
        return _divided(q, 4), _divided(k, 4), _divided(v, 2)


def pair_rules(rules: Rules, linear: Linear) -> Pairs:
    """The rule set for a value and its slope under `rules`."""
    return (HeldPairs if isinstance(rules, AttnLRP) and not isinstance(rules, CPLRP) else Pairs)(rules, linear)


def _divided(pair: mx.array, by: float) -> mx.array:
    """The value to the last bit, with its gradient divided; of the slope the part."""
    part = pair * (1 / by)
    return mx.concatenate([mx.stop_gradient(pair[:1]) + (part[:1] - mx.stop_gradient(part[:1])), part[1:]])


def _both(function: Callable[..., mx.array], *pairs: mx.array) -> mx.array:
    """The function of the first rows, and its slope along the second ones."""
    (value,), (tangent,) = mx.jvp(function, [x[:1] for x in pairs], [x[1:] for x in pairs])
    return mx.concatenate([value, tangent])


class PairMemory:
    """A layer's entries for a value and its slope along the gates, whose own slopes (T,) are those of keys and values.

    The first call computes and keeps what it computed; the second one gives the same with its gradient, written out.
    Then `gradient` holds the layer's gradient for deltas on keys and on values.
    """

    def __init__(self, past: Entries, delta: Change, gates: tuple[mx.array, mx.array], per_query: bool):
        self.past, self.delta, self.gates, self.per_query = past, delta, gates, per_query
        self.kept: tuple[mx.array, ...] = ()
        self.gradient: tuple[Outer, Outer]

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: AttentionRule
    ) -> mx.array:
        if not self.kept:
            return self._forward(q, k, v, scale, mask)

        @mx.custom_function
        def again(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            return self.kept[-1]

        @again.vjp
        def back(_: Sequence[mx.array], arriving: mx.array, __: mx.array) -> tuple[mx.array, mx.array, mx.array]:
            return self._back(arriving, scale)

        return cast(mx.array, again(q, k, v))

    def _forward(self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
        old_k, old_v = (x.astype(q.dtype) for x in self.past)
        if isinstance(self.past, Held):
            k, v = (mx.concatenate([as_cached(x[:1], self.past), x[1:]]) for x in (k, v))
        dk, dv = self.delta
        length = old_k.shape[2]
        grouped = group_queries(q, k.shape[1], scale)
        first, second = _shared(grouped, old_k.swapaxes(2, 3))
        k, v = k[:, :, None], v[:, :, None]
        newest = (grouped * k[:1]).sum(axis=-1, keepdims=True)
        turn = newest[1:] + (grouped[:1] * k[1:]).sum(axis=-1, keepdims=True)
        value = mx.concatenate([first, newest[:1]], axis=-1)
        change = mx.concatenate([second + self.gates[0] * first, turn], axis=-1)
        if dk is not None:
            added = delta_scores(grouped, dk)
            value, change = value + added[:1], change + added[1:]
        if mask is not None:
            change = mx.where(mask, change, 0)
        weights = softmax(hide(value, mask))
        both = mx.concatenate([weights, weights * (change - (weights * change).sum(axis=-1, keepdims=True))])
        old, new = both[..., :length], both[..., length:]
        out = mx.concatenate(_shared(mx.concatenate([old[:1], old[1:] + self.gates[1] * old[:1]]), old_v))
        out = out + new * v[:1] + mx.concatenate([mx.zeros_like(out[:1]), new[:1] * v[1:]])
        if dv is not None:
            out = out + delta_outputs(both, dv)
        self.kept = grouped, both, k, v, out.reshape(*q.shape[:-1], -1)
        return self.kept[-1]

    def _back(self, arriving: mx.array, scale: float) -> tuple[mx.array, mx.array, mx.array]:
        """What arrives at queries, keys and values of the newest position. a, a': weights and their slopes."""
        grouped, both, k, v, _ = self.kept
        old_k, old_v = (x.astype(arriving.dtype) for x in self.past)
        dk, dv = self.delta
        length = old_k.shape[2]
        at_out = arriving.reshape(grouped.shape)
        first, second = _shared(at_out, old_v.swapaxes(2, 3))
        newest = (at_out * v[:1]).sum(axis=-1, keepdims=True)
        crossed = newest[:1] + (at_out[1:] * v[1:]).sum(axis=-1, keepdims=True)
        at_a = mx.concatenate([first + self.gates[1] * second, crossed], axis=-1)
        at_slope = mx.concatenate([second, newest[1:]], axis=-1)
        if dv is not None:
            added = delta_scores(at_out, dv)
            at_a, at_slope = at_a + added[:1], at_slope + added[1:]
        a, slope = both[:1], both[1:]
        mean = (a * at_slope).sum(axis=-1, keepdims=True)
        apart = at_slope - mean
        total = (a * at_a + slope * at_slope).sum(axis=-1, keepdims=True)
        at_scores = mx.concatenate([a * (at_a - total) + slope * apart, a * apart])
        old, new = at_scores[..., :length], at_scores[..., length:]
        at_q = mx.concatenate(_shared(mx.concatenate([old[:1] + self.gates[0] * old[1:], old[1:]]), old_k))
        at_q = at_q + new * k[:1] + mx.concatenate([new[1:] * k[1:], mx.zeros_like(at_q[:1])])
        if dk is not None:
            at_q = at_q + delta_outputs(at_scores, dk)
        read = both[..., length:]
        keys = _newest(new * grouped, new[1:] * grouped[:1])
        values = _newest(read * at_out, read[:1] * at_out[1:])
        self.gradient = _outer(at_scores, grouped, self.per_query), _outer(both, at_out, self.per_query)
        batch, heads, groups, _, dim = at_q.shape
        return scale * at_q.reshape(batch, heads * groups, 1, dim), keys, values


def _newest(value: mx.array, slope: mx.array) -> mx.array:
    """What arrives at a key or value (2, K, 1, d), from all queries (2, K, G, 1, d) and (1, K, G, 1, d)."""
    return mx.concatenate([value.sum(axis=(0, 2))[None], slope.sum(axis=2)])


def _shared(rows: mx.array, matrices: mx.array) -> list[mx.array]:
    """Rows (2, K, G, 1, n) times matrices (1, K, n, m), each read once: twice (1, K, G, 1, m)."""
    _, heads, groups, _, size = rows.shape
    out = rows.swapaxes(0, 1).reshape(1, heads, 2 * groups, size) @ matrices
    out = out.reshape(heads, 2, groups, 1, -1).swapaxes(0, 1)
    return [out[:1], out[1:]]


def relevance_gradient(
    decoder: Decoder,
    record: Record,
    past: Sequence[Entries],
    weights: mx.array,
    rules: Rules,
    target: mx.array,
    rival: mx.array | None = None,
    deltas: Sequence[Change] | None = None,
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
        return recall(layer, x, y, pace.stages)

    moved = paced(deltas, len(past), pace.stages)
    memories = [PairMemory(entries, delta, gates, per_query) for entries, delta in zip(past, moved, strict=True)]
    tangents = [values[0] * weights[start]]
    for index in range(len(past)):
        pair = mx.concatenate([values[index], tangents[-1]])
        pair = decoder.block(index, pair, memories[index], start, pair_rules(rules, along), positions)
        tangents.append(pair[1:])
        pace.keep(tangents[-1], memories[index].kept)

    def explained(pair: mx.array) -> mx.array:
        def margin(h: mx.array) -> mx.array:
            hidden = decoder.model.norm(h[:, -1], rules)
            logit = decoder.logits_of(hidden, target[None], rules)
            return logit if rival is None else logit - decoder.logits_of(hidden, rival[None], rules)

        return _both(margin, pair)[1]

    def logits(pair: mx.array) -> mx.array:
        hidden = decoder.model.norm(pair[0, -1], rules)
        return decoder.head(hidden, rules.using(partial(record.recalled, stages=pace.stages)))

    last = mx.concatenate([values[-1], tangents[-1]])
    _, (arrived,) = mx.vjp(explained, [last], [mx.array(1.0)])
    if arriving is not None:
        arrived = arrived + mx.vjp(logits, [last], [arriving])[1][0]
        pace.keep(arrived)
    for index in reversed(range(len(past))):

        def run(pair: mx.array, index: int = index) -> mx.array:
            return decoder.block(index, pair, memories[index], start, pair_rules(rules, back), positions)

        pair = mx.concatenate([values[index], tangents[index]])
        _, (arrived,) = mx.vjp(run, [pair], [arrived])
        parts = [x for outer in memories[index].gradient for x in (outer.rows, outer.columns)]
        memories[index].kept = ()
        pace.keep(arrived, *parts)
    return [memory.gradient for memory in memories]


def _outer(rows: mx.array, columns: mx.array, per_query: bool) -> Outer:
    """Of rows (2, K, G, 1, T) and columns (2, K, G, 1, d): value and slope, and the queries that share a key head."""
    parts = []
    for x in (rows, columns):
        x = x[:, :, :, 0].transpose(1, 2, 0, 3)
        _, groups, _, size = x.shape
        parts.append(x.reshape(-1, 2 if per_query else 2 * groups, size))
    return Outer(*parts)
