"""A folder or a Hub repository to a model and its processor. Code in a checkpoint is never run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from lime_mlx.backend import compute_dtype, memory_total
from lime_mlx.checkpoint.files import IMAGE_TOKENS, check_supported, quantization, read_config, shards
from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.tokenizer import read_template, read_tokenizer
from lime_mlx.errors import BackendError, CheckpointError, line
from lime_mlx.files import read_json
from lime_mlx.models import family, tower_type
from lime_mlx.models.base import Model
from lime_mlx.models.decoder import DecoderConfig
from lime_mlx.processor import Processor, Settings
from lime_mlx.support.store import calibrated


def load(
    path_or_repo: str | os.PathLike, *, revision: str | None = None, token: str | None = None
) -> tuple[Model, Processor]:
    """The model and its processor: from a folder, a Hub repository, or "demo", which is bundled.

    `HF_HUB_OFFLINE=1` uses the local cache only, `HF_TOKEN` opens gated and private repositories. Raises
    `CheckpointError`, and `BackendError` when the weights are larger than the memory of this machine.
    """
    folder = locate(path_or_repo, revision=revision, token=token)
    return load_model(folder), load_processor(folder)


def load_model(folder: str | os.PathLike) -> Model:
    """The model of config.json with its weights, float or quantised by MLX, ready to run.

    Weights become float32 on the CPU and bfloat16 on a GPU, where those that are all float32 stay so: float16 lacks the
    range that gradients need. Raises `CheckpointError` when a file is missing or damaged, or the weights do not fit the
    model, and `BackendError` when they do not fit in memory.
    """
    folder = Path(folder)
    model, weights = open_model(folder)
    model.config.update(calibrated(model.config, folder))
    _check_memory(folder, weights)
    _materialise(folder, model, weights)
    model.load_weights(list(weights.items()))
    return model.eval()


def open_model(folder: str | os.PathLike) -> tuple[Model, dict[str, mx.array]]:
    """The module tree of config.json, and the weights under its names, which fit it and are not yet read into memory.

    Layers whose weights are quantised are so in the tree, too. Raises `CheckpointError`.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = build(config)
    weights = model.sanitize(read_weights(folder))
    _check_parts(folder, config, model, weights)
    _tie(config, model, weights)
    _quantize(folder, config, model, weights)
    _check_fit(folder, model, weights)
    return model, weights


def load_processor(folder: str | os.PathLike) -> Processor:
    """The processor of a folder; needs no weights. Raises `CheckpointError`."""
    folder = Path(folder)
    config = read_config(folder)
    check_supported(config)
    cls = family(config["model_type"], tower_type(config))
    settings = _settings(folder)
    with _describing(config):
        media = cls.media(config, settings)
        vocabulary = DecoderConfig.from_dict(cls.text(config)).vocab_size
    tokenizer = read_tokenizer(folder, config)
    for medium in media:
        if tokenizer.convert_ids_to_tokens(medium.token) is None:
            raise CheckpointError(
                f"The tokenizer in {folder} lacks the {medium.kind} token of config.json, {medium.token}."
            )
    return Processor(tokenizer, read_template(folder) or cls.template(config), config["model_type"], vocabulary, media)


def _settings(folder: Path) -> Settings:
    """preprocessor_config.json, and what newer checkpoints have in processor_config.json instead."""
    old, new = read_json(folder / "preprocessor_config.json"), read_json(folder / "processor_config.json")
    return Settings(old or new.get("image_processor") or {}, old or new.get("feature_extractor") or {}, new)


def build(config: dict[str, Any]) -> Model:
    """The module tree that config.json describes, with no weights in memory. Raises `CheckpointError`."""
    check_supported(config)
    cls = family(config["model_type"], tower_type(config))
    with _describing(config):
        return cls(config)


@contextmanager
def _describing(config: dict[str, Any]) -> Iterator[None]:
    """What goes wrong inside is the fault of config.json: a value of the wrong type, or one that makes no model."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        kind = config["model_type"]
        raise CheckpointError(f"config.json does not describe a {kind} model: {line(error)}.") from error


def read_weights(folder: str | os.PathLike) -> dict[str, mx.array]:
    """All tensors of a folder under the names they are stored by, not yet read into memory."""
    weights = {}
    for path in shards(Path(folder)):
        try:
            weights |= mx.load(str(path), format="safetensors")
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read, download it again: {line(error)}.") from error
    return weights


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
    if missing and any(part.get("tie_word_embeddings") for part in (config, config.get("text_config") or {})):
        model.language_model.pop("lm_head", None)


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
        raise CheckpointError(f"The quantization in config.json cannot be used: {line(error)}.") from error


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


def _dtype(weights: dict[str, mx.array]) -> mx.Dtype:
    """The type that the floats among the weights are computed in."""
    floats = {array.dtype for array in weights.values() if _kind(array) == "floats"}
    return mx.float32 if floats == {mx.float32} else compute_dtype()


def held(weights: dict[str, mx.array]) -> int:
    """Bytes that weights take while they run."""
    size = _dtype(weights).size
    return sum(array.size * size if _kind(array) == "floats" else array.nbytes for array in weights.values())


def _check_memory(folder: Path, weights: dict[str, mx.array]) -> None:
    """Refuse weights that cannot be held, before they are read."""
    if (needed := held(weights)) > (there := memory_total()):
        raise BackendError(
            f"The weights in {folder} take {needed / 1e9:.1f} GB, and this machine has {there / 1e9:.1f} GB of memory: "
            "take a smaller model, or one with fewer bits (lime-mlx models shows what fits)."
        )


def _materialise(folder: Path, model: Model, weights: dict[str, mx.array]) -> None:
    """Read every tensor, in the type it is computed in, and refuse those that are not finite."""
    dtype = _dtype(weights)
    modes = {f"{path}.scales": module.get("mode") for path, module in model.named_modules()}
    for name, array in weights.items():
        if _kind(array) == "floats":
            weights[name] = array = array.astype(dtype)
        mx.eval(array)
        if not finite(array, modes.get(name)):
            raise CheckpointError(f"The weights in {folder} are damaged: {name} holds NaN or infinity.")


def finite(array: mx.array, mode: str | None = None) -> bool:
    """Whether weights, or scales of a quantisation `mode`, hold neither NaN nor infinity."""
    if _kind(array) == "floats":
        return bool(mx.isfinite(array.sum()) or mx.isfinite(array).all())
    if array.dtype == mx.uint8:  # scales: 8-bit floats without infinities
        nan = (array & 127) == 127 if mode == "nvfp4" else array == 255
        return not nan.any().item()
    return True
