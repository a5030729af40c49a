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

from fuzz.target import BYTES, SECONDS, Target
from lime_mlx.errors import LimeError


class Hang(BaseException):
    """An input took too long. No `except Exception` catches it."""


@dataclass(frozen=True)
class Outcome:
    """passed: the input came past the first check. find: what is wrong, None where nothing is."""

    passed: bool
    find: str | None = None


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Hang` where what is inside takes so many seconds of the processor, or 12 times as many by the clock.

    Only in the main thread.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, 2 * seconds), signal.SIGALRM: (signal.ITIMER_REAL, 12 * seconds)}
    before = {number: signal.signal(number, ring) for number in timers}
    for timer, length in timers.values():
        signal.setitimer(timer, length)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def attempt(target: Target, data: bytes, slower: float = 1.0) -> Outcome:
    """Try one input. Time counts as the processor's, since other programs may be at work.

    slower: how much longer all takes, because lines are watched.
    """
    assert threading.current_thread() is threading.main_thread()
    before, began = _peak(), time.process_time()
    passed, find = False, None
    try:
        with limited(SECONDS * slower):
            passed = bool(target.attempt(data))
    except LimeError as error:
        passed = True
        if "\n" in str(error) or len(str(error)) > 1600:
            find = f"no sentence: {str(error)[:200]!r}"
    except Hang:
        find = "hang"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        find = f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-6:])}"
    if find is None and time.process_time() - began > SECONDS * slower:
        find = "slow"
    if find is None and _peak() - before > BYTES:
        find = "memory"
    return Outcome(passed, find)


def _peak() -> int:
    """The most bytes that this process ever had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
