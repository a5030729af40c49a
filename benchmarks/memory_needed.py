"""What lime-mlx inspect says of memory, against measured peaks: the demo, and random text models with a span.

python benchmarks/memory_needed.py
"""

import mlx.core as mx
import numpy as np

from lime_mlx import blas

blas.load_blas()

from mlx.utils import tree_flatten  # noqa: E402

from lime_mlx import decode, load  # noqa: E402
from lime_mlx.checkpoint.load import build  # noqa: E402
from lime_mlx.convert.memory import memory_needed  # noqa: E402
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
# layers, width, heads, key heads, MLP, prompt
SHAPES = [(4, 256, 8, 8, 512, 400), (4, 256, 8, 2, 1024, 300), (8, 256, 8, 8, 512, 200), (2, 512, 4, 4, 2048, 300)]


def random_model(layers: int, width: int, heads: int, key_heads: int, hidden: int, length: int) -> tuple[Model, Prompt]:
    config = {"model_type": "llama", "hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": layers}
    model = build({**config, "num_attention_heads": heads, "num_key_value_heads": key_heads, "vocab_size": 512})
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.standard_normal(shape) * 0.02 if len(shape) > 1 else np.ones(shape)  # noqa: E731
    shapes = {name: weight.shape for name, weight in dict(tree_flatten(model.parameters())).items()}
    model.load_weights([(name, mx.array(draw(shape), mx.float32)) for name, shape in shapes.items()])
    mx.eval(model.parameters())
    return model, Prompt(np.arange(length) % 512, spans=[Span("image", 4, length - 8)])


def main() -> None:
    model, processor = load("demo")
    cases = {"demo": (model, processor.prompt("What is in the picture?", images=[make_scene(0, "ordinary").image]))}
    cases |= {" ".join(map(str, shape)): random_model(*shape) for shape in SHAPES}
    print("| model | doing | expected, MB | measured, MB | ratio |\n|---|---|---|---|---|")
    for name, (model, prompt) in cases.items():
        expected = memory_needed(model.language_model.config, 0, len(prompt), ANSWER)
        for what, (method, reliance) in RUNS.items():
            mx.clear_cache()
            mx.reset_peak_memory()
            before = mx.get_active_memory()
            list(decode(model, prompt, method, ANSWER, reliance=reliance))
            peak = mx.get_peak_memory() - before
            ratio = expected[what] / peak
            print(f"| {name} | {what} | {expected[what] / 1e6:.1f} | {peak / 1e6:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
