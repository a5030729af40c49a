"""What a task is: its questions, their pictures or sounds, and the figures of the answers."""

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lime_mlx.errors import DataError
from lime_mlx.evaluate.metrics import Metric, Record
from lime_mlx.media.audio import open_audio
from lime_mlx.media.image import open_image

# How many pictures or sounds of the built-in worlds are asked about.
COUNT = 100


@dataclass(frozen=True)
class Item:
    """A question. id: its own in the task; medium: the picture or sound that it is about; split: what it counts for.

    label: "yes" or "no" where these are the answers; truth: what else the figures need, as JSON.
    """

    id: str
    medium: str
    text: str
    max_tokens: int
    split: str = "all"
    label: str | None = None
    truth: Any = None


class Task(ABC):
    """A benchmark. Subclasses are frozen dataclasses whose fields are the options of its spec, as of methods.

    medium: "image" or "audio". scorers: the ways to read answers, ours first; "official" is the benchmark's own.
    """

    name: ClassVar[str]
    medium: ClassVar[str] = "image"
    scorers: ClassVar[tuple[str, ...]] = ("ours",)

    @abstractmethod
    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        """The questions; with `limit`, of that many pictures or sounds, drawn with `seed`.

        Raises `DataError` for files that are missing or malformed.
        """

    @abstractmethod
    def source(self, data: Path | None, medium: str) -> Any:
        """What `open_image` or `open_audio` takes: a path, or the picture or sound itself."""

    def opened(self, data: Path | None, medium: str) -> dict[str, list]:
        """The picture or sound, as `Processor.prompt` takes it. Raises `MediaError` where it cannot be read."""
        source = self.source(data, medium)
        return {"images": [open_image(source)]} if self.medium == "image" else {"audio": [open_audio(source)]}

    @abstractmethod
    def metrics(self, records: Sequence[Record], scorer: str, material: Mapping[str, Any]) -> list[Metric]:
        """The figures of answers; `records` have what `Item` has, and `text`."""

    def objects(self, words: Sequence[str], material: Mapping[str, Any]) -> list[tuple[int, str]]:
        """What the words of a caption name: the place of the word that a name begins with, and the object.

        Raises `DataError` for a task that has no captions of which the objects are known, as `Item.truth`.
        """
        raise DataError(f"{self.name} has no captions with known objects; choose scenes, sounds or chair.")

    def there(self, item: Item) -> Collection[str]:
        """The objects that `objects` may name rightly."""
        return item.truth

    def material(self, data: Path | None) -> dict[str, Any]:
        """What the figures need beside the records, as JSON: it is kept with the answers."""
        return {}


def drawn(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """The questions about `limit` pictures or sounds drawn with `seed`, in their order; all of them without a limit."""
    media = list(dict.fromkeys(item.medium for item in items))
    if limit is None or limit >= len(media):
        return list(items)
    kept = set(random.Random(seed).sample(media, limit))
    return [item for item in items if item.medium in kept]


def folder(data: Path | None, task: str, holds: Iterable[str]) -> Path:
    """The folder of a task's files: DATA/<task>, or DATA itself where that holds the first of `holds`."""
    if data is None:
        raise DataError(f"The task {task} needs its files: lime-mlx data get {task}, or name their folder with --data.")
    if not data.is_dir():
        raise DataError(f"There is no data folder {data}: lime-mlx data get {task}, or name another with --data.")
    tried = [data / task, data]
    for place in tried:
        if any(next(place.glob(name), None) for name in holds):
            return place
    names = " or ".join(holds)
    raise DataError(f"{data} has no {task}/{names}: lime-mlx data get {task} brings the files.")


def picture(data: Path, task: str, name: str) -> Path:
    """Where a picture or sound is, or, if it is nowhere, would be: beside the task's files or in DATA/images."""
    places = [data / "images" / name, data / task / "images" / name, data / task / name, data / name]
    return next((place for place in places if place.is_file()), places[0])
