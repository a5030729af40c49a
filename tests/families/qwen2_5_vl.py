"""Qwen2.5-VL: windows in the tower."""

from functools import partial

from .qwen2_vl import CHUNKS, PLAIN, TEXT, TOKENS, WINDOW, YARN, pictures, reference_inputs
from .qwen2_vl import SPELLINGS as QWEN2_SPELLINGS
from .qwen2_vl import TOWER as QWEN2_TOWER

VISION = {
    "hidden_size": 24,
    "out_hidden_size": 32,
    "intermediate_size": 20,
    "depth": 3,
    "num_heads": 3,
    "patch_size": 3,
    "window_size": 12,
    "fullatt_block_indexes": [1],
    "tokens_per_second": 2,
}
FLAT = {"model_type": "qwen2_5_vl", **TEXT, **TOKENS, "rope_scaling": CHUNKS, "vision_config": VISION}
NESTED = {"model_type": "qwen2_5_vl", **TOKENS, "vision_config": VISION}
CASES = {
    "qwen2_5_vl": FLAT,
    "qwen2_5_vl_nested": {
        **NESTED,
        "text_config": {**TEXT, "model_type": "qwen2_5_vl_text", "rope_parameters": PLAIN},
        "tie_word_embeddings": True,
        "vision_config": {**VISION, "hidden_act": "gelu", "num_heads": 2, "fullatt_block_indexes": []},
    },
    "qwen2_5_vl_first_and_last": {**FLAT, "vision_config": {**VISION, "spatial_merge_size": 1}},
    "qwen2_5_vl_frames": {**FLAT, "vision_config": {**VISION, "in_channels": 1, "temporal_patch_size": 3}},
    "qwen2_5_vl_rest": {**FLAT, "vision_config": {**VISION, "window_size": 23, "fullatt_block_indexes": [0, 2]}},
    "qwen2_5_vl_one_window": {**FLAT, "num_key_value_heads": 1, "vision_config": {**VISION, "window_size": 112}},
    "qwen2_5_vl_yarn": {**FLAT, "rope_scaling": YARN, "num_key_value_heads": 4},
    "qwen2_5_vl_window": {**FLAT, **WINDOW, "tie_word_embeddings": True},
}
PICTURES = {
    "qwen2_5_vl": [(2, (1, 4, 6)), (5, (1, 10, 2))],
    "qwen2_5_vl_nested": [(3, (1, 6, 10))],
    "qwen2_5_vl_first_and_last": [(0, (1, 5, 3)), (12, (1, 1, 7))],
    "qwen2_5_vl_frames": [(1, (2, 6, 4)), (4, (3, 2, 6))],
    "qwen2_5_vl_rest": [(2, (1, 8, 14))],
    "qwen2_5_vl_one_window": [(4, (1, 4, 6)), (5, (1, 2, 2))],
    "qwen2_5_vl_yarn": [(2, (1, 2, 12)), (3, (1, 4, 4))],
    "qwen2_5_vl_window": [(2, (1, 4, 8))],
}
SPARSE = {
    "qwen2_5_vl": {"model_type": "qwen2_5_vl", "hidden_size": 3584, "num_attention_heads": 28},
    "qwen2_5_vl_hub": {
        "model_type": "qwen2_5_vl",
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "vision_config": {"hidden_size": 1280, "out_hidden_size": 2048},
    },
}
TOWER = {**QWEN2_TOWER, "hidden_size": "hidden_size", "out_hidden_size": "out_hidden_size"}
TOWER |= {name: name for name in ("intermediate_size", "window_size")}
ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
SPELLINGS = QWEN2_SPELLINGS

inputs = partial(pictures, PICTURES)
__all__ = ["reference_inputs"]
