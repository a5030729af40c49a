"""Gemma 3: a pooled SigLIP tower, sliding windows, and pictures that see each other both ways."""

import numpy as np

IMAGE, BEGIN, END, OUTSIDE = 60, 61, 62, 70
TEXT = {
    "model_type": "gemma3_text",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "query_pre_attn_scalar": 16,
    "sliding_window": 6,
    "sliding_window_pattern": 2,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
}
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
GEMMA3 = {
    "model_type": "gemma3",
    "image_token_index": IMAGE,
    "boi_token_index": BEGIN,
    "eoi_token_index": END,
    "mm_tokens_per_image": 4,
    "text_config": TEXT,
    "vision_config": VISION,
}


def text(**changes) -> dict:
    return {**GEMMA3, "text_config": {**TEXT, **changes}}


CASES = {
    "gemma3": GEMMA3,
    "gemma3_two_pictures": {**GEMMA3, "mm_tokens_per_image": 16},
    "gemma3_small_window": text(sliding_window=3, sliding_window_pattern=3, num_hidden_layers=4),
    "gemma3_wide_window": text(sliding_window=512, num_key_value_heads=1),
    "gemma3_linear_rope": text(rope_scaling={"rope_type": "linear", "factor": 8.0}, query_pre_attn_scalar=24),
    "gemma3_layer_types": text(layer_types=["full_attention", "sliding_attention", "full_attention"]),
    "gemma3_default_pattern": text(num_hidden_layers=7, sliding_window_pattern=None),
    "gemma3_soft_caps": text(final_logit_softcapping=3.0, attn_logit_softcapping=5.0, attention_bias=True),
    "gemma3_untied": {**text(hidden_activation="gelu"), "tie_word_embeddings": False},
    "gemma3_pooled_rest": {**GEMMA3, "vision_config": {**VISION, "image_size": 29, "patch_size": 4}},
    "gemma3_outside_the_vocabulary": {**GEMMA3, "image_token_index": OUTSIDE},
    "gemma3_nested_rope": text(
        rope_theta=None,
        rope_local_base_freq=None,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        },
    ),
}
CASES = {
    name: {**case, "text_config": {k: v for k, v in case["text_config"].items() if v is not None}}
    for name, case in CASES.items()
}
SPARSE = {
    "gemma3": {"model_type": "gemma3"},
    "gemma3_hub": {
        "model_type": "gemma3",
        "image_token_index": 262144,
        "mm_tokens_per_image": 256,
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "image_size": 896,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
        },
    },
}
ARCHITECTURE = "Gemma3ForConditionalGeneration"
HUB = [
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.vision_tower\.(vision_model\.)?", "vision_tower.vision_model."),
    (r"^model\.", ""),
]
SPELLINGS = {
    "hub": [(r"^lm_head\.", "language_model.lm_head."), *HUB],
    "mlx": [(r"^lm_head\.", "language_model.lm_head."), *HUB],
}


def inputs(name: str, config: dict, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Token ids with the places of the pictures between their markers, and what the image processor gives."""
    size, tokens = config["vision_config"]["image_size"], config["mm_tokens_per_image"]
    pictures = 2 if "two_pictures" in name or "window" in name else 1
    for picture in range(pictures):
        ids = np.insert(ids, 2 + picture * (tokens + 5), [BEGIN, *[config["image_token_index"]] * tokens, END])
    return ids, {"pixel_values": np.round(16 * rng.standard_normal((pictures, 3, size, size))) / 16}


def reference_inputs(ids: np.ndarray) -> dict:
    return {"token_type_ids": np.isin(ids, (IMAGE, OUTSIDE)).astype(np.int64)}
