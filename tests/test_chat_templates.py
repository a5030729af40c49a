"""Chats of several turns: our prompts are what transformers makes of the same messages, in every family's template."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from checkpoints import LLAVA, LLAVA_NEXT, PICTURE_TOKENS, TEXT, merged, qwen_vl, write_tokenizer
from PIL import Image
from test_maps import GEMMA, IDEFICS, SPLIT, SQUARES
from test_maps import MORE as SPECIAL
from test_qwen2_audio import RATE, sound
from test_qwen2_audio import folder as folder  # a checkpoint that takes sounds

from lime_mlx import load
from lime_mlx.checkpoint.load import load_processor
from lime_mlx.errors import PromptError
from lime_mlx.prompt import Turn

FIRST, SECOND, THIRD = "What is here?", "And now?", "Which of them is red?"
ANSWERS = ("A dog.", "Two cats.")
# How many pictures each text of the user shows.
CHATS = {
    "none": (0, 0, 0),
    "one": (1, 0, 0),
    "in turn 2": (0, 1, 0),
    "in turn 3": (0, 0, 1),
    "two": (2, 0, 0),
    "one each": (1, 1, 1),
}
SYSTEMS = [None, "Be brief."]
PIXELS = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
DEFAULT = "You are a helpful assistant."
MISTRAL = merged(LLAVA_NEXT, text_config={**TEXT, "model_type": "mistral"})
FAMILIES: dict[str, tuple[dict, dict, Sequence[str]]] = {
    "llava": (LLAVA, PIXELS, ()),
    "llava_next": (MISTRAL, PIXELS, ()),
    "idefics3": (IDEFICS, {**SPLIT, "do_image_splitting": False}, SPECIAL["idefics3"]),
    "gemma3": (GEMMA, SQUARES, SPECIAL["gemma3"]),
    "qwen2_vl": (qwen_vl("qwen2_vl"), {"patch_size": 14}, PICTURE_TOKENS),
    "qwen2_5_vl": (qwen_vl("qwen2_5_vl"), {"patch_size": 14}, PICTURE_TOKENS),
    "qwen3_vl": (qwen_vl("qwen3_vl"), {"patch_size": 14}, PICTURE_TOKENS),
}


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (56, 56), ("red", "green", "blue")[number])


def messages(counts: Sequence[int], system: str | None, kind: str = "image") -> list[dict]:
    """A chat as transformers takes it."""
    chat = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    for text, answer, count in zip((FIRST, SECOND, THIRD), (*ANSWERS, None), counts, strict=True):
        chat.append({"role": "user", "content": [*[{"type": kind}] * count, {"type": "text", "text": text}]})
        if answer is not None:
            chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return chat


def history(counts: Sequence[int], kind: str = "image") -> list[Turn]:
    shown = [(kind,) * count for count in counts]
    return [Turn(FIRST, ANSWERS[0], shown[0]), Turn(SECOND, ANSWERS[1], shown[1])]


# --- the published renderings of each family, in our words: (role, text, pictures) of each message to text


def vicuna(chat: list[tuple[str, str, int]]) -> str:
    heads, place = {"system": "", "user": "USER: ", "assistant": "ASSISTANT: "}, "<image>\n"
    return "".join(f"{heads[role]}{place * count}{text} " for role, text, count in chat) + "ASSISTANT:"


def mistral(chat: list[tuple[str, str, int]]) -> str:
    forms = {"system": "<<SYS>>\n{}\n<</SYS>>\n\n", "user": "[INST] {} [/INST]", "assistant": " {}</s> "}
    return "".join(forms[role].format("<image>\n" * count + text) for role, text, count in chat)


def idefics(chat: list[tuple[str, str, int]]) -> str:
    turns = [f"{role.capitalize()}:{'<image>' * count or ' '}{text}<end_of_utterance>\n" for role, text, count in chat]
    return f"<|im_start|>{''.join(turns)}Assistant:"


def gemma(chat: list[tuple[str, str, int]]) -> str:
    opening = ""
    if chat[0][0] == "system":
        opening, chat = f"{chat[0][1]}\n\n", chat[1:]
    turns = []
    for number, (role, text, count) in enumerate(chat):
        name = "model" if role == "assistant" else role
        body = f"{'' if number else opening}{'<start_of_image>' * count}{text}"
        turns.append(f"<start_of_turn>{name}\n{body}<end_of_turn>\n")
    return f"<s>{''.join(turns)}<start_of_turn>model\n"


def chatml(chat: list[tuple[str, str, int]], default: bool = True) -> str:
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    if default and chat[0][0] != "system":
        chat = [("system", DEFAULT, 0), *chat]
    turns = [f"<|im_start|>{role}\n{place * count}{text}<|im_end|>\n" for role, text, count in chat]
    return f"{''.join(turns)}<|im_start|>assistant\n"


PUBLISHED: dict[str, Callable[[list[tuple[str, str, int]]], str]] = {
    "llava": vicuna,
    "llava_next": mistral,
    "idefics3": idefics,
    "gemma3": gemma,
    "qwen2_vl": chatml,
    "qwen2_5_vl": chatml,
    "qwen3_vl": lambda chat: chatml(chat, default=False),
}


@pytest.fixture(scope="module")
def processors(tmp_path_factory):
    made = {}
    for family, (config, settings, more) in FAMILIES.items():
        folder = tmp_path_factory.mktemp(family)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        write_tokenizer(folder, more=more)
        made[family] = load_processor(folder)
    return made


def expanded(processor, rendered: str, prompt) -> list[int]:
    """The tokens of a rendered chat with what stands for each picture in its place."""
    token = processor._token("image")
    before, *after = rendered.split(token)
    places = [p for prepared in prompt.language._media.kinds.values() for p in prepared.placeholders]
    texts = [token * place if isinstance(place, int) else place for place in places]
    whole = before + "".join(text + piece for text, piece in zip(texts, after, strict=True))
    return processor.tokenizer.encode(whole, add_special_tokens=not whole.startswith("<s>"))


@pytest.mark.parametrize("system", SYSTEMS, ids=["", "system"])
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_chat_is_rendered_as_published_and_as_transformers_does(processors, family, chat, system):
    processor, counts = processors[family], CHATS[chat]
    pictures = [picture(number) for number in range(sum(counts))]
    prompt = processor.prompt(THIRD, pictures, system=system, history=history(counts))
    said = messages(counts, system)
    theirs = processor.tokenizer._tokenizer.apply_chat_template(
        said, chat_template=processor._template, tokenize=False, add_generation_prompt=True
    )
    plain = [(m["role"], m["content"][-1]["text"], len(m["content"]) - 1) for m in said]
    assert theirs == PUBLISHED[family](plain)
    assert prompt.input_ids.tolist() == expanded(processor, theirs, prompt)
    assert len(prompt.sources.get("image", ())) == sum(counts)


@pytest.mark.parametrize("system", SYSTEMS, ids=["", "system"])
@pytest.mark.parametrize("counts", [(1, 0, 0), (0, 1, 0), (2, 0, 0), (1, 1, 1)], ids=str)
def test_sounds_in_the_template_that_transformers_has(folder, counts, system):
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    processor = load_processor(folder)
    sounds = [sound(length, seed) for seed, length in enumerate((0.3, 0.97, 0.501)[: sum(counts)])]
    theirs = Qwen2AudioProcessor(WhisperFeatureExtractor.from_pretrained(folder), processor.tokenizer._tokenizer)
    said = messages(counts, system, "audio")
    for message in said:
        if message["role"] != "user":
            message["content"] = message["content"][0]["text"]
    written = theirs.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    wanted = theirs(text=written, audio=[s.samples for s in sounds], sampling_rate=RATE, return_tensors="np")
    prompt = processor.prompt(THIRD, audio=sounds, system=system, history=history(counts, "audio"))
    assert prompt.input_ids.tolist() == wanted["input_ids"][0].tolist()


@pytest.mark.parametrize("name", ["demo", "demo-sound"])
def test_the_bundled_models(name):
    _, processor = load(name)
    kind = "image" if name == "demo" else "audio"
    media = {"images": [picture(0)]} if kind == "image" else {"audio": [sound(1.0, 0)]}
    prompt = processor.prompt(THIRD, **media, history=history((0, 1, 0), kind))
    rendered = processor.tokenizer._tokenizer.apply_chat_template(
        messages((0, 1, 0), None, kind), tokenize=False, add_generation_prompt=True
    )
    ids, token = processor.tokenizer.encode(rendered, add_special_tokens=False), processor._media[kind].token
    runs = [
        t for t, before in zip(prompt.input_ids, [None, *prompt.input_ids], strict=False) if (t, before) != (token,) * 2
    ]
    assert runs[1 if runs[0] != ids[0] else 0 :] == ids


# --- which turn shows what


def test_without_what_was_shown_all_pictures_stand_first(processors):
    processor, pictures = processors["llava"], [picture(0), picture(1)]
    plain = processor.prompt(SECOND, pictures, history=[Turn(FIRST, ANSWERS[0])])
    told = processor.prompt(SECOND, pictures, history=[Turn(FIRST, ANSWERS[0], ("image", "image"))])
    assert plain.input_ids.tolist() == told.input_ids.tolist()


def test_the_order_of_pictures_and_sounds_is_that_of_the_turn():
    shown = Turn(FIRST, ANSWERS[0], ("audio", "image"))
    from lime_mlx.prompt import Conversation

    chat = Conversation(SECOND, history=[shown, Turn(SECOND, ANSWERS[1], ())])
    assert chat.shown({"image": 2, "audio": 1}) == [["audio", "image"], [], ["image"]]


def test_turns_that_show_more_than_there_is(processors):
    with pytest.raises(PromptError, match="show 2 pictures, but there are 1"):
        processors["llava"].prompt(SECOND, [picture(0)], history=[Turn(FIRST, ANSWERS[0], ("image", "image"))])


def test_what_lies_where_follows_the_turns(processors):
    """The features of each picture stand at its own turn."""
    processor = processors["qwen2_vl"]
    sizes = [(56, 56), (112, 56)]
    pictures = [Image.new("RGB", size) for size in sizes]
    prompt = processor.prompt(SECOND, pictures, history=[Turn(FIRST, ANSWERS[0], ("image",))])
    ids = prompt.input_ids.tolist()
    places = np.flatnonzero(prompt.input_ids == processor._media["image"].token)
    answer = ids.index(processor.encode("A dog")[0])
    counts = prompt.media["image_grid_thw"].prod(axis=1) // 4
    assert ((places < answer).sum(), (places > answer).sum()) == tuple(counts)
