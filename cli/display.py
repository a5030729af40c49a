"""How an answer looks on a terminal: words with their shares, coloured where the terminal has colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from lime_mlx.errors import plain_text
from lime_mlx.words import PUNCTUATION, Word, mean_shares, ranked

if TYPE_CHECKING:
    from lime_mlx.lrp.relevance import Shares
    from lime_mlx.words import Token

# Reliance from which a word has this style. Orange rests on words, blue on the picture; both colours have the luminance
# that black and white backgrounds leave about equally legible.
SCALE = ((0.0, "#d75f00"), (0.2, "#af8700"), (0.4, ""), (0.6, "#0087d7"), (0.8, "bold #0087d7"))
ENOUGH_COLOURS = ("256", "truecolor")
FLAGGED = "bold underline #d70000"
# The shares of pictures and of sounds.
INPUTS = ("image", "audio")
# How many words are named of a model that was not calibrated.
LEAST = 3


def plain(tokens: Iterable[Token]) -> None:
    """Print the text as it comes; whatever ends it, the line is closed."""
    started = False
    try:
        for token in tokens:
            text = token.text if started else token.text.lstrip()
            started = started or bool(text)
            click.echo(plain_text(text), nl=False)
    finally:
        click.echo()


def show(
    words: Iterable[Word],
    medium: str,
    explain: bool,
    flag: bool,
    calibrated: bool,
    quiet: bool = False,
    for_input: bool = True,
) -> None:
    """Print words as they come: with their reliance, with a mark where they have no support, or both.

    `medium` names the input: where the answer came from is the last line of an explained one. Flagged words, or of a
    model that was not calibrated, or not `for_input` of this kind, those with the least support, are named on standard
    error unless `quiet`.
    """
    console = Console(highlight=False)
    colours = has_colours(console)
    shown: list[Word] = []
    try:
        for word in words:
            word = replace(word, text=plain_text(word.text))
            shown.append(word)
            if colours:
                console.print(coloured(word, explain, flag), end="", soft_wrap=True)
            else:
                click.echo(numbered(word, explain, flag), nl=False)
    finally:
        click.echo()
    if explain and (total := mean_shares(word.shares for word in shown)):
        click.echo(", ".join(parts(total)))
    if explain and colours:
        console.print(legend(medium))
    if explain:
        for line in heard(shown):
            click.echo(line)
    if flag and not quiet and (sentence := unsupported(ranked(shown), calibrated, for_input)):
        click.echo(sentence, err=True)


def has_colours(console: Console) -> bool:
    """Whether a terminal shows enough of them, and wants them."""
    return console.color_system in ENOUGH_COLOURS and not console.no_color


def parts(shares: Shares) -> Iterator[str]:
    """The shares of an answer; that of a kind of input on which it does not rest at all is left out."""
    for name, share in shares._asdict().items():
        if share or name not in INPUTS or (name == "image" and not shares.audio):
            yield f"{name} {percent(share)}"


def heard(words: Sequence[Word]) -> Iterator[str]:
    """A line for each sound: when the words that name something were heard in it."""
    sounds = max((len(word.seconds) for word in words), default=0)
    for number in range(sounds):
        intervals = [(word.name, word.seconds[number]) for word in words if word.seconds]
        times = ", ".join(f"{name} {when[0]:.1f}-{when[1]:.1f} s" for name, when in intervals if when)
        if times:
            yield f"heard{f' in sound {number + 1}' if sounds > 1 else ''}: {times}"


def unsupported(words: Sequence[Word], calibrated: bool, for_input: bool = True) -> str | None:
    """What there is to say of the words without support; of a model that was not calibrated, which have the least.

    for_input: whether the model was calibrated on inputs like this one.
    """
    naming = sorted((word for word in words if word.rank is not None), key=lambda word: word.rank or 0)
    if not calibrated or not for_input:
        least = ", ".join(list(dict.fromkeys(word.name for word in naming))[:LEAST])
        lacking = "not calibrated for such input" if calibrated else "not calibrated"
        return f"Least supported, by rank in this answer (the model is {lacking}): {least}" if least else None
    flagged: dict[str, float] = {}
    for word in naming:
        if word.flagged and word.p_unsupported is not None:
            flagged.setdefault(word.name, word.p_unsupported)
    listed = ", ".join(f"{name} ({percent(p_unsupported)})" for name, p_unsupported in flagged.items())
    return f"Probably without support: {listed}" if listed else None


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def style(reliance: float) -> str:
    return [name for least, name in SCALE if reliance >= least][-1]


def coloured(word: Word, explain: bool = True, flag: bool = False, number: bool = True) -> Text:
    """The word in the colour of its reliance, underlined in red where it has no support, with its number."""
    letters = word.text.lstrip()
    look = style(word.shares.reliance) if explain and word.shares else ""
    text = Text(word.text[: len(word.text) - len(letters)])
    text.append(letters.rstrip(PUNCTUATION), style=FLAGGED if flag and word.flagged else look)
    if (mark := marks(word, explain and number, flag)) and letters.strip(PUNCTUATION):
        text.append(mark, style="dim")
    text.append(letters[len(letters.rstrip(PUNCTUATION)) :], style=look)
    return text


def numbered(word: Word, explain: bool = True, flag: bool = False) -> str:
    """The word with its reliance and its mark, as in `dog[62%],` or `boat[8% ?]`."""
    letters = word.text.rstrip(PUNCTUATION)
    return f"{letters}{marks(word, explain, flag) if letters.strip() else ''}{word.text[len(letters) :]}"


def marks(word: Word, explain: bool, flag: bool) -> str:
    """What stands behind a word: `[62%]`, `[?]` or `[8% ?]`; nothing where there is nothing to say."""
    entries = [f"{100 * word.shares.reliance:.0f}%"] if explain and word.shares else []
    entries += ["?"] if flag and word.flagged else []
    return f"[{' '.join(entries)}]" if entries else ""


def legend(medium: str) -> Text:
    text = Text(f"share of {medium} in %:")
    for (least, name), most in zip(SCALE, [*(least for least, _ in SCALE[1:]), 1.0], strict=True):
        text.append(f" {100 * least:.0f}-{100 * most:.0f}", style=name)
    return text
