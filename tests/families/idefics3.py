"""Idefics3: squares of pictures through SigLIP, shuffled into fewer tokens."""

import numpy as np

IMAGE, AROUND, WHOLE = 60, 61, 62
TEXT = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
IDEFICS3 = {
    "model_type": "idefics3",
    "image_token_id": IMAGE,
    "scale_factor": 2,
    "text_config": TEXT,
    "vision_config": VISION,
}
CASES = {
    "idefics3": IDEFICS3,
    "idefics3_two_pictures": {**IDEFICS3, "text_config": {**TEXT, "num_key_value_heads": 1}},
    "idefics3_scale_4": {**IDEFICS3, "scale_factor": 4, "vision_config": {**VISION, "model_type": "idefics3_vision"}},
    "idefics3_scale_3_tied": {
        **IDEFICS3,
        "scale_factor": 3,
        "tie_word_embeddings": True,
        "vision_config": {**VISION, "image_size": 42, "hidden_act": "gelu"},
    },
    "idefics3_masked": IDEFICS3,
    "idefics3_masked_rest": {**IDEFICS3, "vision_config": {**VISION, "image_size": 31, "layer_norm_eps": 1e-4}},
    "idefics3_mistral": {**IDEFICS3, "text_config": {**TEXT, "model_type": "mistral", "sliding_window": 7}},
    "idefics3_other_squares": IDEFICS3,
}
SPARSE = {
    "idefics3": {"model_type": "idefics3"},
    "idefics3_sparse_text": {"model_type": "idefics3", "text_config": {"hidden_size": 2048}},
}
ARCHITECTURE = "Idefics3ForConditionalGeneration"
SPELLINGS = {
    "hub": [],
    "mlx": [
        (r"^model\.", ""),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^text_model\.", "language_model."),
    ],
}


def inputs(name: str, config: dict, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Token ids with the frames of the squares, and what the image processor gives: one square more than is used."""
    vision, scale = config["vision_config"], config["scale_factor"]
    size = 42 if "other_squares" in name else vision["image_size"]
    edge = size // vision["patch_size"]
    tokens = (edge // scale) ** 2
    squares = [3, 1] if "two_pictures" in name else [2]
    frame = lambda count: [AROUND, WHOLE, *[IMAGE] * tokens] * count + [AROUND]  # noqa: E731
    for picture, count in enumerate(squares):
        ids = np.insert(ids, 2 + picture * (squares[0] * (tokens + 2) + 4), frame(count))
    total = sum(squares)
    pixels = np.round(16 * rng.standard_normal((1, total + 1, 3, size, size))) / 16
    pixels[:, total:] = 0
    mask = np.ones((1, total + 1, size, size), dtype=np.int64)
    if "masked" in name:
        mask[:, 0, size // 2 :] = 0
        mask[:, 1, :, size // 2 + 5 :] = 0
    return ids, {"pixel_values": pixels, "pixel_attention_mask": mask}
