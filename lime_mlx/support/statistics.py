"""Does a token rest on the picture? Statistics of its relevance and its probability."""

import numpy as np
from numpy.typing import NDArray

from lime_mlx.lrp.relevance import reliance


def from_relevance(relevance: NDArray[np.floating], modality: NDArray[np.bool_]) -> dict[str, float]:
    """Statistics of the relevance (T,) of one token; `modality` is (T0,) bool over the prompt.

    share: absolute relevance on the picture over all; signed: the sum on the picture; positive: of what is positive
    there; peak: the largest position's.
    """
    seen = np.asarray(relevance, dtype=np.float64)[: len(modality)][modality]
    return {
        "share": reliance(relevance, modality),
        "signed": float(seen.sum()),
        "positive": float(np.maximum(seen, 0).sum()),
        "peak": float(np.abs(seen).max(initial=0)),
    }


def from_logits(logits: NDArray[np.floating], token: int) -> dict[str, float]:
    """logp: natural logarithm of the token's probability; certainty: minus the entropy of the distribution, in nats."""
    logp = log_softmax(logits)
    return {"logp": float(logp[token]), "certainty": float((np.exp(logp) * logp).sum())}


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities (V,) of logits (V,), in double precision."""
    shifted: NDArray[np.float64] = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max()
    logp: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return logp
