"""CHAIR: the COCO objects that a caption names, and those of them that are not in the picture (Rohrbach et al., 2018).

The synonym list is the official file: 80 lines, the first word of each is the class. There are three modes. `pattern`
and `wordnet` follow the two reference programs with their quirks. `ours` knows irregular plurals and every listed name
of several words.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from lime_mlx.errors import DataError
from lime_mlx.evaluate.scorers import baseforms
from lime_mlx.evaluate.scorers.baseforms import ADJECTIVE, NOUN, VERB
from lime_mlx.evaluate.scorers.tagger import Tagger, part_of

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
# Words of the list, and of the pairs, that are verbs too, and verbs whose inflections look like those of the list:
# "seated" becomes seat, and "they fly kites", where kites is taken for a verb, has a kit.
_VERBS = frozenset(
    "air automobile baby backpack ball barge bat bear bed bench bicycle bike bird boat book bottle bow bowl buffalo "
    "bull bulldog bus cab cake canoe case cat chair clock cocker cop couch cow crow cub cup cycle doctor dog duck "
    "falcon father ferry fire foal fork fowl glass goose groom gull guy home horse hound jet kayak kid kite kitten "
    "knife lamb light man meter microwave monitor mother motor motorbike motorboat motorcycle mouse officer parrot "
    "people phone plane plant plate pup purse quail racket ram raven sandwich seaplane seat ship sign signal sink "
    "skateboard ski snowboard soldier spoon stool stop sub suit surfboard swan table taxi telephone tie top track "
    "traffic train truck unicycle wine yacht "
    "kit mop park plan plat pot scissor sky sport win".split()
)
_SUPPLY = frozenset("providing offering need".split())
_NOUNS_IN_ING = frozenset("parking lighting training building topping".split())
_BEFORE_NOUN = frozenset(
    "a an the this that these those its his her their my your our some several for or one go personal".split()
)


@dataclass(frozen=True)
class Mention:
    """One mention of an object. word: its base form; name: its COCO class; index: its position among the tokens."""

    word: str
    name: str
    index: int


@dataclass(frozen=True)
class CaptionObjects:
    """The mentions of a caption, and its length in tokens after names of several words were joined."""

    length: int
    mentions: tuple[Mention, ...] = ()

    @property
    def names(self) -> set[str]:
        return {mention.name for mention in self.mentions}

    def hallucinated(self, truth: Collection[str]) -> list[Mention]:
        """The mentions of classes that are not in the picture."""
        return [mention for mention in self.mentions if mention.name not in truth]

    def counts(self, truth: Collection[str]) -> tuple[int, int, int, int]:
        """Mentions, hallucinated mentions, classes of the picture that are named, and classes of the picture."""
        present = set(truth)
        return len(self.mentions), len(self.hallucinated(present)), len(self.names & present), len(present)


class ObjectFinder:
    """Finds the COCO classes that a text names.

    synonyms: the lines of the official list. mode: one of `MODES`. tagger: says the parts of speech for `wordnet`,
    which guesses them without one.
    """

    def __init__(self, synonyms: Sequence[Sequence[str]], mode: str = "ours", tagger: Tagger | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown CHAIR mode {mode!r}: one of {', '.join(MODES)}")
        self.mode, self._tagger = mode, tagger
        self.classes = _classes(synonyms, mode)
        self._pairs = PAIRS if mode != "ours" else PAIRS | {word: word for word in self.classes if " " in word}
        parts = {part for pair in (*self._pairs, *self._pairs.values()) for part in pair.split()}
        self._vocabulary = {word for word in (*self.classes, *parts) if " " not in word}
        if mode == "wordnet":
            self._vocabulary |= {"sport"}
        self._longest = max(len(pair.split()) for pair in self._pairs) if mode == "ours" else 2
        self._base = lru_cache(None)(self._base_form_of(mode))

    def _base_form_of(self, mode: str) -> Callable[[str], str]:
        if mode == "pattern":
            return baseforms.pattern
        return lambda token: baseforms.plain(token, self._vocabulary)

    @classmethod
    def read(cls, path: str | Path, mode: str = "ours") -> ObjectFinder:
        """From the official synonyms.txt. Raises `DataError` where it cannot be read or has an empty line inside."""
        return cls(read_synonyms(path), mode)

    def find(self, text: str) -> CaptionObjects:
        """The objects that a text names, every mention counted."""
        tokens = self._tokens(text)
        bases = self._lemmas(tokens) if self.mode == "wordnet" else [self._base(token) for token in tokens]
        words, positions = self._joined(bases)
        length = len(words)
        if "toilet" in words and "seat" in words:
            if self.mode == "ours":
                positions = [position for word, position in zip(words, positions, strict=True) if word != "seat"]
            # The reference programs keep the positions of all words, so that the later ones shift.
            words = [word for word in words if word != "seat"]
        mentions = tuple(
            Mention(word, self.classes[word], position)
            for word, position in zip(words, positions, strict=False)
            if word in self.classes
        )
        return CaptionObjects(length, mentions)

    def _tokens(self, text: str) -> list[str]:
        """The tokens of a text; ours are without marks of Markdown, of which the other modes know only the star."""
        return baseforms.tokens(baseforms.unmarked(text.lower()) if self.mode == "ours" else text.lower())

    def _joined(self, bases: Sequence[str]) -> tuple[list[str], list[int]]:
        """The words, where those of a listed name are one word, and the position of the first token of each."""
        words, positions, start = [], [], 0
        while start < len(bases):
            for length in range(min(self._longest, len(bases) - start), 0, -1):
                joined = " ".join(bases[start : start + length])
                if length == 1 or joined in self._pairs:
                    break
            words.append(self._pairs[joined] if length > 1 else joined)
            positions.append(start)
            start += length
        return words, positions

    def named(self, words: Sequence[str]) -> list[tuple[int, str]]:
        """The classes that a text names, each with the index of the word in which its name begins.

        words: the text in parts, with the white space between them.
        """
        words = [word.lower() for word in words]
        text, ends = "".join(words), list(accumulate(map(len, words)))
        indices, start = [], 0
        for token in self._tokens(text):
            position = text.find(token, start)
            indices.append(bisect_right(ends, max(position, start)))
            # The tokeniser changes quotation marks, so these are not in the text.
            start = start if position < 0 else position + len(token)
        return [(indices[mention.index], mention.name) for mention in self.find(text).mentions]

    def _lemmas(self, tokens: Sequence[str]) -> list[str]:
        """WordNet's base forms under the part of speech of each token."""
        parts = _guessed(tokens) if self._tagger is None else map(part_of, self._tagger.tag(tokens))
        return [
            baseforms.wordnet(token, _VERBS if part == VERB else self._vocabulary, part)
            for token, part in zip(tokens, parts, strict=True)
        ]

    def ground_truth(self, categories: Iterable[str], captions: Iterable[str]) -> set[str]:
        """The classes of a picture: its annotated categories and those that its reference captions name."""
        return set(categories).union(*(self.find(text).names for text in captions))


