"""Two built-in worlds with known content: drawn pictures and synthesised sounds, and what is said about them."""

from .habits import REGIMES, World
from .language import ANSWERS, PROMPTS, SOUND_PROMPTS, Question, answer, caption, questions
from .soundscape import SOUNDS, SoundEvent, SoundScene, make_sound, perform, write_wav
from .world import COMPANION, KINDS, PAIRS, PICTURES, SETTINGS, Object, Scene, broken, make_scene

__all__ = [
    "ANSWERS",
    "COMPANION",
    "KINDS",
    "PAIRS",
    "PICTURES",
    "PROMPTS",
    "REGIMES",
    "SETTINGS",
    "SOUNDS",
    "SOUND_PROMPTS",
    "Object",
    "Question",
    "Scene",
    "SoundEvent",
    "SoundScene",
    "World",
    "answer",
    "broken",
    "caption",
    "make_scene",
    "make_sound",
    "perform",
    "questions",
    "write_wav",
]
