"""Gemma 3, Idefics3 and SmolVLM as whole checkpoints: pictures, prompts, answers, and what does not fit."""

import json
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TEXT, random_weights, write, write_tokenizer
from helpers import distance, fixture, parity_checkpoint, prompt_of
from mlx.utils import tree_flatten
from PIL import Image

import lime_mlx
from lime_mlx import generate, load
from lime_mlx.checkpoint.load import build, load_model
from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.kv import KVOptions
from lime_mlx.models.decoder import Decoder
from lime_mlx.models.idefics3 import Idefics3
from lime_mlx.models.towers.siglip import spread
from lime_mlx.prompt import Prompt

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
GEMMA3 = {
    "model_type": "gemma3",
    "boi_token_index": 4,
    "image_token_index": 5,
    "eoi_token_index": 6,
    "mm_tokens_per_image": 4,
    "text_config": {
        **TEXT,
        "model_type": "gemma3_text",
        "head_dim": 16,
        "sliding_window": 5,
        "sliding_window_pattern": 2,
    },
    "vision_config": TOWER,
}
IDEFICS3 = {"model_type": "idefics3", "image_token_id": 3, "text_config": TEXT, "vision_config": TOWER}
MORE = {
    "gemma3": ["<start_of_image>", "<image_soft_token>", "<end_of_image>", "<start_of_turn>", "<end_of_turn>"],
    "idefics3": ["<fake_token_around_image>", "<global-img>", "<|im_start|>", "<end_of_utterance>"],
}
SETTINGS = {
    "gemma3": {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 28, "width": 28}},
    "idefics3": {
        "image_processor_type": "Idefics3ImageProcessor",
        "size": {"longest_edge": 56},
        "max_image_size": {"longest_edge": 28},
    },
}
CONFIGS = {"gemma3": GEMMA3, "idefics3": IDEFICS3, "smolvlm": {**IDEFICS3, "model_type": "smolvlm"}}
TOKENS = 4


