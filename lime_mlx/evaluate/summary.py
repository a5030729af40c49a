"""What the answers of a run say: every figure with its interval, and whether a difference is more than chance."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil, isnan
from statistics import NormalDist
from typing import Any

import numpy as np

from lime_mlx.errors import DataError

from .metrics import Metric, Record, running
from .statistics import holm, interval, mcnemar, paired_bootstrap, questions_needed
from .store import Cell, Store
from .tasks import parse_task

LEVEL = 0.05
# Differences of these are tested; what follows from them, or is no share, is only shown.
UNTESTED = ("precision", "unknown")


@dataclass(frozen=True)
class Comparison:
    """A figure against that of another cell, on the entries that both have.

    difference, low, high: of the ratios, with a 95 % interval by picture; p: McNemar's exact test for answers that are
    right or wrong, else the randomisation test; corrected: p after Holm, over all comparisons of the task. verdict:
    "better", "worse", "not enough questions to tell" or "no difference seen"; needed: how many entries would show the
    difference as it was seen, in four of five runs and among as many comparisons.
    """

    against: Cell
    difference: float
    low: float
    high: float
    p: float
    needed: int | None
    corrected: float = float("nan")
    verdict: str = ""


@dataclass(frozen=True)
class Figure:
    """A metric of one cell: its value, a 95 % interval by picture, n entries, and the comparison where there is one."""

    cell: Cell
    metric: Metric
    low: float
    high: float
    comparison: Comparison | None = None

    @property
    def value(self) -> float:
        return self.metric.value

    @property
    def n(self) -> int:
        return len(self.metric.ids)


def summarise(store: Store, scorer: str = "ours") -> list[Figure]:
    """The figures of all cells that have answers. `scorer`: "ours", or "official" where a task has that.

    Raises `DataError` where the folder has no answers, or for a scorer that no task has.
    """
    settings = store.settings
    known = {name for task in settings["tasks"] for name in parse_task(task).scorers}
    if scorer not in known:
        raise DataError(f"No task of this run has the scorer {scorer!r}; choose one of {', '.join(sorted(known))}.")
    figures = []
    for task in settings["tasks"]:
        part = []
        for cell in store.cells():
            if cell.task == task and (records := answered(store, cell)):
                part += [_figure(cell, metric) for metric in scored(store, task, records, scorer)]
        figures += _compared(part, settings)
    if not figures:
        raise DataError(f"{store.folder} has no answers yet.")
    return figures


def answered(store: Store, cell: Cell) -> list[dict]:
    """The records of a cell that have an answer."""
    return [record for record in store.answers(cell).records.values() if "text" in record]


def scored(store: Store, task: str, records: list[Record], scorer: str) -> list[Metric]:
    """The metrics of a task, by ours where it does not have this scorer, and what the answers took."""
    bench = parse_task(task)
    chosen = scorer if scorer in bench.scorers else bench.scorers[0]
    return [m for m in (*bench.metrics(records, chosen, store.material(task)), *running(records)) if len(m.ids)]


def baseline(cell: Cell, settings: Mapping[str, Any]) -> Cell | None:
    """What a cell is compared with: plain decoding of the same model; for that, plain decoding of the first model."""
    models, methods = list(settings["models"]), settings["methods"]
    plain = "none" if "none" in methods else methods[0]
    if cell.method != plain:
        return cell._replace(method=plain)
    return cell._replace(model=models[0]) if cell.model != models[0] else None


def rows(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """The figures as flat JSON objects; numbers that are not known are null."""
    found = []
    for figure in figures:
        metric = figure.metric
        row = {**figure.cell._asdict(), "split": metric.split, "metric": metric.name, "unit": metric.unit}
        row |= {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
        if figure.comparison is not None:
            compared = asdict(figure.comparison)
            row["comparison"] = {key: _known(value) for key, value in compared.items()}
        found.append({key: _known(value) for key, value in row.items()})
    return found


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and isnan(value) else value


def _figure(cell: Cell, metric: Metric) -> Figure:
    return Figure(cell, metric, *interval(metric.top, metric.bottom, metric.media))


def _compared(figures: list[Figure], settings: Mapping[str, Any]) -> list[Figure]:
    known = {(figure.cell, figure.metric.split, figure.metric.name): figure for figure in figures}
    pairs = []
    for figure in figures:
        other = baseline(figure.cell, settings)
        first = known.get((other, figure.metric.split, figure.metric.name)) if other else None
        pairs.append((first if first and _tested(figure.metric) else None, figure))
    level = LEVEL / max(1, sum(first is not None for first, _ in pairs))
    found = [compare(first, figure, level) if first else None for first, figure in pairs]
    corrected = iter(holm([comparison.p for comparison in found if comparison]))
    return [
        replace(figure, comparison=_judged(figure, comparison, next(corrected))) if comparison else figure
        for (_, figure), comparison in zip(pairs, found, strict=True)
    ]


def _tested(metric: Metric) -> bool:
    return metric.goal != 0 and metric.unit == "%" and metric.name not in UNTESTED


def compare(first: Figure, second: Figure, level: float = LEVEL) -> Comparison | None:
    """The second figure against the first, on what both were asked; None where that is nothing.

    level: of the test for which `needed` is worked out.
    """
    a, b = first.metric, second.metric
    places = {name: place for place, name in enumerate(a.ids)}
    both = [(places[name], place) for place, name in enumerate(b.ids) if name in places]
    if not both:
        return None
    old, new = map(list, zip(*both, strict=True))
    media = [b.media[place] for place in new]
    tops = np.asarray(a.top, float)[old], np.asarray(b.top, float)[new]
    found = paired_bootstrap((tops[0], a.bottom[old]), (tops[1], b.bottom[new]), media)
    if isnan(found["difference"]):
        return None
    if b.binary:
        gained, lost = int((tops[1] > tops[0]).sum()), int((tops[1] < tops[0]).sum())
        p, needed = mcnemar(tops[0] > 0, tops[1] > 0), questions_needed(gained, lost, len(both), alpha=level)
    else:
        p, needed = found["p"], _needed(found, len(both), level)
    return Comparison(first.cell, found["difference"], found["low"], found["high"], p, needed)


def _needed(found: Mapping[str, float], n: int, level: float, power: float = 0.8) -> int | None:
    """Entries that show the difference seen, by the width of its interval."""
    normal = NormalDist()
    error = (found["high"] - found["low"]) / (2 * normal.inv_cdf(0.975))
    if not found["difference"] or not error:
        return None
    reach = (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)) * error / abs(found["difference"])
    return max(1, ceil(n * reach**2))


def _judged(figure: Figure, found: Comparison, corrected: float) -> Comparison:
    if corrected < LEVEL:
        verdict = "better" if found.difference * figure.metric.goal > 0 else "worse"
        return replace(found, corrected=corrected, verdict=verdict)
    verdict = "not enough questions to tell" if found.difference else "no difference seen"
    needed = None if found.needed is None else max(found.needed, figure.n + 1)
    return replace(found, corrected=corrected, verdict=verdict, needed=needed)
