"""The errors that a user can cause."""

import errno
import re

# The most characters of an error. What a file says of itself is cut to fewer where it stands in the sentence.
LONGEST, LONGEST_VALUE = 1500, 120
LONG_WORD = re.compile(r"\S{400,}")
# What moves the cursor, changes colours or answers for the user: controls but for tab and line feed, and the marks that
# turn the direction of text.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain_text(text: str) -> str:
    """A text of others for a terminal or a page, with a sign in the place of each control character."""
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def short(value: object, most: int = LONGEST_VALUE) -> str:
    """A value of others for an error: on one line, without controls, its middle left out where it is long."""
    text = " ".join(plain_text(value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= most else f"{text[: most // 2]}...{text[3 - most // 2 :]}"


class LimeError(Exception):
    """Shown to the user as one line, `Error: ...`, with exit code 1. It has no control characters."""

    def __init__(self, message: object = "") -> None:
        words = LONG_WORD.sub(lambda word: f"{word[0][:150]}...{word[0][-150:]}", str(message))
        super().__init__(short(words, LONGEST))


class MediaError(LimeError):
    """A picture or a sound cannot be read or used."""


class CheckpointError(LimeError):
    """A model folder or repository is missing, incomplete or not supported."""


class ConversionError(LimeError):
    """A checkpoint cannot be converted, written or uploaded in the way that the user chose."""


class MethodError(LimeError):
    """A decoding method or one of its options is unknown or has a wrong value."""


class PromptError(LimeError):
    """A prompt and its pictures or sounds do not fit each other or the model."""


class NumericalError(LimeError):
    """A computation gave a value that is not finite."""


class BackendError(LimeError):
    """This machine cannot run it: its device, its memory or its version of MLX is the reason."""


class DataError(LimeError):
    """A benchmark file is missing, malformed or does not fit the others."""


class ServerError(LimeError):
    """A server is not there, or does not answer as OpenAI's API does."""


def os_reason(error: OSError) -> str:
    """Why the system refused something, for the end of a sentence and without the name of a file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, and run the same command again"
    return error.strerror or first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error, without its full stop; the name of its class where it says nothing."""
    message = str(error).strip() or type(error).__name__
    return short(message.splitlines()[0], 300).rstrip(".")
