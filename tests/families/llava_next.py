"""LLaVA-1.6: CLIP features of a whole picture and of its tiles, by the size that the picture had."""

import numpy as np

from .llava import CLIP, IMAGE, LLAVA
from .llava import SPELLINGS as LLAVA_SPELLINGS
from .text import MISTRAL, QWEN2, QWEN3

PATCHED = {**CLIP, "patch_size": 7}
PAIRS = [[28, 56], [56, 28], [56, 56]]
NEXT = {**LLAVA, "model_type": "llava_next", "vision_config": PATCHED, "image_grid_pinpoints": PAIRS}
LONG = [[84, 28], [28, 84], [56, 56], [28, 56]]
CASES = {
    "llava_next": {**NEXT, "text_config": MISTRAL},
    "llava_next_tall": {**NEXT, "image_grid_pinpoints": LONG},
    "llava_next_square": {**NEXT, "text_config": {**MISTRAL, "sliding_window": 20}, "tie_word_embeddings": True},
    "llava_next_wide_in_a_square": {**NEXT, "image_grid_pinpoints": [[56, 56]]},
    "llava_next_tall_in_a_square": {**NEXT, "image_grid_pinpoints": [[56, 56]], "text_config": QWEN2},
    "llava_next_odd": {**NEXT, "vision_config": {**PATCHED, "image_size": 35}, "image_grid_pinpoints": [[35, 70]]},
    "llava_next_rest": {**NEXT, "vision_config": {**PATCHED, "image_size": 33}, "image_grid_pinpoints": [[66, 33]]},
    "llava_next_one_tile": {**NEXT, "image_grid_pinpoints": [[28, 28]], "multimodal_projector_bias": False},
    "llava_next_thin": {**NEXT, "text_config": {**QWEN2, "tie_word_embeddings": True}},
    "llava_next_layers": {**NEXT, "vision_feature_layer": [-2, -1, 0], "projector_hidden_act": "gelu_pytorch_tanh"},
    "llava_next_two_pictures": {**NEXT, "image_grid_pinpoints": LONG},
    "llava_next_stacked": {**NEXT, "vision_feature_layer": 1, "text_config": QWEN3},
}
# Height and width of the pictures; those that are stacked have no tiles of others' number between them.
SIZES = {
    "llava_next": [(20, 56)],
    "llava_next_tall": [(61, 17)],
    "llava_next_square": [(50, 50)],
    "llava_next_wide_in_a_square": [(37, 91)],
    "llava_next_tall_in_a_square": [(479, 231)],
    "llava_next_odd": [(30, 35)],
    "llava_next_rest": [(333, 500)],
    "llava_next_one_tile": [(28, 19)],
    "llava_next_thin": [(1, 200)],
    "llava_next_layers": [(56, 28)],
    "llava_next_two_pictures": [(30, 90), (24, 40)],
    "llava_next_stacked": [(28, 28), (21, 56)],
}
SPARSE = {
    "llava_next": {"model_type": "llava_next"},
    "llava_next_half_a_tower": {
        "model_type": "llava_next",
        "vision_config": {"hidden_size": 1536, "patch_size": 16},
        "image_grid_pinpoints": [[224, 448]],
    },
    "llava_next_mistral": {
        "model_type": "llava_next",
        "image_grid_pinpoints": [[448, 448]],
        "vision_config": {},
        "text_config": {"model_type": "mistral", "max_position_embeddings": 32768, "vocab_size": 32064},
    },
}
ARCHITECTURE = "LlavaNextForConditionalGeneration"
SPELLINGS = {"hub": LLAVA_SPELLINGS["hub"], "mlx": LLAVA_SPELLINGS["hub"]}


def inputs(name: str, config: dict, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """As many places as the processor of transformers counts, and random tiles, also where they are padding."""
    from transformers import LlavaNextProcessor
    from transformers.image_processing_utils import select_best_resolution

    side, points = config["vision_config"]["image_size"], config["image_grid_pinpoints"]
    patches, tiles = side // config["vision_config"]["patch_size"], []
    for number, (height, width) in enumerate(SIZES[name]):
        rows, columns = (edge // side for edge in select_best_resolution((height, width), points))
        unpadded = LlavaNextProcessor._get_unpadded_features(None, height, width, patches, patches, rows, columns)
        ids = np.insert(ids, 2 + 3 * number + int((ids == IMAGE).sum()), [IMAGE] * (patches**2 + sum(unpadded)))
        tiles.append(1 + rows * columns)
    shape = (sum(tiles),) if name.endswith("stacked") else (len(tiles), max(tiles))
    pixels = np.round(16 * rng.standard_normal((*shape, 3, side, side))) / 16
    return ids, {"pixel_values": pixels, "image_sizes": np.array(SIZES[name])}
