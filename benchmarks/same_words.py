"""Are the tokens of an answer the same whether one looks at relevance or not, in each type of weights?

    OMP_NUM_THREADS=1 python benchmarks/same_words.py
    OMP_NUM_THREADS=1 python benchmarks/same_words.py --scenes 20 --method choose

Captions of adversarial validation scenes by the picture demo, with relevance and without, up to 24 tokens. The table
says how many answers differ.
"""

import argparse

import mlx.core as mx
import mlx.nn as nn
from rich.progress import track

from lime_mlx import generate, load
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor
from lime_mlx.scenes import PROMPTS, make_scene

FIRST_SEED = 150_000
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16}
BITS = {"8 bits": 8, "4 bits": 4}


def loaded(kind: str) -> tuple[Model, Processor]:
    """The picture demo in a dtype, or its decoder in bits."""
    model, processor = load("demo")
    if kind in DTYPES:
        model.set_dtype(DTYPES[kind])
        return model, processor

    def fits(_: str, module: nn.Module) -> bool:
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0

    nn.quantize(model.language_model, 32, BITS[kind], class_predicate=fits)
    return model, processor


def differing(model: Model, processor: Processor, method: str, scenes: int) -> int:
    """How many answers have other tokens when relevance is looked at."""
    count = 0
    for seed in track(range(FIRST_SEED, FIRST_SEED + scenes), description=method):
        prompt = processor.prompt(PROMPTS[0], images=[make_scene(seed, "adversarial").image])
        plain, looked_at = (
            generate(model, processor, prompt, method=method, max_tokens=24, reliance=looks, relevance=looks).tokens
            for looks in (False, True)
        )
        count += plain != looked_at
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--method", default="none")
    arguments = parser.parse_args()
    print(f"| weights | answers of {arguments.scenes} that differ |\n|---|---|")
    for kind in (*DTYPES, *BITS):
        print(f"| {kind} | {differing(*loaded(kind), arguments.method, arguments.scenes)} |", flush=True)


if __name__ == "__main__":
    main()
