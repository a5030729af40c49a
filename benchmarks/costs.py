"""What looking costs: time of a token against plain decoding, and memory beside weights and cache.

    python benchmarks/costs.py                              # the table, Markdown
    python benchmarks/costs.py --shapes "12 x 512" --dtypes bfloat16 --prompts 600 2000
    python benchmarks/costs.py --write                      # store the figures of today in costs.json
    make bench-check                                        # compare the stored figures with those of today

Weights are random. Times are ratios of medians of alternating pairs; on the CPU they are of processor time, which other
programs disturb less. Memory is the peak above what is held before the token, plain decoding's own left out: it is
the same in each run. `--check` fails where a time is more than a third above the stored one, or memory more than a
tenth and 0.1 % of the weights.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from lime_mlx import backend, blas

blas.load_blas()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from lime_mlx.decoding import start  # noqa: E402
from lime_mlx.methods import parse_method  # noqa: E402
from lime_mlx.models.text import Text  # noqa: E402
from lime_mlx.prompt import Prompt, Span  # noqa: E402

STORE = Path(__file__).with_suffix(".json")
# Layers, hidden size, size inside of the gated layers, key heads.
SHAPES = {"12 x 512": (12, 512, 1408, 8), "28 x 256": (28, 256, 704, 4), "7B": (28, 3584, 18944, 4)}
DTYPES = ("float32", "bfloat16", "4 bits")
METHODS = {
    "relevance": "none",
    "fast, 1 update": "lime:steps=2,words=all",
    "fast, 1 normalised update": "lime:steps=2,words=all,update=normalised",
}
SLOWER, LARGER = 4 / 3, 1.1
LEAST = 0.001  # of the weights: what rounding and a token more make of a row that needs next to nothing


class Cost(NamedTuple):
    """Time of a token over plain decoding's; bytes beside what is held, over those of weights and of the cache."""

    time: float
    of_weights: float
    of_cache: float


def build(shape: str, dtype: str) -> Text:
    layers, width, inner, key_heads = SHAPES[shape]
    dim = 128 if width > 1024 else 64
    model = Text(
        {
            "model_type": "llama",
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": width // dim,
            "num_key_value_heads": key_heads,
            "head_dim": dim,
            "vocab_size": 8000,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        }
    )
    if dtype != "float32":
        model.set_dtype(mx.bfloat16 if dtype == "bfloat16" else backend.compute_dtype())
    if dtype == "4 bits":
        nn.quantize(model, 64, 4)
    mx.eval(model.parameters())
    return model


def token(model: Text, spec: str, length: int, reliance: bool) -> Callable[[], tuple[float, int, int]]:
    """A function that decodes one token more: seconds, bytes at the peak above those before, bytes of the cache."""
    ids = np.random.default_rng(0).integers(5, 8000, length)
    session = start(model, Prompt(ids, spans=[Span("image", 5, length - 19)]), reliance=reliance)
    method = parse_method(spec).prepare(model)
    session.prefill()
    mx.eval(session.cache.arrays())
    clock = time.process_time if backend.is_cpu() else time.perf_counter

    def step() -> tuple[float, int, int]:
        mx.clear_cache()
        held = mx.get_active_memory()
        mx.reset_peak_memory()
        began = clock()
        mx.eval(method.step(session).logits)
        taken = clock() - began
        peak = mx.get_peak_memory() - held
        session.append(7)
        return taken, peak, session.cache.nbytes

    step()
    return step


def measured(
    shapes: list[str], dtypes: list[str], prompts: list[int], pairs: int, only: Collection[str] | None
) -> Iterator[tuple[str, Cost]]:
    """Each row's name and cost; only: the names of the rows that are measured."""
    for shape in shapes:
        for dtype in dtypes:
            if only is not None and not any(name.startswith(f"{shape} | {dtype} |") for name in only):
                continue
            model = build(shape, dtype)
            weights = sum(x.nbytes for x in dict(tree_flatten(model.parameters())).values())
            for length in prompts:
                plain = token(model, "none", length, reliance=False)
                for method, spec in METHODS.items():
                    name = f"{shape} | {dtype} | {length} | {method}"
                    if only is not None and name not in only:
                        continue
                    step = token(model, spec, length, reliance=spec == "none")
                    rows = [(plain(), step()) for _ in range(pairs)]
                    ratio = statistics.median(b[0] for _, b in rows) / statistics.median(a[0] for a, _ in rows)
                    extra = max(b[1] for _, b in rows) - min(a[1] for a, _ in rows)
                    cost = Cost(round(ratio, 2), round(extra / weights, 4), round(extra / rows[0][0][2], 4))
                    yield name, cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=[*SHAPES], default=["12 x 512", "28 x 256"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=[*DTYPES])
    parser.add_argument("--prompts", nargs="+", type=int, default=[600])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stored = json.loads(STORE.read_text()) if STORE.exists() else {}
    print(f"mlx {version('mlx')}, {backend.device_name()}\n")
    print("| model | weights | prompt | method | x plain | extra, % of weights | % of cache |")
    print("|---|---|---|---|---|---|---|")
    wrong = []
    only = stored if arguments.check else None
    for name, cost in measured(arguments.shapes, arguments.dtypes, arguments.prompts, arguments.pairs, only):
        print(f"| {name} | {cost.time:.2f} | {100 * cost.of_weights:.1f} | {100 * cost.of_cache:.1f} |", flush=True)
        before = Cost(*stored[name]) if arguments.check else None
        if before is not None and cost.time > SLOWER * before.time:
            wrong.append(f"{name}: {cost.time:.2f} x plain, {before.time:.2f} stored")
        if before is not None and cost.of_weights > LARGER * before.of_weights + LEAST:
            wrong.append(f"{name}: {cost.of_weights:.2%} of the weights, {before.of_weights:.2%} stored")
        if arguments.write:
            stored[name] = cost
            STORE.write_text(json.dumps(stored, indent=1) + "\n")
    if wrong:
        sys.exit("\n".join(["", "slower or larger than stored:", *wrong]))


if __name__ == "__main__":
    main()
