"""The words of an answer as a piece of HTML, for a notebook: tinted by their share of the picture or the sound."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lime_mlx.errors import plain_text
from lime_mlx.words import Word

# Red, green and blue of the tint: the series colour of pictures and sounds on the pages.
TINT = "0,112,179"


def words_html(words: Sequence[Word], text: str) -> str:
    """A paragraph. A word's tint is its reliance; a flagged word is underlined, and its title has the numbers."""
    if not words:
        return f"<p>{escape(plain_text(text))}</p>"
    return f"<p>{''.join(_span(word) for word in words)}</p>"


def _span(word: Word) -> str:
    letters = word.text.lstrip()
    space = word.text[: len(word.text) - len(letters)]
    style = f"background:rgba({TINT},{0.5 * word.shares.reliance:.2f})" if word.shares else ""
    if word.flagged:
        style += ";text-decoration:underline wavy #bf4d00"
    return f'{escape(space)}<span style="{style}" title="{escape(title(word))}">{escape(plain_text(letters))}</span>'


def title(word: Word) -> str:
    """The numbers of a word in a sentence."""
    parts = []
    if word.shares is not None:
        parts += [f"{name} {100 * share:.0f} %" for name, share in word.shares._asdict().items() if share > 0]
    if word.p_unsupported is not None:
        parts.append(f"{100 * word.p_unsupported:.0f} % unsupported")
    return ", ".join(parts)
