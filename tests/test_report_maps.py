"""The maps on the page of a run: a model reads stored answers again, and every word lies on the one picture."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import chromium
from click.testing import CliRunner

from lime_mlx import explain, load
from lime_mlx.checkpoint.hub import locate
from lime_mlx.cli import main
from lime_mlx.evaluate.store import Cell, Store
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.report import maps, write_report
from lime_mlx.report.maps import SIDE, read_again
from lime_mlx.support.store import identity

TASK, SOUNDS = "scenes:part=validation,count=2", "sounds:part=validation,count=1,ask=captions"
SEED = "100001"
INVENTED = "A beach with a clock, a train, a cow and a pizza."
RIGHT = "A beach with a clock, a bus, a cow, a cow and a pizza."
LOOKS = {"desktop": (1200, False), "desktop, dark": (1200, True), "phone": (390, False), "phone, dark": (390, True)}
# The tables that scroll without a cue that says so.
UNCUED = """return [...document.querySelectorAll(".scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1 && !box.previousElementSibling?.classList.contains("cue"))
  .map((box) => box.ariaLabel)"""


@pytest.fixture(scope="module")
def demo():
    return load("demo")


def record(processor, text: str, number: int = 0, **more) -> dict:
    tokens = processor.tokenizer.encode(f" {text}", add_special_tokens=False)
    asked = {"medium": SEED, "split": "caption", "prompt": "What is in the picture?", "label": None}
    truth = ["clock", "cow", "bus", "mushroom", "pizza"]
    made = {"text": text, "tokens": tokens, "steps": len(tokens), "reliance": [0.2] * len(tokens)}
    return {"id": f"{SEED}/{number}", **asked, "truth": truth, **made, **more}


def question(processor, text: str, number: int) -> dict:
    asked = {"split": "random", "prompt": "Is there a train in the picture?", "label": "no", "truth": None}
    return {**record(processor, text), "id": f"{SEED}/q{number}", **asked}


def stored(folder: Path, cells: dict[Cell, list[dict]], **fingerprints: str) -> Path:
    store = Store(folder)
    models = {name: identity(locate(name)) for name in dict.fromkeys(cell.model for cell in cells)} | fingerprints
    store.begin(
        {
            "common": {"lime-mlx": "1", "mlx": "2", "limit": None, "seed": 0, "reliance": True},
            "models": models,
            "methods": list(dict.fromkeys(cell.method for cell in cells)),
            "tasks": {cell.task: {"questions": 2, "sha256": "0" * 16} for cell in cells},
            "data": None,
        }
    )
    for cell, records in cells.items():
        store.keep(cell.task, {})
        path = store.answers(cell).path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return folder


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory) -> Path:
    """A scene and a sound with a right and an invented caption each, and a question."""
    processor, hearing = demo[1], load("demo-sound")[1]
    cells = {
        Cell("demo", "none", TASK): [record(processor, INVENTED), question(processor, "Yes.", 1)],
        Cell("demo", "lime", TASK): [record(processor, RIGHT), question(processor, "No.", 1)],
    }
    heard = {"none": "There is thunder, rain and a cat.", "lime": "There is thunder and a cat."}
    asked = {"medium": "100003", "prompt": "What do you hear?", "truth": ["thunder", "cat", "dog", "knock"]}
    cells |= {Cell("demo-sound", name, SOUNDS): [record(hearing, text, **asked)] for name, text in heard.items()}
    return stored(tmp_path_factory.mktemp("maps") / "run", cells)


@pytest.fixture(scope="module")
def page(run) -> Path:
    notes: list[str] = []
    path = write_report(run, maps=True, notice=notes.append)
    assert notes == [
        "demo reads 4 answers again, for the maps of their words.",
        "demo-sound reads 2 answers again, for the maps of their words.",
    ]
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


def test_a_model_is_led_through_the_stored_answer(demo):
    model, processor = demo
    picture = parse_task(TASK).opened(None, SEED)
    plain = explain(model, processor, "What is in the picture?", picture["images"][0], method="none")
    again = read_again(model, processor, record(processor, plain.text), picture, lambda words: {3: "invented"})
    assert "".join(view["text"] for view in again).strip() == plain.text
    for view, word in zip(again, plain.words, strict=True):
        assert view["shares"]["image"] == pytest.approx(word.shares.image, abs=1e-4)
    assert [number for number, view in enumerate(again) if "maps" in view] == [3]
    (drawn,) = again[3]["maps"]
    whole = plain.map(3)
    assert max(whole.shape) <= SIDE
    values = np.array(drawn["values"]).reshape(drawn["rows"], drawn["columns"]) * drawn["unit"]
    np.testing.assert_allclose(values, whole, atol=drawn["unit"])
    other = read_again(model, processor, record(processor, INVENTED), picture, lambda words: {})
    assert "".join(view["text"] for view in other).strip() == INVENTED


def exhibits(text: str) -> list[dict]:
    found = re.findall(r'<script type="application/json" class="lime-exhibit">(.*?)</script>', text, re.S)
    return [json.loads(each) for each in found]


def test_the_words_in_question_have_maps(page):
    text = page.read_text("utf-8")
    scene, sound = exhibits(text)
    marks = {
        view["name"]: view["mark"] for views in scene["answers"] for view in views if view.get("mark") not in (None, "")
    }
    assert marks["train"] == "invented" and marks["cow"] == "again" and marks["Yes"] == marks["No"] == "differs"
    for views in scene["answers"]:
        for view in views:
            assert ("maps" in view) == ("mark" in view)
    (rain,) = [view for views in sound["answers"] for view in views if view.get("mark") == "invented"]
    assert rain["name"] == "rain" and rain["maps"][0]["interval"]
    assert all("src" not in medium for medium in (*scene["media"], *sound["media"]))
    assert text.count("data:image/jpeg") == 1
    assert "1 of 4 objects made up" in text and "nothing made up, cow named again" in text
    policy = re.search(r"script-src ('sha256-[^']+')", text)
    assert policy and "script-src 'unsafe" not in text


def test_without_maps_there_is_no_script(run, page, tmp_path):
    plain = tmp_path / "plain.html"
    done = CliRunner().invoke(main, ["report", str(run), "--no-maps", "--output", str(plain)])
    assert done.exit_code == 0 and done.stderr == ""
    assert "<script" not in plain.read_text() and "script-src" not in plain.read_text()
    done = CliRunner().invoke(main, ["report", str(run), "--output", str(plain)])
    assert plain.read_bytes() == page.read_bytes()
    assert "demo reads 4 answers again" in done.stderr


def test_a_model_that_is_not_there_or_another_gives_no_maps(demo, tmp_path):
    cells = {
        Cell("demo", method, TASK): [record(demo[1], text)] for method, text in (("none", INVENTED), ("lime", RIGHT))
    }
    other = stored(tmp_path / "other", cells, demo="f" * 16)
    folder = tmp_path / "mine"
    shutil.copytree(locate("demo"), folder)
    cells = {Cell(str(folder), cell.method, TASK): records for cell, records in cells.items()}
    gone = stored(tmp_path / "gone", cells)
    shutil.rmtree(folder)
    for run, words in (
        (other, "demo is not the one of this run any more."),
        (gone, f"{folder} is not on this machine."),
    ):
        notes: list[str] = []
        path = write_report(run, maps=True, notice=notes.append)
        (note,) = notes
        assert note.startswith("No maps for ") and note.endswith(words)
        assert "<script" not in path.read_text()


def test_ctrl_c_leaves_the_maps_that_there_are(run, tmp_path, monkeypatch):
    """The answers of the first model have maps, those of the second have none."""
    opened = maps.load

    def interrupted(folder):
        if "sound" in str(folder):
            raise KeyboardInterrupt
        return opened(folder)

    monkeypatch.setattr(maps, "load", interrupted)
    notes: list[str] = []
    path = write_report(run, tmp_path / "page.html", maps=True, notice=notes.append)
    assert notes[-1] == "Interrupted: the page is written with the maps that there are."
    assert len(exhibits(path.read_text())) == 1


@pytest.mark.parametrize("look", LOOKS)
def test_every_word_lies_on_the_one_picture(browser, page, look):
    width, dark = LOOKS[look]
    browser.open(page, width, dark=dark)
    assert len(browser.all(".lime-exhibition")) == 2
    assert len(browser.all("article img")) == 1 + len(browser.all(".lime-mel"))
    first, second = browser.all(".lime-exhibition")
    assert "train, names what is not there" in first.text
    assert browser.all(".lime-exhibition img")[0].get_attribute("alt") == "The picture 100001, with " + ", ".join(
        ["clock", "cow", "bus", "mushroom", "pizza"]
    )
    assert "rain, names what is not there" in second.text
    pressed = '[aria-pressed="true"]'
    assert [word.text for word in browser.all(pressed)] == ["train,", "rain"]
    before = browser.run("return document.querySelector('canvas').toDataURL()")
    bus = next(word for word in browser.all(".lime-word") if word.text == "bus,")
    assert browser.name_of(bus).startswith("bus, ")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", bus)
    bus.click()
    assert [word.text for word in browser.all(pressed)] == ["bus,", "rain"]
    assert browser.run("return document.querySelector('canvas').toDataURL()") != before
    assert "bus" in browser.all(".lime-shown")[0].text
    invented = [word.text for word in browser.all(".lime-invented")]
    assert invented == ["train,", "rain"]
    assert browser.run("const page = document.documentElement; return page.scrollWidth - page.clientWidth") == 0
    assert browser.run(UNCUED) == []
    assert browser.violations() == []
    assert browser.console() == [] and browser.requests() == [page.as_uri()]


def test_the_keyboard_leads_through_an_answer(browser, page):
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    word = browser.all(".lime-word")[0]
    browser.run("arguments[0].focus()", word)
    word.send_keys(Keys.END)
    assert browser.run("return document.activeElement.textContent") == "pizza."
    assert "pizza" in browser.all(".lime-shown")[0].text
