"""The key-value cache: appended to once per token, read as plain arrays, overlaid for one step, overwritten."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import cast

import mlx.core as mx

from lime_mlx.attention import AttentionRule, attend, group_queries, hide, masked_scores, score, softmax
from lime_mlx.entries import CHUNK, Entries, Held, LayerCache, as_cached
from lime_mlx.errors import MethodError
from lime_mlx.kv import DEFAULT, KVOptions

__all__ = ["CHUNK", "Entries", "Held", "KVCache", "LayerCache"]

# Masked scores (1, K, G, L, T), G queries to one key head, to attention weights of the same shape.
Edit = Callable[[mx.array], mx.array]


class Moves(ABC):
    """A delta (1, H, T, d) that is never made whole: it gives what it adds to scores and to what is read.

    `scores` and `outputs` are the gradients of each other for what they are given.
    """

    @abstractmethod
    def paced(self, stages: list[mx.array]) -> Moves:
        """The same, inside of a traced function: what is to be computed piece by piece goes to `stages`."""

    @abstractmethod
    def scores(self, grouped: mx.array) -> mx.array:
        """What it adds, as one on keys, to the scores (B, K, G, L, T) of grouped queries (B, K, G, L, d)."""

    @abstractmethod
    def outputs(self, weights: mx.array) -> mx.array:
        """What it adds, as one on values, to (B, K, G, L, d), what weights (B, K, G, L, T) read."""


# A layer's deltas on keys and values, of which one or both may be missing: arrays, or also what stands for such.
Delta = Sequence[mx.array | None]
Change = Sequence[mx.array | Moves | None]
NO_DELTA: Delta = (None, None)


class Guidance:
    """An edit that adds to what the attention gives, for which it needs the values.

    As an edit it gives the ordinary weights, which observers see.
    """

    def __call__(self, scores: mx.array) -> mx.array:
        return softmax(scores)

    @abstractmethod
    def guided(self, scores: mx.array, v: mx.array) -> mx.array:
        """Weights of the shape of the masked scores (B, K, G, 1, T), for values (B, K, T, d).

        A row may have any sum and any sign.
        """


class Edited:
    """One layer's cache, attended to with the weights that `edit` makes of the scores.

    The entries are appended first: a buffer that the same computation also reads as it was would have to be copied.
    """

    def __init__(self, layer: LayerCache, edit: Edit):
        self.layer, self.edit = layer, edit

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: AttentionRule
    ) -> mx.array:
        k, v = self.layer.extend(k, v)
        scores = masked_scores(q, k, scale, mask)
        return attend(self.edit.guided(scores, v) if isinstance(self.edit, Guidance) else self.edit(scores), v)


class Overlay:
    """One layer's entries for one step: cached ones, new ones, and deltas on all of them. Nothing is stored.

    `past` is a pair of (1, H, T, d) arrays or None; `delta` a pair of (1, H or more, T + L, d) arrays, each or both
    None; deltas with more heads than the entries have one for each query head. `gates` is a pair of (T,) arrays, zeros
    in value: the score and the weight of cached entry i count 1 + gate_i times, so that the gradient for a gate is
    <K_i, dz/dK_i> or <V_i, dz/dV_i>, summed over heads, with no gradient of the entries' size. `edit` makes the
    attention weights of the scores, where a method wants others than their softmax.
    """

    def __init__(
        self,
        past: Entries | None = None,
        delta: Change = NO_DELTA,
        gates: Sequence[mx.array] | None = None,
        edit: Edit = softmax,
    ):
        self.past, self.delta, self.gates, self.edit = past, delta, gates, edit
        self.fresh: Entries | None = None

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: AttentionRule
    ) -> mx.array:
        self.fresh = k, v
        if self.past is None:
            whole = [delta for delta in self.delta if isinstance(delta, mx.array)]
            widest = max(x.shape[1] for x in (k, *whole))
            k, v = (_moved(_repeat(x, widest), delta) for x, delta in zip((k, v), self.delta, strict=True))
            return rules.attention(q, k, v, scale, mask)
        old_k, old_v = self.past
        k, v = as_cached(k, self.past), as_cached(v, self.past)
        grouped = group_queries(q, k.shape[1], scale)
        scores = score(grouped, old_k)
        if self.gates is not None:
            scores = scores * (1 + self.gates[0])
        scores = mx.concatenate([scores, score(grouped, k)], axis=-1)
        dk, dv = self.delta
        if dk is not None:
            scores = scores + delta_scores(grouped, dk)
        scores = hide(scores, mask)
        if isinstance(self.edit, Guidance):
            alike = mx.broadcast_to(old_v, (v.shape[0], *old_v.shape[1:]))
            weights = self.edit.guided(scores, mx.concatenate([alike, v], axis=2))
        else:
            weights = self.edit(scores)
        old, new = weights[..., : old_k.shape[2]], weights[..., old_k.shape[2] :]
        if self.gates is not None:
            old = old * (1 + self.gates[1])
        out = old @ old_v[:, :, None] + new @ v[:, :, None]
        if dv is not None:
            out = out + delta_outputs(weights, dv)
        return out.reshape(*q.shape[:-1], -1)


def _moved(entries: mx.array, delta: mx.array | Moves | None) -> mx.array:
    if isinstance(delta, Moves):
        raise TypeError("without past entries, deltas are arrays")
    return entries if delta is None else entries + delta


def _repeat(entries: mx.array, heads: int) -> mx.array:
    """Entries (1, H, T, d) for `heads` heads."""
    groups = heads // entries.shape[1]
    return entries if groups == 1 else mx.repeat(entries, groups, axis=1)


def delta_scores(grouped: mx.array, delta: mx.array | Moves) -> mx.array:
    """What a delta on keys adds to the scores (B, K, G, L, T) of grouped queries (B, K, G, L, d)."""
    if isinstance(delta, Moves):
        return _linear(delta.scores, delta.outputs, grouped)
    return grouped @ _grouped(delta, grouped.shape[1]).swapaxes(-1, -2)


def delta_outputs(weights: mx.array, delta: mx.array | Moves) -> mx.array:
    """What a delta on values adds to (B, K, G, L, d), what weights (B, K, G, L, T) read."""
    if isinstance(delta, Moves):
        return _linear(delta.outputs, delta.scores, weights)
    return weights @ _grouped(delta, weights.shape[1])


def paced(deltas: Sequence[Change] | None, layers: int, stages: list[mx.array]) -> list[Change]:
    """Every layer's deltas, for a traced function. See `Moves.paced`."""
    if deltas is None:
        return [NO_DELTA] * layers
    return [tuple(x.paced(stages) if isinstance(x, Moves) else x for x in delta) for delta in deltas]


