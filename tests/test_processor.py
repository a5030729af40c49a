import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import (
    IMAGE,
    LLAVA,
    PATCHES,
    SIDE,
    TEXT,
    VOCABULARY,
    merged,
    random_weights,
    text_only,
    write,
    write_tokenizer,
)
from PIL import Image
from tokenizers import Tokenizer

import lime_mlx
from lime_mlx.checkpoint.load import load, load_processor
from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.media.audio import Sound
from lime_mlx.processor import token_pieces
from lime_mlx.prompt import Noun, Prompt, Turn
from lime_mlx.scenes.language import with_article
from lime_mlx.support.prompted import forms, prompted_tokens, spellings

PARTS = (
    "{% for m in messages %}{{ m['role'].upper() }}: "
    "{% for p in m['content'] if p['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for p in m['content'] if p['type'] == 'text' %}{{ p['text'] }}{% endfor %} {% endfor %}ASSISTANT:"
)
STRING = "{% for m in messages %}{{ m['role'].upper() + ': ' + m['content'] | trim }} {% endfor %}ASSISTANT:"
PIXELS = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
RED = Image.new("RGB", (40, 30), "red")
ASKED = "What is in the picture?"


def make(folder, config=LLAVA, template=PARTS, bytewise=True, **settings):
    """A folder that has all but the weights, and its processor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    write_tokenizer(folder, bytewise, **settings)
    return load_processor(folder)


def refused(processor, *args, **options) -> str:
    with pytest.raises(PromptError) as caught:
        processor.prompt(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unreadable(folder) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_processor(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return make(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def text_processor(tmp_path_factory):
    return make(tmp_path_factory.mktemp("llama"), TEXT, STRING)


# --- prompts


@pytest.mark.parametrize("bytewise", [True, False], ids=["bytes", "sentencepiece"])
def test_ids_pixels_and_places(tmp_path, bytewise):
    processor = make(tmp_path, bytewise=bytewise)
    prompt = processor.prompt(ASKED, [RED, RED])
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    written = f"USER: {'<image>' * PATCHES}\n{'<image>' * PATCHES}\n{ASKED} ASSISTANT:"
    assert prompt.input_ids.tolist() == tokenizer.encode(written).ids
    assert (prompt.input_ids == IMAGE).sum() == 2 * PATCHES
    assert (prompt.input_ids == 1).sum() == 1
    assert prompt.media["pixel_values"].shape == (2, 3, SIDE, SIDE)
    assert prompt.media["pixel_values"].dtype == np.float32
    assert prompt.spans is None


def test_transformers_says_the_same(tmp_path):
    transformers = pytest.importorskip("transformers")
    make(tmp_path, image_token="<image>")
    settings = {"processor_class": "LlavaProcessor", "patch_size": 14, "num_additional_image_tokens": 1}
    (tmp_path / "processor_config.json").write_text(
        json.dumps({**settings, "vision_feature_select_strategy": "default", "image_token": "<image>"})
    )
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor", **PIXELS})
    )
    theirs = transformers.AutoProcessor.from_pretrained(tmp_path)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASKED}]}
    written = theirs.apply_chat_template([message], add_generation_prompt=True)
    expected = theirs(images=[RED], text=written, return_tensors="np")
    prompt = load_processor(tmp_path).prompt(ASKED, [RED])
    assert prompt.input_ids.tolist() == expected["input_ids"][0].tolist()
    np.testing.assert_allclose(prompt.media["pixel_values"], expected["pixel_values"], atol=1e-5)


def test_no_picture(processor):
    prompt = processor.prompt(ASKED)
    assert processor.tokenizer.decode(prompt.input_ids) == f"<s>USER: {ASKED} ASSISTANT:"
    assert not prompt.media


def test_full_features_take_one_more_place(tmp_path):
    processor = make(tmp_path, merged(LLAVA, vision_feature_select_strategy="full"))
    assert (processor.prompt(ASKED, [RED]).input_ids == IMAGE).sum() == PATCHES + 1


def test_a_text_may_place_the_pictures(processor):
    written = processor.tokenizer.decode(processor.prompt("Is <image> the same as <image>?", [RED, RED]).input_ids)
    assert written == f"<s>USER: Is {'<image>' * PATCHES} the same as {'<image>' * PATCHES}? ASSISTANT:"
    assert "<image> 1 times" in refused(processor, "Is <image> red?", [RED, RED])
    assert "<image> 1 times" in refused(processor, "Is <image> red?")


def test_system_prompt(processor, text_processor):
    for each in (processor, text_processor):
        written = each.tokenizer.decode(each.prompt(ASKED, system="Be brief.").input_ids)
        assert written == f"<s>SYSTEM: Be brief. USER: {ASKED} ASSISTANT:"


HISTORY = [Turn("What is here?", "A dog and a cat."), Turn("And where?", "On a table.")]


@pytest.mark.parametrize("template", [PARTS, STRING], ids=["parts", "string"])
def test_earlier_turns(tmp_path, template):
    processor = make(tmp_path, template=template)
    written = processor.tokenizer.decode(processor.prompt(ASKED, [RED], system="Be brief.", history=HISTORY).input_ids)
    order = ["Be brief.", "<image>" * PATCHES, *(text for turn in HISTORY for text in turn[:2]), ASKED]
    places = [written.index(text) for text in order]
    assert places == sorted(places)
    assert written.count("<image>") == PATCHES
    assert written.endswith("ASSISTANT:")


def test_a_text_of_an_earlier_turn_may_place_the_picture(processor):
    asked = [Turn("Is <image> red?", "Yes.")]
    written = processor.tokenizer.decode(processor.prompt(ASKED, [RED], history=asked).input_ids)
    assert written.startswith(f"<s>USER: Is {'<image>' * PATCHES} red? ASSISTANT:")


def test_a_template_without_a_place_for_earlier_turns(tmp_path):
    template = "{% set user = messages[-1] %}" + PARTS.replace("messages", "[user]")
    with pytest.raises(PromptError, match="no place for (earlier turns|the picture)"):
        make(tmp_path, template=template).prompt(ASKED, [RED], history=HISTORY)


@pytest.mark.parametrize("bytewise", [True, False], ids=["bytes", "sentencepiece"])
@pytest.mark.parametrize("settings", [{}, {"bos_token": None}, {"add_bos_token": True}], ids=str)
def test_one_bos(tmp_path, bytewise, settings):
    for number, template in enumerate((PARTS, "<s>" + PARTS)):
        ids = make(tmp_path / str(number), template=template, bytewise=bytewise, **settings).prompt(ASKED).input_ids
        assert ids[0] == 1
        assert (ids == 1).sum() == 1


def test_empty_prompt(processor):
    for text in ("", "  \n"):
        assert "empty" in refused(processor, text, [RED])


def test_what_the_model_does_not_take(processor, text_processor):
    assert "text only" in refused(text_processor, ASKED, [RED])
    assert "no sound" in refused(processor, ASKED, audio=["x"])


# --- chat templates


@pytest.mark.parametrize("config", [LLAVA, TEXT], ids=["llava", "llama"])
@pytest.mark.parametrize("template", [PARTS, STRING], ids=["parts", "string"])
def test_content_as_parts_or_string(tmp_path, config, template):
    prompt = make(tmp_path, config, template).prompt(f" {ASKED} ", [RED] if config is LLAVA else [])
    assert (prompt.input_ids == IMAGE).sum() == (PATCHES if config is LLAVA else 0)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0]['content'] }} ASSISTANT:",
        "{{ messages[0]['content'] | tojson if messages[0]['content'] is not string else messages[0]['content'] }}",
        "{% if messages[0]['content'] is not string %}{{ raise_exception('strings only') }}{% endif %}"
        "{{ messages[0]['content'] }}",
    ],
    ids=["printed", "json", "raises"],
)
def test_templates_that_want_a_string(tmp_path, template):
    written = make(tmp_path, template=template).prompt(ASKED, [RED])
    assert (written.input_ids == IMAGE).sum() == PATCHES


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% for m in messages %}{{ m['content'] | selectattr('text') | map(attribute='text') | join }}{% endfor %}",
            None,
        ),
        ("nothing", "no place for the prompt"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for %}", "cannot be used"),
        ("{{ messages[9]['content'] }}", "cannot be used"),
        ("{{ ''.__class__.__mro__ }}", "cannot be used"),
        ("{{ 1 / 0 }}", "cannot be used"),
        ("{% for i in range(10**9) %}x{% endfor %}", "cannot be used"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path, template, words):
    assert (words or "no place for the picture") in refused(make(tmp_path, template=template), ASKED, [RED])


def test_no_place_for_a_system_prompt(tmp_path):
    template = "{% set user = messages[-1] %}" + PARTS.replace("messages", "[user]")
    assert "no place for a system prompt" in refused(make(tmp_path, template=template), ASKED, system="Be brief.")


def test_template_environment(tmp_path):
    asked = "{{ messages[0]['content'][-1]['text'] }}"
    template = "{% if true %}\n{{ strftime_now('%Y')[:2] }} {{ bos_token }}" + asked + "{% endif %}\n"
    written = make(tmp_path, template=template).prompt(ASKED).input_ids
    assert load_processor(tmp_path).tokenizer.decode(written) == f"<s>20 <s>{ASKED}"


def test_homes_of_the_template(tmp_path):
    def spoken():
        return load_processor(tmp_path).tokenizer.decode(load_processor(tmp_path).prompt(ASKED, [RED]).input_ids)

    make(tmp_path, template=None)
    assert spoken() == f"<s>USER: {'<image>' * PATCHES}\n{ASKED} ASSISTANT:"  # llava's own
    homes = [
        (
            "tokenizer_config.json",
            lambda t: {"chat_template": [{"name": "tool", "template": ""}, {"name": "default", "template": t}]},
        ),
        ("processor_config.json", lambda t: {"chat_template": t}),
        ("chat_template.json", lambda t: {"chat_template": t}),
        ("chat_template.jinja", None),
    ]
    for number, (name, wrap) in enumerate(homes):
        template = PARTS.replace("ASSISTANT", f"ANSWER{number}")
        (tmp_path / name).write_text(json.dumps(wrap(template)) if wrap else template)
        assert spoken().endswith(f"ANSWER{number}:")


def test_no_template(tmp_path):
    assert "no chat template" in refused(make(tmp_path, TEXT, None), ASKED)


# --- tokens


@pytest.mark.parametrize("bytewise", [True, False], ids=["bytes", "sentencepiece"])
def test_streaming_text(tmp_path, bytewise):
    processor = make(tmp_path, bytewise=bytewise)
    text = "There is a dog, a caf\u00e9\u2615\u2615 and\na \u732b."
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    for _ in range(2):
        detokenizer, pieces = processor.detokenizer(), []
        for token in ids:
            detokenizer.add_token(token)
            pieces.append(detokenizer.last_segment)
        detokenizer.finalize()
        pieces.append(detokenizer.last_segment)
        assert "".join(pieces) == text
        assert sum(map(bool, pieces)) > 5


def test_what_ends_an_answer(tmp_path):
    config = {k: v for k, v in LLAVA.items() if k != "eos_token_id"}
    make(tmp_path, config, eos_token=None)
    assert load_processor(tmp_path).eos_token_ids == {2}  # text_config's
    (tmp_path / "config.json").write_text(json.dumps({**config, "eos_token_id": 7}))
    assert load_processor(tmp_path).eos_token_ids == {7}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [8, 9]}))
    assert load_processor(tmp_path).eos_token_ids == {8, 9}
    write_tokenizer(tmp_path)
    assert load_processor(tmp_path).eos_token_ids == {2, 8, 9}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": "</s>"}))
    assert "eos_token_id" in unreadable(tmp_path)


@pytest.mark.parametrize("bytewise", [True, False], ids=["bytes", "sentencepiece"])
def test_content_of_the_vocabulary(tmp_path, bytewise):
    processor = make(tmp_path, bytewise=bytewise)
    pieces, content = token_pieces(processor.tokenizer), processor.content
    assert content.shape == (VOCABULARY,)
    assert content.dtype == np.bool_
    assert len(pieces) < VOCABULARY
    assert not content[len(pieces) :].any()
    assert pieces[:4] == [None] * 4
    assert not content[:4].any()
    named = {piece for piece, names in zip(pieces, content, strict=False) if names}
    assert not {" the", " is", " a", " ", ".", "<0x41>"} & named
    assert {"h", "o"} <= named < set(pieces)
    assert pieces.count(None) == (4 if bytewise else 4 + 256)


def test_content_is_as_long_as_the_logits(tmp_path):
    small = merged(LLAVA, text_config={**TEXT, "vocab_size": 100})
    assert make(tmp_path / "small", small).content.shape == (100,)
    sparse = {k: v for k, v in TEXT.items() if k != "vocab_size"}
    assert make(tmp_path / "sparse", merged(LLAVA, text_config=sparse)).content.shape == (32000,)


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer", "Unheard", None])
@pytest.mark.parametrize("config", [LLAVA, TEXT, merged(TEXT, model_type="qwen2")], ids=lambda c: c["model_type"])
def test_the_tokenizer_is_what_tokenizer_json_says(tmp_path, kind, config, capfd):
    processor = make(tmp_path, config, bytewise=False, tokenizer_class=kind)
    text = f"USER: <image>\n{ASKED} ASSISTANT:"
    assert processor.tokenizer.encode(text) == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids
    assert capfd.readouterr() == ("", "")


# --- bad folders


def test_no_tokenizer(tmp_path):
    make(tmp_path)
    path = tmp_path / "tokenizer.json"
    for content in ("{", "[]", "{}", '{"model": {"type": "BPE"}}'):
        path.write_text(content)
        assert "tokenizer" in unreadable(tmp_path)
    path.unlink()
    assert "tokenizer.json is missing" in unreadable(tmp_path)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "preprocessor_config.json", "generation_config.json", "chat_template.json"]
)
def test_malformed_files(tmp_path, name):
    make(tmp_path, template=None)
    (tmp_path / name).write_text("{")
    assert str(tmp_path) in unreadable(tmp_path)


def test_a_tokenizer_without_the_image_token(tmp_path):
    make(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(merged(LLAVA, image_token_index=VOCABULARY - 1)))
    assert f"image token of config.json, {VOCABULARY - 1}" in unreadable(tmp_path)


def test_pictures_of_the_wrong_size(tmp_path):
    make(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"crop_size": 30}))
    assert "28 x 28" in unreadable(tmp_path)


def test_settings_inside_processor_config(tmp_path):
    make(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    settings = {**PIXELS, "do_normalize": False}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert load_processor(tmp_path).prompt(ASKED, [RED]).media["pixel_values"].max() == 1


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    trap = {"AutoTokenizer": ["trap.Trap", "trap.Trap"], "AutoConfig": "trap.Trap", "AutoProcessor": "trap.Trap"}
    make(tmp_path, merged(LLAVA, auto_map=trap, model_file="trap.py"), auto_map=trap, tokenizer_class="Trap")
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    assert load_processor(tmp_path).prompt(ASKED, [RED])
    write(tmp_path, json.loads((tmp_path / "config.json").read_text()), random_weights(LLAVA))
    load(tmp_path)
    assert not (tmp_path / "sprung").exists()


# --- together


def test_load_and_generate(tmp_path):
    write(tmp_path, LLAVA, random_weights(LLAVA))
    make(tmp_path)
    model, processor = load(str(tmp_path))
    answer = lime_mlx.generate(model, processor, ASKED, image=RED, method="none", max_tokens=4)
    assert answer.prompt_tokens == len(processor.prompt(ASKED, [RED]))
    assert len(answer.tokens) <= 4
    assert isinstance(answer.text, str)


def test_load_and_generate_text(tmp_path):
    write(tmp_path, TEXT, text_only(random_weights(TEXT)))
    make(tmp_path, TEXT, STRING)
    model, processor = load(tmp_path)
    assert processor.model_type == "llama"
    assert lime_mlx.generate(model, processor, ASKED, method="none", max_tokens=3).prompt_tokens == len(
        processor.prompt(ASKED)
    )
    assert mx.isfinite(model.logits(processor.prompt(ASKED))).all()


def test_a_processor_prints_nothing(tmp_path):
    make(tmp_path)
    code = f"from lime_mlx.checkpoint.load import load_processor; print(load_processor({str(tmp_path)!r}).model_type)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("llava\n", "")


# --- language


def said(processor, mask) -> set[str]:
    return {piece for piece, marked in zip(token_pieces(processor.tokenizer), mask, strict=False) if marked}


@pytest.mark.parametrize("bytewise", [True, False], ids=["bytes", "sentencepiece"])
def test_prompted_tokens_of_the_text_and_the_system_prompt(tmp_path, bytewise):
    processor = make(tmp_path, bytewise=bytewise)
    language = processor.prompt("Are there CATS?", [RED]).language
    assert language.content is processor.content
    assert language.prompted.shape == (VOCABULARY,)
    assert language.prompted.dtype == np.bool_
    assert not (language.prompted & ~processor.content).any()
    words = {piece.strip() for piece in said(processor, language.prompted)}
    assert "cat" in words
    assert not {"do", "pict", "umbre"} & words
    both = processor.prompt("Are there dogs?", [RED], system="Look for a Cat.").language.prompted
    assert {"do", "cat"} <= {piece.strip() for piece in said(processor, both)}
    assert language.prompted is language.prompted


def test_earlier_answers_of_the_model_do_not_count_as_prompted(processor):
    language = processor.prompt(
        "Are there dogs?", [RED], history=[Turn("Is there a cat?", "No, an umbrella.")]
    ).language
    words = {piece.strip() for piece in said(processor, language.prompted)}
    assert {"cat", "do"} <= words
    assert "umbre" not in words
    asked = processor.tokenizer.decode(language.question(Noun("umbrella")).prompt.input_ids)
    assert asked == f"<s>USER: {'<image>' * PATCHES}\nIs there an umbrella in the picture? ASSISTANT:"


def test_a_placeholder_in_the_text_is_no_word(processor):
    plain, placed = (processor.prompt(text, [RED]).language.prompted for text in ("red", "<image>red"))
    assert (plain == placed).all()


PIECES = [
    " dog",
    "dog",
    "Dog",
    " DOG",
    " dogs",
    "DO",
    " box",
    " boxes",
    " city",
    " cities",
    "City",
    " cat",
    None,
    " ski",
]


def prompted_pieces(text, pieces=PIECES) -> set[str]:
    """The longest piece first is how this encoder cuts a text."""

    def encode(text):
        ids = []
        while text:
            fits = [piece for piece in pieces if piece and text.startswith(piece)]
            longest = max(fits, key=len, default=text[0])
            ids += [pieces.index(longest)] if fits else []
            text = text[len(longest) :]
        return ids

    mask = prompted_tokens([text], pieces, spellings(pieces), encode)
    return {piece for piece, marked in zip(pieces, mask, strict=True) if marked}


DOG = {" dog", "dog", "Dog", " DOG", " dogs", "DO"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is there a dog?", DOG),
        ("Dogs, please", DOG),
        ("DOG", DOG),
        ("the box", {" box", " boxes"}),
        ("Boxes!", {" box", " boxes"}),
        ("a city", {" city", " cities", "City"}),
        ("cities", {" city", " cities", "City"}),
        ("cats", {" cat"}),
        ("bird", set()),
        ("...", set()),
    ],
)
def test_prompted_in_any_spelling(text, expected):
    assert prompted_pieces(text) == expected


def test_a_piece_of_a_word_is_prompted():
    assert prompted_pieces("catalogue", [" cat", "alogue", "Alogue", " dog"]) == {" cat", "alogue", "Alogue"}


@pytest.mark.parametrize("bytewise", [True, False], ids=["bytes", "sentencepiece"])
def test_the_tokens_that_say_a_word(tmp_path, bytewise):
    processor = make(tmp_path, bytewise=bytewise)
    pieces, language = token_pieces(processor.tokenizer), processor.prompt(ASKED, [RED]).language
    said = [piece for piece in pieces if piece and piece.strip()]
    for word in said[:: max(1, len(said) // 40)]:
        tokens = language.tokens(f" {word.upper()} ")
        assert pieces.index(word) in tokens
        assert {pieces[token].strip().casefold() for token in tokens} == {word.strip().casefold()}
        assert len(tokens) == sum((piece or "").strip().casefold() == word.strip().casefold() for piece in pieces)
    assert list(language.tokens("no such word")) == list(language.tokens("")) == list(language.tokens(" ")) == []


def test_forms():
    assert {"dog", "dogs"} <= forms("Dog") & forms("dogs")
    assert {"glass", "glasses"} <= forms("glass") & forms("glasses")
    assert {"potato", "potatoes"} <= forms("potato") & forms("potatoes")
    assert {"puppy", "puppies"} <= forms("puppy") & forms("puppies")
    assert forms("bus") >= {"bus", "buses"}


def test_a_question_about_the_same_pictures(processor):
    prompt = processor.prompt(ASKED, [RED, RED], system="Be brief.")
    question = prompt.language.question(Noun("umbrella"))
    places = "<image>" * PATCHES
    written = f"<s>SYSTEM: Be brief. USER: {places}\n{places}\nIs there an umbrella in the pictures? ASSISTANT:"
    assert processor.tokenizer.decode(question.prompt.input_ids) == written
    assert question.prompt.media is prompt.media
    assert (question.prompt.input_ids[: question.shared] == prompt.input_ids[: question.shared]).all()
    assert question.prompt.input_ids[question.shared] != prompt.input_ids[question.shared]
    assert processor.tokenizer.decode(prompt.input_ids[: question.shared]).endswith(f"{places}\n")
    assert prompt.language.question(Noun("umbrella")) is question
    assert "a dog in the picture?" in processor.tokenizer.decode(
        processor.prompt(ASKED, [RED]).language.question(Noun("dog")).prompt.input_ids
    )


def test_a_question_shares_nothing_where_pictures_would_lie_behind_it(processor):
    assert processor.prompt("Is there a dog? <image>", [RED]).language.question(Noun("dog")).shared == 0


def test_a_question_that_was_asked_leaves_a_token(processor):
    prompt = processor.prompt("Is there a dog in the picture?", [RED])
    question = prompt.language.question(Noun("dog"))
    assert question.prompt.input_ids.tolist() == prompt.input_ids.tolist()
    assert question.shared == len(prompt) - 1


@pytest.mark.parametrize("demo", ["picture", "sound"])
def test_the_demos_know_the_question(demo):
    folder = Path(lime_mlx.__file__).parent / "demo" / demo
    processor = load_processor(folder)
    media = {"images": [RED]} if demo == "picture" else {"audio": [Sound(np.zeros(16000, np.float32), 16000)]}
    prompt = processor.prompt("What is here?", **media)
    noun = "dog" if demo == "picture" else "rain"
    question = prompt.language.question(Noun(noun, noun != "rain"))
    asked = f"Is there {with_article(noun)} in the {demo}?"
    assert question.prompt.input_ids.tolist() == processor.prompt(asked, **media).input_ids.tolist()
    assert 0 < question.shared < len(prompt)


def test_no_question_without_media(processor, text_processor):
    for each in (processor, text_processor):
        language = each.prompt("Is there a dog?").language
        assert language.prompted.any()
        with pytest.raises(PromptError, match="no picture and no sound"):
            language.question(Noun("dog"))
    with pytest.raises(PromptError, match="noun"):
        processor.prompt(ASKED, [RED]).language.question(Noun(" "))


def test_token_ids_alone_know_no_language():
    assert Prompt([1, 2]).language is None
