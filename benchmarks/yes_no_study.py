"""What LIME does to yes and no: which way answers flip, and why.

    python benchmarks/yes_no_study.py --demo demo --scenes 150                     # settings on validation scenes
    python benchmarks/yes_no_study.py --demo demo --scenes 60 --why                # where the relevance is
    python benchmarks/yes_no_study.py --demo demo --part test --scenes 500 --method lime:words=all,...

LIME is forced on the answer's one token. Kept is its margin, the logit of Yes minus that of No, for each question and
method, so that flips, shifts and thresholds can be read off; `bias` is the shift of the margin toward yes that
questions with both labels have in common, `sight` half of what they have not: the shift in the right direction.
The last lines are plain decoding with the bias of the last method and nothing else, and with `--above`. Margins go to
JSON lines and are not computed twice. Tests are McNemar's against plain on distinct questions (the three splits ask
some of them again), after Holm's correction.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
from rich.progress import track

from lime_mlx import load
from lime_mlx.decoding import steps
from lime_mlx.evaluate.asking import SessionFactory, sessions
from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.statistics import holm, interval, mcnemar
from lime_mlx.evaluate.store import Answers
from lime_mlx.evaluate.tasks import Item, Task, parse_task
from lime_mlx.methods import parse_method
from lime_mlx.methods.lime import PreparedLime
from lime_mlx.methods.token_optimizer import Fast
from lime_mlx.methods.updates import Deltas
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt

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
    "target=contrast,layers=3,deltas=v,lr=0.5",
]


def opened(
    loaded: tuple[Model, Processor], task: Task, items: list[Item]
) -> Iterator[tuple[Item, Prompt, SessionFactory]]:
    """Every item with what opens a session of its question; the media of a scene is read once."""
    model, processor = loaded
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.medium, []).append(item)
    for group in track(list(groups.values()), description=task.name):
        media = task.opened(None, group[0].medium)
        prompts = processor.prompts([item.text for item in group], **media)
        yield from zip(group, prompts, sessions(model, prompts), strict=True)


def answers_of(loaded: tuple[Model, Processor]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """All tokens as text, and which of them say Yes and which No."""
    model, processor = loaded
    texts = [processor.tokenizer.decode([token]).strip() for token in range(model.language_model.config.vocab_size)]
    yes, no = (np.flatnonzero([text == word for text in texts]) for word in ("Yes", "No"))
    return texts, yes, no


def margins(name: str, task: Task, methods: list[str], file: Path) -> dict[str, dict]:
    """Of every question, what is known of it and the margin by each method."""
    held = {
        method: Answers(file.with_name(f"{file.name}.{re.sub('[^a-z0-9.=-]+', '_', method)}.jsonl"))
        for method in methods
    }
    lacking = [item for item in task.items(None) if any(item.id not in h.records for h in held.values())]
    if lacking:
        loaded = load(name)
        texts, yes, no = answers_of(loaded)
        chosen = {method: parse_method(method) for method in methods}
        for item, _, start in opened(loaded, task, lacking):
            for method, answers in held.items():
                if item.id not in answers.records:
                    session = start()
                    session.want_relevance = False
                    (step,) = steps(session, chosen[method], 1)
                    margin = float(step.logits[yes].max() - step.logits[no].max())
                    record: Record = {
                        "id": item.id,
                        "medium": item.medium,
                        "text": texts[step.token],
                        "margin": margin,
                    }
                    answers.append(record)
    questions: dict[str, dict] = {
        item.id: {"medium": item.medium, "text": item.text, "split": item.split, "label": item.label}
        for item in task.items(None)
    }
    for method, answers in held.items():
        for key, question in questions.items():
            question[method] = answers.records[key]["margin"]
    return questions


def of_answer(search: Fast, best: int, rest: int, deltas: Deltas) -> mx.array:
    """The margin, under the deltas, of the token `best` over the token `rest`."""
    logits = search.last_logits(deltas)
    return logits[best] - logits[rest]


def why(name: str, task: Task) -> None:
    """Where the relevance of the answer is, and what a small step of each objective does to the answer's own margin."""
    loaded = load(name)
    texts, yes, no = answers_of(loaded)
    goals = [f"objective={g},target={t}" for g in ("uniform", "mass", "share") for t in ("argmax", "contrast")]
    methods = [cast(PreparedLime, parse_method(f"{FORCED},{goal}").prepare(loaded[0])).options for goal in goals]
    peaks: Counter[str] = Counter()
    inside: list[float] = []
    slopes: dict[str, list[list[float]]] = {"Yes": [], "No": []}
    distinct = {(item.medium, item.text): item for item in task.items(None)}
    for item, prompt, start in opened(loaded, task, list(distinct.values())):
        session = start()
        session.prefill()
        search = Fast(methods[0], session)
        zeros, reading = search.zeros(), search.forward(search.zeros())
        share = np.array(mx.softmax(reading.relevance / methods[0].tau))
        media = np.flatnonzero(session.modality)
        inside.append(share[media].sum())
        peak = int(share.argmax())
        word = texts[int(prompt.input_ids[peak])]
        if peak in media:
            source = "the picture or sound"
        elif peak == len(share) - 1:
            source = "the newest position"
        else:
            source = "the thing asked for" if word and word in item.id.split("/")[-1] else repr(word)
        peaks[source] += 1
        logits = np.array(reading.logits)
        best_yes, best_no = (int(tokens[logits[tokens].argmax()]) for tokens in (yes, no))
        given, other = ("Yes", "No") if logits[best_yes] > logits[best_no] else ("No", "Yes")
        tokens_of = {"Yes": best_yes, "No": best_no}
        of_margin = mx.grad(partial(of_answer, search, tokens_of[given], tokens_of[other]))(zeros)
        changes = []
        for method in methods:
            gradient = Fast(method, session).loss(zeros, None).gradient
            pairs = [
                (mx.array(np.array(goal[part])), margin[part])
                for goal, margin in zip(gradient, of_margin, strict=True)
                for part in goal
            ]
            changes.append(-0.01 * sum(float((mx.sign(goal) * margin).sum()) for goal, margin in pairs))
        slopes[given].append(changes)
    print(f"{len(distinct)} distinct questions; the largest share is on:", dict(peaks.most_common()))
    print(f"share on the picture or sound: mean {np.mean(inside):.3f}, median {np.median(inside):.3f}")
    print("change of the margin of the answer itself by a step of 0.01 against the gradient's sign, to first order:")
    for word, rows in slopes.items():
        print(f"{word} ({len(rows)}):", {g: f"{x:+.2f}" for g, x in zip(goals, np.mean(rows, axis=0), strict=True)})


