"""CHAIR: objects of COCO that a description names but the picture lacks (Rohrbach et al. 2018, arXiv 1809.02156)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import (
    CHAIR,
    IMAGES,
    SYNONYMS,
    WHOLE_TABLE,
    object_tables,
    picture_path,
    tagger_path,
    task_folder,
)
from lime_mlx.evaluate.records import Material, Record, names
from lime_mlx.evaluate.scorers import tagger
from lime_mlx.evaluate.scorers.chair import ObjectFinder, read_synonyms
from lime_mlx.evaluate.scorers.metrics import Metric, captions
from lime_mlx.files import parse_json, read_regular
from lime_mlx.media.formats import is_picture_name
from lime_mlx.spec import Range

from .base import Item, Task, drawn
from .pope import Pope

REQUEST = "Please describe this image in detail."


@dataclass(frozen=True)
class Chair(Task):
    """`chair:pictures=pope,tokens=512`: a detailed description of each picture.

    pictures: pope, the 500 of POPE's COCO questions; all, those in DATA/images that are named as COCO names them and
    have known objects. tokens: of the longest description. The official scorer is the first program (with the base
    forms of pattern), wordnet that of later papers; each has its own sets of objects.
    """

    name = CHAIR
    inputs = "photographs"
    scorers: ClassVar = {"ours": "ours", "official": "pattern", "wordnet": "wordnet"}

    pictures: Literal["pope", "all"] = "pope"
    tokens: Annotated[int, Range(1)] = 512

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        truths = read_truths(task_folder(data, self.name, [object_tables(Path())[WHOLE_TABLE].name]))
        if self.pictures == "pope":
            files = list(dict.fromkeys(item.medium for item in Pope(split="random").items(data)))
        else:
            files = _coco_pictures((data or Path()) / IMAGES, truths)
        if unknown := [name for name in files if picture_number(name) not in truths]:
            raise DataError(f"The objects of {unknown[0]} are not known; lime-mlx data get chair brings the tables.")
        items = [Item(name, name, REQUEST, self.tokens, truth=truths[picture_number(name)]) for name in files]
        return drawn(items, limit, seed)

    def source(self, data: Path | None, medium: str) -> Path:
        return picture_path(data, self.name, medium)

    def material(self, data: Path | None) -> Material:
        synonyms = read_synonyms(task_folder(data, self.name, [SYNONYMS]) / SYNONYMS)
        return {"synonyms": synonyms, **tagger.material_of(tagger_path(data))}

    def objects(self, words: Sequence[str], material: Material) -> list[tuple[int, str]]:
        return _finder(material, "ours").named(words)

    def true_objects(self, item: Item) -> list[str]:
        return names(item.truth, "ours", WHOLE_TABLE)

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        mode = self.scorers[scorer]
        finder, counts, lengths = _finder(material, mode), [], []
        for record in records:
            objects = finder.find(record["text"])
            counts.append(objects.counts(names(record["truth"], mode, WHOLE_TABLE)))
            lengths.append(objects.length)
        return captions(records, "all", counts, lengths)


def _finder(material: Material, mode: str) -> ObjectFinder:
    synonyms = material.get("synonyms")
    if not isinstance(synonyms, list):
        raise DataError("The stored synonyms of CHAIR are damaged; run the evaluation once more to write them.")
    return ObjectFinder(synonyms, mode, tagger.of_material(material) if mode == "wordnet" else None)


def _coco_pictures(images: Path, truths: dict[str, dict[str, list[str]]]) -> list[str]:
    """The pictures in a folder that are named as COCO names them and have known objects, each number once."""
    files = sorted(filter(is_picture_name, images.rglob("*")))
    first: dict[str, str] = {}
    for path in files:
        first.setdefault(picture_number(path.name), path.relative_to(images).as_posix())
    pictures = [name for number, name in first.items() if number in truths]
    if not pictures:
        raise DataError(f"{images} has no picture of COCO: lime-mlx data get chair brings them.")
    return pictures


def picture_number(name: str) -> str:
    """The number of a picture of COCO, from COCO_val2014_000000123456.jpg or 000000123456.jpg; "" for other names."""
    match = re.fullmatch(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})", Path(name).stem)
    return str(int(match.group(1))) if match else ""


def read_truths(home: Path) -> dict[str, dict[str, list[str]]]:
    """The objects of each picture by CHAIR mode; a mode is missing where it gives the objects of pattern.

    Raises `DataError` for a table that cannot be read.
    """
    partial = object_tables(home)
    truths = {image: {WHOLE_TABLE: objects} for image, objects in _table(partial.pop(WHOLE_TABLE)).items()}
    for mode, file in partial.items():
        for image, objects in _table(file).items() if file.exists() else ():
            if image in truths:
                truths[image][mode] = objects
    return truths


def _table(file: Path) -> dict[str, list[str]]:
    try:
        table = parse_json(read_regular(file))
        objects = table["objects"]
        return {image: [objects[index] for index in indices] for image, indices in table["images"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} cannot be read as a table of objects ({error}): lime-mlx data get chair makes it again."
        ) from None
