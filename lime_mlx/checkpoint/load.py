"""A folder or a Hub repository to a model and its processor. Code in a checkpoint is never run."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from lime_mlx import backend
from lime_mlx.checkpoint.files import (
    IMAGE_TOKENS,
    check_supported,
    header,
    held_bytes,
    model_type,
    quantization,
    read_config,
    shards,
)
from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.tokenizer import read_template, read_tokenizer
from lime_mlx.errors import BackendError, CheckpointError, first_line, short
from lime_mlx.files import read_json, section
from lime_mlx.models import family, tower_type
from lime_mlx.models.base import Model
from lime_mlx.models.decoder import DecoderConfig
from lime_mlx.processor import Processor, Settings
from lime_mlx.support.store import calibrated

# What safetensors calls the types of MLX.
TYPE_NAMES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32", mx.uint8: "U8"}


def load(
    path_or_repo: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None
) -> tuple[Model, Processor]:
    """The model and its processor: from a folder, a Hub repository, or "demo", which is bundled.

    `HF_HUB_OFFLINE=1` uses the local cache only, `HF_TOKEN` opens gated and private repositories. Raises
    `CheckpointError`, and `BackendError` when the weights are larger than the memory of this machine.
    """
    folder = locate(path_or_repo, revision=revision, token=token)
    return load_model(folder), load_processor(folder)


def load_model(folder: str | os.PathLike[str]) -> Model:
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
    model.eval()
    return model


def open_model(folder: str | os.PathLike[str]) -> tuple[Model, dict[str, mx.array]]:
    """The module tree of config.json, and the weights under its names, which fit it and are not yet read into memory.

    Layers whose weights are quantised are so in the tree, too. Raises `CheckpointError`.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = build(config)
    with _describing(config):
        model.language_model.config.check_heads()
    stored = read_weights(folder)
    try:
        weights = model.sanitize(stored)
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"The weights in {folder} do not fit config.json: {first_line(error)}.") from error
    _check_parts(folder, config, model, weights)
    _tie(config, model, weights)
    _quantize(folder, config, model, weights)
    _check_fit(folder, model, weights)
    return model, weights


def load_processor(folder: str | os.PathLike[str]) -> Processor:
    """The processor of a folder; needs no weights. Raises `CheckpointError`."""
    folder = Path(folder)
    config = read_config(folder)
    check_supported(config)
    cls = family(model_type(config), tower_type(config))
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
    return Processor(tokenizer, read_template(folder) or cls.template(config), model_type(config), vocabulary, media)


def _settings(folder: Path) -> Settings:
    """preprocessor_config.json, and what newer checkpoints have in processor_config.json instead."""
    old, new = read_json(folder / "preprocessor_config.json"), read_json(folder / "processor_config.json")
    return Settings(old or section(new, "image_processor"), old or section(new, "feature_extractor"), new)


def build(config: dict[str, object]) -> Model:
    """The module tree that config.json describes, with no weights in memory. Raises `CheckpointError`."""
    check_supported(config)
    cls = family(model_type(config), tower_type(config))
    with _describing(config):
        model: Model = cls(config)
    return model


def modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a module tree, by their dotted paths."""
    return dict(model.named_modules())


def parameters(model: nn.Module) -> dict[str, mx.array]:
    """The weights of a module tree, by their dotted names."""
    return dict(tree_flatten(model.parameters()))


@contextmanager
def _describing(config: Mapping[str, object]) -> Iterator[None]:
    """An error inside comes from config.json: a value has the wrong type, or makes no model."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError, MemoryError) as error:
        raise CheckpointError(
            f"config.json does not describe a {model_type(config)} model: {first_line(error)}."
        ) from error


def read_weights(folder: str | os.PathLike[str]) -> dict[str, mx.array]:
    """All tensors of a folder under the names they are stored by, not yet read into memory.

    Raises `CheckpointError`.
    """
    weights: dict[str, mx.array] = {}
    for path in shards(Path(folder)):
        header(path)
        try:
            stored = mx.load(str(path), format="safetensors")
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read, download it again: {first_line(error)}.") from error
        assert isinstance(stored, dict)
        weights |= stored
    return weights


