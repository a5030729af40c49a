"""The page of an answer in Chromium: mouse, keyboard, dark, a phone, screen readers, and markup in every field."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from browser import chromium
from pages import COLUMNS, ROWS, at, explanation, of_picture, of_sound, of_two_pictures, word
from PIL import Image

from lime_mlx.errors import LimeError
from lime_mlx.explanation import About
from lime_mlx.methods.base import Rejected
from lime_mlx.probes.rival import Contrast
from lime_mlx.prompt import Grid, Span

KINDS = {"picture": of_picture, "two pictures": of_two_pictures, "sound": of_sound}
LOOKS = {"light": (1200, False), "dark": (1200, True), "phone": (390, False), "dark phone": (390, True)}
CELLS = """
  const canvas = document.querySelectorAll(".lime-map")[arguments[0]];
  if (canvas.hidden) return null;
  const copy = document.createElement("canvas"), context = copy.getContext("2d", {willReadFrequently: true});
  [copy.width, copy.height] = [canvas.width, canvas.height];
  context.drawImage(canvas, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return {rows: canvas.height, columns: canvas.width, pixels: Array.from(pixels)};
"""


# All tables that are open have their rows, which come a little later.
TABLE = "return [...document.querySelectorAll('details[open]')].every((each) => each.querySelector('tbody tr'))"


@pytest.fixture(scope="module")
def browser():
    with chromium() as window:
        yield window


@pytest.fixture
def show(browser, tmp_path):
    def shown(one, *others, width=1200, dark=False):
        browser.open(one.save(tmp_path / "page.html", *others), width, dark=dark)
        return browser

    yield shown
    assert browser.console() == []
    assert all(url.startswith("file:") and url.endswith("page.html") for url in browser.requests())


def cells(browser, medium: int = 0) -> np.ndarray | None:
    """The colours (rows, columns, 4) of the map over a medium; None where it is hidden."""
    drawn = browser.run(CELLS, medium)
    return None if drawn is None else np.array(drawn["pixels"]).reshape(drawn["rows"], drawn["columns"], 4)


def pressed(browser) -> list[str]:
    return [each.text for each in browser.all('.lime-word[aria-pressed="true"]')]


def press(browser, *keys: str) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(browser.driver).send_keys(*[getattr(Keys, key) for key in keys]).perform()


def focused(browser) -> str:
    return browser.run("return document.activeElement.textContent")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_no_violation(show, kind, look):
    width, dark = LOOKS[look]
    browser = show(KINDS[kind](warnings=["A caution."]), width=width, dark=dark)
    browser.all(".lime-word")[0].click()
    browser.run("document.querySelector('details').open = true")
    browser.until(TABLE)
    assert browser.violations() == []
    assert browser.run("const page = document.documentElement; return page.scrollWidth - page.clientWidth") == 0
    paper = browser.run("return getComputedStyle(document.querySelector('.lime-answer')).backgroundColor")
    assert paper == ("rgb(21, 24, 28)" if dark else "rgb(253, 253, 252)")


def test_axe_would_find_a_violation(show):
    browser = show(of_picture())
    browser.run("document.querySelector('img').removeAttribute('alt')")
    assert any(line.startswith("image-alt") for line in browser.violations())


def test_a_click_lays_the_map_of_a_word_over_the_picture(show):
    browser = show(of_picture())
    dog, cat = (browser.all(".lime-word")[index] for index in (1, 4))
    assert cells(browser) is None and pressed(browser) == []
    dog.click()
    veil = cells(browser)[..., 3]
    assert veil.shape == (ROWS, COLUMNS) and pressed(browser) == ["dog"]
    assert (veil == 0).sum() == 2 and veil[0, 0] == veil[0, 1] == 0 and veil[3, 5] > 200
    image, canvas = (browser.all(f".lime-frame {name}")[0].rect for name in ("img", "canvas"))
    assert canvas == image and image["width"] > 600
    assert "mostly upper left" in browser.all("figcaption")[0].text
    assert "62 % from the picture" in browser.all(".lime-shares")[0].text
    dog.click()
    assert cells(browser) is None and pressed(browser) == []
    cat.click()
    assert "cat, flagged: 96 % unsupported; mostly lower right" in browser.all(".lime-shown")[0].text
    assert "Not taken: bird (98 % unsupported); dog (named before)." in browser.all(".lime-shown")[0].text


def test_a_word_under_the_mouse_shows_its_map_for_a_while(show):
    from selenium.webdriver import ActionChains

    browser = show(of_picture())
    ActionChains(browser.driver).move_to_element(browser.all(".lime-word")[4]).perform()
    assert cells(browser)[3, 5, 3] == 0 and pressed(browser) == []
    ActionChains(browser.driver).move_to_element(browser.all("h1")[0]).perform()
    assert cells(browser) is None


def test_the_keyboard_reaches_every_word(show):
    browser = show(of_picture())
    press(browser, "TAB")
    assert focused(browser) == "A" and pressed(browser) == ["A"]
    press(browser, "ARROW_RIGHT")
    assert focused(browser) == "dog" and cells(browser)[0, 0, 3] == 0
    press(browser, "END")
    assert focused(browser) == "cat." and cells(browser)[3, 5, 3] == 0
    press(browser, "ARROW_RIGHT", "ARROW_UP", "HOME")
    assert focused(browser) == "A"
    press(browser, "ESCAPE")
    assert focused(browser) == "A" and pressed(browser) == []
    press(browser, "SPACE")
    assert pressed(browser) == ["A"]
    press(browser, "ENTER")
    assert pressed(browser) == []
    outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press(browser, "TAB")
    assert browser.run("return document.activeElement.type") == "checkbox"


def test_a_screen_reader_hears_share_and_flag(show):
    browser = show(of_picture())
    names = [browser.name_of(each) for each in browser.all(".lime-word")]
    assert names[1] == "dog, 62 % from the picture, 2 % unsupported"
    assert names[4] == "cat, 62 % from the picture, flagged: 96 % unsupported"
    assert {each.aria_role for each in browser.all(".lime-word")} == {"button"}
    assert browser.all(".lime-shown")[0].get_attribute("aria-live") == "polite"
    assert "wavy" in browser.run("return getComputedStyle(arguments[0]).textDecoration", browser.all(".lime-word")[4])


def test_new_words_are_announced_and_the_focus_stays(show):
    browser = show(of_picture())
    press(browser, "TAB", "ARROW_RIGHT")
    browser.run(
        """
        const box = document.querySelector("main");
        window.shown = LimeAnswer.show(box, {words: [{text: "One"}], media: []});
        """
    )
    browser.all(".lime-answer")[1].find_elements("css selector", ".lime-word")[0].click()
    first = browser.run("return document.activeElement")
    browser.run(
        """
        window.changes = 0;
        const region = document.querySelectorAll(".lime-shown")[1];
        new MutationObserver(() => (changes += 1)).observe(region, {childList: true, subtree: true});
        """
    )
    browser.run('shown.append([{text: " two", flagged: true, p_unsupported: 0.9}, {text: " three"}])')
    assert browser.run("return changes") == 0  # what is said of the chosen word is not said again
    browser.run("shown.update(0, {shares: {image: 0.5, audio: 0, prompt: 0.5, own: 0}})")
    words = browser.all(".lime-answer")[1].find_elements("css selector", ".lime-word")
    assert [each.text for each in words] == ["One", "two", "three"]
    assert browser.run("return document.activeElement") == first == words[0]
    assert browser.name_of(words[0]) == "One, 50 % from the picture"
    assert browser.run("return changes") == 1
    heard = browser.all(".lime-answer")[1].find_element("css selector", '.lime-hidden[aria-live="polite"]')
    browser.until("return document.querySelectorAll('.lime-hidden')[1].textContent")
    assert heard.get_attribute("textContent") == "two, flagged: 90 % unsupported three"


def test_one_scale_and_smooth_maps(show):
    browser = show(of_picture())
    common, smooth, _ = browser.all(".lime-controls input")
    browser.all(".lime-word")[0].click()
    assert cells(browser)[1, 3, 3] == 0
    common.click()
    assert cells(browser)[1, 3, 3] == pytest.approx(255 * 0.82 * (1 - np.sqrt(0.5)), abs=2)
    rendering = "return getComputedStyle(document.querySelector('canvas')).imageRendering"
    assert browser.run(rendering) == "pixelated"
    smooth.click()
    assert browser.run(rendering) == "auto"


def test_a_contrast_is_blue_for_the_word_and_orange_against_it(show):
    browser = show(of_picture())
    browser.all(".lime-word")[1].click()
    label = browser.all(".lime-controls label")[2]
    assert label.text == "against “cat”: blue for the word, orange against it"
    label.click()
    drawn = cells(browser)
    assert drawn[0, 0, 2] > drawn[0, 0, 0] and drawn[3, 5, 0] > drawn[3, 5, 2]
    assert (drawn[..., 3] > 0).sum() == 2
    assert "logit that is 2.5 more than that of “cat”" in browser.all(".lime-shown")[0].text


def test_without_a_contrast_there_is_no_such_switch(show):
    browser = show(of_two_pictures())
    assert [each.is_displayed() for each in browser.all(".lime-controls label")] == [True, True, False]


def test_of_several_pictures_it_says_from_which_a_word_came(show):
    browser = show(of_two_pictures())
    browser.all(".lime-word")[0].click()
    first, second = (each.text for each in browser.all("figcaption"))
    assert first == "x.png: 47 % of the word, mostly in the upper third"
    assert second == "y.png: 16 % of the word, mostly lower right"
    assert cells(browser, 0)[0, 0, 3] == 0 < cells(browser, 1)[2, 1, 3]
    boxes = [each.rect for each in browser.all("figure")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]


def test_two_methods_stand_side_by_side(show):
    browser = show(of_picture(), of_picture(method="choose"))
    boxes = [each.rect for each in browser.all(".lime-answer")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    assert [each.text for each in browser.all(".lime-title")] == ["Method none", "Method choose"]
    assert "none, choose" in browser.all(".facts")[0].text


def test_a_click_plays_what_was_heard(show):
    browser = show(of_sound())
    bell = browser.all(".lime-word")[1]
    browser.run(
        "window.times = []; document.querySelector('audio').ontimeupdate = (e) => times.push(e.target.currentTime)"
    )
    bell.click()
    mark, time = browser.all(".lime-heard")[0].rect, browser.all(".lime-time")[0].rect
    assert (mark["x"] - time["x"]) / time["width"] == pytest.approx(3 / 4, abs=0.01)
    assert mark["width"] / time["width"] == pytest.approx(0.5 / 4, abs=0.01)
    browser.until("const audio = document.querySelector('audio'); return audio.paused && audio.currentTime >= 3.5")
    times = browser.run("return times")
    assert min(times) >= 2.99 and max(times) < 3.99
    assert browser.all(".lime-mel")[0].rect["width"] == time["width"]
    assert "heard from 3.0 to 3.5 s" in browser.all("figcaption")[0].text


def test_the_table_and_the_head_have_the_numbers(show):
    browser = show(of_picture())
    head = browser.all(".facts")[0].text
    assert all(text in head for text in ("x.png", "a model", "none", "lime-mlx explain x.png"))
    browser.all("summary")[0].click()
    browser.until(TABLE)
    row = browser.all(".lime-details tbody tr")[4].text
    assert (
        row
        == "cat 62 % 18 % 20 % flagged: 96 % unsupported mostly lower right bird (98 % unsupported); dog (named before)"
    )


def test_on_paper_the_table_is_open(show):
    browser = show(of_picture())
    browser.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert browser.run("return document.querySelector('details').open")


MARKUP = "</script><img src=x onerror='window.hacked=1'><script>window.hacked=1</script>&lt;\u2028{{ 7 * 7 }}"


def test_markup_in_every_field_stays_text(show):
    spans = [Span("image", 1, 5, grid=Grid(2, 2))]
    words = [
        word(MARKUP, at(spans, 0, 1), p_unsupported=0.9, rejected=(Rejected(MARKUP, 0.9),)),
        word(f" {MARKUP}", at(spans, 0, 2)),
    ]
    hostile = explanation(
        words,
        spans,
        question=MARKUP,
        method=MARKUP,
        warnings=[MARKUP],
        pictures=[Image.new("RGB", (20, 20))],
        contrasts=[Contrast(MARKUP, 1.0, at(spans, 0, 1)), None],
        about=About(model=MARKUP, date=MARKUP, command=MARKUP, pictures=[MARKUP]),
    )
    browser = show(hostile, replace(hostile, pictures=[]))
    browser.all(".lime-word")[0].click()
    browser.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    browser.until(TABLE)
    browser.run("for (const box of document.querySelectorAll('.lime-controls input')) box.click()")
    assert browser.run("return window.hacked") is None
    shown = browser.run("return document.body.innerText.replace(/\\s+/g, ' ')")
    plain = re.sub(r"\s+", " ", MARKUP)
    assert shown.count(plain) >= 15
    assert browser.run("return document.querySelectorAll('img').length") == 1
    assert browser.run("return document.querySelectorAll('script').length") == 2


def test_addresses_of_others_are_not_opened(show):
    """The script shows a picture only from the page itself, whatever a view says."""
    browser = show(of_picture())
    browser.run(
        """
        const media = [{kind: "image", src: "https://example.com/x.png"}, {kind: "audio", src: "javascript:1"}];
        LimeAnswer.show(document.body, {words: [], text: "Nothing", media});
        """
    )
    assert browser.run("return document.querySelectorAll('img').length") == 1
    assert "cannot be shown" in browser.run("return document.body.textContent")


def test_a_name_that_is_no_unicode_is_written_all_the_same(tmp_path):
    page = of_picture(about=About(pictures=["\udcff.png"])).save(tmp_path / "x.html")
    assert "?.png" in page.read_text("utf-8")


def test_a_long_answer_makes_a_small_page(tmp_path):
    """Beside its picture a page has less than 1 MB, with 250 words over fine maps."""
    spans = [Span("image", 1, 1 + 120 * 160, grid=Grid(120, 160))]
    rng = np.random.default_rng(0)
    words = [
        word(f" word{index}", rng.standard_normal(spans[0].stop + 3 + index).astype(np.float32), p_unsupported=0.1)
        for index in range(250)
    ]
    picture = Image.fromarray(rng.integers(0, 255, (3000, 4000, 3), np.uint8))
    text = explanation(words, spans, pictures=[picture]).save(tmp_path / "x.html").read_text("utf-8")
    views = json.loads(re.search(r'class="lime-views">(.*?)</script>', text)[1])
    medium = views[0]["media"][0]
    assert max(medium["width"], medium["height"]) == 1024
    assert len(text) - len(medium["src"]) < 1_000_000


def test_an_uncalibrated_model_is_said(show):
    browser = show(of_picture(warnings=["Look."]))
    assert browser.all(".lime-cautions")[0].text == "Look."
    spans = [Span("image", 1, 5, grid=Grid(2, 2))]
    browser = show(explanation([word("dog", at(spans, 0, 1))], spans))
    assert "was not calibrated" in browser.all(".lime-cautions")[0].text
    assert browser.name_of(browser.all(".lime-word")[0]) == (
        "dog, 62 % from the picture, rank 1, where 1 is the least supported"
    )
    one = explanation([word("dog", at(spans, 0, 1))], spans)
    one.answer.calibrated_for_input = False
    assert "calibrated on other inputs" in show(one).all(".lime-cautions")[0].text


def test_several_answers_need_a_page(tmp_path):
    with pytest.raises(LimeError, match="name a .html file"):
        of_picture().save(tmp_path / "x.png", of_picture())
    assert not list(tmp_path.iterdir())


def test_relevance_that_is_no_number_has_no_map(tmp_path):
    spans = [Span("image", 1, 5, grid=Grid(2, 2))]
    broken = word("dog", np.full(8, np.nan, np.float32), p_unsupported=float("nan"))
    broken = replace(broken, shares=broken.shares._replace(image=float("nan")))
    one = explanation([broken, word(" cat", at(spans, 0, 1))], spans)
    first, second = one.view()["words"]
    assert "maps" not in first and first["shares"] is first["p_unsupported"] is None
    assert second["maps"][0]["rows"] == 2
    assert "NaN" not in one.save(tmp_path / "x.html").read_text("utf-8")
