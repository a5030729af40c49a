"""The demo checkpoint as a folder in the ordinary Hugging Face layout of `llava`: configs, tokenizer, template."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lime_mlx.scenes import KINDS, PROMPTS, SETTINGS, answer, caption, make_scene, questions

SIZE, PATCH = 128, 16
GRID = SIZE // PATCH
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
PAD, BOS, EOS, IMAGE = 0, 1, 2, 3
SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]
CHAT = (
    "{% for message in messages %}"
    "{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ ' ' if message['role'] == 'user' else eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
TEXT = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
# Found on validation scenes (docs/demo.md).
LIME = {
    "fast": {"steps": 2, "lr": 0.05, "gate": 0.3},
    "exact": {"steps": 2, "lr": 0.03, "gate": 0.3, "words": "content"},
}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": PATCH,
    "projection_dim": 128,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def config(vocabulary: int) -> dict:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": IMAGE,
        "image_seq_length": GRID * GRID,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "lime": LIME,
        "text_config": {**TEXT, "vocab_size": vocabulary},
        "vision_config": VISION,
    }


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE trained on the sentences of the world: its words are one token, any other text is bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


def _sentences():
    import random

    rng = random.Random("sentences")
    articles = [f" {word}" for kind in (*KINDS, *SETTINGS) for word in (kind, f"a {kind}", f"an {kind}", f"no {kind}")]
    for seed in range(400):
        scene = make_scene(seed, "uncorrelated", 32)
        yield f"USER: <image>\n{rng.choice(PROMPTS)} ASSISTANT: {caption(scene, rng)}"
        for question in questions(scene, "random", rng):
            yield f"USER: <image>\n{question.text} ASSISTANT: {answer(question)}"
    yield from articles * 4


def save(folder: Path, tokenizer: Tokenizer) -> None:
    """Everything but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "config.json": config(tokenizer.get_vocab_size()),
        "generation_config.json": {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "max_length": 512},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "image_token": "<image>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 512,
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": SIZE},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": SIZE, "width": SIZE},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": MEAN,
            "image_std": STD,
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": "<image>",
            "patch_size": PATCH,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT)
