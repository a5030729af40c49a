"""Relevance of a logit: exact, at the input embeddings, and cached, at the entries of the KV cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.cache import NO_DELTA, Change, Delta, Edit, Entries, Overlay, overlays
from lime_mlx.errors import NumericalError, PromptError
from lime_mlx.exclusive import exclusive
from lime_mlx.positions import SEQUENCE, Positions

from .record import Pace, Record, read
from .rules import Rules
from .rules import rules as rules_by_name

if TYPE_CHECKING:
    from lime_mlx.models.base import Model
    from lime_mlx.models.decoder import Decoder
    from lime_mlx.prompt import Prompt

# Logits (V,) to the scores (V,) that a token is picked by.
Scoring = Callable[[mx.array], mx.array]
Target = int | mx.array | None


class RelevanceResult(NamedTuple):
    """One forward with its relevance. Arrays are lazy: what nobody evaluates is not computed.

    logits (V,) float32, before processors; target () int32, the token explained; relevance (T,) float32, signed;
    entries, every layer's new keys and values; rival () int32, the token whose logit was subtracted, if one was.
    """

    logits: mx.array
    target: mx.array
    relevance: mx.array
    entries: list[Entries]
    rival: mx.array | None = None


class Explained(NamedTuple):
    """The logits (V,) of a function, the token explained, its rival, and the gradients of what is explained."""

    logits: mx.array
    target: mx.array
    rival: mx.array | None
    gradients: Sequence[mx.array]


def _explained(
    function: Callable[..., mx.array],
    primals: list[mx.array],
    size: int,
    scoring: Scoring | None,
    target: Target,
    contrast: bool,
) -> Explained:
    """Explain one of the `size` logits of `function` by its gradients for the primals.

    It explains `target`, or the token with the best score. It uses the logit from before the scoring, as LIME's
    official code does. With `contrast` what is explained is its margin over the logit of its rival, the best of all
    other tokens.

    By `mx.vjp`: what `mx.value_and_grad` returns beside the value passes no gradient on to an enclosing one.
    """
    chosen: list[mx.array | None] = [None, None]

    def outputs(*arrays: mx.array) -> tuple[mx.array, mx.array]:
        logits = function(*arrays)
        best, rival = chosen[:] = picked(mx.stop_gradient(logits), scoring, target, contrast)
        return logits[best] - (0.0 if rival is None else logits[rival]), logits

    (_, logits), gradients = mx.vjp(outputs, primals, [mx.array(1.0), mx.zeros((size,))])
    assert chosen[0] is not None
    return Explained(logits, chosen[0], chosen[1], gradients)


def exact(
    decoder: Decoder,
    embeds: mx.array,
    rules: Rules,
    deltas: Sequence[Delta] | None = None,
    scoring: Scoring | None = None,
    target: Target = None,
    checkpoint: bool = True,
    positions: Positions = SEQUENCE,
    contrast: bool = False,
) -> RelevanceResult:
    """Relevance sum_d e_id * (dz / de)_id of every input embedding; the whole sequence is run.

    `embeds` is (1, T, D); `deltas` a pair per layer, each (1, H, T, d) or None. z is the logit, at the last position,
    of `target` or of the token that would be picked; with `contrast`, its margin over the runner-up's. What `positions`
    adds to later layers (DeepStack) came from the picture as the embeddings did: its gradient x input counts for the
    same positions. With `checkpoint`, blocks are run again in the backward pass and memory grows with one block's
    attention, not with all.
    """
    pairs = deltas or [NO_DELTA] * len(decoder.layers)
    inputs = [x.astype(mx.float32) for x in (embeds, *positions.features)]
    if checkpoint:
        return _layer_by_layer(decoder, inputs, rules, pairs, scoring, target, positions, contrast)

    def logit(e: mx.array, *features: mx.array) -> mx.array:
        h, added = e, replace(positions, features=features)
        for index, delta in enumerate(pairs):
            h = decoder.block(index, h, Overlay(None, delta), rules=rules, positions=positions)
            feature = added.feature(index, 0, h.shape[1])
            h = h if feature is None else h + feature
        return _last_logits(decoder, h[:, -1], rules)

    explained = _explained(logit, inputs, decoder.config.vocab_size, scoring, target, contrast)
    relevance, *later = (_inner(x, slope)[0] for x, slope in zip(inputs, explained.gradients, strict=True))
    for part in later:
        relevance = relevance + mx.pad(part, (0, relevance.shape[0] - part.shape[0]))
    return RelevanceResult(explained.logits, explained.target, relevance, [], explained.rival)


def _layer_by_layer(
    decoder: Decoder,
    inputs: Sequence[mx.array],
    rules: Rules,
    pairs: Sequence[Delta],
    scoring: Scoring | None,
    target: Target,
    positions: Positions,
    contrast: bool,
) -> RelevanceResult:
    """`exact` with the inputs of all layers and one layer's own arrays in memory; not to be differentiated."""
    added, pace = replace(positions, features=inputs[1:]), Pace()
    paced = rules.paced(pace.blocks)

    def layer(index: int, h: mx.array) -> mx.array:
        return decoder.block(index, h, Overlay(None, pairs[index]), rules=paced, positions=positions)

    states = [inputs[0]]
    for index in range(len(pairs)):
        h = layer(index, states[-1])
        feature = added.feature(index, 0, h.shape[1])
        states.append(h if feature is None else h + feature)
        pace.keep(states[-1])

    def logits(h: mx.array) -> mx.array:
        return _last_logits(decoder, h[:, -1], rules)

    explained = _explained(logits, [states.pop()], decoder.config.vocab_size, scoring, target, contrast)
    (arriving,) = explained.gradients
    relevance = mx.zeros((arriving.shape[1],))
    for index in reversed(range(len(pairs))):
        feature = added.feature(index, 0, arriving.shape[1])
        if feature is not None:
            relevance = relevance + _inner(feature, arriving)[0]
        _, (arriving,) = mx.vjp(partial(layer, index), [states.pop()], [arriving])
        pace.keep(arriving, relevance)
    relevance = relevance + _inner(inputs[0], arriving)[0]
    return RelevanceResult(explained.logits, explained.target, relevance, [], explained.rival)


