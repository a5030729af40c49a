"""The folder of a checkpoint: one that the user names, a repository of the Hub, or the bundled demo.

No weights are read and MLX is not needed.
"""

import importlib.resources
import os
import re
from pathlib import Path

from lime_mlx.checkpoint.files import (
    check_files,
    check_supported,
    missing_files,
    missing_weights,
    quantization,
    read_config,
    weight_files,
)
from lime_mlx.errors import CheckpointError, first_line, short
from lime_mlx.files import expanded

DESCRIPTION = ["*.json", "*.jinja", "*.txt", "tokenizer.model"]
SUBFOLDERS = ["*/*"]
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FAILURES: tuple[type[Exception], ...] = (OSError, RuntimeError)
# What the bundled checkpoints are called.
DEMOS = {"demo": "picture", "demo-sound": "sound"}


def locate(path_or_repo: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None) -> Path:
    """The local folder of a checkpoint; a Hub repository is downloaded, as far as it is needed and can be used.

    Raises `CheckpointError`.
    """
    name = os.fspath(path_or_repo)
    if name in DEMOS:
        if DEMOS[name] not in demos():
            raise CheckpointError("The demo checkpoint is not part of this installation; name another model.")
        return demos()[DEMOS[name]]
    folder = expanded(name)
    if name and len(os.fsencode(folder.name)) < 256 and folder.is_dir():
        return folder
    if name and len(os.fsencode(folder.name)) < 256 and folder.exists():
        raise CheckpointError(f"{name} is a file; give the folder that holds config.json.")
    if isinstance(path_or_repo, os.PathLike) or not REPOSITORY.fullmatch(name):
        raise CheckpointError(
            f"There is no folder {short(name)!r}; give a model folder, a Hub repository (owner/name) or demo."
        )
    return _download(name, revision, token)


def at_hand(name: str) -> Path | None:
    """The folder of a model that is on this machine: bundled, a folder, or in the cache of the Hub; else None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if name in DEMOS or expanded(name).is_dir():
        return locate(name)
    if not REPOSITORY.fullmatch(name):
        return None
    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=[]))
    except (LocalEntryNotFoundError, ValueError):
        return None
    return None if missing_files(folder) else folder


def demos() -> dict[str, Path]:
    """The bundled checkpoints: "picture", ... to folders."""
    home = Path(str(importlib.resources.files("lime_mlx"))) / "demo"
    return {path.name: path for path in sorted(home.iterdir()) if path.is_dir()} if home.is_dir() else {}


def _download(name: str, revision: str | None, token: str | None) -> Path:
    try:
        return _fetch(name, revision, token)
    except failures() as error:
        raise CheckpointError(refusal(name, revision, error) or _unfinished(name, revision, error)) from error


def refusal(name: str, revision: str | None, error: Exception) -> str | None:
    """What the Hub says of a repository that it refuses: gated, not there, no name; None for any other failure."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        problem = f"{name} is gated: accept its conditions on {constants.ENDPOINT}/{name}"
        return f"{problem} and set HF_TOKEN to a token of that account."
    if isinstance(error, errors.RepositoryNotFoundError):
        problem = f"There is no folder {name} here and no such repository on the Hub"
        return f"{problem}; a private one needs HF_TOKEN."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r} on the Hub."
    if isinstance(error, errors.HFValidationError):
        return f"{name!r} is neither a folder nor the name of a Hub repository (owner/name)."
    return None


def failures() -> tuple[type[Exception], ...]:
    """What the client of the Hub raises where a name, a connection, a server or the disk is at fault.

    `ValueError` is one for a name that cannot be, and for an answer that is no JSON.
    """
    return (*FAILURES, *http_errors(), ValueError)


def http_errors() -> tuple[type[Exception], ...]:
    """What the client of the Hub raises when a connection fails or a server refuses: the errors of its HTTP library."""
    from huggingface_hub import errors

    return tuple(base for base in errors.HfHubHTTPError.__bases__ if issubclass(base, Exception))


def _fetch(name: str, revision: str | None, token: str | None) -> Path:
    """Download what describes the model, and then its weights, if it can be used. Nothing comes twice."""
    from huggingface_hub import HfApi, snapshot_download

    def download(files: list[str], revision: str | None) -> Path:
        return Path(
            snapshot_download(name, revision=revision, token=token, allow_patterns=files, ignore_patterns=SUBFOLDERS)
        )

    folder = download(DESCRIPTION, revision)
    if missing_weights(folder):
        commit = folder.name
        names = [file for file in HfApi(token=token).list_repo_files(name, revision=commit) if "/" not in file]
        check_files(name, names)
        config = read_config(folder)
        check_supported(config)
        quantization(config)
        download([*DESCRIPTION, *weight_files(folder, names)], commit)
    return folder


def _unfinished(name: str, revision: str | None, error: Exception) -> str:
    """Why a repository could not be downloaded, and what of it the cache lacks."""
    from huggingface_hub import constants, errors, snapshot_download

    wanted = f"{name} at revision {revision}" if revision else name
    try:
        cached = snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[])
        lacking = ", ".join(missing_files(Path(cached))) or "part of its settings"
        state = f"{wanted} is not wholly in the local cache of the Hub: {lacking} missing"
    except errors.LocalEntryNotFoundError:
        state = f"{wanted} is no folder here and not in the local cache of the Hub"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    if constants.HF_HUB_OFFLINE:
        return f"{state}, and HF_HUB_OFFLINE is set; run once online, or give a folder."
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status == 401:
        return f"{name} cannot be downloaded: the token is not valid; set HF_TOKEN to one that is, or unset it."
    if status is None and not isinstance(cause, (OSError, RuntimeError)):
        return (
            f"{state}, and the connection to the Hub failed ({first_line(cause)}); run once online, or give a folder."
        )
    return f"{name} cannot be downloaded: {first_line(cause)}."
