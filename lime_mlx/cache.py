"""The key-value cache: appended to once per token, read as plain arrays, overlaid for one step, overwritten."""

from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx

CHUNK = 256
# Masked scores (1, H, G, L, T), G queries to one key head, to attention weights of the same shape.
Edit = Callable[[mx.array], mx.array]


def softmax(scores: mx.array) -> mx.array:
    return mx.softmax(scores, axis=-1, precise=True)


class LayerCache:
    """Keys and values of one layer, (1, H, T, d) each, in buffers that grow by `CHUNK` positions."""

    def __init__(self):
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    def extend(self, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        """Append the entries of new positions and return all entries."""
        start, self.offset = self.offset, self.offset + k.shape[2]
        self._reserve(k, v)
        self.keys[:, :, start : self.offset] = k
        self.values[:, :, start : self.offset] = v
        return self.entries()

    def attention(self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask, rules) -> mx.array:
        """Append `k`, `v` and attend to all entries."""
        return rules.attention(q, *self.extend(k, v), scale, mask)

    def entries(self) -> tuple[mx.array, mx.array]:
        return self.keys[:, :, : self.offset], self.values[:, :, : self.offset]

    def overwrite(self, position: int, k: mx.array | None = None, v: mx.array | None = None) -> None:
        """Replace the entries of one position; `k`, `v` are (1, H, 1, d), None leaves them."""
        if not 0 <= position < self.offset:
            raise IndexError(f"position {position} is outside the {self.offset} cached ones")
        if k is not None:
            self.keys[:, :, position : position + 1] = k
        if v is not None:
            self.values[:, :, position : position + 1] = v

    def trim(self, count: int) -> None:
        self.offset -= min(count, self.offset)

    @property
    def nbytes(self) -> int:
        return 0 if self.keys is None else self.keys.nbytes + self.values.nbytes

    def _reserve(self, k: mx.array, v: mx.array) -> None:
        held = 0 if self.keys is None else self.keys.shape[2]
        if self.offset <= held:
            return
        room = -(-self.offset // CHUNK) * CHUNK - held
        self.keys = _grown(self.keys, k, room)
        self.values = _grown(self.values, v, room)


def _grown(buffer: mx.array | None, like: mx.array, room: int) -> mx.array:
    fresh = mx.zeros((*like.shape[:2], room, like.shape[3]), like.dtype)
    return fresh if buffer is None else mx.concatenate([buffer, fresh], axis=2)


class Edited:
    """One layer's cache, attended to with the weights that `edit` makes of the scores.

    The entries are appended first: a buffer that the same computation also reads as it was would have to be copied.
    """

    def __init__(self, layer: LayerCache, edit: Edit):
        self.layer, self.edit = layer, edit

    def attention(self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask, rules) -> mx.array:
        k, v = self.layer.extend(k, v)
        batch, heads, length, dim = q.shape
        scores = (q * scale).reshape(batch, k.shape[1], -1, length, dim) @ k[:, :, None].swapaxes(-1, -2)
        if mask is not None:
            scores = mx.where(mask, scores, mx.finfo(scores.dtype).min)
        return (self.edit(scores) @ v[:, :, None]).reshape(batch, heads, length, -1)


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
        past: Sequence[mx.array] | None = None,
        delta: Sequence[mx.array | None] = (None, None),
        gates: Sequence[mx.array] | None = None,
        edit: Edit = softmax,
    ):
        self.past, self.delta, self.gates, self.edit = past, delta, gates, edit
        self.fresh: tuple[mx.array, mx.array] | None = None

    def attention(self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask, rules) -> mx.array:
        self.fresh = k, v
        if self.past is None:
            widest = max(x.shape[1] for x in (k, *self.delta) if x is not None)
            k, v = _repeat(k, widest), _repeat(v, widest)
            k, v = (x if delta is None else x + delta for x, delta in zip((k, v), self.delta, strict=True))
            return rules.attention(q, k, v, scale, mask)
        old_k, old_v = self.past
        batch, heads, length, dim = q.shape
        q = (q * scale).reshape(batch, k.shape[1], -1, length, dim)
        scores = q @ old_k[:, :, None].swapaxes(-1, -2)
        if self.gates is not None:
            scores = scores * (1 + self.gates[0])
        scores = mx.concatenate([scores, q @ k[:, :, None].swapaxes(-1, -2)], axis=-1)
        dk, dv = (None if x is None else _grouped(x, k.shape[1]) for x in self.delta)
        if dk is not None:
            scores = scores + q @ dk.swapaxes(-1, -2)
        if mask is not None:
            scores = mx.where(mask, scores, mx.finfo(scores.dtype).min)
        weights = self.edit(scores)
        old, new = weights[..., : old_k.shape[2]], weights[..., old_k.shape[2] :]
        if self.gates is not None:
            old = old * (1 + self.gates[1])
        out = old @ old_v[:, :, None] + new @ v[:, :, None]
        if dv is not None:
            out = out + weights @ dv
        return out.reshape(batch, heads, length, -1)


def _repeat(entries: mx.array, heads: int) -> mx.array:
    """Entries (1, H, T, d) for `heads` heads."""
    groups = heads // entries.shape[1]
    return entries if groups == 1 else mx.repeat(entries, groups, axis=1)


def _grouped(delta: mx.array, heads: int) -> mx.array:
    """(1, H, G, T, d) with G = 1 for deltas of key heads, or the queries to one key head."""
    return delta.reshape(1, heads, -1, *delta.shape[2:])


class KVCache:
    """The cache of all layers; `cache[i]` is layer i's."""

    def __init__(self, layers: int):
        self.layers = [LayerCache() for _ in range(layers)]

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

    def append(self, entries: Sequence[tuple[mx.array, mx.array]]) -> None:
        """Append every layer's keys and values of new positions."""
        for layer, (k, v) in zip(self.layers, entries, strict=True):
            layer.extend(k, v)

    def entries(self) -> list[tuple[mx.array, mx.array]] | list[None]:
        """Every layer's keys and values as plain arrays; None for a layer that holds none yet."""
        return [layer.entries() if layer.offset else None for layer in self.layers]

    def overwrite(self, position: int, entries: Sequence[tuple[mx.array | None, mx.array | None]]) -> None:
        for layer, (k, v) in zip(self.layers, entries, strict=True):
            layer.overwrite(position, k, v)

    def trim(self, count: int) -> None:
        """Forget the newest `count` positions."""
        for layer in self.layers:
            layer.trim(count)

    def copy(self) -> "KVCache":
        """The same entries; what is appended or overwritten in one is not in the other."""
        other = KVCache(len(self))
        if self.offset:
            other.append([tuple(map(mx.array, layer.entries())) for layer in self.layers])
        return other

    def arrays(self) -> list[mx.array]:
        return [x for layer in self.layers if layer.keys is not None for x in (layer.keys, layer.values)]


def overlays(
    past: Sequence,
    deltas: Sequence | None = None,
    gates: Sequence[mx.array] | None = None,
    edits: Mapping[int, Edit] | None = None,
) -> list[Overlay]:
    """One `Overlay` a layer: from what `KVCache.read` gives, a delta pair a layer, gates all share, edits of some."""
    deltas, edits = deltas or [(None, None)] * len(past), edits or {}
    return [
        Overlay(entries, delta, gates, edits.get(index, softmax))
        for index, (entries, delta) in enumerate(zip(past, deltas, strict=True))
    ]
