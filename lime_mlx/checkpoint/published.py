"""What is known of a model before it is downloaded: size and licence, from the Hub or from the table of proposals."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from lime_mlx.checkpoint.files import check_files, check_supported, weight_files
from lime_mlx.checkpoint.hub import DESCRIPTION, REPOSITORY, failures, refusal
from lime_mlx.checkpoint.proposals import proposal_of
from lime_mlx.errors import CheckpointError, first_line

# Seconds after which the Hub counts as not there; the table of proposals, or an error, stands in.
PATIENCE = 10.0
NO_LICENCE = "none is stated"


@dataclass(frozen=True)
class Published:
    """size: bytes of the files that lime-mlx needs. on: the day of these facts in the table; None: read just now."""

    name: str
    size: int
    licence: str
    on: str | None = None


def published(name: str) -> Published:
    """What the Hub says of a repository; of a proposed one that cannot be asked about now, what the table says.

    Raises `CheckpointError` for a repository that is not there or cannot be used, and for one that is not in the table
    where the Hub cannot be reached.
    """
    if not REPOSITORY.fullmatch(name):
        raise CheckpointError(f"{name!r} is neither a folder nor the name of a Hub repository (owner/name).")
    try:
        return _asked(name)
    except failures() as error:
        if sentence := refusal(name, None, error):
            raise CheckpointError(sentence) from error
        if proposal := proposal_of(name):
            return Published(name, proposal.size, proposal.licence, proposal.on)
        raise CheckpointError(
            f"The Hub says nothing of {name} now ({first_line(error)}); check the connection, and try again."
        ) from error


def _asked(name: str) -> Published:
    from huggingface_hub import HfApi

    info = HfApi().model_info(name, files_metadata=True, timeout=PATIENCE)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if "/" not in file.rfilename}
    check_files(name, sizes)
    if isinstance(info.config, dict) and isinstance(info.config.get("model_type"), str):
        check_supported(info.config)
    weights = weight_files(Path(), set(sizes) - {"model.safetensors.index.json"})
    needed = {file for file in sizes if any(fnmatch(file, pattern) for pattern in DESCRIPTION)} | set(weights)
    return Published(name, sum(sizes.get(file, 0) for file in needed), licence(info.card_data, info.tags or []))


def licence(card: object, tags: list[str]) -> str:
    """The licence that a model card states, by its own name where it is none of the common ones."""
    values = card.to_dict() if hasattr(card, "to_dict") else {}
    stated = values.get("license") or next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), None)
    named = values.get("license_name") if stated in (None, "other") else None
    chosen = named or stated
    return ", ".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen or NO_LICENCE)
