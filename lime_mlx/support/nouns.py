"""Where a sentence names a thing, found without a language toolkit: by the words before it.

English only. A noun stands behind an article or another determiner; without one behind "there is", a preposition, a
verb of showing or hearing, and in a list that began with a noun. Verbs and adjectives behind "is" are no nouns. It
misses nouns at the beginning of a sentence without an article ("Dogs run"), and takes an adjective that stands behind
an article for part of the name ("a red ball"). Words that are denied ("no dog") name nothing that is there.
"""

import re
from typing import NamedTuple

from lime_mlx.prompt import Noun
from lime_mlx.support.content import AUXILIARIES, CLOSED, PREPOSITIONS

DEFINITE = frozenset("the this that these those my your his her its our their both same".split())
SINGULAR = frozenset("a an another each every one single".split())
COUNTED = frozenset(
    """some any all many more most few several various multiple numerous two three four five six seven eight nine ten
    eleven twelve hundred of""".split()
)
SHOWING = frozenset(
    """show shows showing depict depicts depicting contain contains containing include includes including feature
    features featuring see sees seeing hear hears hearing has have having""".split()
)
NOT_BEFORE = frozenset("as like past up down off out together to".split())
BEFORE_NOUNS = (frozenset(PREPOSITIONS.split()) - NOT_BEFORE) | SHOWING
BEING = frozenset("is are was were be".split()) & frozenset(AUXILIARIES.split())
DENIALS = frozenset("no not never without neither nor none cannot".split())
SENTENCE_ENDS = re.compile(r"[.!?:;\n]")
WORDS = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*|,")
# Endings of words behind a noun that say what it does, or how.
VERBAL = ("ing", "ed", "ly")


class Place(NamedTuple):
    """A place where a noun may begin. article: the noun takes one. definite: it was introduced before ("the dog")."""

    article: bool
    definite: bool = False


def noun_place(before: str) -> Place | None:
    """Whether a content word behind the text `before` begins the name of a thing that is said to be there."""
    sentence = SENTENCE_ENDS.split(before)[-1].casefold()
    place: Place | None = None
    there = listing = denied = named = False
    for word in WORDS.findall(sentence):
        if word in (",", "but"):
            denied = False
        if word in DENIALS or word.endswith(("n't", "n\u2019t")):
            denied, place = True, None
        elif word in DEFINITE:
            place = Place(True, True)
        elif word in SINGULAR:
            place = Place(True)
        elif word in COUNTED or word in BEFORE_NOUNS or (word in BEING and there):
            place = Place(False)
        elif word in (",", "and", "or"):
            place = Place(False) if listing else None
        elif word in CLOSED:
            place = None
        else:
            listing, place = place is not None or (named and listing), None
        named = word not in CLOSED and word != ","
        there = word == "there" or (there and word in CLOSED)
    return None if denied else place


def nouns(text: str) -> list[Noun]:
    """The things that a text names, in its order, each as often as it is named."""
    matches = list(WORDS.finditer(text))
    named: list[Noun] = []
    end = 0
    for index, match in enumerate(matches):
        if match.start() < end or not _names(match.group()):
            continue
        place = noun_place(text[: match.start()])
        if place is None:
            continue
        end = match.end()
        for following in matches[index + 1 :]:
            if text[end : following.start()].strip() or not _names(following.group()):
                break
            end = following.end()
        named.append(Noun(noun_phrase(text[match.start() : end]), place.article))
    return named


def _names(word: str) -> bool:
    return word != "," and word.casefold() not in CLOSED


def noun_phrase(text: str) -> str:
    """The name of a thing from the content words that say it: without verbs and adverbs behind the first word."""
    first, *rest = text.split() or [""]
    kept = [first]
    for word in rest:
        if word.endswith(VERBAL):
            break
        kept.append(word)
    return " ".join(kept)
