"""lime-mlx score: the figures of a run from its stored answers, without any model."""

from pathlib import Path

import click

from lime_mlx.cli.scores import SCORER, present


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@SCORER
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON instead of tables.")
def command(folder, scorer, as_json):
    """Score the answers of an evaluation again.

    \b
    lime-mlx score runs/x
    lime-mlx score runs/x --scorer official --json
    """
    from lime_mlx.evaluate.store import Store

    present(Store(folder), scorer, as_json)
