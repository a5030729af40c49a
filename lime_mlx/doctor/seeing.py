"""Probes of sight by answers: each asks the same question about several pictures whose truth was drawn by lot."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import sqrt

from PIL import Image

from . import pictures, reading
from .asking import Asker, Question
from .findings import BROKEN, CANNOT_TELL, WORKS, Answers, Fault, Finding, compared, explained, unclear
from .luck import LIMIT, at_least, at_most, by_lot
from .subjects import GREY, NUMBER, PLACE, SHADE, TURNS, Subject, achromatic
from .trials import SUBJECTS, Trials, drawn, tried

KEPT_BY_TEXT = "an answer is kept for its text, whatever the picture (cache)"
KEPT_BY_PICTURE = "an answer is kept for its picture, whatever the question (cache)"
SECOND_IGNORED, FIRST_IGNORED = "the second picture is ignored", "the first picture is ignored"
EXCHANGED = "two pictures are exchanged"
SHRUNK = "the picture is shrunk"
EXIF_IGNORED = "the orientation in EXIF is ignored"
# The heights of digits, in pixels, by the size of their picture. Those of 40 in 1024 are 9 high where a model takes 224
# pixels, and 4 high where a picture was shrunk to 100.
HEIGHTS = {pictures.LARGE: (280, 160, 100, 64, 40, 20, 10), pictures.SMALL: (40, 24, 16, 12, 10, 8, 6, 5, 4)}
SMALLEST_USUAL = 40
# How high a digit must be to be read, where that could not be measured; and how sharp the models in use are at least.
USUALLY_NEEDED, SHARP = 6, 150
ONE_PICTURE = r"only (?:one|a single)|no second|second (?:picture|image) (?:is |was )?(?:missing|not)|just one"
# Which turn each orientation of EXIF undoes.
_STORED_TURNS = {
    2: "the picture is mirrored",
    3: "the picture is rotated by 180 degrees",
    6: "the picture is rotated by 270 degrees",
    8: "the picture is rotated by 90 degrees",
}


def greyed(colours: Finding, trials: Trials, others: Sequence[Finding]) -> Finding:
    """Colours that are lost: only black, white and grey are named, by a model that sees otherwise."""
    sees = any(finding.status == WORKS for finding in others)
    luck = at_most(trials.answers.hits, len(trials.truths))
    if colours.status == CANNOT_TELL and sees and trials.answers.hits == 0 and achromatic(trials.readings):
        return Finding(colours.name, BROKEN, f"{GREY}: no answer names a colour", luck, GREY)
    return colours


@dataclass(frozen=True)
class Ladder:
    """Digits of falling height: the smallest that were read, the largest that were not, and the chance of luck.

    0 where there is none.
    """

    smallest: int
    failed: int
    luck: float

    @property
    def border(self) -> float:
        """The height at which reading ends, in pixels, between the two."""
        return sqrt(self.smallest * self.failed)


def _ladder(asker: Asker, rng: random.Random, size: int) -> Ladder:
    """Ask for digits in a square picture until they are not read any more."""
    smallest, luck = 0, 1.0
    for height in HEIGHTS[size]:
        count = 5 if height == SMALLEST_USUAL else 4
        answers = tried(asker, rng, NUMBER, count, partial(_small, size, height)).answers
        if answers.luck <= LIMIT:
            smallest, luck = height, answers.luck
        elif at_most(answers.hits, count) <= LIMIT:
            return Ladder(smallest, height, at_most(answers.hits, count))
    return Ladder(smallest, 0, luck)


def small_text(asker: Asker, rng: random.Random) -> Finding:
    """The smallest digits that are read in a large picture; asked of a model that reads large ones.

    Where those of `SMALLEST_USUAL` are lost, small pictures tell what the model itself needs: pictures of that size are
    not shrunk. A picture of size s whose reading ends at H is as sharp as one of s h / H pixels, where it ends at h.
    """
    name, size = "small text", pictures.LARGE
    large = _ladder(asker, rng, size)
    if not large.failed:
        if not large.smallest:
            return unclear(name, f"too few digits are read in a picture of {size} x {size} pixels")
        return Finding(name, WORKS, f"digits {large.smallest} pixels high of {size} are read", large.luck)
    if not large.smallest:
        large = replace(large, smallest=size // 2)
    own = _ladder(asker, rng, pictures.SMALL) if large.failed >= SMALLEST_USUAL else Ladder(0, 0, 1.0)
    needed = own.border if own.smallest and own.failed else USUALLY_NEEDED
    sharp = round(size * needed / large.border / 10) * 10
    lost = f"digits {large.failed} pixels high of {size} are not read: as sharp as about {sharp} pixels"
    if large.failed >= SMALLEST_USUAL and sharp < SHARP:
        return Finding(name, BROKEN, f"{SHRUNK} to about {sharp} pixels: {lost}", large.luck, SHRUNK)
    return Finding(name, WORKS, lost, large.luck)


@lru_cache(128)
def _small(size: int, height: int, option: str) -> bytes:
    return pictures.png(pictures.text(option, height, size).convert("L"))


def two_pictures(asker: Asker, rng: random.Random, subject: Subject) -> Finding:
    """Two pictures in one question, of which it names the first or the second."""
    name, make = "two pictures", drawn(subject)
    order, size = list(subject.options), len(subject.options)
    firsts, steps = by_lot(rng, order, 8), by_lot(rng, range(1, size), 8)
    wanted = by_lot(rng, (False, True), 8)  # whether it names the second

    def shown(trial: int, first: str) -> tuple[str, str]:
        """Both pictures of a trial."""
        return first, order[(order.index(first) + steps[trial]) % size]

    pairs = [shown(trial, first) for trial, first in enumerate(firsts)]
    replies = [
        asker.marked(
            Question(
                f"You get two pictures. {subject.asks('the second picture' if second else 'the first picture')}",
                (make(pair[0]), make(pair[1])),
            )
        )
        for pair, second in zip(pairs, wanted, strict=True)
    ]
    problems = [reply.problem for reply in replies if reply.problem is not None]
    if len(problems) == len(replies):
        return unclear(name, f"the server takes one picture at a time ({problems[0]})")
    readings = [_indexed(reply.text, subject) for reply in replies]
    # The order in which the first pictures came decides what is right about the second ones, too.
    answers = Answers(order, firsts, readings)
    faults: dict[str, Fault] = {
        SECOND_IGNORED: lambda trial, first: frozenset({first, "one"} if wanted[trial] else {first}),
        FIRST_IGNORED: lambda trial, first: frozenset({shown(trial, first)[1], "one"}),
        EXCHANGED: lambda trial, first: frozenset({shown(trial, first)[not wanted[trial]]}),
    }
    right: Fault = lambda trial, first: frozenset({shown(trial, first)[wanted[trial]]})  # noqa: E731
    finding = explained(name, answers, faults, "to tell a first picture from a second one", right=right)
    if finding.fault in (SECOND_IGNORED, FIRST_IGNORED):
        return _both_named(asker, rng, subject, finding)
    return finding


def _indexed(answer: str, subject: Subject) -> str | None:
    """What an answer names, or "one" where it says that there is no second picture."""
    text = reading.plain(reading.spoken(answer))
    return "one" if reading.matches(ONE_PICTURE, text) or reading.says_absent(answer) else subject.read(answer)


def _both_named(asker: Asker, rng: random.Random, subject: Subject, finding: Finding) -> Finding:
    """The finding, unless the model names what both pictures show when it need not tell them apart."""
    every = reading.numbers if subject.name == NUMBER.name else reading.colours
    noun, make, hits = ("digits" if subject.name == NUMBER.name else "colours"), drawn(subject), 0
    pairs = [rng.sample(list(subject.options), 2) for _ in range(4)]
    for a, b in pairs:
        reply = asker.marked(Question(f"You get two pictures. Name the {noun} that they show.", (make(a), make(b))))
        hits += every(reply.text) & set(subject.options) == {a, b}
    if at_least(hits, len(pairs), 1 / (len(subject.options) - 1)) <= LIMIT:
        return unclear(finding.name, "the model names what both pictures show, but not which is the first")
    return finding


def kept_by_text(trials: Trials) -> Finding:
    """One text about several inputs, to a model that answers well under other texts: is it always one answer?"""
    name, answers = f"same text, other {trials.subject.noun}", trials.answers
    luck = at_most(answers.hits, len(answers.truths))
    if len({reply.text for reply in trials.replies}) == 1 and luck <= LIMIT:
        return Finding(name, BROKEN, f"{KEPT_BY_TEXT}: {answers.counted}, and all are alike", luck, KEPT_BY_TEXT)
    return explained(name, answers, {}, trials.subject.lacks)


@lru_cache(64)
def _on_paper(digit: str, paper: str) -> bytes:
    light = paper in ("white", "yellow", "green")
    ink = pictures.BLACK if light else pictures.WHITE
    return pictures.png(pictures.text(digit, 150, ink=ink, paper=pictures.RGB[paper]))


def same_picture(asker: Asker, rng: random.Random) -> Finding:
    """Two questions about one picture: its digit, then the colour behind it."""
    name = "same picture, other text"
    papers, digits = by_lot(rng, SHADE.options, 5), by_lot(rng, NUMBER.options, 5)
    readings, kept = list[str | None](), 0
    for digit, paper in zip(digits, papers, strict=True):
        file = _on_paper(digit, paper)
        first = asker.marked(Question(NUMBER.asks(), (file,)))
        second = asker.marked(Question(SHADE.asks("the background of the picture"), (file,)))
        kept += first.text == second.text and NUMBER.read(second.text) == digit
        readings.append(SHADE.read(second.text))
    answers = Answers(SHADE.options, papers, readings)
    luck = at_most(answers.hits, len(papers))
    if kept >= 4 and luck <= LIMIT:
        reason = f"{KEPT_BY_PICTURE}: {kept} of {len(papers)} answers are those to another question"
        return Finding(name, BROKEN, reason, luck, KEPT_BY_PICTURE)
    return explained(name, answers, {}, "to name the colour behind a digit")


def blank(asker: Asker, trials: Trials, finding: Finding) -> Finding:
    """The question of a subject about a blank picture: is the answer that of the others?"""
    file = pictures.png(pictures.solid(pictures.WHITE).convert("L"))
    reply = asker.marked(Question(trials.subject.asks(), (file,)))
    answer = trials.subject.read(reply.text)
    differ = sum(given != answer for given in trials.readings)
    reason = (
        f"{differ} of {len(trials.truths)} answers about {trials.subject.name} differ from that about a blank picture"
    )
    return Finding("blank picture", WORKS, reason, finding.luck)


def edges(asker: Asker, rng: random.Random) -> Finding:
    """Dots at the very edge, of a model that sees those that lie further inside: of all edges, or of one."""

    def make(option: str) -> bytes:
        return pictures.png(pictures.place(option, reach=1.0))

    trials = tried(asker, rng, PLACE, 16, make)
    answers = trials.answers
    for side in PLACE.options:
        hits = [
            reading == truth for reading, truth in zip(answers.readings, answers.truths, strict=True) if truth == side
        ]
        luck = len(PLACE.options) * at_most(sum(hits), len(hits))
        if luck <= LIMIT and answers.luck <= LIMIT:
            fault = f"the {side} edge is cut off"
            return Finding("edges", BROKEN, f"{fault}: no dot there is seen, {answers.counted}", luck, fault)
    return compared("edges", answers, "the edges are cut off", trials.problems, minor=False)


def turned(asker: Asker, rng: random.Random) -> Finding:
    """Photographs that are stored turned, with EXIF that says so."""
    orientations = [6, 8, 3, 6, 8, 3, 6, 8]
    truths = by_lot(rng, PLACE.options, len(orientations))
    files = [pictures.jpeg(pictures.place(truth), o) for truth, o in zip(truths, orientations, strict=True)]
    replies = [asker.marked(Question(PLACE.asks(), (file,))) for file in files]
    faults: dict[str, Fault] = {EXIF_IGNORED: lambda trial, truth: TURNS[_STORED_TURNS[orientations[trial]]][truth]}
    finding = explained("EXIF orientation", Trials(PLACE, truths, replies).answers, faults, PLACE.lacks)
    return replace(finding, minor=finding.status == BROKEN)


def kinds(asker: Asker, rng: random.Random, base: Subject) -> list[Finding]:
    """Pictures of unusual kinds, about which a subject is asked that works otherwise."""
    findings = []
    for name, (fault, _) in KINDS.items():
        subject, count = (SHADE, 5) if name == "tiny picture" else (base, 4 if base is NUMBER else 6)
        trials = tried(asker, rng, subject, count, partial(_kind, name, subject.name))
        findings.append(compared(name, trials.answers, fault, trials.problems))
    return findings


def _red(picture: Image.Image) -> Image.Image:
    """Black digits in red, which shows on any colour that a server may put behind them."""
    red, green, blue = picture.split()
    return Image.merge("RGB", (red.point(lambda level: max(level, 220)), green, blue))


# What each kind is called, what is wrong where it is not seen, and how a picture becomes one.
KINDS: Mapping[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "tiny picture": ("tiny pictures are not seen", lambda p: pictures.png(p.resize((12, 12)))),
    "huge picture": ("huge pictures are not seen", lambda p: pictures.png(p.convert("L").resize((2048, 2048)))),
    "grey picture": ("pictures with one channel are not seen", lambda p: pictures.png(p.convert("L"))),
    "transparent picture": ("transparency is lost", lambda p: pictures.png(pictures.see_through(_red(p)))),
}


def _shown(subject: str, option: str) -> Image.Image:
    picture = SUBJECTS[subject].draw(option)
    assert isinstance(picture, Image.Image)
    return picture


@lru_cache(128)
def _kind(name: str, subject: str, option: str) -> bytes:
    return KINDS[name][1](_shown(subject, option))
