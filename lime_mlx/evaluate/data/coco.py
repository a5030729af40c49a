"""The objects in the pictures of COCO val2014, as CHAIR needs them, from the official annotations."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import WHOLE_TABLE, object_tables
from lime_mlx.evaluate.scorers.chair import MODES, ObjectFinder
from lime_mlx.files import parse_json, read_regular, write

INSTANCES, CAPTIONS = "annotations/instances_val2014.json", "annotations/captions_val2014.json"


class ObjectTable(TypedDict):
    """A stored table: the sha256 of the annotations, the names of objects, and their indices for each picture."""

    annotations_sha256: str
    objects: list[str]
    images: dict[str, list[int]]


class Annotations(NamedTuple):
    """The names of all objects; the objects and the captions of each picture."""

    objects: list[str]
    categories: dict[int, set[str]]
    captions: dict[int, list[str]]


def made_from(path: Path) -> str | None:
    """The sha256 of the annotations that a table was made from; None where it is no table."""
    try:
        return str(parse_json(read_regular(path))["annotations_sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_objects(
    archive: Path, sha256: str, synonyms: Path, folder: Path, progress: Callable[[int, int], None]
) -> None:
    """Write the tables of objects for all CHAIR modes into `folder`.

    archive: the official annotations_trainval2014.zip, of that sha256. synonyms: CHAIR's list. progress: called with
    the number of pictures that are done, and of all. Raises `DataError` for an archive that cannot be read.
    """
    annotations = read_annotations(archive)
    pictures = len(annotations.categories)
    whole: dict[str, list[int]] = {}
    by_mode: dict[str, ObjectTable] = {}
    for number, mode in enumerate((WHOLE_TABLE, *(mode for mode in MODES if mode != WHOLE_TABLE))):

        def count(done: int, before: int = number * pictures) -> None:
            progress(before + done, len(MODES) * pictures)

        images = _indices(annotations, ObjectFinder.read(synonyms, mode), count)
        if mode == WHOLE_TABLE:
            whole = images
        else:
            images = {image: indices for image, indices in images.items() if indices != whole[image]}
        by_mode[mode] = {"annotations_sha256": sha256, "objects": annotations.objects, "images": images}
    for mode, path in object_tables(folder).items():
        write(path, json.dumps(by_mode[mode]))


def read_annotations(archive: Path) -> Annotations:
    """Raises `DataError` for an archive that cannot be read as COCO's annotations."""
    try:
        with zipfile.ZipFile(archive) as files:
            instances, captions = (json.loads(files.read(name), object_hook=_lean) for name in (INSTANCES, CAPTIONS))
        names = {category["id"]: category["name"] for category in instances["categories"]}
        categories: dict[int, set[str]] = {image["id"]: set() for image in instances["images"]}
        texts: dict[int, list[str]] = {image: [] for image in categories}
        for entry in instances["annotations"]:
            categories[entry["image_id"]].add(names[entry["category_id"]])
        for entry in captions["annotations"]:
            texts[entry["image_id"]].append(entry["caption"])
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{archive} cannot be read as COCO's annotations ({error}); delete it and get it again."
        ) from None
    return Annotations(sorted(names.values()), categories, texts)


def _indices(annotations: Annotations, finder: ObjectFinder, count: Callable[[int], None]) -> dict[str, list[int]]:
    """The indices of the objects in each picture."""
    index = {name: number for number, name in enumerate(annotations.objects)}
    pictures, images = sorted(annotations.categories), {}
    for done, image in enumerate(pictures, 1):
        truth = finder.ground_truth(annotations.categories[image], annotations.captions[image])
        images[str(image)] = sorted(index[name] for name in truth)
        if not done % 500 or done == len(pictures):
            count(done)
    return images


def _lean(entry: dict[str, object]) -> Mapping[str, object]:
    """An entry without its outline: outlines are most of the 150 MB."""
    entry.pop("segmentation", None)
    return entry
