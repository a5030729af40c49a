"""The examination of a model that only answers questions: which probes, in which order, by what it can do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lime_mlx.errors import ServerError

from . import seeing, unused
from .asking import Ask, Asker, Question
from .findings import BROKEN, CANNOT_TELL, WORKS, Finding, unclear
from .likeness import Likeness
from .scenic import Scenes
from .subjects import BEEPS, COLOUR, COUNT, NUMBER, PITCH, PLACE, SHADE, SILENCE, WORD, Subject
from .texts import answers, system_prompt
from .trials import Trials, drawn, judged, question, same_text, tried
from .verdict import Report

SUBJECTS: Mapping[str, Sequence[Subject]] = {
    "picture": (COLOUR, PLACE, NUMBER, WORD, COUNT),
    "sound": (BEEPS, PITCH, SILENCE),
}


def examine(
    ask: Ask,
    target: str,
    *,
    nouns: Sequence[str] = (),
    seed: int = 0,
    marks: random.Random | None = None,
    on_reply: Callable[[int], None] = lambda count: None,
) -> Report:
    """Examine whoever answers. nouns: "picture", "sound"; without any, pictures, or sounds where no picture is seen.

    seed: of the truths that are drawn. marks: makes the marks of the questions, by default anew for each run. Raises
    `ServerError` where there is no answer to any question, or neither pictures nor sounds are taken.
    """
    asker = Asker(ask, marks or random.Random(), on_reply)
    rng = random.Random(seed)
    text = answers(asker, rng)
    sections = [Section.of(asker, rng, noun) for noun in nouns or ["picture"]]
    if not nouns and not sections[0].uses:
        sections = heard(sections[0], Section.of(asker, rng, "sound"))
    taken = [section for section in sections if not section.refused]
    if not taken and text.status == CANNOT_TELL:
        raise ServerError(f"{target} answers no question: {sections[0].refused}.")
    if not taken:
        raise ServerError(f"{target} takes no {' and no '.join(s.noun for s in sections)}: {sections[0].refused}.")
    findings = [text, *(finding for section in taken for finding in section.findings())]
    return Report(target, [section.noun for section in taken], findings, {"requests": asker.count})


def heard(picture: Section, sound: Section) -> list[Section]:
    """What a model is judged on whose pictures are not used: on hearing, where that is all it takes, or on both."""
    if picture.refused:
        return [picture, sound]
    if not sound.uses:
        return [picture]
    assert picture.use is not None
    deaf = picture.use.status == CANNOT_TELL or unused.unable(picture.trials)
    return [sound] if deaf else [picture, sound]


@dataclass
class Section:
    """The examination of pictures or of sounds.

    trials: the questions of all subjects. refused: what the server says where it takes no picture or sound, else "".
    able: the names of the rows whose questions the model answers. kept: whether answers are kept for their text.
    """

    asker: Asker
    rng: random.Random
    noun: str
    trials: Sequence[Trials]
    rows: dict[str, Finding]
    refused: str
    use: Finding | None = None
    able: frozenset[str] = frozenset()
    kept: bool = False

    @classmethod
    def of(cls, asker: Asker, rng: random.Random, noun: str) -> Section:
        """Ask about the subjects. A model whose first questions are refused is asked no more."""
        trials: list[Trials] = []
        for subject in SUBJECTS[noun]:
            trials.append(tried(asker, rng, subject))
            if len(trials) == 1 and len(trials[0].problems) == len(trials[0].replies):
                return cls(asker, rng, noun, trials, {}, trials[0].problems[0])
        rows = {one.subject.name: judged(one) for one in trials}
        if noun == "picture":
            rows["colours"] = seeing.greyed(rows["colours"], trials[0], [*rows.values()])
        section = cls(asker, rng, noun, trials, rows, "")
        section.able = frozenset(name for name, row in rows.items() if row.status == WORKS)
        section.use = section._use()
        return section

    @property
    def uses(self) -> bool:
        """Whether the pictures or sounds are used."""
        return self.use is not None and self.use.status == WORKS

    def _use(self) -> Finding:
        """By answers, by scenes, by what the model says itself, by log-probabilities, by answers that never change."""
        self._scenes, self._fits = Scenes(self.asker, self.noun), None
        self._likeness = Likeness(self.asker, self._scenes.questions()[:4], self.noun)
        shown = unused.used([*self.rows.values()], self.noun)
        if shown is not None and not self._undecided():
            return shown
        if shown is None and (denied := unused.denied(self.trials, self.noun)):
            return denied
        scenes, fits = self._scenes.used()
        if scenes.status == WORKS:
            self._fits = fits
        if shown is not None or scenes.status == WORKS:
            return shown or scenes
        if self._likeness.offered:
            likely = self._likeness.used()
            if likely.status != CANNOT_TELL:
                return likely
        return unused.constant(self.asker, self.rng, self.trials, self.noun)

    def _undecided(self) -> bool:
        return any(row in self.rows and self.rows[row].status == CANNOT_TELL for row in ("colours", "orientation"))

    def works(self, *subjects: Subject) -> Subject | None:
        """The first of the subjects whose questions the model answers."""
        return next((one for one in subjects if one.name in self.able), None)

    def findings(self) -> list[Finding]:
        """All rows, the use of the pictures or sounds first."""
        assert self.use is not None
        if not self.uses:
            return [self.use, *self.rows.values(), self._system()]
        if (lost := unused.sometimes(self.trials, self.noun)) is not None:
            self.rows[lost.name] = lost
        if self.noun == "sound":
            return [self.use, *self.rows.values(), self._same_text(BEEPS), self._system()]
        if self._fits is not None:
            for name in ("colours", "orientation"):
                if self.rows[name].status == CANNOT_TELL:
                    self.rows[name] = self._scenes.undone(name, self._fits)
        return [self.use, *self.rows.values(), *self._further()]

    def _further(self) -> list[Finding]:
        """The rows that need an ability, which the rows before have shown; log-probabilities where it is missing."""
        asker, rng, number = self.asker, self.rng, self.works(NUMBER)
        reads, shade = number or self.works(PLACE), SHADE if self.works(COLOUR) else None
        kept = self._same_text(NUMBER if number else SHADE)
        self.kept = kept.status == BROKEN
        rows = [seeing.small_text(asker, rng) if number else self._by_likeness("small text", Likeness.shrunk)]
        if rows[0].status == CANNOT_TELL and number:
            rows = [self._by_likeness("small text", Likeness.shrunk)]
        several = number or shade
        rows.append(
            seeing.two_pictures(asker, rng, several) if several else self._by_likeness("two pictures", Likeness.second)
        )
        rows.append(kept)
        if number and shade:
            rows.append(seeing.same_picture(asker, rng))
        rows.append(self._blank())
        if self.works(PLACE):
            rows += [seeing.edges(asker, rng), seeing.turned(asker, rng)]
        else:
            rows.append(self._by_likeness("EXIF orientation", Likeness.turned))
        if reads and shade:
            rows += seeing.kinds(asker, rng, reads)
        return [*rows, self._system()]

    def _blank(self) -> Finding:
        able = [one for one in self.trials if self.works(one.subject) and one.subject is not COUNT]
        best = max(able, key=lambda one: one.subject in (NUMBER, WORD), default=None)
        if best is not None:
            return seeing.blank(self.asker, best, self.rows[best.subject.name])
        return self._by_likeness("blank picture", Likeness.blank)

    def _same_text(self, subject: Subject) -> Finding:
        """One text about several pictures or sounds, by answers where the model can give them."""
        if self.works(COLOUR if subject is SHADE else subject):
            finding = seeing.kept_by_text(same_text(self.asker, self.rng, subject))
            if finding.status != CANNOT_TELL:
                return finding
        return self._by_likeness(f"same text, other {self.noun}", Likeness.kept)

    def _system(self) -> Finding:
        first = self.trials[0]
        medium = question(first.subject, drawn(first.subject)(first.truths[0])) if self.uses else Question("")
        finding = system_prompt(self.asker, self.rng, medium)
        if finding.status == CANNOT_TELL and self._likeness.offered and not self.kept:
            return self._likeness.system()
        return finding

    def _by_likeness(self, name: str, probe: Callable[[Likeness], Finding]) -> Finding:
        if self.kept and probe is not Likeness.kept:
            return unclear(name, "answers are kept for their text, so that log-probabilities tell nothing")
        if not self._likeness.offered:
            return unclear(name, "the model lacks the ability to answer such questions, and gives no log-probabilities")
        return replace(probe(self._likeness), name=name)
