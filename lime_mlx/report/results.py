"""What a run holds of each task: figures, answers, and what is missing."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from unicodedata import east_asian_width

from lime_mlx.errors import DataError, plain_text
from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.scorers.metrics import RIGHT
from lime_mlx.evaluate.statistics import interval
from lime_mlx.evaluate.store import Cell, Settings, Store
from lime_mlx.evaluate.summary import Figure, summarise
from lime_mlx.evaluate.tasks import Task, parse_task

# The metrics that count invented objects, and those of the same split that count objects of the picture.
HALLUCINATION, COVERAGE = ("CHAIR_I", "CHAIR"), ("recall", "Cover")
QUESTIONS, CAPTIONS = "questions", "captions"
# Columns of the short name of a model and of a method.
MODEL, METHOD = 34, 18
Records = Mapping[str, Record]


class Share(NamedTuple):
    """A ratio with its 95 % interval by picture."""

    value: float
    low: float
    high: float


class Errors(NamedTuple):
    """Of a question: wrong (1 or 0) of 1. Of a caption: invented objects of all objects that it names."""

    wrong: float
    total: float


@dataclass(frozen=True)
class TaskResult:
    """One task of a run.

    questions: how many there are. answers, failed: the records of each cell by id, without cells that have none.
    """

    task: str
    questions: int
    figures: list[Figure]
    answers: dict[Cell, Records]
    failed: dict[Cell, Records]

    @cached_property
    def benchmark(self) -> Task:
        return parse_task(self.task)

    @cached_property
    def errors(self) -> dict[str, dict[Cell, dict[str, Errors]]]:
        """The errors of answers to questions and of captions, by kind, cell and id."""
        errors: dict[str, dict[Cell, dict[str, Errors]]] = {}
        for figure in self.figures:
            metric = figure.metric
            if metric.name in ("accuracy", "aAcc", RIGHT):
                kind, wrong = QUESTIONS, metric.bottom - metric.top
            elif metric.name in HALLUCINATION:
                kind, wrong = CAPTIONS, metric.top
            else:
                continue
            pairs = (Errors(*map(float, pair)) for pair in zip(wrong, metric.bottom, strict=True))
            errors.setdefault(kind, {}).setdefault(figure.cell, {}).update(zip(metric.ids, pairs, strict=True))
        return errors

    @property
    def rate(self) -> str | None:
        """What measures hallucination: the share of invented objects, else that of wrong answers."""
        if CAPTIONS in self.errors:
            return next(figure.metric.name for figure in self.figures if figure.metric.name in HALLUCINATION)
        return "wrong answers" if self.errors else None

    @cached_property
    def hallucination(self) -> dict[Cell, Share]:
        """The rate of each cell, over all splits."""
        rates = {}
        for cell, errors in self.errors.get(CAPTIONS, self.errors.get(QUESTIONS, {})).items():
            wrong, total = zip(*errors.values(), strict=True)
            media = [self.answers[cell][name]["medium"] for name in errors]
            if sum(total):
                rates[cell] = Share(sum(wrong) / sum(total), *interval(wrong, total, media))
        return rates

    def figure(self, cell: Cell, name: str, split: str = "all") -> Figure | None:
        """One figure; None where there is none."""
        return next(
            (f for f in self.figures if (f.cell, f.metric.name, f.metric.split) == (cell, name, split)),
            None,
        )

    def scale(self, unit: str) -> tuple[str, float]:
        """The unit in which a page shows figures of `unit`, and what their numbers are multiplied by."""
        if unit == "GB" and all(f.value < 1 for f in self.figures if f.metric.unit == "GB"):
            return "MB", 1e3
        return {"%": ("%", 100.0), "s/token": ("ms/token", 1e3)}.get(unit, (unit, 1.0))

    def splits(self, *names: str) -> list[str]:
        """The splits that have one of these metrics."""
        return list(dict.fromkeys(f.metric.split for f in self.figures if f.metric.name in names))


class Names:
    """The short names of models and methods. The settings have the full ones."""

    def __init__(self, settings: Settings) -> None:
        last = {model: model.rstrip("/").rsplit("/", 1)[-1] for model in settings["models"]}
        count = Counter(last.values())
        self.models = _short({model: name if count[name] == 1 else model for model, name in last.items()}, MODEL)
        self.methods = _short({method: method for method in settings["methods"]}, METHOD)

    def of(self, cell: Cell, with_model: bool) -> str:
        """The name of a cell. with_model: where there are several models."""
        method, model = self.methods[cell.method], self.models[cell.model]
        return f"{model} · {method}" if with_model else method

    def all(self, cells: Iterable[Cell], with_model: bool) -> str:
        """The names of some cells, by model."""
        methods: dict[str, list[str]] = {}
        for cell in cells:
            methods.setdefault(self.models[cell.model], []).append(self.methods[cell.method])
        return "; ".join(
            f"{model} · {', '.join(names)}" if with_model else ", ".join(names) for model, names in methods.items()
        )


def _short(names: Mapping[str, str], columns: int) -> dict[str, str]:
    """The names without their middle where they are long, and with a number where they are then the same."""
    short = {key: clipped(plain_text(name), columns) for key, name in names.items()}
    count = Counter(short.values())
    return {
        key: name if count[name] == 1 else f"{clipped(name, columns - 4)} #{number}"
        for number, (key, name) in enumerate(short.items(), 1)
    }


def clipped(name: str, columns: int) -> str:
    """The name, or as much of its both ends as fills so many columns; Chinese characters and the like fill two."""
    wide = [1 + (east_asian_width(letter) in "WF") for letter in name]
    if sum(wide) <= columns:
        return name
    kept = [False] * len(name)
    for step in range(len(name)):
        index = step // 2 if step % 2 == 0 else len(name) - 1 - step // 2
        columns -= wide[index]
        if columns < 1:
            break
        kept[index] = True
    first = kept.index(False)
    last = len(name) - kept[::-1].index(False)
    return f"{name[:first]}…{name[last:]}"


def results(store: Store, scorer: str) -> list[TaskResult]:
    """The tasks that have records. Raises `DataError` where there are none, or no task has this scorer."""
    settings = store.settings
    records = {cell: stored for cell in store.cells() if (stored := store.answers(cell).records)}
    if not records:
        raise DataError(f"{store.folder} has no answers yet.")
    answered = any("text" in record for stored in records.values() for record in stored.values())
    figures = summarise(store, scorer) if answered else []
    return [
        _result(task, stored["questions"], figures, part)
        for task, stored in settings["tasks"].items()
        if (part := {cell: by_id for cell, by_id in records.items() if cell.task == task})
    ]


def _result(task: str, questions: int, figures: Iterable[Figure], records: Mapping[Cell, Records]) -> TaskResult:
    answers = {cell: {name: r for name, r in by_id.items() if "text" in r} for cell, by_id in records.items()}
    failed = {cell: {name: r for name, r in by_id.items() if "text" not in r} for cell, by_id in records.items()}
    part = [figure for figure in figures if figure.cell.task == task]
    return TaskResult(task, questions, part, _not_empty(answers), _not_empty(failed))


def _not_empty(records: Mapping[Cell, Records]) -> dict[Cell, Records]:
    return {cell: by_id for cell, by_id in records.items() if by_id}


def remarks(results: Iterable[TaskResult], settings: Settings, names: Names) -> tuple[list[str], list[str]]:
    """What is not in the figures: failed answers and questions without an answer; and cells without any answer."""
    by_task = {result.task: result for result in results}
    failures, unfinished, silent = [], [], []
    for task, stored in settings["tasks"].items():
        result = by_task.get(task) or TaskResult(task, stored["questions"], [], {}, {})
        cells = [Cell(model, method, task) for model in settings["models"] for method in settings["methods"]]
        failures += _failures(result, cells, names)
        unfinished += _unfinished(result, cells, names)
        silent += _silent(result, cells, settings, names)
    return [*failures, *unfinished], silent


def _failures(result: TaskResult, cells: Iterable[Cell], names: Names) -> list[str]:
    lines = []
    for cell in cells:
        if failed := result.failed.get(cell):
            count, who = f"{len(failed):,} of {result.questions:,}", names.of(cell, with_model=True)
            reason = next(iter(failed.values())).get("error", "")
            lines.append(f"{result.task}: {count} answers of {who} failed, such as: {reason}")
    return lines


def _unfinished(result: TaskResult, cells: Iterable[Cell], names: Names) -> list[str]:
    """Of cells with some answers: how many questions have none."""
    lacking = {}
    for cell in cells:
        recorded = len(result.answers.get(cell, ())) + len(result.failed.get(cell, ()))
        if 0 < recorded < result.questions:
            lacking[cell] = result.questions - recorded
    if not lacking:
        return []
    least, most = min(lacking.values()), max(lacking.values())
    count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    who = names.all(lacking, with_model=True)
    return [f"{result.task}: {count} of {result.questions:,} questions have no answer yet of {who}."]


def _silent(result: TaskResult, cells: list[Cell], settings: Settings, names: Names) -> list[str]:
    """The cells without any answer; a model of which this holds for all methods is named alone."""
    without = [cell for cell in cells if cell not in result.answers and cell not in result.failed]
    if not without:
        return []
    models = [model for model in settings["models"] if all(cell in without for cell in cells if cell.model == model)]
    rest = names.all((cell for cell in without if cell.model not in models), with_model=True)
    who = "; ".join([*(names.models[model] for model in models), *filter(None, [rest])])
    return [f"{result.task}: no answers of {who}."]


def data_folder(settings: Settings) -> Path | None:
    return Path(settings["data"]) if settings["data"] else None
