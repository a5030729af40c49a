"""What a conversion will write, worked out from names, shapes and types alone."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from lime_mlx._version import __version__
from lime_mlx.checkpoint.files import check_supported, header, quantization, read_config, shards
from lime_mlx.checkpoint.load import open_model
from lime_mlx.errors import ConversionError

from .calibrate import Sensitivity, calibrate
from .options import Options
from .schemes import RECIPES, Layers, Scheme, layers, recipe
from .tensors import DTYPES, count, described, outputs, packed, places, shard, stored_dtype

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """tensors: published name to what is to be computed; files: to the names of their tensors; config: of the output;
    modes: of quantised layers, by the names of their scales."""

    config: dict[str, Any]
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
    packed = quantization(config) is not None
    if packed and not options.dequantize:
        raise ConversionError(
            f"{source} is quantised already: make it float with --dequantize first, or better start from the original."
        )
    if options.dequantize and not packed:
        raise ConversionError(f"{source} is not quantised: leave --dequantize out.")
    for path in shards(source):
        header(path)


def signature(source: Path, options: Options) -> dict[str, Any]:
    """What makes two conversions the same one: the files that are read, what was asked, and the versions."""
    files = {path.name: path.stat() for path in [source / "config.json", *shards(source)]}
    found = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in files.items()}
    return {"version": __version__, "mlx": mx.__version__, "files": found, "options": asdict(options)}


def plan(source: Path, options: Options, bits: Mapping[str, int] | None, progress: Progress) -> Plan:
    """`bits` of each layer, where an earlier run has measured them for a relevance predicate."""
    model, weights = open_model(source)
    parameters = count(weights, packed(model))
    scheme, found, sensitivity = options.scheme, Layers({}), {}
    if scheme is not None:
        found = layers(model, scheme, options.quantize_vision)
        if options.quant_predicate in RECIPES:
            choose = recipe(options.quant_predicate, model, scheme)
            found = Layers({path: choose(path) for path in found.schemes}, found.kept)
        elif options.calibration is not None:
            if bits is None:
                bits, sensitivity = calibrate(source, list(found.schemes), scheme, options.calibration, progress)
            found = Layers({path: Scheme(bits[path], scheme.group_size) for path in found.schemes}, found.kept)
    dtype = options.dtype or stored_dtype(model.config)
    config = described(model, found, scheme, dtype, uniform=options.quant_predicate is None)
    tensors = outputs(model, weights, found, DTYPES.get(dtype))
    modes = {
        model.publish(f"{place}.scales"): one.mode
        for path, one in found.schemes.items()
        for place in places(model, path)
    }
    return Plan(config, tensors, shard(tensors, options.shard_bytes), found, parameters, modes, sensitivity)