def make(folder, kind, **changes):
    config, base = {**CONFIGS[kind], **changes}, "gemma3" if kind == "gemma3" else "idefics3"
    write(folder, config, random_weights(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(SETTINGS[base]))
    write_tokenizer(folder, more=MORE[base])
    return folder


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("method", ["none", "lime:steps=2", "lime:mode=exact,steps=2"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_whole_checkpoints_answer(tmp_path, kind, method):
    model, processor = load(make(tmp_path, kind))
    images = [picture(60, 40), picture(20, 70, 1)]
    answer = generate(model, processor, "What is in the picture?", image=images, method=method, max_tokens=3)
    assert len(answer.tokens) <= 3
    assert all(0 < share < 1 for share in answer.reliance)
    one = processor.prompt("Is there a dog?", images=images[:1], system="Say yes.")
    assert "Say yes." in processor.tokenizer.decode(one.input_ids)
    assert np.isfinite(np.array(model.logits(one))).all()


def test_squares_of_idefics3(tmp_path):
    model, processor = load(make(tmp_path, "idefics3"))
    prompt = processor.prompt("What is it?", images=[picture(60, 40), picture(28, 28)])
    text = processor.tokenizer.decode(prompt.input_ids)
    # 60 x 40 becomes 56 wide, so 2 x 2 squares and the whole; 28 x 28 becomes 56 x 56, so as many.
    assert [len(span) for span in model.spans(prompt)] == [TOKENS] * 10
    assert text.count("<row_2_col_2>") == 2
    assert prompt.media["pixel_values"].shape == (1, 10, 3, 28, 28)


def test_pictures_of_gemma3(tmp_path):
    model, processor = load(make(tmp_path, "gemma3"))
    prompt = processor.prompt("What is it?", images=[picture(60, 40), picture(28, 28)])
    text = processor.tokenizer.decode(prompt.input_ids)
    assert text.count("\n\n<start_of_image>" + "<image_soft_token>" * TOKENS + "<end_of_image>\n\n") == 2
    _, positions = model.inputs(prompt)
    assert positions.blocks.max() == 2
    assert [int((positions.blocks == number).sum()) for number in (1, 2)] == [TOKENS, TOKENS]


def test_pictures_of_gemma3_see_each_other_both_ways():
    case = fixture("gemma3_two_pictures")
    config = json.loads(str(case["config"]))
    prompt = prompt_of(case)
    model = build(config)
    embeds, positions = model.inputs(prompt)
    first = int(np.flatnonzero(positions.blocks == 1)[0])
    mask = np.array(positions.mask(0, len(prompt)))
    assert mask[first, first + 3] and not mask[first - 1, first] and not mask[first, first + 40]
    assert embeds.shape[1] == len(prompt)
    assert positions.cut(first + 2) == first + 16


def test_a_prompt_that_ends_in_a_picture_is_refused(tmp_path):
    model, processor = load(make(tmp_path, "gemma3"))
    pixels = np.zeros((1, 3, 28, 28), np.float32)
    with pytest.raises(PromptError, match="ends with a picture"):
        generate(model, processor, Prompt([1, 20, 5, 5, 5, 5], {"pixel_values": pixels}), method="none", max_tokens=1)


def test_soft_caps_are_not_used_with_pictures_but_with_text_alone():
    capped, plain = (build({**GEMMA3["text_config"], "final_logit_softcapping": cap}) for cap in (0.5, None))
    plain.load_weights(list(random_weights(GEMMA3["text_config"]).items()))
    capped.load_weights(list(random_weights(GEMMA3["text_config"]).items()))
    prompt = Prompt([1, 20, 21])
    wanted = 0.5 * np.tanh(np.array(plain.logits(prompt)) / 0.5)
    assert distance(capped.logits(prompt), wanted) < 1e-5
    text = {**GEMMA3["text_config"], "final_logit_softcapping": 0.5}
    assert build({**GEMMA3, "text_config": text}).language_model.config.final_logit_softcapping is None


def test_mlx_copies_the_embeddings_as_a_head(tmp_path):
    folder = parity_checkpoint("gemma3", tmp_path, "mlx")
    weights = dict(mx.load(str(folder / "model.safetensors")))
    weights["language_model.lm_head.weight"] = weights["language_model.model.embed_tokens.weight"]
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    case = fixture("gemma3")
    assert distance(load_model(folder).logits(prompt_of(case)), case["logits"]) < 2e-5


def test_positions_of_a_picture_that_fills_a_part():
    patches = np.zeros((4, 4), dtype=bool)
    patches[:2, :4] = True
    assert spread(patches, 4).reshape(4, 4).tolist() == [[0, 1, 2, 3], [8, 9, 10, 11], [0] * 4, [0] * 4]
    assert spread(np.ones((4, 4), dtype=bool), 4).tolist() == list(range(16))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("gemma3", {"mm_tokens_per_image": 5}, "mm_tokens_per_image is 5, which does not fit 4 x 4 patches"),
        ("gemma3", {"vision_config": {**TOWER, "model_type": "clip_vision_model"}}, "only siglip_vision_model"),
        ("gemma3", {"vision_config": {**TOWER, "hidden_act": "mish"}}, "activation 'mish'"),
        ("idefics3", {"scale_factor": 3}, "scale_factor is 3, which does not divide 4 patches"),
        ("smolvlm", {"text_config": {**TEXT, "model_type": "phi3"}}, "This smolvlm checkpoint has a 'phi3' text part"),
    ],
)
def test_configurations_that_are_not_built_are_refused(kind, changes, message):
    with pytest.raises(CheckpointError, match=message):
        build({**CONFIGS[kind], **changes})


def test_both_ways_attention_of_the_text_is_refused():
    text = {**GEMMA3["text_config"], "use_bidirectional_attention": True}
    for config in ({**GEMMA3, "text_config": text}, text):
        with pytest.raises(CheckpointError, match="attends both ways"):
            build(config)


@pytest.mark.parametrize("kind", ["gemma3", "idefics3"])
def test_pictures_that_do_not_fit_are_refused(kind, tmp_path):
    model = build(CONFIGS[kind])
    image = 5 if kind == "gemma3" else 3
    with pytest.raises(PromptError, match="no picture was given"):
        model.embed(Prompt([1, image, 7]))
    with pytest.raises(PromptError, match="pixel_values must have shape"):
        model.embed(Prompt([1, image, 7], {"pixel_values": np.ones((1, 3, 14, 14))}))
    shape = (1, 3, 28, 28) if kind == "gemma3" else (1, 1, 3, 28, 28)
    with pytest.raises(PromptError, match="room for 1 image tokens"):
        model.embed(Prompt([1, image, 7], {"pixel_values": np.ones(shape)}))


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ({"pixel_values": np.ones((1, 1, 3, 14, 56))}, r"must have shape \(1, N, 3, S, S\), got \(1, 1, 3, 14, 56\)"),
        ({"pixel_values": np.ones((2, 1, 3, 28, 28))}, r"must have shape \(1, N, 3, S, S\)"),
        ({"pixel_values": np.ones((1, 1, 3, 21, 21))}, "Squares of 21 pixels have 3 x 3 patches"),
        ({"pixel_values": np.ones((1, 1, 3, 5, 5))}, "Squares of 5 pixels have 0 x 0 patches"),
        (
            {"pixel_values": np.ones((1, 2, 3, 28, 28)), "pixel_attention_mask": np.ones((1, 1, 28, 28))},
            r"pixel_attention_mask must have shape \(1, N, 28, 28\)",
        ),
    ],
)
def test_squares_that_do_not_fit_are_refused(media, message):
    with pytest.raises(PromptError, match=message):
        build(IDEFICS3).embed(Prompt([1, *[3] * TOKENS, 7], media))


