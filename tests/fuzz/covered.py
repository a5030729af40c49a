"""`python -m fuzz.covered`, in the folder of tests: which branches of its modules the inputs of each target reach.

The inputs are the valid ones, those that once were finds, those that reached new branches in the runs so far, and some
new ones. coverage.py counts the branches. Each target has a process of its own.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import coverage

from fuzz.run import HERE, STATE

FEW = 20  # times fewer new inputs for a target that needs a process or a model


def branches(name: str, inputs: int, state: Path) -> dict[str, tuple[int, int]]:
    """(branches that were reached, all) of each module of a target."""
    counter = coverage.Coverage(branch=True, source_pkgs=["lime_mlx"], data_file=None, config_file=False)
    counter.start()  # before the package is imported, whose definitions count, too
    from fuzz.attempt import attempt
    from fuzz.run import WATCHED
    from fuzz.targets import TARGETS, stored_seeds

    target, rng = TARGETS[name], random.Random(name)
    grown = state / name / "grown"
    target.grown[:] = [path.read_bytes() for path in sorted(grown.iterdir())] if grown.is_dir() else []
    new = (target.drawn(rng.randrange) for _ in range(inputs // FEW if target.slow else inputs))
    for data in [*target.seeds, *(path.read_bytes() for path in stored_seeds(name)), *target.grown, *new]:
        attempt(target, data, WATCHED)
    counter.stop()
    with tempfile.TemporaryDirectory() as room:
        file = Path(room) / "coverage.json"
        counter.json_report(outfile=str(file))
        files = json.loads(file.read_text())["files"]
    summaries = {module_of(path, target.modules): each["summary"] for path, each in files.items()}
    return {module: (each["covered_branches"], each["num_branches"]) for module, each in summaries.items() if module}


def module_of(path: str, modules: tuple[str, ...]) -> str | None:
    """The module of a target that a file is. cli/ and convert/ stand beside the package; "files.py" is its own."""
    beside = ("cli/", "convert/")
    names = {module: module if module.startswith(beside) else f"lime_mlx/{module}" for module in modules}
    return next((module for module, name in names.items() if Path(path).match(name)), None)


def main() -> None:
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=[*TARGETS], help="repeat it; all by default")
    parser.add_argument("--inputs", type=int, default=2000, help="new ones of each target")
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("--here", action="store_true", help="one target in this process; its counts as JSON")
    chosen = parser.parse_args()
    names = chosen.target or [*TARGETS]
    if chosen.here:
        print(json.dumps(branches(names[0], chosen.inputs, chosen.state)))
        return
    print("| target | branches reached | of its modules |\n|---|---|---|")
    for name in names:
        command = [sys.executable, "-m", "fuzz.covered", "--here", "--target", name, "--inputs", str(chosen.inputs)]
        done = subprocess.run([*command, "--state", str(chosen.state)], cwd=HERE.parent, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        counts = json.loads(done.stdout.splitlines()[-1])
        reached, total = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
        shown = ", ".join(f"{module} {100 * one / max(of, 1):.0f} %" for module, (one, of) in counts.items())
        print(f"| {name} | {100 * reached / max(total, 1):.0f} % of {total} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
