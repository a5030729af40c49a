"""The entries of one layer: which positions are held and in which form, and how attention and methods read them.

A layer whose queries look back a limited way holds what they reach, and a little more to go back to. Entries may be
quantised as mlx-lm does it: each row of keys or values by groups of its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import mlx.core as mx

from lime_mlx.attention import AttentionRule
from lime_mlx.kv import DEFAULT, KVOptions

CHUNK = 256
# How many positions behind those that are reached a layer holds: so far an answer goes back without a new computation.
LOOKBACK = 64
# Keys and values of one layer, (1, K, T, d) each.
Entries = Sequence[mx.array]


@dataclass(frozen=True)
class Packing:
    """Quantised rows: three arrays for each array (1, K, T, d), numbers of `bits` bits in uint32, scales and biases."""

    bits: int
    group_size: int

    def pack(self, x: mx.array) -> list[mx.array]:
        return [*mx.quantize(x, group_size=self.group_size, bits=self.bits)]

    def unpack(self, parts: Sequence[mx.array]) -> mx.array:
        packed, scales, biases = parts
        return mx.dequantize(packed, scales, biases, group_size=self.group_size, bits=self.bits)

    def rounded(self, x: mx.array) -> mx.array:
        """`x` as it is read after it was packed, with its gradient as if it had not been."""
        packed = self.unpack([mx.stop_gradient(part) for part in self.pack(mx.stop_gradient(x))])
        return x + mx.stop_gradient(packed - x)


class Held(Sequence[mx.array]):
    """Keys and values that are packed, or lack positions: arrays (1, K, T, d) are made of them wherever they are read.

    arrays: those of the keys, then those of the values. Positions that are not held are zeros, `gap` of them behind the
    first `pinned`; masks hide them.
    """

    def __init__(self, arrays: Sequence[mx.array], packing: Packing | None, pinned: int = 0, gap: int = 0) -> None:
        self.arrays, self.packing, self.pinned, self.gap = arrays, packing, pinned, gap

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, index: int) -> mx.array: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[mx.array]: ...

    def __getitem__(self, index: int | slice) -> mx.array | Sequence[mx.array]:
        if isinstance(index, slice):
            return [self[i] for i in range(2)[index]]
        half, which = len(self.arrays) // 2, range(2)[index]
        parts = self.arrays[half * which : half * (which + 1)]
        x = parts[0] if self.packing is None else self.packing.unpack(parts)
        if not self.gap:
            return x
        missing = mx.zeros((*x.shape[:2], self.gap, x.shape[3]), x.dtype)
        return mx.concatenate([x[:, :, : self.pinned], missing, x[:, :, self.pinned :]], axis=2)


def as_cached(new: mx.array, past: Entries) -> mx.array:
    """A new entry as it would be read beside these: rounded where they are packed."""
    packing = past.packing if isinstance(past, Held) else None
    return new if packing is None else packing.rounded(new)


@dataclass(frozen=True)
class Frozen:
    """A copy of what queries behind the first `stop` positions reach, from position `first` on."""

    stop: int
    first: int
    arrays: list[mx.array]
    packing: Packing | None


class LayerCache:
    """Keys and values of one layer, (1, K, T, d) each, in buffers that grow by `CHUNK` positions.

    reach: how many positions back a query attends to, itself included; None is all. pinned: so many first positions are
    attended to by all. mark: a position behind which the layer can go on at any time, by a frozen copy where it would
    otherwise hold too little. first: the first position behind the pinned ones that is held.
    """

    def __init__(self, options: KVOptions = DEFAULT, reach: int | None = None, pinned: int = 0) -> None:
        self.options, self.reach, self.pinned = options, reach, pinned
        self.buffers: list[mx.array] = []
        self.offset, self.first = 0, pinned
        self.packing: Packing | None = None
        self.mark: int | None = None
        self.frozen: Frozen | None = None
        self.changed: list[int] = []

    @property
    def gap(self) -> int:
        """How many positions behind the pinned ones are not held any more."""
        return self.first - self.pinned

    @property
    def size(self) -> int:
        """How many positions are held."""
        return self.offset - self.gap

    def extend(self, k: mx.array, v: mx.array) -> Entries:
        """Append the entries of new positions and return all entries."""
        self._append(k, v)
        return self.entries()

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: AttentionRule
    ) -> mx.array:
        """Append `k`, `v` and attend to all entries."""
        self._append(k, v)
        if mask is not None and self.gap:
            mask = mx.concatenate([mask[..., : self.pinned], mask[..., self.first :]], axis=-1)
        keys, values = self._read(0, self.size)
        return rules.attention(q, keys, values, scale, mask)

    def entries(self, stop: int | None = None) -> Entries:
        """Keys and values of the first `stop` positions, or of all; zeros for those that are not held any more.

        Raises `IndexError` when there are none, and where queries behind `stop` would reach more than is held.
        """
        if not self.buffers:
            raise IndexError("the cache of this layer is empty")
        stop = self.offset if stop is None else stop
        if self._holds(stop):
            gap = self.gap if stop > self.pinned else 0
            return self._read(0, stop - gap, gap)
        frozen = self.frozen
        if frozen is None or frozen.stop != stop:
            raise IndexError(f"the cache of this layer holds too little before position {stop}")
        return Held(frozen.arrays, frozen.packing, 0, frozen.first)

    def between(self, start: int, stop: int) -> Entries:
        """Keys and values of the positions from `start` to `stop`, which must be held."""
        return self._read(self._index(start), self._index(stop - 1) + 1)

    def overwrite(self, position: int, k: mx.array | None = None, v: mx.array | None = None) -> None:
        """Replace the entries of one position; `k`, `v` are (1, K, 1, d), None leaves them."""
        index, half = self._index(position), len(self.buffers) // 2
        for start, new in ((0, k), (half, v)):
            if new is not None:
                self._write(range(start, start + half), self._packed(new), index)
        self.changed.append(position)

    def resumable(self, position: int) -> bool:
        """Whether the layer can go on behind the first `position` positions."""
        return self._holds(position) or (self.frozen is not None and self.frozen.stop == position)

    def back_to(self, position: int) -> None:
        """Forget what is behind the first `position` positions, from which the layer must be `resumable`."""
        if not self._holds(position) and self.frozen is not None:
            frozen = self.frozen
            self.buffers = [mx.array(x) for x in frozen.arrays]
            self.packing, self.first = frozen.packing, frozen.first
        elif position <= self.pinned:
            self.first = self.pinned
        if self.frozen is not None and self.frozen.stop > position:
            self.frozen = None
        self.offset = position
        self.changed = [each for each in self.changed if each < position]

    def copy(self, position: int) -> LayerCache:
        """A layer of its own that goes on behind the first `position` positions."""
        other = LayerCache(self.options, self.reach, self.pinned)
        other.offset, other.first, other.packing = self.offset, self.first, self.packing
        other.mark, other.frozen, other.changed = self.mark, self.frozen, list(self.changed)
        other.buffers = self._slices(0, self.size) if position else []
        other.back_to(position)
        other.buffers = [mx.array(x[:, :, : other.size]) for x in other.buffers]
        return other

    def piece(self, start: int, stop: int) -> list[mx.array]:
        """The arrays that hold the positions from `start` to `stop`, as `put` takes them."""
        return self._slices(self._index(start), self._index(stop - 1) + 1)

    def put(self, arrays: Sequence[mx.array]) -> None:
        """Append a `piece` of another layer with the same options."""
        if len(arrays) > 2:
            self.pack()
        self._append_arrays(list(arrays))

    def held(self) -> list[mx.array]:
        """The arrays that hold all positions that are held, in their order."""
        return self._slices(0, self.size)

    def restore(self, arrays: Sequence[mx.array], offset: int, packing: Packing | None) -> None:
        """Take over what `held` gave of a layer with `offset` positions.

        Raises `ValueError` where that is too little.
        """
        self.buffers, self.packing, self.offset = list(arrays), packing, offset
        self.first = self.pinned + offset - arrays[0].shape[2]
        if self.gap and (self.reach is None or not self._holds(offset) or arrays[0].shape[2] < self.pinned):
            raise ValueError(f"{arrays[0].shape[2]:,} of {offset:,} positions are too few")

    def pack_if_due(self) -> None:
        """Quantise the entries where the options want that and there are enough of them."""
        if self.offset >= max(1, self.options.quantized_kv_start):
            self.pack()

    def pack(self) -> None:
        """Quantise the entries where the options want that."""
        bits = self.options.kv_bits
        if bits is None or self.packing is not None:
            return
        held = self._slices(0, self.size) if self.buffers else []
        self.packing = Packing(bits, self.options.kv_group_size)
        self.buffers = [part for x in held for part in self.packing.pack(x)]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays())

    def arrays(self) -> list[mx.array]:
        return [*self.buffers, *([] if self.frozen is None else self.frozen.arrays)]

    def _append(self, k: mx.array, v: mx.array) -> None:
        if self.offset:
            self.pack_if_due()
        elif self.packing is not None:
            self.packing, self.buffers = None, []
        self._append_arrays([*self._packed(k), *self._packed(v)])

    def _append_arrays(self, new: list[mx.array]) -> None:
        count = new[0].shape[2]
        self._drop(count)
        start, self.offset = self.size, self.offset + count
        self._reserve(new)
        self._write(range(len(new)), new, start)

    def _write(self, which: range, new: Sequence[mx.array], index: int) -> None:
        """Write arrays from this place of some buffers on."""
        for number, x in zip(which, new, strict=True):
            self.buffers[number][:, :, index : index + x.shape[2]] = x

    def _packed(self, x: mx.array) -> list[mx.array]:
        return [x] if self.packing is None else self.packing.pack(x)

    def _slices(self, start: int, stop: int) -> list[mx.array]:
        return [buffer[:, :, start:stop] for buffer in self.buffers]

    def _read(self, start: int, stop: int, gap: int = 0) -> Entries:
        arrays = self._slices(start, stop)
        if self.packing is None and not gap:
            return tuple(arrays)
        return Held(arrays, self.packing, self.pinned, gap)

    def _index(self, position: int) -> int:
        """Where in the buffers a position is. Raises `IndexError` for one that is not held."""
        if not 0 <= position < self.offset or self.pinned <= position < self.first:
            raise IndexError(f"position {position} is outside the {self.size} cached ones")
        return position if position < self.pinned else position - self.gap

    def _holds(self, position: int) -> bool:
        """Whether all is held that queries behind the first `position` positions reach."""
        if position <= self.pinned or not self.gap or self.reach is None:
            return position <= self.offset
        return self.first <= position - self.reach + 1 and position <= self.offset

    def _drop(self, count: int) -> None:
        """Let go of what no query reaches any more, where `count` further positions need more room."""
        if self.reach is None or not self.buffers or self.size + count <= self.buffers[0].shape[2]:
            return
        excess = self.size - (self.pinned + self.reach + LOOKBACK)
        if excess <= 0:
            return
        self._freeze(self.first + excess)
        rest = self._slices(self.pinned + excess, self.size)
        if self.pinned:
            rest = [mx.concatenate([*pair], axis=2) for pair in zip(self._slices(0, self.pinned), rest, strict=True)]
        self.buffers, self.first = [mx.contiguous(x) for x in rest], self.first + excess

    def _freeze(self, first: int) -> None:
        """Copy what queries behind the mark reach, if that is to go: what is held would begin at `first`.

        Pinned positions end at the mark, so that no copy is needed.
        """
        if self.mark is None or self.reach is None or self.pinned or not self._holds(self.mark):
            return
        start = max(self.first, self.mark - self.reach + 1)
        if first <= self.mark - self.reach + 1:
            return
        arrays = [mx.contiguous(x) + 0 for x in self.piece(start, self.mark)]
        self.frozen = Frozen(self.mark, start, arrays, self.packing)

    def _reserve(self, new: Sequence[mx.array]) -> None:
        held = self.buffers[0].shape[2] if self.buffers else 0
        if self.size <= held:
            return
        spare = CHUNK // 2 if self.gap else 0
        room = -(-(self.size + spare) // CHUNK) * CHUNK - held
        fresh = [mx.zeros((*x.shape[:2], room, x.shape[3]), x.dtype) for x in new]
        if self.buffers:
            fresh = [mx.concatenate([old, new], axis=2) for old, new in zip(self.buffers, fresh, strict=True)]
        self.buffers = fresh