def _linear(function: Callable[[mx.array], mx.array], back: Callable[[mx.array], mx.array], x: mx.array) -> mx.array:
    """A linear function of `x`, with the one by which its gradient goes back."""

    @mx.custom_function
    def run(x: mx.array) -> mx.array:
        return function(x)

    @run.vjp
    def turned(_: mx.array, arriving: mx.array, __: mx.array) -> mx.array:
        return back(arriving)

    return cast(mx.array, run(x))


def _grouped(delta: mx.array, heads: int) -> mx.array:
    """(1, H, G, T, d) with G = 1 for deltas of key heads, or the queries to one key head."""
    return delta.reshape(1, heads, -1, *delta.shape[2:])


class KVCache:
    """The cache of all layers; `cache[i]` is layer i's.

    reaches: for each layer, how many positions back a query attends to, and how many first positions all attend to
    beside these; None is all. mark: a position behind which the cache can go on at any time.
    """

    def __init__(
        self,
        layers: int,
        options: KVOptions = DEFAULT,
        reaches: Sequence[tuple[int | None, int]] | None = None,
        mark: int | None = None,
    ) -> None:
        self.layers = [LayerCache(options, *reach) for reach in reaches or [(None, 0)] * layers]
        for layer in self.layers:
            layer.mark = mark

    def __getitem__(self, index: int) -> LayerCache:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def offset(self) -> int:
        """Positions cached so far."""
        return self.layers[0].offset

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    def append(self, entries: Sequence[Entries]) -> None:
        """Append every layer's keys and values of new positions."""
        for layer, (k, v) in zip(self.layers, entries, strict=True):
            layer.extend(k, v)

    def entries(self) -> list[Entries | None]:
        """Every layer's keys and values; None for a layer that holds none yet."""
        return [layer.entries() if layer.offset else None for layer in self.layers]

    def before(self, position: int) -> list[Entries]:
        """Every layer's keys and values of the first `position` positions.

        Raises `IndexError` for an empty layer, and where the cache is not `resumable` there.
        """
        return [layer.entries(position) for layer in self.layers]

    def overwrite(self, position: int, entries: Sequence[Delta]) -> None:
        for layer, (k, v) in zip(self.layers, entries, strict=True):
            layer.overwrite(position, k, v)

    def resumable(self, position: int) -> int:
        """The last position up to this one behind which the cache can go on with what it holds."""
        marks = [layer.mark for layer in self.layers if layer.mark is not None and layer.mark < position]
        for each in (position, *marks[:1]):
            if all(layer.resumable(each) for layer in self.layers):
                return each
        return 0

    def trim(self, count: int) -> None:
        """Forget the newest `count` positions, and as many more as it takes to go on with what is held.

        Raises `MethodError` where these were overwritten, so that computing them again would not give the same.
        """
        wanted = self.offset - min(count, self.offset)
        position = self.resumable(wanted)
        lost = sum(position <= each < wanted for layer in self.layers for each in layer.changed)
        if lost:
            held = min(layer.offset - layer.first for layer in self.layers if layer.gap)
            raise MethodError(
                f"The answer cannot go back {count:,} positions: layers with a window hold only {held:,}, and a method "
                "changed those before; leave that method or --max-kv-size out."
            )
        for layer in self.layers:
            layer.back_to(position)

    def pack(self) -> None:
        """Quantise what the options want quantised by now."""
        for layer in self.layers:
            layer.pack_if_due()

    def copy(self, count: int | None = None) -> KVCache:
        """The first `count` entries, or all; what is appended or overwritten in one cache is not in the other."""
        other = KVCache(0)
        position = self.offset if count is None else min(count, self.offset)
        other.layers = [layer.copy(position) for layer in self.layers]
        return other

    def piece(self, start: int, stop: int) -> list[mx.array]:
        """The arrays of all layers that hold the positions from `start` to `stop`, as `put` takes them."""
        return [array for layer in self.layers for array in layer.piece(start, stop)]

    def put(self, arrays: Sequence[mx.array]) -> None:
        """Append a `piece` of another cache with the same options."""
        each = len(arrays) // len(self.layers)
        for number, layer in enumerate(self.layers):
            layer.put(arrays[each * number : each * (number + 1)])

    def arrays(self) -> list[mx.array]:
        return [array for layer in self.layers for array in layer.arrays()]


def fresh(edits: Mapping[int, Edit] | None) -> dict[int, Edit]:
    """Copies for one forward: an edit may remember what it saw in the layers before. Layers that share one still do."""
    copies = {id(edit): copy(edit) for edit in (edits or {}).values()}
    return {index: copies[id(edit)] for index, edit in (edits or {}).items()}


def overlays(
    past: Sequence[Entries | None],
    deltas: Sequence[Change] | None = None,
    gates: Sequence[mx.array] | None = None,
    edits: Mapping[int, Edit] | None = None,
) -> list[Overlay]:
    """One `Overlay` a layer, from the entries and deltas of each layer, gates that all share, and edits of some."""
    edits = fresh(edits)
    return [
        Overlay(entries, delta, gates, edits.get(index, softmax))
        for index, (entries, delta) in enumerate(zip(past, deltas or [NO_DELTA] * len(past), strict=True))
    ]
