"""What else speaks for a token: the attention behind it, and what the model says to a blank input.

Sources: attention rollout, Abnar and Zuidema 2020, arXiv 2005.00928; the contrast with a blank input is the pointwise
mutual information of token and picture, as in M3ID, arXiv 2403.14003; LIAE and IAF, D-LEAF, arXiv 2509.07864.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from lime_mlx.errors import PromptError
from lime_mlx.lrp.rules import attention_weights
from lime_mlx.methods import Session
from lime_mlx.methods.dleaf import diagnosis, visible
from lime_mlx.probes.blank import _answered
from lime_mlx.prompt import Prompt


def attention(model: Any, prompt: Prompt, tokens: Sequence[int]) -> list[dict[str, float]]:
    """Statistics of the attention behind each token of an answer, from one forward of the whole sequence.

    last: attention of the last layer's heads to the picture, their mean; rollout: what reaches the newest position from
    picture positions when each layer passes on half itself and half the mean of its heads.
    """
    session = _answered(model, prompt, tokens)
    memory = [Whole() for _ in session.decoder.layers]
    mx.eval(session.decoder(session.embeds, memory, positions=session.positions))
    flow = None
    for layer in memory:
        mixed = 0.5 * (layer.weights.mean(axis=0) + mx.eye(session.embeds.shape[1]))
        flow = mixed if flow is None else mixed @ flow
    rows, seen = slice(len(prompt) - 1, -1), mx.array(session.modality.astype(np.float32))
    last = memory[-1].weights.mean(axis=0)[rows, : len(prompt)] @ seen
    rolled = flow[rows, : len(prompt)] @ seen
    return [{"last": a, "rollout": b} for a, b in zip(last.tolist(), rolled.tolist(), strict=True)]


@dataclass(frozen=True)
class Focus:
    """D-LEAF's diagnostics of a token or a word: liae (L,), NaN where a layer sees nothing of it, and iaf (L, H)."""

    liae: np.ndarray
    iaf: np.ndarray


def focus(model: Any, prompt: Prompt, tokens: Sequence[int]) -> list[Focus]:
    """How each token of an answer looked at the picture or sound, as it was about to be said, layer by layer.

    iaf: attention of each head to the picture; liae: entropy of the heads' mean attention over its positions, 0 one
    place, 1 everywhere alike (`lime_mlx.methods.dleaf.diagnosis`). The attention is the model's own, of one more plain
    pass over the answer, whichever method gave it. Raises `PromptError` for a prompt without picture or sound.
    """
    session = Session.open(model, prompt)
    if not session.modality.any():
        raise PromptError("The diagnostics are of a picture or a sound, and the prompt has neither.")
    places, found = int(session.modality.sum()), []
    for token in tokens:
        rows: dict[int, mx.array] = {}
        seen = mx.array(visible(session).astype(np.float32))
        session.prefill()
        with session.observing({i: partial(rows.__setitem__, i) for i in range(len(session.decoder.layers))}):
            mx.eval(session.extend())
        layers = [diagnosis(row.reshape(-1, row.shape[-1]), seen, places) for _, row in sorted(rows.items())]
        found.append(Focus(np.array([liae.item() for _, liae in layers]), np.array([iaf for iaf, _ in layers])))
        session.append(token)
    return found


def over_words(found: Sequence[Focus], counts: Sequence[int]) -> list[Focus]:
    """The mean over the tokens of each word, of which `counts` says how many there are; the last may count more."""
    stops = np.minimum(np.cumsum(counts), len(found))
    return [
        Focus(*(np.mean([getattr(x, name) for x in found[start:stop]], axis=0) for name in ("liae", "iaf")))
        for start, stop in zip([0, *stops[:-1]], stops, strict=True)
    ]


class Whole:
    """A layer's memory that keeps nothing but the attention weights (H, T, T) of a whole sequence."""

    weights: mx.array

    def attention(self, q, k, v, scale, mask, rules):
        weights = attention_weights(q, k, scale, mask)
        self.weights = weights.reshape(-1, *weights.shape[-2:])
        return (weights @ v[:, :, None]).reshape(q.shape[:-1] + v.shape[-1:])
