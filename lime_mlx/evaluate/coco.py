"""The objects of the pictures of COCO val2014 as CHAIR wants them, from the official annotations."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lime_mlx.errors import DataError
from lime_mlx.evaluate.chair import MODES, Objects
from lime_mlx.files import write

INSTANCES, CAPTIONS = "annotations/instances_val2014.json", "annotations/captions_val2014.json"
# One table is whole, the others have only the pictures that differ from it.
WHOLE, *OTHERS = sorted(MODES, key=lambda mode: mode != "pattern")


def tables(folder: Path) -> dict[str, Path]:
    """The files of each reading, the whole one last."""
    return {mode: folder / f"coco2014_gt_objects.{mode}_overrides.json" for mode in OTHERS} | {
        WHOLE: folder / f"coco2014_gt_objects.{WHOLE}.json"
    }


def made_from(path: Path) -> str | None:
    """The sha256 of the annotations that a table was made from."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["annotations_sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_objects(
    archive: Path, sha256: str, synonyms: Path, folder: Path, progress: Callable[[int, int], None]
) -> None:
    """Write the tables of objects, {objects: [names], images: {id: [indices]}}, of all readings of captions.

    archive: the official annotations_trainval2014.zip, of that sha256. synonyms: CHAIR's list. progress: is told the
    pictures done and in all. Raises `DataError` for an archive that cannot be read.
    """
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

    objects = sorted(names.values())
    place = {name: index for index, name in enumerate(objects)}
    whole: dict[str, list[int]] = {}
    for number, mode in enumerate((WHOLE, *OTHERS)):
        reader, images = Objects.read(synonyms, mode), {}
        for count, image in enumerate(sorted(categories), 1):
            found = sorted(place[name] for name in reader.ground_truth(categories[image], texts[image]))
            if found != whole.get(str(image)):
                images[str(image)] = found
            if not count % 500 or count == len(categories):
                progress(number * len(categories) + count, len(MODES) * len(categories))
        whole = whole or images
        table = {"annotations_sha256": sha256, "objects": objects, "images": images}
        if mode == WHOLE:
            first = table
        else:
            write(tables(folder)[mode], json.dumps(table))
    write(tables(folder)[WHOLE], json.dumps(first))


def _lean(entry: dict[str, Any]) -> dict[str, Any]:
    """Without outlines, which are most of the 150 MB."""
    entry.pop("segmentation", None)
    return entry
