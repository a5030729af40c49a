"""Where a sentence names a thing, found without a language toolkit: by the words before it.

A noun stands behind an article or another determiner; without one behind "there is", a preposition, a verb of showing
or hearing, and in a list that began with a noun. Verbs and adjectives behind "is" are no nouns. It misses nouns at the
beginning of a sentence without an article ("Dogs run"), and takes an adjective that stands before a noun for part of
the name ("a red ball"). Words that are denied ("no dog") name nothing that is there.
"""

import re

from lime_mlx.prompt import Noun, Place
from lime_mlx.support.grammars import Grammar

SENTENCE_ENDS = re.compile(r"[.!?:;\n]")
WORDS = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|,")
# A word that leans on the next one keeps its apostrophe: l', homme.
ELIDED = re.compile(r"[^\W_]+(?:-[^\W_]+)*'?|,")


def noun_place(before: str, grammar: Grammar) -> Place | None:
    """Whether a content word behind the text `before` begins the name of a thing that is said to be there."""
    sentence = _plain(SENTENCE_ENDS.split(before)[-1]).lower()
    place: Place | None = None
    opened = opening = listing = denied = named = False
    for word in (ELIDED if grammar.elides else WORDS).findall(sentence):
        if word == "," or word in grammar.contrasts:
            denied = False
        if word in grammar.denials or word.endswith(grammar.denial_endings):
            denied, place = True, None
        elif word in grammar.definite:
            place = Place(True, True, grammar.indefinite.get(word, ""))
        elif word in grammar.singular:
            place = Place(True, False, grammar.indefinite.get(word, ""))
        elif word in grammar.counted or word in grammar.before or (word in grammar.links and opened):
            place = Place(False, False, grammar.indefinite.get(word, ""))
        elif word == "," or word in grammar.lists:
            place = Place(False) if listing else None
        elif word in grammar.closed:
            place = None
        else:
            listing, place = place is not None or (named and listing), None
        named = word not in grammar.closed and word != ","
        opening = word in grammar.statements or (opening and word in grammar.closed)
        opened = word in grammar.openers or (opened and word in grammar.closed)
    return None if denied or place is None else place._replace(opening=opening)


def agrees(before: str, name: str, grammar: Grammar) -> bool:
    """Whether a name, or its beginning, may stand right behind the text `before`: not "umbrella" behind "a"."""
    *_, last = WORDS.findall(before) or [""]
    return grammar.agrees(last.lower(), name.strip())


def nouns(text: str, grammar: Grammar) -> list[Noun]:
    """The things that a text names, in its order, each as often as it is named."""
    matches = list(WORDS.finditer(text))
    named: list[Noun] = []
    end = 0
    for index, match in enumerate(matches):
        if match.start() < end or not _names(match.group(), grammar):
            continue
        place = noun_place(text[: match.start()], grammar)
        if place is None:
            continue
        end = match.end()
        for following in matches[index + 1 :]:
            if text[end : following.start()].strip() or not _names(following.group(), grammar):
                break
            end = following.end()
        if name := noun_phrase(text[match.start() : end], grammar):
            named.append(place.noun(name))
    return named


def _names(word: str, grammar: Grammar) -> bool:
    return word != "," and word.casefold() not in grammar.closed


def noun_phrase(text: str, grammar: Grammar) -> str:
    """The name of a thing from the content words that say it, a part of `text`; empty where they name nothing.

    What leans on the first word is left out (l'homme: homme), and so is all behind the name.
    """
    words = text.split()
    if grammar.elides and words:
        cut = _plain(words[0]).rfind("'") + 1
        words[0] = words[0][cut:]
        leaning = [index for index, word in enumerate(words) if index and "'" in _plain(word)]
        words = words[: min(leaning, default=len(words))]
    if not words or words[0].lower() in grammar.closed:
        return ""
    return " ".join(grammar.named(words))


def _plain(text: str) -> str:
    """The text with plain apostrophes."""
    return text.replace("\u2019", "'")
