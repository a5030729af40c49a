"""Qwen3-VL: learned positions, DeepStack, interleaved coordinates."""

from functools import partial

from .qwen2_vl import SPELLINGS as QWEN2_SPELLINGS
from .qwen2_vl import TEXT as QWEN2_TEXT
from .qwen2_vl import TOKENS, pictures, reference_inputs

TEXT = {**QWEN2_TEXT, "model_type": "qwen3_vl_text", "head_dim": 16}
MIXED = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
VISION = {
    "hidden_size": 24,
    "out_hidden_size": 32,
    "intermediate_size": 20,
    "depth": 3,
    "num_heads": 3,
    "patch_size": 3,
    "num_position_embeddings": 25,
    "deepstack_visual_indexes": [0, 2],
}
QWEN3 = {
    "model_type": "qwen3_vl",
    **TOKENS,
    "text_config": {**TEXT, "rope_scaling": MIXED, "rope_theta": 5e6},
    "vision_config": VISION,
}


def changed(text: dict | None = None, vision: dict | None = None, **whole) -> dict:
    parts = {"text_config": {**QWEN3["text_config"], **(text or {})}, "vision_config": {**VISION, **(vision or {})}}
    return {**QWEN3, **parts, **whole}


CASES = {
    "qwen3_vl": QWEN3,
    "qwen3_vl_tied": changed(
        {"tie_word_embeddings": True}, {"deepstack_visual_indexes": [1]}, tie_word_embeddings=True
    ),
    "qwen3_vl_first_and_last": changed(vision={"spatial_merge_size": 1, "num_position_embeddings": 10}),
    "qwen3_vl_frames": changed(vision={"in_channels": 1, "temporal_patch_size": 3, "hidden_act": "gelu"}),
    "qwen3_vl_no_deepstack": changed({"num_key_value_heads": 1}, {"deepstack_visual_indexes": []}),
    "qwen3_vl_deeper": changed({"attention_bias": True}, {"deepstack_visual_indexes": [2, 0, 1]}),
    "qwen3_vl_sections": changed({"rope_scaling": {"rope_type": "default", "mrope_section": [16, 2, 8]}}),
    "qwen3_vl_silent": changed({"rope_scaling": None, "num_key_value_heads": 4}),
    "qwen3_vl_yarn": changed({"rope_scaling": {**MIXED, "rope_type": "yarn", "factor": 4.0}}),
    "qwen3_vl_text": changed(),
}
PICTURES = {
    "qwen3_vl": [(2, (1, 4, 6)), (5, (1, 8, 2))],
    "qwen3_vl_tied": [(3, (1, 6, 10))],
    "qwen3_vl_first_and_last": [(0, (1, 5, 3)), (12, (1, 1, 7))],
    "qwen3_vl_frames": [(1, (2, 6, 4)), (4, (3, 2, 6))],
    "qwen3_vl_no_deepstack": [(2, (1, 2, 14)), (3, (1, 4, 4))],
    "qwen3_vl_deeper": [(2, (1, 12, 4))],
    "qwen3_vl_sections": [(4, (1, 6, 4))],
    "qwen3_vl_silent": [(4, (1, 4, 6))],
    "qwen3_vl_yarn": [(2, (1, 4, 8))],
    "qwen3_vl_text": [],
}
SPARSE = {
    "qwen3_vl": {"model_type": "qwen3_vl", "vision_config": {"out_hidden_size": 4096}},
    "qwen3_vl_hub": {
        "model_type": "qwen3_vl",
        "text_config": {"hidden_size": 2560, "num_attention_heads": 32, "num_key_value_heads": 8},
        "vision_config": {"hidden_size": 1024, "depth": 24, "out_hidden_size": 2560},
    },
}
TOWER = {name: name for name in ("depth", "hidden_size", "intermediate_size", "out_hidden_size", "num_heads")}
TOWER |= {name: name for name in ("hidden_act", "in_channels", "patch_size", "temporal_patch_size")}
TOWER |= {name: name for name in ("spatial_merge_size", "num_position_embeddings")}
ARCHITECTURE = "Qwen3VLForConditionalGeneration"
SPELLINGS = {"mlx": QWEN2_SPELLINGS["mlx"]}

inputs = partial(pictures, PICTURES)
__all__ = ["reference_inputs"]
