"""What the figures say about each model and method, in words, and the figures as tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

from lime_mlx.evaluate.store import Cell
from lime_mlx.evaluate.summary import BETTER, TOO_FEW, WORSE, Figure, PairedComparison, figure_tables

from .results import CAPTIONS, HALLUCINATION, Names, TaskResult
from .verdict import MIXED, SAME, UNSURE, in_words, kind_of, perhaps

# A larger number of questions says nothing.
MANY = 1_000_000
Compared = list[tuple[Figure, PairedComparison]]


@dataclass(frozen=True)
class Conclusion:
    """What the figures say about one cell. kind: "better", "worse", "mixed", "unsure" or "same".

    verdict: the same in words, "" where no difference is seen. lines: what it rests on. costs: how many answers
    are the same as plain ones, and the time.
    """

    cell: Cell
    name: str
    kind: str
    verdict: str
    lines: list[str]
    costs: str


class Group(NamedTuple):
    """Cells that are compared with the same plain decoding."""

    title: str
    conclusions: list[Conclusion]


class Entry(NamedTuple):
    """A figure in a table. outcome: "better", "worse" or "". why: the comparison in words."""

    value: str
    interval: str
    outcome: str = ""
    why: str = ""


class Row(NamedTuple):
    """The figures of one cell in a table, in the order of its metrics; each of them has n entries."""

    model: str
    method: str
    n: int
    entries: list[Entry | None]


class Table(NamedTuple):
    """The rows of splits that have the same metrics."""

    metrics: list[str]
    splits: list[tuple[str, list[Row]]]


def groups(result: TaskResult, names: Names) -> list[Group]:
    """The conclusions: the methods of each model first, then the models."""
    compared: dict[Cell, dict[Cell, Compared]] = {}
    for figure in result.figures:
        if comparison := figure.comparison:
            cells = compared.setdefault(comparison.against, {})
            cells.setdefault(figure.cell, []).append((figure, comparison))
    listed = []
    for of_models in (False, True):
        for against, cells in compared.items():
            part = {cell: figures for cell, figures in cells.items() if (cell.model != against.model) == of_models}
            if part:
                listed.append(_group(result, names, against, part, of_models))
    return listed


def _group(result: TaskResult, names: Names, against: Cell, cells: Mapping[Cell, Compared], of_models: bool) -> Group:
    plain = "plain decoding (none)" if against.method == "none" else against.method
    model = names.models[against.model]
    title = f"Models with {plain}, against {model}" if of_models else f"Methods on {model}, against {plain}"
    conclusions = []
    for cell, figures in cells.items():
        name = names.models[cell.model] if of_models else names.methods[cell.method]
        conclusions.append(_conclusion(result, cell, name, against, figures))
    return Group(title, conclusions)


def _conclusion(result: TaskResult, cell: Cell, name: str, against: Cell, figures: Compared) -> Conclusion:
    parts: dict[str, Compared] = {}
    for figure, comparison in figures:
        parts.setdefault(comparison.outcome, []).append((figure, comparison))
    gained, lost = parts.get(BETTER, []), parts.get(WORSE, [])
    open_ = sorted(parts.get(TOO_FEW, []), key=lambda pair: (pair[1].p, pair[0].metric.goal))
    kind = kind_of(figures)
    lines = [f"{word}: {_listed(part)}." for word, part in (("Better", gained), ("Worse", lost)) if part]
    if kind is UNSURE:
        lines.append(f"Clearest difference: {_open(*open_[0])}.")
    elif open_:
        lines.append(f"Not enough questions to tell for the rest; clearest: {_open(*open_[0])}.")
    elif kind is SAME:
        lines.append("No difference seen in any score.")
    verdict = perhaps(result, against, *open_[0]) if kind is UNSURE else in_words(result, against, figures)
    return Conclusion(cell, name, kind, verdict, lines, _costs(result, cell, against))


def _listed(figures: Compared) -> str:
    """CHAIR_I -3.1 points (-5.2 to -1.0); accuracy on random +2.0 points (...), on popular ..."""
    by_metric: dict[str, list[str]] = {}
    for figure, comparison in figures:
        text = f"{_split(figure)}{_points(comparison)}"
        by_metric.setdefault(figure.metric.name, []).append(text)
    return "; ".join(f"{name} {', '.join(texts)}" for name, texts in by_metric.items())


def _open(figure: Figure, comparison: PairedComparison) -> str:
    """A difference that is not shown, and how many questions would show it."""
    needed = ""
    if comparison.needed:
        many = f"about {comparison.needed:,}" if comparison.needed <= MANY else "over a million"
        needed = f"{many} questions would show it, "
    return f"{figure.metric.name} {_split(figure)}{_points(comparison)}; {needed}{figure.n:,} asked"


def _split(figure: Figure) -> str:
    return "" if figure.metric.split in ("all", "caption") else f"on {figure.metric.split} "


def _costs(result: TaskResult, cell: Cell, against: Cell) -> str:
    """How many answers are the same, and the time per token."""
    answers, plain = result.answers[cell], result.answers[against]
    both = answers.keys() & plain.keys()
    same = sum(answers[name]["text"] == plain[name]["text"] for name in both)
    parts = [f"{same:,} of {len(both):,} answers are the same"]
    time, before = (result.figure(which, "time") for which in (cell, against))
    if time and before and before.value > 0:
        parts.append(f"{time.value / before.value:.2g} × the time per token")
    return "; ".join(parts) + "."


def fewest(result: TaskResult, names: Names, listed: list[Group]) -> str | None:
    """The cell with the lowest rate of hallucination, and whether that is more than chance; None for a single cell.

    listed: the conclusions, because such a cell may be worse elsewhere.
    """
    rates = result.hallucination
    if len(rates) < 2:
        return None
    cell = min(rates, key=lambda cell: rates[cell].value)
    tied = [other for other in rates if rates[other].value == rates[cell].value]
    with_model = len({cell.model for cell in rates}) > 1
    share = rates[cell]
    seen = f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"
    if len(tied) > 1:
        first = ", ".join(names.of(other, with_model) for other in tied[:-1])
        return f"{_rate(result)} {seen}, of {first} and {names.of(tied[-1], with_model)} alike."
    chance = _chance(result, cell, names, with_model)
    kinds = {conclusion.kind for group in listed for conclusion in group.conclusions if conclusion.cell == cell}
    disagree = " Its other figures disagree." if MIXED in kinds else ""
    return f"{_rate(result)} {names.of(cell, with_model)}, {seen}{chance}.{disagree}"


def _rate(result: TaskResult) -> str:
    """What the rate of hallucination counts, in words."""
    return f"Fewest invented objects ({result.rate}):" if result.rate in HALLUCINATION else f"Fewest {result.rate}:"


def _chance(result: TaskResult, cell: Cell, names: Names, with_model: bool) -> str:
    """Whether the rate of a cell is lower by more than chance; "" where it is compared with nothing."""
    metrics = HALLUCINATION if CAPTIONS in result.errors else ("accuracy",)
    figures = [figure for figure in result.figures if figure.cell == cell and figure.metric.name in metrics]
    comparisons = [figure.comparison for figure in figures if figure.comparison]
    if not comparisons:
        return ""
    shown = any(comparison.outcome == BETTER for comparison in comparisons)
    base = names.of(comparisons[0].against, with_model)
    return f"; {'more' if shown else 'not shown to be more'} than chance against {base}"


def points(difference: float, low: float, high: float) -> str:
    """A difference of shares in points, with its interval."""
    return f"{signed(difference)} points ({signed(low)} to {signed(high)})"


def _points(comparison: PairedComparison) -> str:
    return points(comparison.difference, comparison.low, comparison.high)


def signed(share: float) -> str:
    """A share in points, with its sign."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def score_tables(result: TaskResult, names: Names) -> list[Table]:
    """The tables of the page: what the answers say, then their time, memory and reliance."""
    by_metrics: dict[tuple[str, ...], list[tuple[str, list[Row]]]] = {}
    for table in figure_tables(result.figures):
        rows = [
            Row(
                names.models[row.cell.model],
                row.cell.method,
                row.n,
                [entry(result, row.figures.get(name)) for name in table.metrics],
            )
            for row in table.rows
        ]
        by_metrics.setdefault(tuple(table.metrics), []).append((table.heading, rows))
    return [Table(list(metrics), splits) for metrics, splits in by_metrics.items()]


def entry(result: TaskResult, figure: Figure | None) -> Entry | None:
    """A figure as text, in the unit of the page; None where there is none."""
    if figure is None:
        return None
    if isnan(figure.value):
        return Entry("none", "")
    comparison, (unit, factor) = figure.comparison, result.scale(figure.metric.unit)
    kind = ".1f" if unit in ("%", "words") else ".3g"
    value, low, high = (f"{factor * number:{kind}}" for number in (figure.value, figure.low, figure.high))
    if comparison is None:
        return Entry(value, f"{low}–{high}")
    why = f"{_points(comparison)}, p = {comparison.corrected:.2g} after Holm"
    return Entry(value, f"{low}–{high}", comparison.outcome if comparison.outcome in (BETTER, WORSE) else "", why)
