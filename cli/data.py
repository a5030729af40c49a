"""lime-mlx data: the files of the public benchmarks, from their official addresses or from a folder."""

from pathlib import Path
from types import TracebackType

import click

from lime_mlx.cli.common import note
from lime_mlx.errors import plain_text
from lime_mlx.evaluate.data.layout import POPE, POPE_SETS, WITH_FILES, WITH_LIMIT, home

FOLDER = click.Path(path_type=Path, file_okay=False)
into = click.option(
    "--dir", "folder", type=FOLDER, help="The folder of data.  [default: $LIME_MLX_DATA, else in the user's cache]"
)


@click.group()
def command() -> None:
    """Get the files of the public benchmarks, and show where they are.

    \b
    lime-mlx data get pope
    lime-mlx data get amber --from Downloads/AMBER
    lime-mlx data list
    """


@command.command()
@click.argument("task", type=click.Choice(WITH_FILES))
@click.option(
    "--set", "sets", type=click.Choice(POPE_SETS), multiple=True, help="A set of POPE; repeat it.  [default: coco]"
)
@into
@click.option("--from", "source", type=FOLDER, help="Copy the files from this folder; download nothing.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"Get only the pictures that evaluate --limit asks about ({' and '.join(WITH_LIMIT)}).",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The --seed of evaluate, for --limit.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def get(
    task: str,
    sets: tuple[str, ...],
    folder: Path | None,
    source: Path | None,
    limit: int | None,
    seed: int,
    quiet: bool,
) -> None:
    """Get the files that a task of evaluate needs.

    Files are checked by their sha256, pictures by decoding them. Complete files are kept, and an interrupted download
    continues where it stopped. Where pictures or sounds cannot be fetched, the command says where they are.
    """
    if sets and task != POPE:
        raise click.UsageError(f"--set is for {POPE}.")
    if limit and task not in WITH_LIMIT:
        raise click.UsageError(f"--limit is for {' and '.join(WITH_LIMIT)}.")

    from lime_mlx.evaluate.data.folder import DataFolder

    folder = folder or home()
    try:
        with Bar(quiet) as bar:
            data = DataFolder(folder, source, progress=bar)
            data.get(task, sets or ("coco",), limit, seed)
    except KeyboardInterrupt:
        note("Interrupted. The same command continues where it stopped.")
        raise
    if not quiet:
        counts = ", ".join(f"{data.counts[kind]} {kind}" for kind in ("fetched", "copied", "kept") if data.counts[kind])
        click.echo(plain_text(f"{task} is in {folder} ({counts} files)."))


@command.command(name="list")
@into
def list_(folder: Path | None) -> None:
    """Show which files of each task are there."""
    from rich.console import Console
    from rich.table import Table

    from lime_mlx.evaluate.data.folder import DataFolder
    from lime_mlx.evaluate.data.sources import LICENCES

    folder = folder or home()
    table = Table("Task", "Files", "Pictures or sounds", "Licence", box=None, pad_edge=False)
    for task, files, media in DataFolder(folder).state():
        table.add_row(task, files, media, LICENCES[task])
    click.echo(plain_text(str(folder)))
    Console(highlight=False, markup=False, emoji=False).print(table)


@command.command()
def where() -> None:
    """Show the folder of data."""
    click.echo(plain_text(str(home())))


class Bar:
    """Progress on stderr: one bar for each file, in MB, and one for all pictures."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        self.bars = Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet or not console.is_terminal)
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, state="")
        counted = what in ("pictures", "tables")
        state = f"{done} of {total}" if counted else f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
        self.bars.update(self.tasks[what], completed=done, total=total, state=state)

    def __enter__(self) -> "Bar":
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()