def row(questions: list[dict], method: str) -> dict:
    """One line of the table: accuracy, yes rate, flips and shifts of one method."""
    media = [question["medium"] for question in questions]
    label = np.array([question["label"] == "yes" for question in questions])
    before, after = (np.array([question[name] for question in questions]) for name in ("none", method))
    right, was = (after > 0) == label, (before > 0) == label
    _, distinct = np.unique([f"{q['medium']} {q['text']}" for q in questions], return_index=True)
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
        "p": mcnemar(was[distinct], right[distinct]),
    }


def best(questions: list[dict]) -> float:
    """The threshold with which plain decoding is right most often, to a quarter."""
    margin, label = (np.array([q[name] for q in questions]) for name in ("none", "label"))
    thresholds = np.arange(-3, 9.01, 0.25)
    return float(thresholds[np.argmax([((margin > c) == (label == "yes")).mean() for c in thresholds])])


def table(rows: list[dict]) -> str:
    for line, corrected in zip(rows[1:], holm([line["p"] for line in rows[1:]]), strict=True):
        line["p"] = f"{corrected:.2g}"
    rows[0]["p"] = ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, line.values())) + " |" for line in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=TASKS, default="demo")
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--method", action="append", default=[], help="instead of the settings that are listed here")
    parser.add_argument("--output", type=Path, default=Path("work/yes_no"))
    parser.add_argument("--above", type=float, help="a line for plain decoding that says yes above this margin only")
    parser.add_argument("--why", action="store_true", help="where the relevance is, instead of the table")
    arguments = parser.parse_args()
    methods = ["none", *(arguments.method or [FORCED, *(f"{FORCED},{setting}" for setting in SETTINGS[1:])])]
    spec = f"{TASKS[arguments.demo]}:part={arguments.part},ask=questions,count={arguments.scenes}"
    if arguments.why:
        why(arguments.demo, parse_task(spec))
        return
    file = arguments.output / f"{arguments.demo}.{arguments.part}"
    questions = list(margins(arguments.demo, parse_task(spec), methods, file).values())
    print(f"{len(questions)} questions about {arguments.scenes} scenes")
    rows = [row(questions, method) for method in methods]
    for question in questions:
        question["none, as biased"] = question["none"] + float(rows[-1]["bias"])
        question["none, above"] = question["none"] - (arguments.above or 0)
    print(table([*rows, *(row(questions, name) for name in ("none, as biased", "none, above"))]))
    print("best margin to say yes above, for plain decoding on these questions:", best(questions))


if __name__ == "__main__":
    main()
