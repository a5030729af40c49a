"""A built-in world of drawn pictures with known content: what is said of it, and how to score that."""

from .language import ANSWERS, PROMPTS, Question, answer, caption, questions
from .score import bootstrap, chair, mentions, yes_no
from .world import COMPANION, KINDS, PAIRS, REGIMES, SETTINGS, Object, Scene, broken, make_scene

__all__ = [
    "ANSWERS",
    "COMPANION",
    "KINDS",
    "PAIRS",
    "PROMPTS",
    "REGIMES",
    "SETTINGS",
    "Object",
    "Question",
    "Scene",
    "answer",
    "bootstrap",
    "broken",
    "caption",
    "chair",
    "make_scene",
    "mentions",
    "questions",
    "yes_no",
]
