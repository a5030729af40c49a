"""`python -m fuzz.run`, in the folder of tests: tries inputs as long as it is asked, and goes on where it stopped.

The state of each target is kept in a folder: how many inputs were tried, the branches that they reached, the inputs that
reached new ones, and the finds. Input number n is drawn from the seed "target:n" and what was grown before it. A child
process tries the inputs of one target for a while, so that a crash is a find, too. First each target gets `LEAST` inputs;
then the turn goes to the target whose last new branch is least of its own time away.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lime_mlx

HERE = Path(__file__).parent
STATE = HERE.parent.parent / "build" / "fuzz"
SLICE = 60.0  # seconds of one target before the next one has its turn
TRACED = 8  # one input in so many is watched for new branches
WATCHED = 12.0  # how much longer an input may take then
LONGEST = 60_000  # bytes of such an input
GROWN = 400  # inputs that are kept for their branches
LEAST, LEAST_SLOW = (
    20_000,
    1_000,
)  # inputs of a target that is parsed in memory, and of one that needs a process or a model


Arc = tuple[str, int, int]


class Kept:
    """The folder of one target: state.json, branches.json, `grown` and `finds`.

    quiet: seconds of this target since an input reached a new branch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "state.json"
        for name in ("grown", "finds"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.state: dict[str, Any] = {"inputs": 0, "passed": 0, "seconds": 0.0, "quiet": 0.0, "finds": {}}
        self.state |= json.loads(self.file.read_text()) if self.file.exists() else {}

    def save(self) -> None:
        _write(self.file, self.state)

    def branches(self, code: str) -> set[Arc] | None:
        """Those that were reached; None where the code was another one."""
        file = self.folder / "branches.json"
        stored = json.loads(file.read_text()) if file.exists() else {}
        return {(name, start, end) for name, start, end in stored["arcs"]} if stored.get("code") == code else None

    def save_branches(self, code: str, arcs: set[Arc]) -> None:
        _write(self.folder / "branches.json", {"code": code, "arcs": sorted(arcs)})

    def find(self, data: bytes, problem: str) -> None:
        """Keep an input that is a find, once for each place that it breaks."""
        kind = hashlib.sha256(_place(problem).encode()).hexdigest()[:10]
        if kind not in self.state["finds"]:
            (self.folder / "finds" / kind).write_bytes(data)
            self.state["finds"][kind] = problem[:2000]
            self.save()

    def grow(self, data: bytes) -> bool:
        folder = self.folder / "grown"
        if len(data) > LONGEST or sum(1 for _ in folder.iterdir()) >= GROWN:
            return False
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        return True


def _write(file: Path, value: object) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(value) + "\n")
    part.replace(file)


def _place(problem: str) -> str:
    """What tells a find from another: the kind of error, and the last lines of code of it."""
    lines = [line.strip() for line in problem.splitlines()]
    return "\n".join([lines[0].split(":")[0], *[line for line in lines if line.startswith("File ")][-2:]])


