"""Peak memory and time of a conversion to 4 bits, on a generated checkpoint; beside mlx_vlm.convert where it is there.

    python benchmarks/convert_bench.py --gigabytes 4.2
    python benchmarks/convert_bench.py --gigabytes 4.2 --python VENV/bin/python     # of an environment with mlx-vlm

Random bfloat16 weights of a LLaVA in files of at most 5 GB. Every run is a process of its own; memory is the peak of
MLX's arrays, and the largest resident set of the process, which counts files that the system has mapped or buffered,
too. Both write 4-bit affine groups of 64 and do no more than that (--no-compare-logits). The source is read once
before, so that no run is the first to find it on the disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np

WIDTH, MLP, VOCABULARY = 2048, 5504, 32064
CONFIG = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": MLP,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": VOCABULARY,
}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 112,
    "patch_size": 14,
}
OURS = """
import resource, sys, time, mlx.core as mx
from pathlib import Path
began = time.perf_counter()
from lime_mlx.convert import convert
convert(sys.argv[1], sys.argv[2], quantize=True, compare_logits=False)
"""
THEIRS = """
import resource, sys, time, mlx.core as mx
from importlib import import_module
from pathlib import Path
began = time.perf_counter()
c, u = import_module("mlx_vlm.convert"), import_module("mlx_vlm.utils")
class Processor:
    def save_pretrained(self, *_): pass
def fetch(path, lazy=True, **_):
    return u.load_model(Path(path), lazy=lazy), u.load_config(Path(path)), Processor()
c.fetch_from_hub, c.get_model_path = fetch, lambda path, **_: Path(path)
c.create_model_card = lambda *_: None
c.convert(sys.argv[1], sys.argv[2], quantize=True)
"""
MEASURED = """
status = Path("/proc/self/status")  # what getrusage says there includes the process that started this one
resident = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 if status.exists() else (
    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(time.perf_counter() - began, mx.get_peak_memory(), resident)
"""


def generate(folder: Path, config: dict, limit: int = 5 << 30) -> Path:
    """Random bfloat16 weights of a config.json, written file by file."""
    from mlx.utils import tree_flatten

    from lime_mlx.checkpoint.load import build
    from lime_mlx.convert.tensors import shard

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    weights = dict(tree_flatten(build(config).parameters()))
    shapes = {name: mx.zeros(weight.shape, mx.bfloat16) for name, weight in weights.items()}
    files = shard(shapes, limit)
    mx.random.seed(0)
    for file, names in files.items():
        part = {}
        for name in names:
            noise = 0.02 * mx.random.normal(shapes[name].shape)
            part[name] = (1 + noise if len(noise.shape) == 1 else noise).astype(mx.bfloat16)
            mx.eval(part[name])
        mx.save_safetensors(str(folder / file), part, metadata={"format": "pt"})
    if len(files) > 1:
        files_of = {name: file for file, names in files.items() for name in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files_of}))
    return folder


def measure(python: str, code: str, source: Path, out: Path) -> list[float]:
    done = subprocess.run(
        [python, "-c", code + MEASURED, str(source), str(out)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return [float(x) for x in done.stdout.split()[-3:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.2)
    parser.add_argument("--python", help="of an environment with mlx-vlm")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where there is room for the source and two outputs")
    arguments = parser.parse_args()
    block = 2 * (4 * WIDTH**2 + 3 * WIDTH * MLP)
    rest = 4 * VOCABULARY * WIDTH
    text = {**CONFIG, "num_hidden_layers": max(1, round((1e9 * arguments.gigabytes - rest) / block))}
    config = {"model_type": "llava", "image_token_index": 32000, "text_config": text, "vision_config": VISION}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        home = Path(folder)
        source = generate(home / "source", config)
        size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        largest = 2 * VOCABULARY * WIDTH
        print(
            f"source {size / 1e9:.2f} GB, {text['num_hidden_layers']} layers, largest tensor {largest / 1e6:.0f} MB",
            flush=True,
        )
        runs: dict[str, list] = {"lime_mlx.convert": []}
        if arguments.python:
            runs["mlx_vlm.convert"] = []
        for _ in range(arguments.repeats):
            for name, measured in runs.items():
                for path in source.glob("*.safetensors"):
                    with path.open("rb") as file:
                        while file.read(1 << 24):
                            pass
                out = home / "out"
                code, python = (OURS, sys.executable) if name.startswith("lime") else (THEIRS, arguments.python)
                measured.append(measure(python, code, source, out))
                written = sum(path.stat().st_size for path in out.glob("*.safetensors"))
                print(f"  {name}: {measured[-1][0]:.1f} s, {written / 1e9:.2f} GB", flush=True)
                subprocess.run(["rm", "-rf", str(out)], check=True)
        print("| | seconds, median | MLX peak, MB | resident, MB |\n|---|---|---|---|")
        for name, measured in runs.items():
            seconds, peak, resident = np.median(np.array(measured), axis=0)
            print(f"| {name} | {seconds:.1f} | {peak / 1e6:.0f} | {resident / 1e6:.0f} |")


if __name__ == "__main__":
    main()
