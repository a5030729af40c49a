"""The page at `/`: one file with the style and the script of all pages; nothing comes from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lime_mlx.render import shared

FOLDER = Path(__file__).parent


@cache
def style() -> str:
    return shared.style() + (FOLDER / "page.css").read_text("utf-8")


@cache
def scripts() -> tuple[str, str]:
    """The script that shows answers, and that of this page."""
    return shared.script(), (FOLDER / "page.js").read_text("utf-8")


@cache
def page() -> str:
    """The page, the same for everybody: it holds no secret, and asks for a key where one is needed."""
    shell = (FOLDER / "page.html").read_text("utf-8")
    inline = "".join(f"<script>{script}</script>" for script in scripts())
    return shell.replace("<!-- style -->", f"<style>{style()}</style>").replace("<!-- scripts -->", inline)


@cache
def page_headers() -> dict[str, str]:
    """The page may run its own script and style, by their hashes, talk to this server, and be shown in no frame."""
    hashes = " ".join(shared.source_hash(script) for script in scripts())
    policy = {
        "default-src": "'none'",
        "script-src": hashes,
        "style-src": shared.source_hash(style()),
        "img-src": "data: blob:",
        "media-src": "data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    value = "; ".join(f"{name} {sources}" for name, sources in policy.items())
    return {"Content-Security-Policy": value, "Cache-Control": "no-cache"}
