"""A converted folder to a repository of the Hub."""

from pathlib import Path

from lime_mlx.checkpoint.hub import REPOSITORY
from lime_mlx.errors import ConversionError, first_line


def upload(folder: Path, repo: str, *, token: str | None = None) -> str:
    """Make the repository where it is missing, put the folder there in one commit, and return its address.

    Raises `ConversionError`; the folder stays as it is.
    """
    from huggingface_hub import HfApi, errors

    check_repo(repo)
    api = HfApi(token=token)
    try:
        url = api.create_repo(repo, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repo, commit_message="Upload of a conversion by lime-mlx")
    except (OSError, ValueError, RuntimeError, *errors.HfHubHTTPError.__bases__) as error:
        cause = "set HF_TOKEN to a token that may write there" if _status(error) in (401, 403) else first_line(error)
        raise ConversionError(f"{folder} is written, but could not be uploaded to {repo}: {cause}.") from error
    return str(url)


def _status(error: BaseException | None) -> int | None:
    """The status of the answer that an error came from."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return response.status_code
        error = error.__cause__
    return None


def check_repo(repo: str) -> None:
    """Refuse what is no name of a repository. Raises `ConversionError`."""
    if not REPOSITORY.fullmatch(repo):
        raise ConversionError(f"{repo!r} is no name of a Hub repository; give owner/name.")
