"""The Qwen-VL families beyond their parity cases: whole checkpoints, positions, towers, what is refused."""

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import PICTURE, QWEN_TOWERS, qwen_vl, write_qwen_vl
from helpers import distance, fixture, parity_checkpoint, prompt_of
from PIL import Image

import lime_mlx
from lime_mlx.checkpoint.load import build, load, load_model, load_processor
from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.lrp.rules import GRADIENT, PLAIN
from lime_mlx.models.qwen2_5_vl import Qwen25Config, windows
from lime_mlx.models.qwen3_vl import Qwen3Config, corners
from lime_mlx.models.qwen_vl import coordinates
from lime_mlx.models.towers.qwen_vision import Segments, cells_of, frames
from lime_mlx.prompt import Prompt

KINDS = list(QWEN_TOWERS)
ASKED = "What is in the picture?"
WIDE, TALL = Image.new("RGB", (90, 60), "red"), Image.new("RGB", (20, 70), "blue")


@cache
def whole(kind: str):
    with tempfile.TemporaryDirectory() as folder:
        return load(write_qwen_vl(Path(folder), kind))


@cache
def parity(case: str):
    with tempfile.TemporaryDirectory() as folder:
        return load_model(parity_checkpoint(case, Path(folder))), prompt_of(fixture(case))


# --- whole checkpoints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_two_pictures_and_a_system_prompt(kind):
    model, processor = whole(kind)
    prompt = processor.prompt(ASKED, [WIDE, TALL], system="Be brief.")
    tokens = (prompt.media["image_grid_thw"].prod(axis=1) // 4).tolist()
    assert tokens == [6, 8]
    assert prompt.media["image_grid_thw"].tolist() == [[1, 4, 6], [1, 8, 4]]
    spans = model.spans(prompt)
    assert [len(span) for span in spans] == tokens
    assert model.modality(prompt).sum() == sum(tokens) + 4
    firsts = [span.start for span in spans]
    kept = [t for i, t in enumerate(prompt.input_ids.tolist()) if t != PICTURE or i in firsts]
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert processor.tokenizer.decode(kept) == (
        f"<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{picture}{picture}{ASKED}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    answer = lime_mlx.generate(
        model, processor, ASKED, image=[WIDE, TALL], system="Be brief.", method="lime:steps=3", max_tokens=3
    )
    assert len(answer.tokens) == 3
    assert all(0 < share < 1 for share in answer.reliance)
    other = lime_mlx.generate(model, processor, ASKED, image=[TALL, WIDE], method="none", max_tokens=3)
    assert other.reliance != answer.reliance
    assert model.logits(processor.prompt(ASKED)).shape[1] == model.language_model.config.vocab_size


@pytest.mark.parametrize("kind", KINDS)
def test_methods(kind):
    """Against the same picture nothing changes; without the picture nothing of it is left."""
    model, processor = whole(kind)
    prompt = processor.prompt(ASKED, [WIDE])
    plain = [step.logits for step in lime_mlx.decode(model, prompt, "none", 2)]
    same = [step.logits for step in lime_mlx.decode(model, prompt, "vcd:noise=0,beta=0", 2)]
    assert distance(same, plain) < 1e-3
    for method in ("vcd", "m3id", "pai", "heads", "dleaf", "kvsmooth+lime:steps=2"):
        assert len(list(lime_mlx.decode(model, prompt, method, 2))) == 2


@pytest.mark.parametrize("head", [False, True])
def test_a_tied_head(tmp_path, head):
    """As in the 3B checkpoints; conversions may bring the head all the same."""

    def weights(found):
        table = found["language_model.model.embed_tokens.weight"]
        return {**found, "language_model.lm_head.weight": table} if head else found

    model = load_model(write_qwen_vl(tmp_path, weights=weights, tie_word_embeddings=True))
    assert "lm_head" not in model.language_model
    assert model.logits(Prompt([1, 2])).shape == (2, model.language_model.config.vocab_size)


# --- positions --------------------------------------------------------------------------------------------------------


def test_coordinates_by_hand():
    ids = np.array([1, 9, 9, 9, 9, 9, 9, 2, 3, 9, 9, 9, 9, 4])
    found = coordinates(ids, 9, np.array([[1, 2, 3], [2, 2, 1]]))
    assert found.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5, 6, 6, 7, 7, 8],
        [0, 1, 1, 1, 2, 2, 2, 4, 5, 6, 7, 6, 7, 8],
        [0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 6, 6, 6, 8],
    ]
    only = coordinates(np.array([9, 9]), 9, np.array([[1, 1, 2]]))
    assert only.tolist() == [[0, 0], [0, 0], [0, 1]]


