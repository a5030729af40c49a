"""The server's page in a real Chromium: drop, ask, click a word, ask again; no other file, and markup stays text."""

import re
import time
from pathlib import Path

import pytest
from browser import chromium
from serving import EXAMPLES, live

from lime_mlx.server import answering

TEXT = "A room with a dog, a ball, a cow and a bus."
SCRIPT = "<img src=x onerror=alert(1)><script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as window:
        yield window


@pytest.fixture(scope="module")
def address():
    with live() as (address, _):
        yield address


def until(condition, seconds: float = 30):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return value


def opened(browser, address, **options):
    browser.open(f"{address}/", **options)
    until(lambda: browser.run("return document.getElementById('model').value"))
    return browser


def give(browser, name: str):
    (field,) = browser.all("#files")
    field.send_keys(str(EXAMPLES / name))
    until(lambda: browser.all("#media li"))


def ask(browser, text: str | None = None, answers: int = 1):
    before = len(browser.all(".turn"))
    if text is not None:
        browser.run("document.getElementById('question').value = arguments[0]", text)
    browser.all("#ask")[0].click()
    until(lambda: len(browser.all(".turn")) > before or problem(browser))
    until(lambda: not browser.run("return document.getElementById('ask').disabled"))
    return [each.text for each in browser.all(".turn:last-of-type .lime-words")] if answers else []


def problem(browser) -> str:
    return browser.run("return document.getElementById('problem').textContent")


def lines(browser) -> list[str]:
    """The text of each answer, in one line."""
    texts = browser.run(
        "return [...document.querySelectorAll('.turn:last-of-type .lime-words')].map((e) => e.textContent)"
    )
    return [" ".join(text.split()) for text in texts]


def narrow(browser) -> bool:
    """Whether nothing is wider than the window."""
    return browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_ask_and_click(browser, address, width, dark):
    opened(browser, address, width=width, dark=dark)
    give(browser, "scene.png")
    ask(browser)
    assert problem(browser) == "" and lines(browser) == [TEXT]
    (dog,) = (word for word in browser.all(".lime-word") if word.text.startswith("dog"))
    dog.click()
    assert dog.get_attribute("aria-pressed") == "true"
    assert re.match(r"dog, \d+ % from the picture", browser.name_of(dog))
    until(lambda: "lower left" in browser.all(".lime-shown")[0].text)
    (flagged,) = browser.all(".lime-flagged")
    assert flagged.text.startswith("ball")
    assert narrow(browser)
    assert browser.violations() == []
    ask(browser, "Is there a cat?")
    assert len(browser.all(".turn")) == 2 and problem(browser) == "" and lines(browser)[0]
    assert browser.console() == []
    assert {url.removeprefix(address) for url in browser.requests()} == {"/", "/v1/models", "/v1/chat/completions"}


def test_the_keyboard_alone(browser, address):
    from selenium.webdriver import ActionChains, Keys

    opened(browser, address)
    give(browser, "scene.png")
    browser.all("#question")[0].click()
    ActionChains(browser.driver).send_keys(Keys.END, Keys.ENTER).perform()
    until(lambda: lines(browser) == [TEXT])
    browser.run("document.querySelector('.lime-word').focus()")
    ActionChains(browser.driver).send_keys(*[Keys.ARROW_RIGHT] * 4).perform()
    focused = browser.run("return document.activeElement.textContent")
    assert focused.startswith("dog") and "dog" in browser.all(".lime-shown")[0].text


def test_two_methods_side_by_side(browser, address):
    opened(browser, address)
    give(browser, "scene.png")
    browser.run("document.getElementById('options').open = true; document.getElementById('second').value = 'choose'")
    ask(browser)
    first, second = lines(browser)
    assert first == TEXT and "banana" in second
    assert [each.text for each in browser.all(".lime-title")] == ["Method: none", "Method: choose"]


