import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checkpoints import (
    LLAVA,
    TEXT,
    hub,
    merged,
    prompt,
    quantized,
    random_weights,
    text_only,
    tf5,
    write,
)
from mlx.utils import tree_flatten

import lime_mlx
from lime_mlx.checkpoint.load import build, load_model, read_weights
from lime_mlx.errors import CheckpointError

GOLDEN = Path(__file__).parent / "golden"
HEAD = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def weights():
    return random_weights(LLAVA)


def logits(folder, pictures=True):
    return np.array(load_model(folder).logits(prompt(pictures)))


def packable(module):
    return hasattr(module, "to_quantized")


def direct(config, weights, pictures=True):
    """What the weights give when they are put into the module tree by hand."""
    model = build(config)
    model.load_weights(list(weights.items()))
    return np.array(model.logits(prompt(pictures)))


# --- spellings and files


@pytest.mark.parametrize("spelled", [hub, tf5, dict], ids=["hub", "tf5", "mlx"])
def test_every_spelling_gives_the_same_logits(tmp_path, weights, spelled):
    np.testing.assert_array_equal(logits(write(tmp_path, LLAVA, spelled(weights))), direct(LLAVA, weights))


@pytest.mark.parametrize("spelled", [hub, tf5, dict], ids=["hub", "tf5", "mlx"])
def test_sanitize_is_idempotent(weights, spelled):
    model = build(LLAVA)
    once = model.sanitize(spelled(weights))
    twice = model.sanitize(once)
    assert set(once) == set(twice) == set(weights)
    assert all(once[name] is twice[name] for name in once)


@pytest.mark.parametrize("index", [True, False], ids=["indexed", "not indexed"])
def test_shards(tmp_path, weights, index):
    folder = write(tmp_path, LLAVA, hub(weights), shards=3, index=index)
    mx.save_safetensors(str(folder / "consolidated.safetensors"), {"other": mx.ones(1)})
    np.testing.assert_array_equal(logits(folder), direct(LLAVA, weights))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_text_models(tmp_path, kind):
    config = merged(TEXT, model_type=kind)
    weights = random_weights(config)
    folder = write(tmp_path, config, text_only(weights))
    np.testing.assert_array_equal(logits(folder, False), direct(config, weights, False))


@pytest.mark.parametrize("name", ["llava", "lxt_llama", "lxt_qwen2", "lxt_qwen3"])
def test_golden_checkpoints(name):
    folder = GOLDEN / name
    if name == "llava":
        inputs = np.load(folder / "inputs_vanilla.npz")
        asked = lime_mlx.Prompt(inputs["input_ids"], {"pixel_values": inputs["pixel_values"]})
        expected = inputs["vanilla_logits"][:1]
    else:
        asked = lime_mlx.Prompt(np.load(folder / "inputs.npz")["input_ids"])
        expected = np.load(folder / "plain.npz")["logits"]
    found = np.array(load_model(folder / "model").logits(asked))[-len(expected) :]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_weights_are_in_memory_in_one_float_type(tmp_path, weights):
    for number, dtype in enumerate((mx.float16, mx.bfloat16, mx.float32)):
        folder = write(tmp_path / str(number), LLAVA, {k: v.astype(dtype) for k, v in weights.items()})
        model = load_model(folder)
        shutil.rmtree(folder)
        found = dict(tree_flatten(model.parameters()))
        assert {a.dtype for a in found.values()} == {mx.float32}
        for name, stored in weights.items():
            np.testing.assert_array_equal(np.array(found[name]), np.array(stored.astype(dtype).astype(mx.float32)))


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ([mx.float16], mx.bfloat16),
        ([mx.bfloat16], mx.bfloat16),
        ([mx.float32], mx.float32),
        ([mx.bfloat16, mx.float32], mx.bfloat16),
    ],
)
def test_float_type_on_a_gpu(tmp_path, weights, monkeypatch, stored, wanted):
    monkeypatch.setattr("lime_mlx.backend.compute_dtype", lambda: mx.bfloat16)
    mixed = {name: a.astype(stored[i % len(stored)]) for i, (name, a) in enumerate(weights.items())}
    model = load_model(write(tmp_path, LLAVA, mixed))
    assert {a.dtype for _, a in tree_flatten(model.parameters())} == {wanted}
    assert model.logits(prompt()).dtype == mx.float32


# --- tied heads


@pytest.mark.parametrize("extra_head", [True, False])
def test_text_config_ties(tmp_path, weights, extra_head):
    config = merged(LLAVA, text_config=merged(TEXT, tie_word_embeddings=True))
    rest = {k: v for k, v in weights.items() if k != HEAD}
    folder = write(tmp_path, config, tf5(weights if extra_head else rest))
    np.testing.assert_array_equal(logits(folder), direct(config, rest))


def test_top_level_ties_only_where_the_head_is_missing(tmp_path, weights):
    config = merged(LLAVA, tie_word_embeddings=True)
    np.testing.assert_array_equal(logits(write(tmp_path / "a", config, weights)), direct(LLAVA, weights))
    rest = {k: v for k, v in weights.items() if k != HEAD}
    tied = direct(LLAVA, {**rest, HEAD: weights[EMBEDDING]})
    np.testing.assert_allclose(logits(write(tmp_path / "b", config, rest)), tied, atol=1e-5)
    with pytest.raises(CheckpointError, match=HEAD):
        load_model(write(tmp_path / "c", LLAVA, rest))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_tied_text_models(tmp_path, kind):
    config = merged(TEXT, model_type=kind, tie_word_embeddings=True)
    weights = random_weights(config)
    assert HEAD not in weights
    head = {"lm_head.weight": mx.zeros((TEXT["vocab_size"], TEXT["hidden_size"]))}
    folder = write(tmp_path, config, text_only(weights) | head)
    np.testing.assert_array_equal(logits(folder, False), direct(config, weights, False))


