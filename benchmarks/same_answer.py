"""Is an answer the same in every run, process, cache and cut of its prompt, in each type of weights?

    OMP_NUM_THREADS=1 python benchmarks/same_answer.py
    OMP_NUM_THREADS=1 python benchmarks/same_answer.py --scenes 10 --weights "4 bits" --method choose

Captions of adversarial validation scenes by the picture demo, up to 24 tokens, greedy but in the rows of --seed. The
table counts the answers with other tokens than the first run has. A prompt that is computed in smaller chunks adds in
another order, which rounds otherwise: there an answer may differ, but only at a token where the two best logits are
closer than `TOLERANCE`. The exit code is 1 where anything else differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from same_words import BITS, DTYPES, FIRST_SEED, loaded

from lime_mlx import Prefixes
from lime_mlx.blas import load_blas
from lime_mlx.decoding import start, steps
from lime_mlx.methods import parse_method
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt
from lime_mlx.sampling import Sampling
from lime_mlx.scenes import PROMPTS, make_scene
from lime_mlx.session import Session

TOKENS, HALF, SEED, TEMPERATURE = 24, 5, 7, 2.0
CHUNKS = (5, 16, 40)
# The gap between the two best logits below which rounding may swap them; 0 where nothing may differ.
TOLERANCE = {"float32": 0.0, "bfloat16": 0.25, "8 bits": 0.001, "4 bits": 0.001}


class Asked:
    """A model with a method, which answers prompts and keeps how sure it was of each token."""

    def __init__(self, model: Model, processor: Processor, method: str = "none") -> None:
        self.model, self.processor, self.method = model, processor, parse_method(method)
        self.ends = frozenset(processor.eos_token_ids)
        self.gaps: list[float] = []

    def prompt(self, seed: int) -> Prompt:
        return self.processor.prompt(PROMPTS[0], images=[make_scene(seed, "adversarial").image])

    def tokens(self, session: Session, count: int = TOKENS, seed: int | None = None) -> list[int]:
        """The answer that a session continues to, of `count` tokens at most; `gaps` then holds those of its logits."""
        size = self.model.language_model.config.vocab_size
        sampler = None if seed is None else Sampling(TEMPERATURE, seed=seed).sampler(size)
        taken = list(steps(session, self.method, count, sampler, self.ends))
        self.gaps = [float(np.diff(np.partition(step.logits, -2)[-2:])[0]) for step in taken]
        return [step.token for step in taken]

    def plain(self, prompt: Prompt) -> list[int]:
        return self.tokens(start(self.model, prompt, reliance=False))

    def looked_at(self, prompt: Prompt) -> list[int]:
        return self.tokens(start(self.model, prompt, reliance=True))

    def kept(self, prompt: Prompt) -> list[int]:
        """With the beginning of an earlier prompt that had the same picture."""
        prefixes = Prefixes(self.model)
        self.tokens(start(self.model, prompt, reliance=False, prefixes=prefixes), 1)
        session = start(self.model, prompt, reliance=False, prefixes=prefixes)
        assert session.reused
        return self.tokens(session)

    def forked(self, prompt: Prompt) -> list[int]:
        """In a copy of the cache that was made in the middle of the answer, which then went on."""
        session = start(self.model, prompt, reliance=False)
        self.tokens(session, HALF)
        copy = session.fork()
        self.tokens(session)
        return self._whole(copy)

    def rewound(self, prompt: Prompt) -> list[int]:
        """After half of the answer was taken back."""
        session = start(self.model, prompt, reliance=False)
        self.tokens(session)
        session.rewind(max(0, len(session.generated) - HALF))
        return self._whole(session)

    def _whole(self, session: Session) -> list[int]:
        before = list(session.generated)
        return before + self.tokens(session)

    def chunked(self, prompt: Prompt, size: int) -> list[int]:
        """The prompt computed in chunks of so many positions."""
        session = start(self.model, prompt, reliance=False)
        for end in range(size, len(prompt) - 1, size):
            session.prefill(end)
        return self.tokens(session)

    def drawn(self, prompt: Prompt) -> list[int]:
        """Sampled, with --seed."""
        return self.tokens(start(self.model, prompt, reliance=False), seed=SEED)

    def drawn_looked_at(self, prompt: Prompt) -> list[int]:
        return self.tokens(start(self.model, prompt, reliance=True), seed=SEED)


Way = Callable[[Asked, Prompt], list[int]]
# Each: what is done otherwise, how, and what it is compared with.
WAYS: dict[str, tuple[Way, Way]] = {
    "another run": (Asked.plain, Asked.plain),
    "reliance on": (Asked.looked_at, Asked.plain),
    "a kept beginning": (Asked.kept, Asked.plain),
    "a copied cache": (Asked.forked, Asked.plain),
    "taken back and made again": (Asked.rewound, Asked.plain),
    "--seed, another run": (Asked.drawn, Asked.drawn),
    "--seed, reliance on": (Asked.drawn_looked_at, Asked.drawn),
}


class Answers:
    """The first answers to some prompts, plain and sampled, and for each plain token how sure the model was."""

    def __init__(self, asked: Asked, scenes: int) -> None:
        self.asked = asked
        self.prompts = [asked.prompt(FIRST_SEED + number) for number in range(scenes)]
        self.tokens: dict[Way, list[list[int]]] = {Asked.plain: [], Asked.drawn: []}
        self.gaps: list[list[float]] = []
        for prompt in self.prompts:
            self.tokens[Asked.plain].append(asked.plain(prompt))
            self.gaps.append(asked.gaps)
            self.tokens[Asked.drawn].append(asked.drawn(prompt))

    @property
    def all(self) -> list[list[int]]:
        return self.tokens[Asked.plain] + self.tokens[Asked.drawn]

    def differing(self) -> Iterator[tuple[str, int]]:
        """How many answers have other tokens, for each of `WAYS`."""
        for name, (way, usual) in WAYS.items():
            others = (way(self.asked, prompt) for prompt in self.prompts)
            yield name, sum(one != two for one, two in zip(others, self.tokens[usual], strict=True))

    def chunk_gaps(self, size: int) -> list[float]:
        """For each answer that differs in chunks of a size: the gap of the best logits at the first other token."""
        gaps = []
        for prompt, tokens, sure in zip(self.prompts, self.tokens[Asked.plain], self.gaps, strict=True):
            other = self.asked.chunked(prompt, size)
            if other != tokens:
                at = next(i for i, (one, two) in enumerate(zip(tokens, other, strict=False)) if one != two)
                gaps.append(max(sure[at], self.asked.gaps[at]))
        return gaps


def elsewhere(weights: str, scenes: int, method: str) -> list[list[int]]:
    """The same in another process."""
    command = [sys.executable, __file__, "--child", "--scenes", str(scenes), "--weights", weights, "--method", method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tokens: list[list[int]] = json.loads(done.stdout)
    return tokens


def resumed(bits: int | None, limit: int, room: Path) -> tuple[int, int]:
    """(records that differ, all) of an evaluation that was cut within a record and resumed, against a whole one."""
    model = "demo"
    if bits is not None:
        model = str(room / "model")
        source = str(Path(sys.modules["lime_mlx"].__path__[0]) / "demo" / "picture")
        options = ["-q", "--q-bits", str(bits), "--q-group-size", "32", "--quiet"]
        run_command(["convert", "--hf-path", source, "--mlx-path", model, *options])
    command = ["evaluate", "--quiet", "--model", model, "--task", "scenes", "--method", "none", "--limit", str(limit)]
    whole, cut = room / "whole", room / "cut"
    for folder in (whole, cut):
        run_command([*command, "--output-dir", str(folder)])
    for file in cut.rglob("answers/**/*.jsonl"):
        data = file.read_bytes()
        file.write_bytes(data[: len(data) * 2 // 3])
    run_command([*command, "--output-dir", str(cut)])
    one, two = records(whole), records(cut)
    return sum(one[key] != two.get(key) for key in one) + len(two.keys() - one.keys()), len(one)


def records(folder: Path) -> dict[tuple[str, str], dict[str, object]]:
    lines = [
        (str(file.relative_to(folder)), json.loads(line))
        for file in sorted(folder.rglob("answers/**/*.jsonl"))
        for line in file.read_text("utf-8").splitlines()
    ]
    timed = ("seconds", "memory")
    stored = {(name, r["id"]): {key: value for key, value in r.items() if key not in timed} for name, r in lines}
    assert len(stored) == len(lines), "a record is there twice"
    return stored


def run_command(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-c", "from lime_mlx.cli import main; main()", *arguments], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def study(weights: str, scenes: int, method: str) -> bool:
    """Print the rows of one type of weights. Returns whether all is as it must be."""
    answers = Answers(Asked(*loaded(weights), method), scenes)
    fine = True

    def row(what: str, count: int, of: int, is_right: bool, note: str = "") -> None:
        nonlocal fine
        fine = fine and is_right
        print(f"| {weights} | {what} | {count} of {of} | {note} |", flush=True)

    for name, count in answers.differing():
        row(name, count, scenes, count == 0)
    other = elsewhere(weights, scenes, method)
    count = sum(one != two for one, two in zip(answers.all, other, strict=True))
    row("another process", count, len(other), count == 0)
    if weights != "bfloat16" and method == "none":  # on the CPU, checkpoints are float32 or bits
        with tempfile.TemporaryDirectory() as room:
            count, of = resumed(BITS.get(weights), 3, Path(room))
        row("a resumed evaluation", count, of, count == 0)
    for size in CHUNKS:
        gaps = answers.chunk_gaps(size)
        widest = max(gaps, default=0.0)
        note = f"the best logits at most {widest:.4f} apart" if gaps else ""
        row(f"chunks of {size}", len(gaps), scenes, not gaps or widest < TOLERANCE[weights], note)
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--weights", action="append", choices=[*DTYPES, *BITS], help="repeat it; all by default")
    parser.add_argument("--method", default="none")
    parser.add_argument("--child", action="store_true", help="print the tokens for another process, as JSON")
    chosen = parser.parse_args()
    kinds = chosen.weights or [*DTYPES, *BITS]
    load_blas()
    if chosen.child:
        print(json.dumps(Answers(Asked(*loaded(kinds[0]), chosen.method), chosen.scenes).all))
        return
    print("| weights | otherwise | answers that differ | |\n|---|---|---|---|")
    fine = [study(kind, chosen.scenes, chosen.method) for kind in kinds]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
