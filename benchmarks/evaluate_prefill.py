"""Three questions about a picture: one prefill for all of them against one each.

    python benchmarks/evaluate_prefill.py
    python benchmarks/evaluate_prefill.py --layers 12 --hidden 512 --side 24

Without --layers the bundled picture model on its own questions; with it random weights of that size, a picture of
side x side tokens and questions of 12 tokens. Both ways are run in turn on the same questions, and must give the same
answers; the ratio is of the time per picture, median and quartiles of the pairs.
"""

import argparse
import time

import numpy as np

from lime_mlx import blas

blas.load_blas()

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_map  # noqa: E402

from lime_mlx import load  # noqa: E402
from lime_mlx.checkpoint.load import build  # noqa: E402
from lime_mlx.decoding import steps  # noqa: E402
from lime_mlx.evaluate.asking import sessions  # noqa: E402
from lime_mlx.evaluate.tasks import parse_task  # noqa: E402
from lime_mlx.methods import parse_method  # noqa: E402
from lime_mlx.models.base import Model  # noqa: E402
from lime_mlx.prompt import Prompt  # noqa: E402

QUESTIONS, TOKENS = 3, 2


def bundled(pictures: int) -> tuple[Model, list[list[Prompt]]]:
    """The model, and three prompts about each picture."""
    model, processor = load("demo")
    task = parse_task(f"scenes:ask=questions,count={pictures}")
    questions: dict[str, list[str]] = {}
    for item in task.items(None):
        questions.setdefault(item.medium, []).append(item.text)
    groups = [processor.prompts(texts[:QUESTIONS], **task.opened(None, medium)) for medium, texts in questions.items()]
    return model, groups


def random_model(pictures: int, layers: int, hidden: int, side: int) -> tuple[Model, list[list[Prompt]]]:
    """A llava with a random decoder and a tower of a third of its layers."""
    patch, vocabulary = 14, 1000
    vision = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": max(2, layers // 3)}
    vision |= {"num_attention_heads": hidden // 64, "image_size": side * patch, "patch_size": patch}
    text = {"model_type": "llama", "hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers}
    text |= {"num_attention_heads": hidden // 64, "vocab_size": vocabulary}
    model = build({"model_type": "llava", "text_config": text, "vision_config": vision, "image_token_id": 999})
    mx.random.seed(0)
    model.update(tree_map(lambda x: 0.05 * mx.random.normal(x.shape), model.parameters()))
    mx.eval(model.parameters())
    rng = np.random.default_rng(0)
    groups = []
    for _ in range(pictures):
        media = {"pixel_values": rng.standard_normal((1, 3, side * patch, side * patch)).astype(np.float32)}
        opening = [1, 2, 3, *[999] * side * side, 4]
        groups.append([Prompt([*opening, *rng.integers(10, 900, 12)], media) for _ in range(QUESTIONS)])
    return model, groups


def answered(model: Model, prompts: list[Prompt], shared: bool) -> tuple[list[list[int]], float]:
    method = parse_method("none")
    began = time.perf_counter()
    answers = []
    for start in sessions(model, prompts, shared):
        session = start()
        session.want_relevance = False
        answers.append([step.token for step in steps(session, method, TOKENS)])
    return answers, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--side", type=int, default=24)
    arguments = parser.parse_args()
    if arguments.layers:
        model, groups = random_model(arguments.pictures, arguments.layers, arguments.hidden, arguments.side)
    else:
        model, groups = bundled(arguments.pictures)
    ratios, same = [], 0
    for number, prompts in enumerate([groups[0], *groups]):
        order = (True, False) if number % 2 else (False, True)
        results = {shared: answered(model, prompts, shared) for shared in order}
        if number:  # the first warms up
            same += results[True][0] == results[False][0]
            ratios.append(results[False][1] / results[True][1])
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    print(f"prompts of {len(groups[0][0])} tokens, {len(groups)} pictures, {QUESTIONS} questions each")
    print(f"same answers about {same} of {len(groups)} pictures")
    print(f"separate / shared prefill: {middle:.2f} x (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
