"""The verdict on a model or method in words that need no glossary, and the glossary for the figures behind it."""

from collections.abc import Sequence
from math import isnan

from lime_mlx.evaluate.store import Cell
from lime_mlx.evaluate.summary import BETTER, TOO_FEW, WORSE, Figure, PairedComparison

from .results import TaskResult

MIXED, UNSURE, SAME = "mixed", "unsure", "same"
Compared = Sequence[tuple[Figure, PairedComparison]]
# The main figures of a task are the first of these that it has.
MAIN = (("CHAIR_S", "CHAIR_I", "Hal", "CHAIR"), ("right",), ("harmonic mean",), ("aAcc",), ("accuracy",))
# What a figure says when it is better and when it is worse; those with values show them.
WORDS = {
    "CHAIR_S": ("fewer captions with invented objects", "more captions with invented objects"),
    "Hal": ("fewer captions with invented objects", "more captions with invented objects"),
    "CHAIR_I": ("fewer of the named objects are invented", "more of the named objects are invented"),
    "CHAIR": ("fewer of the named objects are invented", "more of the named objects are invented"),
    "recall": ("names more of what is there", "names less of what is there"),
    "Cover": ("names more of what is there", "names less of what is there"),
    "repeats": ("names things again less often", "names things again more often"),
    "loops": ("runs into loops less often", "runs into loops more often"),
    "accuracy": ("more right answers", "fewer right answers"),
    "aAcc": ("more right answers", "fewer right answers"),
    "right": ("more right answers", "fewer right answers"),
    "harmonic mean": ("tells better what is there from what is not", "tells worse what is there from what is not"),
}
VALUES = ("CHAIR_S", "Hal", "CHAIR_I", "CHAIR", "accuracy", "aAcc", "right", "harmonic mean")
# In one split, the first says nothing new behind the second.
IMPLIED = {"CHAIR_I": "CHAIR_S", "CHAIR": "Hal", "F1": "accuracy", "recall": "accuracy"}
GLOSSARY = (
    "CHAIR_S is the share of captions with an object that is not there, CHAIR_I the share of all named objects that "
    + "are not there; recall is the share of what is there that is named, or answered with yes.",
    "F1 is high where most yes are right (precision) and most of what is there gets a yes (recall); accuracy is the "
    + "share of right answers.",
    "Reliance is how much of an answer came from the picture or sound; splits are the parts of a benchmark, such as "
    + "the ways in which its questions were chosen.",
)


def kind_of(figures: Compared) -> str:
    """better, worse, mixed, unsure or same: worse and better by the main figures, mixed where others disagree."""
    names = next((names for names in MAIN if any(figure.metric.name in names for figure, _ in figures)), ())
    outcomes = [(figure.metric.name in names, comparison.outcome) for figure, comparison in figures]
    gained, lost = ({main for main, outcome in outcomes if outcome == kind} for kind in (BETTER, WORSE))
    if gained and lost:
        return MIXED
    if lost:
        return WORSE if True in lost or not names else MIXED
    if gained:
        return BETTER
    return UNSURE if any(outcome == TOO_FEW for _, outcome in outcomes) else SAME


def in_words(result: TaskResult, against: Cell, figures: Compared) -> str:
    """One sentence on all differences that are more than chance, the main ones first; "" where there are none."""
    shown = [pair for pair in figures if pair[1].outcome in (BETTER, WORSE)]
    names = {(figure.metric.name, figure.metric.split) for figure, _ in shown}
    order = [name for group in MAIN for name in group]
    shown.sort(key=lambda pair: order.index(pair[0].metric.name) if pair[0].metric.name in order else len(order))
    parts = [
        _part(result, against, figure, comparison.outcome == WORSE)
        for figure, comparison in shown
        if (IMPLIED.get(figure.metric.name), figure.metric.split) not in names
    ]
    text = "; ".join(dict.fromkeys(parts))
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def perhaps(result: TaskResult, against: Cell, figure: Figure, comparison: PairedComparison) -> str:
    """One sentence on a difference that is not shown to be more than chance."""
    worse = comparison.difference * figure.metric.goal < 0
    return f"Perhaps {_part(result, against, figure, worse)}; too few questions to tell."


def _part(result: TaskResult, against: Cell, figure: Figure, worse: bool) -> str:
    """fewer captions with invented objects: 40 -> 13 %; of a split that is one of several, with its name."""
    metric = figure.metric
    words = WORDS.get(metric.name, (f"{metric.name} is better", f"{metric.name} is worse"))[worse]
    split = "" if metric.split in ("all", "caption", "generative") else f" on {metric.split}"
    before = result.figure(against, metric.name, metric.split)
    if metric.name not in VALUES or before is None or isnan(before.value + figure.value):
        return f"{words}{split}"
    return f"{words}{split}: {100 * before.value:.0f} → {100 * figure.value:.0f} %"