def _last_logits(decoder: Decoder, hidden: mx.array, rules: Rules) -> mx.array:
    """Logits (V,) of the last position's hidden state (1, D) before the final norm."""
    return decoder.head(decoder.model.norm(hidden, rules), rules)[0]


def _pair(present: Sequence[int], arrays: Sequence[mx.array]) -> Delta:
    """A delta of the arrays that are `present` in it: 0 is that of the keys, 1 that of the values."""
    pair: list[mx.array | None] = [None, None]
    for i, x in zip(present, arrays, strict=True):
        pair[i] = x
    return pair


def exact_slope(
    decoder: Decoder,
    embeds: mx.array,
    weights: mx.array,
    rules: Rules,
    deltas: Sequence[Delta],
    positions: Positions = SEQUENCE,
) -> tuple[mx.array, mx.array]:
    """sum_i weights_i * relevance_i as one forward pass: its value has the gradient of that sum for the deltas.

    Returns last-position logits (V,) and their slope (V,) along the direction weights_i * e_i. The tangent goes through
    the rules too, so differentiating the slope of z gives the second derivative that LIME needs, block by block.
    """
    h = embeds.astype(mx.float32)
    tangent = h * weights[None, :, None]
    for index, delta in enumerate(deltas):
        h, tangent = _dual_block(decoder, index, delta, rules, positions)(h, tangent)
        feature = positions.feature(index, 0, h.shape[1])
        if feature is not None:
            h, tangent = h + feature, tangent + feature * weights[None, :, None]
    (logits,), (slope,) = mx.jvp(lambda x: _last_logits(decoder, x, rules), [h[:, -1]], [tangent[:, -1]])
    return logits, slope


def _dual_block(
    decoder: Decoder, index: int, delta: Delta, rules: Rules, positions: Positions
) -> Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]:
    present = [i for i, x in enumerate(delta) if x is not None]

    def run(h: mx.array, tangent: mx.array, *arrays: mx.array) -> tuple[mx.array, mx.array]:
        pair = _pair(present, arrays)

        def layer(x: mx.array) -> mx.array:
            return decoder.block(index, x, Overlay(None, pair), rules=rules, positions=positions)

        (out,), (slope,) = mx.jvp(layer, [h], [tangent])
        return out, slope

    checkpointed = mx.checkpoint(run)
    return lambda h, tangent: checkpointed(h, tangent, *(x for x in delta if x is not None))


def cached(
    decoder: Decoder,
    past: Sequence[Entries | None],
    embed: mx.array,
    rules: Rules,
    deltas: Sequence[Change] | None = None,
    scoring: Scoring | None = None,
    target: Target = None,
    positions: Positions = SEQUENCE,
    edits: Mapping[int, Edit] | None = None,
    contrast: bool = False,
    observers: Mapping[int, Callable[[mx.array], None]] | None = None,
    watched: Mapping[int, Edit] | None = None,
) -> RelevanceResult:
    """Relevance of the newest token's logit at what it reads: the cached entries and its own embedding.

    `past` is what `KVCache.entries` gives: T entries a layer; `embed` is (1, 1, D). R_i = sum over layers of
    <K_i, dz/dK_i> + <V_i, dz/dV_i>, with the rule's share for keys and values, and <e, dz/de> for the newest position.
    relevance is (T + 1,). `edits` are those of the attention weights of some layers, as `overlays` takes them;
    `contrast` is that of `exact`; `observers` are those of `Decoder.__call__`. watched: the edits that the forward
    has in place of `edits`, where it is observed.
    """
    start = past[0][0].shape[2] if past[0] is not None else 0
    record = Record()
    memory = overlays(past, deltas, None, edits if watched is None else watched)
    moved = any(part is not None for delta in deltas or () for part in delta)
    record.forward(decoder, embed.astype(mx.float32) if moved else embed, memory, start, positions, observers)
    chosen, rival = picked(record.logits, scoring, target, contrast)
    rivals = None if rival is None else rival[None]
    (relevance,) = read(decoder, record, past, rules, chosen[None], rivals, deltas, positions, edits)
    entries = [layer.fresh for layer in memory if layer.fresh is not None]
    return RelevanceResult(record.logits, chosen, relevance, entries, rival)


