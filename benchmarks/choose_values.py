"""Which values of a method's options are best on validation scenes?

    python benchmarks/choose_values.py --demo picture                         # every grid; hours on two cores
    python benchmarks/choose_values.py --demo sound --only acg --only flb --scenes 60
    python benchmarks/choose_values.py --demo picture --specs                 # what would be run, and no more

Captions of adversarial validation scenes (seeds from 100,000), decoded greedily, for every point of the grids below.
The best point of a method has the least CHAIR_I among those whose recall is at most 1 point below that of plain
decoding; where no point has, the method gets none. Time is that of a token over plain decoding's, the median over
scenes. A run that was killed continues: evaluate keeps every answer. Sham controls are run, too, but have no best
point: they stand beside what they are compared with. AdaIAT is left out where its statistics are missing
(adaiat_statistics.py).
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from rich.progress import Progress

from lime_mlx.evaluate.runner import RunConfig, run
from lime_mlx.evaluate.store import Store
from lime_mlx.evaluate.summary import answered, summarise
from lime_mlx.methods import parse_method

# The world of each bundled checkpoint, and its name.
TASKS = {"picture": ("scenes", "demo"), "sound": ("sounds", "demo-sound")}
# A layer option of "" is the method's own default.
Values = Mapping[str, Sequence[object]]
GRIDS: dict[str, list[Values]] = {
    "acg": [{"gamma": (0.1, 0.25, 0.5, 1, 2), "layers": ("all", "0-1", "2-3")}],
    "iat": [{"alpha": (0.1, 0.2, 0.4, 0.8, 1.6), "layers": ("", "all")}],
    "adaiat": [{"alpha": (0.5, 1, 2, 6), "beta": (0.5, 1), "layers": ("", "all")}],
    "locore": [{"beta": (0.15, 0.5, 1, 2), "window": (0, 5, 99), "layers": ("", "all")}],
    "flb": [{"gamma": (0.1, 0.3, 0.6, 1), "rate": (0.05, 0.2)}],
    "only": [{"agree": (0, 1, 3), "differ": (0.5, 1, 2), "gamma": (0.1, 0.25, 0.5), "layer": (0, 1)}],
    "selfval": [{"samples": (3, 5, 10), "temperature": (0.5, 1), "ask": ("word", "question")}],
    "pai": [{"alpha": (0.1, 0.2, 0.5), "guidance": (1, 1.1, 1.5)}],
    "m3id": [{"decay": (0.02, 0.05, 0.1, 0.2)}],
    "vcd": [{"alpha": (0.1, 0.3, 1), "noise": (200, 500)}],
    "aad": [{"alpha": (0.1, 0.25, 0.5, 1)}],
    "heads": [{"strength": (0.25, 0.5, 1, 2), "layers": ("", "all")}],
    "dleaf": [{"gamma": (0.1, 0.3, 0.6, 0.9)}],
    "kvsmooth": [{"ref": (0.1, 0.2, 0.3, 0.5), "clip": (0.1, 0.2), "smooth": ("kv", "v")}],
    "sham": [
        {"yes": (1, 2)},
        {"no": (1, 2)},
        {"beta": (0.1,)},
        {"the": (0.5, 1, 2, 4)},
        {"a": (0.5, 1, 2, 4)},
        {"the": (1, 2), "beta": (0.1,)},
        {"length": (6, 8, 10, 12)},
    ],
}
PLAIN, SHAM, SLACK = "none", "sham", 0.01
COLUMNS = ("CHAIR_I", "CHAIR_S", "recall", "repeats", "length")


@dataclass(frozen=True)
class Row:
    """A spec with its shares of validation captions, its words and its time a token over plain decoding's."""

    spec: str
    chair_i: float
    chair_s: float
    recall: float
    repeats: float
    words: float
    time: float


def specs(method: str, statistics: Path) -> Iterator[str]:
    """Every point of a method's grid. statistics: the file of AdaIAT's."""
    for grid in GRIDS[method]:
        for values in product(*grid.values()):
            given = [f"{key}={value}" for key, value in zip(grid, values, strict=True) if value != ""]
            given += [f"statistics={statistics}"] if method == "adaiat" else []
            yield f"{method}:{','.join(given)}"


