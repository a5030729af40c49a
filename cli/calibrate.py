"""What lime-mlx evaluate --calibrate does: it fits a detector for each model, and keeps it in the user's folder.

With --risk it keeps a promise with it, where the data support one.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from lime_mlx.cli.common import note
from lime_mlx.cli.risk import print_bounds
from lime_mlx.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress

    from lime_mlx.evaluate.bound import Bound, Wish
    from lime_mlx.evaluate.calibrate import FittedDetector
    from lime_mlx.evaluate.hosts import Hosts
    from lime_mlx.evaluate.runner import RunConfig

# Options of evaluate that have no effect here.
IDLE = ("method", "scorer", "reliance")


def check(tasks: Sequence[str], hosts: "Hosts", wish: "Wish | None") -> None:
    """Refuse options that have no effect together with --calibrate."""
    context = click.get_current_context()
    for name in IDLE:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and (name != "method" or wish is None):
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
    wish: "Wish | None" = None,
) -> None:
    """Calibrate one model after the other, show the measures, and keep the detectors that are better than chance.

    With a wish, a detector is kept with its promise, and only with it.
    """
    from lime_mlx.evaluate.bound import bound
    from lime_mlx.evaluate.calibrate import calibrate, keep

    notes: list[str] = []
    fits: list[tuple[FittedDetector, Path | None]] = []
    bounds: list[Bound | None] = []
    try:
        with progress as bar:
            for model in config.models:
                if wish is None:
                    fit, found = calibrate(config, model, output_dir, bar, notes), None
                else:
                    fit, found = bound(config, model, output_dir, wish, bar, notes)
                kept = fit.better_than_chance and (wish is None or fit.promise is not None)
                fits.append((fit, keep(fit) if kept else None))
                bounds.append(found)
    finally:
        note(*notes)
    if as_json:
        entries = [
            {**fit.to_dict(), "kept": file and str(file), **({"bound": asdict(found)} if found else {})}
            for (fit, file), found in zip(fits, bounds, strict=True)
        ]
        click.echo(json.dumps(entries, indent=2))
    else:
        print_table([fit for fit, _ in fits], bounds)
    for (fit, file), found in zip(fits, bounds, strict=True):
        if file is None:
            raise DataError(f"Nothing was kept for {fit.model}: {reason(fit, found)}")
        if not quiet:
            users = "--flag and lime:words=flagged use it"
            if found is not None:
                note(*filter(None, [found.remark]))
                users = (
                    f"--flag and lime:words=flagged use the detector, generate --risk {found.wish.risk:g} the promise,"
                )
            note(f"Kept in {file}: {users} with {fit.model}.")


def reason(fit: "FittedDetector", found: "Bound | None") -> str:
    """Why a detector was not kept."""
    if found is not None:
        return found.problem
    return (
        f"{fit.pictures} captions cannot tell whether its detector is better than chance (AUROC from "
        f"{fit.quality.low:.2f} to {fit.quality.high:.2f}); try a higher --limit."
    )


def print_table(fits: Sequence["FittedDetector"], bounds: Sequence["Bound | None"]) -> None:
    """Print the measures of the detectors and of their bounds, one column for each model."""
    from rich.console import Console
    from rich.table import Table

    rows = {
        "captions": [str(fit.pictures) for fit in fits],
        "object words": [f"{fit.words}, {fit.hallucinated} hallucinated" for fit in fits],
        "AUROC": [f"{fit.quality.auroc:.3f} [{fit.quality.low:.3f}, {fit.quality.high:.3f}]" for fit in fits],
        "threshold": [f"{fit.detector.threshold:.3f}" for fit in fits],
        "precision": [f"{fit.quality.precision:.3f}" for fit in fits],
        "recall": [f"{fit.quality.recall:.3f}" for fit in fits],
        "yes from a margin of": [f"{fit.yes.threshold:.2f}" if fit.yes else "not fitted" for fit in fits],
        "right yes/no answers": [
            f"{fit.yes.accuracy_before:.3f}, with it {fit.yes.accuracy:.3f}" if fit.yes else "" for fit in fits
        ],
    }
    table = Table("", *(fit.model for fit in fits), box=None, pad_edge=False)
    for name, values in rows.items():
        table.add_row(name, *values)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(
        "AUROC, precision and recall: fitted on half of the captions, measured on the others.", soft_wrap=True
    )
    if any(bounds):
        console.print()
        print_bounds(console, fits, bounds)