def picked(
    logits: mx.array, scoring: Scoring | None, target: Target, contrast: bool
) -> tuple[mx.array, mx.array | None]:
    """What of logits (V,) is explained: `target`, or the token with the best score, and with `contrast` its rival."""
    scores = logits if scoring is None else scoring(logits)
    best = mx.argmax(scores) if target is None else mx.array(target)
    if not contrast:
        return best, None
    return best, mx.argmax(mx.where(mx.arange(logits.shape[0]) == best, -mx.inf, scores))


def _inner(x: mx.array, gradient: mx.array) -> mx.array:
    """Sum over the last axis of x * gradient, in float32."""
    return (x.astype(mx.float32) * gradient.astype(mx.float32)).sum(axis=-1)


@exclusive
def relevance(model: Model, prompt: Prompt, rules: str = "attnlrp", target: int | None = None) -> NDArray[np.float32]:
    """Exact relevance (T,) float32 of every prompt position for one logit at the last position.

    Gradient x input on the merged embeddings under `rules` ("attnlrp", "cplrp", "mlplrp", "plain"); signed, not
    normalised (arXiv 2402.05602). `target` None explains the most likely next token. Raises `MethodError` for unknown
    rules, `PromptError` for a target that is no token, and `NumericalError` for relevance that is not finite.
    """
    decoder, chosen = model.language_model, rules_by_name(rules)
    if target is not None and not 0 <= target < decoder.config.vocab_size:
        raise PromptError(f"Target token {target} is outside the vocabulary of {decoder.config.vocab_size}.")
    embeds, positions = model.inputs(prompt)
    values = np.array(exact(decoder, embeds, chosen, target=target, positions=positions).relevance)
    if not np.isfinite(values).all():
        raise NumericalError("The relevance is not finite: check the weights.")
    return values


class Shares(NamedTuple):
    """Shares of the absolute relevance, each 0 to 1, that sum to 1: pictures, sounds, rest of the prompt, own text.

    All are 0 where there is no relevance at all.
    """

    image: float
    audio: float
    prompt: float
    own: float

    @property
    def reliance(self) -> float:
        """The share of pictures and sounds together."""
        return self.image + self.audio


NO_SHARES = Shares(0.0, 0.0, 0.0, 0.0)


def shares(relevance: NDArray[np.floating], modalities: Mapping[str, NDArray[np.bool_]]) -> Shares:
    """Where a token came from.

    relevance (T + n,): of the prompt's positions, then of the n tokens generated before. modalities: for "image" and
    "audio", where there are such, the prompt's positions of that kind, (T,) bool. Raises `NumericalError` for relevance
    that is not finite.
    """
    size = np.abs(np.asarray(relevance, dtype=np.float64))
    total = size.sum()
    if not np.isfinite(total):
        raise NumericalError("The relevance is not finite: there are no shares of it.")
    if not total > 0:
        return NO_SHARES
    media = np.any(list(modalities.values()), axis=0)
    of_prompt = size[: len(media)]
    parts = {kind: of_prompt[positions].sum() / total for kind, positions in modalities.items()}
    return Shares(
        float(parts.get("image", 0.0)),
        float(parts.get("audio", 0.0)),
        float(of_prompt[~media].sum() / total),
        float(size[len(media) :].sum() / total),
    )


def reliance(relevance: NDArray[np.floating], modality: NDArray[np.bool_]) -> float:
    """Share of absolute relevance on the picture or sound: sum over M of |R_i| / sum over all of |R_k|, 0 to 1.

    relevance (T + n,); modality (T,) bool, the positions M.
    """
    return shares(relevance, {"image": modality}).image


def grounding(relevance: NDArray[np.floating], modality: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    """Share of the positive modality relevance that lies inside the ground truth (a box, an interval), 0 to 1.

    `inside` is (|M|,) bool, in the order of the modality positions.
    """
    positive = np.maximum(np.asarray(relevance, dtype=np.float64)[: len(modality)][modality], 0)
    total = positive.sum()
    return float(positive[np.asarray(inside, dtype=bool)].sum() / total) if total > 0 else 0.0
