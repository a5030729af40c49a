"""From tokens to words: where each word of an answer came from, and which words have no support."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lime_mlx.lrp.relevance import Shares
from lime_mlx.methods.base import Rejected
from lime_mlx.prompt import Language, Noun, Span
from lime_mlx.support.detector import Detector

# The marks of Markdown around a word: emphasis, code, headings, quotes, cells of tables, links.
MARKS = "*_~`|#>[]"
BREAKS = ".,;:!?()\"'"
PUNCTUATION = BREAKS + MARKS
# A noun with its article, and a list of such: "a dog, a cat and a ball".
ITEM = r"(?:(?:an?|the|some|no) )?[*_~`]*[\w-]+[*_~`]*"
LISTED = re.compile(rf"{ITEM}(?:, {ITEM})*(?:,? and {ITEM})")
BETWEEN = re.compile(r",? and |, ")
Interval = tuple[float, float]


class Ask(Protocol):
    """From names of things to the model's margins of yes over no, see `lime_mlx.asking`; and the prompt's language."""

    @property
    def language(self) -> Language: ...

    def __call__(self, nouns: Sequence[Noun]) -> Sequence[float | None]: ...


@dataclass(kw_only=True)
class Token:
    """A token of an answer, and what it added to the text.

    shares: where it came from; relevance (T,) float32 of the positions before it; statistics: those of a content token
    that the detector reads. ends: it ended the answer and is no part of it. Each is None where it was not asked for.
    rejected: the words that the method did not take in its place. ask: asks the model back about its prompt, where that
    is possible.
    """

    text: str
    token: int = -1
    shares: Shares | None = None
    relevance: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    statistics: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    ends: bool = False
    rejected: tuple[Rejected, ...] = field(default=(), compare=False, repr=False)
    ask: Ask | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word of an answer, with the white space before it and the punctuation after it.

    tokens: their ids. shares: where it came from, the mean over its tokens with letters or digits. p_unsupported:
    probability, 0 to 1, that it has no support; None for a word that names nothing and for a model that was not
    calibrated. flagged: p_unsupported is at or above the detector's threshold. rank: 1 is the word of the answer with
    the least support; None for a word that names nothing, and while the answer goes on. seconds: for each sound, the
    shortest interval with half of the word's positive relevance there, or None. relevance (T,) float32: the sum over
    its tokens, at the positions that the first of them saw. statistics: of its first content token, or of
    that of the last word of its name, and the margin where the model was asked back. noun: the name of
    the thing that the word is a part of, where the words before it tell; all words of a name have one verdict.
    rejected: the words that the method did not take in the place of its tokens.
    """

    text: str
    tokens: tuple[int, ...] = ()
    shares: Shares | None = None
    p_unsupported: float | None = None
    flagged: bool = False
    rank: int | None = None
    seconds: tuple[Interval | None, ...] = ()
    relevance: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    statistics: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    noun: Noun | None = field(default=None, compare=False, repr=False)
    rejected: tuple[Rejected, ...] = field(default=(), compare=False, repr=False)

    @property
    def name(self) -> str:
        """The word without white space, punctuation and the marks of Markdown."""
        return self.text.strip().strip(PUNCTUATION)

    @property
    def names_something(self) -> bool:
        """Whether the word can name something, as far as its statistics are known."""
        return self.statistics is not None

    def to_dict(self) -> dict[str, object]:
        """JSON values, without the arrays."""
        return {
            "text": self.text.strip(),
            "tokens": list(self.tokens),
            "shares": None if self.shares is None else self.shares._asdict(),
            "p_unsupported": self.p_unsupported,
            "flagged": self.flagged,
            "rank": self.rank,
            "seconds": [None if interval is None else list(interval) for interval in self.seconds],
        }


