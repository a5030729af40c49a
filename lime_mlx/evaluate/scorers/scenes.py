"""The kinds that a text about a drawn picture or a synthesised sound names."""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from lime_mlx.scenes import PICTURES, World


class KindCounts(NamedTuple):
    """mentioned, hallucinated, covered, present: numbers of distinct kinds, as CHAIR counts objects."""

    mentioned: int
    hallucinated: int
    covered: int
    present: int


@lru_cache
def _pattern(world: World) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])({'|'.join(world.kinds)})(?:e?s)?(?![^\W_])", re.IGNORECASE)


def mentions(text: str, world: World = PICTURES) -> list[str]:
    """The kind of every mention (whole words, any case, plural or not), in order."""
    return [word.lower() for word in _pattern(world).findall(text)]


def kinds_named(text: str, world: World = PICTURES) -> list[str]:
    """The distinct kinds that a text names, in the order of first mention."""
    return list(dict.fromkeys(mentions(text, world)))


def count_kinds(text: str, truth: Collection[str], world: World = PICTURES) -> KindCounts:
    """The counts of one caption; truth: the kinds that are in the picture or sound."""
    named, present = set(mentions(text, world)), set(truth)
    return KindCounts(len(named), len(named - present), len(named & present), len(present))
