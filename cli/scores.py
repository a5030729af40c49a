"""How the figures of an evaluation are shown: a table for each task and split, or JSON."""

import json
import math
from collections.abc import Sequence

import click

SCORER = click.option(
    "--scorer", default="ours", show_default=True, help="How answers are read: ours, official, or another of the task."
)
SCORES = "scores.json"
# Not in the tables: they follow from the others.
ASIDE = ("precision",)
MARKS = {"better": "+", "worse": "-"}


def present(store, scorer: str, as_json: bool) -> None:
    """Print the figures by this scorer, and write those by every scorer beside the answers."""
    from lime_mlx.errors import DataError
    from lime_mlx.evaluate.store import write
    from lime_mlx.evaluate.summary import rows, summarise
    from lime_mlx.evaluate.tasks import parse_task

    names = dict.fromkeys(name for task in store.settings["tasks"] for name in parse_task(task).scorers)
    if scorer not in names:
        raise DataError(f"No task of this run has the scorer {scorer!r}; choose one of {', '.join(names)}.")
    figures = {name: summarise(store, name) for name in names}
    found = {name: rows(listed) for name, listed in figures.items()}
    write(store.folder / SCORES, json.dumps(found, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(found[scorer], indent=2))
    else:
        tables(figures[scorer])


def tables(figures: Sequence) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    parts: dict[tuple[str, str], list] = {}
    for figure in figures:
        if figure.metric.name not in ASIDE and not (figure.metric.name == "unknown" and not figure.value):
            parts.setdefault((figure.cell.task, figure.metric.split), []).append(figure)
    for (task, split), listed in parts.items():
        names = list(dict.fromkeys(figure.metric.name for figure in listed))
        several = len({figure.cell.model for figure in listed}) > 1
        table = Table(title=f"{task}: {split}" if split != "all" else task, title_justify="left", title_style="bold")
        for name in [*(["model"] if several else []), "method", "n"]:
            table.add_column(name, overflow="fold")
        for name in names:
            table.add_column(name, justify="right")
        cells: dict[tuple[str, str], dict[str, object]] = {}
        for figure in listed:
            cells.setdefault((figure.cell.model, figure.cell.method), {})[figure.metric.name] = figure
        for (model, method), known in cells.items():
            count = str(max(figure.n for figure in known.values()))
            texts = [shown(known[name]) if name in known else "" for name in names]
            table.add_row(*([model] if several else []), method, count, *texts)
        console.print(table)
    for line in remarks(figures):
        console.print(line, soft_wrap=True)


def shown(figure) -> str:
    """A figure with its interval, and a mark where it differs from what it is compared with."""
    value, low, high = figure.value, figure.low, figure.high
    mark = MARKS.get(figure.comparison.verdict, "") if figure.comparison else ""
    if math.isnan(value):
        return "none"
    if figure.metric.unit == "s/token":
        return f"{1e3 * value:.3g} ms/token"
    if figure.metric.unit == "GB":
        return f"{value:.3g} GB"
    scale, digits = (100, 1) if figure.metric.unit == "%" else (1, 1)
    return f"{scale * value:.{digits}f}{mark}\n{scale * low:.{digits}f}-{scale * high:.{digits}f}"


def remarks(figures: Sequence) -> list[str]:
    """What the marks mean, and where there were not enough questions to tell."""
    compared = [figure for figure in figures if figure.comparison is not None]
    if not compared:
        return []
    lines = [
        "Shares in %, under each its 95 % interval by picture; + better and - worse than plain decoding (of the "
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
