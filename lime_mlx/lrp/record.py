"""The record of a plain forward of one position, from which the relevance of its logits is read.

The plain forward decides the token, whatever is read afterwards. A reading repeats it with the products that it
recorded, so that it multiplies by the weights once, on the way back. It goes layer by layer in float32: what a layer
needs is gone before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.attention import Memory, softmax
from lime_mlx.backend import is_cpu
from lime_mlx.cache import Change, Edit, Entries, Overlay, fresh, paced
from lime_mlx.positions import SEQUENCE, Positions
from lime_mlx.products import product, turned

from .rules import PLAIN, Rules

if TYPE_CHECKING:
    from lime_mlx.models.decoder import Decoder

Observer = Callable[[mx.array], None]


class Record:
    """What a forward of the newest position computed.

    states: the hidden state (1, 1, D) before each layer and after the last one. outputs: of each linear layer, by its
    id, the rows (1, 1, O). logits (V,) float32.
    """

    def __init__(self) -> None:
        self.states: list[mx.array] = []
        self.outputs: dict[int, mx.array] = {}
        self.logits = mx.zeros((0,))

    def forward(
        self,
        decoder: Decoder,
        embed: mx.array,
        memory: Sequence[Memory],
        start: int,
        positions: Positions = SEQUENCE,
        observers: Mapping[int, Observer] | None = None,
    ) -> mx.array:
        """Logits (V,) of a position with the embedding (1, 1, D); observers as `Decoder.__call__` takes them."""
        self.states = [embed]

        def observe(index: int, h: mx.array) -> None:
            self.states.append(h)
            if observers and index in observers:
                observers[index](h)

        every = {index: partial(observe, index) for index in range(len(decoder.layers))}
        rules = PLAIN.using(self._product)
        hidden = decoder(embed, memory, start, rules, positions, every)
        self.logits = decoder.head(hidden[0, -1], rules)
        return self.logits

    def _product(self, layer: nn.Module, x: mx.array) -> mx.array:
        y = self.outputs[id(layer)] = product(layer, x, wait=True)
        return y

    def recalled(self, layer: nn.Module, x: mx.array, stages: list[mx.array] | None = None) -> mx.array:
        """The recorded product for each of the rows x (N, 1, I), in their type, with its gradient. See `recall`."""
        recorded = self.outputs[id(layer)].astype(x.dtype)
        return recall(layer, x, mx.broadcast_to(recorded, (*x.shape[:-1], recorded.shape[-1])), stages)


def recall(layer: nn.Module, x: mx.array, y: mx.array, stages: list[mx.array] | None = None) -> mx.array:
    """`y`, the product of a layer's weights with the rows `x`, with its gradient. stages: see `turned`."""

    @mx.custom_function
    def recalled(x: mx.array) -> mx.array:
        return y

    @recalled.vjp
    def back(_: mx.array, arriving: mx.array, __: mx.array) -> mx.array:
        return turned(layer, arriving, stages)

    return cast(mx.array, recalled(x))


def read(
    decoder: Decoder,
    record: Record,
    past: Sequence[Entries | None],
    rules: Rules,
    targets: mx.array,
    rivals: mx.array | None = None,
    deltas: Sequence[Change] | None = None,
    positions: Positions = SEQUENCE,
    edits: Mapping[int, Edit] | None = None,
) -> mx.array:
    """Relevance (N, T + 1) float32 of N logits after a recorded position, at its T past entries and at itself.

    targets (N,): the tokens; what is explained is each one's logit, or its margin over the logit of its rival (N,).
    past, deltas, edits: what the recorded forward had. See `lime_mlx.lrp.relevance.cached`.
    """
    start = 0 if past[0] is None else past[0][0].shape[2]
    count, edits = targets.shape[0], fresh(edits)
    wide = [mx.repeat(h.astype(mx.float32), count, axis=0) for h in record.states]

    def explained(h: mx.array) -> mx.array:
        hidden = decoder.model.norm(h[:, -1], rules)
        logits = decoder.logits_of(hidden, targets, rules)
        return logits if rivals is None else logits - decoder.logits_of(hidden, rivals, rules)

    (_,), (arriving,) = mx.vjp(explained, [wide[-1]], [mx.ones((count,))])
    none = mx.zeros((count, 1, 1, 1, start))
    arrived = mx.zeros((count, start))
    pace = Pace()
    recalling = rules.using(partial(record.recalled, stages=pace.stages))
    moved = paced(deltas, len(past), pace.stages)
    # An edit may remember what it saw in the layers before: then they are run in their order, all together.
    layers = range(len(past))
    for group in [layers] if edits else [range(index, index + 1) for index in reversed(layers)]:

        def run(h: mx.array, keys: mx.array, values: mx.array, group: range = group) -> mx.array:
            for index in group:
                memory = Overlay(past[index], moved[index], (keys, values), edits.get(index, softmax))
                h = decoder.block(index, h, memory, start, recalling, positions)
            return h

        _, (arriving, keys, values) = mx.vjp(run, [wide[group.start], none, none], [arriving])
        arrived = arrived + (rules.key_share * keys + rules.value_share * values).reshape(count, start)
        pace.keep(arriving, arrived)
    return mx.concatenate([arrived, (wide[0] * arriving).sum(axis=-1)], axis=1)


class Pace:
    """Computes one layer after the other, so that the memory of a layer is free before it is needed again.

    On the CPU each is waited for; elsewhere one may be on its way while the next is prepared. stages: what is computed
    before a layer, one after the other; blocks: the same, of large arrays, on every device.
    """

    def __init__(self) -> None:
        self.stages: list[mx.array] = []
        self.blocks: list[mx.array] = []
        self.before: tuple[mx.array | Sequence[mx.array], ...] = ()

    def keep(self, *arrays: mx.array | Sequence[mx.array]) -> None:
        """Have these computed."""
        for block in self.blocks:
            mx.eval(block)
        self.blocks.clear()
        if is_cpu():
            for stage in self.stages:
                mx.eval(stage)
            mx.eval(*arrays)
        else:
            mx.async_eval(*arrays)
            mx.eval(*self.before)
            self.before = arrays
        self.stages.clear()
