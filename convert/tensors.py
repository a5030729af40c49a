"""What the output holds: every tensor, lazily, so that its shape and type are known before anything is read."""

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.checkpoint.load import modules
from lime_mlx.files import section
from lime_mlx.models.base import Model

from .schemes import Layers, Scheme, dequantize, quantize

DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}
SHARD = 5 << 30  # bytes, as mlx-lm and mlx-vlm
EMBEDDINGS, HEAD = "language_model.model.embed_tokens", "language_model.lm_head"
DROPPED = ("_name_or_path", "torch_dtype", "quantization", "quantization_config")
PARTS = ("text_config", "vision_config", "audio_config", "thinker_config")


def stored_dtype(config: Mapping[str, object]) -> str | None:
    """The type that config.json says its floats have."""
    for part in (config, section(config, "text_config")):
        for key in ("torch_dtype", "dtype"):
            dtype = part.get(key)
            if isinstance(dtype, str) and dtype in DTYPES:
                return dtype
    return None


def outputs(model: Model, weights: dict[str, mx.array], layers: Layers, dtype: mx.Dtype | None) -> dict[str, mx.array]:
    """Published name to array, quantised as `layers` say and float otherwise; `weights` is emptied on the way.

    Floats are cast first, and quantised layers of the source dequantised. The arrays of one layer stand together:
    computing one computes all. Nothing else keeps an array of the source, so that each is freed as it is written.
    """
    tensors: dict[str, mx.array] = {}
    stored = packed(model)
    for name in sorted(weights):
        if name not in weights:  # went with the layer it belongs to
            continue
        path, _, leaf = name.rpartition(".")
        if path in stored and leaf in ("biases", "scales", "weight"):
            names = [part for part in ("weight", "scales", "biases") if f"{path}.{part}" in weights]
            array = dequantize({part: weights.pop(f"{path}.{part}") for part in names}, stored[path])
            leaf = "weight"
        else:
            array = weights.pop(name)
        if dtype is not None and mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(dtype)
        arrays = quantize(array, layers.schemes[path]) if leaf == "weight" and path in layers.schemes else {leaf: array}
        for output in output_paths(model, path):
            tensors |= {model.publish(f"{output}.{part}" if output else part): value for part, value in arrays.items()}
    return tensors


def output_paths(model: Model, path: str) -> list[str]:
    """The paths of a module in the output: the embeddings are also the head, where a family is shared like that."""
    doubled = model.published_head and path == EMBEDDINGS and "lm_head" not in model.language_model
    return [path, HEAD] if doubled else [path]


def packed(model: Model) -> dict[str, Scheme]:
    """The modules that are quantised, and how."""
    return {
        path: Scheme(module.bits, module.group_size, module.mode)
        for path, module in modules(model).items()
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding)
    }


def shard(tensors: Mapping[str, mx.array], limit: int) -> dict[str, list[str]]:
    """File name to the names of its tensors, in order; a file has at most `limit` bytes, or one tensor."""
    parts: list[list[str]] = [[]]
    size = 0
    for name, array in tensors.items():
        if parts[-1] and size + array.nbytes > limit:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += array.nbytes
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {f"model-{i:05}-of-{len(parts):05}.safetensors": part for i, part in enumerate(parts, start=1)}


def output_config(
    model: Model, layers: Layers, scheme: Scheme | None, dtype: str | None, uniform: bool
) -> dict[str, object]:
    """config.json of the output: keys sorted, `quantization` also as `quantization_config`, as the Hub reads it.

    Layers are listed one by one unless they are all quantised as `scheme` says.
    """
    config: dict[str, object] = {key: value for key, value in model.config.items() if key not in DROPPED}
    if dtype is not None:
        for name in PARTS:
            if part := section(config, name):
                config[name] = _with_dtype(part, dtype)
        config = _with_dtype(config, dtype)
    if scheme is not None:
        exceptions = {} if uniform else layers.schemes
        options = {
            model.publish(output): layer_scheme.options
            for path, layer_scheme in exceptions.items()
            for output in output_paths(model, path)
        }
        config["quantization"] = config["quantization_config"] = {**scheme.options, **options}
    return dict(sorted(config.items()))


def _with_dtype(part: Mapping[str, object], dtype: str) -> dict[str, object]:
    return {**part, **{key: dtype for key in ("dtype", "torch_dtype") if key in part}}


def count(weights: Mapping[str, mx.array], schemes: Mapping[str, Scheme]) -> int:
    """How many numbers the tensors are, packed ones counted one by one; `schemes` are those of quantised modules."""
    total = 0
    for name, array in weights.items():
        path, _, leaf = name.rpartition(".")
        if path not in schemes or leaf not in ("weight", "scales", "biases"):
            total += array.size
        elif leaf == "weight":
            total += array.size * 32 // schemes[path].bits
    return total
