"""Tiny random checkpoints, written as folders."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lime_mlx.checkpoint.load import build
from lime_mlx.prompt import Prompt

IMAGE, VOCABULARY, SIDE, PATCHES = 3, 320, 28, 4
TEXT = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "eos_token_id": 2,
}
LLAVA = {
    "model_type": "llava",
    "image_token_index": IMAGE,
    "text_config": TEXT,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 14,
    },
}
LLAVA_NEXT = {**LLAVA, "model_type": "llava_next", "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]}
AUDIO, BANDS, SECONDS = 6, 16, 1
SOUND_TOKENS = ["<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>", "<|im_start|>", "<|im_end|>"]
QWEN2_AUDIO = {
    "model_type": "qwen2_audio",
    "audio_token_index": AUDIO,
    "text_config": {**TEXT, "model_type": "qwen2"},
    "audio_config": {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": BANDS,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "max_source_positions": 50 * SECONDS,
    },
}
PICTURE, WINDOW = 6, 28
PICTURE_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|im_start|>", "<|im_end|>"]
QWEN_TOWER = {"depth": 2, "num_heads": 2, "patch_size": WINDOW // 2}
QWEN_TOWERS = {
    "qwen2_vl": {**QWEN_TOWER, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2},
    "qwen2_5_vl": {**QWEN_TOWER, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64},
    "qwen3_vl": {**QWEN_TOWER, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64},
}
QWEN_TOWERS["qwen2_5_vl"] |= {"window_size": 2 * WINDOW, "fullatt_block_indexes": [1]}
QWEN_TOWERS["qwen3_vl"] |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
SENTENCES = [
    "USER: What is in the picture? ASSISTANT: There is a dog and a house with a red door.",
    "Is there a cat in the scene? Yes, there is a cat. No, there is no umbrella.",
]


def merged(config: dict, **changes) -> dict:
    """`config` with top-level keys changed; None takes a key away."""
    return {k: v for k, v in {**config, **changes}.items() if v is not None}


def random_weights(config: dict, seed: int = 0) -> dict[str, mx.array]:
    """Weights under the names and in the layouts of the module tree."""
    rng = np.random.default_rng(seed)
    shapes = tree_flatten(build(config).parameters())
    return {
        name: mx.array((1.0 + 0.1 * x if a.ndim == 1 else 0.1 * x).astype(np.float32))
        for name, a in shapes
        for x in [rng.standard_normal(a.shape)]
    }


def hub(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """As Hub files have it: PyTorch's layout of the convolution, and buffers that carry no weights."""
    out = {k: v.transpose(0, 3, 1, 2) if "patch_embedding" in k else v for k, v in weights.items()}
    if any("vision_tower" in name for name in out):
        out["vision_tower.vision_model.embeddings.position_ids"] = mx.arange(5)[None]
    out["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = mx.ones(8)
    return out


def tf5(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """As transformers 5 names the modules."""
    pairs = (
        (r"^language_model\.lm_head", "lm_head"),
        (r"^language_model\.model", "model.language_model"),
        (r"^(vision_tower|multi_modal_projector|image_newline)", r"model.\1"),
        (r"vision_tower\.vision_model", "vision_tower"),
    )
    out = {}
    for name, value in hub(weights).items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    return out


def text_only(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The text part as a checkpoint of its own."""
    prefix = "language_model."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def quantized(config: dict, weights: dict[str, mx.array], choose=None, **options) -> dict[str, mx.array]:
    """The weights as MLX quantises them; `choose` is the class predicate of `nn.quantize`."""
    model = build(config)
    model.update(tree_unflatten(list(weights.items())))
    nn.quantize(model, **options, class_predicate=choose)
    return dict(tree_flatten(model.parameters()))


def write(folder: Path, config: dict, weights: dict[str, mx.array], shards: int = 1, index: bool = True) -> Path:
    """config.json and the weights, in one file or in shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), weights)
        return folder
    places = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(weights.items())[number::shards])
        mx.save_safetensors(str(folder / name), part)
        places |= dict.fromkeys(part, name)
    if index:
        content = {"metadata": {"total_size": 0}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


def write_audio(folder: Path, **changes) -> Path:
    """A whole checkpoint that takes sounds of a second and has no chat template of its own."""
    config = merged(QWEN2_AUDIO, **changes)
    write(folder, config, random_weights(config))
    settings = {"feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "Qwen2AudioProcessor"}
    settings |= {"feature_size": BANDS, "chunk_length": SECONDS, "return_attention_mask": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    write_tokenizer(folder, more=SOUND_TOKENS)
    return folder


def qwen_vl(kind: str) -> dict:
    """config.json of a small model of a Qwen-VL family."""
    sections = {"type": "default", "mrope_section": [4, 2, 2]}
    text = {**TEXT, "model_type": f"{kind}_text", "head_dim": 16, "rope_scaling": sections}
    return {"model_type": kind, "image_token_id": PICTURE, "text_config": text, "vision_config": QWEN_TOWERS[kind]}


def write_qwen_vl(folder: Path, kind: str = "qwen2_5_vl", weights=None, **changes) -> Path:
    """A whole checkpoint that takes pictures of 4 to 16 tokens and has no chat template of its own."""
    config = merged(qwen_vl(kind), **changes)
    write(folder, config, (weights or dict)(random_weights(config)))
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": WINDOW // 2}
    settings |= {"min_pixels": 4 * WINDOW**2, "max_pixels": 16 * WINDOW**2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    write_tokenizer(folder, more=PICTURE_TOKENS)
    return folder


def write_tokenizer(folder: Path, bytewise: bool = True, more: Sequence[str] = (), **settings) -> Tokenizer:
    """tokenizer.json, of byte-level BPE or in the manner of Llama's sentencepiece, and tokenizer_config.json."""
    special = named = ["<pad>", "<s>", "</s>", "<image>", *more]
    tokenizer = Tokenizer(models.BPE(byte_fallback=not bytewise, fuse_unk=not bytewise))
    if bytewise:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        first = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        special = special + [f"<0x{byte:02X}>" for byte in range(256)]
        first = []
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 10, special_tokens=special, initial_alphabet=first, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in named])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**ends, **settings}))
    return tokenizer


def prompt(pictures: bool = True) -> Prompt:
    """Eight tokens, four of them the places of a picture."""
    if not pictures:
        return Prompt([1, 20, 21, 22, 23, 24, 25, 26])
    pixels = np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    return Prompt([1, 20] + [IMAGE] * PATCHES + [21, 22], {"pixel_values": pixels})
