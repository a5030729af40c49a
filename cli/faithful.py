"""What explain --check prints: whether the maps of the words are true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from lime_mlx.cli.common import LoadedRequest, note
from lime_mlx.errors import plain_text

if TYPE_CHECKING:
    from rich.console import Console

    from lime_mlx.explanation import Explanation
    from lime_mlx.probes.faithful import MapCheck

# The names of `lime_mlx.probes.kinds.KINDS`, whose import would make --help slow; the first is the map that is shown.
MAP_KINDS = ("cached", "exact", "gradient", "attention")
SHOWN = MAP_KINDS[0]
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Checking:
    """Which maps are tested: of these words, or of all that name something, and of these kinds."""

    words: tuple[str, ...]
    kinds: tuple[str, ...]


def add_checks(opened: LoadedRequest, explanation: Explanation, checking: Checking, quiet: bool) -> bool:
    """Add the checks to an explanation; how many passes they take goes to standard error first.

    False where Ctrl-C ended them: the answer stays without checks.
    """
    from lime_mlx.probes.deletion import check_maps, chosen, passes

    kinds = tuple(dict.fromkeys(checking.kinds))
    count = len(chosen(explanation.words, checking.words)) * len(kinds)
    if not quiet:
        note(f"Testing {count} map{'s' * (count > 1)}: up to {passes(count)} passes over the input.")
    try:
        explanation.checks = check_maps(
            opened.model, opened.processor, opened.prompt, opened.pictures, explanation.words, checking.words, kinds
        )
    except KeyboardInterrupt:
        note("The test of the maps was interrupted; the answer follows without it.")
        return False
    return True


def print_checks(console: Console, checks: Sequence[MapCheck]) -> None:
    """A row for each map: its curves, the areas under them and the outcome; then a sentence for each."""
    from rich.markup import escape
    from rich.table import Table

    several = len({check.kind for check in checks}) > 1
    table = Table(caption="The probability of each word while cells are covered (deletion) or shown (insertion).")
    for column in ("word", *(["map"] if several else []), "deletion", "insertion", "random", "outcome"):
        table.add_column(column, no_wrap=True, justify="right" if column == "random" else "left")
    for check in checks:
        deletion = f"{blocks(check.most.tolist())} {check.deletion:.2f}"
        insertion = f"{blocks(check.least.tolist()[::-1])} {check.insertion:.2f}"
        names = [escape(plain_text(check.word)), *([check.kind] if several else [])]
        table.add_row(*names, deletion, insertion, f"{check.chance.mean():.2f}", OUTCOMES[check.outcome])
    console.print(table)
    for check in checks:
        click.echo(plain_text(f"{check.kind}: {check.sentence}" if several else check.sentence))


OUTCOMES = {"held": "held", "failed": "not held", "unclear": "unclear"}


def blocks(curve: Sequence[float]) -> str:
    """Probabilities as blocks, one for each."""
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value * len(BLOCKS)))] for value in curve)
