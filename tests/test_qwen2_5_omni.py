"""Qwen2.5-Omni: the whole config.json and the hub's files, pictures and sounds in one prompt, and what does not fit."""

import json

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import VOCABULARY, random_weights, write, write_tokenizer
from families.qwen2_5_omni import HEARING, OMNI, TEXT, VISION
from helpers import distance, fixture, parity_checkpoint, prompt_of
from PIL import Image

from lime_mlx import generate, load
from lime_mlx.checkpoint.load import build, load_model
from lime_mlx.errors import PromptError
from lime_mlx.media.audio import Sound
from lime_mlx.prompt import Prompt

MORE = ["<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>"]
MORE += ["<|im_start|>", "<|im_end|>"]


def make(folder):
    thinker = {**OMNI, "image_token_index": 6, "audio_token_index": 9}
    thinker["text_config"] = {**TEXT, "vocab_size": VOCABULARY}
    thinker["audio_config"] = {**HEARING, "max_source_positions": 50}
    config = {"model_type": "qwen2_5_omni", "thinker_config": thinker}
    write(folder, config, random_weights(config))
    settings = {"patch_size": VISION["patch_size"], "min_pixels": 4 * 36, "max_pixels": 16 * 36}
    settings |= {"feature_size": HEARING["num_mel_bins"], "chunk_length": 1}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    write_tokenizer(folder, more=MORE)
    return folder


def picture(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8))


def sound(seconds):
    return Sound(np.random.default_rng(1).uniform(-0.5, 0.5, int(16_000 * seconds)).astype(np.float32), 16_000)


def test_the_whole_config_and_the_files_of_the_hub(tmp_path):
    """The talker is left out, and queries, keys and values of the tower come apart."""
    case = fixture("qwen2_5_omni")
    folder = parity_checkpoint("qwen2_5_omni", tmp_path, "hub")
    config = {"model_type": "qwen2_5_omni", "thinker_config": json.loads(str(case["config"])), "talker_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    weights = dict(mx.load(str(folder / "model.safetensors")))
    assert "thinker.visual.blocks.0.attn.q.weight" in weights
    weights |= {"talker.model.embed_tokens.weight": mx.zeros((4, 4)), "token2wav.x.weight": mx.zeros((4,))}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    assert distance(load_model(folder).logits(prompt_of(case)), case["logits"]) < 2e-5


@pytest.mark.parametrize("method", ["none", "lime:steps=2", "lime:mode=exact,steps=2"])
def test_pictures_and_sounds_in_one_prompt(tmp_path, method):
    model, processor = load(make(tmp_path))
    images, sounds = [picture(20, 30), picture(40, 20)], [sound(0.5), sound(0.3)]
    prompt = processor.prompt("What is it?", images=images, audio=sounds, system="Say yes.")
    spans = model.spans(prompt)
    assert [span.kind for span in spans] == ["image", "image", "audio", "audio"]
    assert [len(span) for span in spans[2:]] == [12, 7]
    modality = model.modality(prompt)
    assert modality.sum() == sum(len(span) + 2 for span in spans)
    answer = generate(model, processor, prompt, method=method, max_tokens=2)
    assert all(0 < share < 1 for share in answer.reliance)
    assert [span.seconds for span in spans] == [None, None, pytest.approx(0.04), pytest.approx(0.04)]
    assert [(span.kind, span.source) for span in spans] == [("image", 0), ("image", 1), ("audio", 0), ("audio", 1)]


def test_sounds_do_not_see_each_other():
    case = fixture("qwen2_5_omni_two_of_each")
    model = build(json.loads(str(case["config"])))
    sounds = model.spectra(prompt_of(case))
    together, alone = model.audio_tower(sounds), [model.audio_tower([sound]) for sound in sounds]
    assert distance(together, mx.concatenate(alone)) < 1e-6


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ({}, "a place for a sound, but no sound"),
        ({"input_features": np.zeros((1, 3, 8))}, r"input_features must have shape \(N, 8, frames\), got \(1, 3, 8\)"),
        (
            {"input_features": np.zeros((1, 8, 9)), "feature_attention_mask": np.ones((1, 8))},
            "feature_attention_mask must have shape",
        ),
        ({"input_features": np.zeros((1, 8, 40))}, "room for 1 audio tokens, but the audio gives 10"),
        ({"pixel_values_videos": np.zeros((4, 4))}, "Videos are not supported"),
    ],
)
def test_sounds_that_do_not_fit_are_refused(media, message):
    with pytest.raises(PromptError, match=message):
        build(OMNI).embed(Prompt([1, 57, 2], media))