def read_synonyms(path: str | Path) -> list[list[str]]:
    """The lines of the official synonyms.txt. Raises `DataError` as `ObjectFinder.read` does."""
    try:
        lines = Path(path).read_text(encoding="utf-8").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the CHAIR synonym list cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(f"{path}:{number}: an empty line; each line names one class and its synonyms")
    return [line.strip().split(", ") for line in lines]


def _classes(synonyms: Sequence[Sequence[str]], mode: str) -> dict[str, str]:
    """The class of each word of the list."""
    classes = {word: line[0] for line in synonyms for word in line}
    if mode == "ours":
        return {" ".join(word.lower().split()): name for word, name in classes.items()}
    return classes


def _guessed(tokens: Sequence[str]) -> Iterator[str]:
    """A guess of the part of speech of each token: words in -ed are verbs, some in -ing too; all others are nouns."""
    for before, token in zip(("", *tokens), tokens, strict=False):
        if token == "geese":  # the tagger mostly takes it for an adjective
            yield ADJECTIVE
        else:
            yield VERB if _is_verb(token, before) else NOUN


def _is_verb(token: str, before: str) -> bool:
    if token in ("born", "lit") or token.endswith("ed"):
        return token != "potted"
    if not token.endswith("ing"):
        return False
    return before in _SUPPLY if token == "seating" else _gerund(token, before)


def _gerund(token: str, before: str) -> bool:
    return token == "monitoring" or (token not in _NOUNS_IN_ING and before not in _BEFORE_NOUN)
