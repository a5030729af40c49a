"""Asking the model back: whether it would say yes to the question that a thing is there.

The question stands alone, with the picture or sound and without the answer so far, as in Self-Validation (arXiv
2601.22451). The part of the cache that holds the picture or sound is reused, and several questions are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import mlx.core as mx
import numpy as np

from lime_mlx.cache import overlays
from lime_mlx.errors import PromptError
from lime_mlx.prompt import Language, Noun, Question
from lime_mlx.session import Session

# A word or name is completed with at most so many tokens.
LONGEST = 8


@dataclass(frozen=True)
class AskBack:
    """Asks about the prompt of a session, whose language is known. See `margins`."""

    session: Session
    language: Language

    def __call__(self, nouns: Sequence[Noun]) -> list[float | None]:
        """As `margins`; None, too, where the margin is not finite."""
        with self.session.model.lock:
            rows = margins(self.session, nouns)
        return [margin if margin is not None and isfinite(margin) else None for margin in rows]


def margins(session: Session, nouns: Sequence[Noun]) -> list[float | None]:
    """For each noun the logit of the best token for yes, less that of the best for no; None where nothing can be asked.

    Each noun is asked about once for each prompt: the session and its forks remember the margins.
    """
    language = session.prompt.language
    questions: dict[Noun, Question] = {}
    for noun in dict.fromkeys(nouns):
        if noun in session.margins:
            continue
        session.margins[noun] = None
        try:
            if language is not None:
                questions[noun] = language.question(noun)
        except PromptError:
            continue
    together = {noun: question for noun, question in questions.items() if question.shared}
    if together:
        rows = _shared(session, list(together.values()))
        session.margins.update(dict(zip(together, rows, strict=True)))
    for noun, question in questions.items():
        if not question.shared:
            session.margins[noun] = _alone(session, question)
    return [session.margins[noun] for noun in nouns]


def _shared(session: Session, questions: Sequence[Question]) -> list[float]:
    """The margins of questions that begin as the prompt does: one batch, on the entries of what they share."""
    shared = min(question.shared for question in questions)
    session.prefill(max(shared, session.cache.offset))
    tails = [question.prompt.input_ids[shared:].tolist() for question in questions]
    logits = continued(session, shared, tails)
    return [question.yes_no.margin(np.array(row)) for row, question in zip(logits, questions, strict=True)]


def _alone(session: Session, question: Question) -> float:
    """The margin of a question whose picture or sound stands at another place: a prompt of its own."""
    return question.yes_no.margin(np.array(session.beside(question.prompt).extend()))


def continued(session: Session, start: int, tails: Sequence[Sequence[int]]) -> mx.array:
    """Logits (N, V) at the end of each of N texts that follow the first `start` positions, in one batch.

    tails: the tokens of each text. The cache must have held these positions, which end with text, and stays as it is;
    what layers with a window do not hold any more is computed again.
    """
    begin = session.cache.resumable(start)
    tails = [[*session.tokens[begin:start], *tail] for tail in tails]
    longest = max(map(len, tails))
    ids = np.zeros((len(tails), longest), dtype=np.int32)
    for row, tail in zip(ids, tails, strict=True):
        row[: len(tail)] = tail
    decoder = session.decoder
    embeds = decoder.embed(mx.array(ids.reshape(-1))).reshape(*ids.shape, -1)
    past = session.cache.before(begin) if begin else [None] * len(session.cache)
    hidden = decoder(embeds, overlays(past), begin, positions=session.positions.beginning(begin))
    ends = mx.array([len(tail) - 1 for tail in tails])
    logits = decoder.head(hidden[mx.arange(len(tails)), ends])
    mx.eval(logits)
    return logits


def completions(session: Session, tokens: Sequence[int]) -> list[list[int]]:
    """The tokens of the word, or the words in a row, that each token would begin: greedily, content tokens only.

    The cache must hold the newest position.
    """
    words = [[token] for token in tokens]
    open_words = list(range(len(words)))
    content = session.content
    for _ in range(LONGEST - 1):
        if not open_words or content is None:
            break
        logits = continued(session, session.embeds.shape[1], [words[index] for index in open_words])
        following = np.array(mx.argmax(logits, axis=-1))
        open_words = [index for index, token in zip(open_words, following, strict=True) if content[token]]
        for index, token in zip(open_words, following[content[following]], strict=True):
            words[index].append(int(token))
    return words