def fits(spec: str, demo: str) -> bool:
    """Whether a method works with the demo's medium."""
    return {"picture": "image", "sound": "audio"}[demo] in parse_method(spec).media


def rows(folder: Path, wanted: Sequence[str]) -> dict[str, Row]:
    """The figures of each spec."""
    store = Store(folder)
    values: dict[str, dict[str, float]] = {}
    seconds: dict[str, dict[str, float]] = {}
    for figure in summarise(store):
        values.setdefault(figure.cell.method, {})[figure.metric.name] = figure.value
    for cell in store.cells():
        records = [record for record in answered(store, cell) if record["seconds"]]
        seconds[cell.method] = {record["id"]: (record["seconds"] or 0.0) / record["steps"] for record in records}
    found = {}
    for spec in wanted:
        chair_i, chair_s, recall, repeats, words = (values[spec][name] for name in COLUMNS)
        times = [seconds[spec][name] / plain for name, plain in seconds[PLAIN].items() if name in seconds[spec]]
        found[spec] = Row(spec, chair_i, chair_s, recall, repeats, words, median(times))
    return found


def best(points: Sequence[Row], plain: Row) -> Row | None:
    """The point with the least CHAIR_I, then the most recall, among those that keep plain decoding's recall."""
    kept = [row for row in points if row.recall >= plain.recall - SLACK]
    return min(kept, key=lambda row: (row.chair_i, -row.recall), default=None)


def line(row: Row, mark: str = "") -> str:
    shares = " | ".join(f"{100 * share:.1f}" for share in (row.chair_i, row.chair_s, row.recall, row.repeats))
    return f"| {mark}{row.spec}{mark} | {shares} | {row.words:.1f} | {row.time:.2f} x |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=sorted(TASKS), default="picture")
    parser.add_argument("--model", help="another checkpoint of the same world")
    parser.add_argument("--only", action="append", choices=sorted(GRIDS), help="a method; repeat it")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="of the answers; by default runs/values-DEMO")
    parser.add_argument("--statistics", type=Path, help="of AdaIAT; by default runs/adaiat-DEMO.json")
    parser.add_argument("--specs", action="store_true", help="list the specs, and run nothing")
    arguments = parser.parse_args()
    world, name = TASKS[arguments.demo]
    statistics = arguments.statistics or Path(f"runs/adaiat-{arguments.demo}.json")
    names = arguments.only or [method for method in GRIDS if method != "adaiat" or statistics.is_file()]
    grids = {method: [spec for spec in specs(method, statistics) if fits(spec, arguments.demo)] for method in names}
    wanted = [PLAIN, *(spec for points in grids.values() for spec in points)]
    if arguments.specs:
        print("\n".join(wanted))
        return
    folder = arguments.folder or Path(f"runs/values-{arguments.demo}")
    task = f"{world}:part=validation,ask=captions"
    config = RunConfig([arguments.model or name], wanted, [task], limit=arguments.scenes, reliance=False)
    with Progress() as progress:
        outcome = run(config, folder, progress=progress)
    for failure in outcome.failed[:5]:
        print(f"{failure.cell.method} {failure.id}: {failure.reason}")
    figures = rows(folder, wanted)
    print(f"\n{arguments.scenes} validation {world}, recall at most {100 * SLACK:g} point below plain\n")
    print("| method | CHAIR_I | CHAIR_S | recall | repeats | words | time |\n|---|---|---|---|---|---|---|")
    print(line(figures[PLAIN]))
    for method, points in grids.items():
        chosen = None if method == SHAM else best([figures[spec] for spec in points], figures[PLAIN])
        for spec in points:
            print(line(figures[spec], "**" if chosen is not None and chosen.spec == spec else ""))
        if method != SHAM and chosen is None and points:
            print(f"| {method} keeps the recall at no point | | | | | | |")


if __name__ == "__main__":
    main()
