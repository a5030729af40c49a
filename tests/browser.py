"""A real Chromium for the tests of pages: what it requests and what its console says is recorded."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Where `make axe` puts axe-core, which judges how accessible a page is.
AXE = ROOT / "build/axe/package/axe.min.js"


class Browser:
    """A window of Chromium, driven by Selenium; `driver` is Selenium's own."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page: Path | str, width: int = 1200, height: int = 1000, dark: bool = False) -> None:
        """Show a file or an address, at a width in CSS pixels, in light or dark; what was recorded is forgotten."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
        self.console(), self.requests()
        self.driver.get(page if isinstance(page, str) else page.as_uri())

    def run(self, script: str, *arguments):
        """What JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, seconds: float = 10) -> None:
        """Wait until JavaScript returns what is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds).until(lambda _: self.run(script))

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def console(self) -> list[str]:
        """What the console got since the last call, without its debug level."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "DEBUG"]

    def requests(self) -> list[str]:
        """The addresses that the page asked for since the last call, without what lies in the page itself."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:"))]

    def name_of(self, element) -> str:
        """The name of an element in the accessibility tree."""
        return element.accessible_name

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """A PNG of the whole page, or of what the window shows."""
        import base64

        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page. Skips the test where there is no axe-core."""
        if not AXE.is_file():
            pytest.skip("axe-core is not there: make axe")
        # By the protocol: the policy of the page lets no script of others in.
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text("utf-8")})
        answer = self.driver.execute_cdp_cmd(
            "Runtime.evaluate",
            {"expression": "axe.run().then(JSON.stringify)", "awaitPromise": True, "returnByValue": True},
        )
        violations = json.loads(answer["result"]["value"])["violations"]
        return [f"{each['id']}: {node['html'][:160]}" for each in violations for node in each["nodes"]]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips the test where Selenium, Chromium or its driver is not installed."""
    pytest.importorskip("selenium", reason="Selenium is not installed: pip install selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Chromium or chromedriver is not installed")
    options = Options()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--mute-audio"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(window)
    finally:
        window.quit()
