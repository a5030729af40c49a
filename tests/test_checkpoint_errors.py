import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import LLAVA, TEXT, merged, quantized, random_weights, text_only, write

from lime_mlx.checkpoint.load import load, load_model, locate
from lime_mlx.errors import CheckpointError

HEAD = "language_model.lm_head.weight"
PICTURE_PARTS = ("vision_tower", "multi_modal_projector")


@pytest.fixture(scope="module")
def weights():
    return random_weights(LLAVA)


def problem(action, *args) -> str:
    """The message, which must be one sentence on one line."""
    with pytest.raises(CheckpointError) as caught:
        action(*args)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.fixture
def folder(tmp_path, weights):
    return write(tmp_path / "model", LLAVA, weights)


def test_no_folder(tmp_path, folder):
    assert "no folder" in problem(load_model, tmp_path / "nothing")
    for name in (str(tmp_path / "nothing"), "./nothing", "nothing", "a/b/c", "../a/b", "~/nothing-here", ""):
        message = problem(load, name)
        assert "no folder" in message
        assert "owner/name" in message
    assert "no folder" in problem(load, Path("owner/name"))
    assert "is a file" in problem(load, folder / "config.json")


def test_no_demo_in_this_installation(monkeypatch, tmp_path):
    monkeypatch.setattr("lime_mlx.checkpoint.hub.importlib.resources.files", lambda _: tmp_path)
    assert "demo" in problem(locate, "demo")
    (tmp_path / "demo" / "picture").mkdir(parents=True)
    assert locate("demo") == tmp_path / "demo" / "picture"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no config.json"),
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[1]", "no JSON object"),
        ("{}", "no model_type"),
        ('{"model_type": 5}', "no model_type"),
        ('{"model_type": "mamba"}', "llama, llava, "),
        ("\xff", "cannot be read"),
    ],
)
def test_bad_config_files(folder, content, words):
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    message = problem(load_model, folder)
    assert words in message
    assert words not in ("is not JSON", "no JSON object") or "config.json" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text_config": {**TEXT, "hidden_size": "wide"}}, "does not describe a llava model"),
        ({"text_config": {**TEXT, "num_attention_heads": 0}}, "does not describe a llava model"),
        ({"text_config": [1]}, "does not describe a llava model"),
        ({"text_config": {**TEXT, "model_type": "gemma"}}, "'gemma' text part"),
        ({"text_config": {**TEXT, "hidden_act": "mish"}}, "'mish'"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "siglip_vision_model"),
        ({"vision_feature_select_strategy": "cls"}, "default, full"),
        ({"vision_feature_layer": -9}, "2 layers"),
        ({"projector_hidden_act": "mish"}, "'mish'"),
        ({"vision_config": {**LLAVA["vision_config"], "hidden_act": "mish"}}, "'mish'"),
        ({"vision_config": {**LLAVA["vision_config"], "hidden_size": "wide"}}, "does not describe a llava model"),
        ({"image_token_index": "<image>"}, "'<image>'"),
    ],
)
def test_configs_that_describe_no_model(tmp_path, weights, changes, words):
    assert words in problem(load_model, write(tmp_path, merged(LLAVA, **changes), weights))


def test_names_and_shapes_that_do_not_fit(tmp_path, weights):
    missing = {k: v for k, v in weights.items() if not k.startswith("language_model.model.layers.1.")}
    message = problem(load_model, write(tmp_path / "a", LLAVA, missing))
    assert message.count("is missing") == 3
    assert "language_model.model.layers.1.self_attn.q_proj.weight is missing, shape (64, 64) is expected" in message
    assert "and 6 more" in message

    message = problem(load_model, write(tmp_path / "b", LLAVA, {**weights, "language_model.model.bonus": mx.ones(3)}))
    assert "language_model.model.bonus is not expected" in message
    assert "more" not in message

    message = problem(load_model, write(tmp_path / "c", LLAVA, {**weights, HEAD: mx.ones((64, 5))}))
    assert f"{HEAD} has shape (64, 5), (320, 64) is expected" in message

    message = problem(load_model, write(tmp_path / "d", LLAVA, {**weights, HEAD: weights[HEAD].astype(mx.int8)}))
    assert f"{HEAD} holds int8, floats is expected" in message

    packed = quantized(LLAVA, weights, group_size=32, bits=4)
    wrong = merged(LLAVA, quantization={"group_size": 64, "bits": 4})
    assert "scales has shape (64, 2), (64, 1) is expected" in problem(load_model, write(tmp_path / "e", wrong, packed))


