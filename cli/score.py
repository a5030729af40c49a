"""lime-mlx score: the figures of a run from its stored answers, without a model."""

from pathlib import Path

import click

from lime_mlx.cli.scores import SCORER, show_scores


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@SCORER
@click.option("--json", "form", flag_value="json", help="Print the figures as JSON instead of tables.")
@click.option("--markdown", "form", flag_value="markdown", help="Print the tables as Markdown.")
def command(folder: Path, scorer: str, form: str | None) -> None:
    """Score the answers of an evaluation again.

    \b
    lime-mlx score runs/x
    lime-mlx score runs/x --scorer official --json
    """
    from lime_mlx.evaluate.store import Store

    show_scores(Store(folder), scorer, form or "table")
