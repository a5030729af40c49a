"""What is asked and what comes back, whoever answers: a server, or anything else that takes questions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

# The most likely tokens at a place of an answer, with their log-probabilities.
Place = Mapping[str, float]


@dataclass(frozen=True)
class Question:
    """One question. pictures, sounds: files of PNG, JPEG or WAV, which stand before the text, in their order."""

    text: str
    pictures: tuple[bytes, ...] = ()
    sounds: tuple[bytes, ...] = ()
    system: str | None = None
    logprobs: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer. places: the first places of the answer with their likely tokens, where these were asked for and given.

    prompt_tokens: as the server counts them. problem: why there is no answer, in the words of the server.
    """

    text: str = ""
    places: Sequence[Place] = ()
    prompt_tokens: int | None = None
    problem: str | None = None


Ask = Callable[[Question], Reply]


class Asker:
    """Asks, and marks each question with letters that no other has, so that no earlier answer can serve it.

    on_reply: is called after each answer with how many there were.
    """

    def __init__(self, ask: Ask, marks: random.Random, on_reply: Callable[[int], None] = lambda count: None) -> None:
        self._ask, self._marks, self._on_reply = ask, marks, on_reply
        self._made: set[str] = set()
        self.count = 0

    def __call__(self, question: Question) -> Reply:
        """The answer to a question as it stands."""
        reply = self._ask(question)
        self.count += 1
        self._on_reply(self.count)
        return reply

    def marked(self, question: Question) -> Reply:
        """The answer to the question under a mark of its own."""
        return self(replace(question, text=f"[Request {self.mark()}] {question.text}"))

    def mark(self) -> str:
        """Letters that were not given before."""
        while (letters := "".join(self._marks.choices("BCDFGHJKLMNPQRSTVWXZ", k=6))) in self._made:
            pass
        self._made.add(letters)
        return letters
