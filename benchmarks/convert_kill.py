"""Kill -9 while a conversion runs, at random moments: the output is absent or whole, and going on gives equal bytes.

    python benchmarks/convert_kill.py --kills 20

Each trial starts a conversion of a generated checkpoint, kills it after a random part of the time that a whole one
takes behind its imports, looks at the output, and runs the command again. Half of the trials replace an output that is
there (--force).
"""

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from convert_bench import CONFIG, generate

from lime_mlx.checkpoint.load import load_model
from lime_mlx.convert import convert

SMALL = {**CONFIG, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 12, "vocab_size": 4096}
OPTIONS: dict[str, Any] = {"quantize": True, "quant_predicate": "mixed_3_6", "shard_bytes": 2_000_000, "force": True}
CHILD = """
import sys
from lime_mlx.convert import convert
print("ready", flush=True)
convert(sys.argv[1], sys.argv[2], **{options})
"""


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def start(source: Path, out: Path) -> subprocess.Popen:
    """A conversion that has imported what it needs."""
    code = CHILD.format(options=OPTIONS)
    child = subprocess.Popen([sys.executable, "-c", code, str(source), str(out)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        source, out = generate(home / "source", SMALL), home / "out"
        child, began = start(source, out), time.perf_counter()
        assert child.wait() == 0
        took = time.perf_counter() - began
        wanted = digest(out)
        convert(source, home / "old", quantize=True, compare_logits=False)
        counts = {"absent": 0, "whole": 0, "old": 0, "killed": 0, "resumed": 0, "equal": 0}
        for trial in range(arguments.kills):
            subprocess.run(["rm", "-rf", str(out)], check=True)
            if trial % 2:
                subprocess.run(["cp", "-r", str(home / "old"), str(out)], check=True)
            old = digest(out) if trial % 2 else None
            child = start(source, out)
            time.sleep(rng.uniform(0, took))
            child.kill()
            counts["killed"] += child.wait() != 0
            state = digest(out) if out.exists() else None
            kind = "absent" if state is None else "whole" if state == wanted else "old" if state == old else "HALF"
            assert kind != "HALF", (trial, state)
            counts[kind] += 1
            report = convert(source, out, **OPTIONS)
            counts["resumed"] += report.resumed > 0
            counts["equal"] += digest(out) == wanted
            load_model(out)
            assert len(list(home.iterdir())) == 3, list(home.iterdir())
        print(f"{arguments.kills} kills within {took:.1f} s: " + ", ".join(f"{k} {v}" for k, v in counts.items()))


if __name__ == "__main__":
    main()
