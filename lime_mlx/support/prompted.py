"""Which tokens a text brought in: the words that it says itself, in any spelling that an answer may give them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"[^\W_]+")


def spellings(pieces: Sequence[str | None]) -> dict[str, list[int]]:
    """From a text without spaces around it and without case to the tokens that say it; None is no text."""
    tokens: dict[str, list[int]] = {}
    for token, piece in enumerate(pieces):
        if piece is not None and (text := folded(piece)):
            tokens.setdefault(text, []).append(token)
    return tokens


def prompted_tokens(
    texts: Iterable[str],
    pieces: Sequence[str | None],
    tokens: Mapping[str, Sequence[int]],
    encode: Callable[[str], Sequence[int]],
) -> NDArray[np.bool_]:
    """(V,) bool: the tokens that say a word of `texts`, a piece of one as it is encoded, or begin a form of one.

    The forms of a word are its lower, capitalised and upper case, and its simple English plural and singular, each with
    and without a leading space. pieces: the text of each of the V tokens. tokens: from `spellings`. encode: a text to
    its tokens, with none before it.
    """
    prompted = np.zeros(len(pieces), dtype=bool)

    def known(text: str) -> list[int]:
        return [token for token in encode(text) if token < len(pieces) and folded(pieces[token] or "")]

    def mark(text: str) -> None:
        prompted[list(tokens.get(folded(text), ()))] = True

    for text in texts:
        for word in {text, *WORD.findall(text)}:
            for token in (*known(word), *known(f" {word}")):
                mark(pieces[token] or "")
        for form in {form for word in WORD.findall(text) for form in forms(word)}:
            mark(form)
            for spelling in {form, form.capitalize(), form.upper()}:
                for start in (spelling, f" {spelling}"):
                    prompted[known(start)[:1]] = True
    return prompted


def forms(word: str) -> set[str]:
    """A word in lower case, with its simple English plural and singular: dogs, dog; boxes, box; cities, city.

    Spelling alone decides, so that a form may be no word.
    """
    word = word.lower()
    numbers = {word, f"{word}s"}
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        numbers.add(f"{word}es")
    if word.endswith("y"):
        numbers.add(f"{word[:-1]}ies")
    if len(word) > 3 and not word.endswith("ss"):
        endings = (("s", ""), ("es", ""), ("ies", "y"))
        numbers |= {word.removesuffix(plural) + singular for plural, singular in endings if word.endswith(plural)}
    return numbers


def folded(text: str) -> str:
    """A text without spaces around it and without case."""
    return text.strip().casefold()
