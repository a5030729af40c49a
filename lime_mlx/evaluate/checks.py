"""What a run is to do, checked before a model is loaded or a file is written."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from lime_mlx._version import __version__
from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import load_processor, open_model
from lime_mlx.errors import DataError, MethodError
from lime_mlx.methods import Method, parse_method
from lime_mlx.prompt import NOUNS
from lime_mlx.support.store import calibrated, identity

from .records import Material
from .store import Settings
from .tasks import Item, Task, parse_task


@dataclass(frozen=True)
class RunConfig:
    """What is to be run: models, methods and tasks by their specs.

    data: the folder of data. limit: pictures or sounds of each task. seed: of their draw. reliance: recorded for every
    token. skip_missing: leave out questions whose picture or sound is missing. shared: prefill the common part of the
    questions about one picture only once.
    """

    models: Sequence[str]
    methods: Sequence[str]
    tasks: Sequence[str]
    data: Path | None = None
    limit: int | None = None
    seed: int = 0
    reliance: bool = True
    skip_missing: bool = False
    shared: bool = True


class CheckedModel(NamedTuple):
    """The fingerprint of a model, and the media that it takes: "image", "audio"."""

    fingerprint: str
    takes: frozenset[str]


@dataclass(frozen=True)
class Workload:
    """The methods and tasks of a run by their specs, and its questions.

    questions: all of each task. available: those with a picture or sound that exists. materials: what the scorers of
    each task need. settings: what the run's folder keeps. notes: what was left out.
    """

    methods: Mapping[str, Method]
    tasks: Mapping[str, Task]
    questions: Mapping[str, list[Item]]
    available: Mapping[str, list[Item]]
    materials: Mapping[str, Material]
    settings: Settings
    notes: list[str] = field(default_factory=list)


def prepare(config: RunConfig) -> Workload:
    """The workload of a run. Hub repositories are downloaded; no weights are read into memory.

    Raises the errors of `LimeError` for everything that is wrong: methods, tasks, missing files, models that cannot be
    used, and methods that do not fit a model.
    """
    methods = {spec: parse_method(spec) for spec in dict.fromkeys(config.methods)}
    tasks = {spec: parse_task(spec) for spec in dict.fromkeys(config.tasks)}
    task_media = {task.medium for task in tasks.values()}
    for spec, method in methods.items():
        if not method.media & task_media:
            nouns = " and ".join(NOUNS[kind][1] for kind in sorted(method.media))
            raise MethodError(f"The method {spec} works with {nouns} only, and no task has any; leave it out.")
    questions = {spec: task.items(config.data, config.limit, config.seed) for spec, task in tasks.items()}
    notes: list[str] = []
    available: dict[str, list[Item]] = {}
    for spec, items in questions.items():
        check_ids(spec, items)
        available[spec], note = select_available(config, tasks[spec], items)
        notes += [note] if note else []
    materials = {spec: task.material(config.data) for spec, task in tasks.items()}
    models = {name: check_model(name, methods) for name in dict.fromkeys(config.models)}
    if not any(model.takes & task_media for model in models.values()):
        raise DataError("None of the models takes what the tasks ask about; choose another model or task.")
    settings: Settings = {
        "common": {
            "lime-mlx": __version__,
            "mlx": version("mlx"),
            "limit": config.limit,
            "seed": config.seed,
            "reliance": config.reliance,
            "decoding": "greedy",
        },
        "models": {name: model.fingerprint for name, model in models.items()},
        "methods": list(methods),
        "tasks": {spec: {"questions": len(items), "sha256": digest(items)} for spec, items in questions.items()},
        "data": None if config.data is None else str(config.data.resolve()),
    }
    return Workload(methods, tasks, questions, available, materials, settings, notes)


def check_model(name: str, methods: Mapping[str, Method]) -> CheckedModel:
    """Build a model without weights in memory, and prepare the methods for it.

    Raises `CheckpointError` for a folder that cannot be used, and `MethodError` for a method that does not fit it.
    """
    folder = locate(name)
    model, _ = open_model(folder)
    takes = load_processor(folder).takes
    model.config.update(calibrated(model.config, folder))
    for spec, method in methods.items():
        try:
            method.prepare(model)
        except MethodError as error:
            raise MethodError(f"The method {spec} does not fit {name}: {error}") from error
    return CheckedModel(identity(folder), takes)


def select_available(config: RunConfig, task: Task, items: list[Item]) -> tuple[list[Item], str]:
    """The questions whose pictures or sounds are there, and a note on the others, "" where there are none.

    Raises `DataError` for missing ones, unless they may be skipped and some others are there.
    """
    missing = set(missing_media(task, config.data, items))
    if not missing:
        return items, ""
    listed = [medium for medium in dict.fromkeys(item.medium for item in items) if medium in missing]
    noun = NOUNS[task.medium][len(listed) != 1]
    what = f"{len(listed)} {noun} of {task.name} missing in {config.data}, such as {', '.join(listed[:3])}"
    if not config.skip_missing:
        raise DataError(f"{what}: lime-mlx data get {task.name} brings them, --skip-missing leaves them out.")
    kept = [item for item in items if item.medium not in missing]
    if not kept:
        raise DataError(f"{what}: nothing is left to ask about.")
    return kept, f"Left out: {what}."


def missing_media(task: Task, data: Path | None, items: Iterable[Item]) -> list[str]:
    """The pictures or sounds that are files, and are missing."""
    missing = []
    for medium in dict.fromkeys(item.medium for item in items):
        source = task.source(data, medium)
        if isinstance(source, Path) and not source.is_file():
            missing.append(medium)
    return missing


def check_ids(spec: str, items: Sequence[Item]) -> None:
    """Raise `DataError` for a task without questions, or with two of the same id."""
    if not items:
        raise DataError(f"{spec} has no questions.")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"{spec} has two questions under the id {item.id}.")
        seen.add(item.id)


def digest(items: Sequence[Item]) -> str:
    """What tells the questions of a task from others; a history counts where there is one."""
    told = []
    for item in items:
        history = {"history": [turn[:2] for turn in item.history]} if item.history else {}
        told.append({key: value for key, value in asdict(item).items() if key != "history"} | history)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
