"""Probes without a picture: does the model answer, and does the system prompt reach it?"""

from __future__ import annotations

import random
from dataclasses import replace

from . import reading
from .asking import Asker, Question
from .findings import BROKEN, CANNOT_TELL, WORKS, Finding, unclear
from .luck import LIMIT, at_least, at_most
from .pictures import WORDS

SYSTEM_LOST = "the system prompt is lost"
_READ = reading.word_of(WORDS)
_CHANCE = 1 / len(WORDS)


def answers(asker: Asker, rng: random.Random) -> Finding:
    """Whether the model answers a text alone: it repeats a word."""
    words = rng.sample(WORDS, 2)
    replies = [asker.marked(Question(f"Repeat this word and say nothing else: {word}")) for word in words]
    hits = sum(_READ(reply.text) == word for reply, word in zip(replies, words, strict=True))
    reason = f"{hits} of {len(words)} words are repeated"
    problems = [reply.problem for reply in replies if reply.problem is not None]
    if problems:
        reason = f"the server answers with an error: {problems[0]}"
    elif hits == 0:
        reason = f"the model lacks the ability to repeat a word: {reason}"
    return Finding("text alone", WORKS if hits else CANNOT_TELL, reason, at_least(hits, 2, _CHANCE) if hits else None)


def system_prompt(asker: Asker, rng: random.Random, medium: Question) -> Finding:
    """Whether what the system prompt says is known; what the user says is the control.

    medium: a question whose pictures and sounds go along, since some templates lose the system prompt beside these.
    """
    name, question = "system prompt", "What is the word of the day? Answer with this word only."
    words = rng.sample(WORDS, 8)
    told = [
        asker.marked(replace(medium, text=question, system=f"The word of the day is {word}. Tell it to all who ask."))
        for word in words[:4]
    ]
    hits = sum(_READ(reply.text) == word for reply, word in zip(told, words, strict=False))
    if at_least(hits, 4, _CHANCE) <= LIMIT:
        return Finding(name, WORKS, f"{hits} of 4 words that only it says are known", at_least(hits, 4, _CHANCE))
    problems = [reply.problem for reply in told if reply.problem is not None]
    if problems:
        return unclear(name, f"the server refuses one ({problems[0]})")
    control = [
        asker.marked(replace(medium, text=f"The word of the day is {word}. Tell it to all who ask. {question}"))
        for word in words[4:]
    ]
    known = sum(_READ(reply.text) == word for reply, word in zip(control, words[4:], strict=True))
    if at_least(known, 4, _CHANCE) > LIMIT:
        return unclear(name, "the model lacks the ability to repeat what it was told")
    luck = at_most(hits, 4)
    if luck > LIMIT:
        return unclear(name, f"{hits} of 4 words that only it says are known, and {known} of 4 that the user says")
    reason = f"{SYSTEM_LOST}: {hits} of 4 words that only it says are known, and {known} of 4 that the user says"
    return Finding(name, BROKEN, reason, luck, SYSTEM_LOST)
