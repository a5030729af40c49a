"""Is relevance conserved from layer to layer? What comes out of a layer went in, but for what two things keep.

Layer-wise Relevance Propagation hands the relevance of a logit down, and none may be lost or made on the way (Bach et
al. 2015, doi 10.1371/journal.pone.0130140). In a decoder, biases and the softmax of attention keep a part (AttnLRP,
arXiv 2402.05602, section 3). Both parts are computed here from the forward alone, so what is left over is a mistake in
the rules:

    out = in + biases + softmax + unexplained

For a layer f with input h and arriving gradient g, out is <f(h), g>, and in is <h, g'> with g' the gradient by the
rules. A bias b keeps <b, g_y>, with g_y the gradient at its product y. Attention reads o = A v by the weights A of
scores s, and rules that divide what reaches keys, queries and values keep
<A v - value_share A v - 2 key_share A (s - A s) v, g_o>.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.attention import AttentionRule, attend, masked_scores, softmax
from lime_mlx.positions import SEQUENCE, Positions
from lime_mlx.products import product

from .rules import Rules

if TYPE_CHECKING:
    from lime_mlx.models.decoder import Decoder

# The largest part of a layer's absolute relevance that may be left over: more than rounding in float32 makes.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Balance:
    """The relevance of one layer, in logits. name: "layer 3" or "head".

    out, into: the sums behind and before it; size: the absolute relevance of the positions behind it, summed, or the
    logit where that is larger. biases, softmax: what they keep.
    """

    name: str
    out: float
    into: float
    biases: float
    softmax: float
    size: float

    @property
    def unexplained(self) -> float:
        """What is neither handed on nor kept, as a part of the absolute relevance: 0 but for rounding."""
        return abs(self.out - self.into - self.biases - self.softmax) / max(self.size, 1e-12)


@dataclass(frozen=True)
class Conservation:
    """The balance of every layer, from the head down to the embeddings, for the logit of a token."""

    rules: str
    token: int
    logit: float
    layers: Sequence[Balance]

    @property
    def worst(self) -> Balance:
        return max(self.layers, key=lambda balance: balance.unexplained)

    @property
    def holds(self) -> bool:
        return self.worst.unexplained <= TOLERANCE

    @property
    def arrived(self) -> float:
        """The sum of the relevance at the embeddings."""
        return self.layers[-1].into

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        worst = self.worst
        if not self.holds:
            return (
                f"Relevance is not conserved under {self.rules}: {worst.name} loses or makes "
                f"{100 * worst.unexplained:.3g} % of it, which neither biases nor the softmax keep."
            )
        biases, kept = (sum(getattr(layer, part) for layer in self.layers) for part in ("biases", "softmax"))
        return (
            f"Relevance is conserved under {self.rules}: of a logit of {self.logit:.2f}, {self.arrived:.2f} reaches "
            f"the embeddings, biases keep {biases:.2f} and the softmax {kept:.2f}; at most "
            f"{100 * worst.unexplained:.1g} % of a layer is unexplained."
        )

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        layers = [
            {
                **{name: round(getattr(layer, name), 6) for name in ("out", "into", "biases", "softmax", "size")},
                "name": layer.name,
                "unexplained": float(f"{layer.unexplained:.3g}"),
            }
            for layer in self.layers
        ]
        return {
            "rules": self.rules,
            "holds": self.holds,
            "sentence": self.sentence,
            "token": self.token,
            "logit": round(self.logit, 6),
            "layers": layers,
        }


class _Tapped:
    """A layer's memory that keeps what attention is computed from, and adds `tap` to what it gives."""

    def __init__(self) -> None:
        self.tap: mx.array | None = None
        self.seen: tuple[mx.array, mx.array, mx.array, float, mx.array | None] | None = None
        self.shape: tuple[int, ...] = ()

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: AttentionRule
    ) -> mx.array:
        out = rules.attention(q, k, v, scale, mask)
        if self.tap is not None:
            return out + self.tap
        self.seen, self.shape = (q, k, v, scale, mask), out.shape
        return out


