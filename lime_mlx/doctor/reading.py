"""Reads what an answer says, in whatever manner it says it: a word, a sentence, Markdown, JSON, after thinking, ..."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache

from .vocabulary import ABSENT, COLOURS, HEARD, MARKERS, NEGATIONS, NUMBERS, PITCHES, REFUSALS, SIDES, TURNS, UNABLE

# From an answer to the option that it names, None where it names none or does not decide.
Reader = Callable[[str], str | None]

_THOUGHT = re.compile(
    r"<(think|thinking|thought|reasoning|analysis|reflection|scratchpad)>.*?</\1>|◁think▷.*?◁/think▷"
    r"|<\|channel\|?>\s*(?:analysis|thought).*?(?=<\|channel\|?>\s*final|<channel\|>)|\[think\].*?\[/think\]",
    re.DOTALL | re.IGNORECASE,
)
# A thought whose beginning the template wrote, and one that never ended.
_CLOSED_ONLY = re.compile(r"^.*</(?:think|thinking|thought|reasoning|analysis)>|^.*◁/think▷", re.DOTALL | re.IGNORECASE)
_OPEN_ONLY = re.compile(r"<(?:think|thinking|thought|reasoning|analysis)>.*$|◁think▷.*$", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?[a-z|_][^<>]{0,40}>", re.IGNORECASE)
_HEX = re.compile(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b|rgba?\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})")
_OTHER_LETTERS = {ord("ł"): "l", ord("ı"): "i", ord("ø"): "o", ord("æ"): "ae", ord("ß"): "ss"}
_LETTER = r"[^\W\d_]"
_POINTS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
}


def spoken(answer: str) -> str:
    """The answer without what the model thought before it, and without tags."""
    text = _THOUGHT.sub(" ", answer)
    text = _CLOSED_ONLY.sub(" ", text)
    text = _OPEN_ONLY.sub(" ", text)
    return _TAG.sub(" ", text).strip()


def plain(text: str) -> str:
    """Without case, accents and typographic forms, so that one pattern reads all spellings."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    bare = "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c) or ord(c) > 0x3000)
    bare = unicodedata.normalize("NFC", bare)
    return bare.translate(_OTHER_LETTERS)


@lru_cache
def _pattern(words: str) -> re.Pattern[str]:
    """Words that stand alone; those of scripts without spaces may stand anywhere."""
    parts = _alternatives(words)
    spaced = [part for part in parts if not re.match(r"[\u2190-\u2bff\u3040-\ud7ff\U0001f000-\U0001faff]", part)]
    joined = [part for part in parts if part not in spaced]
    alone = rf"(?<!{_LETTER})(?:{'|'.join(spaced)})(?!{_LETTER})"
    return re.compile("|".join([alone, *joined]) if joined else alone)


def _alternatives(words: str) -> list[str]:
    """The alternatives of a pattern at its top level."""
    parts, depth, start = [], 0, 0
    for index, sign in enumerate(words):
        depth += (sign in "([") - (sign in ")]")
        if sign == "|" and not depth:
            parts.append(words[start:index])
            start = index + 1
    return [*parts, words[start:]]


def mentions(text: str, options: Mapping[str, str]) -> list[tuple[int, int, str]]:
    """(start, end, option) of every word that names an option, in order, without those that are denied."""
    hits = []
    for option, words in options.items():
        for match in _pattern(words).finditer(text):
            before = text[max(0, match.start() - 40) : match.start()]
            if not re.search(rf"(?<!{_LETTER}){NEGATIONS}(?:\s+(?!{TURNS})\w+){{0,2}}\s*$", before):
                hits.append((match.start(), match.end(), option))
    return sorted(hits)


def decided(answer: str, options: Mapping[str, str], among: frozenset[str] | None = None) -> str | None:
    """The one option that an answer names: behind a marker, in bold, alone, most often, or last, in this order."""
    text = plain(spoken(answer))
    for part in [*_announced(text), text]:
        named = [option for _, _, option in mentions(_unmarked(part), options) if among is None or option in among]
        if named:
            counts = Counter(named)
            most = max(counts.values())
            return next(option for option in reversed(named) if counts[option] == most)
    return None


def _announced(text: str) -> list[str]:
    """The parts of a text that announce themselves as the answer, the last first."""
    marked = [
        match[1]
        for match in re.finditer(rf"{MARKERS}[\"'*_\s]*(?:is|ist|est|es|e|lautet|:|=|：)+\s*([^\n]{{1,80}})", text)
    ]
    boxed = re.findall(r"\\boxed\{([^{}]{1,80})\}", text)
    bold = re.findall(r"\*\*([^*\n]{1,60})\*\*|__([^_\n]{1,60})__", text)
    return [*reversed(boxed), *reversed(marked), *(a or b for a, b in bold if not (a or b).strip().endswith(":"))]


def _unmarked(text: str) -> str:
    """Without Markdown's signs, and without the numbers that begin the lines of a list."""
    text = re.sub(r"^\s*(?:\d{1,2}[.)]|[-*+>#]+)\s+(?=\S+\s)", " ", text, flags=re.MULTILINE)
    return re.sub(r"[*_`~\"“”«»„\\{}\[\]]", " ", text)


def colour(answer: str) -> str | None:
    """The colour that an answer names; a value such as #ff0000 counts as the colour that is nearest."""
    named = decided(answer, COLOURS)
    if named is not None:
        return named
    match = _HEX.search(plain(spoken(answer)))
    if match is None:
        return None
    levels = [int(v, 16) for v in match.groups()[:3]] if match[1] else [int(v) for v in match.groups()[3:]]
    return min(_POINTS, key=lambda name: sum((a - b) ** 2 for a, b in zip(_POINTS[name], levels, strict=True)))


def colours(answer: str) -> frozenset[str]:
    """All colours that an answer names."""
    return frozenset(option for _, _, option in mentions(_unmarked(plain(spoken(answer))), COLOURS))


def number(answer: str) -> str | None:
    """The number from 0 to 10 that an answer names."""
    named = decided(answer, NUMBERS, frozenset(NUMBERS) - {"1"})
    return named if named is not None else decided(answer, NUMBERS)


def numbers(answer: str) -> frozenset[str]:
    """All numbers from 0 to 10 that an answer names."""
    return frozenset(option for _, _, option in mentions(_unmarked(plain(spoken(answer))), NUMBERS))


def side(answer: str) -> str | None:
    """left, right, top or bottom."""
    return decided(answer, SIDES)


def pitch(answer: str) -> str | None:
    """high or low."""
    return decided(answer, PITCHES)


def heard(answer: str) -> str | None:
    """tone or silence."""
    return decided(answer, HEARD)


def word_of(words: tuple[str, ...]) -> Reader:
    """A reader of one of these words."""
    options = {word: re.escape(plain(word)) for word in words}
    return lambda answer: decided(answer, options)


def says_absent(answer: str) -> bool:
    """Whether an answer says that no picture or sound came with the question."""
    return re.search(ABSENT, plain(spoken(answer))) is not None


def says_unable(answer: str) -> bool:
    """Whether an answer says that the model cannot see or hear at all."""
    return re.search(UNABLE, plain(spoken(answer))) is not None


def refuses(answer: str) -> bool:
    """Whether an answer says that it gives none, or is empty."""
    text = plain(spoken(answer))
    return not text or re.search(REFUSALS, text) is not None


def matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None
