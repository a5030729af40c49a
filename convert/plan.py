"""What a conversion will write. The plan needs names, shapes and types only, and reads no weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from lime_mlx._version import __version__
from lime_mlx.checkpoint.files import check_supported, header, quantization, read_config, shards
from lime_mlx.checkpoint.load import open_model
from lime_mlx.errors import ConversionError
from lime_mlx.models.base import Model

from .allocation import allocate
from .options import Options
from .schemes import RECIPES, Layers, Scheme, quantized_layers, recipe
from .sensitivity import Progress, Sensitivity, damages, measure
from .tensors import DTYPES, count, output_config, output_paths, outputs, packed, shard, stored_dtype


@dataclass(frozen=True)
class ConversionPlan:
    """What the output will hold.

    config: of the output. tensors: published name to what is to be computed. files: to the names of their tensors.
    layers: how each is quantised. parameters: how many there are. modes: of quantised layers, by the names of their
    scales. sensitivity: of the layers, where it was measured.
    """

    config: dict[str, object]
    tensors: dict[str, mx.array]
    files: dict[str, list[str]]
    layers: Layers
    parameters: int
    modes: dict[str, str]
    sensitivity: dict[str, Sensitivity]


def check_source(source: Path, options: Options) -> None:
    """Refuse what cannot be converted as asked. Raises `CheckpointError` and `ConversionError`."""
    config = read_config(source)
    check_supported(config)
    quantized = quantization(config) is not None
    if quantized and not options.dequantize:
        raise ConversionError(
            f"{source} is quantised already: make it float with --dequantize first, or better start from the original."
        )
    if options.dequantize and not quantized:
        raise ConversionError(f"{source} is not quantised: leave --dequantize out.")
    for path in shards(source):
        header(path)


def signature(source: Path, options: Options) -> dict[str, object]:
    """What makes two conversions the same one: the files that are read, the options, and the versions."""
    stats = {path.name: path.stat() for path in [source / "config.json", *shards(source)]}
    files = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    return {"version": __version__, "mlx": version("mlx"), "files": files, "options": asdict(options)}


def plan_conversion(
    source: Path, options: Options, bits: Mapping[str, int] | None, progress: Progress
) -> ConversionPlan:
    """bits: of each layer, where an earlier run has measured them for a relevance predicate."""
    model, weights = open_model(source)
    parameters = count(weights, packed(model))
    layers, sensitivity = _choose_layers(source, model, options, bits, progress)
    dtype = options.dtype or stored_dtype(model.config)
    config = output_config(model, layers, options.scheme, dtype, uniform=options.quant_predicate is None)
    tensors = outputs(model, weights, layers, DTYPES[dtype] if dtype else None)
    modes = {
        model.publish(f"{output_path}.scales"): scheme.mode
        for path, scheme in layers.schemes.items()
        for output_path in output_paths(model, path)
    }
    files = shard(tensors, options.shard_bytes)
    return ConversionPlan(config, tensors, files, layers, parameters, modes, sensitivity)


def _choose_layers(
    source: Path, model: Model, options: Options, bits: Mapping[str, int] | None, progress: Progress
) -> tuple[Layers, dict[str, Sensitivity]]:
    """How each layer is quantised, and what was measured for that."""
    scheme, wanted = options.scheme, options.relevance_recipe
    if scheme is None:
        return Layers({}), {}
    layers = quantized_layers(model, scheme, options.quantize_vision)
    if options.quant_predicate in RECIPES:
        choose = recipe(options.quant_predicate, model, scheme)
        return Layers({path: choose(path) for path in layers.schemes}, layers.kept), {}
    if wanted is None:
        return layers, {}
    sensitivity: dict[str, Sensitivity] = {}
    if bits is None:
        sensitivity = measure(source, list(layers.schemes), scheme, wanted, progress)
        sizes = {path: layer.size for path, layer in sensitivity.items()}
        bits = allocate(damages(sensitivity, wanted.weight), sizes, wanted.bits)
    return Layers({path: Scheme(bits[path], scheme.group_size) for path in layers.schemes}, layers.kept), sensitivity
