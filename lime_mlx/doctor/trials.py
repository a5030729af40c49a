"""Questions of one kind, asked about inputs whose truth was drawn by lot, and their answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from PIL import Image

from . import pictures, sounds
from .asking import Asker, Question, Reply
from .findings import Answers, Finding, explained
from .luck import by_lot
from .subjects import BEEPS, COLOUR, COUNT, NUMBER, PITCH, PLACE, SHADE, SILENCE, STALE, WORD, Subject

# From an option to the file of its picture or sound.
Draw = Callable[[str], bytes]
SUBJECTS = {one.name: one for one in (COLOUR, SHADE, PLACE, NUMBER, WORD, COUNT, BEEPS, PITCH, SILENCE)}


@dataclass(frozen=True)
class Trials:
    """Questions of one kind that were asked, with their truths, their answers and what was read from these."""

    subject: Subject
    truths: Sequence[str]
    replies: Sequence[Reply]

    @property
    def readings(self) -> list[str | None]:
        return [self.subject.read(reply.text) for reply in self.replies]

    @property
    def answers(self) -> Answers:
        """What was read, to be judged."""
        return Answers(self.subject.options, self.truths, self.readings)

    @property
    def problems(self) -> list[str]:
        """What the server said in place of answers."""
        return [reply.problem for reply in self.replies if reply.problem is not None]


@lru_cache(256)
def _file(name: str, option: str) -> bytes:
    made = SUBJECTS[name].draw(option)
    return pictures.png(made) if isinstance(made, Image.Image) else sounds.wav(made)


def drawn(subject: Subject) -> Draw:
    """From an option to the file of its picture or sound."""
    return partial(_file, subject.name)


def question(subject: Subject, file: bytes) -> Question:
    """The question of a subject about one file."""
    return Question(subject.asks(), (file,)) if subject.noun == "picture" else Question(subject.asks(), (), (file,))


def tried(asker: Asker, rng: random.Random, subject: Subject, count: int = 0, draw: Draw | None = None) -> Trials:
    """Ask so many times about files whose truth is drawn from the options of the subject."""
    make = draw or drawn(subject)
    truths = by_lot(rng, subject.options, count or subject.trials)
    replies = [asker.marked(question(subject, make(truth))) for truth in truths]
    return Trials(subject, truths, replies)


def judged(trials: Trials) -> Finding:
    """What the answers about the plain pictures or sounds of a subject say."""
    subject = trials.subject
    return explained(subject.name, trials.answers, subject.faults, subject.lacks, STALE)


def same_text(asker: Asker, rng: random.Random, subject: Subject) -> Trials:
    """One text, letter for letter, about several inputs that all differ."""
    text = f"[Request {asker.mark()}] {subject.asks()}"
    truths = rng.sample(list(subject.options), min(5, len(subject.options)))
    replies = [asker(replace(question(subject, drawn(subject)(truth)), text=text)) for truth in truths]
    return Trials(subject, truths, replies)
