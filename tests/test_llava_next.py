"""LLaVA-1.6 beyond its parity cases: the processor, whole checkpoints, and what is refused."""

import json
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import IMAGE, LLAVA_NEXT, SIDE, hub, merged, random_weights, tf5, write, write_tokenizer
from helpers import distance
from PIL import Image

from lime_mlx import generate, load
from lime_mlx.checkpoint.load import build, load_model, load_processor, read_config
from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.media.anyres import RESOLUTIONS
from lime_mlx.models.llava_next import Tiling
from lime_mlx.prompt import Prompt

PIXELS = {
    "image_processor_type": "LlavaNextImageProcessor",
    "do_pad": True,
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
    "image_grid_pinpoints": LLAVA_NEXT["image_grid_pinpoints"],
}
PROCESSOR = {
    "processor_class": "LlavaNextProcessor",
    "patch_size": LLAVA_NEXT["vision_config"]["patch_size"],
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
    "image_token": "<image>",
}
ASKED = "What is in the picture?"


def picture(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 5, y * 3, (x + y) * 2], axis=-1).astype(np.uint8))


def make(folder, weights=None, **changes):
    config = merged(LLAVA_NEXT, **changes)
    write(folder, config, {} if weights is None else weights(random_weights(config)))
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR))
    write_tokenizer(folder, image_token="<image>")
    return folder


