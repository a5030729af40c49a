"""Scores for captions (CHAIR, recall) and yes/no answers, with bootstrap intervals over scenes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from .habits import World
from .soundscape import SoundScene
from .world import PICTURES, Scene

_VERDICT = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


@lru_cache
def _named(world: World) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(world.kinds)})(?:e?s)?\b", re.IGNORECASE)


def mentions(text: str, world: World = PICTURES) -> list[str]:
    """The distinct kinds a text names (whole words, any case, plural or not), in order of first mention."""
    return list(dict.fromkeys(named(text, world)))


def named(text: str, world: World = PICTURES) -> list[str]:
    """The kind of every mention, in order."""
    return [found.lower() for found in _named(world).findall(text)]


def chair(texts: Sequence[str], scenes: Sequence[Scene | SoundScene | Iterable[str]], world: World = PICTURES) -> dict:
    """CHAIR of captions against the scenes they describe (a scene, or the names of what of `world` is there).

    Returns chair_s (share of captions with a hallucinated kind), chair_i (hallucinated over mentioned kinds),
    recall (covered over present kinds), and the counts of each caption as integer arrays (n,): mentioned,
    hallucinated, covered, present.
    """
    if len(texts) != len(scenes):
        raise ValueError(f"{len(texts)} captions for {len(scenes)} scenes")
    rows = []
    for text, scene in zip(texts, scenes, strict=False):
        known = isinstance(scene, Scene | SoundScene)
        named = set(mentions(text, scene.world if known else world))
        there = set(scene.kinds if known else scene)
        rows.append((len(named), len(named - there), len(named & there), len(there)))
    mentioned, hallucinated, covered, present = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return {
        "chair_s": _ratio((hallucinated > 0).sum(), len(rows)),
        "chair_i": _ratio(hallucinated.sum(), mentioned.sum()),
        "recall": _ratio(covered.sum(), present.sum()),
        "mentioned": mentioned,
        "hallucinated": hallucinated,
        "covered": covered,
        "present": present,
    }


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else 0.0


def yes_no(text: str) -> str:
    """The verdict of an answer: its first "yes" or "no" as a word, else "unknown"."""
    found = _VERDICT.search(text)
    return found.group(1).lower() if found else "unknown"


def bootstrap(
    numerators: Sequence[float], denominators: Sequence[float], samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of sum(numerators) / sum(denominators), resampling scenes; nan without data."""
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    if top.shape != bottom.shape:
        raise ValueError(f"{len(top)} numerators for {len(bottom)} denominators")
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(samples if len(top) else 0):
        drawn = rng.integers(len(top), size=len(top))
        total = bottom[drawn].sum()
        if total > 0:
            ratios.append(top[drawn].sum() / total)
    if not ratios:
        return float("nan"), float("nan")
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)
