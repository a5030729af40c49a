"""The user's own folder, and the settings in it."""

import json
import os
import sys
from pathlib import Path

from platformdirs import user_config_path

from lime_mlx.errors import CheckpointError, LimeError
from lime_mlx.files import Json, read_json, write

SETTINGS = "settings.json"
# The key of the default model: a repository of the Hub, a folder or a bundled model.
MODEL = "model"


def home() -> Path:
    """The user's folder: $LIME_MLX_HOME, else lime-mlx among the settings of this system."""
    if chosen := os.environ.get("LIME_MLX_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":  # whatever $XDG_CONFIG_HOME says, which platformdirs follows on a Mac, too
        return Path("~/Library/Application Support/lime-mlx").expanduser()
    return user_config_path("lime-mlx", appauthor=False)


def settings_file() -> Path:
    return home() / SETTINGS


def read_settings() -> Json:
    """The user's settings; empty where there are none. Raises `LimeError`, with what to do, for a broken file."""
    file = settings_file()
    try:
        content = read_json(file)
    except CheckpointError as error:
        raise _broken(str(error)) from error
    name = content.get(MODEL)
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise _broken(f'The "{MODEL}" in {file} is no name of a model')
    return content


def default_model() -> str | None:
    """The model that the user's settings name. Raises `LimeError` for a broken file."""
    return read_settings().get(MODEL)


def set_default_model(name: str) -> Path:
    """Write the model into the user's settings, whose other values stay; returns the file. Raises `LimeError`."""
    file, content = settings_file(), {**read_settings(), MODEL: name}
    try:
        write(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:  # the folder cannot be made
        raise LimeError(f"The settings {file} cannot be written: {error.strerror or error}.") from error
    return file


def _broken(problem: str) -> LimeError:
    return LimeError(f"{problem.rstrip('.')}; mend this settings file, or delete it and run lime-mlx setup.")
