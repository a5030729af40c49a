"""Decoder and LLaVA against transformers (fixtures by benchmarks/parity.py), and what a config.json may ask for."""

import json

import mlx.core as mx
import numpy as np
import pytest
from helpers import FIXTURES, SMALL, distance, fixture, parity_checkpoint, prompt_of, small_model, small_prompt

from lime_mlx.cache import KVCache
from lime_mlx.checkpoint.load import build, load_model
from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.lrp.rules import PLAIN
from lime_mlx.models import family
from lime_mlx.models.decoder import DecoderConfig
from lime_mlx.models.towers.clip import ClipConfig
from lime_mlx.prompt import Grid, Prompt, Span

SPARSE = json.loads((FIXTURES / "parity_sparse.json").read_text())


@pytest.mark.parametrize("name", SPARSE)
def test_what_config_leaves_out_is_what_transformers_assumes(name):
    config, wanted = SPARSE[name]["config"], SPARSE[name]
    text = DecoderConfig.from_dict(family(config["model_type"]).text(config))
    assert {key: getattr(text, key) for key in wanted["text"]} == wanted["text"]
    if "vision" in wanted:
        model = build(config)
        tower = model.vision_tower.config
        assert {key: getattr(tower, key) for key in wanted["vision"]} == wanted["vision"]
        assert model.image_token == wanted["image_token"]
    if "audio" in wanted:
        model = build(config)
        tower = model.audio_tower.config
        assert {key: getattr(tower, key) for key in wanted["audio"]} == wanted["audio"]
        assert model.audio_token == wanted["audio_token"]


def test_sparse_configs_of_the_three_text_families():
    assert [SPARSE[kind]["text"]["vocab_size"] for kind in ("llama", "qwen2", "qwen3")] == [32000, 151936, 151936]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "mish"}, "config.json asks for the activation 'mish'; supported: .*silu"),
        (
            {"rope_scaling": {"type": "longrope", "factor": 2}},
            "config.json asks for 'longrope' rotary embeddings; supported: default, linear, llama3, yarn.",
        ),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2}}, "config.json asks for 'dynamic' rotary"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2, "truncate": False}},
            "config.json asks for yarn rotary embeddings without truncation, which is not supported.",
        ),
    ],
)
def test_variants_that_are_not_built_are_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        DecoderConfig.from_dict({**SMALL, **changes})


@pytest.mark.parametrize(
    "rope", [{"rope_type": "default", "rope_theta": 500.0}, {"rope_theta": 500.0}, {"type": "default"}]
)
def test_default_rotary_embeddings_in_their_spellings(rope):
    config = DecoderConfig.from_dict({**SMALL, "rope_theta": 300.0, "rope_parameters": rope})
    assert config.rope_scaling is None
    assert config.rope_theta == rope.get("rope_theta", 300.0)


def test_config_values_of_none_are_left_out_values():
    config = DecoderConfig.from_dict({**SMALL, "head_dim": None, "rope_scaling": None, "num_key_value_heads": None})
    assert (config.dim, config.key_heads) == (128, 4)  # qwen3's head_dim, all heads
    config = DecoderConfig.from_dict(
        {"model_type": "llama", "hidden_size": 96, "num_attention_heads": 6, "head_dim": None}
    )
    assert (config.dim, config.key_heads) == (16, 6)


def test_yarn_values_of_none_are_left_out_values():
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    empty = dict.fromkeys(["beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate"])
    first, second = (small_model(rope_scaling=scaling) for scaling in (rope, {**rope, **empty}))
    assert distance(first.logits(small_prompt()), second.logits(small_prompt())) == 0


def test_an_unknown_model_type_lists_the_known():
    with pytest.raises(
        CheckpointError, match="^Models of type 'gpt2' are not supported; supported are .*llama.*llava.*qwen3"
    ):
        family("gpt2")


# --- the decoder as a function ----------------------------------------------------------------------------------------


def test_blocks_one_by_one_are_the_decoder():
    model = small_model()
    decoder, h = model.language_model, model.embed(small_prompt())
    cache = KVCache(len(decoder.layers))
    for index in range(len(decoder.layers)):
        h = decoder.block(index, h, cache[index])
    assert distance(decoder.head(decoder.model.norm(h))[0], model.logits(small_prompt())) < 1e-6
    assert cache.offset == len(small_prompt())


def test_later_tokens_do_not_reach_earlier_ones():
    model, prompt = small_model(), small_prompt(12)
    changed = Prompt([*prompt.input_ids[:8], 1, 2, 3, 4])
    assert distance(model.logits(changed)[:8], model.logits(prompt)[:8]) < 1e-6
    assert distance(model.logits(changed)[8:], model.logits(prompt)[8:]) > 0.1


def test_positions_matter_only_by_their_distance():
    model = small_model()
    embeds = model.embed(small_prompt())
    near, far = (model.language_model(embeds, start=0), model.language_model(embeds[:, :1], start=100))
    assert distance(near[:, :1], far) < 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_float32_at_all_positions(tied):
    model = small_model(dtype=mx.bfloat16, tie_word_embeddings=tied)
    logits = model.logits(small_prompt())
    assert (logits.shape, logits.dtype) == ((12, 64), mx.float32)
    assert distance(logits, small_model(tie_word_embeddings=tied).logits(small_prompt())) < 0.1
    assert ("lm_head" in model.language_model) is not tied


