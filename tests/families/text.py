"""The decoder alone: Llama, Mistral, Qwen2, Qwen3."""

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
MISTRAL = {**LLAMA, "model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None}


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
    "mistral": MISTRAL,
    "mistral_window": {**MISTRAL, "sliding_window": 5},
    "qwen2_window": {**QWEN2, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
}
SPARSE = {kind: {"model_type": kind} for kind in ("llama", "mistral", "qwen2", "qwen3")}
ARCHITECTURE = "AutoModelForCausalLM"
