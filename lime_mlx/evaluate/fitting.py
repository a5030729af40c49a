"""The fit of a detector: a logistic regression on statistics of words, and how well it tells wrong words from right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lime_mlx.support.detector import Asking, Detector
from lime_mlx.support.domain import LEAST, Domain

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
# An object word: whether it is "there", its "medium", and its statistics as floats, among them the "margin" of yes over
# no where the model could be asked about it.
Row = Mapping[str, float | str | bool]
STATISTICS = ("share", "positive", "peak", "certainty")


@dataclass(frozen=True)
class Quality:
    """auroc, with a 95 % bootstrap interval by picture; precision and recall of hallucinated words at the threshold."""

    auroc: float
    low: float
    high: float
    precision: float
    recall: float


def fitted(rows: Sequence[Row], names: Sequence[str] = STATISTICS) -> Detector:
    """A detector on the statistics `names` of words that are "there" or not, and on the margins where all have one.

    Its thresholds have the best F1 on these words.
    """
    features = np.array([[_number(row[name]) for name in names] for row in rows])
    positive = _hallucinated(rows)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation == 0] = 1
    coefficients = logistic((features - mean) / deviation, positive)
    weights = coefficients[:-1] / deviation
    intercept = float(coefficients[-1] - weights @ mean)
    detector = Detector(dict(zip(names, weights.tolist(), strict=True)), intercept, 0.5)
    detector = replace(detector, threshold=_best_threshold(unsupported(detector, rows), positive))
    detector = replace(detector, asking=_fitted_asking(detector, rows))
    return replace(detector, threshold=_best_threshold(unsupported(detector, rows), positive))


def _fitted_asking(detector: Detector, rows: Sequence[Row]) -> Asking | None:
    """What the margins add to a detector by relevance; None where words lack one."""
    if any("margin" not in row for row in rows):
        return None
    by_relevance, positive = unsupported(detector, rows), _hallucinated(rows)
    margin = np.array([_number(row["margin"]) for row in rows])
    p = np.clip(by_relevance, 1e-6, 1 - 1e-6)
    relevance, weight, intercept = logistic(np.stack([np.log(p / (1 - p)), margin], axis=1), positive).tolist()
    # The model is not asked about words that relevance is surer of than of any hallucinated one.
    lowest = min(float(by_relevance[positive].min()), detector.threshold)
    return Asking(relevance, weight, intercept, lowest)


def _best_threshold(probabilities: Floats, positive: Flags) -> float:
    thresholds = np.unique(probabilities)
    scores = [_f1(probabilities >= threshold, positive) for threshold in thresholds]
    return float(thresholds[int(np.argmax(scores))])


def _hallucinated(rows: Sequence[Row]) -> Flags:
    return np.array([not row["there"] for row in rows])


def _number(value: float | str | bool) -> float:
    if isinstance(value, str):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def logistic(features: Floats, positive: Flags, penalty: float = 1e-3, rounds: int = 50) -> Floats:
    """Weights (F + 1,), the last the intercept, of a logistic regression of positive (N,) on features (N, F).

    It minimises the mean log loss plus penalty / 2 times the squares of the weights, without that of the intercept, by
    Newton's method. A step that does not lower the loss is halved.
    """
    x, y = np.c_[features, np.ones(len(features))], positive.astype(float)
    shrunk = penalty * np.r_[np.ones(x.shape[1] - 1), 0]
    weights = np.zeros(x.shape[1])

    def loss(weights: Floats) -> float:
        score = x @ weights
        return float((np.logaddexp(0, score) - y * score).mean() + shrunk @ weights**2 / 2)

    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -60, 60)))
        slope = x.T @ (p - y) / len(y) + shrunk * weights
        curve = (x * (p * (1 - p))[:, None]).T @ x / len(y) + np.diag(shrunk + 1e-12)
        step, before = np.linalg.solve(curve, slope), loss(weights)
        scale = next((0.5**n for n in range(30) if loss(weights - 0.5**n * step) < before), 0)
        if not scale:
            break
        weights = weights - scale * step
    return weights


def fitted_domain(inputs: Sequence[Sequence[Sequence[float]]], name: str) -> Domain | None:
    """The domain of inputs, each with the features (F,) of its pictures or sounds; None for too few of them."""
    features = np.array([row for rows in inputs for row in rows], dtype=np.float64)
    return Domain.fit(features, name) if len(features) >= LEAST else None


def unsupported(detector: Detector, rows: Sequence[Row]) -> Floats:
    """(n,) the probabilities that the words have no support: by the margin, too, where that is asked for."""
    names = [*detector.weights, "margin"]
    statistics = [{name: _number(row[name]) for name in names if row.get(name) is not None} for row in rows]
    return np.array([detector.p_unsupported(values) for values in statistics], dtype=np.float64)


def measured(detector: Detector, rows: Sequence[Row], owner: Sequence[object] | NDArray[np.generic]) -> Quality:
    """How well a detector tells the words that are not there. owner (N,): the picture of each word."""
    probabilities = unsupported(detector, rows)
    positive, flagged = _hallucinated(rows), probabilities >= detector.threshold
    right = int((flagged & positive).sum())
    precision, recall = right / max(1, int(flagged.sum())), right / max(1, int(positive.sum()))
    low, high = auroc_interval(probabilities, positive, owner)
    return Quality(auroc(probabilities, positive), low, high, precision, recall)


def auroc(scores: Floats, positive: Flags) -> float:
    """The probability that a positive has the higher score than a negative; ties count half.

    Not a number where all are positive, or none is.
    """
    if positive.all() or not positive.any():
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def auroc_interval(
    scores: Floats, positive: Flags, owner: Sequence[object] | NDArray[np.generic], samples: int = 1000
) -> tuple[float, float]:
    """95 % bootstrap interval of the AUROC, which draws whole pictures.

    Not a number where all are positive, or none is. Samples of one kind do not count.
    """
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    owners = np.asarray(owner)
    rng, groups = np.random.default_rng(0), [np.flatnonzero(owners == one) for one in np.unique(owners)]
    values = []
    for _ in range(samples):
        rows = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        if 0 < positive[rows].sum() < len(rows):
            values.append(auroc(scores[rows], positive[rows]))
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _f1(flagged: Flags, positive: Flags) -> float:
    return 2 * float((flagged & positive).sum()) / max(1, int(flagged.sum() + positive.sum()))
