"""Which tokens can name a thing: everything but the closed classes of a language, punctuation and digits.

Those of English count in every language: some models answer in English, whatever they are asked in.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lime_mlx.support.grammars import ENGLISH, Grammar

APOSTROPHES = "'\u2019"
# Behind these a word begins, though no space is before it: marks of Markdown, brackets and quotes.
OPENING = '*_~`|#>[({"\u201c'


def content_tokens(pieces: Sequence[str | None], grammar: Grammar) -> NDArray[np.bool_]:
    """(V,) bool: True for each token text that can name something.

    A text is given as it decodes, with a leading space where the token starts a word. None (a special token, a byte)
    and texts without a letter are False. Without a leading space a text continues a word and is True, unless it is
    capitalised, and so rather starts a line, or behind a mark of Markdown or a bracket: then it is looked up like a
    word. Of a text with an apostrophe, the part before it counts (dog's), or the part behind it where the language
    elides (l'homme).
    """
    closed = grammar.closed | ENGLISH.closed
    return np.array([piece is not None and _names(piece, closed, grammar.elides) for piece in pieces], dtype=bool)


def _names(piece: str, closed: frozenset[str], elides: bool) -> bool:
    joined = any(apostrophe in piece for apostrophe in APOSTROPHES)
    if joined and (piece.rstrip()[-1] in APOSTROPHES if elides else not piece[:1].isspace()):
        return False  # l', or 's and n't
    letters = [i for i, character in enumerate(piece) if character.isalpha()]
    if not letters:
        return False
    word = piece[letters[0] : letters[-1] + 1]
    opened = letters[0] > 0 and piece[letters[0] - 1] in OPENING
    starts = piece[0].isspace() or opened or word[0].isupper() or (joined and elides)
    for apostrophe in APOSTROPHES:
        word = word.split(apostrophe)[-1 if elides else 0]
    return not (starts and word.lower() in closed)
