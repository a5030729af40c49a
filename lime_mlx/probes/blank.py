"""What else speaks for a token: the attention behind it, and what the model says to a blank input.

Sources: attention rollout, Abnar and Zuidema 2020, arXiv 2005.00928; the contrast with a blank input is the pointwise
mutual information of token and picture, as in M3ID, arXiv 2403.14003; LIAE and IAF, D-LEAF, arXiv 2509.07864.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lime_mlx.methods import Session
from lime_mlx.prompt import Prompt
from lime_mlx.support.statistics import log_softmax


def blanked(model: Any, prompt: Prompt, tokens: Sequence[int]) -> np.ndarray:
    """Logits (N, V) that the model gives at each token of an answer when the picture or sound is blank."""
    session = _answered(model, model.blank(prompt), tokens)
    hidden = session.decoder(session.embeds, positions=session.positions)[:, len(prompt) - 1 : -1]
    return np.array(session.decoder.head(hidden)[0])


def ignored(model: Any, prompt: Prompt, tokens: Sequence[int]) -> bool:
    """Whether the greedy answer `tokens` would be the same without the picture or sound: one more prefill."""
    return blanked(model, prompt, tokens).argmax(axis=-1).tolist() == list(tokens)


def contrast(logits: np.ndarray, without: np.ndarray, token: int) -> float:
    """log p(token | picture) - log p(token | blank), in nats."""
    return float(log_softmax(logits)[token] - log_softmax(without)[token])


def _answered(model: Any, prompt: Prompt, tokens: Sequence[int]) -> Session:
    session = Session.open(model, prompt)
    for token in tokens:
        session.append(token)
    return session
