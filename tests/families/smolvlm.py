"""SmolVLM: Idefics3 under another name, with its own spelling in MLX."""

import numpy as np

from .idefics3 import IDEFICS3, SPELLINGS, TEXT, VISION
from .idefics3 import inputs as squares

__all__ = ["ARCHITECTURE", "CASES", "SPARSE", "SPELLINGS", "inputs"]

SMOLVLM = {
    **IDEFICS3,
    "model_type": "smolvlm",
    "vision_config": {**VISION, "model_type": "smolvlm_vision"},
}
CASES = {
    "smolvlm": SMOLVLM,
    "smolvlm_two_pictures": {**SMOLVLM, "scale_factor": 4, "tie_word_embeddings": True},
    "smolvlm_masked": {**SMOLVLM, "text_config": {**TEXT, "head_dim": 12, "num_attention_heads": 8}},
    "smolvlm_nothing_to_see": SMOLVLM,
}
SPARSE = {
    "smolvlm": {"model_type": "smolvlm"},
    "smolvlm_hub": {
        "model_type": "smolvlm",
        "image_token_id": 49190,
        "scale_factor": 4,
        "text_config": {
            "model_type": "llama",
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_attention_heads": 9,
            "num_hidden_layers": 30,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-05,
            "rope_theta": 100000,
            "vocab_size": 49280,
        },
        "vision_config": {
            "model_type": "smolvlm_vision",
            "hidden_size": 768,
            "num_attention_heads": 12,
            "patch_size": 16,
            "image_size": 512,
        },
    },
}
ARCHITECTURE = "SmolVLMForConditionalGeneration"


def inputs(name: str, config: dict, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """As in Idefics3; where all squares are empty, the first of them is a picture all the same."""
    ids, media = squares(name, config, ids, rng)
    if "nothing" in name:
        tokens, places = 4, np.flatnonzero(ids == config["image_token_id"])
        ids = np.delete(ids, places[tokens:])
        media["pixel_values"] *= 0
    return ids, media
