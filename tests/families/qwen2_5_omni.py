"""The thinker of Qwen2.5-Omni: pictures and sounds in one prompt."""

import numpy as np

IMAGE, AUDIO, VIDEO, SEE, SEEN, HEAR, HEARD = 56, 57, 58, 59, 60, 61, 62
TEXT = {
    "model_type": "qwen2_5_omni_text",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 256,
    "rope_scaling": {"type": "default", "mrope_section": [2, 1, 1]},
    "tie_word_embeddings": False,
}
VISION = {
    "model_type": "qwen2_5_omni_vision_encoder",
    "hidden_size": 24,
    "out_hidden_size": 32,
    "intermediate_size": 20,
    "depth": 3,
    "num_heads": 3,
    "patch_size": 3,
    "window_size": 12,
    "fullatt_block_indexes": [1],
}
HEARING = {
    "model_type": "qwen2_5_omni_audio_encoder",
    "num_mel_bins": 8,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "d_model": 16,
    "max_source_positions": 20,
    "n_window": 6,
    "output_dim": 32,
}
OMNI = {
    "model_type": "qwen2_5_omni_thinker",
    "text_config": TEXT,
    "vision_config": VISION,
    "audio_config": HEARING,
    "image_token_index": IMAGE,
    "audio_token_index": AUDIO,
    "video_token_index": VIDEO,
    "vision_start_token_id": SEE,
    "vision_end_token_id": SEEN,
    "audio_start_token_id": HEAR,
    "audio_end_token_id": HEARD,
}
CASES = {
    "qwen2_5_omni": OMNI,
    "qwen2_5_omni_picture": {**OMNI, "tie_word_embeddings": True, "vision_config": {**VISION, "num_heads": 2}},
    "qwen2_5_omni_sound": {**OMNI, "audio_config": {**HEARING, "activation_function": "relu", "n_window": 5}},
    "qwen2_5_omni_sound_first": {**OMNI, "text_config": {**TEXT, "num_key_value_heads": 1}},
    "qwen2_5_omni_two_of_each": {**OMNI, "audio_config": {**HEARING, "n_window": 4, "encoder_attention_heads": 4}},
}
# What stands in the prompt: a place, and a grid (time, rows, columns) or the frames of a sound.
PARTS = {
    "qwen2_5_omni": [(2, (1, 4, 6)), (5, 25)],
    "qwen2_5_omni_picture": [(3, (1, 6, 10))],
    "qwen2_5_omni_sound": [(4, 33)],
    "qwen2_5_omni_sound_first": [(1, 11), (4, (1, 2, 8))],
    "qwen2_5_omni_two_of_each": [(2, 8), (3, (1, 4, 4)), (6, (1, 2, 6)), (8, 19)],
}
ARCHITECTURE = "Qwen2_5OmniThinkerForConditionalGeneration"
HUB = [(r"^model\.language_model\.", "model."), (r"^model\.(visual|audio_tower)\.", r"\1.")]
SPELLINGS = {
    "hub": [*HUB, (r"^", "thinker.")],
    "mlx": [
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.visual\.", "vision_tower."),
        (r"^model\.", ""),
        (r"^", "thinker."),
    ],
}


def inputs(name: str, config: dict, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Token ids with the places of pictures and sounds between their markers, and what the processors give."""
    vision, bins = config["vision_config"], config["audio_config"]["num_mel_bins"]
    grids = [part for _, part in PARTS[name] if isinstance(part, tuple)]
    frames = [part for _, part in PARTS[name] if isinstance(part, int)]
    for place, part in reversed(PARTS[name]):
        if isinstance(part, tuple):
            new = [SEE, *[IMAGE] * (part[0] * part[1] * part[2] // 4), SEEN]
        else:
            new = [HEAR, *[AUDIO] * (((part - 1) // 2 + 1) // 2), HEARD]
        ids = np.insert(ids, place, new)
    media, noise = {}, lambda shape: np.round(16 * rng.standard_normal(shape)) / 16
    if grids:
        rows = sum(t * h * w for t, h, w in grids)
        media["pixel_values"] = noise((rows, 3 * 2 * vision["patch_size"] ** 2))
        media["image_grid_thw"] = np.array(grids)
    if frames:
        media["input_features"] = noise((len(frames), bins, max(frames)))
        media["feature_attention_mask"] = (np.arange(max(frames)) < np.array(frames)[:, None]).astype(np.int64)
    return ids, media


def reference_inputs(ids: np.ndarray) -> dict:
    """Without a mask, transformers counts all positions one by one."""
    return {"attention_mask": np.ones_like(ids)}
