"""The check of a map on the page, in Chromium: its sentence, its curves, and what was measured."""

import numpy as np
import pytest
from browser import chromium
from pages import of_picture

from lime_mlx.probes.faithful import ORDERS, SHARES, MapCheck

WORD = "document.querySelectorAll('.lime-word')"
CHECKS = """
  return [...document.querySelectorAll(".lime-check")].map((each) => ({
    text: each.textContent, outcome: each.className,
    curves: [...each.querySelectorAll("polyline")].map((line) => line.getAttribute("points").split(" ").length),
    low: each.querySelector("polyline.lime-most").points[1].y > each.querySelector("polyline.lime-least").points[1].y,
  }));
"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as window:
        yield window


def check(word: str, index: int, kind: str = "cached", backwards: bool = False) -> MapCheck:
    falling, staying = np.full(len(SHARES), 0.1), np.full(len(SHARES), 0.9)
    falling[0], staying[-1] = 0.9, 0.1
    most, least = (staying, falling) if backwards else (falling, staying)
    random = np.tile(1 - 0.9 * np.array(SHARES), (ORDERS, 1))
    return MapCheck(word, kind, "image", 0, (4, 6), most, least, random, SHARES, index)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_chosen_word_shows_its_checks(browser, tmp_path, width, dark):
    checks = [check("dog", 1), check("dog", 1, "attention", True), check("<b>cat</b>", 4, backwards=True)]
    page = of_picture(checks=checks, measured="Such maps were <i>measured</i>.").save(tmp_path / "page.html")
    browser.open(page, width, dark=dark)
    assert browser.run(CHECKS) == []
    assert "Such maps were <i>measured</i>." in browser.run("return document.body.textContent")
    browser.run(f"{WORD}[1].click()")
    held, failed = browser.run(CHECKS)
    assert held["text"].startswith("cached: The map of “dog” held") and "lime-held" in held["outcome"]
    assert failed["text"].startswith("attention: ") and "lime-failed" in failed["outcome"]
    assert held["curves"] == [len(SHARES), 2] * 3
    assert held["low"] and not failed["low"]
    browser.run(f"{WORD}[4].click()")
    (cat,) = browser.run(CHECKS)
    assert cat["text"].startswith("The map of “<b>cat</b>” did not hold, it points away")
    browser.run(f"{WORD}[0].click()")
    assert browser.run(CHECKS) == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.console() == []
