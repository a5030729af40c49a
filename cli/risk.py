"""What --risk means to evaluate --calibrate and to generate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from lime_mlx.cli.common import LoadedRequest, Request
from lime_mlx.errors import MethodError

if TYPE_CHECKING:
    from rich.console import Console

    from lime_mlx.evaluate.bound import Bound, Wish
    from lime_mlx.evaluate.calibrate import FittedDetector
    from lime_mlx.support.promise import Promise

# Options of generate that would make answers unlike those of the calibration.
FIXED = (
    *("method", "on_unsupported", "system", "max_tokens", "temperature", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "seed", "stop"),
)


def wished(calibrate: bool, risk: float | None, confidence: float, method: Sequence[str]) -> Wish | None:
    """What --risk, --confidence and --method of evaluate ask to be promised; None without --risk."""
    if risk is None:
        if given("confidence"):
            raise click.UsageError("--confidence is that of a risk: say which one with --risk, such as --risk 0.02.")
        return None
    check_share("risk", risk, "0.02")
    check_share("confidence", confidence, "0.95")
    if not calibrate:
        raise click.UsageError("--risk computes a bound while a model is calibrated: add --calibrate.")
    if len(method) > 1:
        raise click.UsageError("--risk is about one procedure: give one --method, or none for drop.")

    from lime_mlx.evaluate.bound import Wish
    from lime_mlx.support.promise import DROP

    wish = Wish(risk, confidence, method[0] if method else DROP)
    wish.check()
    return wish


def check_share(name: str, value: float, example: str) -> None:
    """Refuse what is not between 0 and 1."""
    if not 0 < value < 1:
        raise click.UsageError(f"--{name} is {value:g}; it must be above 0 and below 1, such as {example}.")


def given(name: str) -> bool:
    """Whether the user gave an option of this command."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def print_bounds(console: Console, fits: Sequence[FittedDetector], bounds: Sequence[Bound | None]) -> None:
    """Print what was found for each promise; that of the best threshold where nothing is promised."""
    from rich.table import Table

    shown = [(fit.model, bound) for fit, bound in zip(fits, bounds, strict=True) if bound is not None]
    table = Table("", *(model for model, _ in shown), box=None, pad_edge=False)
    rows = {
        "risk promised": [f"{b.promise.risk:g}" if b.promise else "none" for _, b in shown],
        "with probability": [f"{b.promise.confidence:g}" if b.promise else "" for _, b in shown],
        "procedure": [b.wish.procedure for _, b in shown],
        "threshold": [f"{b.threshold:.3f}" for _, b in shown],
        "observed loss": [f"{b.loss:.4f}" for _, b in shown],
        "recall": [f"{b.recall:.3f}" for _, b in shown],
        "kept": [f"{b.kept:.3f}" for _, b in shown],
        "answers": [str(b.pictures) for _, b in shown],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    console.print(table)
    console.print(
        "Loss: the share of unsupported words among those kept in an answer; its mean over answers is the risk. "
        "Recall and kept: of the true objects, and of those that plain decoding names, the share that is kept. "
        "The detector was fitted on half of the captions, the bound computed on the others.",
        soft_wrap=True,
    )


def check_request(request: Request, risk: float | None) -> None:
    """Refuse, before a model is loaded, options of generate that do not go with --risk."""
    if risk is None:
        return
    check_share("risk", risk, "0.02")
    for name in FIXED:
        if given(name):
            option = name.replace("_", "-")
            raise click.UsageError(f"--risk is about answers as they were calibrated: leave --{option} out.")
    if not request.image and not request.audio:
        raise MethodError("--risk is about answers about a picture or a sound: give one.")


def promised(opened: LoadedRequest, request: Request, risk: float) -> Promise:
    """The stored promise of a model that holds for a request. From here on the model flags words at its threshold.

    Raises `MethodError` where there is none, or it is about something else.
    """
    from lime_mlx.checkpoint.hub import locate
    from lime_mlx.checkpoint.promised import promised as stored
    from lime_mlx.files import section

    kinds = ["image"] * len(request.image) + ["audio"] * len(request.audio)
    folder = locate(opened.name, revision=request.revision)
    promise, detector = stored(opened.model, opened.prompt, opened.name, kinds, request.prompt, risk, folder)
    config = opened.model.config
    config["lime"] = {**section(config, "lime"), "detector": asdict(detector)}
    return promise


def told(promise: Promise) -> str:
    """What is promised, and on what it was calibrated, in one line."""
    from lime_mlx.prompt import NOUNS

    noun = NOUNS[promise.medium][1]
    by = f"{promise.procedure} at {promise.threshold:.3f}" if promise.flags else promise.procedure
    return (
        f"Promise ({by}): with probability {promise.confidence:g}, at most {100 * promise.risk:g} % of the object "
        f"words that an answer keeps are unsupported, on average over {noun} like the {promise.pictures} of "
        f"{promise.task} on which this was calibrated."
    )
