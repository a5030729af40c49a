"""The one style and the one script of all pages, and JSON that is safe inside them."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from lime_mlx.render.svg import COLOURS

FOLDER = Path(__file__).parent
# What HTML could take for markup, what JavaScript could take for the end of a line, and control characters.
CONTROLS = (*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
UNSAFE = {code: f"\\u{code:04x}" for code in (*map(ord, "<>&"), *CONTROLS)}


def colours(selector: str = ":root") -> str:
    """The colours of the pages as CSS variables, in light and in dark."""
    light, dark = ("".join(f"--{name}: {pair[side]}; " for name, pair in COLOURS.items()) for side in (0, 1))
    return f"{selector} {{ {light}}}\n@media screen and (prefers-color-scheme: dark) {{ {selector} {{ {dark}}} }}\n"


@cache
def style() -> str:
    """The style of a page, with the colours and that of the answers on it."""
    return colours() + (FOLDER / "style.css").read_text("utf-8") + answer_style()


@cache
def answer_style() -> str:
    """The style of an answer, without the colours."""
    return (FOLDER / "answer.css").read_text("utf-8")


@cache
def script() -> str:
    """The script that shows answers: see `answer.js` and `exhibit.js`."""
    return "".join((FOLDER / name).read_text("utf-8") for name in ("media.js", "curves.js", "answer.js", "exhibit.js"))


def source_hash(text: str) -> str:
    """How a Content-Security-Policy names an inline script or style of this text: 'sha256-...', with the quotes."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def safe_json(value: object) -> str:
    """JSON without controls that can stand inside a script element whatever it holds. Raises `ValueError` for NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(UNSAFE)
