"""Detectors and promises that the user calibrated: in the user's folder, by the fingerprint of the checkpoint."""

from collections.abc import Mapping
from hashlib import sha256
from math import isfinite
from pathlib import Path

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json, fingerprint, read_json, section
from lime_mlx.settings import home
from lime_mlx.support.detector import Detector
from lime_mlx.support.domain import Domain
from lime_mlx.support.promise import Promise


def detector_file(folder: Path) -> Path:
    """Where the detector of a checkpoint is kept."""
    return home() / "detectors" / f"{fingerprint(folder)}.json"


def identity(folder: Path) -> str:
    """The fingerprint of a checkpoint, and that of the detector that the user calibrated for it."""
    file = detector_file(folder)
    return f"{file.stem}+{sha256(file.read_bytes()).hexdigest()[:8]}" if file.is_file() else file.stem


def calibrated(config: Json, folder: Path) -> Json:
    """config.json of a folder, with what the user calibrated in place of its own: detector, domain and promise.

    A promise is about one detector: the checkpoint's own goes with its own detector. Raises `CheckpointError`, with the
    file, for one that is damaged. Nothing is hashed where the user has none.
    """
    if not any((home() / "detectors").glob("*.json")) or not (file := detector_file(folder)).is_file():
        return config
    values, where = read_json(file), f"{file} (delete it)"
    chosen = {"detector": values.get("detector"), "domain": values.get("domain")}
    Detector.parse(chosen["detector"], where)
    if chosen["domain"] is not None:
        Domain.parse(chosen["domain"], where)
    if values.get("promise") is not None:
        chosen["promise"] = values["promise"]
        Promise.parse(chosen["promise"], where)
    if (yes := values.get("yes")) is not None:
        chosen["methods"] = _with_yes(config, yes, where)
    stored = config.get("lime")
    own = {key: value for key, value in stored.items() if key != "promise"} if isinstance(stored, Mapping) else {}
    return {**config, "lime": {**own, **chosen}}


def _with_yes(config: Json, yes: object, where: str) -> Json:
    """The values of methods in config.json, with the threshold of yes that was fitted. Raises `CheckpointError`."""
    threshold = yes.get("threshold") if isinstance(yes, Mapping) else None
    if not isinstance(threshold, int | float) or not isfinite(threshold):
        raise CheckpointError(f'The "yes" in {where} cannot be used: it needs a threshold.')
    methods = section(section(config, "lime"), "methods")
    return {**methods, "yesno": {**section(methods, "yesno"), "threshold": threshold}}
