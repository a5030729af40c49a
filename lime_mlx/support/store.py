"""Detectors that the user calibrated himself: in a folder of his, by the fingerprint of the checkpoint."""

import os
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from lime_mlx.files import fingerprint, read_json
from lime_mlx.support.detector import Detector


def home() -> Path:
    """The user's folder: $LIME_MLX_HOME, else lime-mlx where settings are kept."""
    if chosen := os.environ.get("LIME_MLX_HOME"):
        return Path(os.path.expanduser(chosen))
    if sys.platform == "darwin":
        settings = "~/Library/Application Support"
    else:
        settings = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(os.path.expanduser(settings)) / "lime-mlx"


def place(folder: Path) -> Path:
    """Where the detector of a checkpoint is kept."""
    return home() / "detectors" / f"{fingerprint(folder)}.json"


def identity(folder: Path) -> str:
    """The fingerprint of a checkpoint, and that of the detector that the user calibrated for it."""
    file = place(folder)
    return f"{file.stem}+{sha256(file.read_bytes()).hexdigest()[:8]}" if file.is_file() else file.stem


def calibrated(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """config.json of a folder, with the detector that the user calibrated in place of its own.

    Raises `CheckpointError`, with the file, for one that is damaged. Nothing is hashed where the user has none.
    """
    if not any((home() / "detectors").glob("*.json")) or not (file := place(folder)).is_file():
        return config
    values = read_json(file).get("detector")
    Detector.parse(values, f"{file} (delete it)")
    own = config.get("lime")
    return {**config, "lime": {**(own if isinstance(own, Mapping) else {}), "detector": values}}
