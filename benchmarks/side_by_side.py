"""A whole picture question here and in mlx-vlm: the same checkpoint, the same tokens, one process.

    python benchmarks/side_by_side.py --pairs 9      # in an environment with both

A Qwen2.5-VL of random weights (12 layers of 512, a tower of 8 blocks) is converted here and loaded by both. The prompt
has 20 tokens and one picture. First: the time to the first token, the picture's tower included. Then: the time of each
further token. Ratios are mlx-vlm's time over ours, medians of alternating pairs, of wall time and of processor time.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lime_mlx import backend, blas

blas.load_blas()

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from lime_mlx import load_model  # noqa: E402
from lime_mlx.checkpoint.load import build  # noqa: E402
from lime_mlx.decoding import start, steps  # noqa: E402
from lime_mlx.methods import parse_method  # noqa: E402
from lime_mlx.prompt import Prompt  # noqa: E402

GRID, TOKENS, PICTURE, STARTS, ENDS = (1, 40, 40), 32, 90, 91, 92
TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8000,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
}
VISION = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 256,
    "out_hidden_size": 512,
    "intermediate_size": 704,
    "depth": 8,
    "num_heads": 4,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [3, 7],
    "in_channels": 3,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "tokens_per_second": 2,
}
CONFIG: dict[str, object] = {
    "model_type": "qwen2_5_vl",
    **TEXT,
    "image_token_id": PICTURE,
    "video_token_id": 93,
    "vision_start_token_id": STARTS,
    "vision_end_token_id": ENDS,
    "vision_config": VISION,
    "text_config": {**TEXT, "model_type": "qwen2_5_vl_text"},
}


def checkpoint(folder: Path) -> Path:
    """A checkpoint of random weights, in the layout that both read."""
    model = build(CONFIG)
    mx.random.seed(0)
    weights = {name: 0.05 * mx.random.normal(x.shape) for name, x in dict(tree_flatten(model.parameters())).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def timed(decode: Callable[[], Iterator[int]]) -> tuple[list[float], list[int]]:
    """Seconds of wall and of processor to the first token, then of each further one; and the tokens."""
    marks = [(time.perf_counter(), time.process_time())]
    stream = decode()
    tokens = [next(stream)]
    marks.append((time.perf_counter(), time.process_time()))
    tokens += list(stream)
    marks.append((time.perf_counter(), time.process_time()))
    (a, b), (c, d), (e, f) = marks
    return [c - a, d - b, (e - c) / (len(tokens) - 1), (f - d) / (len(tokens) - 1)], tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    arguments = parser.parse_args()
    from mlx_vlm.generate import generate_step
    from mlx_vlm.utils import load_model as load_theirs

    with tempfile.TemporaryDirectory() as name:
        folder = checkpoint(Path(name))
        ours, theirs = load_model(folder), load_theirs(folder)
        mx.eval(ours.parameters(), theirs.parameters())
    generator = np.random.default_rng(0)
    places = GRID[0] * GRID[1] * GRID[2] // 4
    words = generator.integers(100, 8000, 20)
    ids = np.concatenate([words[:5], [STARTS], np.full(places, PICTURE), [ENDS], words[5:]])
    pixels = generator.standard_normal((places * 4, 3 * 2 * 14 * 14)).astype(np.float32)
    grid = np.array([GRID])
    prompt = Prompt(ids, {"pixel_values": pixels, "image_grid_thw": grid})

    def mine() -> Iterator[int]:
        session = start(ours, prompt, reliance=False)
        for step in steps(session, parse_method("none"), TOKENS):
            yield step.token

    def other() -> Iterator[int]:
        rows = mx.array(ids)[None]
        media = {"image_grid_thw": mx.array(grid)}
        for token, _ in generate_step(rows, theirs, mx.array(pixels), mx.ones_like(rows), max_tokens=TOKENS, **media):
            yield int(token)

    timed(mine), timed(other)
    taken: list[tuple[list[float], list[float]]] = []
    same = 0
    for _ in range(arguments.pairs):
        (a, here), (b, there) = timed(mine), timed(other)
        taken.append((a, b))
        same += here == there
    print(f"{backend.device_name()}, a picture of {places} tokens: {same} of {len(taken)} pairs have the same tokens")
    parts = [f"{what}, {clock}" for what in ("first token", "a token") for clock in ("wall", "processor")]
    for index, part in enumerate(parts):
        ratios = sorted(b[index] / a[index] for a, b in taken)
        ours_ms, theirs_ms = (1e3 * statistics.median(pair[side][index] for pair in taken) for side in (0, 1))
        print(
            f"{part}: ours {ours_ms:.1f} ms, mlx-vlm {theirs_ms:.1f} ms; mlx-vlm / ours "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


if __name__ == "__main__":
    main()
