"""A converted folder to a repository of the Hub."""

from pathlib import Path

from lime_mlx.checkpoint.hub import REPOSITORY, http_errors
from lime_mlx.errors import ConversionError, first_line

FAILURES: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)


def upload(folder: Path, repo: str, *, token: str | None = None) -> str:
    """Make the repository where it is missing, put the folder there in one commit, and return its address.

    Raises `ConversionError`; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    check_repo(repo)
    api = HfApi(token=token)
    try:
        url = api.create_repo(repo, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repo, commit_message="Upload of a conversion by lime-mlx")
    except FAILURES + http_errors() as error:
        cause = "set HF_TOKEN to a token that may write there" if _status(error) in (401, 403) else first_line(error)
        raise ConversionError(f"{folder} is written, but could not be uploaded to {repo}: {cause}.") from error
    return str(url)


def _status(error: BaseException | None) -> int | None:
    """The status of the answer that an error came from."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def check_repo(repo: str) -> None:
    """Refuse what is no name of a repository. Raises `ConversionError`."""
    if not REPOSITORY.fullmatch(repo):
        raise ConversionError(f"{repo!r} is no name of a Hub repository; give owner/name.")
