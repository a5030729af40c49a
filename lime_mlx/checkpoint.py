"""A folder or a Hub repository to a model and its processor. Code in a checkpoint is never run."""

import importlib.resources
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from tokenizers.decoders import ByteLevel

from lime_mlx.backend import compute_dtype
from lime_mlx.errors import CheckpointError
from lime_mlx.models import family
from lime_mlx.models.base import Model
from lime_mlx.models.decoder import DecoderConfig
from lime_mlx.prompt import Processor, Settings

NEEDED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]
NOT_NEEDED = ["*/*", "consolidated*"]
MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
IMAGE_TOKENS = ("image_token_id", "image_token_index")


def load(
    path_or_repo: str | os.PathLike, *, revision: str | None = None, token: str | None = None
) -> tuple[Model, Processor]:
    """The model and its processor: from a folder, a Hub repository, or "demo", which is bundled.

    `HF_HUB_OFFLINE=1` uses the local cache only. Raises `CheckpointError`.
    """
    folder = locate(path_or_repo, revision=revision, token=token)
    return load_model(folder), load_processor(folder)


def load_model(folder: str | os.PathLike) -> Model:
    """The model of config.json with its weights, float or quantised by MLX, ready to run.

    Weights become float32 on the CPU and bfloat16 on a GPU, where those that are all float32 stay so: float16 lacks the
    range that gradients need. Raises `CheckpointError` when a file is missing or damaged, or the weights do not fit.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = build(config)
    weights = model.sanitize(read_weights(folder))
    _check_parts(folder, config, model, weights)
    _tie(config, model, weights)
    _quantize(folder, config, model, weights)
    _check_fit(folder, model, weights)
    _materialise(folder, model, weights)
    model.load_weights(list(weights.items()))
    return model.eval()


def load_processor(folder: str | os.PathLike) -> Processor:
    """The processor of a folder; needs no weights. Raises `CheckpointError`."""
    folder = Path(folder)
    config = read_config(folder)
    cls = family(config["model_type"])
    settings = _settings(folder)
    with _describing(config):
        media = cls.media(config, settings)
        vocabulary = DecoderConfig.from_dict(cls.text(config)).vocab_size
    tokenizer = _tokenizer(folder, config)
    for medium in media:
        if tokenizer.convert_ids_to_tokens(medium.token) is None:
            raise CheckpointError(
                f"The tokenizer in {folder} lacks the {medium.kind} token of config.json, {medium.token}."
            )
    return Processor(tokenizer, _template(folder) or cls.chat_template, config["model_type"], vocabulary, media)


def _settings(folder: Path) -> Settings:
    """preprocessor_config.json, and what newer checkpoints have in processor_config.json instead."""
    old, new = _read_json(folder / "preprocessor_config.json"), _read_json(folder / "processor_config.json")
    return Settings(old or new.get("image_processor") or {}, old or new.get("feature_extractor") or {}, new)


def locate(path_or_repo: str | os.PathLike, *, revision: str | None = None, token: str | None = None) -> Path:
    """The local folder of a checkpoint; a Hub repository is downloaded, as far as it is needed."""
    name = os.fspath(path_or_repo)
    if name == "demo":
        return _demo()
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if name and folder.exists():
        raise CheckpointError(f"{name} is a file; give the folder that holds config.json.")
    if isinstance(path_or_repo, os.PathLike) or not REPOSITORY.fullmatch(name):
        raise CheckpointError(
            f"There is no folder {name!r}; give a model folder, a Hub repository (owner/name) or demo."
        )
    return _download(name, revision, token)


def _demo() -> Path:
    folder = Path(str(importlib.resources.files("lime_mlx"))) / "demo" / "picture"
    if not folder.is_dir():
        raise CheckpointError("The demo checkpoint is not part of this installation; name another model.")
    return folder


def _download(name: str, revision: str | None, token: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision, token=token, allow_patterns=NEEDED, ignore_patterns=NOT_NEEDED)
        )
    except errors.GatedRepoError as error:
        problem = f"{name} is gated: accept its conditions on https://huggingface.co/{name} and set HF_TOKEN"
        raise CheckpointError(f"{problem}.") from error
    except errors.RepositoryNotFoundError as error:
        problem = f"There is no folder {name} here and no such repository on the Hub"
        raise CheckpointError(f"{problem}; a private one needs HF_TOKEN.") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name} has no revision {revision!r} on the Hub.") from error
    except errors.LocalEntryNotFoundError as error:
        problem = f"{name} is no folder here, not wholly in the local cache of the Hub, and the Hub cannot be reached"
        raise CheckpointError(f"{problem}; run once online, or give a folder.") from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{name!r} is neither a folder nor the name of a Hub repository (owner/name).") from error
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # of them, the HTTP library's own error
        raise CheckpointError(f"{name} cannot be downloaded: {_line(error)}.") from error


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """config.json of a folder. Raises `CheckpointError`, also when it has no model_type."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}.")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json: it is not a model folder.")
    config = _read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{folder / 'config.json'} has no model_type, which says what kind of model this is.")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {_line(error)}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {_line(error)}.") from error


