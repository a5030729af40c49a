"""lime-mlx explain: where each word of an answer came from, as a table, JSON or a file with maps."""

from __future__ import annotations

from dataclasses import replace
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
from lime_mlx.cli.faithful import MAP_KINDS, SHOWN, Checking, add_checks, print_checks
from lime_mlx.cli.page import about, open_page
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
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option("--contrast", metavar="WORD", help="Show what speaks for each word and against this one in its place.")
@click.option(
    "--diagnose", is_flag=True, help="Show how each layer (LIAE) and head (IAF) attended to the picture or sound."
)
@click.option("--check-input", is_flag=True, help="Warn when the answer is the same for a blank picture or sound.")
@click.option("--check", is_flag=True, help="Test whether the maps are true, by covering what they call relevant.")
@click.option("--check-word", multiple=True, metavar="WORD", help="Test the map of this word only; repeat it.")
@click.option(
    "--check-map",
    multiple=True,
    type=click.Choice(MAP_KINDS),
    help="Test this kind of map; repeat it.  [default: cached, the map that is shown]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--quiet/--verbose", default=False, help="Print the answer and warnings, without notes.")
def command(
    request: Request,
    output: Path | None,
    show: bool,
    contrast: str | None,
    diagnose: bool,
    check_input: bool,
    check: bool,
    check_word: tuple[str, ...],
    check_map: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Show where each word of an answer came from, and which words have no support.

    \b
    lime-mlx explain photo.jpg
    lime-mlx explain street.wav --output street.html
    lime-mlx explain photo.jpg --method none --method choose --open
    lime-mlx explain photo.jpg --contrast cat --output photo.html
    lime-mlx explain photo.jpg --diagnose --json
    lime-mlx explain photo.jpg --check-word dog --check-map cached --check-map attention
    """
    if not request.image and not request.audio:
        raise PromptError("There is no picture or sound to explain words by: give one, as in lime-mlx explain x.jpg.")
    check_contrast(contrast)
    checking = Checking(check_word, check_map or (SHOWN,)) if check or check_word or check_map else None
    if output is not None:
        check_output(output, request, show)
    notes: list[str] = []
    prepare_backend(notes, quiet)
    opened = load_request(request, notes)
    explanations, interrupted = all_explained(opened, request, diagnose, check_input, contrast, notes)
    if checking is not None and not interrupted:
        interrupted = not all(add_checks(opened, explanation, checking, quiet) for explanation in explanations)
    if not explanations:
        click.get_current_context().exit(INTERRUPTED)
    if output is not None:
        explanations[0].save(output, *explanations[1:])
        notes.append(f"Wrote {output}")
    if show:
        notes.append(open_page(explanations, output))
    if as_json:
        values = [{**explanation.to_dict(), "model": opened.name} for explanation in explanations]
        echo_json({"answers": values} if len(request.methods) > 1 else values[0])
    else:
        for explanation in explanations:
            print_tables(explanation, len(request.methods) > 1)
    note(*([] if quiet else notes))
    for explanation in explanations:
        note_answer(explanation, request, as_json, quiet)
    if interrupted:
        click.get_current_context().exit(INTERRUPTED)


def note_answer(explanation: Explanation, request: Request, as_json: bool, quiet: bool) -> None:
    """What the user should know of an answer; JSON has it, too."""
    if not quiet:
        note(*cut_note(explanation.answer, request.max_tokens))
        note(*([] if as_json else explanation.answer.notices))
    note(*([] if as_json else explanation.warnings[len(explanation.answer.notices) :]))


def check_contrast(contrast: str | None) -> None:
    if contrast is not None and not any(map(str.isalnum, contrast)):
        raise PromptError(f"--contrast {contrast!r} is no word: name one, as in --contrast cat.")


def check_output(output: Path, request: Request, show: bool) -> None:
    """Refuse, before anything is loaded, a file that cannot be written, or that is the user's own picture or sound."""
    from lime_mlx.render import answer
    from lime_mlx.render.page import is_page

    answer.check(output)
    if show and not is_page(output):
        raise LimeError(f"--open shows a page, and {output} is none: name a .html file, or leave --output out.")
    if len(request.methods) > 1 and not is_page(output):
        raise LimeError(f"Several methods stand together on a page only: name a .html file, not {output}.")
    inputs = [Path(file) for file in (*request.image, *request.audio)]
    if output.exists() and any(file.exists() and file.samefile(output) for file in inputs):
        raise LimeError(f"{output} is the input itself; name another file with --output.")


def all_explained(
    opened: LoadedRequest,
    request: Request,
    diagnose: bool,
    check_input: bool,
    contrast: str | None,
    notes: list[str],
) -> tuple[list[Explanation], bool]:
    """An explanation for each method, of what the model answered before Ctrl-C, and whether that came."""
    explanations: list[Explanation] = []
    for method in request.methods or (None,):
        one = replace(request, method=method)
        explanation, interrupted = explained(opened, one, diagnose, check_input, contrast, notes)
        explanations += [] if explanation is None else [explanation]
        if interrupted:
            return explanations, True
    return explanations, False


def explained(
    opened: LoadedRequest,
    request: Request,
    diagnose: bool,
    check_input: bool,
    contrast: str | None,
    notes: list[str],
) -> tuple[Explanation | None, bool]:
    """The explanation of what the model answered before Ctrl-C, and whether that came; None when nothing was."""
    from lime_mlx.decoding import calibration_note, resolve_method
    from lime_mlx.explanation import explained
    from lime_mlx.generation import stream_generate

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
        kv=request.kv,
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
        sounds=opened.sounds,
        about=about(opened, request),
        diagnose=diagnose,
        check_input=check_input,
        contrast=contrast,
    )
    return explanation, stream.interrupted


def print_tables(explanation: Explanation, named: bool = False) -> None:
    """The answer and its tables; named: under the name of its method."""
    from rich.console import Console

    console = Console(highlight=False)
    if named:
        click.echo(f"{explanation.method}:")
    click.echo(plain_text(explanation.text))
    console.print(words_table(explanation))
    if explanation.focus:
        console.print(focus_table(explanation))
    if explanation.checks:
        print_checks(console, explanation.checks)


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
    rivals = {contrast.rival for contrast in explanation.contrasts if contrast is not None}
    against = [f"logit against {rival}" for rival in rivals]
    for column in ("word", *columns, "without support", *(["heard"] if sounds else []), *against):
        table.add_column(column, justify="left" if column == "word" else "right")
    for number, word in enumerate(explanation.words):
        shares = [getattr(word.shares, name, None) for name in columns]
        cells = [
            escape(plain_text(word.text.strip())),
            *("" if share is None else f"{100 * share:.0f} %" for share in shares),
        ]
        cells.append(support(word))
        if sounds:
            cells.append(", ".join(f"{start:.1f}-{stop:.1f} s" for start, stop in filter(None, word.seconds)))
        if against:
            contrast = explanation.contrasts[number]
            cells.append("" if contrast is None else f"{contrast.margin:+.1f}")
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
