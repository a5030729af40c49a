"""What lime-mlx evaluate --calibrate does: a detector for each model, kept in the user's folder."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lime_mlx.cli.common import note
from lime_mlx.errors import DataError

# Options of evaluate that mean nothing here.
IDLE = ("method", "scorer", "reliance")


def check(tasks: Sequence[str], hosts: Any) -> None:
    """Refuse options that mean nothing together with --calibrate."""
    context = click.get_current_context()
    for name in IDLE:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--calibrate reads plain captions by itself: leave --{name} out.")
    if len(tasks) > 1:
        raise click.UsageError("--calibrate takes one --task: scenes, sounds or chair.")
    if hosts.size > 1:
        raise click.UsageError("--calibrate runs in one process, without mlx.launch.")


def run(plan: Any, output_dir: Path, shown: AbstractContextManager, as_json: bool, quiet: bool) -> None:
    """Calibrate one model after the other, show what was measured, and keep the detectors that tell anything."""
    from lime_mlx.evaluate.calibrate import calibrate, keep
    from lime_mlx.evaluate.runner import Outcome

    outcome, kept = Outcome(), []
    try:
        with shown as progress:
            for model in plan.models:
                found = calibrate(plan, model, output_dir, progress, outcome)
                kept.append((found, keep(found) if found.tells else None))
    finally:
        note(*outcome.notes)
    if as_json:
        entries = [{**asdict(one), "kept": file and str(file)} for one, file in kept]
        click.echo(json.dumps(entries, indent=2))
    else:
        table([one for one, _ in kept])
    for one, file in kept:
        if file is None:
            low, high = one.quality.low, one.quality.high
            raise DataError(
                f"Nothing was kept for {one.model}: {one.pictures} captions cannot tell whether its detector is better "
                f"than chance (AUROC from {low:.2f} to {high:.2f}); try a higher --limit."
            )
        if not quiet:
            note(f"Kept in {file}: --flag and lime:words=flagged use it with {one.model}.")


def table(found: Sequence) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = {
        "captions": [str(one.pictures) for one in found],
        "object words": [f"{one.words}, {one.hallucinated} hallucinated" for one in found],
        "AUROC": [f"{one.quality.auroc:.3f} [{one.quality.low:.3f}, {one.quality.high:.3f}]" for one in found],
        "threshold": [f"{one.detector.threshold:.3f}" for one in found],
        "precision": [f"{one.quality.precision:.3f}" for one in found],
        "recall": [f"{one.quality.recall:.3f}" for one in found],
    }
    shown = Table("", *(one.model for one in found), box=None, pad_edge=False)
    for name, values in columns.items():
        shown.add_row(name, *values)
    console = Console(highlight=False, markup=False)
    console.print(shown)
    console.print(
        "AUROC, precision and recall: fitted on half of the captions, measured on the others.", soft_wrap=True
    )
