"""What the demo checkpoints share: the text part, the tokenizer, and a folder in the ordinary Hugging Face layout."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lime_mlx.scenes.talk import chat

PAD, BOS, EOS, MEDIA = 0, 1, 2, 3
TEXT = {
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
    "tie_word_embeddings": True,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
IDS = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}


def template(kind: str, placeholder: str) -> str:
    """The chat template: pictures or sounds first, then the text."""
    return (
        "{% for message in messages %}"
        "{{ message['role'].upper() + ': ' }}"
        "{% for part in message['content'] if part['type'] == '" + kind + "' %}"
        "{{ '" + placeholder + "\n' }}{% endfor %}"
        "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
        "{{ ' ' if message['role'] == 'user' else eos_token }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )


def talks(scene, rng) -> Iterator[str]:
    """The free questions about a scene as the template writes them, for the tokenizer."""
    for talk in chat(scene, rng, 12 if scene.kinds else 2):
        turns = [*talk.history, (talk.text, talk.answer)]
        yield from (f"{before}{user} ASSISTANT: {told}" for user, told in turns for before in ("\n", "USER: "))


def words(nouns: Iterable[str]) -> list[str]:
    """Words of the world in the ways in which they are written."""
    forms = (" {}", " a {}", " an {}", " no {}")
    return [form.format(noun) for noun in nouns for form in forms] * 4


def build_tokenizer(special: Sequence[str], sentences: Iterable[str]) -> Tokenizer:
    """Byte-level BPE trained on the sentences of the world: its words are one token, any other text is bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        min_frequency=2,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


def save(folder: Path, tokenizer: Tokenizer, chat: str, files: dict[str, dict], named: dict[str, str]) -> None:
    """Everything but the weights. `files` go in as they are; `named` are tokens that have a name of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        **files,
        "generation_config.json": {**IDS, "max_length": 512},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            **named,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 512,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(chat)
