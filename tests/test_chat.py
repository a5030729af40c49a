"""A chat in Python: its turns, its memory, its explanations and its files."""

import json

import numpy as np
import pytest
from helpers import small_model
from PIL import Image

import lime_mlx
from lime_mlx import Chat
from lime_mlx.checkpoint.load import load
from lime_mlx.errors import LimeError, MediaError, MethodError, PromptError
from lime_mlx.media.audio import Sound
from lime_mlx.prefixes import Prefixes
from lime_mlx.prompt import Turn
from lime_mlx.scenes import make_scene, make_sound

WHAT, DOG, COLOUR = "What is in the picture?", "Is there a dog in the picture?", "What colour is the boat?"


@pytest.fixture(scope="module")
def demo():
    return load("demo")


def picture(seed: int = 100_000) -> Image.Image:
    return make_scene(seed, "adversarial").image


def sound() -> Sound:
    made = make_sound(100_000, "adversarial")
    return Sound(made.samples, made.rate)


@pytest.fixture
def chat(demo):
    return Chat(*demo, "none", max_tokens=24)


@pytest.mark.parametrize("method", ["none", "choose", None, "lime:words=content"])
def test_answers_are_those_of_the_whole_prompt_alone(demo, method):
    model, processor = demo
    chat = Chat(model, processor, method, max_tokens=24)
    shown = [picture(), None, picture(100_001), None]
    for number, (text, image) in enumerate(zip((WHAT, DOG, WHAT, COLOUR), shown, strict=True)):
        history = [turn.turn for turn in chat.turns]
        answer = chat.ask(text, image)
        pictures = [p for p in shown[: number + 1] if p is not None]
        prompt = processor.prompt(text, pictures, history=history)
        alone = lime_mlx.generate(model, processor, prompt, method=method, max_tokens=24)
        assert (answer.text, answer.tokens, answer.shares) == (alone.text, alone.tokens, alone.shares)
        assert answer.words == alone.words
        assert (answer.cached_tokens > 60) is (number > 0)
    assert [turn.question for turn in chat.turns] == [WHAT, DOG, WHAT, COLOUR]
    assert chat.turns[2].turn == Turn(WHAT, chat.turns[2].answer.text, ("image",))
    assert chat.pictures == [shown[0], shown[2]]


def test_no_picture_is_computed_twice(demo, monkeypatch):
    model, processor = demo
    computed, encode = [], type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda *a: computed.append(a[1]) or encode(*a))
    chat = Chat(model, processor, "choose", max_tokens=12)
    chat.ask(WHAT, picture())
    chat.ask(DOG)
    chat.ask(WHAT, [picture(100_001), picture(100_002)])
    chat.ask("And what else?")
    chat.undo()
    chat.undo()
    chat.ask(WHAT, picture(100_001))
    assert computed == ["image"] * 3


def test_an_invention_of_turn_1_may_be_judged_in_turn_2(demo):
    chat = Chat(*demo, "none")
    chat.ask(WHAT, picture())
    chat.ask(WHAT)
    prompted = chat.last.prompt.language.prompted
    tokens = [token for word in chat.turns[0].answer.words if word.names_something for token in word.tokens]
    assert tokens and not prompted[tokens].any()
    assert all(word.p_unsupported is not None for word in chat.last.answer.words if word.names_something)


def test_one_chat_after_another_shares_prefixes(demo):
    model, processor = demo
    prefixes = Prefixes(model)
    first, second = (Chat(model, processor, "none", prefixes=prefixes, max_tokens=8) for _ in range(2))
    assert first.ask(WHAT, picture()) == second.ask(WHAT, picture())
    assert (first.last.answer.cached_tokens, second.last.answer.cached_tokens > 60) == (0, True)


def test_text_and_sounds(demo):
    chat = Chat(*load("demo-sound"), "none", max_tokens=24)
    chat.ask("What do you hear?", audio=sound())
    why = chat.why(next(word for word in chat.last.answer.words if word.names_something))
    assert why.maps == [] and why.shares.audio > 0 and len(why.seconds) == 1
    assert chat.ask("What else do you hear?").cached_tokens > 60
    assert chat.turns[0].turn.media == ("audio",)


def test_a_system_prompt_stays(demo):
    model, processor = demo
    chat = Chat(model, processor, "none", system="Be brief.", max_tokens=4)
    for _ in range(2):
        chat.ask(WHAT, picture())
        assert processor.tokenizer.decode(chat.last.prompt.input_ids).count("Be brief.") == 1


# --- streaming


def test_a_stream_that_is_closed_is_a_turn(chat):
    stream = chat.stream(WHAT, picture())
    pieces = [next(stream) for _ in range(4)]
    assert chat.turns == ()
    stream.close()
    assert chat.last.answer.tokens == [piece.token for piece in pieces]
    assert chat.ask(DOG).cached_tokens > 60 and chat.turns[0].answer.text in chat.transcript()


def test_a_stream_that_did_not_begin_is_no_turn(chat):
    chat.stream(WHAT, picture()).close()
    assert chat.turns == () and chat.pictures == []


