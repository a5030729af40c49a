"""What the probes find: works, broken or cannot tell, with the reason and the chance of luck."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from .luck import LIMIT, agreement, at_most

WORKS, BROKEN, CANNOT_TELL = "works", "broken", "cannot tell"
# What a fault would make an answer be: from the number of the trial and its truth to the readings that fit.
Fault = Callable[[int, str], frozenset[str]]


@dataclass(frozen=True)
class Finding:
    """One row of the report.

    name: what was tried. luck: the chance that a result like this comes by luck alone, None where nothing was decided
    or nothing is left to chance. fault: the name of what is broken. minor: only some pictures suffer, so that the
    verdict stays "works", with this as its exception.
    """

    name: str
    status: str
    reason: str
    luck: float | None = None
    fault: str | None = None
    minor: bool = False

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)


def unclear(name: str, reason: str) -> Finding:
    return Finding(name, CANNOT_TELL, reason)


@dataclass(frozen=True)
class Answers:
    """What was read from the answers about trials whose truths were drawn by lot from options."""

    options: Sequence[str]
    truths: Sequence[str]
    readings: Sequence[str | None]

    @property
    def hits(self) -> int:
        return sum(reading == truth for reading, truth in zip(self.readings, self.truths, strict=True))

    @property
    def luck(self) -> float:
        """The chance of so many hits for a guess."""
        return self.of(_as_it_is)[1]

    @property
    def counted(self) -> str:
        return f"{self.hits} of {len(self.truths)} answers are right"

    def of(self, fault: Fault, delay: int = 0) -> tuple[int, float]:
        """The hits of a fault, and their chance by luck. delay: how many trials later each truth is answered."""
        late = range(delay, len(self.truths))
        fits = [[self.readings[i] in fault(i, option) for option in self.options] for i in late]
        hits = sum(self.readings[i] in fault(i, self.truths[i - delay]) for i in late)
        return hits, agreement(fits, hits)


def _as_it_is(trial: int, truth: str) -> frozenset[str]:
    return frozenset({truth})


def explained(
    name: str,
    answers: Answers,
    faults: Mapping[str, Fault],
    lacks: str,
    late: str | None = None,
    right: Fault = _as_it_is,
    noun: str = "answers",
) -> Finding:
    """Whether the answers are right, or which one of the faults explains them.

    What has the most hits is taken, and counts where its chance of luck is at most `LIMIT`; that of a fault is taken
    times the number of faults. lacks: the ability that is missing where nothing counts. late: the name of the fault
    that each answer belongs to the trial before. right: what fits where nothing is broken.
    noun: what was read.
    """
    hits, luck = answers.of(right)
    counted = f"{hits} of {len(answers.truths)} {noun} are right"
    tried = {fault: answers.of(predict) for fault, predict in faults.items()}
    if late is not None:
        tried[late] = answers.of(_as_it_is, delay=1)
    best = max(tried, key=lambda fault: tried[fault][0], default=None)
    if best is not None and tried[best][0] >= hits + 2:
        luck = min(1.0, len(tried) * tried[best][1])
        if luck <= LIMIT:
            reason = f"{best}: {tried[best][0]} of {len(answers.truths)} {noun} say so, {counted}"
            return Finding(name, BROKEN, reason, luck, best)
    elif luck <= LIMIT:
        return Finding(name, WORKS, counted, luck)
    silent = sum(reading is None for reading in answers.readings)
    none = f", and {silent} name none of the options" if silent else ""
    return unclear(name, f"the model lacks the ability {lacks}: {counted}{none}")


def compared(name: str, answers: Answers, fault: str, problems: Sequence[str] = (), minor: bool = True) -> Finding:
    """Whether a model that can answer such questions does so also about pictures of this kind.

    It works where a guess would not have so many hits, and is broken where a model that is right in 4 of 5 would have
    more. problems: the errors of the server about these pictures. A server that refuses them openly is not broken.
    """
    works, fails = answers.luck, at_most(answers.hits, len(answers.truths))
    if len(problems) == len(answers.truths):
        return unclear(name, f"the server refuses them ({problems[0]})")
    if works <= LIMIT:
        return Finding(name, WORKS, answers.counted, works)
    if fails <= LIMIT:
        reason = f"{fault}: {answers.counted}, where the same questions work elsewhere"
        return Finding(name, BROKEN, reason, fails, fault, minor)
    return unclear(name, f"{answers.counted}, too many for a fault and too few for more than luck")
