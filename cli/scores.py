"""How the figures of an evaluation are shown: tables for each task and split, Markdown or JSON."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from lime_mlx.errors import plain_text

if TYPE_CHECKING:
    from lime_mlx.evaluate.store import Store
    from lime_mlx.evaluate.summary import Figure, FigureTable

SCORER = click.option(
    "--scorer",
    default="ours",
    show_default=True,
    help="How answers are scored: ours, official, or another scorer of the task.",
)
SCORES = "scores.json"
TEXTS = ("task", "split", "model", "method")
MARKS = {"better": "+", "worse": "-"}


def show_scores(store: "Store", scorer: str, form: str = "table") -> None:
    """Print the figures by this scorer, as "table", "markdown" or "json", and keep those by all scorers."""
    from lime_mlx.evaluate.summary import check_scorer, rows, scorers_of, summarise
    from lime_mlx.files import write

    tasks = store.settings["tasks"]
    check_scorer(scorer, tasks)
    figures = {name: summarise(store, name) for name in scorers_of(tasks)}
    flat = {name: rows(listed) for name, listed in figures.items()}
    write(store.folder / SCORES, json.dumps(flat, indent=1) + "\n")
    if form == "json":
        click.echo(json.dumps(flat[scorer], indent=2))
    elif form == "markdown":
        click.echo(plain_text("\n".join(markdown(figures[scorer]))))
    else:
        print_tables(figures[scorer], figures)


class TextTable(NamedTuple):
    """A table as text: a row for each model and method; a cell with a figure has two lines."""

    title: str
    header: list[str]
    rows: list[list[str]]


def text_tables(figures: Sequence["Figure"]) -> list[TextTable]:
    from lime_mlx.evaluate.summary import figure_tables

    return [_text_table(table) for table in figure_tables(figures)]


def _text_table(table: "FigureTable") -> TextTable:
    several = len({row.cell.model for row in table.rows}) > 1
    plain: dict[str, Mapping[str, Figure]] = {}
    for row in table.rows:
        if row.cell.method == "none" or row.cell.model not in plain:
            plain[row.cell.model] = row.figures
    rows = []
    for row in table.rows:
        names = [row.cell.model, row.cell.method] if several else [row.cell.method]
        compared = plain[row.cell.model]
        texts = [
            figure_text(row.figures[name], compared.get(name)) if name in row.figures else "" for name in table.metrics
        ]
        rows.append([*names, f"{row.n:,}", *texts])
    part = " and ".join(table.metrics) if table.costs else "" if table.split == "all" else table.heading
    header = [*(["model"] if several else []), "method", "n", *table.metrics]
    return TextTable(f"{table.task}: {part}" if part else table.task, header, rows)


def by_scorer(figures: Mapping[str, Sequence["Figure"]]) -> TextTable | None:
    """The accuracy of yes/no answers by every scorer, where there are several."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for name, listed in figures.items():
        for figure in (figure for figure in listed if figure.metric.name == "accuracy"):
            key = (figure.cell.task, figure.metric.split, figure.cell.model, figure.cell.method)
            rows.setdefault(key, {})[name] = f"{100 * figure.value:.1f}"
    if len(figures) < 2 or not rows:
        return None
    cells = [[*key, *(texts.get(name, "") for name in figures)] for key, texts in rows.items()]
    return TextTable("accuracy by scorer", [*TEXTS, *figures], cells)


def print_tables(figures: Sequence["Figure"], all_scorers: Mapping[str, Sequence["Figure"]]) -> None:
    """Print the tables of one scorer, the accuracy by all scorers, and what the marks mean."""
    from rich.console import Console
    from rich.table import Table

    # No markup: an interval in brackets is a number, and a model or task may have brackets in its name.
    console = Console(highlight=False, markup=False, emoji=False)
    accuracy = by_scorer(all_scorers)
    for table in [*text_tables(figures), *([accuracy] if accuracy else [])]:
        drawn = Table(title=table.title, title_justify="left", title_style="bold")
        for name in table.header:
            drawn.add_column(name, overflow="fold", justify="left" if name in TEXTS else "right")
        for row in table.rows:
            drawn.add_row(*map(plain_text, row))
        console.print(drawn)
    for line in remarks(figures):
        console.print(line, soft_wrap=True)


def markdown(figures: Sequence["Figure"]) -> Iterator[str]:
    """The lines of the tables as Markdown, and what the marks mean."""
    for title, header, rows in text_tables(figures):
        yield f"**{title}**\n"
        yield "| " + " | ".join(header) + " |"
        yield "|---" * len(header) + "|"
        for row in rows:
            yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        yield ""
    yield from remarks(figures)


def figure_text(figure: "Figure", plain: "Figure | None") -> str:
    """A figure with its interval, and a mark where it differs from plain decoding; time also as so many x plain."""
    value, low, high = figure.value, figure.low, figure.high
    mark = MARKS.get(figure.comparison.outcome, "") if figure.comparison else ""
    if math.isnan(value):
        return "none"
    if figure.metric.unit == "s/token":
        return f"{1e3 * value:.3g} ms/token" + (f"\n{value / plain.value:.2f} x" if plain and plain.value else "")
    if figure.metric.unit == "GB":
        return f"{value:.3g} GB"
    scale = 100 if figure.metric.unit == "%" else 1
    return f"{scale * value:.1f}{mark}\n[{scale * low:.1f}, {scale * high:.1f}]"


def remarks(figures: Sequence["Figure"]) -> list[str]:
    """What the marks mean, and where there were not enough questions to tell."""
    from lime_mlx.evaluate.summary import TOO_FEW

    pairs = [(figure, figure.comparison) for figure in figures if figure.comparison is not None]
    if not pairs:
        return []
    lines = [
        "Shares are in %, each with its 95 % interval by picture. + is better and - is worse than plain decoding, with "
        "p < 0.05 after Holm's correction. Plain decoding is compared with that of the first model."
    ]
    for figure, comparison in pairs:
        if comparison.outcome == TOO_FEW and comparison.p < 0.5:
            needed = f"; about {comparison.needed:,} would show a difference like this" if comparison.needed else ""
            where = f"{figure.cell.task} {figure.metric.split} {figure.metric.name}"
            lines.append(
                f"{figure.cell.method} ({figure.cell.model}), {where}: {100 * comparison.difference:+.1f} points with "
                f"{figure.n:,} questions: not enough questions to tell{needed}."
            )
    return lines
