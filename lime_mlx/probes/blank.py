"""What a model says when it sees or hears nothing.

The contrast with a blank input is the pointwise mutual information of token and picture, as in M3ID, arXiv 2403.14003.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lime_mlx.models.base import Model
from lime_mlx.prompt import Prompt
from lime_mlx.session import Session
from lime_mlx.support.statistics import log_softmax


def blank_logits(model: Model, prompt: Prompt, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Logits (N, V) that the model gives at each token of an answer when the picture or sound is blank."""
    session = answered(model, model.blank(prompt), tokens)
    hidden = session.decoder(session.embeds, positions=session.positions)[:, len(prompt) - 1 : -1]
    return np.array(session.decoder.head(hidden)[0])


def ignores_media(model: Model, prompt: Prompt, tokens: Sequence[int]) -> bool:
    """Whether the greedy answer `tokens` would be the same without the picture or sound: one more prefill."""
    return blank_logits(model, prompt, tokens).argmax(axis=-1).tolist() == list(tokens)


def contrast(logits: NDArray[np.float32], blank: NDArray[np.float32], token: int) -> float:
    """log p(token | picture) - log p(token | blank), in nats, from logits (V,) of both."""
    return float(log_softmax(logits)[token] - log_softmax(blank)[token])


def answered(model: Model, prompt: Prompt, tokens: Sequence[int]) -> Session:
    """A session behind the answer `tokens`."""
    session = Session.open(model, prompt)
    for token in tokens:
        session.append(token)
    return session
