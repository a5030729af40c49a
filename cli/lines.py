"""Where the lines of a chat come from: a line editor on a terminal, and standard input elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from lime_mlx.errors import PromptError

if TYPE_CHECKING:
    from prompt_toolkit.history import History

MARK = "> "
HISTORY = "chat-history"


def interactive() -> bool:
    """Whether somebody types the lines."""
    return sys.stdin is not None and sys.stdin.isatty()


def lines(commands: Sequence[str]) -> Iterator[str]:
    """The lines as they come, without the ends of lines; Ctrl-D ends them. Ctrl-C gives up the line that is typed.

    commands: are completed by Tab. Raises `PromptError` for lines that are not UTF-8.
    """
    if not interactive():
        yield from _piped()
        return
    read = _editor(commands)
    while True:
        try:
            line = read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        yield line


def _piped() -> Iterator[str]:
    for line in sys.stdin.buffer if sys.stdin else ():
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise PromptError("The lines on standard input are not UTF-8 text.") from None


def _editor(commands: Sequence[str]) -> Callable[[], str]:
    """What reads a line: prompt_toolkit's editor, or Python's own where that is not installed."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.output import create_output
    except ImportError:
        click.echo("Note: lines are edited more comfortably with prompt_toolkit: pip install prompt-toolkit.", err=True)
        return _plain
    session: PromptSession[str] = PromptSession(
        history=_history(),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        output=create_output(always_prefer_tty=True),
    )
    return partial(session.prompt, MARK)


def _plain() -> str:
    try:
        return input(MARK)
    except KeyboardInterrupt:
        click.echo(err=True)
        raise


def _history() -> History:
    """The lines of earlier chats, in the user's folder, for the user alone; those of this chat where that fails."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    from lime_mlx.settings import home

    file = home() / HISTORY
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))
