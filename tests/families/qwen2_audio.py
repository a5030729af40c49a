"""Qwen2-Audio: a Whisper tower and a text part, with sounds of several lengths."""

import numpy as np

from .text import LLAMA, QWEN2, QWEN3, YARN

BEGIN, END, AUDIO = 61, 62, 63
WHISPER = {
    "model_type": "qwen2_audio_encoder",
    "num_mel_bins": 8,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "max_source_positions": 15,
}
TEXT = {**QWEN2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
AUDIO_MODEL = {"model_type": "qwen2_audio", "audio_token_index": AUDIO, "audio_config": WHISPER, "text_config": TEXT}
CASES = {
    "qwen2_audio": AUDIO_MODEL,
    "qwen2_audio_full": {**AUDIO_MODEL, "text_config": {**TEXT, "num_key_value_heads": 4}},
    "qwen2_audio_two_sounds": {**AUDIO_MODEL, "audio_config": {**WHISPER, "encoder_layers": 3}},
    "qwen2_audio_three_sounds": {**AUDIO_MODEL, "text_config": {**TEXT, "tie_word_embeddings": True}},
    "qwen2_audio_short": {**AUDIO_MODEL, "audio_config": {**WHISPER, "activation_function": "gelu_new"}},
    "qwen2_audio_scaled": {
        **{k: v for k, v in AUDIO_MODEL.items() if k != "audio_token_index"},
        "audio_token_id": AUDIO,
        "tie_word_embeddings": True,
        "audio_config": {**WHISPER, "scale_embedding": True, "max_source_positions": 20, "encoder_attention_heads": 4},
    },
    "qwen2_audio_relu": {
        **AUDIO_MODEL,
        "audio_config": {**WHISPER, "activation_function": "relu", "max_source_positions": 16},
        "text_config": {**TEXT, "rope_scaling": YARN},
    },
    "qwen2_audio_llama": {**AUDIO_MODEL, "text_config": LLAMA},
    "qwen2_audio_qwen3": {**AUDIO_MODEL, "text_config": {**QWEN3, "tie_word_embeddings": True}},
    "qwen2_audio_names": {
        **AUDIO_MODEL,
        "audio_config": {
            "num_mel_bins": 8,
            "hidden_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_source_positions": 12,
        },
        "text_config": {key: value for key, value in TEXT.items() if key != "model_type"},
    },
}
# Frames that are sound, of each sound; the rest is padding.
FRAMES = {
    "qwen2_audio": [17],
    "qwen2_audio_full": [30],
    "qwen2_audio_two_sounds": [22, 29],
    "qwen2_audio_three_sounds": [9, 30, 12],
    "qwen2_audio_short": [8],
    "qwen2_audio_scaled": [39],
    "qwen2_audio_relu": [15],
    "qwen2_audio_llama": [20],
    "qwen2_audio_qwen3": [11, 11],
    "qwen2_audio_names": [23],
}
SPARSE = {
    "qwen2_audio": {"model_type": "qwen2_audio"},
    "qwen2_audio_hub": {
        "model_type": "qwen2_audio",
        "audio_token_index": 151646,
        "audio_config": {
            "model_type": "qwen2_audio_encoder",
            "d_model": 1280,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "encoder_layers": 32,
            "num_mel_bins": 128,
            "max_source_positions": 1500,
        },
        "text_config": {
            "model_type": "qwen2",
            "intermediate_size": 11008,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000,
            "vocab_size": 156032,
        },
    },
    "qwen2_audio_half_a_tower": {
        "model_type": "qwen2_audio",
        "audio_config": {"d_model": 768, "encoder_attention_heads": 12},
    },
    "qwen2_audio_no_text_type": {"model_type": "qwen2_audio", "text_config": {"vocab_size": 156032}},
}
AUDIO_TOWER = [name for name in WHISPER if name != "model_type"] + ["activation_function"]
ARCHITECTURE = "Qwen2AudioForConditionalGeneration"
HUB = [
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.", ""),
]
SPELLINGS = {"hub": HUB, "mlx": HUB}


def inputs(name: str, config: dict, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Token ids with the places of the sounds between their markers, and what the feature extractor gives."""
    audio, valid = config["audio_config"], FRAMES[name]
    total = 2 * audio["max_source_positions"]
    placed = [[BEGIN, *[AUDIO] * (((frames - 1) // 2 - 1) // 2 + 1), END] for frames in valid]
    ids = np.concatenate([ids[:2], *placed, ids[2:]])
    mel = np.round(16 * rng.standard_normal((len(valid), audio["num_mel_bins"], total))) / 16
    return ids, {"input_features": mel, "feature_attention_mask": np.arange(total) < np.array(valid)[:, None]}


def reference_inputs(ids: np.ndarray) -> dict:
    """Transformers asks for the mask of the text, too."""
    return {"attention_mask": np.ones(len(ids), dtype=np.int64)}
