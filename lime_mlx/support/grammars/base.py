"""What is known of a language: its closed classes, and how it asks whether a thing is there.

The closed classes are the words that a language has a short, fixed list of: articles, pronouns, prepositions,
conjunctions, auxiliaries, quantifiers, numerals, particles. Counted with them are the words that only frame a
description ("the picture shows"). All lists are in lower case; "l'" stands for a word that leans on the next one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lime_mlx.prompt import Noun

# Where a thing may be: in one picture or sound, and in several.
Places = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The words of a language by what they say of the next one, and its question.

    closed: all words that name nothing. definite: determiners of things that were introduced before. singular:
    indefinite determiners of one thing. counted: other determiners. before: words behind which a noun stands
    without a determiner. openers, links: a noun may stand behind a link that follows an opener, with closed words
    between them, as in "there" and "is". statements: words that begin a statement that a thing is there. lists:
    conjunctions in a list. contrasts: conjunctions that end a denial. denials: words that deny what follows;
    denial_endings: endings of such words.

    named: from content words in a row to the first of them that are the name of a thing; none if they name nothing.
    elides: words lean on the next one with an apostrophe. agrees: whether a name, or its beginning, may stand right
    behind a determiner; "a umbrella" may not.

    asked: from a noun, and where it may be, to the question whether it is there. indefinite: from a determiner of the
    answer to the one that the question takes; none for a determiner that is not there. places: by kind of media.
    joined: what stands between two places. yes, no: the words of the answer.
    """

    name: str
    closed: frozenset[str]
    definite: frozenset[str]
    singular: frozenset[str]
    counted: frozenset[str]
    before: frozenset[str]
    openers: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    statements: frozenset[str] = frozenset()
    lists: frozenset[str]
    contrasts: frozenset[str]
    denials: frozenset[str]
    denial_endings: tuple[str, ...] = ()
    named: Callable[[Sequence[str]], Sequence[str]]
    elides: bool = False
    agrees: Callable[[str, str], bool] = lambda determiner, name: True
    asked: Callable[[Noun, str], str]
    indefinite: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Places]
    joined: str
    yes: Sequence[str]
    no: Sequence[str]

    def question(self, noun: Noun, kinds: Sequence[tuple[str, bool]]) -> str:
        """Whether a thing is there. kinds: of the media that are asked about, each with whether there are several."""
        return self.asked(noun, self.joined.join(self.places[kind][several] for kind, several in kinds))


def words(*lists: str) -> frozenset[str]:
    """The words of texts."""
    return frozenset(" ".join(lists).split())


def closed(*lists: str) -> frozenset[str]:
    """The words of texts, those that lean on the next one also without their apostrophe, as tokens may have them."""
    found = words(*lists)
    return found | {word.rstrip("'") for word in found}


def pairs(text: str) -> dict[str, str]:
    """From "der:ein das:ein" to a dict."""
    return dict(pair.split(":") for pair in text.split())


def with_determiner(noun: Noun) -> str:
    """un chien, un'auto, acqua."""
    space = " " if noun.determiner and not noun.determiner.endswith("'") else ""
    return f"{noun.determiner}{space}{noun.text}"


def first_noun(adjectives: frozenset[str]) -> Callable[[Sequence[str]], Sequence[str]]:
    """The first word, with the adjectives that may stand before it: other adjectives and verbs stand behind nouns."""

    def named(words: Sequence[str]) -> Sequence[str]:
        count = 0
        while count < len(words) - 1 and words[count].lower() in adjectives:
            count += 1
        return words[: count + 1]

    return named
