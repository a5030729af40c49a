"""lime-mlx explain: the table, the JSON, the diagnostics and the files."""

import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname
from xml.etree import ElementTree

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from families import MODULES
from helpers import fixture, parity_checkpoint, prompt_of
from PIL import Image

import lime_mlx
from lime_mlx import load
from lime_mlx.answer import Answer
from lime_mlx.checkpoint.load import load_model
from lime_mlx.cli import main
from lime_mlx.errors import PromptError
from lime_mlx.explanation import Explanation
from lime_mlx.lrp.relevance import Shares, shares
from lime_mlx.methods.dleaf import Focus
from lime_mlx.probes.attention import WholeAttention, focus, over_words
from lime_mlx.prompt import Prompt, Span
from lime_mlx.render import answer
from lime_mlx.scenes import make_scene, make_sound, write_wav
from lime_mlx.session import Session
from lime_mlx.words import Word

WITH_MEDIA = [next(iter(m.CASES)) for m in MODULES.values() if hasattr(m, "inputs")]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[str, str]:
    """A picture that is not square, of a scene with an invented companion, and a sound."""
    folder = tmp_path_factory.mktemp("media")
    make_scene(200_004, "adversarial").image.resize((320, 200)).save(folder / "scene.png")
    write_wav(make_sound(200_003, "adversarial"), folder / "sound.wav")
    return {"--image": str(folder / "scene.png"), "--audio": str(folder / "sound.wav")}


def explain(*arguments: str):
    return CliRunner().invoke(main, ["explain", *arguments])


def test_the_input_is_not_overwritten(media, tmp_path):
    picture = tmp_path / "own.png"
    picture.write_bytes(before := Path(media["--image"]).read_bytes())
    (tmp_path / "same.png").symlink_to(picture)
    for output in (picture, tmp_path / "same.png"):
        result = explain(str(picture), "--output", str(output))
        assert result.exit_code == 1 and "is the input itself" in result.stderr
    assert picture.read_bytes() == before


@pytest.mark.parametrize("kind", ["--image", "--audio"])
def test_the_table_has_a_row_a_word(kind, media):
    result = explain(kind, media[kind])
    assert result.exit_code == 0, result.output
    found = json.loads(explain(kind, media[kind], "--json").stdout)
    rows = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == [word["text"] for word in found["words"]]
    for row, word in zip(rows, found["words"], strict=True):
        assert sum(word["shares"].values()) == pytest.approx(1)
        medium, other = ("image", "audio") if kind == "--image" else ("audio", "image")
        assert word["shares"][other] == 0
        columns = [100 * word["shares"][key] for key in (medium, "prompt", "own")]
        assert [cell.strip() for cell in row.split("│")[2:5]] == [f"{share:.0f} %" for share in columns]
        assert (word["rank"] is not None) == (row.split("│")[5].strip() != "")
    assert found["format"] == 2 and found["warnings"] == []
    assert any(word["seconds"] for word in found["words"]) == (kind == "--audio")


@pytest.mark.parametrize("kind", ["--image", "--audio"])
@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "html"])
def test_files_are_whole_and_say_the_words(kind, ending, media, tmp_path):
    output = tmp_path / f"out.{ending}"
    result = explain(kind, media[kind], "--output", str(output), "--diagnose", "--quiet", "--json")
    assert result.exit_code == 0 and not result.stderr, result.output
    found, content = json.loads(result.stdout), output.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    if ending == "png":
        assert np.array(Image.open(output).convert("L")).std() > 20
    elif ending == "svg":
        assert ElementTree.fromstring(content).tag.endswith("svg")
    elif ending == "pdf":
        assert content.startswith(b"%PDF") and b"%%EOF" in content[-32:]
    else:
        assert found["text"] in content.decode() and content.count(b"<img") == 1
        assert b"http://" not in content and b"https://" not in content


def test_an_svg_has_a_map_for_each_noun_and_every_word(media, tmp_path):
    output = tmp_path / "out.svg"
    found = json.loads(explain("--image", media["--image"], "--output", str(output), "--diagnose", "--json").stdout)
    texts = [element.text for element in ElementTree.parse(output).iter() if element.tag.endswith("}text")]
    labels = [word["text"].strip(".,") + (" ?" if word["flagged"] else "") for word in found["words"]]
    nouns = [label for label, word in zip(labels, found["words"], strict=True) if word["rank"] is not None]
    assert all(texts.count(label) >= labels.count(label) + nouns.count(label) for label in labels)
    assert "LIAE" in texts and "head" in texts


