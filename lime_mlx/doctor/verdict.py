"""The verdict over all findings, in one line, with its exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .findings import BROKEN, CANNOT_TELL, WORKS, Finding

EXIT_CODES: Mapping[str, int] = {WORKS: 0, BROKEN: 1, CANNOT_TELL: 3}


@dataclass(frozen=True)
class Report:
    """What was examined, and what was found. nouns: "picture", "sound". details: further facts by name, for JSON."""

    target: str
    nouns: Sequence[str]
    findings: Sequence[Finding]
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """What is broken for all pictures or sounds, each once."""
        return list(dict.fromkeys(one.fault or one.name for one in self._broken(minor=False)))

    @property
    def exceptions(self) -> list[str]:
        """What is broken for some pictures only."""
        return list(dict.fromkeys(one.fault or one.name for one in self._broken(minor=True)))

    @property
    def status(self) -> str:
        """broken where anything is broken for all pictures; else works where they are used."""
        if self.faults:
            return BROKEN
        uses = [one.status for one in self.findings if one.name in {f"{noun} used" for noun in self.nouns}]
        return WORKS if uses and all(status == WORKS for status in uses) else CANNOT_TELL

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.status]

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        noun = " and ".join(self.nouns)
        if self.status == BROKEN:
            return f"{self.target} is broken: {'; '.join(self.faults)}."
        if self.status == WORKS:
            verb = {"picture": "sees its pictures", "sound": "hears its sounds"}
            works = " and ".join(verb[noun] for noun in self.nouns)
            but = f", except that {'; '.join(self.exceptions)}" if self.exceptions else ""
            return f"{self.target} works: it {works}{but}."
        reasons = [one.reason for one in self.findings if one.name == f"{self.nouns[0]} used"]
        return f"Cannot tell whether {self.target} uses its {noun}: {reasons[0] if reasons else 'no probe decides'}."

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "target": self.target,
            "verdict": self.status,
            "sentence": self.sentence,
            "faults": self.faults,
            "exceptions": self.exceptions,
            "media": list(self.nouns),
            "probes": [one.to_dict() for one in self.findings],
            **self.details,
        }

    def _broken(self, minor: bool) -> list[Finding]:
        return [one for one in self.findings if one.status == BROKEN and one.minor == minor]
