"""Does a token rest on the picture? Statistics of its relevance and its probability, and a calibrated detector."""

import numpy as np

from lime_mlx.lrp.relevance import reliance


def from_relevance(relevance: np.ndarray, modality: np.ndarray) -> dict[str, float]:
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


def from_logits(logits: np.ndarray, token: int) -> dict[str, float]:
    """logp: natural logarithm of the token's probability; certainty: minus the entropy of the distribution, in nats."""
    logp = log_softmax(logits)
    return {"logp": float(logp[token]), "certainty": float((np.exp(logp) * logp).sum())}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
