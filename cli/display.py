"""How words and their shares look: coloured on a terminal, with numbers elsewhere."""

from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from lime_mlx.explain import Word
from lime_mlx.lrp.relevance import Shares

# Reliance from which a word has this style: from nothing of the picture to nearly all of it.
SCALE = ((0.0, "bold red"), (0.2, "dark_orange"), (0.4, "yellow"), (0.6, "green"), (0.8, "bold green"))


def style(reliance: float) -> str:
    return [name for least, name in SCALE if reliance >= least][-1]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def coloured(console: Console, word: Word) -> None:
    """The word in the colour of its reliance."""
    name = "" if word.shares is None else style(word.shares.media)
    space = word.text[: len(word.text) - len(word.text.lstrip())]
    console.print(Text(space) + Text(word.text[len(space) :], style=name), end="", soft_wrap=True)


def numbered(echo: Callable[[str], None], word: Word) -> None:
    """The word with its reliance, as in `dog[62%],`."""
    letters = word.text.rstrip(".,;:!?)")
    share = f"[{100 * word.shares.media:.0f}%]" if word.shares and letters.strip() else ""
    echo(f"{letters}{share}{word.text[len(letters) :]}")


def legend() -> Text:
    text = Text("share of picture: ")
    for least, name in SCALE:
        text.append(f"from {percent(least)} ", style=name)
    return text


def totals(shares: Shares, medium: str) -> str:
    return f"{medium} {percent(shares.media)}, prompt {percent(shares.prompt)}, own text {percent(shares.own)}"