def _check_parts(folder: Path, config: Mapping[str, object], model: Model, weights: dict[str, mx.array]) -> None:
    """Refuse what a text-only conversion leaves of a model that reads pictures."""
    towers = {name.split(".")[0] for name in parameters(model)} - {"language_model"}
    text_only = not any(name.split(".")[0] in towers for name in weights)
    declares = any(config.get(key) is not None for key in IMAGE_TOKENS) and not config.get("vision_config")
    if text_only and (towers or declares):
        raise CheckpointError(
            f"{folder} is a text-only conversion of a model that reads pictures or sound: its tower is missing "
            "(mlx-lm leaves it out); convert the original again with lime-mlx convert."
        )


def _tie(config: Mapping[str, object], model: Model, weights: dict[str, mx.array]) -> None:
    """Use the input embeddings as the head where the weights have no head and config.json allows that."""
    headless = not any(name.startswith("language_model.lm_head.") for name in weights)
    if headless and any(part.get("tie_word_embeddings") for part in (config, section(config, "text_config"))):
        model.language_model.pop("lm_head", None)


def _quantize(folder: Path, config: Mapping[str, object], model: Model, weights: dict[str, mx.array]) -> None:
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

    def choose(path: str, module: nn.Module) -> bool | dict[str, object]:
        choice = layers.get(path, f"{path}.scales" in weights)
        if not choice or not hasattr(module, "to_quantized"):
            return False
        return dict(_options(choice)) if isinstance(choice, dict) else True

    try:
        nn.quantize(model, class_predicate=choose, **_options(settings))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The quantization in config.json cannot be used: {first_line(error)}.") from error


class QuantizeOptions(TypedDict, total=False):
    """What `mlx.nn.quantize` takes."""

    group_size: int
    bits: int
    mode: str


def _options(settings: Mapping[str, object]) -> QuantizeOptions:
    keys = QuantizeOptions.__annotations__
    return cast(QuantizeOptions, {"mode": "affine", **{key: settings[key] for key in keys if key in settings}})


def _check_fit(folder: Path, model: Model, weights: dict[str, mx.array]) -> None:
    """Names, shapes and kinds of the weights against those of the model."""
    expected = parameters(model)
    problems = [
        f"{name} is missing, shape {a.shape} is expected" for name, a in expected.items() if name not in weights
    ]
    problems += [f"{short(name)} is not expected" for name in weights if name not in expected]
    for name, wanted in expected.items():
        stored = weights.get(name, wanted)
        if wanted.shape != stored.shape:
            problems.append(f"{name} has shape {stored.shape}, {wanted.shape} is expected")
        elif _kind(wanted) != _kind(stored):
            problems.append(f"{name} holds {_kind(stored)}, {_kind(wanted)} is expected")
    if problems:
        rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"The weights in {folder} do not fit config.json: {'; '.join(problems[:3])}{rest}.")


def _kind(array: mx.array) -> str:
    """The type of an array as far as it must fit: any float is as good as another."""
    return "floats" if mx.issubdtype(array.dtype, mx.floating) else str(array.dtype).removeprefix("mlx.core.")


def _dtype(weights: dict[str, mx.array]) -> mx.Dtype:
    """The type that the floats among the weights are computed in."""
    floats = {array.dtype for array in weights.values() if _kind(array) == "floats"}
    return mx.float32 if floats == {mx.float32} else backend.compute_dtype()


def held(weights: dict[str, mx.array]) -> int:
    """Bytes that weights take while they run."""
    stored = ((TYPE_NAMES.get(array.dtype, ""), array.nbytes) for array in weights.values())
    return held_bytes(stored, backend.compute_dtype().size)


def _check_memory(folder: Path, weights: dict[str, mx.array]) -> None:
    """Refuse weights that cannot be held, before they are read."""
    if not backend.fits(needed := held(weights)):
        size, memory = needed / 1e9, backend.memory_total() / 1e9
        raise BackendError(
            f"The weights in {folder} take {size:.1f} GB, and this machine has {memory:.1f} GB of memory: "
            "take a smaller model, or one with fewer bits (lime-mlx models shows what fits)."
        )


def _materialise(folder: Path, model: Model, weights: dict[str, mx.array]) -> None:
    """Read every tensor, in the type it is computed in, and refuse those that are not finite."""
    dtype = _dtype(weights)
    modes = {f"{path}.scales": module.get("mode") for path, module in modules(model).items()}
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
