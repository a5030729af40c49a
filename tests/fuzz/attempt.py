"""One input, tried under the limits of time and memory, and what it shows."""

import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from fuzz.targets import BYTES, SECONDS, Target
from lime_mlx.errors import LimeError


class Hang(BaseException):
    """An input took too long. No `except Exception` catches it."""


@dataclass(frozen=True)
class Outcome:
    """passed: the input came past the first check. find: what is wrong, None where nothing is."""

    passed: bool
    find: str | None = None


@contextmanager
def limited() -> Iterator[None]:
    """Raise `Hang` where what is inside takes longer than the limit. Only in the main thread."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(target: Target, data: bytes) -> Outcome:
    """Try one input. Time counts as the processor's, since other programs may be at work."""
    assert threading.current_thread() is threading.main_thread()
    before, began = _peak(), time.process_time()
    passed, find = False, None
    try:
        with limited():
            passed = bool(target.attempt(data))
    except LimeError as error:
        passed = True
        text = str(error)
        if "\n" in text or not text.endswith((".", ")", "?")) and len(text) > 1600:
            find = f"no sentence: {text[:200]!r}"
    except Hang:
        find = "hang"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        find = f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-6:])}"
    if find is None and time.process_time() - began > SECONDS:
        find = "slow"
    if find is None and _peak() - before > BYTES:
        find = "memory"
    return Outcome(passed, find)


def _peak() -> int:
    """The most bytes that this process ever had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
