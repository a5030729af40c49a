"""What is refused before anything is written, and that nothing stands at the output then."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from checkpoints import LLAVA, merged
from converting import picture_source

from lime_mlx.convert import convert
from lime_mlx.errors import CheckpointError, ConversionError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return picture_source(tmp_path_factory.mktemp("source") / "model")


def broken(source: Path, folder: Path, change) -> Path:
    shutil.copytree(source, folder)
    change(folder)
    return folder


def drop_shard(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()


def not_in_the_index(folder):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first = "model-00001-of-00002.safetensors"
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file == first}
    path.write_text(json.dumps(index))


def rewrite(folder, change):
    path = folder / "model-00001-of-00002.safetensors"
    weights = mx.load(str(path))
    name = next(n for n in weights if n.endswith("q_proj.weight") or n.endswith("norm.weight"))
    weights[name] = change(weights[name])
    mx.eval(weights)
    mx.save_safetensors(str(path), weights)


def cut_short(folder):
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_pickle(folder):
    for path in folder.glob("*.safetensors*"):
        path.unlink()


def new_config(**changes):
    return lambda folder: (folder / "config.json").write_text(json.dumps(merged(LLAVA, **changes)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (only_pickle, CheckpointError, "only as pickle .* convert them to safetensors"),
        (drop_shard, CheckpointError, "model-00002-of-00002.safetensors is missing"),
        (not_in_the_index, CheckpointError, "is missing, shape"),
        (lambda folder: rewrite(folder, lambda x: x[:-1]), CheckpointError, "has shape"),
        (lambda folder: rewrite(folder, lambda x: x * float("nan")), ConversionError, "holds NaN or infinity"),
        (cut_short, CheckpointError, "cut short"),
        (new_config(model_type="mamba"), CheckpointError, "supported are"),
        (new_config(quantization_config={"quant_method": "awq"}), CheckpointError, "quantised by awq"),
        (new_config(quantization={"bits": 4, "group_size": 64}), ConversionError, "quantised already.*--dequantize"),
    ],
)
def test_bad_sources(change, error, message, source, tmp_path):
    folder, out = broken(source, tmp_path / "in", change), tmp_path / "out"
    with pytest.raises(error, match=message):
        convert(folder, out, quantize=True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": True, "q_bits": 7}, "2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128"),
        ({"quantize": True, "q_group_size": 48}, "asked for 4 bits in groups of 48"),
        ({"quantize": True, "q_mode": "mxfp4", "q_bits": 3}, "Mode mxfp4 has 4 bits in groups of 32"),
        ({"quantize": True, "q_mode": "int4"}, "choose one of affine, mxfp4, mxfp8, nvfp4"),
        ({"quantize": True, "q_mode": "nvfp4", "quant_predicate": "mixed_3_6"}, "goes with --q-mode affine"),
        ({"quantize": True, "quant_predicate": "mixed_1_2"}, "relevance:bits=3.5"),
        ({"quantize": True, "quant_predicate": "relevance:bits=1.5"}, "from 2 to 8"),
        (
            {"quantize": True, "quant_predicate": "relevance:nats=3"},
            "Unknown option 'nats=3' of relevance; .*: bits,",
        ),
        ({"quantize": True, "quant_predicate": "relevance:bits=3,sample=1"}, "Did you mean samples?"),
        ({"quantize": True, "quant_predicate": "relevance"}, "relevance needs the option bits"),
        ({"quantize": True, "quant_predicate": "mixed_36"}, "choose mixed_2_6.* Did you mean mixed_3_6?"),
        ({"quantize": True, "quant_predicate": "relevance:bits=3,samples=0"}, "at least 1"),
        ({"quantize": True, "calibration_data": "pictures"}, "goes with --quant-predicate relevance"),
        ({"q_bits": 4}, "goes with --quantize"),
        ({"quant_predicate": "mixed_3_6"}, "goes with --quantize"),
        ({"quantize": True, "dequantize": True}, "not both"),
        ({"dequantize": True}, "is not quantised"),
        ({"dtype": "int8"}, "float16, bfloat16, float32"),
        ({"upload_repo": "no owner"}, "give owner/name"),
    ],
)
def test_options_that_do_not_go_together(options, message, source, tmp_path):
    with pytest.raises(ConversionError, match=message):
        convert(source, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["inner", "."])
def test_output_inside_the_source(place, source):
    with pytest.raises(ConversionError, match="inside one another"):
        convert(source, source / place, force=True)
