"""POPE: is there a ... in the image? On pictures of COCO, A-OKVQA and GQA (Li et al. 2023, arXiv 2305.10355)."""

from dataclasses import dataclass

from lime_mlx.errors import DataError
from lime_mlx.evaluate import pope
from lime_mlx.evaluate.metrics import by_split, yes_no

from .base import Item, Task, drawn, folder, picture

SPLITS = ("random", "popular", "adversarial")
SETS = ("coco", "aokvqa", "gqa")


@dataclass(frozen=True)
class Pope(Task):
    """`pope:set=coco,split=all`: the questions as they stand in the files, greedy. split: all, or one of the three."""

    name = "pope"
    scorers = ("ours", "official", "vcd")

    set: str = "coco"
    split: str = "all"

    def __post_init__(self):
        for key, value, known in (("set", self.set, SETS), ("split", self.split, ("all", *SPLITS))):
            if value not in known:
                raise DataError(f"pope: {key} is {value!r}; choose one of {', '.join(known)}.")

    def items(self, data, limit=None, seed=0):
        home = folder(data, self.name, [self.set])
        found = []
        for split in SPLITS if self.split == "all" else (self.split,):
            names = [home / self.set / f"{self.set}_pope_{split}.{ending}" for ending in ("json", "jsonl")]
            file = next((name for name in names if name.is_file()), None)
            if file is None:
                raise DataError(f"There is no {names[0]}: lime-mlx data get pope brings the files.")
            found += [
                Item(f"{split}/{question.id}", question.image, question.text, 16, split, question.label)
                for question in pope.read(file)
            ]
        return drawn(found, limit, seed)

    def source(self, data, medium):
        return picture(data, self.name, medium)

    def metrics(self, records, scorer, material):
        reader = {"official": "pope"}.get(scorer, scorer)

        def figures(part, split):
            texts, labels = [record["text"] for record in part], [record["label"] for record in part]
            return yes_no(part, pope.verdicts(texts, labels, reader), split)

        return by_split(records, figures)
