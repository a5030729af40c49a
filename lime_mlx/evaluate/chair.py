"""CHAIR: which COCO objects a caption names, and which of them are not there (Rohrbach et al., 2018).

The synonym list is the official file (80 lines, the first word is the class), given by the user. Three readings of a
caption: `pattern` and `wordnet` follow the two reference programs with their quirks; `ours` knows irregular plurals
and every listed multi-word name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from ..errors import DataError
from . import baseforms
from .pope import ratio

MODES = ("ours", "pattern", "wordnet")
_YOUNG = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub".split()
_PAIRS = """
motor bike,motor cycle,air plane,traffic light,street light,traffic signal,stop light,fire hydrant,stop sign,parking
meter,suit case,sports ball,baseball bat,baseball glove,tennis racket,wine glass,hot dog,cell phone,mobile phone,teddy
bear,hair drier,potted plant,laptop computer,stove top oven,home plate,train track
"""
PAIRS = {
    **{pair: pair for pair in " ".join(_PAIRS.split()).split(",")},
    **{f"{age} {animal}": animal for animal in _YOUNG for age in ("baby", "adult")},
    "bow tie": "tie",
    "passenger jet": "jet",
    "passenger train": "train",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
}
# What WordNet 3.0 lacks, so that its plural stays as it is.
_NO_WORDNET = frozenset(
    "firetruck macbook smartphone wakeboard longboard skimboard shortboard netbook teddybear pitbull bluejay lenovo "
    "iphone televison phon knive suv solider".split()
)
# Words of the list, and of the pairs, that are verbs too: "seated" is read as seat.
_VERBS = frozenset(
    "seat train tie bow light stop park fire suit bat bear ski skateboard snowboard boat bench cycle groom kayak "
    "signal monitor ship bike ram "
    "book phone duck canoe ferry chair table mother father bowl cake bottle top glove ball sink "
    "track home man baby".split()
)
_SUPPLY = frozenset("providing offering need".split())
_NOUNS_IN_ING = frozenset("parking lighting training building topping".split())
_BEFORE_NOUN = frozenset(
    "a an the this that these those its his her their my your our some several for or one go personal".split()
)


@dataclass(frozen=True)
class Mention:
    word: str  # the base form found
    name: str  # the COCO class
    index: int  # its place among the tokens


@dataclass(frozen=True)
class Reading:
    words: int  # tokens after multi-word names were joined
    mentions: tuple[Mention, ...] = field(default=())

    @property
    def names(self) -> set[str]:
        return {mention.name for mention in self.mentions}


class Objects:
    """The names of things and the way captions are read: `mode` is one of MODES."""

    def __init__(self, synonyms: Sequence[Sequence[str]], mode: str = "ours") -> None:
        if mode not in MODES:
            raise ValueError(f"unknown CHAIR mode {mode!r}: one of {', '.join(MODES)}")
        self.mode = mode
        self.classes = {word: line[0] for line in synonyms for word in line}
        if mode == "ours":
            self.classes = {" ".join(word.lower().split()): name for word, name in self.classes.items()}
        self._pairs = PAIRS if mode != "ours" else PAIRS | {word: word for word in self.classes if " " in word}
        parts = {part for pair in (*self._pairs, *self._pairs.values()) for part in pair.split()}
        self._known = {word for word in (*self.classes, *parts) if " " not in word}
        if mode == "wordnet":
            self._known = self._known - _NO_WORDNET - {"glas"} | {"sport"}
        self._longest = max(len(pair.split()) for pair in self._pairs) if mode == "ours" else 2
        self._base = lru_cache(None)(self._form(mode))

    def _form(self, mode: str) -> Callable[[str], str]:
        if mode == "pattern":
            return baseforms.pattern
        return lambda token: baseforms.plain(token, self._known)

    @classmethod
    def read(cls, path: str | Path, mode: str = "ours") -> Objects:
        """From the official synonyms.txt. Raises DataError where it cannot be read or has an empty line inside."""
        try:
            lines = Path(path).read_text(encoding="utf-8").rstrip().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: the CHAIR synonym list cannot be read ({error})") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                raise DataError(f"{path}:{number}: an empty line; each line names one class and its synonyms")
        return cls([line.strip().split(", ") for line in lines], mode)

    def caption(self, text: str) -> Reading:
        """The objects a text names, every mention counted."""
        tokens = baseforms.tokens(text.lower())
        bases = self._lemmas(tokens) if self.mode == "wordnet" else [self._base(token) for token in tokens]
        words, places = [], []
        place = 0
        while place < len(bases):
            for length in range(min(self._longest, len(bases) - place), 0, -1):
                joined = " ".join(bases[place : place + length])
                if length == 1 or joined in self._pairs:
                    break
            words.append(self._pairs[joined] if length > 1 else joined)
            places.append(place)
            place += length
        count = len(words)
        if "toilet" in words and "seat" in words:
            if self.mode == "ours":
                kept = [(word, place) for word, place in zip(words, places, strict=True) if word != "seat"]
                words, places = [word for word, _ in kept], [place for _, place in kept]
            else:  # the reference programs keep the places of all words, so the later ones shift
                words = [word for word in words if word != "seat"]
        found = tuple(
            Mention(word, self.classes[word], place)
            for word, place in zip(words, places, strict=False)
            if word in self.classes
        )
        return Reading(count, found)

    def named(self, words: Sequence[str]) -> list[tuple[int, str]]:
        """The classes that a text names, each with the place of the word in which its name begins.

        words: the text in pieces, with the white space between them.
        """
        words = [word.lower() for word in words]
        text, ends = "".join(words), list(accumulate(map(len, words)))
        places, start = [], 0
        for token in baseforms.tokens(text):
            found = text.find(token, start)
            places.append(bisect_right(ends, max(found, start)))
            start = start if found < 0 else found + len(token)  # quotation marks are changed, and not found
        return [(places[mention.index], mention.name) for mention in self.caption(text).mentions]

    def _lemmas(self, tokens: Sequence[str]) -> list[str]:
        """WordNet's base forms under a guess of the part of speech: words in -ed are verbs, some in -ing too."""
        bases = []
        for place, token in enumerate(tokens):
            if token == "geese":  # an adjective for the tagger, mostly
                bases.append(token)
                continue
            before = tokens[place - 1] if place else ""
            verb = (
                token == "born"
                or token.endswith("ed")
                or (token.endswith("ing") and (before in _SUPPLY if token == "seating" else _gerund(token, before)))
            )
            bases.append(baseforms.wordnet(token, self._known, _VERBS, verb))
        return bases

    def ground_truth(self, categories: Iterable[str], captions: Iterable[str]) -> set[str]:
        """The classes of a picture: its annotated categories and those that its reference captions name."""
        return set(categories).union(*(self.caption(text).names for text in captions))


