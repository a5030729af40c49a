"""The tokens of an answer are the same whether one looks at their relevance, their evidence and their cost or not."""

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import pytest

from lime_mlx import generate, load
from lime_mlx.scenes import PROMPTS, make_scene

FIRST = 150_000


@cache
def loaded(kind: str):
    """The demo in a dtype, or in bits."""
    model, processor = load("demo")
    if kind.endswith("bits"):
        fits = lambda _, module: hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0  # noqa: E731
        nn.quantize(model.language_model, 32, int(kind[0]), class_predicate=fits)
    else:
        model.set_dtype({"float32": mx.float32, "bfloat16": mx.bfloat16}[kind])
    return model, processor


def answers(kind: str, seed: int, method: str) -> list[list[int]]:
    model, processor = loaded(kind)
    looks = (
        {"reliance": False},
        {"reliance": True},
        {"reliance": True, "relevance": True, "measure": True},
    )
    image = make_scene(seed, "adversarial").image
    prompt = processor.prompt(PROMPTS[0], images=[image])
    return [generate(model, processor, prompt, method=method, max_tokens=12, **look).tokens for look in looks]


KINDS = ["float32", "bfloat16", "8 bits", "4 bits"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["none", "choose", "lime", "dleaf", "kvsmooth"])
def test_looking_changes_no_word(kind, method):
    plain, *looked_at = answers(kind, FIRST, method)
    assert plain and all(tokens == plain for tokens in looked_at)
