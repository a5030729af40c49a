"""lime-mlx explain: where each word of an answer came from, as a table, JSON or a picture."""

import json
import os
from pathlib import Path

import click

from lime_mlx.cli import INTERRUPTED
from lime_mlx.cli.common import (
    Stream,
    answered,
    ask,
    default_method,
    medium,
    note,
    pieces,
    prepare_backend,
    question,
    summary,
    takes_input,
    warnings_of,
)
from lime_mlx.errors import PromptError

KINDS = {"image": "picture", "audio": "sound"}


@click.command()
@takes_input
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A .png, .svg, .pdf or .html of it.")
@click.option("--diagnose", is_flag=True, help="How each layer (LIAE) and head (IAF) looked at the input.")
@click.option("--check-input", is_flag=True, help="Warn when the answer is the same for a blank picture or sound.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--quiet/--verbose", default=False, help="No notes.")
def command(
    image, audio, prompt, system, model, revision, method, max_tokens, output, diagnose, check_input, as_json, quiet
):
    """Show where each word of an answer came from, and which have no support.

    \b
    lime-mlx explain --image photo.jpg
    lime-mlx explain --audio street.wav --output street.html
    lime-mlx explain --image photo.jpg --diagnose --json
    """
    text = question(prompt, image, audio)
    if not image and not audio:
        raise PromptError("There is no picture or sound to explain words by: give one with --image or --audio.")
    if max_tokens < 1:
        raise PromptError(f"--max-tokens is {max_tokens}; it must be at least 1.")
    if output is not None:
        from lime_mlx.render import answer

        answer.check(output)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    notes: list[str] = []
    prepare_backend(notes)

    from lime_mlx.generation import stream_generate
    from lime_mlx.probes.attention import focus, over_words
    from lime_mlx.support.detector import Detector
    from lime_mlx.words import grouped, judge, words

    spec = method or default_method(image, audio)
    asked = ask(text, image, audio, system, model, revision, notes)
    detector = Detector.from_config(asked.model.config)
    stream = Stream(
        stream_generate(
            asked.model,
            asked.processor,
            asked.prompt,
            method=spec,
            max_tokens=max_tokens,
            relevance=True,
            evidence=True,
        )
    )
    for _ in stream:
        pass
    if not stream.kept:
        click.get_current_context().exit(INTERRUPTED)
    said = list(words(pieces(stream.kept)))
    found = summary(stream.kept, asked.name, spec, detector, asked.times)
    spans = asked.model.spans(asked.prompt)
    shares_apart(found["words"], said, spans)
    looked = []
    if diagnose:
        counts = [len(word) for word in grouped(pieces(stream.kept))]
        looked = over_words(focus(asked.model, asked.prompt, answered(stream.kept)), counts)
        for entry, seen in zip(found["words"], looked, strict=True):
            entry |= {"liae": known(seen.liae), "iaf": known(seen.iaf)}
    warned = list(warnings_of(asked.model, asked.prompt, stream.kept, check_input))
    if output is not None:
        warned += drawn(asked, said, judge(said, detector), looked, spans, found, output)
    if as_json:
        click.echo(json.dumps({**found, "warnings": warned}, ensure_ascii=False))
    else:
        tables(found, medium(image, audio), looked)
    if not quiet:
        note(*notes)
        if output is not None:
            note(f"Wrote {output}")
    note(*([] if as_json else warned))
    if stream.interrupted:
        click.get_current_context().exit(INTERRUPTED)


def shares_apart(entries: list, said: list, spans) -> None:
    """Where a prompt has pictures and sounds, the shares of both."""
    import numpy as np

    if len({span.kind for span in spans}) < 2:
        return
    for entry, word in zip(entries, said, strict=True):
        if word.relevance is not None and (total := float(np.abs(word.relevance).sum())):
            for kind, name in KINDS.items():
                parts = [np.abs(word.relevance[span.start : span.stop]).sum() for span in spans if span.kind == kind]
                entry[name] = float(sum(parts)) / total


