"""The promise of a model that holds for a question; see `lime_mlx.support.promise`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lime_mlx.errors import MethodError
from lime_mlx.files import WEIGHTS, fingerprint
from lime_mlx.models.base import Model
from lime_mlx.prompt import NOUNS, Prompt
from lime_mlx.session import Session
from lime_mlx.support.detector import Detector
from lime_mlx.support.promise import Promise


def promised(
    model: Model, prompt: Prompt, name: str, kinds: Sequence[str], question: str, risk: float, folder: Path
) -> tuple[Promise, Detector]:
    """The stored promise that holds for a question about media of these kinds, and the detector that flags words.

    name, folder: of the model. Raises `MethodError` where no promise is stored, or it is about something else.
    """
    detector, promise = Detector.from_config(model.config), Promise.from_config(model.config)
    task = "sounds" if "audio" in kinds else "scenes"
    run = f"lime-mlx evaluate --calibrate --risk {risk:g} --model {name} --task {task}"
    if detector is None:
        raise MethodError(f"{name} was not calibrated, and so nothing is promised of it: {run}")
    if promise is None:
        raise MethodError(f"No promise is stored for {name}: {run}")
    if (promise.weights, promise.detector) != (fingerprint(folder, (WEIGHTS,)), detector.digest):
        raise MethodError(f"The promise in config.json of {name} is about other weights or another detector: {run}")
    if promise.risk > risk:
        raise MethodError(f"{name} has a promise of {promise.risk:g}, which is weaker than {risk:g}: {run}")
    if list(kinds) != [promise.medium]:
        raise MethodError(f"The promise of {name} is about one {NOUNS[promise.medium][0]} in a question.")
    if question != promise.question:
        raise MethodError(f"The promise of {name} is about the question {promise.question!r}: ask that, or no risk.")
    if Session.open(model, prompt).in_domain is False:
        raise MethodError(
            f"Nothing is promised here: the {NOUNS[promise.medium][0]} is unlike those on which {name} was calibrated; "
            "leave --risk out."
        )
    return promise, replace(detector, threshold=promise.threshold) if promise.flags else detector