@pytest.mark.parametrize(("ids", "wrong"), [([3, 64], 64), ([-1, 3], -1)])
def test_a_token_outside_the_vocabulary_is_refused(ids, wrong):
    with pytest.raises(PromptError, match=f"Token id {wrong} is outside the model's vocabulary of 64."):
        small_model().logits(Prompt(ids))


def test_a_text_model_refuses_pictures():
    with pytest.raises(PromptError, match="reads text only"):
        small_model().logits(Prompt([1, 2], {"pixel_values": np.zeros((1, 3, 8, 8))}))


# --- LLaVA ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return load_model(parity_checkpoint("llava_two_pictures", tmp_path_factory.mktemp("llava")))


@pytest.fixture
def pictures():
    return prompt_of(fixture("llava_two_pictures"))


def test_spans_are_one_per_picture(llava, pictures):
    grid = Grid(2, 2)
    assert llava.spans(pictures) == (Span("image", 2, 6, 0, grid), Span("image", 9, 13, 1, grid))
    given = (Span("image", 0, 3),)
    assert llava.spans(Prompt(pictures.input_ids, pictures.media, given)) == given


def test_features_stand_in_the_places_of_the_image_token(llava, pictures):
    embeds = llava.embed(pictures)
    features = llava.features(mx.array(pictures.media["pixel_values"])).flatten(0, 1)
    places = np.flatnonzero(pictures.input_ids == llava.image_token)
    assert (features.shape, len(places)) == ((8, 32), 8)
    np.testing.assert_array_equal(np.array(embeds[0])[places], np.array(features))
    text = np.flatnonzero(pictures.input_ids != llava.image_token)
    plain = llava.language_model.embed(mx.array(pictures.input_ids))
    np.testing.assert_array_equal(np.array(embeds[0])[text], np.array(plain[0])[text])


def test_each_picture_goes_to_its_own_place(llava, pictures):
    swapped = Prompt(pictures.input_ids, {"pixel_values": pictures.media["pixel_values"][::-1]})
    first, second = llava.embed(pictures)[0], llava.embed(swapped)[0]
    assert distance(first[2:6], second[9:13]) < 1e-6
    assert distance(first[2:6], second[2:6]) > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, pixels: (ids, None), "The prompt has a place for a picture, but no picture was given."),
        (lambda ids, pixels: (ids, pixels[:1]), "room for 8 image tokens, but the image gives 4;"),
        (lambda ids, pixels: (ids[:8], pixels), "room for 4 image tokens, but the image gives 8;"),
        (lambda ids, pixels: (ids, pixels[..., :14]), r"must have shape \(N, 3, 28, 28\), got \(2, 3, 28, 14\)."),
        (lambda ids, pixels: (ids, pixels[0]), r"must have shape \(N, 3, 28, 28\), got \(3, 28, 28\)."),
    ],
)
def test_pictures_that_do_not_fit_are_refused(llava, pictures, change, message):
    ids, pixels = change(pictures.input_ids, pictures.media["pixel_values"])
    with pytest.raises(PromptError, match=message):
        llava.embed(Prompt(ids, {} if pixels is None else {"pixel_values": pixels}))


def test_text_alone_needs_no_picture(llava):
    assert llava.embed(Prompt([3, 4, 5])).shape == (1, 3, 32)
    assert llava.spans(Prompt([3, 4, 5])) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vision_config": {"model_type": "siglip_vision_model"}},
            "'siglip_vision_model' tower; only clip_vision_model",
        ),
        ({"text_config": {"model_type": "phi3"}}, "'phi3' text part; supported: llama, mistral, qwen2, qwen3."),
        ({"vision_feature_select_strategy": "cls"}, "strategy is 'cls'; supported: default, full."),
        ({"vision_feature_layer": 4}, "vision_feature_layer is 4, but the tower has 3 layers."),
        ({"vision_feature_layer": [0, -5]}, r"vision_feature_layer is \[0, -5\], but the tower has 3 layers."),
    ],
)
def test_other_towers_and_texts_are_refused(changes, message):
    config = json.loads(str(fixture("llava")["config"]))
    with pytest.raises(CheckpointError, match=message):
        build({**config, **changes})


@pytest.mark.parametrize("side", [28, 31])
def test_the_tower_gives_every_hidden_state(side):
    config = json.loads(str(fixture("llava")["config"]))
    model = build({**config, "vision_config": {**config["vision_config"], "image_size": side}})
    states = model.vision_tower(mx.zeros((2, 3, side, side)))
    assert [state.shape for state in states] == [(2, 5, 32)] * 4
    assert ClipConfig(image_size=side, patch_size=14).patches == 4
    assert model.language_model(mx.zeros((1, 3, 32)), rules=PLAIN).shape == (1, 3, 32)
