"""Qwen2-VL: pictures of any shape, positions in three coordinates."""

from functools import partial

import numpy as np

START, END, IMAGE = 58, 59, 60
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
TOKENS = {"image_token_id": IMAGE, "video_token_id": 61, "vision_start_token_id": START, "vision_end_token_id": END}
CHUNKS = {"type": "mrope", "mrope_section": [2, 1, 1]}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mrope_section": [1, 2, 1]}
WINDOW = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
PLAIN = {"rope_type": "default", "rope_theta": 5e4, "mrope_section": [1, 1, 2]}
VISION = {"embed_dim": 24, "hidden_size": 32, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "patch_size": 3}
FLAT = {"model_type": "qwen2_vl", **TEXT, **TOKENS, "rope_scaling": CHUNKS, "vision_config": VISION}
NESTED = {"model_type": "qwen2_vl", **TOKENS, "vision_config": VISION}
CASES = {
    "qwen2_vl": FLAT,
    "qwen2_vl_nested": {
        **NESTED,
        "text_config": {**TEXT, "model_type": "qwen2_vl_text", "rope_parameters": PLAIN},
        "tie_word_embeddings": True,
        "vision_config": {**VISION, "hidden_act": "gelu", "num_heads": 2},
    },
    "qwen2_vl_first_and_last": {**FLAT, "num_key_value_heads": 1, "vision_config": {**VISION, "spatial_merge_size": 1}},
    "qwen2_vl_frames": {
        **FLAT,
        "vision_config": {
            **{**VISION, "in_channels": 1, "temporal_patch_size": 3, "spatial_merge_size": 3, "hidden_act": "silu"},
            "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
        },
    },
    "qwen2_vl_yarn": {**FLAT, "rope_scaling": YARN, "num_key_value_heads": 4},
    "qwen2_vl_linear": {**FLAT, "rope_scaling": {**PLAIN, "rope_type": "linear", "factor": 2.5}},
    "qwen2_vl_window": {**FLAT, **WINDOW},
    "qwen2_vl_text": {**FLAT, "tie_word_embeddings": True},
}
# Where pictures stand among the tokens of text, and their grids; those of "bare" have no markers around them.
PICTURES = {
    "qwen2_vl": [(2, (1, 4, 6)), (5, (1, 8, 2))],
    "qwen2_vl_nested": [(3, (1, 6, 4))],
    "qwen2_vl_first_and_last": [(0, (1, 3, 2)), (12, (1, 1, 4))],
    "qwen2_vl_frames": [(1, (2, 6, 3)), (4, (1, 3, 9))],
    "qwen2_vl_yarn": [(2, (1, 2, 14)), (3, (1, 4, 4))],
    "qwen2_vl_linear": [(4, (1, 2, 2))],
    "qwen2_vl_window": [(2, (1, 4, 8))],
    "qwen2_vl_text": [],
}
SPARSE = {
    "qwen2_vl": {"model_type": "qwen2_vl", "hidden_size": 3584, "num_attention_heads": 28},
    "qwen2_vl_nested": {
        "model_type": "qwen2_vl",
        "text_config": {"hidden_size": 1536, "num_attention_heads": 12, "num_key_value_heads": 2},
        "vision_config": {"hidden_size": 1536},
    },
}
# Our names of what `vision_config` says, and those of transformers.
TOWER = {name: name for name in ("depth", "num_heads", "hidden_act", "in_channels", "patch_size")}
TOWER |= {name: name for name in ("temporal_patch_size", "spatial_merge_size")}
TOWER |= {"hidden_size": "embed_dim", "out_hidden_size": "hidden_size"}
ARCHITECTURE = "Qwen2VLForConditionalGeneration"
SPELLINGS = {
    "hub": [(r"^model\.visual\.", "visual."), (r"^model\.language_model\.", "model.")],
    "mlx": [
        (r"^model\.visual\.", "vision_tower."),
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
    ],
}


def pictures(
    table: dict, name: str, config: dict, ids: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, dict]:
    """Token ids with the places of the pictures, and flattened patches."""
    vision = {"in_channels": 3, "temporal_patch_size": 2, "spatial_merge_size": 2, **config["vision_config"]}
    if not table[name]:
        return ids, {}
    for at, grid in reversed(table[name]):
        places = [IMAGE] * (np.prod(grid) // vision["spatial_merge_size"] ** 2)
        ids = np.insert(ids, at, places if name.endswith("first_and_last") else [START, *places, END])
    grids = np.array([grid for _, grid in table[name]])
    width = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    pixels = rng.standard_normal((grids.prod(axis=1).sum(), width))
    return ids, {"pixel_values": np.round(16 * pixels) / 16, "image_grid_thw": grids}


inputs = partial(pictures, PICTURES)


def reference_inputs(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Which tokens are a picture's: without it transformers counts positions one by one."""
    return {"mm_token_type_ids": (ids == IMAGE).astype(np.int32)}
