"""The built-in worlds: captions scored like CHAIR and questions like POPE, of drawn pictures and synthesised sounds."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from lime_mlx.evaluate.data import layout
from lime_mlx.evaluate.records import Material, Record, names
from lime_mlx.evaluate.scorers.free import words
from lime_mlx.evaluate.scorers.metrics import LESS, Metric, by_split, captions, ratio
from lime_mlx.evaluate.scorers.scenes import count_kinds, mentions
from lime_mlx.media.audio import Sound
from lime_mlx.scenes import (
    PICTURES,
    PROMPTS,
    REGIMES,
    SOUND_PROMPTS,
    SOUNDS,
    Scene,
    SoundScene,
    World,
    make_scene,
    make_sound,
)
from lime_mlx.scenes.language import STRATEGIES, questions
from lime_mlx.spec import Choice, Range

from .base import COUNT, Item, MediaSource, Task

# The first seed of a part; lower seeds belong to training.
PARTS = {"validation": 100_000, "test": 200_000}
CAPTION = "caption"


@dataclass(frozen=True)
class Scenes(Task):
    """`scenes:regime=adversarial,part=test,count=100,ask=all`: drawn pictures. --limit replaces count.

    regime: the law by which the scenes are drawn, adversarial or ordinary. part: validation or test. ask: all, captions
    or questions.
    """

    name = layout.SCENES
    inputs = "drawn scenes"
    world: ClassVar[World] = PICTURES
    request: ClassVar[str] = PROMPTS[0]

    regime: Annotated[str, Choice(*REGIMES)] = "adversarial"
    part: Annotated[str, Choice(*PARTS)] = "test"
    count: Annotated[int, Range(1)] = COUNT
    ask: Literal["all", "captions", "questions"] = "all"

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        count = self.count if limit is None else limit
        first = PARTS[self.part] + seed * count
        return [item for number in range(first, first + count) for item in self._items_of(number)]

    def _items_of(self, number: int) -> Iterator[Item]:
        """The caption and the questions of one scene."""
        scene, medium = self.scene(number), str(number)
        if self.ask != "questions":
            yield Item(f"{number}/{CAPTION}", medium, self.request, 48, CAPTION, truth=list(scene.kinds))
        for strategy in STRATEGIES if self.ask != "captions" else ():
            rng = random.Random(f"{strategy}/{number}")
            for question in questions(scene, strategy, rng):
                name = f"{number}/{strategy}/{question.kind}"
                yield Item(name, medium, question.text, 1, strategy, question.label)

    def scene(self, number: int) -> Scene | SoundScene:
        """The picture or sound of a seed, and what is in it."""
        return make_scene(number, self.regime)

    def source(self, data: Path | None, medium: str) -> MediaSource:
        scene = self.scene(int(medium))
        return scene.image if isinstance(scene, Scene) else Sound(scene.samples, scene.rate)

    def objects(self, words: Sequence[str], material: Material) -> list[tuple[int, str]]:
        return [(index, kind) for index, word in enumerate(words) for kind in mentions(word, self.world)]

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        def figures(part: list[Record], split: str) -> list[Metric]:
            return self._described(part) if split == CAPTION else self.judged(part, split, scorer)

        return by_split(records, figures)

    def _described(self, part: Sequence[Record]) -> list[Metric]:
        """The figures of captions. repeats: the share of mentions whose kind was named before. distinct: the share of
        the words of a caption that are new (Distinct-1).
        """
        texts = [record["text"] for record in part]
        counts = [count_kinds(record["text"], names(record["truth"]), self.world) for record in part]
        total = [len(mentions(text, self.world)) for text in texts]
        again = [number - count.mentioned for number, count in zip(total, counts, strict=True)]
        repeats = ratio("repeats", CAPTION, part, again, total, goal=LESS)
        listed = [words(text) for text in texts]
        distinct = ratio("distinct", CAPTION, part, [len(set(each)) for each in listed], [len(each) for each in listed])
        return [*captions(part, CAPTION, counts, [len(text.split()) for text in texts]), repeats, distinct]


@dataclass(frozen=True)
class Sounds(Scenes):
    """`sounds:regime=adversarial,part=test,count=100`: synthesised sounds."""

    name = layout.SOUNDS
    medium = "audio"
    inputs = "synthesised sounds"
    world = SOUNDS
    request = SOUND_PROMPTS[0]

    def scene(self, number: int) -> SoundScene:
        return make_sound(number, self.regime)
