"""How the figures of an evaluation are shown: a table for each task and split, or JSON."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click
from rich.markup import escape

SCORER = click.option(
    "--scorer", default="ours", show_default=True, help="How answers are read: ours, official, or another of the task."
)
SCORES = "scores.json"
# Not in the tables: they follow from the others.
ASIDE = ("precision",)
TEXTS = ("task", "split", "model", "method")
MARKS = {"better": "+", "worse": "-"}


def present(store, scorer: str, form: str = "table") -> None:
    """Print the figures by this scorer, as "table", "markdown" or "json", and keep those by all scorers."""
    from lime_mlx.errors import DataError
    from lime_mlx.evaluate.summary import rows, summarise
    from lime_mlx.evaluate.tasks import parse_task
    from lime_mlx.files import write

    names = dict.fromkeys(name for task in store.settings["tasks"] for name in parse_task(task).scorers)
    if scorer not in names:
        raise DataError(f"No task of this run has the scorer {scorer!r}; choose one of {', '.join(names)}.")
    figures = {name: summarise(store, name) for name in names}
    found = {name: rows(listed) for name, listed in figures.items()}
    write(store.folder / SCORES, json.dumps(found, indent=1) + "\n")
    if form == "json":
        click.echo(json.dumps(found[scorer], indent=2))
    elif form == "markdown":
        click.echo("\n".join(markdown(figures[scorer])))
    else:
        printed(figures[scorer], figures)


class Table(NamedTuple):
    """The figures of one split: a row for each model and method, each figure in two lines."""

    title: str
    header: list[str]
    rows: list[list[str]]


def tables(figures: Sequence) -> list[Table]:
    parts: dict[tuple[str, str], list] = {}
    for figure in figures:
        if figure.metric.name not in ASIDE and not (figure.metric.name == "unknown" and not figure.value):
            parts.setdefault((figure.cell.task, figure.metric.split), []).append(figure)
    found = []
    for (task, split), listed in parts.items():
        names = list(dict.fromkeys(figure.metric.name for figure in listed))
        several = len({figure.cell.model for figure in listed}) > 1
        cells: dict[tuple[str, str], dict[str, Any]] = {}
        for figure in listed:
            cells.setdefault((figure.cell.model, figure.cell.method), {})[figure.metric.name] = figure
        first = {model: known for (model, _), known in reversed(cells.items())}
        plain = {model: cells.get((model, "none"), known) for model, known in first.items()}
        rows = [
            [
                *([model] if several else []),
                method,
                f"{max(figure.n for figure in known.values()):,}",
                *(shown(known[name], plain[model].get(name)) if name in known else "" for name in names),
            ]
            for (model, method), known in cells.items()
        ]
        header = [*(["model"] if several else []), "method", "n", *names]
        found.append(Table(task if split == "all" else f"{task}: {split}", header, rows))
    return found


def by_scorer(figures: Mapping[str, Sequence]) -> Table | None:
    """The accuracy of yes/no answers by every way to read them, where there are several."""
    rows: dict[tuple, dict[str, str]] = {}
    for name, listed in figures.items():
        for figure in (figure for figure in listed if figure.metric.name == "accuracy"):
            key = (figure.cell.task, figure.metric.split, figure.cell.model, figure.cell.method)
            rows.setdefault(key, {})[name] = f"{100 * figure.value:.1f}"
    if len(figures) < 2 or not rows:
        return None
    cells = [[*key, *(found.get(name, "") for name in figures)] for key, found in rows.items()]
    return Table("accuracy by scorer", ["task", "split", "model", "method", *figures], cells)


def printed(figures: Sequence, all_scorers: Mapping[str, Sequence]) -> None:
    from rich import table
    from rich.console import Console

    console = Console(highlight=False)
    for title, header, rows in filter(None, [*tables(figures), by_scorer(all_scorers)]):
        drawn = table.Table(title=title, title_justify="left", title_style="bold")
        for name in header:
            drawn.add_column(name, overflow="fold", justify="left" if name in TEXTS else "right")
        for row in rows:
            drawn.add_row(*map(escape, row))
        console.print(drawn)
    for line in remarks(figures):
        console.print(line, soft_wrap=True, markup=False)


def markdown(figures: Sequence) -> Iterator[str]:
    """The tables as Markdown, and what the marks mean."""
    for title, header, rows in tables(figures):
        yield f"**{title}**\n"
        yield "| " + " | ".join(header) + " |"
        yield "|---" * len(header) + "|"
        for row in rows:
            yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        yield ""
    yield from remarks(figures)


def shown(figure, plain) -> str:
    """A figure with its interval, and a mark where it differs; time also as so many x plain."""
    value, low, high = figure.value, figure.low, figure.high
    mark = MARKS.get(figure.comparison.verdict, "") if figure.comparison else ""
    if math.isnan(value):
        return "none"
    if figure.metric.unit == "s/token":
        return f"{1e3 * value:.3g} ms/token" + (f"\n{value / plain.value:.2f} x" if plain and plain.value else "")
    if figure.metric.unit == "GB":
        return f"{value:.3g} GB"
    scale = 100 if figure.metric.unit == "%" else 1
    return f"{scale * value:.1f}{mark}\n[{scale * low:.1f}, {scale * high:.1f}]"


def remarks(figures: Sequence) -> list[str]:
    """What the marks mean, and where there were not enough questions to tell."""
    compared = [figure for figure in figures if figure.comparison is not None]
    if not compared:
        return []
    lines = [
        "Shares in %, each with its 95 % interval by picture; + better and - worse than plain decoding (of the "
        "first model, for plain decoding), p < 0.05 after Holm's correction."
    ]
    for figure in compared:
        found = figure.comparison
        if found.verdict == "not enough questions to tell" and found.p < 0.5:
            many = f"; about {found.needed:,} would show a difference like this" if found.needed else ""
            where = f"{figure.cell.task} {figure.metric.split} {figure.metric.name}"
            lines.append(
                f"{figure.cell.method} ({figure.cell.model}), {where}: {100 * found.difference:+.1f} points with "
                f"{figure.n:,} questions: not enough questions to tell{many}."
            )
    return lines
