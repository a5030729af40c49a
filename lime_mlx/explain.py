"""From tokens to words: where each word of an answer came from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lime_mlx.lrp.relevance import Shares


@dataclass(frozen=True)
class Word:
    """A word as it was said, with the white space before it and the punctuation after it, and its shares."""

    text: str
    shares: Shares | None


def words(pieces: Iterable[tuple[str, Shares | None]]) -> Iterator[Word]:
    """Merge the (text, shares) of tokens into words, as they come: for an answer, of zip(pieces, shares).

    A piece that starts with white space starts a word, and so does a Chinese or Japanese character. A word has the mean
    shares of its tokens with letters or digits, so that the comma behind it does not count; of all tokens if none has.
    An empty piece is the first part of a character, and goes with the next piece.
    """
    word, waiting = [], []
    for text, shares in pieces:
        waiting.append((text, shares))
        if not text:
            continue
        if _starts(text) and _text(word).strip():
            yield _merged(word)
            word = []
        word += waiting
        waiting = []
    if _text(word).strip():
        yield _merged(word + waiting)


def mean(shares: Iterable[Shares | None]) -> Shares | None:
    """Component-wise mean of those that are known; None when none is."""
    known = [share for share in shares if share is not None]
    return Shares(*(float(x) for x in np.mean(known, axis=0))) if known else None


def _starts(piece: str) -> bool:
    return piece[0].isspace() or "\u3040" <= piece[0] <= "\u9fff"


def _text(tokens: list[tuple[str, Shares | None]]) -> str:
    return "".join(text for text, _ in tokens)


def _merged(tokens: list[tuple[str, Shares | None]]) -> Word:
    telling = [shares for text, shares in tokens if not text or any(map(str.isalnum, text))]
    return Word(_text(tokens), mean(telling) or mean(shares for _, shares in tokens))
