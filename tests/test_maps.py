"""Where positions lie on a picture: what a tower without layers sees of a bright square comes back in its place."""

import json

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import LLAVA, LLAVA_NEXT, PICTURE_TOKENS, TEXT, merged, qwen_vl, random_weights, write, write_tokenizer
from mlx.utils import tree_unflatten
from PIL import Image

from lime_mlx.checkpoint.load import build, load
from lime_mlx.errors import PromptError
from lime_mlx.maps import coarse, picture_map, where
from lime_mlx.models.base import Model
from lime_mlx.prompt import Grid, Part, Prompt, Span, divided

SIDE, PATCH = 56, 7
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 0, "num_attention_heads": 2}
TOWER |= {"image_size": SIDE, "patch_size": PATCH}
CLIP = {"vision_config": {"model_type": "clip_vision_model", **TOWER}, "vision_feature_layer": -1}
SQUARES = {"size": {"height": SIDE, "width": SIDE}}
CLIP_FILES = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
TILED = merged(LLAVA_NEXT, **CLIP, image_grid_pinpoints=[[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]])
GEMMA = {"model_type": "gemma3", "boi_token_index": 4, "image_token_index": 5, "eoi_token_index": 6}
GEMMA |= {"mm_tokens_per_image": 16, "text_config": {**TEXT, "model_type": "gemma3_text", "head_dim": 16}}
GEMMA |= {"vision_config": TOWER}
SCAN = {**SQUARES, "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 20}
IDEFICS = {"model_type": "idefics3", "image_token_id": 3, "text_config": TEXT, "vision_config": TOWER}
SPLIT = {"size": {"longest_edge": 3 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
QWEN = qwen_vl("qwen2_vl")
QWEN = merged(QWEN, vision_config={**QWEN["vision_config"], "depth": 0, "patch_size": PATCH})
WINDOWS = {"patch_size": PATCH, "min_pixels": 4 * PATCH**2, "max_pixels": (20 * PATCH) ** 2}
MORE = {
    "gemma3": ["<start_of_image>", "<image_soft_token>", "<end_of_image>", "<start_of_turn>", "<end_of_turn>"],
    "idefics3": ["<fake_token_around_image>", "<global-img>", "<|im_start|>", "<end_of_utterance>"],
    "qwen2_vl": PICTURE_TOKENS,
}
CASES = {
    "llava": (merged(LLAVA, **CLIP), {**CLIP_FILES, "do_center_crop": False, "size": SQUARES["size"]}, 1),
    "llava full": (merged(LLAVA, **CLIP, vision_feature_select_strategy="full"), CLIP_FILES, 2),
    "llava crop": (merged(LLAVA, **CLIP), CLIP_FILES, 1),
    "llava_next": (TILED, CLIP_FILES, 2),
    "idefics3": (IDEFICS, SPLIT, 7),
    "idefics3 whole": (IDEFICS, {**SPLIT, "do_image_splitting": False}, 1),
    "gemma3": (GEMMA, SQUARES, 1),
    "gemma3 crops": (GEMMA, SCAN, 3),
    "qwen2_vl": (QWEN, WINDOWS, 1),
}


def loaded(folder, case):
    config, files, _ = CASES[case]
    write(folder, config, random_weights(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(files))
    write_tokenizer(folder, more=MORE.get(config["model_type"], ()))
    return load(folder)


def picture(width, height, box=None):
    image = Image.new("RGB", (width, height), "black")
    if box:
        image.paste("white", box)
    return image


def seen(model, processor, image, other) -> tuple[Prompt, np.ndarray]:
    """The prompt of a picture, and 1 at the positions whose embeddings are others than those of another picture."""
    prompt = processor.prompt("What is it?", [image])
    here, there = (np.array(model.embed(p)[0]) for p in (prompt, processor.prompt("What is it?", [other])))
    return prompt, (np.abs(here - there).max(axis=1) > 1e-3).astype(np.float32)


@pytest.mark.parametrize("size", [(120, 60), (60, 120)], ids=["wide", "tall"])
@pytest.mark.parametrize("case", CASES)
def test_a_bright_square_comes_back_where_it_is(tmp_path, case, size):
    model, processor = loaded(tmp_path, case)
    width, height = size
    for left, top in ((0.3, 0.3), (0.3, 0.55), (0.55, 0.3), (0.6, 0.6)):
        box = [round(part * side) for part, side in ((left, width), (top, height))]
        box += [box[0] + 10, box[1] + 10]
        prompt, relevance = seen(model, processor, picture(width, height, tuple(box)), picture(width, height))
        spans = model.spans(prompt)
        assert len(spans) == CASES[case][2]
        laid = picture_map(relevance, spans)
        on_grids = sum(relevance[span.start : span.stop].sum() for span in spans if span.grid)
        assert laid.dtype == np.float32
        assert 0 < on_grids == pytest.approx(laid.sum(), rel=1e-6)
        rows, columns = laid.shape
        ends = np.array([box[0] / width, box[1] / height, box[2] / width, box[3] / height])
        # The coarsest cells that see the square, and the blur of the filter, reach so far around it.
        edge = max(0.3, 2 / min(rows, columns))
        ys, xs = np.nonzero(laid > 0)
        assert ends[0] - edge <= xs.min() / columns <= ends[0] + 1 / columns
        assert ends[1] - edge <= ys.min() / rows <= ends[1] + 1 / rows
        assert ends[2] + edge >= (xs.max() + 1) / columns >= ends[2] - 1 / columns
        assert ends[3] + edge >= (ys.max() + 1) / rows >= ends[3] - 1 / rows
        y, x = np.unravel_index(laid.argmax(), laid.shape)
        assert ends[0] - 1.5 / columns <= (x + 0.5) / columns <= ends[2] + 1.5 / columns
        assert ends[1] - 1.5 / rows <= (y + 0.5) / rows <= ends[3] + 1.5 / rows


@pytest.mark.parametrize("case", CASES)
def test_spans_cover_what_they_covered(tmp_path, case):
    """Parts change no position; a prompt without a processor has the same sources, and a grid where arrays tell it."""
    model, processor = loaded(tmp_path, case)
    prompt = processor.prompt("What is it?", [picture(120, 60), picture(60, 60)])
    bare = Prompt(prompt.input_ids, prompt.media)
    positions = np.flatnonzero(prompt.input_ids == model.image_token)
    for each in (prompt, bare):
        covered = np.concatenate([np.arange(span.start, span.stop) for span in model.spans(each)])
        assert covered.tolist() == positions.tolist()
        assert (model.modality(each) == model.modality(prompt)).all()
    assert {span.source for span in model.spans(prompt)} == {0, 1}
    assert {span.source for span in model.spans(bare)} == ({0} if "idefics3" in case else {0, 1})
    assert all(len(span) == len(span.grid) for span in model.spans(prompt) if span.grid)
    alone = {span.grid for span in model.spans(bare)}
    assert alone == {None} if "idefics3" in case else alone - {None}


def test_a_crop_leaves_out_the_sides(tmp_path):
    model, processor = loaded(tmp_path, "llava crop")
    (span,) = model.spans(processor.prompt("What is it?", [picture(112, 56)]))
    assert span.grid == Grid(8, 8, box=(0.25, 0.0, 0.75, 1.0))
    ones = np.ones(len(processor.prompt("What is it?", [picture(112, 56)])))
    laid = picture_map(ones, [span])
    assert laid.shape == (8, 16)
    assert laid[:, :4].sum() == laid[:, 12:].sum() == 0
    assert (laid[:, 4:12] == 1).all()


# --- the map alone


def test_one_grid_over_all_is_its_relevance():
    relevance = np.random.default_rng(0).standard_normal(5 + 7 * 13).astype(np.float32)
    laid = picture_map(relevance, [Span("image", 5, 5 + 7 * 13, grid=Grid(7, 13))])
    np.testing.assert_array_equal(laid, relevance[5:].reshape(7, 13))


def test_ends_of_rows_are_left_out():
    relevance = np.arange(6, dtype=np.float32)
    laid = picture_map(relevance, [Span("image", 0, 6, grid=Grid(2, 2, row_end=1))])
    np.testing.assert_array_equal(laid, [[0, 1], [3, 4]])


def test_grids_add_up_by_area():
    spans = [Span("image", 0, 1, grid=Grid(1, 1)), Span("image", 1, 5, grid=Grid(2, 2, box=(0.5, 0.0, 1.0, 0.5)))]
    laid = picture_map([16.0, 1.0, 2.0, 3.0, 4.0], spans)
    assert laid.shape == (4, 4)
    np.testing.assert_array_equal(laid[:2, 2:], [[2, 3], [4, 5]])
    assert laid.sum() == 26 and (laid[2:] == 1).all() and (laid[:, :2] == 1).all()


def test_what_lies_outside_counts_at_the_edge():
    """Half of the outer cells lies beside the picture, and the outermost lie there as a whole."""
    grid = Grid(1, 4, box=(-1.0, 0.0, 1.0, 1.0))
    laid = picture_map([1.0, 2.0, 4.0, 8.0], [Span("image", 0, 4, grid=grid)])
    np.testing.assert_array_equal(laid, [[7, 8]])
    grid = Grid(1, 2, box=(-0.25, 0.0, 1.25, 1.0))
    laid = picture_map([1.0, 2.0], [Span("image", 0, 2, grid=grid)])
    assert laid.tolist() == [[3]]


def test_what_cannot_be_a_map():
    with pytest.raises(PromptError, match="No span"):
        picture_map([1.0], [Span("image", 0, 1)])
    with pytest.raises(PromptError, match="grid of 4"):
        picture_map([1.0, 2.0], [Span("image", 0, 2, grid=Grid(2, 2))])


def test_parts_that_do_not_fit_change_nothing():
    spans = (Span("image", 1, 4), Span("image", 6, 8))
    fits = [Part(1), Part(2, 1, Grid(1, 2)), Part(2, 2)]
    assert [(s.start, s.stop, s.source) for s in divided(spans, fits)] == [(1, 2, 0), (2, 4, 1), (6, 8, 2)]
    for parts in ([], [Part(5)], [Part(3)], [Part(3), Part(2), Part(1)], [Part(0), Part(3), Part(2)]):
        assert divided(spans, parts) == spans


# --- what is blank


@pytest.mark.parametrize("case", ["llava", "llava_next", "idefics3", "gemma3 crops", "qwen2_vl"])
def test_a_blank_picture_is_as_large_and_even(tmp_path, case):
    """Also where squares of zeros only fill up."""
    model, processor = loaded(tmp_path, case)
    prompt = processor.prompt("What is it?", [picture(120, 60, (10, 10, 40, 40))])
    blank = model.blank(prompt)
    assert model.spans(blank) == model.spans(prompt)
    assert blank.media["pixel_values"].shape == prompt.media["pixel_values"].shape
    assert np.abs(blank.media["pixel_values"]).max() < 1e-20
    assert mx.isfinite(model.logits(blank)).all()


def test_a_blank_square_is_to_the_tower_as_zeros(tmp_path):
    model, processor = loaded(tmp_path, "idefics3")
    prompt = model.blank(processor.prompt("What is it?", [picture(120, 60)]))
    zeros = model.features(mx.zeros((1, 3, SIDE, SIDE)), np.ones((1, SIDE // PATCH, SIDE // PATCH), dtype=bool))[0]
    for span in model.spans(prompt):
        np.testing.assert_allclose(np.array(model.embed(prompt)[0, span.start : span.stop]), np.array(zeros), atol=1e-5)


def test_nothing_to_change():
    model = build(LLAVA)
    model.update(tree_unflatten(list(random_weights(LLAVA).items())))
    prompt = Prompt([1, 2])
    assert model.blank(prompt) is prompt
    with pytest.raises(PromptError, match="no picture to change"):
        model.changed(prompt, "image", np.negative)
    assert Model.blanks == {"image": 0.0, "audio": -1.5}


def test_a_coarse_map_sums_to_the_same():
    fine = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    smaller = coarse(fine, 8)
    assert smaller.shape == (8, 7) and smaller.dtype == np.float32
    assert smaller.sum() == pytest.approx(fine.sum(), abs=1e-4)
    np.testing.assert_allclose(coarse(fine, 50), fine, rtol=1e-6)
    np.testing.assert_allclose(coarse(np.ones((4, 6)), 2), np.ones((2, 2)) * [[6.0]])


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([(0, 0)], "mostly upper left"),
        ([(2, 2)], "mostly lower right"),
        ([(0, 1)], "mostly upper centre"),
        ([(1, 1)], "mostly in the middle"),
        ([(0, 0), (0, 1), (0, 2)], "mostly in the upper third"),
        ([(0, 2), (1, 2), (2, 2)], "mostly in the right third"),
        ([(row, column) for row in range(3) for column in range(3)], "spread over the picture"),
        ([], "nowhere"),
    ],
)
def test_a_map_in_words(cells, words):
    relevance = np.full((6, 9), -0.5)
    for row, column in cells:
        relevance[2 * row : 2 * row + 2, 3 * column : 3 * column + 3] = 1
    assert where(relevance) == words
