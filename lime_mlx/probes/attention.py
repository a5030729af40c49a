"""How a model attends to the picture or the sound before each token of an answer.

Sources: attention rollout, Abnar and Zuidema 2020, arXiv 2005.00928; LIAE and IAF, D-LEAF, arXiv 2509.07864.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import mlx.core as mx
import numpy as np

from lime_mlx.attention import AttentionRule, attend, masked_scores, softmax
from lime_mlx.errors import PromptError
from lime_mlx.methods.base import visible
from lime_mlx.methods.dleaf import Focus, diagnosis
from lime_mlx.models.base import Model
from lime_mlx.probes.blank import answered
from lime_mlx.prompt import Prompt
from lime_mlx.session import Session


def attention(model: Model, prompt: Prompt, tokens: Sequence[int]) -> list[dict[str, float]]:
    """Statistics of the attention before each token of an answer, from one forward of the whole sequence.

    last: attention of the last layer's heads to the picture, their mean; rollout: what reaches the newest position from
    picture positions when each layer passes on half itself and half the mean of its heads.
    """
    session = answered(model, prompt, tokens)
    memory = [WholeAttention() for _ in session.decoder.layers]
    mx.eval(session.decoder(session.embeds, memory, positions=session.positions))
    flow = mx.eye(session.embeds.shape[1])
    for layer in memory:
        flow = 0.5 * (layer.weights.mean(axis=0) + mx.eye(session.embeds.shape[1])) @ flow
    answer, media = slice(len(prompt) - 1, -1), mx.array(session.modality.astype(np.float32))
    last = memory[-1].weights.mean(axis=0)[answer, : len(prompt)] @ media
    rolled = flow[answer, : len(prompt)] @ media
    rows = zip(np.array(last), np.array(rolled), strict=True)
    return [{"last": float(a), "rollout": float(b)} for a, b in rows]


def focus(model: Model, prompt: Prompt, tokens: Sequence[int]) -> list[Focus]:
    """How the newest position attended to the picture or sound before each token of an answer, layer by layer.

    iaf: attention of each head to the picture; liae: entropy of the heads' mean attention over its positions, 0 one
    position, 1 all alike (`lime_mlx.methods.dleaf.diagnosis`). The attention is the model's own, of one more plain
    pass over the answer, whichever method gave it. Raises `PromptError` for a prompt without picture or sound.
    """
    session = Session.open(model, prompt)
    if not session.modality.any():
        raise PromptError("The diagnostics are of a picture or a sound, and the prompt has neither.")
    count, by_token = int(session.modality.sum()), []
    for token in tokens:
        rows: dict[int, mx.array] = {}
        media = mx.array(visible(session).astype(np.float32))
        session.prefill()
        with session.observing({i: partial(rows.__setitem__, i) for i in range(len(session.decoder.layers))}):
            mx.eval(session.extend())
        layers = [diagnosis(row.reshape(-1, row.shape[-1]), media, count) for _, row in sorted(rows.items())]
        by_token.append(Focus(np.array([liae.item() for _, liae in layers]), np.array([iaf for iaf, _ in layers])))
        session.append(token)
    return by_token


def over_words(by_token: Sequence[Focus], counts: Sequence[int]) -> list[Focus]:
    """The mean over the tokens of each word. counts: how many tokens each word has; the last may count more."""
    stops = np.minimum(np.cumsum(counts), len(by_token))
    return [
        Focus(
            np.mean([focus.liae for focus in by_token[start:stop]], axis=0),
            np.mean([focus.iaf for focus in by_token[start:stop]], axis=0),
        )
        for start, stop in zip([0, *stops[:-1]], stops, strict=True)
    ]


class WholeAttention:
    """A layer's memory that keeps nothing but the attention weights (H, T, T) of a whole sequence."""

    weights: mx.array

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: AttentionRule
    ) -> mx.array:
        weights = softmax(masked_scores(q, k, scale, mask))
        self.weights = weights.reshape(-1, *weights.shape[-2:])
        return attend(weights, v)
