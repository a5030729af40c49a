"""The folder of a run: its settings, and the answers of each cell as JSON lines, so that a kill loses nothing.

settings.json; answers/<model>/<method>/<task>.jsonl and, while several processes run, <task>.rank-1.jsonl and so on
beside it; material/<task>.json, what the scores need beside the answers.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from math import isfinite
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

from filelock import FileLock, Timeout

from lime_mlx.errors import DataError, os_reason, short
from lime_mlx.evaluate.records import Material, Record
from lime_mlx.files import parse_json, read_regular, write

from .tasks import Item

# What a record of a run has of its question.
QUESTION = ("medium", "split", "prompt", "label", "truth")
SETTINGS, ANSWERS, MATERIAL = "settings.json", "answers", "material"


class TaskSettings(TypedDict):
    """The number of questions of a task, and their digest."""

    questions: int
    sha256: str


class Settings(TypedDict):
    """What was run. The keys are those of settings.json.

    common: holds for every answer and must not change. models: the fingerprint of each. data: the folder of data, which
    may change.
    """

    common: dict[str, str | int | bool | None]
    models: dict[str, str]
    methods: list[str]
    tasks: dict[str, TaskSettings]
    data: str | None


class Cell(NamedTuple):
    """A model, a method and a task, each as it was specified; answers belong to a cell."""

    model: str
    method: str
    task: str


class Answers:
    """The records of one cell, by id. An appended record is on the disk when `append` returns.

    rank: of the process, where several run; each appends to a file of its own.
    """

    def __init__(self, path: Path, rank: int | None = None) -> None:
        self.path, self.file = path, path if rank is None else path.with_suffix(f".rank-{rank}.jsonl")
        self.records: dict[str, Record] = {}
        for file in (path, *self._parts()):
            for record in read_records(file):
                self.add(record)

    def _parts(self) -> list[Path]:
        """The files of single processes."""
        return sorted(self.path.parent.glob(f"{self.path.stem}.rank-*.jsonl"))

    def add(self, record: Record) -> None:
        """Take over a record, unless its question has an answer. An answer replaces a failure."""
        present = self.records.get(record["id"])
        if present is None or "error" in present:
            self.records[record["id"]] = record

    def lacking(self, items: Iterable[Item]) -> list[Item]:
        """The questions without an answer; a failure is no answer."""
        return [item for item in items if "text" not in self.records.get(item.id, {})]

    def append(self, record: Record) -> None:
        """Write one record to the end of the file. A line that a kill left incomplete is removed first."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer: closing would write what is left of one behind the place where the file was cut.
        with self.file.open("ab+", buffering=0) as file:
            _drop_incomplete_line(file)
            start = file.tell()
            try:
                rest = memoryview(json.dumps(record).encode() + b"\n")
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError as error:
                os.truncate(self.file, start)
                raise DataError(f"{self.file} cannot be written: {os_reason(error)}.") from error
        self.add(record)

    def settle(self, order: Iterable[str]) -> None:
        """Write all records into one file, in this order of their ids, and remove the files of single processes."""
        records, parts = [self.records[name] for name in order if name in self.records], self._parts()
        if records and (parts or records != list(read_records(self.path))):
            write(self.path, "".join(json.dumps(record) + "\n" for record in records))
        for part in parts:
            part.unlink(missing_ok=True)


def _drop_incomplete_line(file: FileIO) -> None:
    """Truncate a file after its last complete line, and go to its end."""
    size = file.seek(0, os.SEEK_END)
    end = size
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        file.truncate(end)
    file.seek(0, os.SEEK_END)


def read_records(file: Path) -> Iterator[Record]:
    """The records of a file, without a last line that a kill left incomplete. Raises `DataError` for a damaged line."""
    if not file.exists():
        return
    if not file.is_file():
        raise DataError(f"{file} is no ordinary file; remove it, and run the evaluation again.")
    *lines, _incomplete = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line)
            _check_record(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{file}:{number}: this line is no answer; delete it, and run the evaluation again."
            ) from None
        yield cast(Record, record)


def _check_record(record: Record) -> None:
    """Raises `ValueError` or `KeyError` for what is no record: an id, and an answer or an error."""
    values: Mapping[str, object] = {**record}
    texts = [values["id"], values["error"] if "error" in values else values["text"]]
    texts += [values[key] for key in QUESTION if key != "truth" and values.get(key) is not None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError
    tokens = record.get("tokens", [])
    if not all(isinstance(token, int) for token in tokens) or not _is_number_list(record.get("reliance")):
        raise ValueError
    steps = values.get("steps", 0)
    if not isinstance(steps, int) or steps < 0 or not _is_truth(values.get("truth")):
        raise ValueError
    if values.get("seconds") is not None and not {"memory", "steps"} <= values.keys():
        raise ValueError
    if not _is_number_list([record.get("seconds"), record.get("memory"), record.get("margin")]):
        raise ValueError


def _is_truth(value: object) -> bool:
    """Whether a value is a `Truth`."""
    lists = list(value.values()) if isinstance(value, Mapping) else [value or []]
    return all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)


def _is_number_list(values: object) -> bool:
    """Whether values are a list of finite numbers, with None in it or in its place."""
    if values is None:
        return True
    return isinstance(values, list) and all(
        value is None or (isinstance(value, int | float) and isfinite(value)) for value in values
    )


