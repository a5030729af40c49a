"""Probes by drawn scenes and synthesised soundscapes, for models that know things better than digits.

What an answer names is compared with what is in each scene. Scenes that are shown in other colours, or turned, are
understood less well; where a server does the same to every picture, they are understood better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from lime_mlx.evaluate.scorers.scenes import kinds_named
from lime_mlx.scenes import PICTURES, SOUNDS, make_scene, make_sound

from . import pictures, sounds
from .asking import Asker, Question
from .findings import BROKEN, WORKS, Finding, unclear
from .luck import LIMIT, matching, signs
from .subjects import CHANNELS, TURNS

# Of validation: no bundled model was trained on these.
FIRST, COUNT = 100_000, 12
QUESTIONS = {"picture": "What is in the picture?", "sound": "What do you hear?"}
BGR = next(iter(CHANNELS))
_TURNS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "the picture is rotated by 90 degrees": lambda p: p.transpose(Image.Transpose.ROTATE_90),
    "the picture is rotated by 180 degrees": lambda p: p.transpose(Image.Transpose.ROTATE_180),
    "the picture is rotated by 270 degrees": lambda p: p.transpose(Image.Transpose.ROTATE_270),
}
assert set(_TURNS) <= set(TURNS)
# For each row, the faults that it can show, and what undoes each of them.
UNDONE: Mapping[str, Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "colours": {BGR: pictures.swapped},
    "orientation": _TURNS,
}


@lru_cache(32)
def scene(index: int) -> tuple[Image.Image, tuple[str, ...]]:
    """A drawn picture, and the things in it."""
    made = make_scene(FIRST + index, "uncorrelated")
    return made.image, made.kinds


@lru_cache(32)
def soundscape(index: int) -> tuple[bytes, tuple[str, ...]]:
    """A file of a sound, and what is heard in it."""
    made = make_sound(FIRST + index, "uncorrelated")
    return sounds.wav(made.samples), made.kinds


class Scenes:
    """A model's answers about scenes. noun: picture or sound."""

    def __init__(self, asker: Asker, noun: str) -> None:
        self._asker, self._noun = asker, noun
        self._world = PICTURES if noun == "picture" else SOUNDS
        self.truths = [(scene if noun == "picture" else soundscape)(index)[1] for index in range(COUNT)]

    def questions(self, change: Callable[[Image.Image], Image.Image] = lambda picture: picture) -> list[Question]:
        """One question about each scene."""
        text = QUESTIONS[self._noun]
        if self._noun == "sound":
            return [Question(text, (), (soundscape(index)[0],)) for index in range(COUNT)]
        return [Question(text, (pictures.png(change(scene(index)[0])),)) for index in range(COUNT)]

    def _named(self, questions: Sequence[Question]) -> list[set[str]]:
        return [set(kinds_named(self._asker.marked(question).text, self._world)) for question in questions]

    def _fits(self, named: Sequence[set[str]]) -> np.ndarray:
        """(n, n) float64: how well answer i fits scene j, by Dice's coefficient."""
        return np.array(
            [[2 * len(a & set(b)) / max(1, len(a) + len(b)) for b in self.truths] for a in named], dtype=np.float64
        )

    def used(self) -> tuple[Finding, np.ndarray]:
        """Whether the answers fit their own scenes; and how well each does."""
        fits = self._fits(self._named(self.questions()))
        luck = matching(fits)
        name = f"{self._noun} used"
        if luck > LIMIT:
            return unclear(name, "the model lacks the ability to name what is in scenes"), fits
        reason = f"the answers about {COUNT} scenes fit their own scene best ({np.trace(fits) / COUNT:.2f} of 1)"
        return Finding(name, WORKS, reason, luck), fits

    def undone(self, name: str, fits: np.ndarray) -> Finding:
        """Whether scenes are understood best as they are, or where one of the faults of a row was undone."""
        straight, clearly, worst = np.diag(fits), 0, 0.0
        for fault, undo in UNDONE[name].items():
            changed = np.diag(self._fits(self._named(self.questions(undo))))
            better, worse = (len(UNDONE[name]) * signs(d) for d in (changed - straight, straight - changed))
            if better <= LIMIT:
                reason = f"{fault}: scenes are understood better where that is undone ({changed.mean():.2f} of 1)"
                return Finding(name, BROKEN, f"{reason} than as they are ({straight.mean():.2f})", better, fault)
            clearly += worse <= LIMIT
            worst = max(worst, worse)
        if clearly == len(UNDONE[name]):
            return Finding(name, WORKS, "scenes are understood best as they are", worst)
        return unclear(name, "scenes are not understood so well that a change would show")
