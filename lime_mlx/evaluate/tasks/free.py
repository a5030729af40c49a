"""Free questions about the built-in worlds: what is beside the dog, how many things there are, and the like."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from lime_mlx.evaluate.data import layout
from lime_mlx.evaluate.records import Material, Record, Truth
from lime_mlx.evaluate.scorers.free import fault, loops, words
from lime_mlx.evaluate.scorers.metrics import LESS, MORE, RIGHT, Metric, by_split, ratio
from lime_mlx.evaluate.scorers.scenes import mentions
from lime_mlx.media.audio import Sound
from lime_mlx.prompt import Turn
from lime_mlx.scenes import PICTURES, REGIMES, SOUNDS, Scene, SoundScene, World, make_scene, make_sound
from lime_mlx.scenes.habits import EMPTY
from lime_mlx.scenes.talk import TALKS, Talk, ask
from lime_mlx.spec import Choice, Range

from .base import COUNT, Item, MediaSource, Task
from .scenes import PARTS

TOKENS = 32
# How often a question of a kind is tried until one can be answered plainly.
TRIES = 4


@dataclass(frozen=True)
class Free(Task):
    """`free:regime=adversarial,part=test,count=100`: free questions about drawn pictures. --limit replaces count.

    regime: the law by which the scenes are drawn. part: validation or test. count: scenes, each with a question of
    every kind that it allows; beside each, there is an empty scene with one question.
    """

    name = layout.FREE
    world: ClassVar[World] = PICTURES

    regime: Annotated[str, Choice(*REGIMES)] = "adversarial"
    part: Annotated[str, Choice(*PARTS)] = "test"
    count: Annotated[int, Range(1)] = COUNT

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        count = self.count if limit is None else limit
        first = PARTS[self.part] + seed * count
        return [
            _item(talk, medium)
            for number in range(first, first + count)
            for medium in (f"{number}", f"{number}/{EMPTY}")
            for talk in self.talks(medium)
        ]

    def talks(self, medium: str) -> Iterator[Talk]:
        """The questions about one scene: "100007", or "100007/empty"."""
        scene = self.scene(medium)
        for kind in TALKS[self.world.medium] if scene.kinds else (EMPTY,):
            rng = random.Random(f"{kind}/{medium}")
            tried = (ask(scene, kind, rng) for _ in range(TRIES))
            yield from [talk for talk in tried if talk][:1]

    def scene(self, medium: str) -> Scene | SoundScene:
        """The picture or sound, and what is in it."""
        return make_scene(*self._drawn(medium))

    def _drawn(self, medium: str) -> tuple[int, str]:
        number, _, empty = medium.partition("/")
        return int(number), empty or self.regime

    def source(self, data: Path | None, medium: str) -> MediaSource:
        scene = self.scene(medium)
        return scene.image if isinstance(scene, Scene) else Sound(scene.samples, scene.rate)

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        return [*by_split(records, self._figures), *self._figures(records, "all")]

    def _figures(self, part: Sequence[Record], split: str) -> list[Metric]:
        """repeats: the share of mentions whose kind was named before. distinct: the share of words that are new."""
        texts = [record["text"] for record in part]
        right = [not self.fault(record) for record in part]
        listed = [words(text) for text in texts]
        named = [mentions(text, self.world) for text in texts]
        lengths = [len(each) for each in listed]
        return [
            ratio(RIGHT, split, part, right, goal=MORE, binary=True),
            ratio("words", split, part, lengths, unit="words"),
            ratio("repeats", split, part, [len(n) - len(set(n)) for n in named], [len(n) for n in named], goal=LESS),
            ratio("distinct", split, part, [len(set(each)) for each in listed], lengths),
            ratio("loops", split, part, [loops(text) for text in texts], goal=LESS, binary=True),
        ]

    def fault(self, record: Record) -> str:
        """What is wrong with an answer, "" for a right one."""
        truth = record["truth"]
        if not isinstance(truth, Mapping):
            raise TypeError(f"{record['id']} has no truth of a free question")
        return fault(record["text"], truth, self.world, ended=record["steps"] > len(record["tokens"]))


@dataclass(frozen=True)
class FreeSounds(Free):
    """`free-sounds:regime=adversarial,part=test,count=100`: free questions about synthesised sounds."""

    name = layout.FREE_SOUNDS
    medium = "audio"
    world = SOUNDS

    def scene(self, medium: str) -> SoundScene:
        return make_sound(*self._drawn(medium))


def _item(talk: Talk, medium: str) -> Item:
    truth: Truth = talk.truth
    history = tuple(Turn(*turn) for turn in talk.history)
    return Item(f"{medium}/{talk.kind}", medium, talk.text, TOKENS, talk.kind, truth=truth, history=history)
