"""lime-mlx report: one HTML page of a run, with the conclusion, the scores, plots, disagreements and settings."""

from pathlib import Path

import click

from lime_mlx.cli.scores import SCORER


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page here.  [default: report.html in FOLDER]",
)
@SCORER
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
def command(folder: Path, output: Path | None, scorer: str, open_page: bool) -> None:
    """Write the page of an evaluation: one HTML file that needs no network.

    \b
    lime-mlx report runs/x
    lime-mlx report runs/x --scorer official --output pope.html --open
    """
    from lime_mlx.report import write_report

    path = write_report(folder, output, scorer)
    click.echo(path)
    if open_page:
        click.launch(str(path))