@pytest.mark.parametrize("size", [(40, 40), (90, 31), (31, 90), (333, 500), (57, 19), (300, 2), (1, 1)], ids=str)
def test_transformers_says_the_same(tmp_path, size):
    """Token ids, tiles and sizes of two pictures, one of which has other tiles."""
    from transformers import AutoProcessor

    theirs, images = AutoProcessor.from_pretrained(make(tmp_path)), [picture(*size), picture(56, 28)]
    prompt = load_processor(tmp_path).prompt(ASKED, images)
    written = f"USER: <image>\n<image>\n{ASKED} ASSISTANT:"
    wanted = theirs(images=images, text=written, return_tensors="np")
    assert prompt.input_ids.tolist() == wanted["input_ids"][0].tolist()
    assert prompt.media["image_sizes"].tolist() == wanted["image_sizes"].tolist()
    np.testing.assert_allclose(prompt.media["pixel_values"], wanted["pixel_values"], atol=1e-5)


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("offered", [None, [[336, 336]], [[672, 336], [336, 1344], [1008, 1008]]], ids=str)
def test_places_of_many_sizes(offered, patch):
    """As many as transformers counts; rows of rising numbers with a line end behind each."""
    from transformers import LlavaNextProcessor

    tower = {"image_size": 336, "patch_size": patch}
    tiling = Tiling({"model_type": "llava_next", "image_grid_pinpoints": offered, "vision_config": tower})
    theirs = LlavaNextProcessor.__new__(LlavaNextProcessor)
    theirs.image_processor = SimpleNamespace(image_grid_pinpoints=offered or RESOLUTIONS)
    theirs.patch_size, theirs.num_additional_image_tokens = patch, 0
    base = (336 // patch) ** 2
    for size in np.random.default_rng(0).integers(1, 1500, (200, 2)).tolist():
        order = tiling.order(size)
        assert len(order) == theirs._get_number_of_features(*size, 336, 336)
        assert order[:base].tolist() == list(range(base))
        tiled = order[base:]
        assert len(set(tiled[tiled >= 0])) == (tiled >= 0).sum()
        rows, columns = tiling.grid(size)
        assert tiled.max(initial=-1) < base * (1 + rows * columns)
        assert len(tiled) == 0 or tiled[-1] == -1


def test_tiles_are_cut_as_the_model_reads_them(tmp_path):
    """By config.json, where preprocessor_config.json offers other resolutions."""
    folder = make(tmp_path, image_grid_pinpoints=[[28, 56]])
    prompt = load_processor(folder).prompt(ASKED, [picture(20, 56)])
    assert prompt.media["pixel_values"].shape == (1, 3, 3, SIDE, SIDE)
    assert (prompt.input_ids == IMAGE).sum() == len(Tiling(read_config(folder)).order((56, 20)))


def test_a_row_runs_through_all_tiles():
    tower = {"image_size": 28, "patch_size": 14}
    tiling = Tiling({"model_type": "llava_next", "image_grid_pinpoints": [[56, 56]], "vision_config": tower})
    first, second = [4, 5, 8, 9, -1, 6, 7, 10, 11, -1], [12, 13, 16, 17, -1, 14, 15, 18, 19, -1]
    assert tiling.order((56, 56)).tolist() == [0, 1, 2, 3, *first, *second]
    assert tiling.order((28, 56)).tolist() == [0, 1, 2, 3, *first[5:], *second[:5]]
    assert tiling.order((56, 28)).tolist() == [0, 1, 2, 3, 5, 8, -1, 7, 10, -1, 13, 16, -1, 15, 18, -1]


@pytest.mark.parametrize("spelling", [hub, tf5])
def test_a_whole_checkpoint(tmp_path, spelling):
    model, processor = load(make(tmp_path, spelling))
    tall = generate(model, processor, ASKED, image=picture(20, 56), method="lime:steps=3", max_tokens=3)
    assert len(tall.tokens) == len(tall.reliance) == 3
    assert all(0 < share < 1 for share in tall.reliance)
    wide = processor.prompt(ASKED, [picture(56, 20)])
    assert [len(span) for span in model.spans(wide)] == [4, 2 * 5]
    assert (wide.input_ids == IMAGE).sum() == 4 + 2 * 5
    alone = processor.prompt(ASKED)
    assert model.logits(alone).shape == (len(alone), model.config["text_config"]["vocab_size"])


def test_fallback_templates(tmp_path):
    for kind, wanted in (("llama", "USER: <image>\n{} ASSISTANT:"), ("mistral", "[INST] <image>\n{} [/INST]")):
        text = {**LLAVA_NEXT["text_config"], "model_type": kind}
        processor = load_processor(make(tmp_path / kind, text_config=text))
        ids = processor.prompt(ASKED, [picture(28, 28)]).input_ids.tolist()
        runs = [token for token, before in zip(ids, [None, *ids], strict=False) if token != IMAGE or before != IMAGE]
        assert processor.tokenizer.decode(runs) == f"<s>{wanted.format(ASKED)}"


@pytest.fixture(scope="module")
def small():
    model = build(LLAVA_NEXT)
    model.load_weights(list(random_weights(LLAVA_NEXT).items()))
    return model


def pictures(sizes, tiles, ndim=5, seed=0) -> dict[str, np.ndarray]:
    shape = (len(sizes), tiles) if ndim == 5 else (tiles,)
    pixels = np.random.default_rng(seed).standard_normal((*shape, 3, SIDE, SIDE)).astype(np.float32)
    return {"pixel_values": pixels, "image_sizes": np.array(sizes)}


def test_padding_is_left_out_and_pictures_keep_their_order(small):
    wide, square = (28, 56), (56, 56)
    media = pictures([wide, square], 5)
    media["pixel_values"][0, 3:] = np.nan
    ids = [1, 20, *[IMAGE] * 14, 21, *[IMAGE] * 24, 22]
    embeds = small.embed(Prompt(ids, media))
    assert mx.isfinite(embeds).all().item()
    assert distance(embeds[0, [6 + 4, 6 + 9]], mx.stack([small.image_newline] * 2)) == 0
    stacked = {**media, "pixel_values": np.concatenate([media["pixel_values"][0, :3], media["pixel_values"][1]])}
    assert distance(small.embed(Prompt(ids, stacked)), embeds) < 1e-6
    swapped = Prompt([1, *[IMAGE] * 24, 21, *[IMAGE] * 14], {name: array[::-1] for name, array in media.items()})
    assert distance(small.embed(swapped)[0, 1:25], embeds[0, 17:41]) < 1e-6


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ({"image_sizes": []}, "image_sizes must say the height and width"),
        ({"image_sizes": [28, 56]}, "image_sizes must say the height and width"),
        ({"image_sizes": [[28, 0]]}, "image_sizes must say the height and width"),
        ({"image_sizes": [[56, 56]]}, r"\[5\] tiles, which pixel_values of shape \(1, 3, 3, 28, 28\) does not fit"),
        ({"image_sizes": [[28, 56], [28, 56]]}, r"\[3, 3\] tiles, which"),
        (pictures([[28, 56]], 4, ndim=4), r"\[3\] tiles, which pixel_values of shape \(4, 3, 28, 28\) does not fit"),
        ({"pixel_values": np.zeros((1, 3, 3, 14, 28))}, r"must have shape \(N, 3, 28, 28\)"),
        ({"image_sizes": [[20, 56]]}, "room for 13 image tokens, but the image gives 14"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(small, media, message):
    with pytest.raises(PromptError, match=message):
        small.embed(Prompt([1, *[IMAGE] * 13, 2], {**pictures([[28, 56]], 3), **media}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_feature_select_strategy": "full"}, "'full', but the rows of a llava_next picture have no place"),
        ({"image_grid_pinpoints": []}, "must hold heights and widths that are multiples of 28"),
        ({"image_grid_pinpoints": [[28, 57]]}, "must hold heights and widths that are multiples of 28"),
        ({"image_grid_pinpoints": [[28, 28, 28]]}, "must hold heights and widths that are multiples of 28"),
        ({"image_grid_pinpoints": [28]}, "must hold heights and widths that are multiples of 28"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "This llava_next checkpoint has a 'siglip"),
    ],
)
def test_configurations_that_are_not_built_are_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        build(merged(LLAVA_NEXT, **changes))


@pytest.mark.parametrize(("root", "text"), [(True, False), (False, True)])
def test_a_head_that_is_missing_is_tied(tmp_path, root, text):
    config = merged(
        LLAVA_NEXT, tie_word_embeddings=root, text_config={**LLAVA_NEXT["text_config"], "tie_word_embeddings": text}
    )
    weights = {name: array for name, array in random_weights(config).items() if "lm_head" not in name}
    assert "lm_head" not in load_model(write(tmp_path, config, weights)).language_model
