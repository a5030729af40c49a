"""Files in a line of a chat: terminals type the path of a file that is dropped on them, quoted or escaped."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

# One word of a line: in single quotes, in double quotes, or with what is special escaped.
WORD = re.compile(r"""\s*(?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>(?:[^\s\\]|\\.)+))(?=\s|$)""")
ESCAPED = re.compile(r"\\(.)")


def dropped(line: str) -> tuple[list[str], str]:
    """The files at the beginning of a line, and the rest of it, which is the question.

    A word is a file where one has this path, and where it looks like a path: it is quoted, or has a slash or an ending.
    """
    files: list[str] = []
    while match := WORD.match(line):
        path = path_of(match)
        looks_so = match["bare"] is None or os.sep in path or Path(path).suffix
        if not looks_so or not os.path.isfile(path):
            break
        files.append(path)
        line = line[match.end() :]
    return files, line.strip()


def unquoted(text: str) -> str:
    """The path that a whole text says, whether it is quoted, escaped or plain with spaces in it."""
    match = WORD.fullmatch(text.strip())
    return path_of(match) if match and not os.path.isfile(text.strip()) else text.strip()


def path_of(match: re.Match[str]) -> str:
    """The path in a word of a line, also of a file:// address."""
    if match["single"] is not None:
        text = match["single"]
    elif match["double"] is not None:
        text = ESCAPED.sub(r"\1", match["double"])
    else:
        text = ESCAPED.sub(r"\1", match["bare"])
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return os.path.expanduser(text)