def build(config: dict[str, Any]) -> Model:
    """The module tree that config.json describes, with no weights in memory. Raises `CheckpointError`."""
    cls = family(config["model_type"])
    with _describing(config):
        return cls(config)


@contextmanager
def _describing(config: dict[str, Any]) -> Iterator[None]:
    """What goes wrong inside is the fault of config.json: a value of the wrong type, or one that makes no model."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        kind = config["model_type"]
        raise CheckpointError(f"config.json does not describe a {kind} model: {_line(error)}.") from error


def read_weights(folder: str | os.PathLike) -> dict[str, mx.array]:
    """All tensors of a folder under the names they are stored by, not yet read into memory."""
    weights = {}
    for path in shards(Path(folder)):
        try:
            weights |= mx.load(str(path), format="safetensors")
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read, download it again: {_line(error)}.") from error
    return weights


def shards(folder: Path) -> list[Path]:
    """The safetensors files that make up the weights: model.safetensors, those of the index, or those there are."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    names = _indexed(index) if index.is_file() else _unindexed(folder)
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is incomplete: the weight file {name} is missing, download it again.")
    return [folder / name for name in names]


def _indexed(index: Path) -> list[str]:
    places = _read_json(index).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else set()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} is no index of weight files: it needs a weight_map from tensors to files.")
    return sorted(names)


def _unindexed(folder: Path) -> list[str]:
    names = {
        path.name for path in folder.glob("*.safetensors") if not path.name.startswith(("consolidated", "adapter"))
    }
    if not names:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise CheckpointError(
                f"{folder} has its weights as pickle ({pickles[0]}), which can run code when it is read; "
                "convert them to safetensors."
            )
        raise CheckpointError(f"{folder} has no weights: no .safetensors file.")
    for name in tuple(names):
        if part := re.fullmatch(r"(.*)-(\d{1,5})-of-(\d{1,5})\.safetensors", name):
            stem, width, count = part[1], len(part[2]), part[3]
            names |= {f"{stem}-{i:0{width}}-of-{count}.safetensors" for i in range(1, int(count) + 1)}
    return sorted(names)


def _check_parts(folder: Path, config: dict[str, Any], model: Model, weights: dict[str, mx.array]) -> None:
    """Refuse what a text-only conversion leaves of a model that reads pictures."""
    towers = {name.split(".")[0] for name, _ in tree_flatten(model.parameters())} - {"language_model"}
    text_only = not any(name.split(".")[0] in towers for name in weights)
    declares = any(config.get(key) is not None for key in IMAGE_TOKENS) and not config.get("vision_config")
    if text_only and (towers or declares):
        raise CheckpointError(
            f"{folder} is a text-only conversion of a model that reads pictures or sound: its tower is missing "
            "(mlx-lm leaves it out); convert the original again with lime-mlx convert."
        )


def _tie(config: dict[str, Any], model: Model, weights: dict[str, mx.array]) -> None:
    """Use the input embeddings as the head where the weights have no head and config.json allows that."""
    missing = not any(name.startswith("language_model.lm_head.") for name in weights)
    if missing and config.get("tie_word_embeddings"):
        model.language_model.pop("lm_head", None)


def quantization(config: dict[str, Any]) -> dict[str, Any] | None:
    """How MLX quantised the weights, by config.json. Raises `CheckpointError` for other ways of quantising."""
    for key in ("quantization", "quantization_config"):
        settings = config.get(key)
        if not settings:
            continue
        if not isinstance(settings, dict):
            raise CheckpointError(f"{key} in config.json is no JSON object.")
        if method := settings.get("quant_method"):
            raise CheckpointError(
                f"The weights are quantised by {method}, which MLX cannot read: "
                "take a checkpoint that is not quantised, or one that MLX quantised."
            )
        if settings.get("mode", "affine") not in MODES:
            raise CheckpointError(f"The quantization mode {settings['mode']!r} is unknown; known: {', '.join(MODES)}.")
        return settings
    return None


