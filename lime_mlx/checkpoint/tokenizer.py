"""A folder or a Hub repository to a model and its processor. Code in a checkpoint is never run."""

from functools import partial
from pathlib import Path
from typing import Any

from tokenizers.decoders import ByteLevel

from lime_mlx.errors import CheckpointError, line
from lime_mlx.files import read_json, read_text


def read_template(folder: Path) -> str | None:
    """The chat template, from the first of its homes that has one."""
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


def read_tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    """mlx-lm's wrapper of tokenizer.json as it is. An answer ends as generation_config.json says, else config.json.

    Not transformers' AutoTokenizer: it rebuilds some tokenizers by their class name, and then they cut text otherwise.
    """
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer: tokenizer.json is missing.")
    homes = [read_json(folder / "generation_config.json"), config, config.get("text_config") or {}]
    ends = next((home["eos_token_id"] for home in homes if home.get("eos_token_id") is not None), [])
    ends = ends if isinstance(ends, list) else [ends]
    if not all(isinstance(end, int) for end in ends):
        raise CheckpointError(f"The eos_token_id of {folder} is {ends}, which is no token id.")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing more precise
        raise CheckpointError(f"The tokenizer in {folder} cannot be read: {line(error)}.") from error
    return TokenizerWrapper(tokenizer, _detokenizer(tokenizer.backend_tokenizer.decoder), eos_token_ids=ends)


def _detokenizer(decoder: Any) -> Any:
    """The streaming detokenizer of mlx-lm for what tokenizer.json says about decoding."""
    from mlx_lm import tokenizer_utils

    if isinstance(decoder, ByteLevel):
        return tokenizer_utils.BPEStreamingDetokenizer
    if "ByteFallback" in repr(decoder):
        return partial(tokenizer_utils.SPMStreamingDetokenizer, trim_space="Strip" in repr(decoder))
    return tokenizer_utils.NaiveStreamingDetokenizer
