"""Whether the answers of the bundled models are still those that were stored.

`tests/fixtures/answers.json.gz` holds them: tokens, shares, verdicts and LIME's losses for captions and questions about
scenes of both worlds, by every method and both modes of LIME. The test suite compares a few of them.

    OMP_NUM_THREADS=1 python benchmarks/unchanged.py            # all of them, with the largest differences
    OMP_NUM_THREADS=1 python benchmarks/unchanged.py --scenes 2
    OMP_NUM_THREADS=1 python benchmarks/unchanged.py --write    # store those of today, when they are meant to change

They were stored when the models were trained further. Just before, today's code gave the answers that version 0.1.0 had
stored for the models of 0.1.0: the same tokens, shares and losses (within 5e-8). Words in a row that name one thing
together have one verdict since. One thread: with two, sums round otherwise, and LIME over all words then picks another
token now and then.
"""

import argparse
import gzip
import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lime_mlx import blas, decode, generate, load
from lime_mlx.media.audio import Sound
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound
from lime_mlx.scenes.language import questions

STORE = Path(__file__).parent.parent / "tests" / "fixtures" / "answers.json.gz"
MODELS = {"picture": "demo", "sound": "demo-sound"}
FIRST, SCENES, TOKENS = 150_000, 6, 32
METHODS = (
    *("none", "choose", "choose:ask=always", "choose:ask=never", "yesno", "kvsmooth", "dleaf", "m3id", "pai", "heads"),
    *("acg:gamma=0.25", "iat", "locore", "flb", "only", "lime", "lime:words=all", "lime:mode=exact"),
    *("kvsmooth+lime", "m3id+lime", "m3id+choose"),
)
OF_ONE = {"picture": ("vcd",), "sound": ("aad",)}
Stored = dict[str, Any]


class Bundled:
    """A bundled model and what it is asked."""

    def __init__(self, world: str):
        self.world = world
        self.model, self.processor = load(MODELS[world])

    def scene(self, seed: int):
        return (make_scene if self.world == "picture" else make_sound)(seed, "adversarial")

    def texts(self, seed: int) -> dict[str, str]:
        """A request for a caption and a question about the missing companion."""
        caption = (PROMPTS if self.world == "picture" else SOUND_PROMPTS)[0]
        asked = questions(self.scene(seed), "adversarial", random.Random(seed))
        return {"caption": caption, "question": asked[1].text}

    def prompt(self, seed: int, text: str):
        scene = self.scene(seed)
        if self.world == "picture":
            return self.processor.prompt(text, images=[scene.image])
        return self.processor.prompt(text, audio=[Sound(scene.samples, scene.rate)])

    def answered(self, method: str, seed: int, text: str) -> Stored:
        """Tokens, shares (reliance, prompt, own), verdicts (name, rank, p_unsupported, flagged) and losses."""
        prompt = self.prompt(seed, text)
        answer = generate(self.model, self.processor, prompt, method=method, max_tokens=TOKENS, relevance=True)
        ends = frozenset(self.processor.eos_token_ids)
        traces = []
        if "lime" in method:
            for step in decode(self.model, prompt, method, max(1, len(answer.tokens)), trace=True, stop=ends):
                losses = {name: value.tolist() for name, value in step.trace.items() if value.ndim == 1}
                losses.pop("ref_logits", None)
                traces.append(losses)
        return {
            "text": text,
            "tokens": answer.tokens,
            "shares": [[s.reliance, s.prompt, s.own] for s in answer.shares if s is not None],
            "verdicts": [[word.name, word.rank, word.p_unsupported, word.flagged] for word in answer.words],
            "traces": traces,
        }


def store() -> None:
    """Write the answers of today."""
    kept: dict[str, dict[str, Stored]] = {}
    for world in MODELS:
        bundled, kept[world] = Bundled(world), {}
        for method in (*METHODS, *OF_ONE[world]):
            for seed in range(FIRST, FIRST + SCENES):
                for kind, text in bundled.texts(seed).items():
                    kept[world][f"{method}|{seed}|{kind}"] = _rounded(bundled.answered(method, seed, text))
    STORE.write_bytes(gzip.compress(json.dumps(kept).encode(), mtime=0))


def stored(world: str, scenes: float = math.inf) -> Iterator[tuple[str, int, Mapping]]:
    """(method, seed, what was stored) of a world; of as many scenes as are asked for."""
    with gzip.open(STORE, "rt") as file:
        answers = json.load(file)[world]
    for key, answer in answers.items():
        method, seed, _ = key.split("|")
        if int(seed) < FIRST + scenes:
            yield method, int(seed), answer


class Comparison:
    """The answers of one bundled model against the stored ones."""

    def __init__(self, world: str):
        self.bundled = Bundled(world)
        self.largest: dict[str, float] = {}

    def check(self, method: str, seed: int, wanted: Mapping) -> None:
        """Raise `AssertionError` where tokens, words or verdicts differ; keep the largest differences of numbers."""
        today = self.bundled.answered(method, seed, wanted["text"])
        place = (method, seed, wanted["text"])
        assert today["tokens"] == wanted["tokens"], place
        self.compare("shares", today["shares"], wanted["shares"])
        pairs = list(zip(today["verdicts"], wanted["verdicts"], strict=True))
        for (name, rank, p_unsupported, flagged), (name_before, rank_before, p_before, flagged_before) in pairs:
            assert (name, rank, flagged) == (name_before, rank_before, flagged_before), place
            assert (p_unsupported is None) == (p_before is None), place
            self.compare("p_unsupported", p_unsupported or 0.0, p_before or 0.0)
        for losses, before in zip(today["traces"], wanted["traces"], strict=True):
            assert losses.keys() == before.keys(), place
            for name, values in before.items():
                self.compare(name, losses[name], values)

    def compare(self, name: str, ours, before) -> None:
        gap = np.abs(np.asarray(ours, float) - np.asarray(before, float))
        difference = float(np.max(gap, initial=0) / scale(before))
        self.largest[name] = max(self.largest.get(name, 0.0), difference)


def scale(values) -> float:
    """What differences are measured in: 1, or the largest value where that is more."""
    return max(1.0, float(np.max(np.abs(np.asarray(values, float)), initial=0)))


def _rounded(value):
    """JSON values with numbers of eight digits."""
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=math.inf, help="of each world; all of them unless given")
    parser.add_argument("--write", action="store_true", help="store the answers of today")
    arguments = parser.parse_args()
    blas.load_blas()
    if arguments.write:
        store()
    for world in MODELS:
        comparison, count = Comparison(world), 0
        for method, seed, answer in stored(world, arguments.scenes):
            comparison.check(method, seed, answer)
            count += 1
        print(f"{world}: {count} answers, the same tokens, words and verdicts")
        for name, difference in comparison.largest.items():
            print(f"  {name}: {difference:.1e}")


if __name__ == "__main__":
    main()
