"""lime-mlx data: the files of the public benchmarks, from their official addresses or a folder."""

from pathlib import Path

import click

from lime_mlx.cli.common import note

TASKS = ("pope", "chair", "amber", "mme", "audio")
POPE_SETS = ("coco", "aokvqa", "gqa")
FOLDER = click.Path(path_type=Path, file_okay=False)
into = click.option(
    "--dir", "folder", type=FOLDER, help="Folder of data.  [default: $LIME_MLX_DATA, else in the user's cache]"
)


@click.group()
def command():
    """Get the files of the public benchmarks, and say where they are.

    \b
    lime-mlx data get pope
    lime-mlx data get amber --from Downloads/AMBER
    lime-mlx data list
    """


@command.command()
@click.argument("task", type=click.Choice(TASKS))
@click.option("--set", "sets", type=click.Choice(POPE_SETS), multiple=True, help="Of POPE; repeat it.  [default: coco]")
@into
@click.option("--from", "source", type=FOLDER, help="Copy from this folder, searched by name; download nothing.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Only pictures that evaluate --limit asks about, of pope and chair."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The --seed of evaluate, for --limit.")
@click.option("--quiet", is_flag=True, help="Only errors.")
def get(task, sets, folder, source, limit, seed, quiet):
    """Get what a task of evaluate needs.

    Files are checked by their sha256, pictures by decoding them. What is there already is kept, and what was
    interrupted goes on where it stopped. Pictures and sounds that cannot be fetched are named, with where they are.
    """
    if sets and task != "pope":
        raise click.UsageError("--set is for pope.")
    if limit and task not in ("pope", "chair"):
        raise click.UsageError("--limit is for pope and chair.")

    from lime_mlx.evaluate.data import Data, home

    folder = folder or home()
    try:
        with Bar(quiet) as bar:
            data = Data(folder, source, progress=bar)
            data.get(task, sets or ("coco",), limit, seed)
    except KeyboardInterrupt:
        note("Interrupted: the same command goes on where it stopped.")
        raise
    if not quiet:
        counts = ", ".join(f"{data.counts[kind]} {kind}" for kind in ("fetched", "copied", "kept") if data.counts[kind])
        click.echo(f"{task} is in {folder} ({counts} files).")


@command.command(name="list")
@into
def list_(folder):
    """What is there of each task."""
    from rich.console import Console
    from rich.table import Table

    from lime_mlx.evaluate.data import Data, home
    from lime_mlx.evaluate.sources import LICENCES

    folder = folder or home()
    table = Table("Task", "Files", "Pictures or sounds", "Licence", box=None, pad_edge=False)
    for task, files, media in Data(folder).state():
        table.add_row(task, files, media, LICENCES[task])
    click.echo(f"{folder}")
    Console(highlight=False, markup=False, emoji=False).print(table)


@command.command()
def where():
    """The folder of data."""
    from lime_mlx.evaluate.data import home

    click.echo(home())


class Bar:
    """Progress of one file after the other, in MB, and of all pictures, on stderr."""

    def __init__(self, quiet: bool):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        self.bars = Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet or not console.is_terminal)
        self.tasks: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, state="")
        counted = what in ("pictures", "tables")
        state = f"{done} of {total}" if counted else f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
        self.bars.update(self.tasks[what], completed=done, total=total, state=state)

    def __enter__(self):
        self.bars.start()
        return self

    def __exit__(self, *_):
        self.bars.stop()
