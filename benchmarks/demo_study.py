"""Hallucination of the demo checkpoints on their worlds: captions scored like CHAIR, questions like POPE.

    python benchmarks/demo_study.py --split test --scenes 500 --method none --method lime --method lime:mode=exact
    python benchmarks/demo_study.py --demo sound --split test --scenes 500 --method none --method lime

Answers go to JSON lines, one file a method and task, and are not asked for twice; `--table` prints what is there.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from lime_mlx import backend

backend.load_blas()

from lime_mlx import load  # noqa: E402
from lime_mlx.generate import decode  # noqa: E402
from lime_mlx.media.audio import Sound  # noqa: E402
from lime_mlx.scenes import (  # noqa: E402
    PROMPTS,
    SOUND_PROMPTS,
    bootstrap,
    chair,
    make_scene,
    make_sound,
    questions,
    yes_no,
)

FIRST_SEED = {"validation": 100_000, "test": 200_000}
STRATEGIES = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class Demo:
    """A bundled checkpoint and its world: seed and regime to a scene, what a caption is asked with, the media."""

    model: str
    make: Callable
    prompt: str
    media: Callable


DEMOS = {
    "picture": Demo("demo", make_scene, PROMPTS[0], lambda scene: {"images": [scene.image]}),
    "sound": Demo(
        "demo-sound", make_sound, SOUND_PROMPTS[0], lambda scene: {"audio": [Sound(scene.samples, scene.rate)]}
    ),
}


def answer(model, processor, method: str, text: str, media: dict, tokens: int) -> dict:
    """Greedy answer, and what it took."""
    prompt = processor.prompt(text, **media)
    began = time.perf_counter()
    stop = frozenset(processor.eos_token_ids)
    said = list(decode(model, prompt, method, tokens, reliance=False, content=processor.content, stop=stop))
    ids = [step.token for step in said if step.token not in stop]
    return {
        "text": processor.tokenizer.decode(ids).strip(),
        "tokens": len(said),
        "optimised": sum(step.optimised for step in said),
        "seconds": round(time.perf_counter() - began, 4),
    }


def stored(file: Path) -> dict[str, dict]:
    if not file.exists():
        return {}
    return {record["id"]: record for record in map(json.loads, file.read_text().splitlines())}


def asked(demo: Demo, scene, task: str) -> list[tuple[str, str, str | None, int]]:
    """(id, prompt, label, tokens) of a task on one scene."""
    if task == "caption":
        return [(str(scene.seed), demo.prompt, None, 48)]
    rng = random.Random(f"{task}/{scene.seed}")
    return [(f"{scene.seed}/{q.kind}", q.text, q.label, 1) for q in questions(scene, task, rng)]


def run(demo: Demo, loaded: tuple, method: str, task: str, scenes: list, folder: Path) -> None:
    file = folder / f"{re.sub('[^a-z0-9.=-]+', '_', method)}.{task}.jsonl"
    known = stored(file)
    with file.open("a") as out:
        for scene in track(scenes, description=f"{method} {task}"):
            for name, text, label, tokens in asked(demo, scene, task):
                if name in known:
                    continue
                record = {"id": name, "method": method, "task": task, "seed": scene.seed, "label": label}
                record |= answer(*loaded, method, text, demo.media(scene), tokens)
                out.write(json.dumps(record) + "\n")
                out.flush()


def interval(numerator, denominator) -> str:
    low, high = bootstrap(np.array(numerator), np.array(denominator))
    return f"{sum(numerator) / max(1, sum(denominator)):.3f} [{low:.3f}, {high:.3f}]"


def summary(folder: Path, scenes: dict) -> list[dict]:
    """One row a method: rates with 95 % bootstrap intervals by picture."""
    rows: dict[str, dict] = {}
    for file in sorted(folder.glob("*.jsonl")):
        records = [r for r in stored(file).values() if r["seed"] in scenes]
        if not records:
            continue
        row = rows.setdefault(records[0]["method"], {"method": records[0]["method"]})
        task = records[0]["task"]
        if task == "caption":
            result = chair([r["text"] for r in records], [scenes[r["seed"]] for r in records])
            wrong = result["hallucinated"]
            row["captions"] = len(records)
            row["CHAIR_S"] = interval((wrong > 0).astype(int), np.ones(len(records)))
            row["CHAIR_I"] = interval(wrong, result["mentioned"])
            row["recall"] = interval(result["covered"], result["present"])
            row["ms/token"] = 1e3 * sum(r["seconds"] for r in records) / sum(r["tokens"] for r in records)
            row["optimised"] = sum(r["optimised"] for r in records) / sum(r["tokens"] for r in records)
            continue
        by_scene: dict[int, list] = {}
        for record in records:
            by_scene.setdefault(record["seed"], []).append(yes_no(record["text"]) == record["label"])
        row[task] = interval([sum(x) for x in by_scene.values()], [len(x) for x in by_scene.values()])
    return list(rows.values())


def table(rows: list[dict]) -> str:
    columns = ["method", "captions", "CHAIR_S", "CHAIR_I", "recall", *STRATEGIES, "ms/token", "optimised"]
    cell = lambda x: f"{x:.3g}" if isinstance(x, float) else str(x)  # noqa: E731
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(cell(row.get(c, "")) for c in columns) + " |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=DEMOS, default="picture")
    parser.add_argument("--model", help="another checkpoint than the bundled one")
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--task", action="append", default=[], choices=["caption", *STRATEGIES])
    parser.add_argument("--regime", default="adversarial")
    parser.add_argument("--split", choices=FIRST_SEED, default="validation")
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--output", type=Path, default=Path("work/study"))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    demo = DEMOS[arguments.demo]
    folder = arguments.output / arguments.demo / arguments.split / arguments.regime
    folder.mkdir(parents=True, exist_ok=True)
    first = FIRST_SEED[arguments.split]
    scenes = [demo.make(seed, arguments.regime) for seed in range(first, first + arguments.scenes)]
    if arguments.method:
        loaded = load(arguments.model or demo.model)
        for method in arguments.method:
            for task in arguments.task or ["caption", *STRATEGIES]:
                run(demo, loaded, method, task, scenes, folder)
    if arguments.table:
        print(table(summary(folder, {scene.seed: scene for scene in scenes})))


if __name__ == "__main__":
    main()
