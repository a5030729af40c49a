"""Probes by log-probabilities: which inputs are the same to the model, whatever its words are?

The distance of two answers is the mean difference of the log-probabilities of their likely tokens, at their first
places, up to the first one where they took different tokens. Where a server loses what is different between two
inputs, their distance is that of one input asked twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import comb

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import pictures
from .asking import Asker, Place, Question, Reply
from .findings import BROKEN, WORKS, Finding, unclear
from .luck import LIMIT, pairing
from .seeing import EXIF_IGNORED, KEPT_BY_TEXT, SECOND_IGNORED, SHRUNK
from .texts import SYSTEM_LOST

# As equal as the log-probabilities of one input asked twice, in nats; batches and caches change the last digits.
SAME = 1e-3
# Cycles of a pattern across a picture: those that 100 pixels hold, and those for which a picture needs 126.
COARSE, FINE = (20, 30), (53, 63)
# By how much a pattern that is shrunk away may still differ from plain grey, of what a coarse one does.
FADED = 0.3


def distance(first: Reply, second: Reply) -> float:
    """In nats, 0 for the same answer with the same log-probabilities."""
    total: list[float] = []
    for a, b in zip(first.places, second.places, strict=False):
        total.append(_apart(a, b))
        if max(a, key=a.__getitem__) != max(b, key=b.__getitem__):
            break
    return float(np.mean(total)) if total else 0.0


def _apart(a: Place, b: Place) -> float:
    """A token that is not among the likely ones of a place counts as the least likely of these."""
    least_a, least_b = min(a.values()), min(b.values())
    return float(np.mean([abs(a.get(token, least_a) - b.get(token, least_b)) for token in {*a, *b}]))


def distances(replies: Sequence[Reply]) -> NDArray[np.float64]:
    return np.array([[distance(a, b) for b in replies] for a in replies])


class Likeness:
    """The probes of a server that gives log-probabilities. varied: four questions whose pictures or sounds differ."""

    def __init__(self, asker: Asker, varied: Sequence[Question], noun: str) -> None:
        self._asker, self._noun = asker, noun
        self._varied = [replace(one, logprobs=True) for one in varied]

    @cached_property
    def _replies_to_texts(self) -> list[Reply]:
        """The answers to two texts that have nothing in common."""
        first, second = self._varied[:2]
        return [self._asker.marked(first), self._asker.marked(replace(second, text="Say hello."))]

    @property
    def offered(self) -> bool:
        """Whether the server gives log-probabilities that tell texts apart."""
        return all(reply.places for reply in self._replies_to_texts) and self._spread > 10 * SAME

    @cached_property
    def _spread(self) -> float:
        """How far answers are apart that have nothing to do with each other."""
        return distance(*self._replies_to_texts)

    def used(self) -> Finding:
        """Whether different pictures or sounds make a difference under one text."""
        fault = f"the {self._noun} does not reach the model"
        return self._differ(f"{self._noun} used", self._varied, f"different {self._noun}s", fault)

    def kept(self) -> Finding:
        """Whether an answer is kept for its text, by a model whose pictures or sounds are used otherwise."""
        name = f"same text, other {self._noun}"
        return self._differ(name, self._varied, f"different {self._noun}s under one text", KEPT_BY_TEXT)

    def second(self) -> Finding:
        """Whether the second of two pictures makes a difference."""
        first, *_ = self._varied
        asked = [replace(first, pictures=(*first.pictures, *other.pictures)) for other in self._varied]
        return self._differ("two pictures", asked, "different second pictures", SECOND_IGNORED)

    def blank(self) -> Finding:
        """Whether a blank picture is told apart from others."""
        blank = replace(self._varied[0], pictures=(pictures.png(pictures.solid(pictures.WHITE)),))
        return self._differ(
            "blank picture", [blank, *self._varied[1:]], "a blank picture and others", "no picture is used"
        )

    def system(self) -> Finding:
        """Whether system prompts make a difference."""
        orders = ("Answer in French.", "Answer in capital letters.", "You are a pirate.", "Answer with a number.")
        asked = [replace(self._varied[0], system=order) for order in orders]
        return self._differ("system prompt", asked, "different system prompts", SYSTEM_LOST)

    def _differ(self, name: str, questions: Sequence[Question], inputs: str, fault: str) -> Finding:
        """Whether four questions under one text, each asked twice, have log-probabilities of their own."""
        mark = self._asker.mark()
        asked = [replace(one, text=f"{one.text} [{mark}]") for one in questions for _ in range(2)]
        replies = [self._asker(question) for question in asked]
        problems = [reply.problem for reply in replies if reply.problem is not None]
        if problems:
            return unclear(name, f"the server refuses such questions ({problems[0]})")
        apart = distances(replies)
        within = max(apart[i, i + 1] for i in range(0, 8, 2))
        between = float(np.mean([apart[i, j] for i in range(8) for j in range(i) if i // 2 != j // 2]))
        luck = pairing(apart)
        if between > max(SAME, within) and luck <= LIMIT:
            reason = f"the log-probabilities of {inputs} differ by {between:.2g}, those of repeats by {within:.2g}"
            return Finding(name, WORKS, reason, luck)
        if apart.max() <= SAME:
            # Numbers that spread so far and have nothing to do with each other agree so closely by luck.
            luck = (SAME / self._spread) ** 3
            return Finding(name, BROKEN, f"{fault}: the log-probabilities of {inputs} are the same", luck, fault)
        return unclear(name, f"the log-probabilities of {inputs} differ no more than by luck")

    def shrunk(self) -> Finding:
        """Whether a fine pattern is still there, which a picture of 100 pixels cannot hold: five of each fineness."""
        name = "small detail"
        noisy = [pictures.noise(seed, band) for band in (COARSE, FINE) for seed in range(5)]
        flat, *replies = self._replies_to([pictures.solid((128, 128, 128)), *noisy])
        strengths = [distance(reply, flat) for reply in replies]
        coarse, fine = strengths[:5], strengths[5:]
        luck = 1 / comb(10, 5)  # of all ways to choose five of ten strengths, one has the five smallest
        counted = f"a pattern of {FINE[0]} lines across changes log-probabilities by {np.mean(fine):.2g}, one of "
        counted += f"{COARSE[0]} by {np.mean(coarse):.2g}"
        if min(coarse) <= SAME:
            return unclear(name, "the model makes nothing of patterns")
        if max(fine) < FADED * min(coarse):
            return Finding(name, BROKEN, f"{SHRUNK} to about 100 pixels or less: {counted}", luck, SHRUNK)
        if min(fine) > FADED * np.mean(coarse):
            return Finding(name, WORKS, f"it is not shrunk to 100 pixels: {counted}", luck)
        return unclear(name, counted)

    def turned(self) -> Finding:
        """Whether a picture that is stored turned is to the model as the upright one, or as the turned one."""
        name, closer, tries = "EXIF orientation", 0, [(side, o) for side in pictures.PLACES for o in (6, 8)]
        for side, orientation in tries:
            upright = pictures.place(side)
            stored = upright.transpose(pictures.STORED[orientation])
            files = [pictures.jpeg(upright, orientation), pictures.jpeg(upright), pictures.jpeg(stored)]
            given, right, wrong = self._replies_to(files)
            if distance(right, wrong) <= SAME:
                return unclear(name, "the model makes nothing of turns")
            closer += distance(given, right) < distance(given, wrong)
        luck = 0.5 ** len(tries)
        if closer == len(tries):
            return Finding(name, WORKS, "pictures that are stored turned are as upright ones", luck)
        if closer == 0:
            return Finding(name, BROKEN, f"{EXIF_IGNORED}: they are as turned ones", luck, EXIF_IGNORED, minor=True)
        return unclear(name, f"{closer} of {len(tries)} are as upright ones")

    def _replies_to(self, shown: Sequence[Image.Image | bytes]) -> list[Reply]:
        """The answers about pictures under one text."""
        text = f"{self._varied[0].text} [{self._asker.mark()}]"
        files = [picture if isinstance(picture, bytes) else pictures.png(picture) for picture in shown]
        return [self._asker(replace(self._varied[0], text=text, pictures=(file,))) for file in files]
