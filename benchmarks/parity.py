"""Our logits and greedy tokens against those of transformers, for small random models that take every branch.

    make parity                              # compare; needs torch and transformers
    python benchmarks/parity.py --write      # and store what transformers gives, for tests/test_decoder.py

A fixture is what transformers writes (config.json, weights) and computes (logits at all positions, tokens). Weights are
multiples of 1/64, exact in float16.
"""

import argparse
import json
import os
import tempfile
import zlib
from pathlib import Path

os.environ.setdefault("MLX_ENABLE_TF32", "0")

import numpy as np

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
LENGTH, TOKENS, IMAGE, SIDE = 12, 16, 60, 28
BOUND, MARGIN = 2e-4, 1e-3

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
QWEN2 = {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2, "rope_theta": 1e6, "rms_norm_eps": 1e-6}
QWEN3 = {**QWEN2, "model_type": "qwen3", "head_dim": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 14,
}
LLAVA = {"model_type": "llava", "image_token_index": IMAGE, "text_config": LLAMA, "vision_config": CLIP}


def rope(kind: str, **values) -> dict:
    return {**LLAMA, "head_dim": 16, "rope_scaling": {"rope_type": kind, **values}}


def yarn(**values) -> dict:
    return {**LLAMA, "head_dim": 16, "rope_scaling": {**YARN, **values}}


CASES = {
    "llama": LLAMA,
    "llama_gqa_tied": {**LLAMA, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama_one_key_head": {**LLAMA, "num_key_value_heads": 1, "hidden_act": "gelu"},
    "llama_biases": {**LLAMA, "num_key_value_heads": 2, "head_dim": 12, "attention_bias": True, "mlp_bias": True},
    "llama_rope_linear": rope("linear", factor=2.5),
    "llama_rope_linear_old": {**LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama_rope_llama3": rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
    ),
    "llama_rope_llama3_short": rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0),
    "llama_rope_yarn": yarn(),
    "llama_rope_yarn_betas": yarn(beta_fast=2.0, beta_slow=0.5, original_max_position_embeddings=32),
    "llama_rope_yarn_attention_factor": yarn(attention_factor=0.8),
    "llama_rope_yarn_mscales": yarn(mscale=1.2, mscale_all_dim=0.7),
    "llama_rope_yarn_mscale_alone": yarn(mscale=0.707),
    "llama_rope_yarn_mscale_all_dim_alone": yarn(mscale_all_dim=1.0),
    "llama_rope_yarn_short": rope("yarn", factor=2.0),
    "qwen2": QWEN2,
    "qwen2_tied_yarn": {
        **QWEN2,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 8,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    },
    "qwen3": QWEN3,
    "qwen3_tied_bias": {**QWEN3, "tie_word_embeddings": True, "attention_bias": True, "num_key_value_heads": 4},
    "llava": LLAVA,
    "llava_two_pictures": {**LLAVA, "vision_config": {**CLIP, "hidden_act": "gelu"}},
    "llava_layers": {**LLAVA, "vision_feature_layer": [-2, -1]},
    "llava_layers_full": {**LLAVA, "vision_feature_layer": [0, 2, -1], "vision_feature_select_strategy": "full"},
    "llava_first_layer": {**LLAVA, "vision_feature_layer": 1, "projector_hidden_act": "gelu_pytorch_tanh"},
    "llava_full": {**LLAVA, "vision_feature_select_strategy": "full"},
    "llava_no_bias": {**LLAVA, "multimodal_projector_bias": False, "vision_config": {**CLIP, "image_size": 31}},
    "llava_qwen2": {**LLAVA, "text_config": {**QWEN2, "tie_word_embeddings": True}},
    "llava_qwen3_yarn": {**LLAVA, "text_config": {**QWEN3, "rope_scaling": YARN}},
    "llava_sparse": {
        "model_type": "llava",
        "image_token_index": IMAGE,
        "text_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64},
        "vision_config": {
            "hidden_size": 48,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "image_size": 64,
            "layer_norm_eps": 1e-4,
        },
    },
}
# What an empty or sparse part of config.json means, as far as it can be seen in the weights or the forward.
SPARSE = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
    "llava": {"model_type": "llava"},
    "llava_hub": {
        "model_type": "llava",
        "text_config": {"model_type": "llama", "rms_norm_eps": 1e-05, "vocab_size": 32064},
        "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "patch_size": 14},
    },
    "llava_qwen3": {"model_type": "llava", "text_config": {"model_type": "qwen3", "hidden_size": 2560}},
}
