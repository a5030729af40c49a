"""lime-mlx explain: where each word of an answer came from, as a table, JSON or a file with maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lime_mlx.cli import INTERRUPTED
from lime_mlx.cli.common import (
    LoadedRequest,
    Request,
    Stream,
    cut_note,
    echo_json,
    load_request,
    note,
    noting,
    prepare_backend,
    takes_input,
)
from lime_mlx.errors import LimeError, PromptError, plain_text

if TYPE_CHECKING:
    from rich.table import Table

    from lime_mlx.explanation import Explanation
    from lime_mlx.words import Word


@click.command()
@takes_input
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page or a figure: .png, .svg, .pdf or .html.",
)
@click.option(
    "--diagnose", is_flag=True, help="Show how each layer (LIAE) and head (IAF) attended to the picture or sound."
)
@click.option("--check-input", is_flag=True, help="Warn when the answer is the same for a blank picture or sound.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--quiet/--verbose", default=False, help="Print the answer and warnings, without notes.")
def command(
    request: Request, output: Path | None, diagnose: bool, check_input: bool, as_json: bool, quiet: bool
) -> None:
    """Show where each word of an answer came from, and which words have no support.

    \b
    lime-mlx explain photo.jpg
    lime-mlx explain street.wav --output street.html
    lime-mlx explain photo.jpg --diagnose --json
    """
    if not request.image and not request.audio:
        raise PromptError("There is no picture or sound to explain words by: give one, as in lime-mlx explain x.jpg.")
    if output is not None:
        check_output(output, request)
    notes: list[str] = []
    prepare_backend(notes, quiet)
    opened = load_request(request, notes)
    explanation, interrupted = explained(opened, request, diagnose, check_input, notes)
    if explanation is None:
        click.get_current_context().exit(INTERRUPTED)
    if output is not None:
        explanation.save(output)
        notes.append(f"Wrote {output}")
    if as_json:
        echo_json({**explanation.to_dict(), "model": opened.name})
    else:
        print_tables(explanation)
    if not quiet:
        note(*notes, *cut_note(explanation.answer, request.max_tokens))
        note(*([] if as_json else explanation.answer.notices))
    note(*([] if as_json else explanation.warnings[len(explanation.answer.notices) :]))
    if interrupted:
        click.get_current_context().exit(INTERRUPTED)


def check_output(output: Path, request: Request) -> None:
    """Refuse, before anything is loaded, a file that cannot be written, or that is the user's own picture or sound."""
    from lime_mlx.render import answer

    answer.check(output)
    inputs = [Path(file) for file in (*request.image, *request.audio)]
    if output.exists() and any(file.exists() and file.samefile(output) for file in inputs):
        raise LimeError(f"{output} is the input itself; name another file with --output.")


def explained(
    opened: LoadedRequest, request: Request, diagnose: bool, check_input: bool, notes: list[str]
) -> tuple[Explanation | None, bool]:
    """The explanation of what the model answered before Ctrl-C, and whether that came; None when nothing was."""
    from lime_mlx.explanation import explained
    from lime_mlx.generation import calibration_note, resolve_method, stream_generate

    with noting(notes):
        method = resolve_method(request.method, opened.prompt, opened.model)
    notes += [] if request.method else calibration_note(method, opened.prompt, opened.model)
    responses = stream_generate(
        opened.model,
        opened.processor,
        opened.prompt,
        method=method,
        max_tokens=request.max_tokens,
        relevance=True,
        notice=notes.append,
    )
    stream = Stream(responses)
    with noting(notes):
        kept = list(stream)
    if not kept:
        return None, stream.interrupted
    explanation = explained(
        kept,
        opened.model,
        opened.prompt,
        question=request.prompt,
        method=request.method or method.name,
        pictures=opened.pictures,
        diagnose=diagnose,
        check_input=check_input,
    )
    return explanation, stream.interrupted


def print_tables(explanation: Explanation) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    click.echo(plain_text(explanation.text))
    console.print(words_table(explanation))
    if explanation.focus:
        console.print(focus_table(explanation))


def words_table(explanation: Explanation) -> Table:
    """A row for each word: its shares, its support, and when it was heard."""
    from rich.markup import escape
    from rich.table import Table

    from lime_mlx.cli.display import INPUTS
    from lime_mlx.lrp.relevance import Shares

    kinds = {span.kind for span in explanation.spans}
    columns = [name for name in Shares._fields if name in kinds or name not in INPUTS]
    sounds = any(word.seconds for word in explanation.words)
    outside = explanation.answer.calibrated_for_input is False
    table = Table(caption="The model is not calibrated for such input." if outside else None)
    for column in ("word", *columns, "without support", *(["heard"] if sounds else [])):
        table.add_column(column, justify="left" if column == "word" else "right")
    for word in explanation.words:
        shares = [getattr(word.shares, name, None) for name in columns]
        cells = [
            escape(plain_text(word.text.strip())),
            *("" if share is None else f"{100 * share:.0f} %" for share in shares),
        ]
        cells.append(support(word))
        if sounds:
            cells.append(", ".join(f"{start:.1f}-{stop:.1f} s" for start, stop in filter(None, word.seconds)))
        table.add_row(*cells, style="red" if word.flagged else None)
    return table


def support(word: Word) -> str:
    """The probability that a word has no support, with a mark at the threshold; else its rank in the answer."""
    if word.rank is None:
        return ""
    if word.p_unsupported is None:
        return f"rank {word.rank}"
    return f"{100 * word.p_unsupported:.0f} %{' ?' if word.flagged else ''}"


def focus_table(explanation: Explanation) -> Table:
    from rich.markup import escape
    from rich.table import Table

    caption = "LIAE: 0 one position, 1 all positions alike; IAF: the share of each head's attention, in %."
    table = Table(caption=caption)
    for column in ("word", "layer", "LIAE", "IAF by head"):
        table.add_column(column, justify="right" if column in ("layer", "LIAE") else "left")
    for word, focus in zip(explanation.words, explanation.focus, strict=True):
        for layer, (liae, iaf) in enumerate(zip(focus.liae, focus.iaf, strict=True)):
            heads = " ".join(f"{100 * share:3.0f}" for share in iaf)
            table.add_row(escape(plain_text(word.text.strip())) if not layer else "", str(layer), f"{liae:.3f}", heads)
    return table
