"""The tokenizer of a checkpoint and its chat template, as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tokenizers.decoders import ByteLevel

from lime_mlx import limits
from lime_mlx.errors import CheckpointError, LimeError, first_line, short
from lime_mlx.files import read_json, read_text, section
from lime_mlx.media.formats import silent
from lime_mlx.models.config import is_token

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper


T = TypeVar("T")
# What the tokenizer of transformers asks the library in Rust by.
CALLS = ("_encode_plus", "_decode", "convert_ids_to_tokens")


def read_template(folder: Path) -> str | None:
    """The chat template, from the first file that has one; None where no file has."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return read_text(path)
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        template = read_json(folder / name).get("chat_template")
        if isinstance(template, list):
            template = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        if isinstance(template, dict):
            template = template.get("default")
        if isinstance(template, str):
            return template
    return None


def read_tokenizer(folder: Path, config: Mapping[str, object]) -> TokenizerWrapper:
    """mlx-lm's wrapper of tokenizer.json as it is. An answer ends as generation_config.json says, else config.json.

    AutoTokenizer of transformers is not used: it builds some tokenizers again by the name of their class, and those
    split text in another way. Raises `CheckpointError`.
    """
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer: tokenizer.json is missing.")
    settings = (read_json(folder / "generation_config.json"), config, section(config, "text_config"))
    stored = next((part["eos_token_id"] for part in settings if part.get("eos_token_id") is not None), [])
    ends = stored if isinstance(stored, list) else [stored]
    if not all(map(is_token, ends)):
        raise CheckpointError(f"The eos_token_id of {folder} is {short(ends)}, which is no token id.")
    size = (folder / "tokenizer.json").stat().st_size
    limits.TOKENIZER_BYTES.check(size, "The size of tokenizer.json", CheckpointError)
    read = _without_panics(PreTrainedTokenizerFast.from_pretrained, f"The tokenizer in {folder} cannot be read")
    tokenizer = read(folder, local_files_only=True)
    for name in CALLS:
        setattr(tokenizer, name, _without_panics(getattr(tokenizer, name), f"The tokenizer in {folder} failed"))
    wrapped: Callable[..., TokenizerWrapper] = TokenizerWrapper
    wrapped = _without_panics(wrapped, f"The tokenizer in {folder} cannot be used")
    return wrapped(tokenizer, _detokenizer(tokenizer.backend_tokenizer.decoder), eos_token_ids=ends)


def _without_panics(function: Callable[..., T], problem: str) -> Callable[..., T]:
    """The function with a `CheckpointError` in place of what the library of tokenizers raises.

    Where that library panics, it prints a report, and raises what is no `Exception`. It also prints the names of keys
    that it does not know, to standard output.
    """

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> T:
        try:
            with silent(1, 2):
                return function(*arguments, **options)
        except (KeyboardInterrupt, SystemExit, GeneratorExit, LimeError):
            raise
        except BaseException as error:
            raise CheckpointError(f"{problem}: {first_line(error)}.") from error

    return call


def _detokenizer(decoder: object) -> Any:
    """The streaming detokenizer of mlx-lm for what tokenizer.json says about decoding."""
    from mlx_lm import tokenizer_utils

    if isinstance(decoder, ByteLevel):
        return tokenizer_utils.BPEStreamingDetokenizer
    if "ByteFallback" in repr(decoder):
        return partial(tokenizer_utils.SPMStreamingDetokenizer, trim_space="Strip" in repr(decoder))
    return tokenizer_utils.NaiveStreamingDetokenizer