def test_text_only_conversion(tmp_path, weights):
    rest = {k: v for k, v in weights.items() if not k.startswith(PICTURE_PARTS)}
    for name, config in (("a", LLAVA), ("b", merged(LLAVA, vision_config=None))):
        message = problem(load_model, write(tmp_path / name, config, rest))
        assert "text-only conversion" in message
        assert "convert" in message
    config = merged(TEXT, image_token_id=7)
    assert "text-only conversion" in problem(load_model, write(tmp_path / "c", config, text_only(rest)))


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.999])
def test_truncated_weights(folder, keep):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    message = problem(load_model, folder)
    assert str(path) in message
    assert "again" in message


def test_weights_that_are_no_safetensors(folder):
    path = folder / "model.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 1234\n")
    assert str(path) in problem(load_model, folder)
    path.unlink()
    assert "no .safetensors file" in problem(load_model, folder)


@pytest.mark.parametrize("index", [True, False], ids=["indexed", "not indexed"])
def test_missing_and_truncated_shards(tmp_path, weights, index):
    folder = write(tmp_path, LLAVA, weights, shards=3, index=index)
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert str(path) in problem(load_model, folder)
    path.unlink()
    message = problem(load_model, folder)
    assert path.name in message
    assert "missing" in message


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}']
)
def test_malformed_index(tmp_path, weights, content):
    folder = write(tmp_path, LLAVA, weights, shards=2)
    index = folder / "model.safetensors.index.json"
    index.write_text(content)
    assert str(index) in problem(load_model, folder)


def test_an_index_cannot_point_out_of_the_folder(tmp_path, weights):
    folder = write(tmp_path / "model", LLAVA, weights, shards=2)
    (tmp_path / "outside.safetensors").write_bytes(b"")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    assert "weight_map" in problem(load_model, folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_unread(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n")
    message = problem(load_model, folder)
    assert name in message
    assert "safetensors" in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_weights_that_are_not_finite(tmp_path, weights, bad, dtype):
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    damaged = np.array(weights[name])
    damaged[3, 5] = bad
    folder = write(tmp_path, LLAVA, {**weights, name: mx.array(damaged).astype(dtype)})
    assert f"{name} holds NaN or infinity" in problem(load_model, folder)


def test_finite_weights_with_an_infinite_sum_are_fine(tmp_path, weights):
    name = "language_model.model.norm.weight"
    load_model(write(tmp_path, LLAVA, {**weights, name: mx.full(weights[name].shape, 3e38)}))


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_scales_that_are_not_finite(tmp_path, weights, mode):
    packed = quantized(LLAVA, weights, mode=mode)
    name = HEAD.replace("weight", "scales")
    scales = np.array(packed[name])
    scales[1, 0] = np.nan if mode == "affine" else 255
    folder = write(tmp_path, merged(LLAVA, quantization={"mode": mode}), {**packed, name: mx.array(scales)})
    assert f"{name} holds NaN" in problem(load_model, folder)


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        ({"group_size": 64, "bits": 7}, "bits 7"),
        ({"group_size": 48, "bits": 4}, "48"),
        ({"group_size": "64", "bits": 4}, "cannot be used"),
        ({"group_size": 64, "bits": 4, "mode": "q4_k"}, "affine, mxfp4, mxfp8, nvfp4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ([4], "no JSON object"),
        (None, "does not say how"),
    ],
)
def test_unknown_quantization(tmp_path, weights, quantization, words):
    packed = quantized(LLAVA, weights, group_size=64, bits=4)
    key = "quantization_config" if isinstance(quantization, dict) and "quant_method" in quantization else "quantization"
    assert words in problem(load_model, write(tmp_path, merged(LLAVA, **{key: quantization}), packed))
