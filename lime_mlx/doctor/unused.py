"""Are the pictures or sounds used at all? Asked where no answer is right more often than by luck."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from . import reading
from .asking import Asker, Reply
from .findings import BROKEN, WORKS, Finding, unclear
from .luck import ABLE, LIMIT, at_least
from .trials import Trials, drawn, question, same_text

ABSENT = "the {} does not reach the model"
KEPT_ALWAYS = "answers are kept from earlier questions, whatever the {} (cache)"
UNUSED = "the {} is not used"


def used(findings: Sequence[Finding], noun: str) -> Finding | None:
    """That the picture or sound is used, as far as a finding shows it: answers follow what it shows.

    That of the least luck speaks for all. None where none shows it.
    """
    shown = [one for one in findings if one.luck is not None and one.status != "cannot tell"]
    if not shown:
        return None
    best = min(shown, key=lambda one: one.luck or 0.0)
    names = ", ".join(one.name for one in shown)
    return Finding(f"{noun} used", WORKS, f"the answers follow the {noun} ({names})", best.luck)


def denied(trials: Sequence[Trials], noun: str) -> Finding | None:
    """That the picture or sound is lost, where the model itself says that it gets none."""
    replies = [reply for one in trials for reply in one.replies]
    claims = sum(reading.says_absent(reply.text) for reply in replies)
    luck = at_least(claims, len(replies), 1 - ABLE)
    if luck > LIMIT or claims < len(replies) / 2:
        return None
    fault = ABSENT.format(noun)
    unable = sum(reading.says_unable(reply.text) for reply in replies) > claims / 2
    says = f"that it cannot take {noun}s" if unable else f"that there is no {noun}"
    return Finding(f"{noun} used", BROKEN, f"{fault}: {claims} of {len(replies)} answers say {says}", luck, fault)


def sometimes(trials: Sequence[Trials], noun: str) -> Finding | None:
    """That the picture or sound is lost in some requests, where a model that uses it says at times that there is none.

    One that gets it says so in at most 1 of 50 answers.
    """
    replies = [reply for one in trials for reply in one.replies]
    claims = sum(reading.says_absent(reply.text) and not reading.says_unable(reply.text) for reply in replies)
    luck = at_least(claims, len(replies), 0.02)
    if luck > LIMIT:
        return None
    fault = f"the {noun} is lost in some requests"
    reason = f"{fault}: {claims} of {len(replies)} answers say that there is none"
    return Finding(f"{noun} in every request", BROKEN, reason, luck, fault)


def unable(trials: Sequence[Trials]) -> bool:
    """Whether most answers say that the model cannot see, or cannot hear."""
    replies = [reply for one in trials for reply in one.replies]
    return sum(reading.says_unable(reply.text) for reply in replies) > len(replies) / 2


def constant(asker: Asker, rng: random.Random, trials: Sequence[Trials], noun: str) -> Finding:
    """Whether each text has one answer, whatever the picture or sound; and if so, where that comes from.

    An answer that is the same about different inputs says nothing of a model that gives none, or always the same. So
    the answers of at least three texts must be constant, each must be an answer, and not all may be alike. If answers
    followed the input, n of them that fall on k options would agree with a chance of k^(1-n).
    """
    name = f"{noun} used"
    bare, kept, luck, firsts, hits = 0, [], 1.0, 1.0, 0
    for one in trials:
        asked = same_text(asker, rng, one.subject)
        words = {_words(reply) for reply in asked.replies}
        if len(words) > 1 or any(reading.refuses(reply.text) for reply in asked.replies):
            continue
        kept.append(words.pop())
        luck *= len(one.subject.options) ** (1 - len(asked.replies))
        without = asker.marked(
            replace(question(one.subject, drawn(one.subject)(asked.truths[0])), pictures=(), sounds=())
        )
        bare += _words(without) == kept[-1]
        firsts /= len(one.subject.options)
        hits += one.readings[0] == one.truths[0] and len({_words(reply) for reply in one.replies}) == 1
    if len(kept) < 3 or len(set(kept)) < 2:
        return unclear(name, f"the model lacks the ability to answer any question about the {noun}s")
    if hits >= 3 and firsts <= LIMIT:
        fault = KEPT_ALWAYS.format(noun)
        return Finding(name, BROKEN, f"{fault}: the first answers are right, all later ones repeat them", firsts, fault)
    fault = (ABSENT if bare == len(kept) else UNUSED).format(noun)
    same = "and without any" if bare == len(kept) else "but not without one"
    reason = f"{fault}: {len(kept)} questions have the same answer for every {noun}, {same}"
    return Finding(name, BROKEN, reason, luck, fault)


def _words(reply: Reply) -> str:
    """An answer without the mark of its question."""
    return re.sub(r"\[?request [a-z]{6}\]?", "", reading.plain(reading.spoken(reply.text))).strip()
