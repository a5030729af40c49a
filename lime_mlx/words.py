"""From tokens to words: where each word of an answer came from, and which words have no support."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lime_mlx.lrp.relevance import Shares
from lime_mlx.prompt import Prompt, Span
from lime_mlx.support.detector import Detector


class Piece(NamedTuple):
    """What a token added to the text, where it came from, its relevance (T,), and what speaks for it, where kept."""

    text: str
    shares: Shares | None = None
    relevance: np.ndarray | None = None
    evidence: dict[str, float] | None = None


@dataclass(frozen=True)
class Word:
    """A word as it was said, with the white space before it and the punctuation after it.

    shares: where it came from; relevance (T,): the sum over its tokens, at the positions that the first of them saw;
    evidence: of its first token that has some, since the rest of a word follows from its beginning.
    """

    text: str
    shares: Shares | None
    relevance: np.ndarray | None = None
    evidence: dict[str, float] | None = None


def words(pieces: Iterable[tuple]) -> Iterator[Word]:
    """Merge the pieces of tokens, or their (text, shares), into words as they come.

    A piece that starts with white space starts a word, and so does a Chinese or Japanese character. A word has the mean
    shares of its tokens with letters or digits, so that the comma behind it does not count; of all tokens if none has.
    An empty piece is the first part of a character, and goes with the next piece.
    """
    yield from map(_merged, grouped(pieces))


def grouped(pieces: Iterable[tuple]) -> Iterator[list[Piece]]:
    """The pieces of each word, as `words` merges them."""
    word, waiting = [], []
    for piece in map(Piece._make, ((*given, None, None)[:4] for given in pieces)):
        waiting.append(piece)
        if not piece.text:
            continue
        if _starts(piece.text) and _text(word).strip():
            yield word
            word = []
        word += waiting
        waiting = []
    if _text(word).strip():
        yield word + waiting


def telling(piece: Piece) -> bool:
    """Whether a token counts in its word: it has letters or digits, or is the first part of a character."""
    return not piece.text or any(map(str.isalnum, piece.text))


def mean(shares: Iterable[Shares | None]) -> Shares | None:
    """Component-wise mean of those that are known; None when none is."""
    known = [share for share in shares if share is not None]
    return Shares(*(float(x) for x in np.mean(known, axis=0))) if known else None


def moments(relevance: np.ndarray, span: Span, seconds: float) -> tuple[float, float] | None:
    """When a word was heard: the shortest interval, in seconds, with half of the positive relevance in `span`.

    `seconds` is the time that one position of the span stands for. None when no relevance there is positive.
    """
    positive = np.maximum(np.asarray(relevance, dtype=np.float64)[span.start : span.stop], 0)
    if not positive.sum() > 0:
        return None
    before = np.concatenate([[0], np.cumsum(positive)])
    stops = np.searchsorted(before, before + before[-1] / 2 - 1e-12 * before[-1])
    starts = np.flatnonzero(stops < len(before))
    first = starts[np.argmin(stops[starts] - starts)]
    return float(first * seconds), float(stops[first] * seconds)


def grids(prompt: Prompt, spans: Sequence[Span], pictures: int) -> list[tuple[int, int]] | None:
    """Rows and columns of the positions of each picture; None where it is seen in parts, as tiles and crops are.

    The positions of a span then go through the rows from left to right.
    """
    lengths = [len(span) for span in spans if span.kind == "image"]
    if len(lengths) != pictures or "image_sizes" in prompt.media:
        return None
    given = prompt.media.get("image_grid_thw")
    boxes = [(1, 1, 1)] * pictures if given is None else np.asarray(given).tolist()
    found = [
        tuple(side * math.isqrt(length) // math.isqrt(rows * columns) for side in (rows, columns))
        for length, (_, rows, columns) in zip(lengths, boxes, strict=True)
    ]
    return found if [rows * columns for rows, columns in found] == lengths else None


def _starts(piece: str) -> bool:
    return piece[0].isspace() or "\u3040" <= piece[0] <= "\u9fff"


def _text(tokens: list[Piece]) -> str:
    return "".join(token.text for token in tokens)


def _merged(tokens: list[Piece]) -> Word:
    shares = mean(token.shares for token in tokens if telling(token)) or mean(token.shares for token in tokens)
    known = [token.relevance for token in tokens if token.relevance is not None]
    relevance = sum(array[: len(known[0])] for array in known) if known else None
    evidence = next((token.evidence for token in tokens if token.evidence is not None), None)
    return Word(_text(tokens), shares, relevance, evidence)


# A noun with its article, and a list of such: "a dog, a cat and a ball".
ITEM = r"(?:(?:an?|the|some|no) )?[\w-]+"
LISTED = re.compile(rf"{ITEM}(?:, {ITEM})*(?:,? and {ITEM})")
BETWEEN = re.compile(r",? and |, ")


@dataclass(frozen=True)
class Verdict:
    """doubt: probability, 0 to 1, that the word has no support; of a model that was not calibrated, None.

    rank: 1 is the word of the answer with the least support. flagged: doubted at the detector's threshold.
    """

    word: Word
    rank: int
    doubt: float | None
    flagged: bool

    @property
    def text(self) -> str:
        return self.word.text.strip().strip(".,;:!?()\"'")


def judge(words: Sequence[Word], detector: Detector | None) -> list[Verdict | None]:
    """A verdict on each word that names something and whose evidence is known; None for the others."""
    known = [word for word in words if word.evidence is not None]
    if detector is None:
        doubts, order = [None] * len(known), [-word.evidence["positive"] for word in known]
    else:
        doubts = order = [detector.p_unsupported(word.evidence) for word in known]
    ranks = 1 + np.argsort(np.argsort([-value for value in order], kind="stable"), kind="stable")
    verdicts = iter(
        Verdict(word, int(rank), doubt, doubt is not None and doubt >= detector.threshold)
        for word, rank, doubt in zip(known, ranks, doubts, strict=True)
    )
    return [None if word.evidence is None else next(verdicts) for word in words]


def drop(text: str, noun: str) -> str | None:
    """The text without a noun of a list such as "a dog, a cat and a ball"; None where no list would be left."""
    for found in LISTED.finditer(text):
        items = BETWEEN.split(found.group())
        kept = [item for item in items if item.split()[-1] != noun]
        if kept and len(kept) < len(items):
            listed = " and ".join(filter(None, (", ".join(kept[:-1]), kept[-1])))
            return text[: found.start()] + listed + text[found.end() :]
    return None
