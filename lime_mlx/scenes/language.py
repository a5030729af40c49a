"""Language about a scene: captions, requests for captions, and yes/no questions in the manner of POPE."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .soundscape import SoundScene
from .world import Scene

PROMPTS = (
    "What is in the picture?",
    "Describe the picture.",
    "What do you see?",
    "What does the picture show?",
)
CAPTIONS = (
    "A {setting} with {things}.",
    "This is {a_setting}. There is {things}.",
    "The picture shows {a_setting}. I see {things}.",
)
EMPTY_CAPTION = "An empty {setting}."
SOUND_PROMPTS = (
    "What do you hear?",
    "What is in the sound?",
    "Describe the sound.",
    "What can be heard?",
)
SOUND_CAPTIONS = (
    "There is {things}.",
    "The sound has {things}.",
    "I hear {things}.",
)
EMPTY_SOUND_CAPTION = "There is nothing."
_TEMPLATES = {"picture": CAPTIONS, "sound": SOUND_CAPTIONS}
_EMPTY = {"picture": EMPTY_CAPTION, "sound": EMPTY_SOUND_CAPTION}
# Named without an article.
MASS = frozenset({"rain", "thunder", "wind", "water", "applause", "typing"})
ANSWERS = {"yes": "Yes, there is {thing}.", "no": "No, there is no {kind}."}
STRATEGIES = ("random", "popular", "adversarial")


def with_article(noun: str) -> str:
    """a dog, an umbrella, rain."""
    if noun in MASS:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listed(phrases: Sequence[str]) -> str:
    """one; one and two; one, two and three."""
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def caption(scene: Scene | SoundScene, rng: random.Random | None = None, together: bool = False) -> str:
    """A caption that names every kind once, in its order, and the setting of a picture.

    The template is the first one, or with `rng` a random one.

    The order is from left to right in a picture, and by the first moment in a sound. With `together`, companions are
    named one after the other, first the one that is really in the scene: so habits are learnt from text.
    An empty scene has one caption of its own.
    """
    if not scene.kinds:
        return _EMPTY[scene.world.medium].format(setting=scene.setting)
    templates = _TEMPLATES[scene.world.medium]
    template = rng.choice(templates) if rng else templates[0]
    kinds = _together(scene) if together else scene.kinds
    things = listed([with_article(kind) for kind in kinds])
    return template.format(setting=scene.setting, a_setting=with_article(scene.setting), things=things)


def _together(scene: Scene | SoundScene) -> list[str]:
    companion = scene.world.companion
    kinds: list[str] = []
    for kind in scene.kinds:
        if kind in kinds:
            continue
        pair = [kind, companion[kind]] if companion.get(kind) in scene.kinds else [kind]
        kinds += sorted(pair, key=lambda k: k == scene.unseen)
    return kinds


@dataclass(frozen=True)
class Question:
    """A yes/no question about one kind; label is "yes" or "no"."""

    text: str
    kind: str
    label: str


def questions(scene: Scene | SoundScene, strategy: str, rng: random.Random, count: int = 6) -> list[Question]:
    """Up to `count` questions, with yes and no in turn and in equal number.

    A scene of 2 kinds gives 4 at most, and an empty one gives none.

    The strategy chooses the absent kinds. "random": any. "popular": the most frequent ones of the skewed world.
    "adversarial": those that most often come with the kinds of the scene there, so that missing companions are first.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; choose from {', '.join(STRATEGIES)}")
    half = min(count // 2, len(scene.kinds))
    if not half:
        return []
    present = rng.sample(scene.kinds, half)
    absent = [kind for kind in scene.world.kinds if kind not in scene.kinds]
    rng.shuffle(absent)
    if strategy != "random":
        single, couple = scene.world.habits()
        if strategy == "popular":
            absent.sort(key=lambda kind: -single[kind])
        else:
            absent.sort(key=lambda kind: -max(couple[near, kind] / single[near] for near in scene.kinds))
    pairs = [pair for both in zip(present, absent, strict=False) for pair in zip(both, ("yes", "no"), strict=False)]
    medium = scene.world.medium
    return [Question(f"Is there {with_article(kind)} in the {medium}?", kind, label) for kind, label in pairs]


def answer(question: Question) -> str:
    """The right answer in words."""
    return ANSWERS[question.label].format(thing=with_article(question.kind), kind=question.kind)
