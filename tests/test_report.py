"""The page of a run: what it says, what it must not do, and how it looks in a browser."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from lime_mlx.cli import main
from lime_mlx.errors import DataError, LimeError
from lime_mlx.evaluate.runner import RunConfig, run
from lime_mlx.evaluate.store import Cell, Store
from lime_mlx.evaluate.summary import summarise
from lime_mlx.report import write_report
from lime_mlx.report.gallery import marked
from lime_mlx.report.results import Names, clipped

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROME = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), str(CHROME) if CHROME.exists() else None)
EVIL = '</title></svg><script>alert(1)</script><img src=x onerror="alert(2)">"$x_{$ é 猫 😀'
MIXED = RunConfig(["demo", "demo-sound"], ["none", "lime"], ["scenes:count=1", "sounds:count=1,ask=captions"])


def stored(folder: Path, cells: dict[Cell, list[dict]], data: Path | None = None, asked: int | None = None) -> Path:
    """A run of hand-made records."""
    store, models = Store(folder), dict.fromkeys((cell.model for cell in cells), "f" * 16)
    number = asked or max(map(len, cells.values()))
    settings = {
        "common": {"lime-mlx": "1", "mlx": "2", "limit": None, "seed": 0, "reliance": True},
        "models": models,
        "methods": list(dict.fromkeys(cell.method for cell in cells)),
        "tasks": {cell.task: {"questions": number, "sha256": "0" * 16} for cell in cells},
        "data": data and str(data),
    }
    store.begin(settings)
    for cell, records in cells.items():
        store.keep(cell.task, {})
        path = store.answers(cell).path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def caption(number: int, text: str | None, **more) -> dict:
    said = {"error": "it broke"} if text is None else {"text": text, "tokens": [1], "steps": 4, "reliance": [0.2, 0.4]}
    asked = {"medium": str(200_000 + number), "split": "caption", "prompt": "What is in the picture?", "label": None}
    return {"id": f"{number}/caption", **asked, "truth": ["dog", "ball"], **said, **more}


def question(number: int, text: str, label: str = "yes", split: str = "random") -> dict:
    asked = {"medium": f"{number}.jpg", "split": split, "prompt": f"Is there a dog {number}?", "label": label}
    timed = {"seconds": 0.1 + number, "memory": 3.5}
    return {"id": f"{split}/{number}", **asked, "truth": None, "text": text, "tokens": [1], "steps": 1, **timed}


def made(folder: Path, scorer: str = "ours") -> str:
    path = write_report(folder, None, scorer)
    assert path == folder / "report.html" and not list(folder.glob(".report*"))
    return path.read_text(encoding="utf-8")


def plain(page: str) -> str:
    """What a person reads."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)).split())


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """A finished run of both bundled models, and its page."""
    folder = tmp_path_factory.mktemp("report") / "run"
    assert not run(MIXED, folder).failed
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """Names, prompts and answers that are markup, and long ones; and its page."""
    first, second = f"owner/{EVIL}", "owner/" + "very-long-name-" * 12
    bad = {"prompt": EVIL, "medium": f"{EVIL}.jpg"}
    cells = {
        Cell(model, method, "pope"): [
            {**question(n, f"{EVIL} {'yes' if n % 3 else 'no'} {model[-9:]} {method}", split=EVIL), **bad}
            for n in range(6)
        ]
        for model in (first, second)
        for method in ("none", EVIL)
    }
    cells[Cell(first, EVIL, "pope")][0] = {**question(0, "", split=EVIL), **bad, "text": "W" * 400}
    folder = stored(tmp_path_factory.mktemp("report") / "hostile", cells, Path("/nowhere") / EVIL)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    """Disagreements on drawn pictures and on a sound; and its page."""
    texts = {
        "none": "a dog and a ball",
        "lime:mode=exact,steps=7,lr=3e-4": "a dog, a duck and a boat",
        "aad": "a dog and a duck",
    }
    cells = {
        Cell(model, method, "scenes"): [caption(n, text * (1 + (n == 2))) for n in range(3)]
        for model in ("owner/first-3B-Instruct-4bit", "owner/second-7B-Instruct-4bit")
        for method, text in texts.items()
    }
    heard = {"none": "a bell", "lime": "a train"}
    cells |= {
        Cell("demo-sound", method, "sounds"): [caption(0, text, truth=["bell"])] for method, text in heard.items()
    }
    folder = stored(tmp_path_factory.mktemp("report") / "shown", cells)
    write_report(folder)
    return folder


