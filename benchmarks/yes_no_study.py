"""What LIME does to yes and no: which way answers flip, and why.

    python benchmarks/yes_no_study.py --demo demo --scenes 150                     # settings on validation scenes
    python benchmarks/yes_no_study.py --demo demo --part test --scenes 500 --method lime:words=all,...
    python benchmarks/yes_no_study.py --demo demo --table

LIME is forced on the answer's one token. Kept is its margin, the logit of Yes minus that of No, for each question and
method, so that flips, shifts and thresholds can be read off; `bias` is the shift of the margin toward yes that
questions with both labels have in common, `sight` half of what they have not: the shift in the right direction.
Margins go to JSON lines and are not computed twice. Tests are McNemar's against plain, after Holm's correction.
"""

import argparse
import re
from pathlib import Path

import numpy as np
from rich.progress import track

from lime_mlx import load
from lime_mlx.evaluate.runner import sessions
from lime_mlx.evaluate.statistics import holm, interval, mcnemar
from lime_mlx.evaluate.store import Answers
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.generate import steps
from lime_mlx.media.audio import open_audio
from lime_mlx.media.image import open_image
from lime_mlx.methods import parse_method

TASKS = {"demo": "scenes", "demo-sound": "sounds"}
FORCED = "lime:words=all"
SETTINGS = [
    *(
        f"objective={goal},target={target}"
        for goal in ("uniform", "mass", "share")
        for target in ("argmax", "contrast")
    ),
    *(f"deltas={part}" for part in "kv"),
    *(f"layers={layer}" for layer in range(4)),
    *(f"lr={lr}" for lr in (0.02, 0.05)),
    "steps=4,lr=0.05",
    "update=sign",
    "update=normalised",
    "mode=exact",
    "mode=exact,target=contrast",
]


def margins(name: str, task, methods: list[str], file: Path) -> dict[str, dict]:
    """Of every question, what is known of it and the margin by each method."""
    held = {
        method: Answers(file.with_name(f"{file.name}.{re.sub('[^a-z0-9.=-]+', '_', method)}.jsonl"))
        for method in methods
    }
    groups: dict[str, list] = {}
    for item in task.items(None):
        groups.setdefault(item.medium, []).append(item)
    lacking = [group for group in groups.values() if any(i.id not in h.records for i in group for h in held.values())]
    if lacking:
        model, processor = load(name)
        ids = range(model.language_model.config.vocab_size)
        texts = [processor.tokenizer.decode([token]).strip() for token in ids]
        yes, no = (np.flatnonzero([text == word for text in texts]) for word in ("Yes", "No"))
        chosen = {method: parse_method(method) for method in methods}
        for group in track(lacking, description=name):
            source = task.source(None, group[0].medium)
            media = {"images": [open_image(source)]} if task.medium == "image" else {"audio": [open_audio(source)]}
            prompts = processor.prompts([item.text for item in group], **media)
            for item, start in zip(group, sessions(model, processor.content, prompts), strict=True):
                for method, answers in held.items():
                    if item.id not in answers.records:
                        session = start()
                        session.want_relevance = False
                        (step,) = steps(session, chosen[method], 1)
                        margin = float(step.logits[yes].max() - step.logits[no].max())
                        answers.append({"id": item.id, "text": texts[step.token], "margin": margin})
    known = {item.id: {"medium": item.medium, "split": item.split, "label": item.label} for item in task.items(None)}
    for method, answers in held.items():
        for key, found in known.items():
            found[method] = answers.records[key]["margin"]
    return known


def row(known: dict[str, dict], method: str) -> dict:
    """One line of the table: accuracy, yes rate, flips and shifts of one method."""
    questions = list(known.values())
    media = [question["medium"] for question in questions]
    label = np.array([question["label"] == "yes" for question in questions])
    before, after = (np.array([question[name] for question in questions]) for name in ("none", method))
    right, was = (after > 0) == label, (before > 0) == label
    low, high = interval(right, np.ones(len(right)), media)
    shift = after - before
    toward_yes, toward_no = (after > 0) & (before <= 0), (after <= 0) & (before > 0)
    splits = {question["split"] for question in questions}
    return {
        "method": method,
        "accuracy": f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        **{s: f"{100 * right[[q['split'] == s for q in questions]].mean():.1f}" for s in sorted(splits)},
        "yes rate": f"{100 * (after > 0).mean():.1f}",
        "no to yes, right / wrong": f"{(toward_yes & label).sum()} / {(toward_yes & ~label).sum()}",
        "yes to no, right / wrong": f"{(toward_no & ~label).sum()} / {(toward_no & label).sum()}",
        "margin": f"{np.abs(after).mean() / np.abs(before).mean():.2f} x",
        "bias": f"{(shift[label].mean() + shift[~label].mean()) / 2:+.2f}",
        "sight": f"{(shift[label].mean() - shift[~label].mean()) / 2:+.2f}",
        "p": mcnemar(was, right),
    }


def table(rows: list[dict]) -> str:
    for found, corrected in zip(rows[1:], holm([found["p"] for found in rows[1:]]), strict=True):
        found["p"] = f"{corrected:.2g}"
    rows[0]["p"] = ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, found.values())) + " |" for found in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=TASKS, default="demo")
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--method", action="append", default=[], help="instead of the settings that are listed here")
    parser.add_argument("--output", type=Path, default=Path("work/yes_no"))
    arguments = parser.parse_args()
    methods = ["none", *(arguments.method or [FORCED, *(f"{FORCED},{setting}" for setting in SETTINGS[1:])])]
    spec = f"{TASKS[arguments.demo]}:part={arguments.part},ask=questions,count={arguments.scenes}"
    known = margins(arguments.demo, parse_task(spec), methods, arguments.output / f"{arguments.demo}.{arguments.part}")
    print(f"{len(known)} questions about {arguments.scenes} scenes")
    print(table([row(known, method) for method in methods]))


if __name__ == "__main__":
    main()
