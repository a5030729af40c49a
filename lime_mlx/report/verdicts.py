"""The verdict on each model and method in words, and the figures as tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

from lime_mlx.evaluate.store import Cell
from lime_mlx.evaluate.summary import Comparison, Figure

from .results import CAPTIONS, HALLUCINATION, Names, Result

BETTER, WORSE, MIXED, UNSURE, SAME = "better", "worse", "mixed", "unsure", "same"
TOLD = {"better": BETTER, "worse": WORSE}
# They follow from the others.
ASIDE = ("precision",)
# Beyond it the number of questions says nothing.
MANY = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """kind: "better", "worse", "mixed", "unsure" or "same"; lines: what it rests on; besides: what it costs."""

    cell: Cell
    name: str
    kind: str
    lines: list[str]
    besides: str


class Group(NamedTuple):
    """Cells that are compared with the same plain decoding, `against`."""

    title: str
    verdicts: list[Verdict]


class Entry(NamedTuple):
    """A figure in a table; verdict: "better", "worse" or ""."""

    value: str
    interval: str
    verdict: str = ""
    why: str = ""


class Row(NamedTuple):
    model: str
    method: str
    n: int
    entries: list[Entry | None]


class Table(NamedTuple):
    """Splits that have the same metrics."""

    metrics: list[str]
    splits: dict[str, list[Row]]


def groups(result: Result, names: Names) -> list[Group]:
    """The verdicts, methods of each model first, then the models."""
    compared: dict[Cell, dict[Cell, list[Figure]]] = {}
    for figure in result.figures:
        if figure.comparison:
            compared.setdefault(figure.comparison.against, {}).setdefault(figure.cell, []).append(figure)
    found = []
    for models in (False, True):
        for against, cells in compared.items():
            own = {cell: figures for cell, figures in cells.items() if (cell.model != against.model) == models}
            if own:
                plain, model = _plain(against), names.models[against.model]
                title = f"Models with {plain}, against {model}" if models else f"Methods on {model}, against {plain}"
                called = names.models if models else names.methods
                verdicts = [
                    _verdict(result, cell, called[cell.model if models else cell.method], against, figures)
                    for cell, figures in own.items()
                ]
                found.append(Group(title, verdicts))
    return found


def _plain(cell: Cell) -> str:
    return "plain decoding (none)" if cell.method == "none" else cell.method


def _verdict(result: Result, cell: Cell, name: str, against: Cell, figures: Sequence[Figure]) -> Verdict:
    parts: dict[str, list[Figure]] = {}
    for figure in figures:
        parts.setdefault(figure.comparison.verdict, []).append(figure)
    gained, lost = parts.get("better", []), parts.get("worse", [])
    open_ = sorted(parts.get("not enough questions to tell", []), key=lambda f: (f.comparison.p, f.metric.goal))
    kind = MIXED if gained and lost else BETTER if gained else WORSE if lost else UNSURE if open_ else SAME
    lines = [f"{word}: {_listed(part)}." for word, part in (("Better", gained), ("Worse", lost)) if part]
    if kind is UNSURE:
        lines.append(f"Not enough questions to tell. Clearest difference: {_open(open_[0])}.")
    elif open_:
        lines.append(f"Not enough questions to tell for the rest; clearest: {_open(open_[0])}.")
    elif kind is SAME:
        lines.append("No difference seen in any score.")
    return Verdict(cell, name, kind, lines, _besides(result, cell, against))


def _listed(figures: Sequence[Figure]) -> str:
    """CHAIR_I -3.1 points (-5.2 to -1.0); accuracy on random +2.0 points (...), on popular ..."""
    by_metric: dict[str, list[Figure]] = {}
    for figure in figures:
        by_metric.setdefault(figure.metric.name, []).append(figure)
    return "; ".join(
        f"{name} " + ", ".join(f"{_where(figure)}{_points(figure.comparison)}" for figure in part)
        for name, part in by_metric.items()
    )


def _open(figure: Figure) -> str:
    found = figure.comparison
    asked = f"{figure.n:,} asked"
    needed = asked
    if found.needed:
        many = f"about {found.needed:,}" if found.needed <= MANY else "over a million"
        needed = f"{many} questions would show it, {asked}"
    return f"{figure.metric.name} {_where(figure)}{_points(found)}; {needed}"


def _where(figure: Figure) -> str:
    return "" if figure.metric.split in ("all", "caption") else f"on {figure.metric.split} "


def _besides(result: Result, cell: Cell, against: Cell) -> str:
    """How many answers are the same, and what it costs."""
    own, other = result.answers[cell], result.answers[against]
    both = own.keys() & other.keys()
    same = sum(own[name]["text"] == other[name]["text"] for name in both)
    parts = [f"{same:,} of {len(both):,} answers are the same"]
    time, before = (result.figure(which, "time") for which in (cell, against))
    if time and before and before.value > 0:
        parts.append(f"{time.value / before.value:.2g} × the time per token")
    return "; ".join(parts) + "."


def lowest(result: Result, names: Names) -> str | None:
    """Which cell has the lowest rate of hallucination, and whether that is more than chance."""
    rates = result.hallucination
    if len(rates) < 2:
        return None
    cell = min(rates, key=lambda cell: rates[cell].value)
    tied = [other for other in rates if rates[other].value == rates[cell].value]
    several = len({cell.model for cell in rates}) > 1
    share = rates[cell]
    seen = f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"
    if len(tied) > 1:
        listed = " and ".join((", ".join(names.of(c, several) for c in tied[:-1]), names.of(tied[-1], several)))
        return f"Lowest {result.rate} seen: {seen}, of {listed} alike."
    metrics = HALLUCINATION if CAPTIONS in result.errors else ("accuracy",)
    figures = [f for f in result.figures if f.cell == cell and f.metric.name in metrics]
    compared = [f.comparison for f in figures if f.comparison]
    clause = ""
    if compared:
        known = any(found.verdict == "better" for found in compared)
        base = names.of(compared[0].against, several)
        clause = f"; {'more' if known else 'not shown to be more'} than chance against {base}"
    return f"Lowest {result.rate} seen: {names.of(cell, several)}, {seen}{clause}."


def points(difference: float, low: float, high: float) -> str:
    """A difference in points, with its interval."""
    return f"{signed(difference)} points ({signed(low)} to {signed(high)})"


def _points(found: Comparison) -> str:
    return points(found.difference, found.low, found.high)


def signed(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def tables(result: Result, names: Names) -> list[Table]:
    """Of what the answers say, then of what they took."""
    by_split: dict[str, dict[str, dict[Cell, Figure]]] = {}
    for figure in result.figures:
        metric = figure.metric
        if metric.name not in ASIDE:
            cost = " " if metric.name in ("time", "memory", "reliance") else ""
            by_split.setdefault(metric.split + cost, {}).setdefault(metric.name, {})[figure.cell] = figure
    doubted = any(figure.value for known in by_split.values() for figure in known.get("unknown", {}).values())
    found: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for split, known in sorted(by_split.items(), key=lambda item: item[0].endswith(" ")):
        shown = [name for name in known if name != "unknown" or doubted]
        rows = [
            Row(
                names.models[cell.model],
                cell.method,
                known[shown[0]][cell].n if cell in known[shown[0]] else 0,
                [entry(result, known[name].get(cell)) for name in shown],
            )
            for cell in dict.fromkeys(cell for name in shown for cell in known[name])
        ]
        found.setdefault(tuple(shown), {})[split.strip()] = rows
    return [Table(list(shown), splits) for shown, splits in found.items()]


def entry(result: Result, figure: Figure | None) -> Entry | None:
    if figure is None:
        return None
    if isnan(figure.value):
        return Entry("none", "")
    found, (unit, factor) = figure.comparison, result.scale(figure.metric.unit)
    kind = ".1f" if unit in ("%", "words") else ".3g"
    value, low, high = (f"{factor * number:{kind}}" for number in (figure.value, figure.low, figure.high))
    why = f"{_points(found)}, p = {found.corrected:.2g} after Holm" if found else ""
    return Entry(value, f"{low}–{high}", TOLD.get(found.verdict, "") if found else "", why)
