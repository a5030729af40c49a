"""Whether the answers of the bundled models are still those that version 0.1.0 gave.

`tests/fixtures/answers_0_1_0.json.gz` holds them: tokens, shares, verdicts and LIME's losses for captions and questions
about scenes of both worlds, by every method and both modes of LIME. The test suite compares a few of them.

One thing changed since: a word that the question brought in is no longer judged or replaced. Such words have no
verdict, and the answers to questions by LIME with its gate, which spoilt them, are left out here:

    OMP_NUM_THREADS=1 python benchmarks/unchanged.py            # all of them, with the largest differences
    OMP_NUM_THREADS=1 python benchmarks/unchanged.py --scenes 5

The stored answers were made with one thread: with two, sums round otherwise, and LIME over all words then picks another
token now and then.
"""

import argparse
import gzip
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lime_mlx import blas, decode, generate, load
from lime_mlx.media.audio import Sound
from lime_mlx.scenes import make_scene, make_sound

STORE = Path(__file__).parent.parent / "tests" / "fixtures" / "answers_0_1_0.json.gz"
MODELS = {"picture": "demo", "sound": "demo-sound"}
FIRST = 150_000
# The values that 0.1.0 took for these methods; the demos have values of their own now.
PUBLISHED: dict[str, str | dict[str, str]] = {
    "kvsmooth": {"picture": "kvsmooth:ref=0.9,clip=0.2,smooth=kv", "sound": "kvsmooth:ref=0.7,clip=0.2,smooth=kv"},
    "dleaf": "dleaf:gamma=0.9",
    "vcd": "vcd:alpha=1",
    "aad": "aad:alpha=0.5",
    "m3id": "m3id:decay=0.02",
    "pai": "pai:alpha=0.2,guidance=1.1",
    "heads": "heads:strength=0.5",
}


def spec(stored: str, world: str) -> str:
    """Today's spec of what a stored one meant."""
    parts = []
    for part in stored.split("+"):
        today = PUBLISHED.get(part, part)
        parts.append(today if isinstance(today, str) else today[world])
    return "+".join(parts)


def stored(world: str, scenes: float = math.inf) -> Iterator[tuple[str, int, Mapping]]:
    """(method, seed, what was stored) of a world; of as many scenes as are asked for."""
    with gzip.open(STORE, "rt") as file:
        answers = json.load(file)[world]
    for key, answer in answers.items():
        method, seed, kind = key.split("|")
        if int(seed) >= FIRST + scenes:
            continue
        if kind == "question" and "lime" in method and "words=all" not in method:
            continue
        yield method, int(seed), answer


class Comparison:
    """The answers of one bundled model against the stored ones."""

    def __init__(self, world: str):
        self.world = world
        self.model, self.processor = load(MODELS[world])
        self.largest: dict[str, float] = {}

    def prompt(self, seed: int, text: str):
        if self.world == "picture":
            return self.processor.prompt(text, images=[make_scene(seed, "adversarial").image])
        scene = make_sound(seed, "adversarial")
        return self.processor.prompt(text, audio=[Sound(scene.samples, scene.rate)])

    def check(self, method: str, seed: int, wanted: Mapping) -> None:
        """Raise `AssertionError` where tokens, words or verdicts differ; keep the largest differences of numbers."""
        prompt, today, count = self.prompt(seed, wanted["text"]), spec(method, self.world), len(wanted["tokens"])
        answer = generate(self.model, self.processor, prompt, method=today, max_tokens=count, relevance=True)
        tokens = [token for token in wanted["tokens"] if token not in self.processor.eos_token_ids]
        assert answer.tokens == tokens[: len(answer.tokens)], (method, seed)
        assert len(answer.tokens) == len(tokens) or answer.finish_reason == "loop", (method, seed)
        for share, before in zip(answer.shares, wanted["shares"], strict=False):
            assert share is not None
            self.compare("shares", (share.reliance, share.prompt, share.own), before)
        if answer.finish_reason != "loop":
            self.check_words(answer.words, wanted, prompt.language.prompted)
        if any(wanted["trace"]):
            ends = frozenset(self.processor.eos_token_ids)
            for step, losses in zip(
                decode(self.model, prompt, today, count, trace=True, stop=ends), wanted["trace"], strict=True
            ):
                assert bool(step.trace) == bool(losses), (method, seed)
                for name, before in (losses or {}).items():
                    self.compare(name, step.trace[name], before)

    def check_words(self, words, wanted: Mapping, prompted: np.ndarray) -> None:
        assert [word.text for word in words] == [text for text, _ in wanted["words"]]
        pairs = list(zip(words, wanted["verdicts"], strict=True))
        spared = [verdict is not None and bool(prompted[list(word.tokens)].any()) for word, verdict in pairs]
        for (word, verdict), of_question in zip(pairs, spared, strict=True):
            if verdict is None or of_question:
                assert word.rank is None and not word.flagged, word
                continue
            assert [word.name, word.flagged] == [verdict[0], verdict[3]]
            assert any(spared) or word.rank == verdict[1]
            self.compare("p_unsupported", word.p_unsupported, verdict[2])

    def compare(self, name: str, ours, before) -> None:
        difference = float(np.max(np.abs(np.asarray(ours, float) - np.asarray(before, float)) / scale(before)))
        self.largest[name] = max(self.largest.get(name, 0.0), difference)


def scale(values) -> float:
    """What differences are measured in: 1, or the largest value where that is more."""
    return max(1.0, float(np.max(np.abs(np.asarray(values, float)), initial=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=math.inf, help="of each world; all of them unless given")
    scenes = parser.parse_args().scenes
    blas.load_blas()
    for world in MODELS:
        comparison, count = Comparison(world), 0
        for method, seed, answer in stored(world, scenes):
            comparison.check(method, seed, answer)
            count += 1
        print(f"{world}: {count} answers, the same tokens, words and verdicts")
        for name, difference in comparison.largest.items():
            print(f"  {name}: {difference:.1e}")


if __name__ == "__main__":
    main()