def conservation(
    decoder: Decoder, embeds: mx.array, rules: Rules, token: int | None = None, positions: Positions = SEQUENCE
) -> Conservation:
    """The balance of the relevance of a logit at the last position; `token` None explains the most likely one.

    embeds (1, T, D). It runs each layer twice, once with its gradient.
    """
    states = [embeds.astype(mx.float32)]
    added = replace(positions, features=[feature.astype(mx.float32) for feature in positions.features])
    for index in range(len(decoder.layers)):
        h = decoder.block(index, states[-1], _Tapped(), rules=rules, positions=positions)
        states.append(_with_feature(h, added, index))

    def logits(h: mx.array) -> mx.array:
        return decoder.head(decoder.model.norm(h[:, -1], rules), rules)[0]

    last = logits(states[-1])
    chosen = int(mx.argmax(last)) if token is None else token
    _, (arriving,) = mx.vjp(lambda h: logits(h)[chosen], [states[-1]], [mx.array(1.0)])
    logit = float(last[chosen])
    balances = [Balance("head", logit, _sum(states[-1], arriving), 0.0, 0.0, abs(logit))]
    for index in reversed(range(len(decoder.layers))):
        balance, arriving = _layer(decoder, index, states[index], arriving, logit, rules, positions)
        balances.append(balance)
    return Conservation(rules.name, chosen, logit, balances)


def _with_feature(h: mx.array, positions: Positions, index: int) -> mx.array:
    feature = positions.feature(index, 0, h.shape[1])
    return h if feature is None else h + feature


def _layer(
    decoder: Decoder,
    index: int,
    h: mx.array,
    arriving: mx.array,
    logit: float,
    rules: Rules,
    positions: Positions,
) -> tuple[Balance, mx.array]:
    """The balance of one layer, and the gradient before it."""
    memory, biased = _Tapped(), list[nn.Module]()
    taps: dict[int, mx.array] = {}

    def linear(layer: nn.Module, x: mx.array) -> mx.array:
        y = product(layer, x)
        if "bias" not in layer:
            return y
        if id(layer) not in taps:
            biased.append(layer)
            taps[id(layer)] = mx.zeros(y.shape)
        return y + taps[id(layer)]

    chosen = rules.using(linear)
    out = decoder.block(index, h, memory, rules=chosen, positions=positions)
    mx.eval(out)
    names = [id(layer) for layer in biased]

    def run(h: mx.array, tap: mx.array, *others: mx.array) -> mx.array:
        memory.tap = tap
        taps.update(zip(names, others, strict=True))
        return decoder.block(index, h, memory, rules=chosen, positions=positions)

    zeros = [mx.zeros(memory.shape), *(mx.zeros(taps[name].shape) for name in names)]
    _, (before, at_attention, *at_biased) = mx.vjp(run, [h, *zeros], [arriving])
    biases = sum(_sum(mx.broadcast_to(m.bias, g.shape), g) for m, g in zip(biased, at_biased, strict=True))
    assert memory.seen is not None
    balance = Balance(
        name=f"layer {index}",
        out=_sum(out, arriving),
        into=_sum(h, before),
        biases=float(biases),
        softmax=_sum(_kept(*memory.seen, rules), at_attention),
        size=max(float(mx.abs((out * arriving).sum(axis=-1)).sum()), abs(logit)),
    )
    return balance, before


def _kept(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: Rules) -> mx.array:
    """What attention keeps by the shares that its rules declare, (B, H, L, d)."""
    scores = masked_scores(q, k, scale, mask)
    weights = softmax(scores)
    moved = weights * (scores - (weights * scores).sum(axis=-1, keepdims=True))
    return (1 - rules.value_share) * attend(weights, v) - 2 * rules.key_share * attend(moved, v)


def _sum(x: mx.array, gradient: mx.array) -> float:
    return float((x.astype(mx.float32) * gradient.astype(mx.float32)).sum())
