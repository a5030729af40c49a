"""The errors that a user can cause."""

import errno


class LimeError(Exception):
    """Shown to the user as one line, `Error: ...`, with exit code 1."""


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


def os_reason(error: OSError) -> str:
    """Why the system refused something, for the end of a sentence and without the name of a file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, and run the same command again"
    return error.strerror or first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error, without its full stop; the name of its class where it says nothing."""
    message = str(error).strip() or type(error).__name__
    return message.splitlines()[0].rstrip(".")
