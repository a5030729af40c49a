"""CHAIR: objects of COCO that a description names but the picture lacks (Rohrbach et al. 2018, arXiv 1809.02156)."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from lime_mlx.errors import DataError
from lime_mlx.evaluate.chair import MODES, Objects, hallucinated
from lime_mlx.evaluate.metrics import captions

from .base import Item, Task, drawn, folder, picture
from .pope import Pope

TABLE, OVERRIDES = "coco2014_gt_objects.pattern.json", "coco2014_gt_objects.{}_overrides.json"
SYNONYMS = "synonyms.txt"
PICTURES = ("pope", "all")
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Chair(Task):
    """`chair:pictures=pope,tokens=512`: each picture is described in detail.

    pictures: pope, the 500 of POPE's COCO questions; all, those in DATA/images that are named as COCO names them and
    have known objects. tokens: the longest description. The official scorer is the first program (with the base forms
    of pattern), wordnet that of later papers; each has its own sets of objects.
    """

    name = "chair"
    scorers = ("ours", "official", "wordnet")

    pictures: str = "pope"
    tokens: int = 512

    def __post_init__(self):
        if self.pictures not in PICTURES:
            raise DataError(f"chair: pictures is {self.pictures!r}; choose one of {', '.join(PICTURES)}.")
        if self.tokens < 1:
            raise DataError(f"chair: tokens is {self.tokens}; it must be at least 1.")

    def items(self, data, limit=None, seed=0):
        truths = truth(folder(data, self.name, [TABLE]))
        if self.pictures == "pope":
            names = dict.fromkeys(item.medium for item in Pope(split="random").items(data))
        else:
            home = data / "images"
            files = sorted(path for path in home.rglob("*") if path.suffix.lower() in SUFFIXES)
            first: dict[str, str] = {}
            for path in files:
                first.setdefault(number(path.name), path.relative_to(home).as_posix())
            names = [name for image, name in first.items() if image in truths]
            if not names:
                raise DataError(f"{home} has no picture of COCO: lime-mlx data get chair brings them.")
        if unknown := [name for name in names if number(name) not in truths]:
            raise DataError(f"The objects of {unknown[0]} are not known; lime-mlx data get chair brings the tables.")
        text = "Please describe this image in detail."
        return drawn([Item(n, n, text, self.tokens, truth=truths[number(n)]) for n in names], limit, seed)

    def source(self, data, medium):
        return picture(data, self.name, medium)

    def material(self, data):
        file = folder(data, self.name, [SYNONYMS]) / SYNONYMS
        Objects.read(file)
        return {"synonyms": [line.strip().split(", ") for line in file.read_text("utf-8").rstrip().split("\n")]}

    def objects(self, words, material):
        return Objects(material["synonyms"]).named(words)

    def there(self, item):
        return item.truth.get("ours", item.truth["pattern"])

    def metrics(self, records, scorer, material):
        mode = {"official": "pattern"}.get(scorer, scorer)
        objects, counts, words = Objects(material["synonyms"], mode), [], []
        for record in records:
            reading = objects.caption(record["text"])
            there = set(record["truth"].get(mode, record["truth"]["pattern"]))
            wrong = hallucinated(reading, there)
            counts.append((len(reading.mentions), len(wrong), len(reading.names & there), len(there)))
            words.append(reading.words)
        return captions(records, "all", counts, words)


def number(name: str) -> str:
    """The number of a picture of COCO, from COCO_val2014_000000123456.jpg or 000000123456.jpg; "" for other names."""
    found = re.fullmatch(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})", Path(name).stem)
    return str(int(found.group(1))) if found else ""


def truth(home: Path) -> dict[str, dict[str, list[str]]]:
    """The objects of each picture by the reading they were found with, where that gives others than pattern's."""
    tables = {"pattern": home / TABLE}
    tables |= {mode: home / OVERRIDES.format(mode) for mode in MODES if mode != "pattern"}
    found: dict[str, dict[str, list[str]]] = {}
    for mode, file in tables.items():
        if mode == "pattern" or file.exists():
            for image, names in _table(file).items():
                found.setdefault(image, {})[mode] = names
    return {image: known for image, known in found.items() if "pattern" in known}


def _table(file: Path) -> dict[str, list[str]]:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        names = table["objects"]
        return {image: [names[place] for place in places] for image, places in table["images"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} cannot be read as a table of objects ({error}): lime-mlx data get chair makes it again."
        ) from None
