"""The figures of a run's answers, each with its interval, and whether a difference is more than chance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, isnan
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from lime_mlx.errors import DataError, first_line
from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.scorers.metrics import LESS, MORE, RIGHT, SHARE, Metric, running

from .statistics import PairedDifference, holm, interval, mcnemar, paired_bootstrap, questions_needed
from .store import Cell, Settings, Store
from .tasks import parse_task

LEVEL = 0.05
# No difference of these is tested: they follow from the others, or are no shares.
UNTESTED = ("precision", "unknown", "spoilt", "mended")
# A kind of free question counts where plain decoding is right in at least this share.
COUNTS = 0.6
# Tables leave these out: they follow from the others.
ASIDE = ("precision",)
COSTS = ("time", "memory", "reliance")
BETTER, WORSE, TOO_FEW, SAME = "better", "worse", "not enough questions to tell", "no difference seen"


@dataclass(frozen=True)
class PairedComparison:
    """A figure against that of another cell, on the entries that both have.

    difference, low, high: of the ratios, with a 95 % interval by picture. p: of McNemar's exact test for answers that
    are right or wrong, else of the randomisation test. corrected: p after Holm, over all comparisons of the task.
    outcome: "better", "worse", "not enough questions to tell" or "no difference seen". needed: the number of entries
    that would show the difference that was seen, in four of five runs and among as many comparisons.
    """

    against: Cell
    difference: float
    low: float
    high: float
    p: float
    needed: int | None
    corrected: float = float("nan")
    outcome: str = ""


@dataclass(frozen=True)
class Figure:
    """A metric of one cell: its value, a 95 % interval by picture, n entries, and the comparison where there is one."""

    cell: Cell
    metric: Metric
    low: float
    high: float
    comparison: PairedComparison | None = None

    @property
    def value(self) -> float:
        return self.metric.value

    @property
    def n(self) -> int:
        return len(self.metric.ids)


def scorers_of(tasks: Iterable[str]) -> list[str]:
    """The names of the scorers that at least one of these tasks has, ours first."""
    return list(dict.fromkeys(name for task in tasks for name in parse_task(task).scorers))


def check_scorer(scorer: str, tasks: Iterable[str]) -> None:
    """Raise `DataError` for a scorer that none of these tasks has."""
    names = scorers_of(tasks)
    if scorer not in names:
        raise DataError(f"No task of this run has the scorer {scorer!r}; choose one of {', '.join(names)}.")


def summarise(store: Store, scorer: str = "ours") -> list[Figure]:
    """The figures of all cells that have answers. A task that lacks this scorer is scored by ours.

    Raises `DataError` where the folder has no answers, or for a scorer that no task has.
    """
    settings = store.settings
    check_scorer(scorer, settings["tasks"])
    figures: list[Figure] = []
    for task in settings["tasks"]:
        part: list[tuple[Cell, Metric]] = []
        for cell in store.cells():
            if cell.task == task and (records := answered(store, cell)):
                part += [(cell, metric) for metric in score(store, task, records, scorer)]
        figures += _compared([_figure(*each) for each in _with_changes(part, settings)], settings)
    if not figures:
        raise DataError(f"{store.folder} has no answers yet.")
    return figures


def answered(store: Store, cell: Cell) -> list[Record]:
    """The records of a cell that have an answer."""
    return [record for record in store.answers(cell).records.values() if "text" in record]


def score(store: Store, task: str, records: Sequence[Record], scorer: str) -> list[Metric]:
    """The metrics of a task's answers, and their time, memory and reliance.

    Raises `DataError` for records that do not fit the task.
    """
    benchmark = parse_task(task)
    chosen = scorer if scorer in benchmark.scorers else next(iter(benchmark.scorers))
    try:
        metrics = [*benchmark.metrics(records, chosen, store.material(task)), *running(records)]
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise DataError(
            f"The answers of {task} in {store.folder} cannot be scored: {first_line(error)}; run the evaluation again "
            "in another folder."
        ) from error
    return [metric for metric in metrics if len(metric.ids)]


def plain(settings: Settings) -> str:
    """The method that the others are compared with: plain decoding, else the first."""
    methods = settings["methods"]
    return "none" if "none" in methods else methods[0]


def baseline(cell: Cell, settings: Settings) -> Cell | None:
    """The cell that another one is compared with: plain decoding of the same model.

    Plain decoding itself is compared with that of the first model.
    """
    models = list(settings["models"])
    if cell.method != plain(settings):
        return cell._replace(method=plain(settings))
    return cell._replace(model=models[0]) if cell.model != models[0] else None


def _with_changes(metrics: list[tuple[Cell, Metric]], settings: Settings) -> list[tuple[Cell, Metric]]:
    """The metrics, and behind each share of right free answers what became of those of plain decoding."""
    first = {(cell, metric.split): metric for cell, metric in metrics if metric.name == RIGHT}
    listed = []
    for cell, metric in metrics:
        listed.append((cell, metric))
        before = first.get((cell._replace(method=plain(settings)), metric.split))
        if metric.name == RIGHT and before:
            listed += [(cell, change) for change in changes(before, metric)]
    return listed


def changes(before: Metric, after: Metric) -> list[Metric]:
    """Of the answers to the same questions: the shares that are right before only (spoilt) and after only (mended)."""
    hits = dict(zip(before.ids, before.top, strict=True))
    shared = [number for number, name in enumerate(after.ids) if name in hits]
    old, new = np.array([hits[after.ids[number]] for number in shared]), after.top[shared]
    ids, media = ([column[number] for number in shared] for column in (after.ids, after.media))
    common = replace(after, ids=ids, media=media, bottom=np.ones(len(shared)))
    return [
        replace(common, name="spoilt", top=np.asarray(old > new, dtype=np.float64), goal=LESS),
        replace(common, name="mended", top=np.asarray(new > old, dtype=np.float64), goal=MORE),
    ]


class FigureRow(NamedTuple):
    """The figures of one cell in a table, by metric; each of them has n entries."""

    cell: Cell
    n: int
    figures: dict[str, Figure]


class FigureTable(NamedTuple):
    """Metrics of one split whose figures have the same n in each cell. costs: they are time, memory or reliance.

    aside: plain decoding of every model is too often wrong for this split to count.
    """

    task: str
    split: str
    metrics: list[str]
    rows: list[FigureRow]
    costs: bool
    aside: bool = False

    @property
    def heading(self) -> str:
        """The split, and whether it does not count."""
        return f"{self.split} (does not count: plain is right in less than {COUNTS:.0%})" if self.aside else self.split


def figure_tables(figures: Iterable[Figure]) -> list[FigureTable]:
    """The tables of the figures, as the terminal and the page show them: for each task, what answers say, then costs.

    Metrics that follow from others are left out, and unknown answers where there are none.
    """
    by_metric: dict[tuple[str, str, str], list[Figure]] = {}
    for figure in figures:
        by_metric.setdefault((figure.cell.task, figure.metric.split, figure.metric.name), []).append(figure)
    groups: dict[tuple[str, str, bool, frozenset[tuple[Cell, int]]], list[list[Figure]]] = {}
    for (task, split, name), listed in by_metric.items():
        if name in ASIDE or (name == "unknown" and not any(figure.value for figure in listed)):
            continue
        entries = frozenset((figure.cell, figure.n) for figure in listed)
        groups.setdefault((task, split, name in COSTS, entries), []).append(listed)
    tables = [_table(task, split, costs, metrics) for (task, split, costs, _), metrics in groups.items()]
    order = list(dict.fromkeys(table.task for table in tables))
    return sorted(tables, key=lambda table: (order.index(table.task), table.costs))


def _table(task: str, split: str, costs: bool, metrics: list[list[Figure]]) -> FigureTable:
    rows: dict[Cell, FigureRow] = {}
    for figure in (figure for listed in metrics for figure in listed):
        row = rows.setdefault(figure.cell, FigureRow(figure.cell, figure.n, {}))
        row.figures[figure.metric.name] = figure
    names = [listed[0].metric.name for listed in metrics]
    return FigureTable(task, split, names, list(rows.values()), costs, _is_aside(rows.values()))


def _is_aside(rows: Iterable[FigureRow]) -> bool:
    """Whether a kind of free question does not count."""
    plain = [row.figures[RIGHT].value for row in rows if RIGHT in row.figures and row.cell.method == "none"]
    return bool(plain) and max(plain) < COUNTS


def rows(figures: Iterable[Figure]) -> list[dict[str, object]]:
    """The figures as flat JSON objects; nan becomes null."""
    flat = []
    for figure in figures:
        metric = figure.metric
        row: dict[str, object] = {**figure.cell._asdict(), "split": metric.split, "metric": metric.name}
        row |= {"unit": metric.unit, "value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
        if figure.comparison is not None:
            comparison = asdict(figure.comparison)
            # Stored files call the outcome a verdict.
            comparison["verdict"] = comparison.pop("outcome")
            row["comparison"] = _without_nan(comparison)
        flat.append(_without_nan(row))
    return flat


def _without_nan(row: Mapping[str, object]) -> dict[str, object]:
    return {key: None if isinstance(value, float) and isnan(value) else value for key, value in row.items()}


def _figure(cell: Cell, metric: Metric) -> Figure:
    return Figure(cell, metric, *interval(metric.top, metric.bottom, metric.media))


class _Pair(NamedTuple):
    figure: Figure
    first: Figure | None


def _compared(figures: list[Figure], settings: Settings) -> list[Figure]:
    """The figures of one task, with comparisons that are corrected for their number."""
    pairs = _pairs(figures, settings)
    level = LEVEL / max(1, sum(pair.first is not None for pair in pairs))
    comparisons = [compare(pair.first, pair.figure, level) if pair.first else None for pair in pairs]
    corrected = iter(holm([comparison.p for comparison in comparisons if comparison]))
    return [
        replace(pair.figure, comparison=_judged(pair.figure, comparison, next(corrected)))
        if comparison
        else pair.figure
        for pair, comparison in zip(pairs, comparisons, strict=True)
    ]


def _pairs(figures: list[Figure], settings: Settings) -> list[_Pair]:
    """Each figure with that of the baseline, where it is tested and there is one."""
    by_name = {(figure.cell, figure.metric.split, figure.metric.name): figure for figure in figures}
    pairs = []
    for figure in figures:
        other = baseline(figure.cell, settings) if _tested(figure.metric) else None
        pairs.append(_Pair(figure, by_name.get((other, figure.metric.split, figure.metric.name)) if other else None))
    return pairs


def _tested(metric: Metric) -> bool:
    return metric.goal != 0 and metric.unit == SHARE and metric.name not in UNTESTED


def compare(first: Figure, second: Figure, level: float = LEVEL) -> PairedComparison | None:
    """The second figure against the first, on the entries that both have; None where there are none.

    level: of the test for which `needed` is computed.
    """
    a, b = first.metric, second.metric
    index = {name: number for number, name in enumerate(a.ids)}
    both = [(index[name], number) for number, name in enumerate(b.ids) if name in index]
    if not both:
        return None
    old, new = map(list, zip(*both, strict=True))
    media = [b.media[number] for number in new]
    before, after = a.top[old], b.top[new]
    paired = paired_bootstrap((before, a.bottom[old]), (after, b.bottom[new]), media)
    if isnan(paired.difference):
        return None
    if b.binary:
        gained, lost = int((after > before).sum()), int((after < before).sum())
        p, needed = mcnemar(before > 0, after > 0), questions_needed(gained, lost, len(both), alpha=level)
    else:
        p, needed = paired.p, _needed(paired, len(both), level)
    return PairedComparison(first.cell, paired.difference, paired.low, paired.high, p, needed)


def _needed(paired: PairedDifference, n: int, level: float, power: float = 0.8) -> int | None:
    """Entries that would show the difference that was seen, by the width of its interval."""
    normal = NormalDist()
    error = (paired.high - paired.low) / (2 * normal.inv_cdf(0.975))
    if not paired.difference or not error:
        return None
    reach = (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)) * error / abs(paired.difference)
    return max(1, ceil(n * reach**2))


def _judged(figure: Figure, comparison: PairedComparison, corrected: float) -> PairedComparison:
    """The comparison with its corrected p and its outcome."""
    if corrected < LEVEL:
        outcome = BETTER if comparison.difference * figure.metric.goal > 0 else WORSE
        return replace(comparison, corrected=corrected, outcome=outcome)
    outcome = TOO_FEW if comparison.difference else SAME
    needed = None if comparison.needed is None else max(comparison.needed, figure.n + 1)
    return replace(comparison, corrected=corrected, outcome=outcome, needed=needed)
