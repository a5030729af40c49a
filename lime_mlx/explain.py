"""From tokens to words: where each word of an answer came from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lime_mlx.lrp.relevance import Shares


@dataclass(frozen=True)
class Word:
    """A word as it was said, with the white space before it, and the mean shares of its tokens."""

    text: str
    shares: Shares | None


def words(pieces: Iterable[tuple[str, Shares | None]]) -> Iterator[Word]:
    """Merge (text, shares) of tokens into words; a piece that starts with white space starts a word."""
    text, held = "", []
    for piece, shares in pieces:
        if piece[:1].isspace() and text.strip():
            yield Word(text, mean(held))
            text, held = "", []
        text += piece
        held.append(shares)
    if text:
        yield Word(text, mean(held))


def mean(shares: Iterable[Shares | None]) -> Shares | None:
    """Component-wise mean of those that are known; None when none is."""
    known = [share for share in shares if share is not None]
    return Shares(*(float(x) for x in np.mean(known, axis=0))) if known else None
