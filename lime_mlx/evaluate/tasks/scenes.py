"""The built-in worlds: captions scored like CHAIR and questions like POPE, of drawn pictures and synthesised sounds."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from lime_mlx.errors import DataError
from lime_mlx.evaluate import answers
from lime_mlx.evaluate.metrics import LESS, by_split, captions, ratio, yes_no
from lime_mlx.media.audio import Sound
from lime_mlx.scenes import PICTURES, PROMPTS, REGIMES, SOUND_PROMPTS, SOUNDS, World, make_scene, make_sound, named
from lime_mlx.scenes.language import STRATEGIES, questions

from .base import COUNT, Item, Task

# The first seed of a part; those below belong to training.
PARTS = {"validation": 100_000, "test": 200_000}
ASK = ("all", "captions", "questions")
CAPTION = "caption"


@dataclass(frozen=True)
class Scenes(Task):
    """`scenes:regime=adversarial,part=test,count=100,ask=all`: drawn pictures. --limit goes before count.

    regime: the law by which the scenes are drawn, adversarial or ordinary; part: validation or test; ask: all, captions
    or questions.
    """

    name = "scenes"
    world: ClassVar[World] = PICTURES
    make: ClassVar[Callable] = staticmethod(make_scene)
    request: ClassVar[str] = PROMPTS[0]

    regime: str = "adversarial"
    part: str = "test"
    count: int = COUNT
    ask: str = "all"

    def __post_init__(self):
        choices = (("regime", self.regime, REGIMES), ("part", self.part, PARTS), ("ask", self.ask, ASK))
        for key, value, known in choices:
            if value not in known:
                raise DataError(f"{self.name}: {key} is {value!r}; choose one of {', '.join(known)}.")
        if self.count < 1:
            raise DataError(f"{self.name}: count is {self.count}; it must be at least 1.")

    def items(self, data, limit=None, seed=0):
        count = self.count if limit is None else limit
        first = PARTS[self.part] + seed * count
        return [item for number in range(first, first + count) for item in self._asked(number)]

    def _asked(self, number: int) -> list[Item]:
        scene, medium = self.make(number, self.regime), str(number)
        asked = []
        if self.ask != "questions":
            asked.append(Item(f"{number}/{CAPTION}", medium, self.request, 48, CAPTION, truth=list(scene.kinds)))
        for strategy in STRATEGIES if self.ask != "captions" else ():
            rng = random.Random(f"{strategy}/{number}")
            for question in questions(scene, strategy, rng):
                name = f"{number}/{strategy}/{question.kind}"
                asked.append(Item(name, medium, question.text, 1, strategy, question.label))
        return asked

    def source(self, data, medium):
        return self.make(int(medium), self.regime).image

    def objects(self, words, material):
        return [(place, kind) for place, word in enumerate(words) for kind in named(word, self.world)]

    def metrics(self, records, scorer, material):
        def figures(part, split):
            if split != CAPTION:
                return yes_no(part, [answers.ours(record["text"]) for record in part], split)
            counts, again, told = [], [], []
            for record in part:
                said, there = named(record["text"], self.world), set(record["truth"])
                kinds = set(said)
                counts.append((len(kinds), len(kinds - there), len(kinds & there), len(there)))
                again.append(len(said) - len(kinds))
                told.append(len(said))
            repeats = ratio("repeats", split, part, again, told, goal=LESS)
            return [*captions(part, split, counts, [len(record["text"].split()) for record in part]), repeats]

        return by_split(records, figures)


@dataclass(frozen=True)
class Sounds(Scenes):
    """`sounds:regime=adversarial,part=test,count=100`: synthesised sounds."""

    name = "sounds"
    medium = "audio"
    world = SOUNDS
    make = staticmethod(make_sound)
    request = SOUND_PROMPTS[0]

    def source(self, data, medium):
        scene = self.make(int(medium), self.regime)
        return Sound(scene.samples, scene.rate)
