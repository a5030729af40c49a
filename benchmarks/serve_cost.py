"""What the server costs: beside `generate`, with words and maps in the stream, and until the first token.

    python benchmarks/serve_cost.py --pictures 20 --rounds 3
    python benchmarks/serve_cost.py --pictures 6 --rounds 1 --layers 12

With --layers the model has random weights: so many layers of width 512, and 576 tokens for a picture; its answers say
nothing, but take their time.

Seconds per token are those between the first and the last token of an answer, as a client in another process sees
them. The three ways take turns on each picture; the ratios are of pairs, with quartiles. The scenes are those of the
validation set.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lime_mlx import blas

blas.load_blas()

import httpx2 as httpx  # noqa: E402
import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from lime_mlx import load, stream_generate  # noqa: E402
from lime_mlx.checkpoint.hub import demos  # noqa: E402
from lime_mlx.checkpoint.load import build  # noqa: E402
from lime_mlx.scenes import make_scene  # noqa: E402

TOKENS = 24
QUESTION, SECOND = "What is in the picture?", "Is there a dog?"


def random_checkpoint(folder: Path, layers: int, hidden: int = 512, side: int = 24, patch: int = 14) -> None:
    """A LLaVA with the tokenizer of the demo and random weights, that was not calibrated."""
    shutil.copytree(demos()["picture"], folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    shape = {"hidden_size": hidden, "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64}
    shape["intermediate_size"] = 3 * hidden
    config["text_config"] |= {**shape, "num_hidden_layers": layers, "max_position_embeddings": 4096}
    config["text_config"].pop("head_dim", None)
    vision = {**shape, "num_hidden_layers": max(2, layers // 3), "image_size": side * patch, "patch_size": patch}
    config["vision_config"] |= vision
    config["image_seq_length"] = side * side
    config.pop("lime", None)
    (folder / "config.json").write_text(json.dumps(config))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings |= {"size": {"shortest_edge": side * patch}, "crop_size": dict.fromkeys(("height", "width"), side * patch)}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    mx.random.seed(0)
    shapes = dict(tree_flatten(build(config).parameters()))
    weights = {name: 0.05 * mx.random.normal(x.shape) for name, x in shapes.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})


def per_token(times: list[float]) -> float:
    return (times[-1] - times[0]) / (len(times) - 1)


def local(model, processor, image) -> list[float]:
    """When each token came, from `stream_generate` without relevance."""
    times = []
    for response in stream_generate(
        model, processor, QUESTION, image, method="none", reliance=False, max_tokens=TOKENS
    ):
        if response.text:
            times.append(time.perf_counter())
    return times


def served(client: httpx.Client, body: dict) -> tuple[float, list[float]]:
    """When a stream was asked for, and when each of its tokens came."""
    times, began = [], time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter())
    return began, times


def body_of(text: str, uri: str, **fields) -> dict:
    parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS, **fields}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name = "demo"
        if arguments.layers:
            random_checkpoint(Path(folder), arguments.layers)
            name = folder
        print(json.dumps(run(name, arguments)))


def run(name: str, arguments: argparse.Namespace) -> dict:
    """Start the server, measure, end the server."""
    start = ["-c", "from lime_mlx.cli import main; main()", "serve", "--port", "0", "--quiet", "--model", name]
    process = subprocess.Popen([sys.executable, *start], stderr=subprocess.PIPE, text=True)
    try:
        line = ""
        while "http://" not in line:
            line = process.stderr.readline() if process.stderr else ""
        address = "http://" + line.split("http://")[1].split("/")[0]
        with httpx.Client(base_url=address, timeout=600, trust_env=False) as client:
            return measured(client, *load(name), arguments)
    finally:
        process.terminate()
        process.wait(20)


def measured(client: httpx.Client, model, processor, arguments: argparse.Namespace) -> dict:
    seconds: dict[str, list[float]] = {"generate": [], "plain": [], "words": [], "first": [], "second": []}
    for turn in range(arguments.rounds):
        for number in range(arguments.pictures):
            image = make_scene(100_000 + turn * arguments.pictures + number, "ordinary").image
            file = io.BytesIO()
            image.save(file, "PNG")
            uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
            began, times = served(client, body_of(QUESTION, uri))
            again, later = served(client, body_of(SECOND, uri))
            if turn == 0 and number == 0:
                local(model, processor, image), served(client, body_of(QUESTION, uri, lime={"maps": True}))
                continue  # the first time warms up
            seconds["first"].append(times[0] - began)
            seconds["second"].append(later[0] - again)
            seconds["plain"].append(per_token(times))
            seconds["generate"].append(per_token(local(model, processor, image)))
            seconds["words"].append(per_token(served(client, body_of(QUESTION, uri, lime={"maps": True}))[1]))
    return {
        "answers": len(seconds["plain"]),
        "ms": {name: round(1000 * statistics.median(values), 2) for name, values in seconds.items()},
        "speed_of_generate_kept": quartiles(seconds["generate"], seconds["plain"]),
        "words_and_maps_over_plain": quartiles(seconds["words"], seconds["plain"]),
        "second_over_first": quartiles(seconds["second"], seconds["first"]),
    }


def quartiles(above: list[float], below: list[float]) -> list[float]:
    """The quartiles of the ratios of pairs."""
    ratios = [x / y for x, y in zip(above, below, strict=True)]
    return [round(value, 3) for value in statistics.quantiles(ratios, n=4)]


if __name__ == "__main__":
    main()
