"""lime-mlx evaluate: the questions of benchmarks, put to models with methods; what was answered stays answered."""

import os
from contextlib import nullcontext
from pathlib import Path

import click

from lime_mlx.cli.common import BUNDLED, no_stray, note, prepare_backend
from lime_mlx.cli.scores import SCORER, present
from lime_mlx.errors import DataError


@click.command()
@click.option(
    "--task", multiple=True, metavar="SPEC", help="scenes, sounds, pope, chair, amber, mme, audio; repeat it."
)
@click.option(
    "--model", multiple=True, metavar="REPO|FOLDER", help="Repeat it to compare.  [default: $LIME_MLX_MODEL, else demo]"
)
@click.option("--method", multiple=True, metavar="SPEC", help="Repeat it to compare.  [default: none and lime]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the benchmarks.  [default: that of data get]")
@click.option("--limit", type=click.IntRange(min=1), help="Pictures or sounds of each task, with all their questions.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which ones --limit takes.")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/evaluate"),
    show_default=True,
    help="Answers and scores; a run that is there goes on.",
)
@SCORER
@click.option("--reliance/--no-reliance", default=True, show_default=True, help="Record what each answer rests on.")
@click.option("--skip-missing", is_flag=True, help="Leave out questions whose picture or sound is not there.")
@click.option("--calibrate", is_flag=True, help="Fit a detector of unsupported words for each model, and keep it.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON instead of tables.")
@click.option("--quiet/--verbose", default=False, help="No progress.")
@click.argument("stray", nargs=-1, callback=no_stray, expose_value=False, metavar="")
def command(
    task, model, method, data, limit, seed, output_dir, scorer, reliance, skip_missing, calibrate, as_json, quiet
):
    """Compare hallucination rates of models and methods on benchmarks, offline.

    Kill it when you like: the same command goes on where it was. Several machines share the work under mlx.launch.

    \b
    lime-mlx evaluate --task scenes --method none --method lime
    lime-mlx evaluate --task pope --limit 100 --model A --model B --output-dir runs/pope
    mlx.launch -n 2 lime-mlx evaluate --task scenes --output-dir runs/x
    lime-mlx evaluate --calibrate --model A --task chair
    """
    notes: list[str] = []
    prepare_backend(notes)

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from lime_mlx.cli import calibrate as calibrating
    from lime_mlx.evaluate.calibrate import SPECS
    from lime_mlx.evaluate.data import home
    from lime_mlx.evaluate.hosts import Hosts
    from lime_mlx.evaluate.runner import Plan, run
    from lime_mlx.evaluate.store import Store
    from lime_mlx.evaluate.tasks import parse_task

    tasks, hosts = task or ("scenes",), Hosts()
    if calibrate:
        calibrating.check(tasks, hosts)
        tasks = [SPECS.get(spec, spec) for spec in tasks]
    media = {parse_task(spec).medium for spec in tasks}
    model = model or tuple(filter(None, [os.environ.get("LIME_MLX_MODEL")]))
    models = model or [name for name, kind in (("demo", "image"), ("demo-sound", "audio")) if kind in media]
    if not model:
        notes += [f"Using the bundled {name} model, which knows {BUNDLED[name][0]}." for name in models]
    console = Console(stderr=True)
    if not hosts.first:
        quiet = True
    elif not quiet:
        note(*notes)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    shown = nullcontext() if quiet else Progress(*columns, console=console)
    data = data or (home() if home().is_dir() else None)
    plan = Plan(models, method or ("none", "lime"), tasks, data, limit, seed, reliance, skip_missing)
    if calibrate:
        calibrating.run(plan, output_dir, shown, as_json, quiet)
        return
    with shown as progress:
        outcome = run(plan, output_dir, hosts, progress)
    if not hosts.first:
        return
    note(*outcome.notes)
    if outcome.answered:
        present(Store(output_dir), scorer, "json" if as_json else "table")
        if not quiet:
            note(f"Answers and scores are in {output_dir}; a page with plots: lime-mlx report {output_dir}")
    if outcome.failed:
        cell, name, reason = outcome.failed[0]
        raise DataError(
            f"{len(outcome.failed)} of {outcome.answered + len(outcome.failed)} answers failed, such as {name} "
            f"({cell.model}, {cell.method}, {cell.task}): {reason} The same command tries them again."
        )
    if not outcome.answered:
        raise DataError("Nothing was answered: none of the models takes what the tasks ask about.")
