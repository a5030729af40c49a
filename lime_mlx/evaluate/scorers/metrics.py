"""Figures of stored answers. Each is a ratio of two sums over records, so that all have intervals and paired tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.statistics import mean_ratio

from .answers import NO, YES

Floats = NDArray[np.float64]
MORE, LESS = 1, -1
SHARE = "%"
# The share of free answers that are right.
RIGHT = "right"


@dataclass(frozen=True)
class Metric:
    """sum(top) / sum(bottom) over n entries of one split.

    ids, media (n,): the question of each entry, and its picture or sound. top, bottom (n,) float, or (n, k) for the
    harmonic mean of k ratios. goal: MORE or LESS
    is better, 0 neither. unit: "%" where the ratio is a share, else what is counted. binary: each entry is one answer
    that is right or wrong.
    """

    name: str
    split: str
    ids: Sequence[str]
    media: Sequence[str]
    top: Floats
    bottom: Floats
    goal: int = 0
    unit: str = SHARE
    binary: bool = False

    @property
    def value(self) -> float:
        """The ratio; nan where nothing was counted."""
        total = np.sum(self.bottom, axis=0)
        return float(mean_ratio(np.sum(self.top, axis=0), total)) if np.all(total) else float("nan")


def ratio(
    name: str,
    split: str,
    records: Sequence[Record],
    top: ArrayLike,
    bottom: ArrayLike | None = None,
    *,
    goal: int = 0,
    unit: str = SHARE,
    binary: bool = False,
) -> Metric:
    """A metric with one entry for each record; without `bottom` it is the mean of `top`."""
    below = np.ones(len(records)) if bottom is None else np.asarray(bottom, dtype=np.float64)
    ids, media = [record["id"] for record in records], [record["medium"] for record in records]
    return Metric(name, split, ids, media, np.asarray(top, dtype=np.float64), below, goal, unit, binary)


def by_medium(name: str, split: str, records: Sequence[Record], hits: Sequence[bool]) -> Metric:
    """The share of pictures or sounds with only right answers, as the accuracy+ of MME. hits (n,): of each record."""
    return all_right(name, split, [record["medium"] for record in records], hits)


def all_right(name: str, split: str, keys: Sequence[str], hits: Sequence[bool]) -> Metric:
    """The share of groups with only right answers. keys, hits (n,): the group of each answer; whether it is right."""
    every: dict[str, bool] = {}
    for key, hit in zip(keys, hits, strict=True):
        every[key] = every.get(key, True) and bool(hit)
    groups = list(every)
    top = np.array(list(every.values()), dtype=np.float64)
    return Metric(name, split, groups, groups, top, np.ones(len(groups)), MORE, binary=True)


def harmonic(records: Sequence[Record], verdicts: Sequence[str], split: str) -> list[Metric]:
    """The harmonic mean of the rates of true positives (TPR) and true negatives (TNR), and both rates.

    verdicts (n,): "yes", "no" or other; another verdict is wrong.
    """
    labels, given = np.array([record["label"] for record in records]), np.array(verdicts)
    wanted = np.stack([labels == YES, labels == NO], axis=1).astype(np.float64)
    hits = wanted * (given == labels)[:, None]
    rates = zip(("TPR", "TNR"), hits.T, wanted.T, strict=True)
    return [
        ratio("harmonic mean", split, records, hits, wanted, goal=MORE),
        *(ratio(name, split, records, top, bottom, goal=MORE) for name, top, bottom in rates),
    ]


def yes_no(records: Sequence[Record], verdicts: Sequence[str], split: str, positive: str = YES) -> list[Metric]:
    """Accuracy, precision, recall, F1, and the shares of yes and unknown. verdicts (n,): "yes", "no" or other.

    Another verdict is wrong, and is not a yes. Precision, recall and F1 are those of the class `positive`.
    """
    labels = np.array([record["label"] for record in records])
    given = np.array(verdicts)
    right, wanted, claimed = given == labels, labels == positive, given == positive
    hits = right & wanted

    def figure(name: str, top: ArrayLike, bottom: ArrayLike | None = None, goal: int = MORE) -> Metric:
        return ratio(name, split, records, top, bottom, goal=goal, binary=name == "accuracy")

    return [
        figure("accuracy", right),
        figure("F1", 2 * hits, wanted.astype(float) + claimed),
        figure("precision", hits, claimed),
        figure("recall", hits, wanted),
        figure("yes rate", given == YES, goal=0),
        figure("unknown", (given != YES) & (given != NO), goal=LESS),
    ]


def captions(
    records: Sequence[Record], split: str, counts: Sequence[tuple[int, int, int, int]], lengths: Sequence[int]
) -> list[Metric]:
    """CHAIR_S, CHAIR_I, recall and length of captions (Rohrbach et al. 2018, arXiv 1809.02156).

    counts (n, 4): objects of each caption that are mentioned, hallucinated and covered, and objects of its picture.
    lengths (n,): words of each caption.
    """
    mentioned, hallucinated, covered, present = np.asarray(counts, dtype=np.float64).reshape(-1, 4).T
    return [
        ratio("CHAIR_S", split, records, hallucinated > 0, goal=LESS, binary=True),
        ratio("CHAIR_I", split, records, hallucinated, mentioned, goal=LESS),
        ratio("recall", split, records, covered, present, goal=MORE),
        ratio("length", split, records, lengths, unit="words"),
    ]


def by_split(records: Sequence[Record], figures: Callable[[list[Record], str], list[Metric]]) -> list[Metric]:
    """The metrics of each split, in the order in which the splits come."""
    splits: dict[str, list[Record]] = {}
    for record in records:
        splits.setdefault(record["split"], []).append(record)
    return [metric for split, part in splits.items() for metric in figures(part, split)]


def running(records: Sequence[Record]) -> list[Metric]:
    """Seconds a token, GB at the peak, and the mean reliance.

    Time is that of the answers that were timed; where some of these are captions, it is that of the captions.
    """
    timed = [record for record in records if record.get("seconds") is not None]
    timed = [record for record in timed if record["label"] is None] or timed
    with_reliance = [(record, shares) for record in records if (shares := _reliance(record))]
    return [
        ratio("time", "all", timed, *_seconds(timed), goal=LESS, unit="s/token"),
        ratio("memory", "all", timed, [record["memory"] for record in timed], goal=LESS, unit="GB"),
        ratio(
            "reliance", "all", [record for record, _ in with_reliance], [np.mean(shares) for _, shares in with_reliance]
        ),
    ]


def _seconds(timed: Sequence[Record]) -> tuple[list[float], list[int]]:
    return [record["seconds"] or 0.0 for record in timed], [record["steps"] for record in timed]


def _reliance(record: Record) -> list[float]:
    """The reliance of every token; empty where that of one is unknown."""
    shares = record.get("reliance") or []
    numbers = [share for share in shares if share is not None]
    return numbers if len(numbers) == len(shares) else []
