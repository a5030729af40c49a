"""`python -m fuzz.faults`, in the folder of tests: seeds ten faults, each into a copy of the code, and shows that
fuzzing finds it. One fault of each kind; the list below is what is seeded.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent


class Fault(NamedTuple):
    """kind: what goes wrong. target: where fuzzing must find it. file, old, new: the change of the code."""

    kind: str
    target: str
    file: str
    old: str
    new: str


FAULTS = (
    Fault(
        "an error that nobody catches",
        "detector",
        "lime_mlx/support/detector.py",
        "except (TypeError, ValueError, LookupError, AttributeError) as error:",
        "except (TypeError, LookupError, AttributeError) as error:",
    ),
    Fault(
        "a value whose type is not checked",
        "config",
        "lime_mlx/models/config.py",
        "    if not is_token(token):",
        "    if token < 0:",
    ),
    Fault(
        "a limit that is not checked",
        "config",
        "lime_mlx/models/config.py",
        '    ("layers", limits.LAYERS),\n    ("depth", limits.LAYERS),\n',
        '    ("layers", limits.POSITIONS),\n    ("depth", limits.POSITIONS),\n',
    ),
    Fault(
        "a range that is not checked",
        "header",
        "lime_mlx/checkpoint/files.py",
        "if start != end or stop < start:",
        "if stop < start:",
    ),
    Fault(
        "a loop that does not end",
        "sound",
        "lime_mlx/media/audio.py",
        "        at += 8 + chunk[1] + chunk[1] % 2\n",
        "        at += chunk[1] + chunk[1] % 2\n",
    ),
    Fault(
        "memory without a bound",
        "template",
        "lime_mlx/templates.py",
        "                    self.budget.spend(0, max(count, 0) * max(len(text), self.budget.size(text)))",
        "                    self.budget.spend(0, 0)",
    ),
    Fault(
        "a panic of a library",
        "tokenizer",
        "lime_mlx/checkpoint/tokenizer.py",
        "        except BaseException as error:",
        "        except Exception as error:",
    ),
    Fault(
        "wrong success: a sound with samples beyond full scale",
        "sound",
        "lime_mlx/media/audio.py",
        "np.clip(np.concatenate(parts), -1, 1)",
        "np.concatenate(parts)",
    ),
    Fault(
        "a control character that reaches the terminal",
        "command",
        "lime_mlx/errors.py",
        'return CONTROLS.sub("\\N{REPLACEMENT CHARACTER}", text)',
        "return text",
    ),
    Fault(
        "a record that does not fit its task",
        "record",
        "lime_mlx/evaluate/summary.py",
        "except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:",
        "except ArithmeticError as error:",
    ),
)


def copied(folder: Path) -> Path:
    """The package as it is installed, with its command line and its converter, in a folder."""
    shutil.copytree(
        ROOT / "lime_mlx", folder / "lime_mlx", ignore=shutil.ignore_patterns("cli", "convert", "__pycache__")
    )
    for name in ("cli", "convert"):
        shutil.copytree(ROOT / name, folder / "lime_mlx" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__", "golden", "fixtures")
    )
    shutil.copytree(ROOT / "tests" / "fixtures", folder / "tests" / "fixtures")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


def found(fault: Fault, seconds: float) -> tuple[bool, float, str]:
    """Whether fuzzing finds a fault in time, after how many seconds, and what it says."""
    with tempfile.TemporaryDirectory(prefix="lime-fault-") as name:
        folder = copied(Path(name))
        file = folder / fault.file
        text = file.read_text(encoding="utf-8")
        if text.count(fault.old) != 1:
            raise SystemExit(f"{fault.kind}: {fault.file} has the line {text.count(fault.old)} times: {fault.old!r}")
        file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        shutil.rmtree(folder / "tests" / "fuzz" / "seeds")  # what is known must not help
        began, state = time.monotonic(), folder / "state"
        command = [sys.executable, "-m", "fuzz.run", "--here", "--stop", "--target", fault.target]
        command += ["--state", str(state), "--seconds", str(seconds)]
        paths = os.pathsep.join([str(folder), str(folder / "tests")])
        done = subprocess.run(
            command, cwd=folder / "tests", env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
        )
        took = time.monotonic() - began
        shown = subprocess.run(
            [*command[:3], "--table", "--target", fault.target, "--state", str(state)],
            cwd=folder / "tests", env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
        )  # fmt: skip
        lines = [line for line in shown.stdout.splitlines() if line and not line.startswith(("|", str(folder)))]
        said = lines[0] if lines else done.stderr[-300:]
        return done.returncode == 3 or done.returncode < 0, took, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="of each fault at most")
    parser.add_argument("--only", type=int, action="append", help="the number of a fault, from 1; repeat it")
    chosen = parser.parse_args()
    missed = 0
    print("| fault | target | found after | as |\n|---|---|---|---|")
    for number, fault in enumerate(FAULTS, 1):
        if chosen.only and number not in chosen.only:
            continue
        is_found, took, said = found(fault, chosen.seconds)
        missed += not is_found
        after = f"{took:.0f} s" if is_found else f"not in {took:.0f} s"
        print(f"| {fault.kind} | {fault.target} | {after} | {said[:110].replace('|', '/')} |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