@pytest.mark.parametrize("case", WITH_MEDIA)
def test_focus_is_what_all_attention_weights_say(case, tmp_path):
    model, prompt = load_model(parity_checkpoint(case, tmp_path)), prompt_of(fixture(case))
    tokens = [5, 9, 7]
    found = focus(model, prompt, tokens)
    whole = Prompt(np.append(prompt.input_ids, tokens), prompt.media)
    session = Session.open(model, whole)
    memory = [WholeAttention() for _ in session.decoder.layers]
    mx.eval(session.decoder(session.embeds, memory, positions=session.positions))
    seen = np.flatnonzero(model.modality(prompt))
    for place, token in enumerate(found):
        for layer, kept in enumerate(memory):
            row = np.array(kept.weights.astype(mx.float32))[:, len(prompt) - 1 + place]
            inside = row[:, seen]
            assert token.iaf[layer] == pytest.approx(inside.sum(axis=1), abs=1e-4)
            if (total := inside.mean(axis=0).sum()) > 1e-6:
                share = inside.mean(axis=0) / total
                entropy = -(share * np.log(np.maximum(share, 1e-12))).sum() / np.log(max(len(seen), 2))
                assert token.liae[layer] == pytest.approx(entropy, abs=1e-3)


def test_the_diagnosis_of_a_word_is_the_mean_of_its_tokens(media):
    found = [Focus(np.full(2, float(n)), np.full((2, 3), float(n))) for n in range(4)]
    one, two = over_words(found, [1, 5])  # the end of the answer counts in the last word's pieces
    assert one.liae.tolist() == [0, 0] and two.iaf.tolist() == [[2, 2, 2]] * 2
    result = json.loads(explain("--image", media["--image"], "--diagnose", "--json").stdout)
    model, processor = load("demo")
    layers, heads = len(model.language_model.layers), model.config["text_config"]["num_attention_heads"]
    for word in result["words"]:
        assert np.shape(word["liae"]) == (layers,) and np.shape(word["iaf"]) == (layers, heads)
    prompt = processor.prompt("What is in the picture?", images=[Image.open(media["--image"])])
    first = focus(model, prompt, result["tokens"])[0]
    assert result["words"][0]["liae"] == pytest.approx(first.liae, abs=1e-4)
    table = explain("--image", media["--image"], "--diagnose").stdout
    assert "LIAE" in table and f"{first.liae[0]:.3f}" in table
    with pytest.raises(PromptError, match="neither"):
        focus(model, processor.prompt("Hello"), [5])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--output", "x.gif"], "must end in one of .png, .svg, .pdf, .html"),
        (["--output", "nowhere/x.png"], "There is no folder nowhere"),
        (["--contrast", " "], "--contrast ' ' is no word: name one"),
        (["--output", "x.png", "--open"], "--open shows a page, and x.png is none"),
        (["--output", "x.svg", "--method", "none", "--method", "lime"], "together on a page only: name a .html file"),
        (["--max-tokens", "0"], "--max-tokens is 0; it must be at least 1"),
        (["--method", "limes"], "Unknown method 'limes'"),
        (["--audio", "x.wav"], "a picture or a sound, not both"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(arguments, problem, media, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wav(make_sound(1, "ordinary"), tmp_path / "x.wav")
    result = explain("--image", media["--image"], *arguments)
    assert result.exit_code == 1 and problem in result.stderr and result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]


def views(page: Path) -> list[dict]:
    return json.loads(re.search(r'class="lime-views">(.*?)</script>', page.read_text("utf-8"))[1])


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """The pages that were opened in a browser, of which none is."""
    pages: list[Path] = []
    monkeypatch.setattr("webbrowser.open", lambda uri: pages.append(Path(url2pathname(urlsplit(uri).path))) or True)
    return pages


def test_two_methods_stand_on_one_page(media, tmp_path, opened):
    page, picture = tmp_path / "x.html", media["--image"]
    both = ("--method", "none", "--method", "lime:steps=2")
    result = explain(picture, *both, "--output", str(page), "--json", "--open", "--max-tokens", "8")
    assert result.exit_code == 0 and opened == [page], result.output
    answers = json.loads(result.stdout)["answers"]
    assert [answer["method"] for answer in answers] == ["none", "lime:steps=2"]
    assert [view["title"] for view in views(page)] == ["Method none", "Method lime:steps=2"]
    assert [view["text"] for view in views(page)] == [answer["text"] for answer in answers]
    table = explain(picture, *both, "--max-tokens", "4")
    assert "none:\n" in table.stdout and "lime:steps=2:\n" in table.stdout


def test_the_page_says_model_picture_and_command_without_passwords(media, tmp_path):
    page = tmp_path / "x.html"
    prompt = "Is https://me:secret@example.com in it?"
    assert explain(media["--image"], "--output", str(page), "-p", prompt, "--max-tokens", "4").exit_code == 0
    text = page.read_text("utf-8")
    assert "<dd>scene.png</dd>" in text and "<dd>demo</dd>" in text
    assert "lime-mlx explain" in text and "--max-tokens 4" in text
    command = re.search(r"<dd>(lime-mlx explain.*?)</dd>", text)[1]
    assert "secret" not in command and "https://example.com" in command


def test_open_shows_a_page_without_output(media, opened):
    result = explain(media["--image"], "--open", "--max-tokens", "4")
    (page,) = opened
    assert result.exit_code == 0 and f"Opened {page}" in result.stderr and views(page)[0]["text"]
    result = CliRunner().invoke(main, ["generate", media["--image"], "--open", "--max-tokens", "4"])
    assert result.exit_code == 0 and len(opened) == 2
    (view,) = views(opened[1])
    assert view["words"][0]["maps"][0]["rows"] > 1 and view["media"][0]["name"] == "scene.png"
    text = CliRunner().invoke(main, ["generate", "-p", "Hello", "--open"])
    assert text.exit_code == 1 and "give one" in text.stderr


def test_a_contrast_is_a_column(media):
    table = explain(media["--image"], "--contrast", "cat").stdout
    assert "logit against cat" in " ".join(table.replace("┃", " ").replace("│", " ").split())


def test_without_a_picture_or_matplotlib_it_says_what_to_do(media, tmp_path, monkeypatch):
    assert "no picture or sound to explain" in explain("-p", "Hello").stderr
    assert "Give a picture or a sound" in explain().stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = explain("--image", media["--image"], "--output", str(tmp_path / "x.png"))
    assert result.exit_code == 1 and "pip install matplotlib" in result.stderr and not list(tmp_path.iterdir())


def test_a_failure_while_drawing_leaves_the_old_file(media, tmp_path, monkeypatch):
    output = tmp_path / "x.png"
    output.write_text("before")
    monkeypatch.setattr(answer, "_rendered", lambda *_: 1 / 0)
    assert explain("--image", media["--image"], "--output", str(output)).exit_code == 1
    assert output.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_an_unused_picture_is_said(media, monkeypatch):
    monkeypatch.setattr("lime_mlx.explanation.ignores_media", lambda *_: True)
    assert "same answer to a blank input" in explain("--image", media["--image"], "--check-input").stderr
    found = json.loads(explain("--image", media["--image"], "--check-input", "--json").stdout)
    assert len(found["warnings"]) == 1 and "blank" in found["warnings"][0]


def test_a_picture_without_a_known_grid_is_drawn_as_shares_alone(tmp_path):
    """And the text of an answer is never run."""
    words = [
        Word(
            text="dog", shares=Shares(0.5, 0, 0.3, 0.2), relevance=np.ones(4, np.float32), statistics={"positive": 1.0}
        ),
        Word(text=" <b>"),
    ]
    explanation = Explanation(
        question="What?",
        method="none",
        answer=Answer(text="<script>alert(1)</script>", words=words),
        spans=[Span("image", 1, 3)],
        pictures=[Image.new("RGB", (8, 8))],
    )
    page = explanation.save(tmp_path / "x.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "\\u003cscript\\u003ealert" in page
    assert "<b>" not in page and "\\u003cb\\u003e" in page
    with pytest.raises(PromptError, match="no map of picture 0"):
        explanation.map("dog")
    with pytest.raises(PromptError, match="has no word 'cat'; its words are dog, <b"):
        explanation.map("cat")
    assert "&lt;b&gt;" in explanation._repr_html_() and "<b>" not in explanation._repr_html_()


def test_pictures_and_sounds_have_shares_apart():
    relevance = np.array([1.0, -2.0, 1.0, 4.0, 0.0, 2.0, 0.0])
    modalities = {"image": np.array([True, True, False, False, False, True]), "audio": np.eye(6, dtype=bool)[3]}
    assert shares(relevance, modalities) == pytest.approx((0.5, 0.4, 0.1, 0.0))


def test_an_explanation_in_python(media):
    """Its words are the answer's, its map is the relevance over the picture, and two alike are equal."""
    model, processor = load("demo")
    explanation = lime_mlx.explain(model, processor, "What is in the picture?", image=media["--image"], diagnose=True)
    answer = lime_mlx.generate(model, processor, "What is in the picture?", image=media["--image"])
    assert explanation.answer == answer and explanation.words == answer.words and explanation.text == answer.text
    assert len(explanation.focus) == len(explanation.words) and explanation.warnings == []
    named = [word for word in explanation.words if word.rank is not None]
    assert sorted(word.rank for word in named) == list(range(1, len(named) + 1))
    (span,) = explanation.spans
    for word in named:
        whole = explanation.map(word)
        assert whole.dtype == np.float32 and whole.ndim == 2
        assert whole.sum() == pytest.approx(float(word.relevance[span.start : span.stop].sum()), rel=1e-4)
        assert (explanation.map(word.name.upper()) == explanation.map(word.name)).all()
    assert len(repr(explanation)) < 300 and explanation.words[0].text in explanation._repr_html_()
    assert "relevance" not in repr(answer) and len(repr(answer)) < 400
    assert json.loads(json.dumps(explanation.to_dict()))["text"] == answer.text.strip()
