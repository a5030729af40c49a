"""LLaVA: a CLIP tower and a text part."""

import numpy as np

from .text import LLAMA, MISTRAL, QWEN2, QWEN3, YARN

IMAGE = 60
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
LLAVA = {"model_type": "llava", "image_token_index": IMAGE, "text_config": LLAMA, "vision_config": CLIP}
CASES = {
    "llava": LLAVA,
    "llava_two_pictures": {**LLAVA, "vision_config": {**CLIP, "hidden_act": "gelu"}},
    "llava_layers": {**LLAVA, "vision_feature_layer": [-2, -1]},
    "llava_layers_full": {**LLAVA, "vision_feature_layer": [0, 2, -1], "vision_feature_select_strategy": "full"},
    "llava_first_layer": {**LLAVA, "vision_feature_layer": 1, "projector_hidden_act": "gelu_pytorch_tanh"},
    "llava_full": {**LLAVA, "vision_feature_select_strategy": "full"},
    "llava_no_bias": {**LLAVA, "multimodal_projector_bias": False, "vision_config": {**CLIP, "image_size": 31}},
    "llava_qwen2": {**LLAVA, "text_config": {**QWEN2, "tie_word_embeddings": True}},
    "llava_qwen3_yarn": {**LLAVA, "text_config": {**QWEN3, "rope_scaling": YARN}},
    "llava_mistral": {**LLAVA, "text_config": {**MISTRAL, "sliding_window": 6}},
    "llava_sparse": {
        "model_type": "llava",
        "image_token_index": IMAGE,
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 64,
        },
        "vision_config": {
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "image_size": 64,
            "layer_norm_eps": 1e-4,
        },
    },
}
# What an empty or sparse part of config.json means, as far as it can be seen in the weights or the forward.
SPARSE = {
    "llava": {"model_type": "llava"},
    "llava_hub": {
        "model_type": "llava",
        "text_config": {
            "model_type": "llama",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-05,
            "vocab_size": 32064,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
    },
    "llava_half_a_tower": {"model_type": "llava", "vision_config": {"hidden_size": 1536, "patch_size": 16}},
    "llava_empty_tower": {"model_type": "llava", "vision_config": {}},
    "llava_qwen3": {"model_type": "llava", "text_config": {"model_type": "qwen3", "hidden_size": 2560}},
}
ARCHITECTURE = "LlavaForConditionalGeneration"
SPELLINGS = {
    "hub": [
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.vision_tower\.(vision_model\.)?", "vision_tower.vision_model."),
        (r"^model\.", ""),
    ],
}


def inputs(name: str, config: dict, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Token ids with the places of the pictures, and what the image processor gives."""
    vision = {"image_size": 224, "patch_size": 32, **config["vision_config"]}
    pictures = 2 if "two_pictures" in name else 1
    places = (vision["image_size"] // vision["patch_size"]) ** 2 + (
        config.get("vision_feature_select_strategy") == "full"
    )
    for picture in range(pictures):
        ids = np.insert(ids, 2 + picture * (places + 3), [IMAGE] * places)
    shape = (pictures, 3, vision["image_size"], vision["image_size"])
    return ids, {"pixel_values": np.round(16 * rng.standard_normal(shape)) / 16}
