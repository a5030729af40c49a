"""The estimates of lime_mlx.memory against measured peaks: the demo, and random text models with a span.

python benchmarks/memory_needed.py

A number as its argument leaves out so many of the shapes.
"""

import sys

import mlx.core as mx
import numpy as np

from lime_mlx import blas

blas.load_blas()

from mlx.utils import tree_flatten  # noqa: E402

from lime_mlx import decode, load  # noqa: E402
from lime_mlx.checkpoint.load import build  # noqa: E402
from lime_mlx.kv import DEFAULT, KVOptions  # noqa: E402
from lime_mlx.memory import memory_needed  # noqa: E402
from lime_mlx.models.base import Model  # noqa: E402
from lime_mlx.prompt import Prompt, Span  # noqa: E402
from lime_mlx.scenes import make_scene  # noqa: E402

ANSWER = 4
RUNS = {
    "plain": ("none", False),
    "explain": ("none", True),
    "lime fast": ("lime:gate=1,words=all", False),
    "lime exact": ("lime:mode=exact,steps=3,checkpoint=on,gate=1,words=all", False),
}
# layers, width, heads, key heads, MLP, prompt, window
SHAPES = [
    (4, 256, 8, 8, 512, 400, None),
    (4, 256, 8, 2, 1024, 300, None),
    (4, 256, 8, 4, 512, 200, None),
    (8, 256, 8, 8, 512, 200, None),
    (2, 512, 4, 4, 2048, 300, None),
    (4, 256, 4, 4, 512, 1500, None),
    (6, 256, 4, 2, 512, 1500, 128),
]
LONG = 1000  # exact LIME on longer prompts takes minutes
PACKED = KVOptions(kv_bits=4, kv_group_size=32, quantized_kv_start=0, prefill_step_size=128)
OPTIONS = {"": DEFAULT, "4 bits": PACKED, "limited": KVOptions(max_kv_size=600, prefill_step_size=128)}


def random_model(
    layers: int, width: int, heads: int, key_heads: int, hidden: int, length: int, window: int | None
) -> tuple[Model, Prompt]:
    config = {"model_type": "llama", "hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": layers}
    if window is not None:
        config |= {"model_type": "qwen2", "sliding_window": window, "use_sliding_window": True, "max_window_layers": 1}
    model = build({**config, "num_attention_heads": heads, "num_key_value_heads": key_heads, "vocab_size": 512})
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.standard_normal(shape) * 0.02 if len(shape) > 1 else np.ones(shape)  # noqa: E731
    shapes = {name: weight.shape for name, weight in dict(tree_flatten(model.parameters())).items()}
    model.load_weights([(name, mx.array(draw(shape), mx.float32)) for name, shape in shapes.items()])
    mx.eval(model.parameters())
    return model, Prompt(np.arange(length) % 512, spans=[Span("image", 4, min(length - 8, 500))])


def show(name: str, model: Model, prompt: Prompt, kv: KVOptions, width: int, runs: dict[str, tuple[str, bool]]) -> None:
    pinned = max(span.stop for span in model.spans(prompt))
    expected = memory_needed(model.language_model.config, 0, len(prompt), ANSWER, kv, pinned, width)
    for what, (method, reliance) in runs.items():
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        list(decode(model, prompt, method, ANSWER, reliance=reliance, kv=kv))
        peak = mx.get_peak_memory() - before
        ratio = expected[what] / peak
        print(f"| {name} | {what} | {expected[what] / 1e6:.1f} | {peak / 1e6:.1f} | {ratio:.2f} |", flush=True)


def main() -> None:
    print("| model | doing | expected, MB | measured, MB | ratio |\n|---|---|---|---|---|")
    model, processor = load("demo")
    prompt = processor.prompt("What is in the picture?", images=[make_scene(0, "ordinary").image])
    show("demo", model, prompt, DEFAULT, 4, RUNS)
    short = {name: RUNS[name] for name in ("plain", "explain", "lime fast")}
    for shape in SHAPES[int(sys.argv[1]) if len(sys.argv) > 1 else 0 :]:
        model, prompt = random_model(*shape)
        name = " ".join(str(value) for value in shape if value is not None)
        runs = RUNS if len(prompt) <= LONG else short
        for options, kv in OPTIONS.items() if len(prompt) > LONG else [("", DEFAULT)]:
            show(f"{name} {options}".strip(), model, prompt, kv, 4, runs)
        if len(prompt) > LONG:
            model.set_dtype(mx.bfloat16)
            for options, kv in OPTIONS.items():
                show(f"{name} bfloat16 {options}".strip(), model, prompt, kv, 2, runs)


if __name__ == "__main__":
    main()
