"""Which kinds a scene can have, which of them go together, and the laws by which a scene draws its kinds.

Regimes
- uncorrelated: setting, number and kinds are uniform and independent.
- ordinary: the law of uncorrelated with other draws, for evaluation.
- skewed: kinds come in habits. Each member of a pair brings the other with probability 0.95, some pairs and kinds
  are more frequent than others (popularity), and a setting makes some kinds likelier (home).
- adversarial: one pair (sometimes two) is broken: one member is present, the other is not. The rest is drawn as in
  uncorrelated, given that it breaks no further pair and never brings the missing companion back.
Beside these, `empty` scenes have a setting, and no kinds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

REGIMES = ("uncorrelated", "skewed", "adversarial", "ordinary")
EMPTY = "empty"

# both members, given at least one: then each brings the other with probability 0.95
TOGETHER = 0.95 / (2 - 0.95)
AT_HOME = 2.5


@dataclass(frozen=True, eq=False)
class World:
    """Kinds, the pairs that they form, and how often they occur.

    `medium` is what a scene is ("picture", "sound"); `popularity` weighs a pair, by its first member, or a kind
    without companion in the skewed world, and is multiplied for the kinds in `home` of the setting; a scene has at
    most `most` kinds.
    """

    medium: str
    kinds: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    settings: tuple[str, ...]
    popularity: Mapping[str, float]
    most: int
    home: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def companion(self) -> dict[str, str]:
        """The other member of the pair, for each kind that has one."""
        return {a: b for pair in self.pairs for a, b in (pair, pair[::-1])}

    def broken(self, kinds: Collection[str]) -> set[str]:
        """The missing companions: kinds that are absent although the other member of their pair is present."""
        companion = self.companion
        return {companion[kind] for kind in kinds if kind in companion and companion[kind] not in kinds}

    def choose(self, rng: random.Random, regime: str) -> tuple[str, list[str]]:
        """A setting and 2 to `most` distinct kinds, by the law of the regime; no kinds in an empty scene."""
        if regime == EMPTY:
            return rng.choice(self.settings), []
        setting, count = rng.choice(self.settings), rng.randint(2, self.most)
        if regime == "skewed":
            return setting, self._skewed(rng, setting, count)
        if regime == "adversarial":
            return setting, self._adversarial(rng, count)
        return setting, rng.sample(self.kinds, count)

    def habits(self) -> tuple[Counter[str], Counter[tuple[str, str]]]:
        """How often, in 4000 skewed scenes, each kind occurs and each ordered couple of kinds occurs together."""
        return self._habits

    @cached_property
    def _habits(self) -> tuple[Counter[str], Counter[tuple[str, str]]]:
        rng = random.Random("habits")
        single: Counter[str] = Counter()
        couple: Counter[tuple[str, str]] = Counter()
        for _ in range(4000):
            _, kinds = self.choose(rng, "skewed")
            single.update(kinds)
            couple.update((a, b) for a in kinds for b in kinds if a != b)
        return single, couple

    def _skewed(self, rng: random.Random, setting: str, count: int) -> list[str]:
        home = self.home.get(setting, ())
        weights = {unit: w * (AT_HOME if unit in home else 1.0) for unit, w in self.popularity.items()}
        kinds: list[str] = []
        while len(kinds) < count:
            units = [unit for unit in weights if unit not in self.companion or count - len(kinds) > 1]
            unit = rng.choices(units, [weights[u] for u in units])[0]
            del weights[unit]
            if unit not in self.companion:
                kinds.append(unit)
            elif rng.random() < TOGETHER:
                kinds += [unit, self.companion[unit]]
            else:
                kinds.append(rng.choice((unit, self.companion[unit])))
        return kinds

    def _adversarial(self, rng: random.Random, count: int) -> list[str]:
        pairs = rng.sample(self.pairs, 2 if rng.random() < 0.25 else 1)
        partners = [rng.choice(pair) for pair in pairs]
        missing = {self.companion[kind] for kind in partners}
        others = [kind for kind in self.kinds if kind not in missing and kind not in partners]
        while True:
            kinds = partners + rng.sample(others, count - len(partners))
            if self.broken(kinds) == missing:
                return kinds


def check_regime(regime: str) -> None:
    """Raises ValueError for an unknown regime."""
    if regime not in (*REGIMES, EMPTY):
        raise ValueError(f"unknown regime {regime!r}; choose from {', '.join((*REGIMES, EMPTY))}")