def test_rows_and_columns_of_patches():
    found = cells_of(np.array([[2, 2, 4], [1, 2, 2]]), 2)
    rows, columns = [0, 0, 1, 1] * 2, [0, 1, 0, 1, 2, 3, 2, 3]
    assert found.tolist() == [[*rows, *rows, 0, 0, 1, 1], [*columns, *columns, 0, 1, 0, 1]]
    assert cells_of(np.array([[1, 2, 2]]), 1).tolist() == [[0, 0, 1, 1], [0, 1, 0, 1]]


def test_learned_positions_by_hand():
    """Corner on corner: five patches on a grid of three cells a side."""
    config = Qwen3Config(num_position_embeddings=11, spatial_merge_size=1)
    cells, weights = corners(np.array([[1, 1, 5]]), config)
    table = np.arange(9.0)
    assert (table[cells] * weights).sum(axis=1).tolist() == [0, 0.5, 1, 1.5, 2]
    cells, weights = corners(np.array([[1, 5, 1]]), config)
    assert (table[cells] * weights).sum(axis=1).tolist() == [0, 1.5, 3, 4.5, 6]


# --- towers -----------------------------------------------------------------------------------------------------------


def test_attention_within_segments():
    """As with a mask, whatever the order and the lengths of the segments."""
    rng = np.random.default_rng(0)
    numbers = np.array([5, 0, 0, 5, 2, 5, 2, 7])
    q, k, v = (mx.array(rng.standard_normal((8, 2, 4)).astype(np.float32)) for _ in range(3))
    mask = mx.array(numbers[:, None] == numbers[None])
    wanted = GRADIENT.attention(*(x.swapaxes(0, 1)[None] for x in (q, k, v)), 0.5, mask)
    assert distance(Segments(numbers).attention(q, k, v, 0.5), wanted[0].swapaxes(0, 1)) < 1e-6


