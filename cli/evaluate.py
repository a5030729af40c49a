"""lime-mlx evaluate: puts the questions of benchmarks to models with methods, and keeps every answer."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lime_mlx.checkpoint.choice import OPTION_HELP, chosen_model
from lime_mlx.cli.common import METHOD_NAMES, chosen_note, no_stray, note, noting, prepare_backend
from lime_mlx.cli.risk import wished
from lime_mlx.cli.scores import SCORER, show_scores
from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import BUILT_IN, SCENES, WITH_FILES

if TYPE_CHECKING:
    from rich.progress import Progress

    from lime_mlx.evaluate.hosts import Hosts
    from lime_mlx.evaluate.runner import RunConfig, RunOutcome

CONTINUES = "Interrupted. The answers so far are kept; the same command continues."


@click.command()
@click.option(
    "--task",
    multiple=True,
    metavar="SPEC",
    help=f"{', '.join(BUILT_IN + WITH_FILES)}; repeat it.  [default: {SCENES}]",
)
@click.option(
    "--model",
    multiple=True,
    metavar="REPO|FOLDER",
    help=f"Repeat it to compare models.  {OPTION_HELP}",
)
@click.option(
    "--method",
    multiple=True,
    metavar="SPEC",
    help=f"{', '.join(METHOD_NAMES)}, or name:key=value,...; repeat it to compare methods; with --risk also mark "
    "or drop.  [default: none and choose; with --risk drop]",
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="The folder of the benchmarks.  [default: that of data get]"
)
@click.option("--limit", type=click.IntRange(min=1), help="Pictures or sounds of each task, with all their questions.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draw that --limit makes."
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/evaluate"),
    show_default=True,
    help="The folder of answers and scores. A run in it continues.",
)
@SCORER
@click.option(
    "--reliance/--no-reliance", default=True, show_default=True, help="Record the reliance of every token of an answer."
)
@click.option("--skip-missing", is_flag=True, help="Leave out questions whose picture or sound is missing.")
@click.option("--calibrate", is_flag=True, help="Fit a detector of unsupported words for each model, and keep it.")
@click.option(
    "--risk", type=float, help="With --calibrate: promise that at most this share of the words is unsupported."
)
@click.option(
    "--confidence", type=float, default=0.95, show_default=True, help="The probability that such a promise holds."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON instead of tables.")
@click.option("--quiet/--verbose", default=False, help="Show no progress.")
@click.argument("stray", nargs=-1, callback=no_stray, expose_value=False, metavar="")
def command(
    task: tuple[str, ...],
    model: tuple[str, ...],
    method: tuple[str, ...],
    data: Path | None,
    limit: int | None,
    seed: int,
    output_dir: Path,
    scorer: str,
    reliance: bool,
    skip_missing: bool,
    calibrate: bool,
    risk: float | None,
    confidence: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare hallucination rates of models and methods on benchmarks, offline.

    Every answer is kept at once. After an interrupt or a crash, the same command continues the run. Under mlx.launch,
    several machines share the work.

    \b
    lime-mlx evaluate --task scenes --method none --method choose
    lime-mlx evaluate --task pope --limit 100 --model A --model B --output-dir runs/pope
    mlx.launch -n 2 lime-mlx evaluate --task scenes --output-dir runs/x
    lime-mlx evaluate --calibrate --model A --task chair
    lime-mlx evaluate --calibrate --risk 0.02 --model demo --method mark
    """
    wish = wished(calibrate, risk, confidence, method)
    notes: list[str] = []
    prepare_backend(notes, quiet)

    from lime_mlx.cli import calibrate as calibration
    from lime_mlx.evaluate.calibrate import BOUND_SPECS, SPECS
    from lime_mlx.evaluate.data.layout import home
    from lime_mlx.evaluate.hosts import Hosts
    from lime_mlx.evaluate.runner import RunConfig

    tasks, hosts = list(task or (SCENES,)), Hosts()
    if calibrate:
        calibration.check(tasks, hosts, wish)
        tasks = [(SPECS if wish is None else BOUND_SPECS).get(spec, spec) for spec in tasks]
    models = chosen_models(model, tasks, notes)
    check_scorer(scorer, tasks, output_dir)
    quiet = quiet or not hosts.first
    if not quiet:
        note(*notes)
    data = data or (home() if home().is_dir() else None)
    config = RunConfig(models, method or ("none", "choose"), tasks, data, limit, seed, reliance, skip_missing)
    old_spellings: list[str] = []
    blamed = nullcontext() if model else chosen_model(None).blamed()
    try:
        with noting(old_spellings), blamed:
            if calibrate:
                calibration.run(config, output_dir, progress(quiet), as_json, quiet, wish)
            else:
                run(config, output_dir, scorer, hosts, as_json, quiet)
    except KeyboardInterrupt:
        if hosts.first:
            note(CONTINUES)
        raise
    if not quiet:
        note(*old_spellings)


def run(config: "RunConfig", output_dir: Path, scorer: str, hosts: "Hosts", as_json: bool, quiet: bool) -> None:
    """Run the evaluation, and show its scores and what failed."""
    from lime_mlx.evaluate.runner import run as evaluate
    from lime_mlx.evaluate.store import Store

    with progress(quiet) as bar:
        outcome = evaluate(config, output_dir, hosts, bar)
    if not hosts.first:
        return
    note(*outcome.notes)
    if outcome.answered:
        show_scores(Store(output_dir), scorer, "json" if as_json else "table")
        if not quiet:
            note(f"The answers and scores are in {output_dir}. For a page with plots: lime-mlx report {output_dir}")
    check_outcome(outcome)


def check_outcome(outcome: "RunOutcome") -> None:
    """Raise `DataError` where answers failed, or there are none."""
    if outcome.failed:
        first = outcome.failed[0]
        raise DataError(
            f"{len(outcome.failed)} of {outcome.answered + len(outcome.failed)} answers failed, such as {first.id} "
            f"({first.cell.model}, {first.cell.method}, {first.cell.task}): {first.reason} "
            "The same command tries them again."
        )
    if not outcome.answered:
        raise DataError("Nothing was answered: none of the models takes what the tasks ask about.")


def chosen_models(model: Sequence[str], tasks: Sequence[str], notes: list[str]) -> list[str]:
    """The models of --model, else the one that the environment or the settings name, else the bundled ones."""
    from lime_mlx.evaluate.tasks import parse_task

    if model:
        return list(model)
    choice = chosen_model(None)
    media = {parse_task(spec).medium for spec in tasks}
    bundled = [name for name, medium in (("demo", "image"), ("demo-sound", "audio")) if medium in media]
    notes += chosen_note(choice, *bundled)
    return bundled if choice.name is None else [choice.name]


def check_scorer(scorer: str, tasks: Sequence[str], output_dir: Path) -> None:
    """Raise `DataError` for a scorer that no task has, of those asked for and those already in the folder."""
    from lime_mlx.evaluate.store import SETTINGS, Store
    from lime_mlx.evaluate.summary import check_scorer as check

    stored = Store(output_dir).settings["tasks"] if (output_dir / SETTINGS).is_file() else ()
    check(scorer, [*tasks, *stored])


def progress(quiet: bool) -> "nullcontext[None] | Progress":
    """A progress bar on stderr; none when `quiet`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if quiet:
        return nullcontext()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
