"""Where the files of the benchmarks lie: one folder of data, with a folder for each task and one for pictures."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import platformdirs

from lime_mlx.errors import DataError

# The names of the tasks: those that are drawn or synthesised, and those that have files.
SCENES, SOUNDS, FREE, FREE_SOUNDS = BUILT_IN = ("scenes", "sounds", "free", "free-sounds")
POPE, CHAIR, AMBER, MME, AUDIO, DASH_B, HALLUSION_BENCH, NATURALBENCH = WITH_FILES = (
    "pope",
    "chair",
    "amber",
    "mme",
    "audio",
    "dash-b",
    "hallusion-bench",
    "naturalbench",
)
# Those of which only the pictures that --limit draws can be got.
WITH_LIMIT = (POPE, CHAIR)
POPE_SETS = ("coco", "aokvqa", "gqa", "repope")
POPE_SPLITS = ("random", "popular", "adversarial")
MME_PARTS = ("existence", "count", "position", "color")
# The pictures without the object, and those with it.
DASH_B_FILES = {"no": "dash_benchmark_neg.json", "yes": "dash_benchmark_pos.json"}
HALLUSION_FILE, NATURALBENCH_FILE = "HallusionBench.json", "test_set.json"
IMAGES, SYNONYMS = "images", "synonyms.txt"
# The weights of the tagger that CHAIR and AMBER share.
TAGGER = "tagger/averaged_perceptron_tagger_eng.zip"
# The objects of the pictures of COCO by CHAIR mode. The first table is whole; the others hold what differs from it.
OBJECT_TABLES: Mapping[str, str] = {
    "pattern": "coco2014_gt_objects.pattern.json",
    "ours": "coco2014_gt_objects.ours_overrides.json",
    "wordnet": "coco2014_gt_objects.wordnet_overrides.json",
}
WHOLE_TABLE = next(iter(OBJECT_TABLES))


def home() -> Path:
    """The folder of data: $LIME_MLX_DATA, else lime-mlx in the user's cache folder."""
    if chosen := os.environ.get("LIME_MLX_DATA"):
        return Path(chosen).expanduser()
    # On macOS, 0.1.0 used this folder also where XDG_CACHE_HOME names another one.
    earlier = Path.home() / "Library" / "Caches" / "lime-mlx"
    return earlier if earlier.is_dir() else platformdirs.user_cache_path("lime-mlx", appauthor=False)


def task_folder(data: Path | None, task: str, patterns: Iterable[str]) -> Path:
    """The folder of a task's files: DATA/<task>, or DATA itself, whichever has a file of one of `patterns`.

    Raises `DataError`, with the command that gets the files, where neither has one.
    """
    if data is None:
        raise DataError(f"The task {task} needs its files: lime-mlx data get {task}, or name their folder with --data.")
    if not data.is_dir():
        raise DataError(f"There is no data folder {data}: lime-mlx data get {task}, or name another with --data.")
    patterns = list(patterns)
    for folder in (data / task, data):
        if any(next(folder.glob(pattern), None) for pattern in patterns):
            return folder
    names = " or ".join(patterns)
    raise DataError(f"{data} has no {task}/{names}: lime-mlx data get {task} brings the files.")


def picture_path(data: Path | None, task: str, name: str) -> Path:
    """The path of a picture: in DATA/images or beside the files of its task. The first of these where it is in none."""
    folder = data or home()
    paths = [folder / IMAGES / name, folder / task / IMAGES / name, folder / task / name, folder / name]
    return next((path for path in paths if path.is_file()), paths[0])


def pope_file(name: str, split: str) -> str:
    """The question file of a set and a split of POPE, in the folder of its task."""
    return f"{name}/coco_repope_{split}.json" if name == "repope" else f"{name}/{name}_pope_{split}.json"


def tagger_path(data: Path | None) -> Path | None:
    """The weights of the tagger in a folder of data; None where they are not there."""
    path = (data or home()) / TAGGER
    return path if path.is_file() else None


def object_tables(chair: Path) -> dict[str, Path]:
    """The tables of objects in a folder of CHAIR, by mode; the whole one is last, as it is written last."""
    partial = {mode: chair / name for mode, name in OBJECT_TABLES.items() if mode != WHOLE_TABLE}
    return partial | {WHOLE_TABLE: chair / OBJECT_TABLES[WHOLE_TABLE]}
