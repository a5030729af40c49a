"""lime-mlx report: one HTML page of a run, with the conclusion, the scores, plots, disagreements and settings."""

from pathlib import Path

import click

from lime_mlx.cli.common import note, prepare_backend
from lime_mlx.cli.scores import SCORER
from lime_mlx.errors import BackendError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page here.  [default: report.html in FOLDER]",
)
@SCORER
@click.option(
    "--maps/--no-maps",
    default=True,
    show_default=True,
    help="Show what carried the words in question; for that the models read these answers again.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
def command(folder: Path, output: Path | None, scorer: str, maps: bool, open_page: bool) -> None:
    """Write the page of an evaluation: one HTML file that needs no network.

    For the maps, the models of the run read the answers again that the page shows, where they are on this machine.

    \b
    lime-mlx report runs/x
    lime-mlx report runs/x --scorer official --output pope.html --open
    """
    from lime_mlx.report import write_report

    notes: list[str] = []
    try:
        if maps:
            prepare_backend(notes)
    except BackendError as error:
        maps, notes = False, [f"No maps: {error}"]
    note(*notes)
    path = write_report(folder, output, scorer, maps, note)
    click.echo(path)
    if open_page:
        click.launch(str(path))