def _gerund(token: str, before: str) -> bool:
    return token == "monitoring" or (token not in _NOUNS_IN_ING and before not in _BEFORE_NOUN)


def score(readings: Sequence[Reading], truth: Sequence[Iterable[str]]) -> dict:
    """CHAIR_S, CHAIR_I, recall, precision and F1 of classes (fractions), mean length in tokens, and the counts.

    `truth` is the set of classes in each picture. The counts are lists (n,), ready for a bootstrap over pictures:
    mentioned, hallucinated (every mention), covered, present, named (distinct classes). Raises ValueError for
    lengths that differ.
    """
    if len(readings) != len(truth):
        raise ValueError(f"{len(readings)} captions for {len(truth)} pictures")
    rows = []
    for reading, there in zip(readings, map(set, truth), strict=True):
        wrong = hallucinated(reading, there)
        rows.append((len(reading.mentions), len(wrong), len(reading.names & there), len(there), len(reading.names)))
    mentioned, wrong, covered, present, named = (
        (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 5
    )
    recall, precision = ratio(sum(covered), sum(present)), ratio(sum(covered), sum(named))
    return {
        "n": len(rows),
        "chair_s": ratio(sum(count > 0 for count in wrong), len(rows)),
        "chair_i": ratio(sum(wrong), sum(mentioned)),
        "recall": recall,
        "precision": precision,
        "f1": ratio(2 * precision * recall, precision + recall),
        "length": ratio(sum(reading.words for reading in readings), len(rows)),
        "mentioned": mentioned,
        "hallucinated": wrong,
        "covered": covered,
        "present": present,
        "named": named,
    }


def hallucinated(reading: Reading, truth: set[str]) -> list[Mention]:
    """The mentions of classes that are not in the picture."""
    return [mention for mention in reading.mentions if mention.name not in truth]
