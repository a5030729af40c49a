"""Free answers about a built-in scene: whether one is right, and what is wrong with it otherwise. No model judges.

An answer is right when it holds every word of the world that the right answer holds (kinds, settings, colours, numbers,
yes, no), none that is false, none more often than the right answer does, and when it is whole, in the form that was
asked for, and no loop.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lime_mlx.scenes import World
from lime_mlx.scenes.talk import LIST, ORDERED, VERDICT, WORD, named

_WORDS = re.compile(r"[a-z0-9']+")
_SMALL = "a|an|the|and|or|is|are|of|in|on|with|beside|after|before"
# A word that wants another after it, before a mark or at the end; an article before a word that takes none.
_CUT = re.compile(rf"\b(?:{_SMALL})\s*(?:[,.;:!?]|$)|\b(?:a|an|the) (?:{_SMALL})\b", re.IGNORECASE)
_SENTENCE = re.compile(r"\b(?:a|an|the|there|is|are)\b", re.IGNORECASE)
# A run of at most so many words that comes twice in a row is a loop.
LONGEST = 12
# It need not be a number: "the left one".
PRONOUN = "one"


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORDS.findall(text.lower())


def loops(text: str) -> bool:
    """Whether some words come twice in a row: "the the", "a ball and a ball and", "Yes. Yes."."""
    listed = words(text)
    return any(
        listed[start : start + length] == listed[start + length : start + 2 * length]
        for length in range(1, min(LONGEST, len(listed) // 2) + 1)
        for start in range(len(listed) - 2 * length + 1)
    )


def fault(text: str, truth: Mapping[str, Sequence[str]], world: World, ended: bool = True) -> str:
    """What is wrong with an answer, in a few words; "" for a right one.

    truth: of a `Talk`. ended: the model ended the answer itself.
    """
    says, may, form = list(truth["says"]), truth["may"], truth["form"]
    found, alone = named(text, world), words(text)
    if not ended or not alone:
        return "not finished"
    if loops(text):
        return "a loop"
    if WORD in form and len(alone) != 1:
        return "more than one word"
    if LIST in form and _SENTENCE.search(text):
        return "not a list of names"
    if _CUT.search(text):
        return "words are missing"
    if VERDICT in form and alone == says[:1]:
        return ""
    return _of_world(found, says, may) or _of_order(found, says, ORDERED in form, VERDICT in form)


def _of_world(found: Sequence[str], says: Sequence[str], may: Sequence[str]) -> str:
    given, wanted = Counter(found), Counter(says)
    for word in dict.fromkeys(found):
        if word not in wanted and word not in (*may, PRONOUN):
            return f"false: {word}"
        if given[word] > max(wanted[word], word in (*may, PRONOUN)):
            return f"said again: {word}"
    return next((f"not said: {word}" for word in wanted if word not in given), "")


def _of_order(found: Sequence[str], says: Sequence[str], ordered: bool, verdict: bool) -> str:
    first = [word for word in dict.fromkeys(found) if word in says]
    if ordered and first != list(dict.fromkeys(says)):
        return "another order"
    return f"does not begin with {says[0]}" if verdict and found[0] != says[0] else ""