def words(tokens: Iterable[Token], detector: Detector | None = None, spans: Sequence[Span] = ()) -> Iterator[Word]:
    """Merge tokens into words as they come; `ranked` gives the ranks when all are there.

    A token that starts with white space starts a word, and so does a Chinese or Japanese character. A token without
    text is the first part of a character, and goes with the next token. White space before the answer is left out.
    spans: of the prompt, for the sounds among which words were heard.
    """
    sounds = [span for span in spans if span.kind == "audio" and span.seconds]
    asks: list[Ask] = []

    def noticed() -> Iterator[Token]:
        for token in tokens:
            if token.ask is not None:
                asks[:] = [token.ask]
            yield token

    for before, row in _rows(_merged(group, sounds) for group in grouped(noticed())):
        ask = asks[0] if asks else None
        for name in [row] if ask is None else _named(before, row, ask.language):
            if detector is None or (ask is not None and not ask.language.judges):
                yield from name
                continue
            for word in _asked(name, detector, ask):
                yield judged(word, detector)


def grouped(tokens: Iterable[Token]) -> Iterator[list[Token]]:
    """The tokens of each word."""
    word: list[Token] = []
    waiting: list[Token] = []
    for token in _without_leading_space(tokens):
        waiting.append(token)
        if not token.text:
            continue
        if _starts(token.text) and _text(word).strip():
            yield word
            word = []
        word += waiting
        waiting = []
    if _text(word).strip():
        yield word + waiting


def _without_leading_space(tokens: Iterable[Token]) -> Iterator[Token]:
    started = False
    for token in tokens:
        if not started and token.text != (text := token.text.lstrip()):
            token = replace(token, text=text)
        started = started or bool(token.text)
        yield token


def ranked(words: Sequence[Word]) -> list[Word]:
    """The words of a whole answer, with the ranks of those that name something.

    By p_unsupported where the model was calibrated, else by the positive relevance on the picture or the sound.
    """
    naming = [index for index, word in enumerate(words) if word.statistics is not None]
    order = sorted(naming, key=lambda index: _support(words[index]))
    ranks = {index: rank for rank, index in enumerate(order, start=1)}
    return [replace(word, rank=ranks.get(index)) for index, word in enumerate(words)]


def _support(word: Word) -> float:
    if word.p_unsupported is not None:
        return -word.p_unsupported
    return 0.0 if word.statistics is None else word.statistics["positive"]


def mean_shares(shares: Iterable[Shares | None]) -> Shares | None:
    """Component-wise mean of those that are not None; None when all are."""
    present = [share for share in shares if share is not None]
    return Shares(*(float(x) for x in np.mean(present, axis=0))) if present else None


def heard_interval(relevance: NDArray[np.float32], span: Span) -> Interval | None:
    """When a word was heard: the shortest interval, in seconds, with half of the positive relevance in `span`.

    relevance (T,). None when no relevance there is positive, or the time of a position is not known.
    """
    positive = np.maximum(np.asarray(relevance, dtype=np.float64)[span.start : span.stop], 0)
    if span.seconds is None or not positive.sum() > 0:
        return None
    before = np.concatenate([[0], np.cumsum(positive)])
    stops = np.searchsorted(before, before + before[-1] / 2 - 1e-12 * before[-1])
    starts = np.flatnonzero(stops < len(before))
    first = starts[np.argmin(stops[starts] - starts)]
    return float(first * span.seconds), float(stops[first] * span.seconds)


def without_item(text: str, name: str) -> str | None:
    """The text without a noun of a list such as "a dog, a cat and a ball"; None where no list would be left."""
    for listed in LISTED.finditer(text):
        items = BETWEEN.split(listed.group())
        kept = [item for item in items if item.split()[-1].strip(MARKS) != name]
        if kept and len(kept) < len(items):
            shorter = " and ".join(filter(None, (", ".join(kept[:-1]), kept[-1])))
            return text[: listed.start()] + shorter + text[listed.end() :]
    return None


def without_flagged(text: str, words: Iterable[Word]) -> tuple[str, list[str]]:
    """The text without the flagged words of its lists, and these words. Other flagged words stay."""
    dropped = []
    for word in words:
        if word.flagged and (shorter := without_item(text, word.name)) is not None:
            text = shorter
            dropped.append(word.name)
    return text, dropped


def _counts(token: Token) -> bool:
    """Whether a token counts in its word: it has letters or digits, or is the first part of a character."""
    return not token.text or any(map(str.isalnum, token.text))


def _starts(text: str) -> bool:
    return text[0].isspace() or text[0] == "|" or "\u3040" <= text[0] <= "\u9fff"