def known(values) -> list:
    """Numbers for JSON; null where nothing was seen."""
    if values.ndim > 1:
        return [known(row) for row in values]
    return [None if value != value else round(float(value), 5) for value in values]


def tables(found: dict, name: str, looked: list) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, entries = Console(highlight=False), found["words"]
    click.echo(found["text"])
    apart = [kind for kind in KINDS.values() if any(kind in entry for entry in entries)]
    table = Table()
    for column in ("word", *(apart or [name]), "prompt", "own text", "without support", "heard"):
        if column != "heard" or any("seconds" in entry for entry in entries):
            table.add_column(column, justify="left" if column == "word" else "right")
    for entry in entries:
        shares = [entry.get(key) for key in (*(apart or ["reliance"]), "prompt", "own")]
        row = [escape(entry["text"]), *("" if share is None else f"{100 * share:.0f} %" for share in shares)]
        row.append(verdict(entry))
        if len(table.columns) > len(row):
            times = [f"{when[0]:.1f}-{when[1]:.1f} s" for when in entry.get("seconds", ()) if when]
            row.append(", ".join(times))
        table.add_row(*row, style="red" if entry.get("flagged") else None)
    console.print(table)
    if looked:
        console.print(focus_table(entries, looked))


def verdict(entry: dict) -> str:
    """The probability that a word has no support, with a mark at the threshold; else its rank in the answer."""
    if "noun" not in entry:
        return ""
    if entry["doubt"] is None:
        return f"rank {entry['rank']}"
    return f"{100 * entry['doubt']:.0f} %{' ?' if entry['flagged'] else ''}"


def focus_table(entries: list, looked: list):
    from rich.markup import escape
    from rich.table import Table

    table = Table(caption="LIAE: 0 one place, 1 everywhere alike; IAF: share of each head's attention, in %.")
    for column in ("word", "layer", "LIAE", "IAF by head"):
        table.add_column(column, justify="right" if column in ("layer", "LIAE") else "left")
    for entry, focus in zip(entries, looked, strict=True):
        for layer, (liae, iaf) in enumerate(zip(focus.liae, focus.iaf, strict=True)):
            heads = " ".join(f"{100 * share:3.0f}" for share in iaf)
            table.add_row(escape(entry["text"]) if not layer else "", str(layer), f"{liae:.3f}", heads)
    return table


def drawn(asked, said, verdicts, looked, spans, found, output: Path) -> list[str]:
    """Write the file; returns what it could not show."""
    from functools import partial

    from lime_mlx.maps import picture_map
    from lime_mlx.render import answer
    from lime_mlx.render.svg import drawing
    from lime_mlx.words import moments

    def told(heat=None) -> list:
        heats = [
            heat(word.relevance) if heat and verdict and word.relevance is not None else None
            for word, verdict in zip(said, verdicts, strict=True)
        ]
        return [
            answer.Told(word.text.strip(), word.shares, bool(verdict and verdict.flagged), heat)
            for word, verdict, heat in zip(said, verdicts, heats, strict=True)
        ]

    missing, figures = [], []
    with drawing():
        for number, image in enumerate(asked.pictures):
            parts = [span for span in spans if (span.kind, span.source) == ("image", number) and span.grid]
            if parts:
                figures.append(answer.picture(image, (0, 0, *image.size), told(partial(picture_map, spans=parts))))
        if asked.pictures and not figures:
            missing.append("Note: this model sees a picture in parts, so there is no map of it; the shares are shown.")
        for span in (span for span in spans if span.kind == "audio"):
            words, seconds = told(lambda relevance, span=span: relevance[span.start : span.stop]), span.seconds
            if seconds:
                named = [word for word, verdict in zip(said, verdicts, strict=True) if verdict]
                figures.append(answer.sound(words, seconds, [moments(w.relevance, span, seconds) for w in named]))
        if not figures:
            figures.append(answer.plain(told(), "input"))
        if looked:
            figures.append(answer.diagnosis([word.text.strip() for word in said], looked))
        answer.save(output, figures, found["text"], missing)
    return missing
