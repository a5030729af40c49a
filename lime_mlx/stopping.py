"""What ends an answer besides its end token: a text that stops it, or a loop."""

from __future__ import annotations

from collections.abc import Sequence

from lime_mlx.processor import Processor

# The answer ends when at most LOOP_LONGEST tokens repeat LOOP_TIMES times and over LOOP_TOKENS tokens, or more.
LOOP_TIMES, LOOP_TOKENS, LOOP_LONGEST = 4, 24, 32


def loops(tokens: Sequence[int]) -> bool:
    """Whether the newest tokens are the same few again and again, without end in sight."""
    for unit in range(1, LOOP_LONGEST + 1):
        span = max(LOOP_TOKENS, LOOP_TIMES * unit)
        newest = tokens[-span:]
        if len(newest) == span and all(a == b for a, b in zip(newest, newest[unit:], strict=False)):
            return True
    return False


class AnswerText:
    """The text of an answer as it grows, held back where it may turn out to be a text that stops it."""

    def __init__(self, processor: Processor, stops: Sequence[str]):
        self._detokenizer, self._stops = processor.detokenizer(), [stop for stop in stops if stop]
        self._held, self._ready, self.stopped = "", "", False

    def add(self, token: int, ends: bool) -> None:
        if not ends:
            self._detokenizer.add_token(token)
        self._take(self._detokenizer.last_segment)

    def finish(self) -> None:
        """Nothing follows: what was held back is let go."""
        self._detokenizer.finalize()
        self._take(self._detokenizer.last_segment)
        self._ready, self._held = self._ready + self._held, ""

    def new(self) -> str:
        """What was added since the last call."""
        ready, self._ready = self._ready, ""
        return ready

    def _take(self, segment: str) -> None:
        if self.stopped:
            return
        self._held += segment
        starts = [start for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if starts:
            self._ready, self._held, self.stopped = self._ready + self._held[: min(starts)], "", True
            return
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        self._ready, self._held = self._ready + self._held[:cut], self._held[cut:]


def _overlap(text: str, stop: str) -> int:
    """The longest end of a text with which `stop` begins."""
    return next((length for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length])), 0)