def test_ctrl_c_in_an_answer_keeps_what_there_is(chat, monkeypatch):
    stream = chat.stream(WHAT, picture())
    next(stream), next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    assert len(chat.last.answer.tokens) == 2


def test_an_answer_that_fails_is_no_turn(chat, monkeypatch):
    chat.ask(WHAT, picture())
    stream = chat.stream(DOG)
    next(stream)
    monkeypatch.setattr(type(chat.model.language_model), "head", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(stream)
    assert len(chat.turns) == 1


# --- undo, clear, why, save


def test_undo_takes_back_what_was_shown(chat):
    chat.ask(WHAT, picture())
    first = chat.last
    chat.ask(DOG, picture(100_001))
    taken = chat.undo()
    assert (taken.question, len(taken.pictures), len(chat.pictures)) == (DOG, 1, 1)
    assert chat.last is first
    chat.ask(DOG)
    assert len(chat.last.prompt.sources["image"]) == 1
    chat.clear()
    assert (chat.turns, chat.pictures) == ((), [])
    for act in (chat.undo, chat.explanation, lambda: chat.why("dog"), lambda: chat.save("x.md")):
        with pytest.raises(PromptError, match="no turn yet"):
            act()


def test_why(chat):
    chat.ask(WHAT, [picture(), picture(100_001)])
    word = next(word for word in chat.last.answer.words if word.names_something)
    why = chat.why(word.name.upper())
    assert why.word is word and [each.shape for each in why.maps] == [(8, 8), (8, 8)]
    np.testing.assert_array_equal(why.maps[1], chat.explanation().map(word, 1))
    with pytest.raises(PromptError, match="has no word 'zebra'; its words are"):
        chat.why("zebra")


def test_a_chat_without_reliance_explains_nothing(demo):
    chat = Chat(*demo, "none", reliance=False, max_tokens=4)
    assert chat.ask(WHAT, picture()).shares == [None] * 4
    with pytest.raises(PromptError, match="reliance=True"):
        chat.why("a")


def test_text_alone_has_no_map(demo):
    chat = Chat(*demo, max_tokens=4)
    chat.ask("Hello?")
    with pytest.raises(PromptError, match="no picture or sound to explain"):
        chat.why("a")


@pytest.mark.parametrize("name", ["chat.md", "chat.TXT", "chat.json", "chat.html", "chat.svg"])
def test_save(chat, name, tmp_path):
    chat.ask(WHAT, picture())
    chat.ask("Is <b>this</b> “a dog”?")
    file = chat.save(tmp_path / name)
    text = file.read_text(encoding="utf-8")
    answers = [turn.answer.text for turn in chat.turns]
    if name == "chat.json":
        values = json.loads(text)
        assert [turn["text"] for turn in values["turns"]] == answers and values["format"] == 2
        assert [(turn["pictures"], turn["method"]) for turn in values["turns"]] == [(1, "none"), (0, "none")]
    elif name in ("chat.md", "chat.TXT"):
        assert all(answer in text for answer in answers) and "[1 picture] What" in text and "“a dog”" in text
    else:
        assert len(text) > 1000


def test_a_file_of_another_kind(chat, tmp_path):
    chat.ask(WHAT, picture())
    with pytest.raises(LimeError, match=r"none of the endings \.md, \.txt, \.json, "):
        chat.save(tmp_path / "chat.docx")
    assert not list(tmp_path.iterdir())


# --- bad input


def test_bad_input_is_refused_at_once_and_is_no_turn(chat, tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    for error, text, options in (
        (PromptError, "", {}),
        (PromptError, 7, {}),
        (MediaError, WHAT, {"image": tmp_path / "x.png"}),
        (MediaError, WHAT, {"image": tmp_path / "none.png"}),
        (PromptError, WHAT, {"audio": sound()}),
        (PromptError, "Is <image> a dog?", {}),
    ):
        with pytest.raises(error) as caught:
            chat.stream(text, **options)
        assert "\n" not in str(caught.value)
    chat.method = "limo"
    with pytest.raises(MethodError, match="Did you mean lime"):
        chat.stream(WHAT)
    chat.method = "none"
    assert chat.turns == () and chat.ask(WHAT, picture()).text


def test_a_chat_that_is_too_long_says_what_to_do(chat):
    chat.ask(WHAT, picture())
    with pytest.raises(PromptError, match="context of this model holds 512: take turns back, or clear it"):
        chat.ask("dog " * 600)
    assert len(chat.turns) == 1


def test_prefixes_of_another_model(demo):
    with pytest.raises(PromptError, match="another model"):
        Chat(*demo, "none", prefixes=Prefixes(small_model())).ask(WHAT, picture())


def test_notices_are_kept_with_the_answer(demo):
    told: list[str] = []
    chat = Chat(*demo, "none", notice=told.append)
    gray = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    answer = chat.ask(WHAT, gray)
    assert answer.notices == told
    assert repr(chat) == "<Chat of 1 turns>"