def _text(tokens: Sequence[Token]) -> str:
    return "".join(token.text for token in tokens)


def _rows(words: Iterable[Word]) -> Iterator[tuple[str, list[Word]]]:
    """Words in a row that can name something together, other words one by one; each with the text before."""
    before, row = "", list[Word]()
    for word in words:
        if row and not (row[-1].names_something and word.names_something and not _breaks(row[-1].text)):
            yield before, row
            before, row = before + "".join(each.text for each in row), []
        row.append(word)
        if not word.names_something:  # nothing can join it: it need not wait for the next word
            yield before, row
            before, row = before + word.text, []
    if row:
        yield before, row


def _breaks(text: str) -> bool:
    """Whether a name ends with this word, because of the punctuation or the bar of a table behind it."""
    return text.rstrip(MARKS.replace("|", ""))[-1:] in (*BREAKS, "|")


def _named(before: str, words: list[Word], language: Language) -> Iterator[list[Word]]:
    """Words behind the text `before`, those with a common name together."""
    while words:
        words = [_unmarked(words[0], language), *words[1:]]
        text = " ".join(word.name for word in words)
        name = language.noun_phrase(text) if words[0].names_something else ""
        place = language.noun_place(f"{before} {text.partition(name)[0]}") if name else None
        noun, count = (None, 1) if place is None else (place.noun(name), len(name.split()))
        statistics = words[count - 1].statistics
        yield [replace(word, noun=noun, statistics=statistics) for word in words[:count]]
        before, words = before + "".join(word.text for word in words[:count]), words[count:]


def _unmarked(word: Word, language: Language) -> Word:
    """A word without statistics where only a mark before it hid that it is of a closed class: **the."""
    if word.text.strip()[:1] in (*MARKS,) and not language.noun_phrase(word.name):
        return replace(word, statistics=None)
    return word


def _asked(words: list[Word], detector: Detector, ask: Ask | None) -> list[Word]:
    """The words of one name, with the margin among their statistics where the detector asks for it."""
    noun, statistics = words[0].noun, words[0].statistics
    if ask is None or noun is None or statistics is None or not detector.asks(statistics):
        return words
    return [with_margin(word, ask([noun])[0]) for word in words]


def with_margin(word: Word, margin: float | None) -> Word:
    """A word that is part of a name, with the model's margin of yes over no among its statistics, if there is one."""
    if word.noun is None or word.statistics is None or margin is None:
        return word
    return replace(word, statistics={**word.statistics, "margin": margin})


def _merged(group: Sequence[Token], sounds: Sequence[Span]) -> Word:
    tokens = [token for token in group if not token.ends]
    counting = [token.shares for token in tokens if _counts(token)]
    relevance = _summed([token for token in tokens if token.text.strip(f"{MARKS} \n\t") or not token.text] or tokens)
    statistics = next((token.statistics for token in tokens if token.statistics is not None), None)
    word = Word(
        text=_text(group),
        tokens=tuple(token.token for token in tokens),
        shares=mean_shares(counting) or mean_shares(token.shares for token in tokens),
        relevance=relevance,
        statistics=statistics,
        rejected=tuple(each for token in group for each in token.rejected),
    )
    if statistics is None:
        return word
    if relevance is not None:
        word = replace(word, seconds=tuple(heard_interval(relevance, span) for span in sounds))
    return word


def judged(word: Word, detector: Detector) -> Word:
    """The word with the verdict of a detector; one without statistics has none."""
    if word.statistics is None:
        return word
    word = replace(word, p_unsupported=detector.p_unsupported(word.statistics))
    return replace(word, flagged=is_flagged(word, detector.threshold))


def is_flagged(word: Word, threshold: float) -> bool:
    """Whether the probability that a word has no support is at or above a threshold; a word without one is not."""
    return word.p_unsupported is not None and word.p_unsupported >= threshold


def _summed(tokens: Sequence[Token]) -> NDArray[np.float32] | None:
    """The relevance of tokens together, at the positions that the first of them saw."""
    arrays = [token.relevance for token in tokens if token.relevance is not None]
    return np.sum([array[: len(arrays[0])] for array in arrays], axis=0) if arrays else None