def test_squares_that_only_fill_up_are_left_out_wherever_they_stand():
    model = build(IDEFICS3)
    model.load_weights(list(random_weights(IDEFICS3).items()))
    pixels = np.random.default_rng(0).standard_normal((1, 2, 3, 28, 28))
    filled = np.insert(pixels, [0, 1, 2], 0, axis=1)
    prompts = [Prompt([1, *[3] * 2 * TOKENS, 7], {"pixel_values": p}) for p in (pixels, filled)]
    assert distance(*map(model.embed, prompts)) < 1e-6


def test_names_in_mlx_checkpoints():
    """Without an inner `model`, as mlx-vlm has them; and back."""
    names = dict(tree_flatten(build(CONFIGS["smolvlm"]).parameters()))
    published = {name: Idefics3.publish(name) for name in names}
    assert published["language_model.model.norm.weight"] == "language_model.norm.weight"
    assert published["language_model.lm_head.weight"] == "language_model.lm_head.weight"
    assert all(Idefics3.rename(there) == here for here, there in published.items())


@pytest.mark.parametrize("step", [1, 7, 10])
def test_no_part_of_the_prompt_cuts_a_picture(monkeypatch, step):
    """Whatever its length, and the logits are those of the whole; windows are shorter than a picture."""
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(parity_checkpoint("gemma3_two_pictures", Path(folder)))
    prompt, starts = prompt_of(fixture("gemma3_two_pictures")), []
    blocks, run = model.inputs(prompt).positions.blocks, Decoder.__call__

    def watched(self, h, memory=None, start=0, *rest, **more):
        starts.append(start)
        return run(self, h, memory, start, *rest, **more)

    monkeypatch.setattr(Decoder, "__call__", watched)
    (first,) = lime_mlx.decode(model, prompt, "none", 1, kv=KVOptions(prefill_step_size=step))
    assert len(starts) > 3
    assert not any(at and blocks[at] and blocks[at] == blocks[at - 1] for at in starts)
    assert distance(first.logits, fixture("gemma3_two_pictures")["logits"][-1]) < 2e-5


def test_squares_of_another_side_are_refused(tmp_path):
    folder = make(tmp_path, "idefics3")
    settings = {**SETTINGS["idefics3"], "max_image_size": {"longest_edge": 56}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="cuts squares of 56, but the vision tower takes 28 x 28"):
        load(folder)