def test_windows_by_hand():
    """Which patches of two frames of 6 x 10 and of one of 2 x 2 see the first one of each window of 2 x 2 tokens."""
    config = Qwen25Config(window_size=59)
    assert config.side == 2
    grids = np.array([[2, 6, 10], [1, 2, 2]])
    rows, columns = (found // 4 for found in cells_of(grids, 2))
    frame = np.repeat([0, 1, 2], [60, 60, 4])
    q = mx.zeros((124, 1, 1))
    for segments, numbers in (
        (windows(grids, config), (frame * 3 + rows) * 3 + columns),
        (frames(grids), frame),
    ):
        shares = segments.attention(q, q, mx.array(numbers.astype(np.float32))[:, None, None], 1.0)
        assert distance(shares[:, 0, 0], numbers) < 1e-6  # the mean over a window is the number of the window
        one = mx.array((np.arange(124) == 0).astype(np.float32))[:, None, None]
        seen = np.array(segments.attention(q, q, one, 1.0))[:, 0, 0] > 0
        np.testing.assert_array_equal(seen, numbers == 0)


def test_towers_by_default():
    assert tuple(Qwen25Config().fullatt_block_indexes) == (7, 15, 23, 31)
    assert tuple(Qwen3Config().deepstack_visual_indexes) == (8, 16, 24)


# --- DeepStack --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["qwen3_vl", "qwen3_vl_tied", "qwen3_vl_deeper", "qwen3_vl_frames"])
def test_relevance_counts_all_that_came_from_the_picture(case):
    """Its sum over a picture is the slope of the logit along all inputs of the picture, early and late."""
    model, prompt = parity(case)
    decoder, (embeds, positions) = model.language_model, model.inputs(prompt)
    target = int(mx.argmax(model.logits(prompt)[-1]))
    here = mx.array(prompt.input_ids == model.image_token)[None, :, None]

    def logit(early: float, late: float) -> float:
        bent = replace(positions, features=[feature * (1 + late) for feature in positions.features])
        moved = embeds * mx.where(here, 1 + early, 1)
        return decoder.head(decoder(moved, rules=PLAIN, positions=bent))[0, -1, target].item()

    def slope(early: bool, late: bool, step: float = 2e-3) -> float:
        return (logit(early * step, late * step) - logit(-early * step, -late * step)) / (2 * step)

    relevance = lime_mlx.relevance(model, prompt, rules="plain", target=target)
    found = relevance[prompt.input_ids == model.image_token].sum()
    assert found == pytest.approx(slope(True, True), rel=1e-2, abs=2e-3)
    assert abs(slope(False, True)) > 0.05


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_values_videos": np.zeros((4, 4))}, "Videos are not supported; give pictures instead."),
        ({"video_grid_thw": [[1, 2, 2]]}, "Videos are not supported"),
        ({"pixel_values": None}, "has a place for a picture, but no picture was given"),
        ({"image_grid_thw": None}, "image_grid_thw must have time, rows and columns of every picture"),
        ({"image_grid_thw": [1, 4, 6]}, "image_grid_thw must have time"),
        ({"image_grid_thw": [[4, 6]]}, "image_grid_thw must have time"),
        ({"image_grid_thw": [[1.0, 4.0, 6.0]]}, "image_grid_thw must have time"),
        ({"image_grid_thw": [[0, 4, 6]]}, "image_grid_thw must have time"),
        ({"image_grid_thw": [[1, 3, 8]]}, "multiples of 2, got"),
        (
            {"image_grid_thw": [[1, 4, 4]]},
            r"must have shape \(16, 1176\) by image_grid_thw, got \(24, 1176\)",
        ),
        ({"pixel_values": np.zeros((24, 588))}, r"must have shape \(24, 1176\)"),
        ({"image_grid_thw": [[1, 2, 12], [1, 2, 2]], "pixel_values": np.zeros((28, 1176))}, "room for 6 image tokens"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_do_not_fit_are_refused(kind, changes, message):
    model, _ = whole(kind)
    fitting, ids = {"pixel_values": np.zeros((24, 1176)), "image_grid_thw": [[1, 4, 6]]}, [1, *[PICTURE] * 6, 2]
    assert model.logits(Prompt(ids, fitting)).shape[0] == len(ids)
    with pytest.raises(PromptError, match=message):
        model.inputs(Prompt(ids, {**fitting, **changes}))
    with pytest.raises(PromptError, match="A picture needs 6 image tokens in a row"):
        model.inputs(Prompt([1, *[PICTURE] * 3, 20, *[PICTURE] * 3, 2], fitting))


@pytest.mark.parametrize(
    ("kind", "part", "changes", "message"),
    [
        ("qwen2_vl", "vision_config", {"hidden_size": 32}, "gives features of width 32, but the text part takes 64"),
        ("qwen2_5_vl", "vision_config", {"num_heads": 3}, "has 3 heads for a width of 32; a multiple of 12 is needed"),
        ("qwen2_5_vl", "vision_config", {"window_size": 27}, "window_size of vision_config is 27, less than the 28"),
        ("qwen3_vl", "vision_config", {"hidden_act": "mish"}, "vision_config asks for the activation 'mish'"),
        ("qwen3_vl", "vision_config", {"rope_parameters": {"rope_type": "yarn"}}, "asks for 'yarn' rotary embeddings"),
        ("qwen2_vl", "vision_config", {"patch_size": [14, 14]}, "does not describe a qwen2_vl model"),
        ("qwen2_vl", "text_config", {"rope_scaling": {"mrope_section": [4, 2, 1]}}, "three numbers that add up to 8"),
        ("qwen3_vl", "text_config", {"rope_scaling": {"mrope_section": [4, 4]}}, "mrope_section in config.json is"),
        ("qwen3_vl", "text_config", {"rope_scaling": {"type": "dynamic"}}, "asks for 'dynamic' rotary embeddings"),
        ("qwen3_vl", None, {"image_token_id": "<|image_pad|>"}, "which is no token id"),
    ],
)
def test_configurations_that_are_not_built_are_refused(kind, part, changes, message):
    config = qwen_vl(kind)
    config = {**config, **changes} if part is None else {**config, part: {**config[part], **changes}}
    with pytest.raises(CheckpointError, match=message):
        build(config)


def test_the_processor_cuts_what_the_tower_takes(tmp_path):
    path = write_qwen_vl(tmp_path) / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "patch_size": 16}))
    with pytest.raises(CheckpointError, match="patch_size is 16 in .*, but the vision tower takes 14"):
        load_processor(tmp_path)
    path.write_text(json.dumps({**settings, "patch_size": None}))
    prompt = load_processor(tmp_path).prompt(ASKED, [WIDE])
    assert prompt.media["pixel_values"].shape == (24, 1176)
