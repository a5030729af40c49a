"""Relevance of a logit: exact, at the input embeddings, and cached, at the entries of the KV cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from lime_mlx.cache import Overlay, overlays
from lime_mlx.errors import PromptError
from lime_mlx.positions import SEQUENCE, Positions

from .rules import Rules
from .rules import rules as rules_by_name

Process = Callable[[mx.array], mx.array]


class RelevanceResult(NamedTuple):
    """One forward with its relevance. Arrays are lazy: what is not looked at is not computed.

    logits (V,) float32, before `process`; target () int32, the token explained; relevance (T,) float32, signed;
    entries, every layer's new keys and values; rival () int32, the token whose logit was subtracted, if one was.
    """

    logits: mx.array
    target: mx.array
    relevance: mx.array
    entries: list
    rival: mx.array | None = None


def _explained(function, primals: list, size: int, process: Process | None, target, contrast: bool) -> tuple:
    """Logits (size,) of `function`, the token explained, its rival, and the gradient of its logit for the primals.

    `process` decides which token that is; its logit is explained as it was before, as in LIME's official code. With
    `contrast` what is explained is its margin over the logit of its rival, the best of all other tokens.

    By `mx.vjp`: what `mx.value_and_grad` returns beside the value passes no gradient on to an enclosing one.
    """
    chosen = rival = None

    def outputs(*arrays):
        nonlocal chosen, rival
        logits = function(*arrays)
        scores = logits if process is None else process(logits)
        chosen = mx.stop_gradient(mx.argmax(scores)) if target is None else mx.array(target)
        if not contrast:
            return logits[chosen], logits
        others = mx.where(mx.arange(size) == chosen, -mx.inf, scores)
        rival = mx.stop_gradient(mx.argmax(others))
        return logits[chosen] - logits[rival], logits

    (_, logits), gradients = mx.vjp(outputs, primals, [mx.array(1.0), mx.zeros((size,))])
    return logits, chosen, rival, gradients


def exact(
    decoder,
    embeds: mx.array,
    rules: Rules,
    deltas=None,
    process: Process | None = None,
    target=None,
    checkpoint: bool = True,
    positions: Positions = SEQUENCE,
    contrast: bool = False,
) -> RelevanceResult:
    """Relevance sum_d e_id * (dz / de)_id of every input embedding; the whole sequence is run.

    `embeds` is (1, T, D); `deltas` a pair per layer, each (1, H, T, d) or None. z is the logit, at the last position,
    of `target` or of the token that would be picked; with `contrast`, its margin over the runner-up's. What
    `positions` adds to later layers (DeepStack) came from the picture as the embeddings did: its gradient x input
    counts for the same positions. With `checkpoint`, blocks are run again in the backward pass and memory grows with
    one block's attention, not with all.
    """
    deltas = deltas or [(None, None)] * len(decoder.layers)

    def logit(e, *features):
        h, added = e, replace(positions, features=features)
        for index, delta in enumerate(deltas):
            h = _block(decoder, index, delta, rules, checkpoint, positions)(h)
            feature = added.feature(index, 0, h.shape[1])
            h = h if feature is None else h + feature
        return _top(decoder, h[:, -1], rules)

    inputs = [embeds, *positions.features]
    logits, chosen, rival, gradients = _explained(logit, inputs, decoder.config.vocab_size, process, target, contrast)
    relevance, *later = (_inner(x, gradient)[0] for x, gradient in zip(inputs, gradients, strict=True))
    for part in later:
        relevance = relevance + mx.pad(part, (0, relevance.shape[0] - part.shape[0]))
    return RelevanceResult(logits, chosen, relevance, [], rival)


def _top(decoder, hidden: mx.array, rules: Rules) -> mx.array:
    """Logits (V,) of the last position's hidden state (1, D) before the final norm."""
    return decoder.head(decoder.model.norm(hidden, rules), rules)[0]


def _block(decoder, index: int, delta: Sequence, rules: Rules, checkpoint: bool, positions: Positions):
    present = [i for i, x in enumerate(delta) if x is not None]

    def run(h, *arrays):
        pair = [None, None]
        for i, x in zip(present, arrays, strict=True):
            pair[i] = x
        return decoder.block(index, h, Overlay(None, pair), rules=rules, positions=positions)

    run = mx.checkpoint(run) if checkpoint else run
    return lambda h: run(h, *(delta[i] for i in present))


def exact_slope(
    decoder, embeds: mx.array, weights: mx.array, rules: Rules, deltas, positions: Positions = SEQUENCE
) -> tuple[mx.array, mx.array]:
    """sum_i weights_i * relevance_i as one forward pass: its value has the gradient of that sum for the deltas.

    Returns last-position logits (V,) and their slope (V,) along the direction weights_i * e_i. The tangent goes through
    the rules too, so differentiating the slope of z gives the second derivative that LIME needs, block by block.
    """
    tangent = embeds * weights[None, :, None]
    h = embeds
    for index, delta in enumerate(deltas):
        h, tangent = _dual_block(decoder, index, delta, rules, positions)(h, tangent)
        feature = positions.feature(index, 0, h.shape[1])
        if feature is not None:
            h, tangent = h + feature, tangent + feature * weights[None, :, None]
    (logits,), (slope,) = mx.jvp(lambda x: _top(decoder, x, rules), (h[:, -1],), (tangent[:, -1],))
    return logits, slope


