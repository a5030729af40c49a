"""The folder of a run: its settings, and the answers of each cell as JSON lines, of which a kill loses nothing.

settings.json; answers/<model>/<method>/<task>.jsonl and, while several processes run, <task>.rank-1.jsonl and so on
beside it; material/<task>.json, what the scores need beside the answers.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lime_mlx.errors import DataError
from lime_mlx.files import write

from .tasks import Item

SETTINGS, ANSWERS, MATERIAL = "settings.json", "answers", "material"
# Common settings hold for every answer and must not change; where the data are may.
KEYS = ("common", "models", "methods", "tasks", "data")


class Cell(NamedTuple):
    """Which answers: of a model, by a method, to a task; each as it was specified."""

    model: str
    method: str
    task: str


class Answers:
    """The records of one cell, by id. Appended ones are on the disk when `append` returns."""

    def __init__(self, path: Path, rank: int | None = None):
        self.path, self.own = path, path if rank is None else path.with_suffix(f".rank-{rank}.jsonl")
        self.records: dict[str, dict] = {}
        for file in (path, *sorted(path.parent.glob(f"{path.stem}.rank-*.jsonl"))):
            for record in read(file):
                self.take(record)

    def take(self, record: dict) -> None:
        """Keep a record, unless there is an answer under its id; an answer takes the place of a failure."""
        known = self.records.get(record["id"])
        if known is None or "error" in known:
            self.records[record["id"]] = record

    def lacking(self, items: Iterable[Item]) -> list[Item]:
        """The questions that have no answer yet, or a failure."""
        return [item for item in items if "text" not in self.records.get(item.id, {})]

    def append(self, record: dict) -> None:
        """Write one record to the end of the own file. A torn line that a kill left there is cut off first."""
        self.own.parent.mkdir(parents=True, exist_ok=True)
        with self.own.open("ab+") as file:
            _cut(file)
            start = file.tell()
            try:
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.own, start)
                raise
        self.take(record)

    def settle(self, order: Iterable[str]) -> None:
        """Write all records into one file, in this order of their ids, and remove those of the single processes."""
        known = [self.records[name] for name in order if name in self.records]
        parts = list(self.path.parent.glob(f"{self.path.stem}.rank-*.jsonl"))
        if known and (parts or known != list(read(self.path))):
            write(self.path, "".join(json.dumps(record) + "\n" for record in known))
        for part in parts:
            part.unlink(missing_ok=True)


def _cut(file: Any) -> None:
    """Truncate a file behind its last whole line, and go to its end."""
    size = file.seek(0, os.SEEK_END)
    end = size
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        file.truncate(end)
    file.seek(0, os.SEEK_END)


def read(file: Path) -> Iterator[dict]:
    """The records of a file; a last line without its end was torn by a kill and is left out. Raises `DataError`."""
    if not file.exists():
        return
    *lines, _torn = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record["id"], str) or not ("error" in record or isinstance(record["text"], str)):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{file}:{number}: this line is no answer; delete it, and run the evaluation again."
            ) from None
        yield record


class Store:
    """A run's folder."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)

    @contextmanager
    def locked(self, rank: int = 0) -> Iterator[None]:
        """Refuse a second run of this folder while the first is at work; the lock ends with its process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".lock-{rank}").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise DataError(
                    f"Another lime-mlx (process {file.read().strip() or 'unknown'}) is at work in {self.folder}; "
                    "wait for it, or choose another folder."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    @property
    def settings(self) -> dict[str, Any]:
        """What was run. Raises `DataError` where the folder holds no run."""
        try:
            settings = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
            return {name: settings[name] for name in KEYS}
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{self.folder} holds no evaluation: no {SETTINGS} in it that can be read.") from None

    def begin(self, settings: dict[str, Any]) -> None:
        """Keep the settings; those of an earlier run go on, with further models, methods and tasks.

        Raises `DataError`, with the difference, where answers would not be comparable.
        """
        if (self.folder / SETTINGS).exists():
            before = self.settings
            difference = [
                f"{what} was {_short(old.get(name))} and is {_short(new.get(name))}"
                for group in ("common", "models", "tasks")
                for old, new in [(before[group], settings[group])]
                for name in (old.keys() | new.keys() if group == "common" else old.keys() & new.keys())
                if old.get(name) != new.get(name)
                for what in [name if group == "common" else f"{name} ({group[:-1]})"]
            ]
            if difference:
                raise DataError(
                    f"{self.folder} has answers under other settings: {'; '.join(sorted(difference))}. "
                    "Choose another --output-dir, or the same settings."
                )
            for group in ("models", "tasks"):
                settings[group] = {**before[group], **settings[group]}
            settings["data"] = settings["data"] or before["data"]
            settings["methods"] = list(dict.fromkeys([*before["methods"], *settings["methods"]]))
        elif (self.folder / ANSWERS).exists():
            raise DataError(f"{self.folder} has answers but no {SETTINGS}; choose another --output-dir.")
        write(self.folder / SETTINGS, json.dumps(settings, indent=2) + "\n")

    def keep(self, task: str, material: dict[str, Any]) -> None:
        """Keep what the scores of a task need."""
        write(self.folder / MATERIAL / f"{slug(task)}.json", json.dumps(material))

    def material(self, task: str) -> dict[str, Any]:
        file = self.folder / MATERIAL / f"{slug(task)}.json"
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise DataError(f"{file} is missing or damaged; run the evaluation once more to write it.") from None

    def answers(self, cell: Cell, rank: int | None = None) -> Answers:
        """The answers of a cell. rank: of the process, where there are several."""
        model, method, task = map(slug, cell)
        return Answers(self.folder / ANSWERS / model / method / f"{task}.jsonl", rank)

    def cells(self) -> Iterator[Cell]:
        """The cells of the run, whether or not they have answers."""
        settings = self.settings
        for model in settings["models"]:
            for task in settings["tasks"]:
                for method in settings["methods"]:
                    yield Cell(model, method, task)


def slug(name: str) -> str:
    """A file name for a spec: readable, and its own also where only other characters differ."""
    plain = re.sub(r"[^A-Za-z0-9.=-]+", "_", name).strip("._") or "_"
    if plain == name:
        return name
    return f"{plain[-60:]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