def _check_settings(stored: Mapping[str, object]) -> None:
    """Raises `ValueError` for settings of another form."""
    kinds = {"common": dict, "models": dict, "methods": list, "tasks": dict}
    if not all(isinstance(stored[key], kind) for key, kind in kinds.items()):
        raise ValueError
    tasks, models, methods = (stored[key] for key in ("tasks", "models", "methods"))
    assert isinstance(tasks, dict) and isinstance(models, dict) and isinstance(methods, list)
    texts = [*methods, *models.values(), *([stored["data"]] if stored["data"] is not None else [])]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError
    for task in tasks.values():
        if not isinstance(task["questions"], int) or not isinstance(task["sha256"], str):
            raise ValueError


class Store:
    """A run's folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @contextmanager
    def locked(self, rank: int = 0) -> Iterator[None]:
        """Hold the lock of the folder; it ends with the process. Raises `DataError` while another process holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f".lock-{rank}"
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"Another lime-mlx (process {file.read_text().strip() or 'unknown'}) is at work in {self.folder}; "
                "wait for it, or choose another folder."
            ) from None
        try:
            file.write_text(str(os.getpid()))
            yield
        finally:
            lock.release()

    @contextmanager
    def removed_if_unused(self) -> Iterator[None]:
        """Remove what was written inside, where an error ends that before there is any answer in a new folder."""
        before = self.folder.exists()
        try:
            yield
        except Exception:
            if not before and not (self.folder / ANSWERS).exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def settings(self) -> Settings:
        """What was run. Raises `DataError` where the folder holds no run."""
        try:
            stored = parse_json(read_regular(self.folder / SETTINGS))
            _check_settings(stored)
            return {
                "common": stored["common"],
                "models": stored["models"],
                "methods": stored["methods"],
                "tasks": stored["tasks"],
                "data": stored["data"],
            }
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{self.folder} holds no evaluation: no {SETTINGS} in it that can be read.") from None

    def check(self, settings: Settings) -> None:
        """Raise `DataError`, with the difference, where answers under these settings would not be comparable."""
        if not (self.folder / SETTINGS).exists():
            if (self.folder / ANSWERS).exists():
                raise DataError(f"{self.folder} has answers but no {SETTINGS}; choose another --output-dir.")
            return
        before = self.settings
        old, new = before["common"], settings["common"]
        differences = [_changed(name, old.get(name), new.get(name)) for name in old.keys() | new.keys()]
        differences += _changes("model", before["models"], settings["models"])
        differences += _changes("task", before["tasks"], settings["tasks"])
        if any(differences):
            raise DataError(
                f"{self.folder} has answers under other settings: {'; '.join(sorted(filter(None, differences)))}. "
                "Choose another --output-dir, or the same settings."
            )

    def begin(self, settings: Settings) -> None:
        """Keep the settings, after `check`; those of an earlier run stay, with further models, methods and tasks."""
        self.check(settings)
        if (self.folder / SETTINGS).exists():
            before = self.settings
            settings = {
                "common": settings["common"],
                "models": {**before["models"], **settings["models"]},
                "methods": list(dict.fromkeys([*before["methods"], *settings["methods"]])),
                "tasks": {**before["tasks"], **settings["tasks"]},
                "data": settings["data"] or before["data"],
            }
        write(self.folder / SETTINGS, json.dumps(settings, indent=2) + "\n")

    def keep(self, task: str, material: Material) -> None:
        """Keep what the scores of a task need."""
        write(self.folder / MATERIAL / f"{slug(task)}.json", json.dumps(material))

    def material(self, task: str) -> Material:
        """What the scores of a task need. Raises `DataError` where it cannot be read."""
        file = self.folder / MATERIAL / f"{slug(task)}.json"
        try:
            material = parse_json(read_regular(file))
        except (OSError, ValueError):
            material = None
        if not isinstance(material, dict):
            raise DataError(f"{file} is missing or damaged; run the evaluation once more to write it.")
        return material

    def answers(self, cell: Cell, rank: int | None = None) -> Answers:
        """The answers of a cell. rank: of the process, where several run. Raises `DataError` for a damaged record."""
        model, method, task = map(slug, cell)
        answers = Answers(self.folder / ANSWERS / model / method / f"{task}.jsonl", rank)
        for name, record in answers.records.items():
            if absent := [key for key in QUESTION if key not in record]:
                raise DataError(
                    f"{answers.path}: the record {short(name)} has no {absent[0]}; delete its line, and run the "
                    "evaluation again."
                )
        return answers

    def cells(self) -> Iterator[Cell]:
        """The cells of the run, with and without answers."""
        settings = self.settings
        for model in settings["models"]:
            for task in settings["tasks"]:
                for method in settings["methods"]:
                    yield Cell(model, method, task)


def slug(name: str) -> str:
    """A file name for a spec: readable, and different for specs that differ only in characters that it replaces."""
    plain = re.sub(r"[^A-Za-z0-9.=-]+", "_", name).strip("._") or "_"
    if plain == name:
        return name
    return f"{plain[-60:]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _changes(kind: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """The differences of what both have."""
    return [_changed(f"{name} ({kind})", old[name], new[name]) for name in old.keys() & new.keys()]


def _changed(what: str, old: object, new: object) -> str:
    return "" if old == new else f"{what} was {_short(old)} and is {_short(new)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