class Watch:
    """The lines that follow each other in some modules, while an input is tried."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self.modules, self.arcs, self.known = modules, set[Arc](), set[Arc]()
        package = Path(lime_mlx.__file__).parent
        files = [path for path in sorted(package.rglob("*.py")) if str(path).endswith(modules)]
        self.code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    def new(self, action: Callable[[], object]) -> bool:
        """Whether the action reaches what none before it reached."""
        self.arcs = set()
        sys.settrace(self._call)
        try:
            action()
        finally:
            sys.settrace(None)
        fresh = not self.arcs <= self.known
        self.known |= self.arcs
        return fresh

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if not name.endswith(self.modules):
            return None
        last = [frame.f_lineno]

        def line(frame: FrameType, event: str, argument: object) -> Any:
            if event == "line":
                self.arcs.add((name[-24:], last[0], frame.f_lineno))
                last[0] = frame.f_lineno
            return line

        return line


def one_target(name: str, kept: Kept, seconds: float, count: int | None, stop_at_find: bool) -> bool:
    """Try inputs of one target in this process. Returns whether there was a find."""
    from fuzz.attempt import attempt
    from fuzz.targets import TARGETS

    target, state = TARGETS[name], kept.state
    target.grown[:] = [path.read_bytes() for path in sorted((kept.folder / "grown").iterdir())]
    watch, found = Watch(target.modules), False
    marker = os.open(kept.folder / "now", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    known = kept.branches(watch.code)
    if known is None:
        for data in [*target.seeds, *target.grown]:
            watch.new(lambda data=data: attempt(target, data, WATCHED))
    else:
        watch.known = known
    began = heard = time.monotonic()
    last = state["inputs"] + count if count is not None else None
    while time.monotonic() - began < seconds and state["inputs"] != last:
        number = state["inputs"]
        rng = random.Random(f"{name}:{number}")
        data = target.drawn(rng.randrange)
        os.ftruncate(marker, 0)
        os.pwrite(marker, data, 0)  # what a crash leaves
        outcome = None

        def tried(data: bytes = data, slower: float = 1.0) -> None:
            nonlocal outcome
            outcome = attempt(target, data, slower)

        if number % TRACED == 0 and watch.new(lambda tried=tried: tried(slower=WATCHED)):
            heard, state["quiet"] = time.monotonic(), 0.0
            if outcome is not None and outcome.find is None and kept.grow(data):
                target.grown.append(data)
        elif outcome is None:
            tried()
        assert outcome is not None
        state["inputs"] += 1
        state["passed"] += outcome.passed
        if outcome.find is not None:
            found = True
            kept.find(data, outcome.find)
            if stop_at_find:
                break
        if number % 200 == 0:
            kept.save()
    state["seconds"] += time.monotonic() - began
    state["quiet"] += time.monotonic() - heard
    kept.save()
    kept.save_branches(watch.code, watch.known)
    os.close(marker)
    (kept.folder / "now").unlink()
    return found


def all_targets(names: list[str], state: Path, seconds: float, count: int | None) -> int:
    """Give each target its turn until the time is over, each turn in a child process. Returns the number of finds."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        rest = [name for name in names if count is None or Kept(state / name).state["inputs"] < count]
        if not rest:
            break
        name = next_target(rest, state)
        turn = min(SLICE, max(1.0, ends - time.monotonic()))
        child = [
            sys.executable,
            "-m",
            "fuzz.run",
            "--state",
            str(state),
            "--target",
            name,
            "--seconds",
            str(turn),
            "--here",
        ]
        child += ["--count", str(count - Kept(state / name).state["inputs"])] if count is not None else []
        done = subprocess.run(child, cwd=HERE.parent, capture_output=True, text=True)
        kept = Kept(state / name)
        if done.returncode not in (0, 3):
            now = state / name / "now"
            kept.find(now.read_bytes() if now.exists() else b"", f"crash {done.returncode}\n{done.stderr[-1500:]}")
            kept.state["inputs"] += 1
            kept.state["seconds"] += turn
            kept.state["quiet"] += turn
            kept.save()
    return sum(len(Kept(state / name).state["finds"]) for name in names)


def next_target(names: list[str], state: Path) -> str:
    """The target that has its turn."""
    from fuzz.targets import TARGETS

    states = {name: Kept(state / name).state for name in names}
    least = {name: LEAST_SLOW if TARGETS[name].slow else LEAST for name in names}
    few = [name for name in names if states[name]["inputs"] < least[name]]
    if few:
        return min(few, key=lambda name: states[name]["seconds"])
    return min(names, key=lambda name: states[name]["quiet"])


def table(names: list[str], state: Path) -> str:
    rows = ["| target | inputs | past the first check | finds open | seconds |", "|---|---|---|---|---|"]
    for name in names:
        kept = Kept(state / name).state
        share = 100 * kept["passed"] / max(kept["inputs"], 1)
        rows.append(f"| {name} | {kept['inputs']:,} | {share:.0f} % | {len(kept['finds'])} | {kept['seconds']:.0f} |")
    return "\n".join(rows)


def main() -> None:
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=[*TARGETS], help="repeat it; all by default")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--count", type=int, help="inputs of each target, in all")
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("--here", action="store_true", help="in this process: one target, so many inputs more")
    parser.add_argument("--stop", action="store_true", help="at the first find")
    parser.add_argument("--table", action="store_true", help="print what was tried, and try nothing")
    chosen = parser.parse_args()
    names = chosen.target or [*TARGETS]
    if chosen.here:
        (name,) = names
        sys.exit(3 if one_target(name, Kept(chosen.state / name), chosen.seconds, chosen.count, chosen.stop) else 0)
    finds = 0 if chosen.table else all_targets(names, chosen.state, chosen.seconds, chosen.count)
    print(table(names, chosen.state))
    for name in names:
        for kind, problem in Kept(chosen.state / name).state["finds"].items():
            print(f"\n{chosen.state / name / 'finds' / kind}\n{problem}")
    sys.exit(1 if finds else 0)


if __name__ == "__main__":
    main()
