"""How words and their shares look: coloured on a terminal, with numbers elsewhere."""

from collections.abc import Iterable

import click
from rich.console import Console
from rich.text import Text

from lime_mlx.explain import Word, mean, words
from lime_mlx.lrp.relevance import Shares

# Reliance from which a word has this style. Orange rests on words, blue on the picture; both colours have the luminance
# that black and white backgrounds leave about equally legible.
SCALE = ((0.0, "#d75f00"), (0.2, "#af8700"), (0.4, ""), (0.6, "#0087d7"), (0.8, "bold #0087d7"))
ENOUGH_COLOURS = ("256", "truecolor")


def explained(said: Iterable[tuple[str, Shares | None]], medium: str) -> None:
    """Print words with their reliance as they come, then where the answer came from; `medium` names the input."""
    console = Console(highlight=False)
    colours = console.color_system in ENOUGH_COLOURS and not console.no_color
    shares = []
    try:
        for word in words(said):
            shares.append(word.shares)
            if colours:
                console.print(coloured(word), end="", soft_wrap=True)
            else:
                click.echo(numbered(word), nl=False)
    finally:
        click.echo()
    if total := mean(shares):
        click.echo(f"{medium} {percent(total.media)}, prompt {percent(total.prompt)}, own text {percent(total.own)}")
    if colours:
        console.print(legend(medium))


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def style(reliance: float) -> str:
    return [name for least, name in SCALE if reliance >= least][-1]


def coloured(word: Word) -> Text:
    """The word in the colour of its reliance."""
    letters = word.text.lstrip()
    space = word.text[: len(word.text) - len(letters)]
    return Text(space) + Text(letters, style=style(word.shares.media) if word.shares else "")


def numbered(word: Word) -> str:
    """The word with its reliance, as in `dog[62%],`."""
    letters = word.text.rstrip(".,;:!?)")
    if not word.shares or not letters.strip():
        return word.text
    return f"{letters}[{100 * word.shares.media:.0f}%]{word.text[len(letters) :]}"


def legend(medium: str) -> Text:
    text = Text(f"share of {medium} in %:")
    for (least, name), most in zip(SCALE, [*(least for least, _ in SCALE[1:]), 1.0], strict=True):
        text.append(f" {100 * least:.0f}-{100 * most:.0f}", style=name)
    return text