def test_a_sound(browser, address):
    opened(browser, address)
    give(browser, "sounds.wav")
    assert browser.run("return document.getElementById('model').value") == "demo-sound"
    ask(browser)
    assert problem(browser) == "" and len(lines(browser)[0]) > 10 and browser.all(".lime-sound audio")


def test_dropped_and_pasted(browser, address):
    opened(browser, address)
    make = """
      const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], arguments[2], {type: "image/png"}));
      const kind = arguments[1];
      const event = kind === "drop" ? new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true})
        : new ClipboardEvent(kind, {clipboardData: data, bubbles: true, cancelable: true});
      document.body.dispatchEvent(event);
    """
    from base64 import b64encode

    picture = b64encode((EXAMPLES / "scene.png").read_bytes()).decode()
    for number, kind in enumerate(("drop", "paste"), start=1):
        browser.run(make, picture, kind, f"{SCRIPT}.png")
        until(lambda wanted=number: len(browser.all("#media li")) == wanted)
    assert SCRIPT in browser.all("#media")[0].text
    browser.all("#media button")[1].click()
    assert len(browser.all("#media li")) == 1
    ask(browser)
    assert lines(browser) == [TEXT] and not browser.all(".turn img[src='x'], .turn script") and browser.console() == []


def test_markup_stays_text(browser, address, monkeypatch):
    """A model that writes markup, a question that holds some, and a method that has such a name."""
    real = answering.stream_generate

    def writing(*arguments, **options):
        for response in real(*arguments, **options):
            response.text = response.text.replace("dog", SCRIPT)
            yield response

    monkeypatch.setattr(answering, "stream_generate", writing)
    opened(browser, address)
    give(browser, "scene.png")
    ask(browser, SCRIPT)
    assert SCRIPT in browser.run("return document.querySelector('.lime-words').textContent")
    assert browser.run("return document.querySelector('.words-of-user').textContent") == SCRIPT
    browser.run(
        "document.getElementById('options').open = true; document.getElementById('method').value = arguments[0]", SCRIPT
    )
    ask(browser, "What?", answers=0)
    assert problem(browser) != ""
    assert not browser.all(".turn img[src='x'], .turn script, #problem *")
    # The answer with the status 400 is what the console tells of; no script ran.
    assert all("status of 400" in line for line in browser.console())


def test_a_key_is_asked_for(browser):
    with live(key="sk-7-local") as (address, _):
        browser.open(f"{address}/")
        until(lambda: browser.all("#key")[0].is_displayed())
        for key, works in (("wrong", False), ("sk-7-local", True)):
            browser.all("#key")[0].send_keys(key)
            browser.all("#key-form button")[0].click()
            until(lambda done=works: browser.all("#key")[0].is_displayed() != done and bool(problem(browser)) != done)
        give(browser, "scene.png")
        ask(browser)
        assert lines(browser) == [TEXT]
        browser.run("sessionStorage.clear()")


def test_stop(browser, address, monkeypatch):
    real, computed = answering.stream_generate, []

    def slow(*arguments, **options):
        for response in real(*arguments, **options):
            computed.append(response)
            yield response
            time.sleep(0.2)

    monkeypatch.setattr(answering, "stream_generate", slow)
    opened(browser, address)
    give(browser, "scene.png")
    browser.all("#ask")[0].click()
    until(lambda: len(browser.all(".lime-word")) >= 2)
    browser.run("document.querySelector('.lime-word').focus()")
    until(lambda: len(browser.all(".lime-word")) >= 3)
    assert browser.run("return document.activeElement.textContent.trim()") == "A", "the focus stays while words come"
    browser.all("#stop")[0].click()
    until(lambda: not browser.run("return document.getElementById('ask').disabled"))
    assert 2 <= len(browser.all(".lime-word")) < 12 and problem(browser) == "" and len(computed) < 16


def test_the_page_needs_no_other_file():
    from lime_mlx.server.page import page

    text = page()
    assert len(text) < 200_000 and "http://www.w3.org" not in text
    assert Path(answering.__file__).with_name("page.html").is_file()