def test_real_run(real):
    page = (real / "report.html").read_text()
    text = plain(page)
    for part in (
        "Conclusion",
        "Scores",
        "Plots",
        "Largest disagreements",
        "Settings",
        "demo-sound",
        "CHAIR_I",
        "greedy",
    ):
        assert part in text
    figures = summarise(Store(real))
    assert {f"{100 * f.value:.1f}" for f in figures if f.metric.unit == "%"} <= set(re.findall(r"[\d.]+", text)) | {
        "nan"
    }
    assert "sounds:count=1,ask=captions: no answers of demo." in text
    for fingerprint in Store(real).settings["models"].values():
        assert fingerprint in text
    assert "--task scenes:count=1 --task sounds:count=1,ask=captions --model demo --model demo-sound" in text
    assert len(page) < 1_000_000
    assert page == made(real), "the same run gives the same page"


def test_nothing_from_outside_and_no_script(real, hostile):
    for folder in (real, hostile):
        page = (folder / "report.html").read_text()
        assert "<script" not in page and "<link rel" in page
        links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s)>]+)""", page.split("<main>")[0])
        links += [link for _, link in re.findall(r'<(?:a|img|audio|use)\b[^>]*?\b(src|href)="([^"]*)"', page)]
        assert links and all(link.startswith(("data:", "#")) for link in links)
        assert "@import" not in page and "//" not in page.split("<main>")[0]


def test_hostile_text_is_shown_and_not_run(hostile):
    page = (hostile / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<img src=x" not in page


def test_better_worse_and_not_enough_questions(tmp_path):
    made_up, true = "a dog, a ball and a cat", "a dog and a ball"
    cells = {
        "none": [made_up] * 40,
        "lime": [true] * 40,
        "dleaf": ["a cat and a boat"] * 40,
        "m3id": [true] * 2 + [made_up] * 38,
        "aad": [made_up] * 40,
    }
    folder = stored(
        tmp_path,
        {
            Cell("demo", method, "scenes"): [caption(n, text) for n, text in enumerate(texts)]
            for method, texts in cells.items()
        },
    )
    text = plain(made(folder))
    said = {name: re.search(rf" {name} ([▲▼?=].*?are the same)", text)[1] for name in cells if name != "none"}
    assert said["lime"].startswith("▲ better Fewer captions with invented objects: 100 → 0 %.")
    assert "Better: CHAIR_S −100.0 points" in said["lime"]
    assert said["dleaf"].startswith("▼ worse More of the named objects are invented: 33 → 100 %; names less of what")
    assert "Worse: CHAIR_I +66.7 points" in said["dleaf"] and "recall −100.0 points" in said["dleaf"]
    assert said["m3id"].startswith("? not enough questions") and "40 asked" in said["m3id"]
    assert said["aad"].startswith("= no difference") and "40 of 40 answers" in said["aad"]
    needed = {
        f.comparison.needed for f in summarise(Store(folder)) if f.cell.method == "m3id" and f.comparison is not None
    }
    assert int(re.search(r"about ([\d,]+) questions", said["m3id"])[1].replace(",", "")) in needed
    assert "Fewest invented objects (CHAIR_I): lime, 0.0 % (0.0 to 0.0); more than chance against none." in text
    assert text.count("▲ better") - text.count("▲ better and") == 1 + sum(
        f.comparison is not None and f.comparison.outcome == "better" for f in summarise(Store(folder))
    )


def test_failed_and_missing_answers_are_said(tmp_path):
    good = [caption(n, "a dog") for n in range(3)]
    cells = {
        Cell("demo", "none", "scenes"): [*good, caption(3, None), caption(4, None)],
        Cell("demo", "lime", "scenes"): good,
        Cell("demo", "dleaf", "scenes"): [],
    }
    text = plain(made(stored(tmp_path, cells, asked=5)))
    assert "scenes: 2 of 5 answers of demo · none failed, such as: it broke" in text
    assert "scenes: 2 of 5 questions have no answer yet of demo · lime." in text
    assert "scenes: no answers of demo · dleaf." in text


def test_all_failed_or_none_there(tmp_path):
    cell = Cell("demo", "none", "scenes")
    text = plain(made(stored(tmp_path / "failed", {cell: [caption(0, None), caption(1, None)]})))
    assert "2 of 2 answers of demo · none failed" in text and "No answer can be scored." in text
    with pytest.raises(DataError, match="no answers yet"):
        write_report(stored(tmp_path / "empty", {cell: []}, asked=3))
    with pytest.raises(DataError, match="holds no evaluation"):
        write_report(tmp_path / "nowhere")
    assert not list(tmp_path.rglob("nowhere/*")) and not (tmp_path / "empty" / "report.html").exists()


@pytest.mark.parametrize("reliance", [None, [], [0.5, 0.25]])
def test_one_cell_of_captions_only(tmp_path, reliance):
    records = [caption(n, text, reliance=reliance) for n, text in enumerate(["a dog", "a cat", "nothing at all"])]
    page = made(stored(tmp_path, {Cell("demo", "lime", "scenes"): records}))
    assert "There is one cell, and nothing to compare it with." in page
    assert "Accuracy and F1" not in page
    assert ("Reliance of right" in page) == bool(reliance)


def test_captions_that_name_nothing(tmp_path):
    cells = {Cell("demo", m, "scenes"): [caption(n, "so it is") for n in range(3)] for m in ("none", "lime")}
    assert "none" in plain(made(stored(tmp_path, cells)))


def test_missing_pictures_are_said_and_found_ones_shown(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "data" / "images" / "1.jpg")
    (tmp_path / "data" / "images" / "2.jpg").write_bytes(b"")
    cells = {
        Cell("a/model", "none", "pope"): [question(n, "no") for n in range(3)],
        Cell("b/model", "none", "pope"): [question(n, "yes") for n in range(3)],
    }
    page = made(stored(tmp_path / "run", cells, tmp_path / "data"), "official")
    assert page.count("data:image/jpeg;base64,") == 1 and page.count('class="missing"') == 2
    assert "No picture:" in page and "0.jpg" in page
    assert "Some were right and others wrong on 3 of 3 pictures." in page
    assert re.search(r"read by</th><td>official<", page) and "--scorer official" in page
    assert "a/model" in page and "b/model" in page


def test_words_that_differ_are_marked(tmp_path):
    assert marked(["A dog, a cat.", "a DOG a bird"]) == [
        [("A", ""), ("dog,", ""), ("a", ""), ("cat.", "differs")],
        [("a", ""), ("DOG", ""), ("a", ""), ("bird", "differs")],
    ]
    assert marked(["", "yes"]) == [[("(nothing)", "differs")], [("yes", "differs")]]
    texts = {"none": "a dog and a cat", "lime": "a dog and a ball"}
    cells = {Cell("demo", method, "scenes"): [caption(0, text)] for method, text in texts.items()}
    page = made(stored(tmp_path, cells))
    assert '<del class="invented">cat</del>' in page and "ball</mark>" not in page and "dog</mark>" not in page
    assert "with dog, ball" in page
    assert "1 of 2 objects made up" in page and "nothing made up" in page and "in it: dog, ball" in page


def test_names_are_short_and_still_differ():
    names = Names({"models": ["a/m", "b/m", "c/other", "x" * 90], "methods": ["lime:" + "y" * 90]})
    assert list(names.models.values())[:3] == ["a/m", "b/m", "other"]
    assert all(len(name) <= 34 for name in (*names.models.values(), *names.methods.values()))
    alike = Names({"models": ["m"], "methods": [f"lime:{'y' * 30}{n}{'z' * 30}" for n in range(12)]}).methods
    assert len(set(alike.values())) == 12
    assert clipped("abcdef", 6) == "abcdef" and clipped("abcdefg", 6) == "abc…fg" and clipped("猫猫猫猫", 6) == "猫…猫"


def test_command(real, tmp_path, monkeypatch):
    page, runner = tmp_path / "there" / "page.html", CliRunner()
    page.parent.mkdir()
    done = runner.invoke(main, ["report", str(real), "--output", str(page)])
    assert done.exit_code == 0 and done.stdout.strip() == str(page) and page.read_text().startswith("<!DOCTYPE html>")
    before = page.read_bytes()
    done = runner.invoke(main, ["report", str(real), "--output", str(page), "--scorer", "vcd"])
    assert done.exit_code == 1 and "No task of this run has the scorer 'vcd'" in done.stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = runner.invoke(main, ["report", str(real), "--output", str(page)])
    assert done.exit_code == 1
    assert done.stderr.strip() == "Error: The plots need matplotlib: pip install matplotlib."
    assert page.read_bytes() == before and os.listdir(page.parent) == ["page.html"]
    with pytest.raises(LimeError):
        write_report(real)
    done = runner.invoke(main, ["report", str(real), "--output", str(tmp_path / "page.pdf")])
    assert done.exit_code == 1 and "must end in .html" in done.stderr and not (tmp_path / "page.pdf").exists()


PROBE = """<!DOCTYPE html><meta charset="utf-8"><title>waiting</title><body><script>
const pages = PAGES, widths = [400, 1200], found = {};
const frames = Object.entries(pages).flatMap(([name, page]) => widths.map(width => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  frame.srcdoc = page;
  frame.onload = () => {
    const d = frame.contentDocument, all = [...d.querySelectorAll("*")], ids = all.map(e => e.id).filter(Boolean);
    const cut = [...d.querySelectorAll("figure svg text")].filter(text => {
      const a = text.getBoundingClientRect(), b = text.closest("svg").getBoundingClientRect();
      return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
    });
    found[`${name} ${width}`] = {
      wide: d.documentElement.scrollWidth - d.documentElement.clientWidth,
      scripts: all.filter(e => e.tagName.toLowerCase() === "script").length,
      handlers: all.filter(e => [...e.attributes].some(a => a.name.startsWith("on"))).length,
      twice: ids.length - new Set(ids).size,
      dangling: [...d.querySelectorAll("use")].filter(e => !ids.includes(e.getAttribute("href").slice(1))).length,
      charts: d.querySelectorAll("figure svg").length,
      cut: cut.map(text => text.textContent),
      blank: [...d.images].filter(image => !image.naturalWidth).length,
      pictures: d.images.length, sounds: d.querySelectorAll("audio").length,
    };
    done();
  };
  document.body.append(frame);
})));
Promise.all(frames).then(() => { console.error("the probe is heard"); document.title = JSON.stringify(found); });
</script>"""


def browse(folder: Path, page: Path, *options: str) -> tuple[str, list[str]]:
    """What the browser prints, and the lines of its console."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
    apart = (f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND")
    logged = ("--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000")
    command = [BROWSER, *quiet, *apart, *logged, *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium or Chrome")
def test_layout_in_a_browser(real, shown, hostile, tmp_path):
    wide = (
        "<!DOCTYPE html><p id=a style='width: 3000px'>wide<p id=a><script>'run'</script><figure><svg width=9 height=9>"
    )
    wide += "<text y=9>cut off here</text></svg></figure>"
    pages = {"wide": wide} | {f.name: (f / "report.html").read_text() for f in (real, shown, hostile)}
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.replace("PAGES", json.dumps(pages).replace("</", "<\\/")), encoding="utf-8")
    dumped, console = browse(tmp_path, probe, "--dump-dom", "--window-size=1300,900")
    title = re.search(r"<title>(.*?)</title>", dumped, re.S)[1]
    found = json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert len(console) == 1 and "the probe is heard" in console[0], console
    assert found["wide 400"]["wide"] > 2000 and found["wide 400"]["twice"] and found["wide 400"]["cut"]
    assert found["wide 400"]["scripts"] == 1
    for name in (real.name, shown.name, hostile.name):
        for width in (400, 1200):
            seen = found[f"{name} {width}"]
            for fault in ("wide", "scripts", "handlers", "twice", "dangling", "cut", "blank"):
                assert not seen[fault], (name, width, fault, seen[fault])
            assert seen["charts"] >= 2
    assert found["shown 400"]["pictures"] == 3 and found["shown 400"]["sounds"] == 1


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium or Chrome")
@pytest.mark.parametrize(("width", "scheme", "paper"), [(1200, 1, 253), (400, 0, 21)])
def test_screenshot_without_console_errors(shown, tmp_path, width, scheme, paper):
    shot = tmp_path / "shot.png"
    options = (f"--screenshot={shot}", f"--window-size={width},1600", f"--blink-settings=preferredColorScheme={scheme}")
    _, console = browse(tmp_path, shown / "report.html", *options)
    assert not console
    assert struct.unpack(">II", shot.read_bytes()[16:24]) == (width, 1600)
    with Image.open(shot) as image:
        colours = sorted(image.convert("RGB").getcolors(1 << 24), reverse=True)
    assert colours[0][1][0] == paper and len(colours) > 100
