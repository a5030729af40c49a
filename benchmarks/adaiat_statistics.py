"""The statistics of attention that AdaIAT needs, from a demo's captions of validation scenes with known content.

    python benchmarks/adaiat_statistics.py --demo picture --output runs/adaiat-picture.json

For each layer and head: the mean attention to a token of the answer so far, at the step that gives the first token of
an object word. One mean is over the words whose object is there, the other over those whose object is not.
"""

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
from rich.progress import track

from lime_mlx import load
from lime_mlx.decoding import start, steps
from lime_mlx.evaluate.tasks import Item, Task, parse_task
from lime_mlx.files import write
from lime_mlx.methods import parse_method
from lime_mlx.methods.adaiat import SUPPORTED, UNSUPPORTED, mean_attention
from lime_mlx.methods.own_text import own_text
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor

# The world of each bundled checkpoint, and its name.
TASKS = {"picture": ("scenes", "demo"), "sound": ("sounds", "demo-sound")}


def attention(loaded: tuple[Model, Processor], task: Task, item: Item) -> Iterator[tuple[bool, np.ndarray]]:
    """For each object word behind the first token, whether its object is there, and the attention (L, H) before it."""
    model, processor = loaded
    prompt = processor.prompt(item.text, **task.opened(None, item.medium))
    session, layers = start(model, prompt, reliance=False), range(len(model.language_model.layers))
    shown: dict[int, mx.array] = {}
    tokens, seen = [], []
    with session.observing({layer: partial(shown.__setitem__, layer) for layer in layers}):
        for step in steps(session, parse_method("none"), item.max_tokens, stop=frozenset(processor.eos_token_ids)):
            own = mx.array(own_text(session)[: shown[0].shape[-1]])
            seen.append(np.array(mx.stack([mean_attention(shown[layer], own) for layer in layers])))
            tokens.append(step.token)
    texts, truth = [processor.tokenizer.decode([token]) for token in tokens], task.true_objects(item)
    for index, kind in task.objects(texts, {}):
        if index > 0:
            yield kind in truth, seen[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=sorted(TASKS), default="picture")
    parser.add_argument("--model", help="another checkpoint of the same world")
    parser.add_argument("--scenes", type=int, default=500, help="validation scenes, behind as many that are left alone")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    world, name = TASKS[arguments.demo]
    task = parse_task(f"{world}:part=validation,ask=captions")
    loaded = load(arguments.model or name)
    rows: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for item in track(task.items(None, arguments.scenes, seed=1), description=task.name):
        for there, row in attention(loaded, task, item):
            rows[there].append(row)
    if not all(rows.values()):
        raise SystemExit("The captions name no object of one kind; take more scenes.")
    means = {key: np.mean(rows[there], axis=0).tolist() for key, there in ((SUPPORTED, True), (UNSUPPORTED, False))}
    write(arguments.output, json.dumps(means))
    print(f"{len(rows[True])} supported words, {len(rows[False])} unsupported: {arguments.output}")


if __name__ == "__main__":
    main()
