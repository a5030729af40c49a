"""What lime-mlx evaluate --calibrate does: it fits a detector for each model, and keeps it in the user's folder."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from lime_mlx.cli.common import note
from lime_mlx.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress

    from lime_mlx.evaluate.calibrate import FittedDetector
    from lime_mlx.evaluate.hosts import Hosts
    from lime_mlx.evaluate.runner import RunConfig

# Options of evaluate that have no effect here.
IDLE = ("method", "scorer", "reliance")


def check(tasks: Sequence[str], hosts: "Hosts") -> None:
    """Refuse options that have no effect together with --calibrate."""
    context = click.get_current_context()
    for name in IDLE:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--calibrate always takes plain captions: leave --{name} out.")
    if len(tasks) > 1:
        raise click.UsageError("--calibrate takes one --task: scenes, sounds or chair.")
    if hosts.size > 1:
        raise click.UsageError("--calibrate runs in one process, without mlx.launch.")


def run(
    config: "RunConfig",
    output_dir: Path,
    progress: AbstractContextManager["Progress | None"],
    as_json: bool,
    quiet: bool,
) -> None:
    """Calibrate one model after the other, show the measures, and keep the detectors that are better than chance."""
    from lime_mlx.evaluate.calibrate import calibrate, keep

    notes: list[str] = []
    fits: list[tuple[FittedDetector, Path | None]] = []
    try:
        with progress as bar:
            for model in config.models:
                fit = calibrate(config, model, output_dir, bar, notes)
                fits.append((fit, keep(fit) if fit.better_than_chance else None))
    finally:
        note(*notes)
    if as_json:
        entries = [{**fit.to_dict(), "kept": file and str(file)} for fit, file in fits]
        click.echo(json.dumps(entries, indent=2))
    else:
        print_table([fit for fit, _ in fits])
    for fit, file in fits:
        if file is None:
            low, high = fit.quality.low, fit.quality.high
            raise DataError(
                f"Nothing was kept for {fit.model}: {fit.pictures} captions cannot tell whether its detector is better "
                f"than chance (AUROC from {low:.2f} to {high:.2f}); try a higher --limit."
            )
        if not quiet:
            note(f"Kept in {file}: --flag and lime:words=flagged use it with {fit.model}.")


def print_table(fits: Sequence["FittedDetector"]) -> None:
    """Print the measures of the detectors, one column for each model."""
    from rich.console import Console
    from rich.table import Table

    rows = {
        "captions": [str(fit.pictures) for fit in fits],
        "object words": [f"{fit.words}, {fit.hallucinated} hallucinated" for fit in fits],
        "AUROC": [f"{fit.quality.auroc:.3f} [{fit.quality.low:.3f}, {fit.quality.high:.3f}]" for fit in fits],
        "threshold": [f"{fit.detector.threshold:.3f}" for fit in fits],
        "precision": [f"{fit.quality.precision:.3f}" for fit in fits],
        "recall": [f"{fit.quality.recall:.3f}" for fit in fits],
    }
    table = Table("", *(fit.model for fit in fits), box=None, pad_edge=False)
    for name, values in rows.items():
        table.add_row(name, *values)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(
        "AUROC, precision and recall: fitted on half of the captions, measured on the others.", soft_wrap=True
    )
