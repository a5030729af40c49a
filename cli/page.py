"""The page of an answer, for the commands that write or open one."""

from __future__ import annotations

import re
import shlex
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lime_mlx.cli import ARGUMENTS
from lime_mlx.cli.common import LoadedRequest, Request

if TYPE_CHECKING:
    from lime_mlx.explanation import About, Explanation


def about(opened: LoadedRequest, request: Request) -> About:
    """What the head of a page says of a request."""
    from lime_mlx.explanation import About, short_name

    return About(
        model=opened.name,
        command=command_line(),
        pictures=[short_name(source) for source in request.image],
        sounds=[short_name(source) for source in request.audio],
    )


def command_line() -> str:
    """The command as it was typed, without the passwords of addresses."""
    words = ["lime-mlx", *click.get_current_context().meta.get(ARGUMENTS, ())]
    return shlex.join(re.sub(r"://[^/?#]*@", "://", word) for word in words)


def open_page(explanations: list[Explanation], output: Path | None) -> str:
    """Show answers side by side in the browser, from the page that was written or from one in a new folder.

    Returns a note that says where the page is.
    """
    if output is None:
        first, *others = explanations
        output = first.save(Path(tempfile.mkdtemp(prefix="lime-mlx-")) / "answer.html", *others)
    shown = webbrowser.open(output.resolve().as_uri())
    return f"Opened {output}" if shown else f"No browser opens here; the page is {output}"