def _quantize(folder: Path, config: dict[str, Any], model: Model, weights: dict[str, mx.array]) -> None:
    """Make those layers quantised whose weights are."""
    settings = quantization(config)
    if settings is None:
        if any(name.endswith(".scales") for name in weights):
            raise CheckpointError(f"The weights in {folder} are quantised, but config.json does not say how.")
        return
    layers = {
        model.rename(f"{path}.weight").removesuffix(".weight"): choice
        for path, choice in settings.items()
        if isinstance(choice, (dict, bool))
    }

    def choose(path: str, module: nn.Module) -> bool | dict[str, Any]:
        choice = layers.get(path, f"{path}.scales" in weights) and hasattr(module, "to_quantized")
        own = layers.get(path)
        return _options(own) if choice and isinstance(own, dict) else choice

    try:
        nn.quantize(model, **_options(settings), class_predicate=choose)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The quantization in config.json cannot be used: {_line(error)}.") from error


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    return {"mode": "affine", **{key: settings[key] for key in ("group_size", "bits", "mode") if key in settings}}


def _check_fit(folder: Path, model: Model, weights: dict[str, mx.array]) -> None:
    """Names, shapes and kinds of the weights against those of the model."""
    expected = dict(tree_flatten(model.parameters()))
    problems = [
        f"{name} is missing, shape {a.shape} is expected" for name, a in expected.items() if name not in weights
    ]
    problems += [f"{name} is not expected" for name in weights if name not in expected]
    for name, wanted in expected.items():
        found = weights.get(name, wanted)
        if wanted.shape != found.shape:
            problems.append(f"{name} has shape {found.shape}, {wanted.shape} is expected")
        elif _kind(wanted) != _kind(found):
            problems.append(f"{name} holds {_kind(found)}, {_kind(wanted)} is expected")
    if problems:
        rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"The weights in {folder} do not fit config.json: {'; '.join(problems[:3])}{rest}.")


def _kind(array: mx.array) -> str:
    """The type of an array as far as it must fit: any float is as good as another."""
    return "floats" if mx.issubdtype(array.dtype, mx.floating) else str(array.dtype).removeprefix("mlx.core.")


def _materialise(folder: Path, model: Model, weights: dict[str, mx.array]) -> None:
    """Read every tensor, in the type it is computed in, and refuse those that are not finite."""
    floats = {array.dtype for array in weights.values() if _kind(array) == "floats"}
    dtype = mx.float32 if floats == {mx.float32} else compute_dtype()
    modes = {f"{path}.scales": module.get("mode") for path, module in model.named_modules()}
    for name, array in weights.items():
        if _kind(array) == "floats":
            weights[name] = array = array.astype(dtype)
        mx.eval(array)
        if not _finite(array, modes.get(name)):
            raise CheckpointError(f"The weights in {folder} are damaged: {name} holds NaN or infinity.")


def _finite(array: mx.array, mode: str | None) -> bool:
    if _kind(array) == "floats":
        return bool(mx.isfinite(array.sum()) or mx.isfinite(array).all())
    if array.dtype == mx.uint8:  # scales: 8-bit floats without infinities
        nan = (array & 127) == 127 if mode == "nvfp4" else array == 255
        return not nan.any().item()
    return True


def _template(folder: Path) -> str | None:
    """The chat template, from the first of its homes that has one."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return _read_text(path)
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        template = _read_json(folder / name).get("chat_template")
        if isinstance(template, list):
            template = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        if isinstance(template, dict):
            template = template.get("default")
        if isinstance(template, str):
            return template
    return None


def _tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    """mlx-lm's wrapper of tokenizer.json as it is. An answer ends as generation_config.json says, else config.json.

    Not transformers' AutoTokenizer: it rebuilds some tokenizers by their class name, and then they cut text otherwise.
    """
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer: tokenizer.json is missing.")
    homes = [_read_json(folder / "generation_config.json"), config, config.get("text_config") or {}]
    ends = next((home["eos_token_id"] for home in homes if home.get("eos_token_id") is not None), [])
    ends = ends if isinstance(ends, list) else [ends]
    if not all(isinstance(end, int) for end in ends):
        raise CheckpointError(f"The eos_token_id of {folder} is {ends}, which is no token id.")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing more precise
        raise CheckpointError(f"The tokenizer in {folder} cannot be read: {_line(error)}.") from error
    return TokenizerWrapper(tokenizer, _detokenizer(tokenizer.backend_tokenizer.decoder), eos_token_ids=ends)


def _detokenizer(decoder: Any) -> Any:
    """The streaming detokenizer of mlx-lm for what tokenizer.json says about decoding."""
    from mlx_lm import tokenizer_utils

    if isinstance(decoder, ByteLevel):
        return tokenizer_utils.BPEStreamingDetokenizer
    if "ByteFallback" in repr(decoder):
        return partial(tokenizer_utils.SPMStreamingDetokenizer, trim_space="Strip" in repr(decoder))
    return tokenizer_utils.NaiveStreamingDetokenizer


def _line(error: Exception) -> str:
    """The first line of an error, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
