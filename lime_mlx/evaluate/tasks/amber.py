"""AMBER: descriptions, and questions on existence, attributes and relations (Wang et al. 2023, arXiv 2311.07397)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import AMBER, picture_path, tagger_path, task_folder
from lime_mlx.evaluate.records import Material, Record, names
from lime_mlx.evaluate.scorers import tagger
from lime_mlx.evaluate.scorers.amber import Counts, Relation, describe
from lime_mlx.evaluate.scorers.answers import NO, YES
from lime_mlx.evaluate.scorers.metrics import LESS, MORE, Metric, by_split, ratio
from lime_mlx.evaluate.scorers.tagger import Tagger
from lime_mlx.files import parse_json, read_regular
from lime_mlx.spec import Choice, Range

from .base import Item, Task, drawn

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


@dataclass(frozen=True)
class Amber(Task):
    """`amber:ask=all,tokens=512`: the queries as they stand. ask: all, generative or discriminative.

    Precision, recall and F1 of questions are those of "no", as in the official program, whose parser takes exactly
    "Yes" or "No". Words of descriptions are compared exactly, so that their figures compare runs, but not with
    published ones (see `scorers.amber`). The AMBER score is (100 - CHAIR + F1) / 2, of the splits generative and
    discriminative.
    """

    name = AMBER
    scorers: ClassVar = {"ours": "ours", "official": "amber"}

    ask: Annotated[str, Choice("all", GENERATIVE, DISCRIMINATIVE)] = "all"
    tokens: Annotated[int, Range(1)] = 512

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        home = task_folder(data, self.name, [ANNOTATIONS])
        annotations, items = _entries(home / ANNOTATIONS, ("id", "type", "truth")), []
        for name, (where, query) in _entries(home / QUERIES, ("id", "image", "query")).items():
            if name not in annotations:
                raise DataError(f"{where}: id {name} is not in {ANNOTATIONS}.")
            items.append(self._item(name, query, *annotations[name]))
        return drawn([item for item in items if self._wanted(item)], limit, seed)

    def _item(self, name: str, query: Mapping[str, object], where: str, entry: Mapping[str, object]) -> Item:
        split = SPLITS.get(str(entry["type"]))
        if split is None:
            raise DataError(f"{where}: the type {entry['type']!r} is unknown; choose one of {', '.join(SPLITS)}.")
        image, text = str(query["image"]), str(query["query"])
        if split == GENERATIVE:
            lists = {key: entry.get(key, []) for key in ("truth", "hallu")}
            truth = {key: [str(word) for word in words] for key, words in lists.items() if isinstance(words, list)}
            if len(truth) < len(lists):
                raise DataError(f"{where}: truth and hallu of a description must be lists of words.")
            return Item(name, image, text, self.tokens, split, truth=truth)
        label = entry["truth"]
        if not isinstance(label, str) or label not in (YES, NO):
            raise DataError(f"{where}: the truth {label!r} is neither yes nor no.")
        return Item(name, image, text, 16, split, label)

    def _wanted(self, item: Item) -> bool:
        return self.ask == "all" or (item.split == GENERATIVE) == (self.ask == GENERATIVE)

    def source(self, data: Path | None, medium: str) -> Path:
        return picture_path(data, self.name, medium)

    def material(self, data: Path | None) -> Material:
        home = task_folder(data, self.name, [RELATION])
        try:
            relation = parse_json(read_regular(home / RELATION))
            return {
                "relation": {word: [*others] for word, others in relation.items()},
                "safe": read_regular(home / SAFE).split(),
                **tagger.material_of(tagger_path(data)),
            }
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{RELATION} or {SAFE} in {home} cannot be read ({error}).") from None

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        def figures(part: list[Record], split: str) -> list[Metric]:
            if split == GENERATIVE:
                return _described(part, *_material(material), tagger.of_material(material))
            return self.judged(part, split, scorer, positive=NO)

        metrics = by_split(records, figures)
        questions = [record for record in records if record["split"] != GENERATIVE]
        several = len({record["split"] for record in questions}) > 1
        return metrics + (figures(questions, DISCRIMINATIVE) if several else [])


def _material(material: Material) -> tuple[Relation, Collection[str]]:
    relation, safe = material.get("relation"), material.get("safe")
    if not isinstance(relation, dict) or not isinstance(safe, list):
        raise DataError("The stored word lists of AMBER are damaged; run the evaluation once more to write them.")
    return relation, safe


def _described(
    part: Sequence[Record], relation: Relation, safe: Collection[str], tagged: Tagger | None
) -> list[Metric]:
    """The figures of descriptions. tagged: says which words are nouns."""
    rows: list[Counts] = []
    for record in part:
        truth = record["truth"]
        rows.append(describe(record["text"], names(truth, "truth"), names(truth, "hallu"), relation, safe, tagged))

    def share(name: str, top: list[int], bottom: list[int], goal: int) -> Metric:
        return ratio(name, GENERATIVE, part, top, bottom, goal=goal)

    return [
        share("CHAIR", [row.chair_score for row in rows], [row.chair_num for row in rows], LESS),
        share("Cover", [row.cover_score for row in rows], [row.cover_num for row in rows], MORE),
        ratio("Hal", GENERATIVE, part, [1 - row.non_hallu for row in rows], goal=LESS, binary=True),
        share("Cog", [row.cog_score for row in rows], [row.cog_num for row in rows], LESS),
        ratio("length", GENERATIVE, part, [len(record["text"].split()) for record in part], unit="words"),
    ]


def _entries(file: Path, keys: tuple[str, ...]) -> dict[str, tuple[str, dict[str, object]]]:
    """Where each entry stands, and the entry, by id."""
    try:
        entries = parse_json(read_regular(file))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}): lime-mlx data get amber brings it.") from None
    by_id: dict[str, tuple[str, dict[str, object]]] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) and entries else [None], start=1):
        where = f"{file}: entry {number}"
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise DataError(f"{where} has no {', '.join(keys)}.")
        if (name := str(entry["id"])) in by_id:
            raise DataError(f"{where}: id {name} was used before.")
        by_id[name] = where, entry
    return by_id
