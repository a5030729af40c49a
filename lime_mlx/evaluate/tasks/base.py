"""What a task is: its questions, their pictures or sounds, and the figures of the answers."""

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypedDict

from PIL import Image

from lime_mlx import spec
from lime_mlx.errors import DataError
from lime_mlx.evaluate.records import Material, Record, Truth, names
from lime_mlx.evaluate.scorers import answers
from lime_mlx.evaluate.scorers.metrics import Metric, yes_no
from lime_mlx.media.audio import Sound, open_audio
from lime_mlx.media.image import open_image
from lime_mlx.prompt import Turn

# How many pictures or sounds of the built-in worlds are asked about.
COUNT = 100
MediaSource = Path | Image.Image | Sound


class Media(TypedDict, total=False):
    """Opened pictures and sounds, as `Processor.prompts` takes them."""

    images: list[Image.Image]
    audio: list[Sound]


@dataclass(frozen=True)
class Item:
    """A question.

    id: unique in its task. medium: the picture or sound that it is about. split: the part of the task that it counts
    for. label: "yes" or "no" where these are the answers. truth: what else the figures need, as JSON. history: the
    turns of the chat before the question.
    """

    id: str
    medium: str
    text: str
    max_tokens: int
    split: str = "all"
    label: str | None = None
    truth: Truth = None
    history: tuple[Turn, ...] = ()


class Task(ABC):
    """A benchmark. Subclasses are frozen dataclasses whose fields are the options of its spec, as those of methods.

    The annotations of the fields say which values are valid, see `spec`; making a task raises `DataError` for others.

    medium: "image" or "audio". inputs: what its pictures or sounds are, in words. scorers: the ways to score answers,
    ours first, each with the parser or mode that it uses; "official" is the benchmark's own.
    """

    name: ClassVar[str]
    medium: ClassVar[str] = "image"
    inputs: ClassVar[str] = "pictures"
    scorers: ClassVar[Mapping[str, str]] = {"ours": "ours"}

    def __post_init__(self) -> None:
        spec.check(self, self.name, DataError)

    @abstractmethod
    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        """The questions; with `limit`, those about that many pictures or sounds, drawn with `seed`.

        Raises `DataError` for files that are missing or malformed.
        """

    @abstractmethod
    def source(self, data: Path | None, medium: str) -> MediaSource | None:
        """What `open_image` or `open_audio` takes: a path, or the picture or sound itself; None for text alone."""

    def opened(self, data: Path | None, medium: str) -> Media:
        """The opened picture or sound. Raises `MediaError` where it cannot be read."""
        source = self.source(data, medium)
        if source is None:
            return {}
        if self.medium == "audio":
            if isinstance(source, Image.Image):
                raise TypeError(f"{self.name} gives a picture for a sound")
            return {"audio": [open_audio(source)]}
        if isinstance(source, Sound):
            raise TypeError(f"{self.name} gives a sound for a picture")
        return {"images": [open_image(source)]}

    @abstractmethod
    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        """The figures of answers. Each record has a `text`; scorer: a key of `scorers`."""

    def judged(self, records: Sequence[Record], split: str, scorer: str, positive: str = answers.YES) -> list[Metric]:
        """The figures of answers to yes/no questions. positive: the class of precision, recall and F1."""
        return yes_no(records, self.verdicts(records, scorer), split, positive)

    def verdicts(self, records: Sequence[Record], scorer: str) -> list[str]:
        """What a scorer reads from each answer: "yes", "no" or something else."""
        texts, labels = [record["text"] for record in records], [record["label"] for record in records]
        return answers.verdicts(texts, labels, self.parser(scorer))

    def parser(self, scorer: str) -> str:
        """The parser or mode of a scorer."""
        return self.scorers[scorer]

    def objects(self, words: Sequence[str], material: Material) -> list[tuple[int, str]]:
        """The objects that the words of a caption name, each with the index of the word in which its name begins.

        Raises `DataError` for a task that has no captions of pictures with known objects.
        """
        raise DataError(f"{self.name} has no captions with known objects; choose scenes, sounds or chair.")

    def true_objects(self, item: Item) -> Collection[str]:
        """The objects that are in the picture or sound of a caption."""
        return names(item.truth)

    def material(self, data: Path | None) -> Material:
        """What the figures need beside the records, as JSON: it is kept with the answers."""
        return {}


def drawn(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """The questions about `limit` pictures or sounds drawn with `seed`, in their order; all of them without a limit."""
    media = list(dict.fromkeys(item.medium for item in items))
    if limit is None or limit >= len(media):
        return list(items)
    kept = set(random.Random(seed).sample(media, limit))
    return [item for item in items if item.medium in kept]
