"""What fewer bits do to hallucination and to reliance: uniform, mixed and relevance-guided, on the picture demo.

    python benchmarks/bits_study.py --scenes 120           # convert, ask, and print the tables
    python benchmarks/bits_study.py --scenes 120 --table   # print what is there

Captions and questions are those of `lime-mlx evaluate --task scenes`, decoded plainly. Only the decoder
is quantised, in groups of 32. Answers go to JSON lines under --output and are not asked for twice. Intervals are
bootstraps over scenes, 95 %; differences are paired by scene.
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from lime_mlx import load
from lime_mlx.checkpoint.hub import demos
from lime_mlx.convert import convert
from lime_mlx.decoding import decode
from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.scorers.metrics import Metric, ratio
from lime_mlx.evaluate.statistics import interval, paired_bootstrap
from lime_mlx.evaluate.store import Answers
from lime_mlx.evaluate.tasks import Task, parse_task

GROUP = 32
MIXED = ("mixed_2_6", "mixed_3_6")
COLUMNS = ("name", "bits", "CHAIR_I", "recall", "POPE", "adversarial", "reliance")


@dataclass(frozen=True)
class Kind:
    """A way to quantise: the options of `convert`."""

    name: str
    options: dict


def kinds(home: Path) -> list[Kind]:
    """Guided ones get the bits of a uniform or mixed one, to be compared at equal size."""
    mixed = [Kind(name, {"quant_predicate": name}) for name in MIXED]
    averages = [converted(kind, home)[1] for kind in mixed]
    guided = [("relevance", bits, "") for bits in (3.0, 4.0, *averages)]
    guided += [("logits only", bits, ",weight=0") for bits in (3.0, averages[0])]
    named = [
        Kind(f"{name} {bits:.2f}", {"quant_predicate": f"relevance:bits={bits:.4f}{more}"})
        for name, bits, more in guided
    ]
    return [Kind("float", {}), *(Kind(f"uniform {bits}", {"q_bits": bits}) for bits in (2, 3, 4, 6, 8)), *mixed, *named]


def converted(kind: Kind, home: Path) -> tuple[Path, float]:
    """The folder of the converted demo, and the average bits of its quantised weights, scales not counted."""
    folder, note = home / file_name(kind.name), home / f"{file_name(kind.name)}.bits.json"
    if not note.exists():
        options = {"quantize": True, "q_group_size": GROUP, **kind.options} if kind.options else {}
        report = convert(demos()["picture"], folder, force=True, **options)
        note.write_text(json.dumps({path: scheme.bits for path, scheme in report.layers.items()}))
    bits = json.loads(note.read_text())
    model, _ = load(demos()["picture"])
    sizes = {path: module.weight.size for path, module in model.named_modules() if path in bits}
    return folder, sum(bits[p] * n for p, n in sizes.items()) / max(1, sum(sizes.values())) if bits else 32.0


def file_name(name: str) -> str:
    return re.sub("[^a-z0-9.]+", "_", name)


def answers(kind: Kind, home: Path) -> Answers:
    return Answers(home / f"{file_name(kind.name)}.jsonl")


def ask(kind: Kind, home: Path, task: Task) -> None:
    """Captions with the reliance of their words, and answers to questions, to JSON lines."""
    held = answers(kind, home)
    lacking = [item for item in task.items(None) if item.id not in held.records]
    if not lacking:
        return
    model, processor = load(converted(kind, home)[0])
    for item in track(lacking, description=kind.name):
        prompt, caption = processor.prompt(item.text, **task.opened(None, item.medium)), item.label is None
        stop = frozenset(processor.eos_token_ids)
        decoded = list(decode(model, prompt, "none", item.max_tokens, reliance=caption, stop=stop))
        record: Record = {
            "id": item.id,
            "medium": item.medium,
            "split": item.split,
            "label": item.label,
            "truth": item.truth,
            "text": processor.tokenizer.decode([step.token for step in decoded if step.token not in stop]),
        }
        if caption:
            record["reliance"] = [step.reliance for step in decoded if processor.content[step.token]]
        held.append(record)


def figures(kind: Kind, home: Path, task: Task) -> dict[str, Metric]:
    """Every measure of one kind."""
    stored = answers(kind, home).records
    records = [stored[item.id] for item in task.items(None)]
    metrics = {(metric.split, metric.name): metric for metric in task.metrics(records, "ours", {})}
    yes_no = [metric for (_, name), metric in metrics.items() if name == "accuracy"]
    captions = [record for record in records if record["label"] is None]
    reliances = [record["reliance"] or [] for record in captions]
    return {
        "CHAIR_I": metrics["caption", "CHAIR_I"],
        "recall": metrics["caption", "recall"],
        "POPE": Metric(
            "POPE",
            "all",
            [name for metric in yes_no for name in metric.ids],
            [name for metric in yes_no for name in metric.media],
            np.concatenate([metric.top for metric in yes_no]),
            np.concatenate([metric.bottom for metric in yes_no]),
        ),
        "adversarial": metrics["adversarial", "accuracy"],
        "reliance": ratio(
            "reliance",
            "caption",
            captions,
            [sum(share or 0.0 for share in shares) for shares in reliances],
            [len(shares) for shares in reliances],
        ),
    }


def spread(metric: Metric) -> str:
    low, high = interval(metric.top, metric.bottom, metric.media)
    return f"{metric.value:.3f} [{low:.3f}, {high:.3f}]"


def difference(ours: Metric, theirs: Metric) -> str:
    """Ours minus theirs, over the same scenes."""
    compared = paired_bootstrap((theirs.top, theirs.bottom), (ours.top, ours.bottom), ours.media)
    return "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**compared._asdict())


def tables(home: Path, chosen: list[Kind], task: Task) -> str:
    measures = {kind.name: figures(kind, home, task) for kind in chosen}
    bits = {kind.name: converted(kind, home)[1] for kind in chosen}
    rows = [[name, f"{bits[name]:.2f}", *map(spread, measures[name].values())] for name in measures]
    guided = [name for name in measures if name.startswith(("relevance", "logits"))]
    pairs = [(a, b) for a in guided for b in set(measures) - set(guided) if abs(bits[a] - bits[b]) < 0.03]
    versus = [
        [f"{a} - {b}", f"{bits[a]:.2f}", *(difference(measures[a][what], measures[b][what]) for what in COLUMNS[2:])]
        for a, b in pairs
    ]
    lines = lambda rows: ["| " + " | ".join(row) + " |" for row in rows]  # noqa: E731
    head = lines([COLUMNS]) + ["|" + "---|" * len(COLUMNS)]
    return "\n".join([*head, *lines(rows), "", *head, *lines(versus)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--regime", default="adversarial")
    parser.add_argument("--output", type=Path, default=Path("work/bits"))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    home = arguments.output
    home.mkdir(parents=True, exist_ok=True)
    task = parse_task(f"scenes:regime={arguments.regime},count={arguments.scenes}")
    chosen = kinds(home)
    if not arguments.table:
        for kind in chosen:
            ask(kind, home, task)
    print(tables(home, chosen, task))


if __name__ == "__main__":
    main()
