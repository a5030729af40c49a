"""What a run holds of each task: figures, answers, and what is lacking."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import east_asian_width

from lime_mlx.errors import DataError
from lime_mlx.evaluate.statistics import interval
from lime_mlx.evaluate.store import Cell, Store
from lime_mlx.evaluate.summary import Figure, summarise
from lime_mlx.evaluate.tasks import Task, parse_task

# The metrics that count what an answer made up, and in the same split what it found.
HALLUCINATION, COVERAGE = ("CHAIR_I", "CHAIR"), ("recall", "cover")
QUESTIONS, CAPTIONS = "questions", "captions"
# Columns of a name, of a model and of a method.
MODEL, METHOD = 34, 18


class Share(NamedTuple):
    """A ratio with its 95 % interval by picture."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """One task of a run.

    answers, failed: the records of each cell by id; asked: how many questions there are. A cell without records is in
    neither.
    """

    task: str
    asked: int
    figures: list[Figure]
    answers: dict[Cell, dict[str, dict]]
    failed: dict[Cell, dict[str, dict]]

    @cached_property
    def bench(self) -> Task:
        return parse_task(self.task)

    @cached_property
    def errors(self) -> dict[str, dict[Cell, dict[str, tuple[float, float]]]]:
        """Of questions (wrong, 1) and of captions (objects made up, objects named), by cell and id."""
        found: dict[str, dict[Cell, dict[str, tuple[float, float]]]] = {}
        for figure in self.figures:
            metric = figure.metric
            if metric.name == "accuracy":
                kind, top = QUESTIONS, metric.bottom - metric.top
            elif metric.name in HALLUCINATION:
                kind, top = CAPTIONS, metric.top
            else:
                continue
            pairs = zip(map(float, top), map(float, metric.bottom), strict=True)
            found.setdefault(kind, {}).setdefault(figure.cell, {}).update(zip(metric.ids, pairs, strict=True))
        return found

    @property
    def rate(self) -> str | None:
        """What hallucination is measured by: the share of made-up objects, else that of wrong answers."""
        if CAPTIONS in self.errors:
            return next(figure.metric.name for figure in self.figures if figure.metric.name in HALLUCINATION)
        return "wrong answers" if self.errors else None

    @cached_property
    def hallucination(self) -> dict[Cell, Share]:
        """Over all splits."""
        found = {}
        for cell, counted in self.errors.get(CAPTIONS, self.errors.get(QUESTIONS, {})).items():
            top, bottom = (sum(column) for column in zip(*counted.values(), strict=True))
            media = [self.answers[cell][name]["medium"] for name in counted]
            if bottom:
                found[cell] = Share(top / bottom, *interval(*zip(*counted.values(), strict=True), media))
        return found

    def figure(self, cell: Cell, name: str, split: str = "all") -> Figure | None:
        return next(
            (f for f in self.figures if (f.cell, f.metric.name, f.metric.split) == (cell, name, split)),
            None,
        )

    def scale(self, unit: str) -> tuple[str, float]:
        """What a unit is shown in, and by what its numbers are multiplied."""
        if unit == "GB" and all(f.value < 1 for f in self.figures if f.metric.unit == "GB"):
            return "MB", 1e3
        return {"%": ("%", 100.0), "s/token": ("ms/token", 1e3)}.get(unit, (unit, 1.0))

    def splits(self, *names: str) -> list[str]:
        """The splits that have one of these metrics."""
        return list(dict.fromkeys(f.metric.split for f in self.figures if f.metric.name in names))


class Names:
    """What cells are called where there is little room; in full they are in the settings."""

    def __init__(self, settings: Mapping[str, Any]):
        last = {model: model.rstrip("/").rsplit("/", 1)[-1] for model in settings["models"]}
        often = Counter(last.values())
        self.models = _own({model: name if often[name] == 1 else model for model, name in last.items()}, MODEL)
        self.methods = _own({method: method for method in settings["methods"]}, METHOD)

    def of(self, cell: Cell, several: bool) -> str:
        """several: whether there are models to tell apart."""
        method, model = self.methods[cell.method], self.models[cell.model]
        return f"{model} · {method}" if several else method

    def all(self, cells: Iterable[Cell], several: bool) -> str:
        """Some cells, by model."""
        methods: dict[str, list[str]] = {}
        for cell in cells:
            methods.setdefault(self.models[cell.model], []).append(self.methods[cell.method])
        return "; ".join(f"{model} · {', '.join(own)}" if several else ", ".join(own) for model, own in methods.items())


def _own(names: Mapping[str, str], columns: int) -> dict[str, str]:
    """The names without their middle where they are long; numbered where they are then the same."""
    short = {key: clipped(name, columns) for key, name in names.items()}
    often = Counter(short.values())
    return {
        key: name if often[name] == 1 else f"{clipped(name, columns - 4)} #{place}"
        for place, (key, name) in enumerate(short.items(), 1)
    }


def clipped(name: str, columns: int) -> str:
    """The name, or as much of its both ends as fills so many columns; Chinese characters and the like fill two."""
    wide = [1 + (east_asian_width(letter) in "WF") for letter in name]
    if sum(wide) <= columns:
        return name
    kept = [False] * len(name)
    for step in range(len(name)):
        place = step // 2 if step % 2 == 0 else len(name) - 1 - step // 2
        columns -= wide[place]
        if columns < 1:
            break
        kept[place] = True
    first = kept.index(False)
    last = len(name) - kept[::-1].index(False)
    return f"{name[:first]}…{name[last:]}"


def results(store: Store, scorer: str) -> list[Result]:
    """The tasks that have records. Raises `DataError` where there are none, or no task has this scorer."""
    settings, records = store.settings, {}
    for cell in store.cells():
        if known := store.answers(cell).records:
            records[cell] = known
    if not records:
        raise DataError(f"{store.folder} has no answers yet.")
    figures = summarise(store, scorer) if any("text" in r for _, r in _all(records)) else []
    found = []
    for task, asked in settings["tasks"].items():
        own = {cell: known for cell, known in records.items() if cell.task == task}
        if own:
            answers = {cell: {name: r for name, r in known.items() if "text" in r} for cell, known in own.items()}
            failed = {cell: {name: r for name, r in known.items() if "text" not in r} for cell, known in own.items()}
            part = [figure for figure in figures if figure.cell.task == task]
            found.append(Result(task, asked["questions"], part, _some(answers), _some(failed)))
    return found


def _all(records: Mapping[Cell, Mapping[str, dict]]) -> Iterator[tuple[Cell, dict]]:
    return ((cell, record) for cell, known in records.items() for record in known.values())


def _some(records: dict[Cell, dict]) -> dict[Cell, dict]:
    return {cell: known for cell, known in records.items() if known}


def remarks(found: list[Result], settings: Mapping[str, Any], names: Names) -> tuple[list[str], list[str]]:
    """What is not in the figures: failed answers and questions not answered yet; and cells without any answer."""
    failures, unfinished, silent = [], [], []
    models, methods = settings["models"], settings["methods"]
    for task, asked in settings["tasks"].items():
        result = next((result for result in found if result.task == task), None)
        total, lacking, without = asked["questions"], {}, []
        for cell in (Cell(model, method, task) for model in models for method in methods):
            answers, failed = (part.get(cell, {}) for part in ((result.answers, result.failed) if result else ({}, {})))
            if failed:
                reason = next(iter(failed.values())).get("error", "")
                who = names.of(cell, several=True)
                failures.append(f"{task}: {len(failed):,} of {total:,} answers of {who} failed, such as: {reason}")
            if not answers and not failed:
                without.append(cell)
            elif total > len(answers) + len(failed):
                lacking[cell] = total - len(answers) - len(failed)
        if lacking:
            least, most = min(lacking.values()), max(lacking.values())
            count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            who = names.all(lacking, several=True)
            unfinished.append(f"{task}: {count} of {total:,} questions have no answer yet of {who}.")
        if without:
            whole = [model for model in models if all(Cell(model, method, task) in without for method in methods)]
            rest = names.all((cell for cell in without if cell.model not in whole), several=True)
            who = "; ".join([*(names.models[model] for model in whole), *filter(None, [rest])])
            silent.append(f"{task}: no answers of {who}.")
    return [*failures, *unfinished], silent


def data_folder(settings: Mapping[str, Any]) -> Path | None:
    return Path(settings["data"]) if settings["data"] else None
