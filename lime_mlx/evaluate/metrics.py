"""Figures of stored answers. Each is a ratio of two sums over records, so that all have intervals and paired tests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .answers import NO, YES

Record = Mapping[str, Any]
MORE, LESS = 1, -1


@dataclass(frozen=True)
class Metric:
    """sum(top) / sum(bottom) over n entries of one split.

    ids and media (n,): what was asked, and about which picture or sound; both cells of a comparison have them in
    common. top, bottom (n,) float. goal: MORE or LESS is better, 0 neither. unit: "%" where the ratio is a share, else
    what is counted. binary: each entry is one answer, right or wrong.
    """

    name: str
    split: str
    ids: Sequence[str]
    media: Sequence[str]
    top: np.ndarray
    bottom: np.ndarray
    goal: int = 0
    unit: str = "%"
    binary: bool = False

    @property
    def value(self) -> float:
        """nan where nothing was counted."""
        total = float(np.sum(self.bottom))
        return float(np.sum(self.top)) / total if total else float("nan")


def ratio(
    name: str,
    split: str,
    records: Sequence[Record],
    top: Sequence[float],
    bottom: Sequence[float] | None = None,
    **more,
) -> Metric:
    """A metric of which each record is an entry; without `bottom` the mean of `top`."""
    below = np.ones(len(records)) if bottom is None else np.asarray(bottom, float)
    ids, media = [record["id"] for record in records], [record["medium"] for record in records]
    return Metric(name, split, ids, media, np.asarray(top, float), below, **more)


def by_medium(name: str, split: str, records: Sequence[Record], hits: Sequence[bool], **more) -> Metric:
    """The share of pictures or sounds of which every answer is a hit, as the accuracy+ of MME."""
    every: dict[str, bool] = {}
    for record, hit in zip(records, hits, strict=True):
        every[record["medium"]] = every.get(record["medium"], True) and bool(hit)
    names = list(every)
    return Metric(name, split, names, names, np.array(list(every.values()), float), np.ones(len(names)), **more)


def yes_no(records: Sequence[Record], verdicts: Sequence[str], split: str, positive: str = YES) -> list[Metric]:
    """Accuracy, precision, recall, F1 and shares of yes and unknown; an unknown verdict is wrong, and no yes.

    Precision, recall and F1 are those of `positive`.
    """
    labels = np.array([record["label"] for record in records])
    said = np.array(verdicts)
    right, asked, claimed = said == labels, labels == positive, said == positive
    hits = right & asked
    figure = lambda name, top, bottom=None, **more: ratio(name, split, records, top, bottom, **more)  # noqa: E731
    return [
        figure("accuracy", right, goal=MORE, binary=True),
        figure("F1", 2 * hits, asked.astype(float) + claimed, goal=MORE),
        figure("precision", hits, claimed, goal=MORE),
        figure("recall", hits, asked, goal=MORE),
        figure("yes rate", said == YES),
        figure("unknown", (said != YES) & (said != NO), goal=LESS),
    ]


def captions(
    records: Sequence[Record], split: str, counts: Sequence[tuple[float, float, float, float]], words: Sequence[float]
) -> list[Metric]:
    """CHAIR_S, CHAIR_I, recall and length of captions.

    counts: mentioned, hallucinated, covered and present objects of each caption; words: how many it has.
    """
    mentioned, hallucinated, covered, present = np.asarray(counts, float).reshape(-1, 4).T
    figure = lambda name, top, bottom=None, **more: ratio(name, split, records, top, bottom, **more)  # noqa: E731
    return [
        figure("CHAIR_S", hallucinated > 0, goal=LESS, binary=True),
        figure("CHAIR_I", hallucinated, mentioned, goal=LESS),
        figure("recall", covered, present, goal=MORE),
        figure("length", words, unit="words"),
    ]


def by_split(records: Sequence[Record], figures: Callable[[list[Record], str], list[Metric]]) -> list[Metric]:
    """The metrics of each split, in the order in which the splits come."""
    splits: dict[str, list[Record]] = {}
    for record in records:
        splits.setdefault(record["split"], []).append(record)
    return [metric for split, part in splits.items() for metric in figures(part, split)]


def running(records: Sequence[Record]) -> list[Metric]:
    """What an answer took and rested on: seconds a token, GB at the peak, reliance.

    Time is of the answers that were timed and, where there are some, are not a mere yes or no.
    """
    timed = [record for record in records if record.get("seconds") is not None]
    timed = [record for record in timed if record["label"] is None] or timed
    relied = [r for r in records if r.get("reliance") and None not in r["reliance"]]
    return [
        ratio(
            "time", "all", timed, [r["seconds"] for r in timed], [r["steps"] for r in timed], goal=LESS, unit="s/token"
        ),
        ratio("memory", "all", timed, [r["memory"] for r in timed], goal=LESS, unit="GB"),
        ratio("reliance", "all", relied, [float(np.mean(r["reliance"])) for r in relied], goal=0),
    ]