# --- quantised


@pytest.mark.parametrize(
    "options",
    [
        {"group_size": 64, "bits": 4},
        {"group_size": 32, "bits": 8, "mode": "affine"},
        {"group_size": 32, "bits": 4, "mode": "mxfp4"},
        {"group_size": 32, "bits": 8, "mode": "mxfp8"},
        {"group_size": 16, "bits": 4, "mode": "nvfp4"},
    ],
    ids=["affine4", "affine8", "mxfp4", "mxfp8", "nvfp4"],
)
@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_quantised(tmp_path, weights, options, key):
    packed = quantized(LLAVA, weights, **options)
    folder = write(tmp_path, merged(LLAVA, **{key: options}), packed)
    model = load_model(folder)
    layer = model.language_model.layers[0].mlp.up_proj
    assert isinstance(layer, nn.QuantizedLinear)
    assert (layer.group_size, layer.bits, layer.mode) == (
        options["group_size"],
        options["bits"],
        options.get("mode", "affine"),
    )
    again = build(LLAVA)
    nn.quantize(again, **options)
    again.load_weights(list(packed.items()))
    found = np.array(model.logits(prompt()))
    np.testing.assert_array_equal(found, np.array(again.logits(prompt())))
    assert found.dtype == np.float32
    plain = direct(LLAVA, weights)
    assert 0.7 < np.corrcoef(found.ravel(), plain.ravel())[0, 1] < 1


@pytest.mark.parametrize("spelled", [dict, tf5], ids=["mlx", "tf5"])
def test_one_layer_quantised_another_way_and_one_not_at_all(tmp_path, weights, spelled):
    own = {
        "language_model.model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 8},
        "language_model.model.layers.1.mlp.up_proj": False,
        "language_model.model.layers.1.self_attn.q_proj": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    }
    packed = quantized(LLAVA, weights, lambda path, m: packable(m) and own.get(path, True), group_size=64, bits=4)
    if spelled is tf5:
        packed = tf5(packed)
        own = {path.replace("language_model.model", "model.language_model"): choice for path, choice in own.items()}
    folder = write(tmp_path, merged(LLAVA, quantization={"group_size": 64, "bits": 4, **own}), packed)
    model = load_model(folder)
    layers = model.language_model.layers
    assert (layers[0].mlp.down_proj.bits, layers[0].mlp.down_proj.group_size) == (8, 32)
    assert type(layers[1].mlp.up_proj) is nn.Linear
    assert layers[1].self_attn.q_proj.mode == "mxfp4"
    assert layers[0].mlp.up_proj.bits == 4
    assert isinstance(model.vision_tower.vision_model.embeddings.position_embedding, nn.QuantizedEmbedding)
    assert np.isfinite(np.array(model.logits(prompt()))).all()


def test_overrides_of_a_text_model_pass_through_its_names(tmp_path):
    weights = random_weights(TEXT)
    own = {"lm_head": {"group_size": 32, "bits": 8}, "model.layers.1.mlp.up_proj": False, "model.embed_tokens": True}
    here = {f"language_model.{path}": choice for path, choice in own.items()}
    packed = quantized(TEXT, weights, lambda path, m: packable(m) and here.get(path, True), group_size=64, bits=4)
    folder = write(tmp_path, merged(TEXT, quantization={"group_size": 64, "bits": 4, **own}), text_only(packed))
    decoder = load_model(folder).language_model
    assert decoder.lm_head.bits == 8
    assert type(decoder.layers[1].mlp.up_proj) is nn.Linear
    assert isinstance(decoder.model.embed_tokens, nn.QuantizedEmbedding)


def test_only_layers_with_scales_are_quantised(tmp_path, weights):
    packed = quantized(
        LLAVA, weights, lambda path, m: packable(m) and "vision_tower" not in path, group_size=64, bits=4
    )
    model = load_model(write(tmp_path, merged(LLAVA, quantization={"group_size": 64, "bits": 4}), packed))
    assert type(model.vision_tower.vision_model.encoder.layers[0].mlp.fc1) is nn.Linear
    assert isinstance(model.language_model.lm_head, nn.QuantizedLinear)


def test_tied_and_quantised(tmp_path):
    config = merged(TEXT, tie_word_embeddings=True)
    options = {"group_size": 64, "bits": 4}
    packed = quantized(config, random_weights(config), **options)
    folder = write(tmp_path, merged(config, quantization=options), text_only(packed))
    again = build(config)
    nn.quantize(again, **options)
    again.load_weights(list(packed.items()))
    np.testing.assert_array_equal(logits(folder, False), np.array(again.logits(prompt(False))))


# --- for converters


def test_read_weights_gives_them_as_stored(tmp_path, weights):
    stored = {name: array.astype(mx.float16) for name, array in hub(weights).items()}
    found = read_weights(write(tmp_path, LLAVA, stored, shards=2))
    assert found.keys() == stored.keys()
    assert all(found[name].dtype == array.dtype for name, array in stored.items())