def _dual_block(decoder, index: int, delta: Sequence, rules: Rules, positions: Positions):
    present = [i for i, x in enumerate(delta) if x is not None]

    def run(h, tangent, *arrays):
        pair = [None, None]
        for i, x in zip(present, arrays, strict=True):
            pair[i] = x
        layer = lambda x: decoder.block(index, x, Overlay(None, pair), rules=rules, positions=positions)  # noqa: E731
        (out,), (slope,) = mx.jvp(layer, (h,), (tangent,))
        return out, slope

    checkpointed = mx.checkpoint(run)
    return lambda h, tangent: checkpointed(h, tangent, *(delta[i] for i in present))


def cached(
    decoder,
    past: Sequence,
    embed: mx.array,
    rules: Rules,
    deltas=None,
    process: Process | None = None,
    target=None,
    positions: Positions = SEQUENCE,
    edits: Mapping | None = None,
    contrast: bool = False,
) -> RelevanceResult:
    """Relevance of the newest token's logit at what it reads: the cached entries and its own embedding.

    `past` is what `KVCache.read` gives: T entries a layer; `embed` is (1, 1, D). R_i = sum over layers of
    <K_i, dz/dK_i> + <V_i, dz/dV_i>, with the rule's share for keys and values, and <e, dz/de> for the newest position.
    relevance is (T + 1,). `edits` are those of the attention weights of some layers, as `overlays` takes them;
    `contrast` is that of `exact`.
    """
    position = past[0][0].shape[2] if past[0] is not None else 0

    def logit(keys, values, e):
        memory = overlays(past, deltas, (keys, values), edits)
        out = decoder.head(decoder(e, memory, position, rules, positions)[0, -1], rules)
        entries.extend(layer.fresh for layer in memory)
        return out

    entries: list = []
    gates = [mx.zeros((position,)), mx.zeros((position,))]
    inputs, size = [*gates, embed], decoder.config.vocab_size
    logits, chosen, rival, slopes = _explained(logit, inputs, size, process, target, contrast)
    arrived = rules.key_share * slopes[0] + rules.value_share * slopes[1]
    return RelevanceResult(logits, chosen, mx.concatenate([arrived, _inner(embed, slopes[2])[0]]), entries, rival)


def _inner(x: mx.array, gradient: mx.array) -> mx.array:
    """Sum over the last axis of x * gradient, in float32."""
    return (x.astype(mx.float32) * gradient.astype(mx.float32)).sum(axis=-1)


def relevance(model, prompt, rules: str = "attnlrp", target: int | None = None) -> np.ndarray:
    """Exact relevance (T,) float32 of every prompt position for one logit at the last position.

    Gradient x input on the merged embeddings under `rules` ("attnlrp", "cplrp", "mlplrp", "plain"); signed, not
    normalised (arXiv 2402.05602). `target` None explains the most likely next token. Raises `MethodError` for unknown
    rules.
    """
    decoder, chosen = model.language_model, rules_by_name(rules)
    if target is not None and not 0 <= target < decoder.config.vocab_size:
        raise PromptError(f"Target token {target} is outside the vocabulary of {decoder.config.vocab_size}.")
    embeds, positions = model.inputs(prompt)
    return np.array(exact(decoder, embeds, chosen, target=target, positions=positions).relevance)


class Shares(NamedTuple):
    """Shares of the absolute relevance, each 0 to 1: picture or sound, rest of the prompt, the model's own words."""

    media: float
    prompt: float
    own: float


def shares(relevance, modality: np.ndarray) -> Shares:
    """Where a token came from. `modality` is (T,) bool over the prompt; `relevance` (T + n,), own tokens last."""
    size = np.abs(np.asarray(relevance, dtype=np.float64))
    total = size.sum()
    if not total > 0:
        return Shares(0.0, 0.0, 0.0)
    asked = size[: len(modality)]
    return Shares(*(float(part.sum() / total) for part in (asked[modality], asked[~modality], size[len(modality) :])))


def reliance(relevance, modality: np.ndarray) -> float:
    """Share of absolute relevance on the picture or sound: sum over M of |R_i| / sum over all of |R_k|, 0 to 1."""
    return shares(relevance, modality).media


def grounding(relevance, modality: np.ndarray, inside: np.ndarray) -> float:
    """Share of the positive modality relevance that lies inside the ground truth (a box, an interval), 0 to 1.

    `inside` is (|M|,) bool, in the order of the modality positions.
    """
    positive = np.maximum(np.asarray(relevance, dtype=np.float64)[: len(modality)][modality], 0)
    total = positive.sum()
    return float(positive[np.asarray(inside, dtype=bool)].sum() / total) if total > 0 else 0.0
