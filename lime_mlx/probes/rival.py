"""What speaks for each word of an answer and against another word in its place.

The relevance of a margin of two logits is the difference of their relevances: it is a gradient, and so linear in what
is explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import PromptError
from lime_mlx.models.base import Model
from lime_mlx.prompt import Language, Prompt
from lime_mlx.session import Session
from lime_mlx.words import Word


@dataclass(frozen=True)
class Contrast:
    """A word of an answer against `rival` in its place.

    margin: the logit of the word less that of its rival, where their tokens first differ. relevance (T,) float32, of
    that margin, at the positions before.
    """

    rival: str
    margin: float
    relevance: NDArray[np.float32]


def contrasts(model: Model, prompt: Prompt, words: Sequence[Word], rival: str) -> list[Contrast | None]:
    """Each word that names something against another word; every word with letters where none names something.

    None for other words, and for the rival itself. It takes one more plain pass over the answer, whichever method gave
    it. Raises `PromptError` for an empty rival and for a prompt of token ids, which has no words.
    """
    rival = rival.strip()
    if not rival:
        raise PromptError("The word to contrast the answer with is empty: name one, such as cat.")
    if prompt.language is None:
        raise PromptError("A word can be contrasted only in a prompt that a processor made, not in token ids.")
    session = Session.open(model, prompt)
    naming = any(word.names_something for word in words)
    compared = [word.names_something if naming else any(map(str.isalnum, word.text)) for word in words]
    return [
        _contrast(session, prompt.language, word, rival if wanted else "")
        for word, wanted in zip(words, compared, strict=True)
    ]


def _contrast(session: Session, language: Language, word: Word, rival: str) -> Contrast | None:
    """The contrast of the word that comes next, if there is a rival; then the session stands behind it."""
    place, margin, relevance = _difference(session, language, word, rival) if rival else (0, 0.0, None)
    for token in word.tokens[place:]:
        session.append(token)
    return None if relevance is None else Contrast(rival, margin, relevance)


def _difference(
    session: Session, language: Language, word: Word, rival: str
) -> tuple[int, float, NDArray[np.float32] | None]:
    """How many tokens of the word are in the session now, the margin at the next one, and its relevance."""
    tokens = list(word.tokens)
    pairs = {_first_difference(tokens, spelling) for spelling in _spellings(language, word, rival)} - {None}
    if not pairs or word.name.casefold() == rival.casefold():
        return 0, 0.0, None
    place = min(pair[0] for pair in pairs if pair is not None)
    for token in tokens[:place]:
        session.append(token)
    session.prefill()
    others = [pair[1] for pair in pairs if pair is not None and pair[0] == place]
    rows = np.array(session.relevance_of([tokens[place], *others]))
    logits = np.array(session.extend(), dtype=np.float32)
    best = int(np.argmax(logits[others]))
    return place, float(logits[tokens[place]] - logits[others[best]]), rows[0] - rows[1 + best]


def _spellings(language: Language, word: Word, rival: str) -> list[list[int]]:
    """The tokens of the rival as it would stand here: with the space before it, and with a capital at the beginning."""
    text = rival[:1].upper() + rival[1:] if word.name[:1].isupper() else rival
    spaced, bare = (list(language.encode(each)) for each in (f" {text}", text))
    return [spaced] if word.text[:1].isspace() else [spaced, bare]


def _first_difference(tokens: Sequence[int], rival: Sequence[int]) -> tuple[int, int] | None:
    """Where two rows of tokens first differ, and the second's token there."""
    for place, (token, other) in enumerate(zip(tokens, rival, strict=False)):
        if token != other:
            return place, other
    return None
