"""The page of an answer, or of several side by side: one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lime_mlx.render.shared import FOLDER, answer_style, colours, safe_json, script, source_hash, style
from lime_mlx.render.svg import shown
from lime_mlx.render.view import AnswerView


def page(question: str, facts: Mapping[str, str], views: Sequence[AnswerView], figures: Sequence[str] = ()) -> str:
    """The page. facts: what stands in its head, by names; empty ones are left out. figures: data URIs of pictures."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=shown
    )
    return environment.get_template("answer.html").render(
        question=question.strip(),
        facts=[(name, value) for name, value in facts.items() if value],
        texts=[view.get("text", "") for view in views],
        views=safe_json(views),
        figures=figures,
        style=style(),
        script=script(),
        style_hash=source_hash(style()),
        script_hash=source_hash(script()),
    )


def piece(views: Sequence[AnswerView], fallback: str) -> str:
    """The answers as a piece of HTML for a notebook. fallback: HTML that stands there where no script runs."""
    html = (
        f'<div class="lime-piece"><style>{colours(".lime-piece")}{answer_style()}</style>'
        f'<div class="lime-fallback">{fallback}</div>'
        f'<script type="application/json" class="lime-views">{safe_json(views)}</script>'
        f"<script>{script()}</script></div>"
    )
    return encoded(html).decode()


def encoded(text: str) -> bytes:
    """A page as UTF-8; what is no Unicode, as in some names of files, becomes a question mark."""
    return text.encode("utf-8", "replace")


def is_page(path: Path) -> bool:
    """Whether a file is to be a page, by its name."""
    return path.suffix.lower() == ".html"
