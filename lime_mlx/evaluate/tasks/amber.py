"""AMBER: descriptions, and questions on existence, attributes and relations (Wang et al. 2023, arXiv 2311.07397)."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lime_mlx.errors import DataError
from lime_mlx.evaluate import amber, answers
from lime_mlx.evaluate.answers import NO, YES
from lime_mlx.evaluate.metrics import LESS, MORE, by_split, ratio, yes_no

from .base import Item, Task, drawn, folder, picture

ANNOTATIONS, QUERIES, RELATION, SAFE = "annotations.json", "query/query_all.json", "relation.json", "safe_words.txt"
GENERATIVE, DISCRIMINATIVE = "generative", "discriminative"
SPLITS = {
    "generative": GENERATIVE,
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "attribute-state",
    "discriminative-attribute-number": "attribute-number",
    "discriminative-attribute-action": "attribute-action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
ASK = ("all", GENERATIVE, DISCRIMINATIVE)


@dataclass(frozen=True)
class Amber(Task):
    """`amber:ask=all,tokens=512`: the queries as they stand. ask: all, generative or discriminative.

    Discriminative figures are of "no", as the official program's; its reading takes exactly "Yes" or "No". The
    descriptions' words are compared exactly, so their figures compare runs, but not with published ones (see `amber`).
    The AMBER score is (100 - CHAIR + F1) / 2, of the splits generative and discriminative.
    """

    name = "amber"
    scorers = ("ours", "official")

    ask: str = "all"
    tokens: int = 512

    def __post_init__(self):
        if self.ask not in ASK:
            raise DataError(f"amber: ask is {self.ask!r}; choose one of {', '.join(ASK)}.")
        if self.tokens < 1:
            raise DataError(f"amber: tokens is {self.tokens}; it must be at least 1.")

    def items(self, data, limit=None, seed=0):
        home = folder(data, self.name, [ANNOTATIONS])
        known, found = _entries(home / ANNOTATIONS, ("id", "type", "truth")), []
        for name, (where, query) in _entries(home / QUERIES, ("id", "image", "query")).items():
            if name not in known:
                raise DataError(f"{where}: id {name} is not in {ANNOTATIONS}.")
            found.append(self._item(name, query, *known[name]))
        return drawn([item for item in found if self._wanted(item)], limit, seed)

    def _item(self, name: str, query: dict, where: str, entry: dict) -> Item:
        split = SPLITS.get(str(entry["type"]))
        if split is None:
            raise DataError(f"{where}: the type {entry['type']!r} is unknown; known are {', '.join(SPLITS)}.")
        asked = (name, query["image"], query["query"])
        if split == GENERATIVE:
            truth = {key: entry.get(key, []) for key in ("truth", "hallu")}
            if not all(isinstance(words, list) for words in truth.values()):
                raise DataError(f"{where}: truth and hallu of a description must be lists of words.")
            return Item(*asked, self.tokens, split, truth=truth)
        if entry["truth"] not in (YES, NO):
            raise DataError(f"{where}: the truth {entry['truth']!r} is neither yes nor no.")
        return Item(*asked, 16, split, entry["truth"])

    def _wanted(self, item: Item) -> bool:
        return self.ask == "all" or (item.split == GENERATIVE) == (self.ask == GENERATIVE)

    def source(self, data, medium):
        return picture(data, self.name, medium)

    def material(self, data):
        home = folder(data, self.name, [RELATION])
        try:
            relation = json.loads((home / RELATION).read_text(encoding="utf-8"))
            return {
                "relation": {word: [*others] for word, others in relation.items()},
                "safe": (home / SAFE).read_text(encoding="utf-8").split(),
            }
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{RELATION} or {SAFE} in {home} cannot be read ({error}).") from None

    def metrics(self, records, scorer, material):
        read = answers.amber if scorer == "official" else answers.ours

        def figures(part, split):
            if split == GENERATIVE:
                return self._described(part, material)
            return yes_no(part, [read(record["text"]) for record in part], split, positive=NO)

        found = by_split(records, figures)
        asked = [record for record in records if record["split"] != GENERATIVE]
        return found + (figures(asked, DISCRIMINATIVE) if len({record["split"] for record in asked}) > 1 else [])

    def _described(self, part: list, material: dict) -> list:
        rows = [Counter(amber.caption(r["text"], r["truth"]["truth"], r["truth"]["hallu"], **material)) for r in part]
        share = lambda name: ([row[f"{name}_score"] for row in rows], [row[f"{name}_num"] for row in rows])  # noqa: E731
        return [
            ratio("CHAIR", GENERATIVE, part, *share("chair"), goal=LESS),
            ratio("Cover", GENERATIVE, part, *share("cover"), goal=MORE),
            ratio("Hal", GENERATIVE, part, [1 - row["non_hallu"] for row in rows], goal=LESS, binary=True),
            ratio("Cog", GENERATIVE, part, *share("cog"), goal=LESS),
            ratio("length", GENERATIVE, part, [len(record["text"].split()) for record in part], unit="words"),
        ]


def _entries(file: Path, keys: tuple[str, ...]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Where each entry stands, and the entry, by id."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}): lime-mlx data get amber brings it.") from None
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for place, entry in enumerate(entries if isinstance(entries, list) and entries else [None], start=1):
        where = f"{file}: entry {place}"
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise DataError(f"{where} has no {', '.join(keys)}.")
        if (name := str(entry["id"])) in found:
            raise DataError(f"{where}: id {name} was used before.")
        found[name] = where, entry
    return found
