"""What fewer bits do to hallucination and to reliance: uniform, mixed and relevance-guided, on the picture demo.

    python benchmarks/bits_study.py --scenes 120           # convert, ask, and print the tables
    python benchmarks/bits_study.py --scenes 120 --table   # print what is there

Captions and questions are those of benchmarks/demo_study.py on the test split, with the plain method. Only the decoder
is quantised, in groups of 32. Answers go to JSON lines under --output and are not asked for twice. Intervals are
bootstraps over scenes, 95 %; differences are paired by scene.
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo_study import DEMOS, FIRST_SEED, STRATEGIES, asked, stored
from rich.progress import track

from lime_mlx import load
from lime_mlx.convert import convert
from lime_mlx.generate import decode
from lime_mlx.hub import demos
from lime_mlx.scenes import bootstrap, chair, yes_no

DEMO = DEMOS["picture"]
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


def ask(kind: Kind, home: Path, scenes: list) -> None:
    """Captions with the reliance of their words, and answers to questions, to JSON lines."""
    file = home / f"{file_name(kind.name)}.jsonl"
    known = stored(file)
    loaded = load(converted(kind, home)[0])
    with file.open("a") as out:
        for scene in track(scenes, description=kind.name):
            for task in ("caption", *STRATEGIES):
                for name, text, label, tokens in asked(DEMO, scene, task):
                    if (name := f"{task}/{name}") in known:
                        continue
                    record = {"id": name, "task": task, "seed": scene.seed, "label": label}
                    record |= answer(*loaded, text, DEMO.media(scene), tokens, task == "caption")
                    out.write(json.dumps(record) + "\n")
            out.flush()


def answer(model, processor, text: str, media: dict, tokens: int, reliance: bool) -> dict:
    prompt, stop = processor.prompt(text, **media), frozenset(processor.eos_token_ids)
    said = list(decode(model, prompt, "none", tokens, reliance=reliance, content=processor.content, stop=stop))
    ids = [step.token for step in said if step.token not in stop]
    found = {"text": processor.tokenizer.decode(ids).strip()}
    if reliance:
        found["reliance"] = [step.shares.media for step in said if processor.content[step.token]]
    return found


def counts(kind: Kind, home: Path, scenes: dict) -> dict[str, np.ndarray]:
    """(scenes, 2) of every measure: what is counted, out of what."""
    records = [r for r in stored(home / f"{file_name(kind.name)}.jsonl").values() if r["seed"] in scenes]
    said = {r["seed"]: r for r in records if r["task"] == "caption"}
    captions = [said[seed] for seed in scenes]
    scored = chair([r["text"] for r in captions], list(scenes.values()))
    right = {name: {seed: [] for seed in scenes} for name in STRATEGIES}
    for record in records:
        if record["task"] in right:
            right[record["task"]][record["seed"]].append(yes_no(record["text"]) == record["label"])
    by_scene = {name: [[sum(x), len(x)] for x in right[name].values()] for name in STRATEGIES}
    return {
        "CHAIR_I": np.stack([scored["hallucinated"], scored["mentioned"]], axis=1),
        "recall": np.stack([scored["covered"], scored["present"]], axis=1),
        "POPE": np.sum([by_scene[name] for name in STRATEGIES], axis=0),
        "adversarial": np.array(by_scene["adversarial"]),
        "reliance": np.array([[sum(r["reliance"]), len(r["reliance"])] for r in captions]),
    }


def interval(pairs: np.ndarray) -> str:
    low, high = bootstrap(pairs[:, 0], pairs[:, 1])
    return f"{pairs[:, 0].sum() / max(1e-9, pairs[:, 1].sum()):.3f} [{low:.3f}, {high:.3f}]"


def difference(ours: np.ndarray, theirs: np.ndarray, draws: int = 2000) -> str:
    """Ours minus theirs, over the same scenes."""
    picks = np.random.default_rng(0).integers(0, len(ours), (draws, len(ours)))
    rate = lambda pairs: pairs[picks, 0].sum(axis=1) / np.maximum(1e-9, pairs[picks, 1].sum(axis=1))  # noqa: E731
    low, high = np.percentile(rate(ours) - rate(theirs), [2.5, 97.5])
    whole = lambda pairs: pairs[:, 0].sum() / max(1e-9, pairs[:, 1].sum())  # noqa: E731
    return f"{whole(ours) - whole(theirs):+.3f} [{low:+.3f}, {high:+.3f}]"


def tables(home: Path, chosen: list[Kind], scenes: dict) -> str:
    found = {kind.name: counts(kind, home, scenes) for kind in chosen}
    bits = {kind.name: converted(kind, home)[1] for kind in chosen}
    rows = [[name, f"{bits[name]:.2f}", *map(interval, found[name].values())] for name in found]
    guided = [name for name in found if name.startswith(("relevance", "logits"))]
    pairs = [(a, b) for a in guided for b in set(found) - set(guided) if abs(bits[a] - bits[b]) < 0.03]
    versus = [
        [f"{a} - {b}", f"{bits[a]:.2f}", *(difference(found[a][what], found[b][what]) for what in COLUMNS[2:])]
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
    first = FIRST_SEED["test"]
    scenes = [DEMO.make(seed, arguments.regime) for seed in range(first, first + arguments.scenes)]
    chosen = kinds(home)
    if not arguments.table:
        for kind in chosen:
            ask(kind, home, scenes)
    print(tables(home, chosen, {scene.seed: scene for scene in scenes}))


if __name__ == "__main__":
    main()
