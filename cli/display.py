"""How words and their shares look: coloured on a terminal, with numbers elsewhere."""

from collections.abc import Iterable, Iterator, Sequence

import click
from rich.console import Console
from rich.text import Text

from lime_mlx.prompt import Span
from lime_mlx.support.detector import Detector
from lime_mlx.words import Word, judge, mean, moments, words

# Reliance from which a word has this style. Orange rests on words, blue on the picture; both colours have the luminance
# that black and white backgrounds leave about equally legible.
SCALE = ((0.0, "#d75f00"), (0.2, "#af8700"), (0.4, ""), (0.6, "#0087d7"), (0.8, "bold #0087d7"))
ENOUGH_COLOURS = ("256", "truecolor")
FLAGGED = "bold underline #d70000"
PUNCTUATION = ".,;:!?)\"'"
# How many words are named of a model that was not calibrated.
LEAST = 3


def show(said: Iterable[tuple], medium: str, *, explain: bool, flag: bool, detector: Detector | None) -> list[Word]:
    """Print words as they come: with their reliance, with a mark where they have no support, or both.

    `medium` names the input: where the answer came from is the last line of an explained one. Returns the words.
    """
    console = Console(highlight=False)
    colours = console.color_system in ENOUGH_COLOURS and not console.no_color
    shown = []
    try:
        for word in words(said):
            shown.append(word)
            flagged = flag and detector is not None and any(v and v.flagged for v in judge([word], detector))
            if colours:
                console.print(coloured(word, explain, flagged), end="", soft_wrap=True)
            else:
                click.echo(numbered(word, explain, flagged), nl=False)
    finally:
        click.echo()
    if explain and (total := mean(word.shares for word in shown)):
        click.echo(f"{medium} {percent(total.media)}, prompt {percent(total.prompt)}, own text {percent(total.own)}")
    if explain and colours:
        console.print(legend(medium))
    return shown


def heard(words: Iterable[Word], spans: Sequence[Span], seconds: float) -> Iterator[str]:
    """A line for each sound: when the words that name something were heard in it."""
    named = [word for word in words if word.relevance is not None and word.evidence is not None]
    for number, span in enumerate((span for span in spans if span.kind == "audio"), start=1):
        found = [(bare(word.text), moments(word.relevance, span, seconds)) for word in named]
        times = ", ".join(f"{text} {when[0]:.1f}-{when[1]:.1f} s" for text, when in found if when)
        if times:
            yield f"heard{f' in sound {number}' if len(spans) > 1 else ''}: {times}"


def doubtful(words: Sequence[Word], detector: Detector | None) -> str | None:
    """What there is to say of the words without support; of a model that was not calibrated, which have the least."""
    verdicts = sorted(filter(None, judge(words, detector)), key=lambda verdict: verdict.rank)
    if detector is None:
        least = ", ".join(verdict.text for verdict in verdicts[:LEAST])
        return f"Least supported, by rank in this answer (the model is not calibrated): {least}" if least else None
    flagged = ", ".join(f"{v.text} ({percent(v.doubt)})" for v in verdicts if v.flagged)
    return f"Without support, with the probability of that: {flagged}" if flagged else None


def bare(text: str) -> str:
    return text.strip().strip(PUNCTUATION)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def style(reliance: float) -> str:
    return [name for least, name in SCALE if reliance >= least][-1]


def coloured(word: Word, explain: bool = True, flagged: bool = False) -> Text:
    """The word in the colour of its reliance, underlined in red where it has no support."""
    letters = word.text.lstrip()
    space = word.text[: len(word.text) - len(letters)]
    look = style(word.shares.media) if explain and word.shares else ""
    return Text(space) + Text(letters, style=FLAGGED if flagged else look)


def numbered(word: Word, explain: bool = True, flagged: bool = False) -> str:
    """The word with its reliance and its mark, as in `dog[62%],` or `boat[8% ?]`."""
    letters = word.text.rstrip(PUNCTUATION)
    notes = [f"{100 * word.shares.media:.0f}%"] if explain and word.shares else []
    notes += ["?"] if flagged else []
    if not notes or not letters.strip():
        return word.text
    return f"{letters}[{' '.join(notes)}]{word.text[len(letters) :]}"


def legend(medium: str) -> Text:
    text = Text(f"share of {medium} in %:")
    for (least, name), most in zip(SCALE, [*(least for least, _ in SCALE[1:]), 1.0], strict=True):
        text.append(f" {100 * least:.0f}-{100 * most:.0f}", style=name)
    return text
