"""What `choose` costs over an answer: 12 layers, hidden 512, 600 prompt tokens, a quarter of the tokens name something.

    python benchmarks/choose_cost.py            # a table on standard output, about 2 minutes on 2 cores

The model is random, so its language is, too: every fourth token counts as a noun that the model can be asked about. The
detector's numbers are set so that a tenth of the nouns is flagged by relevance and half are asked about, more than in
captions of the demo. Runs are paired with plain decoding of as many tokens; the figure is the median ratio.
"""

import argparse
import statistics
import time
import zlib
from dataclasses import dataclass, field, replace

from lime_mlx import blas

blas.load_blas()

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from speed import CONFIG, PICTURE, PROMPT, VOCABULARY, ids  # noqa: E402

from lime_mlx.decoding import start, steps  # noqa: E402
from lime_mlx.methods import parse_method  # noqa: E402
from lime_mlx.models.text import Text  # noqa: E402
from lime_mlx.prompt import Noun, Place, Prompt, Question, Sibling, Span, YesNo  # noqa: E402
from lime_mlx.support.detector import Asking, Detector  # noqa: E402
from lime_mlx.support.grammars import ENGLISH  # noqa: E402
from lime_mlx.support.nouns import noun_phrase, noun_place, nouns  # noqa: E402
from lime_mlx.support.statistics import from_logits, from_relevance  # noqa: E402

SHARE, FLAGGED, ASKED, QUESTION = 0.25, 0.1, 0.5, 12


@dataclass
class RandomLanguage:
    """A quarter of the tokens name something, each behind an article; a question has `QUESTION` tokens of its own."""

    ids: np.ndarray
    content: np.ndarray = field(default_factory=lambda: np.random.default_rng(1).random(VOCABULARY) < SHARE)
    yes_no = YesNo([7], [8])
    judges = True
    ends: frozenset[int] = frozenset()

    @property
    def prompted(self) -> np.ndarray:
        return np.zeros_like(self.content)

    def tokens(self, word: str) -> list[int]:
        return []

    def encode(self, text: str) -> list[int]:
        return []

    def noun_place(self, before: str) -> Place | None:
        return noun_place(before, ENGLISH)

    def agrees(self, before: str, name: str) -> bool:
        return True

    def noun_phrase(self, text: str) -> str:
        return noun_phrase(text, ENGLISH)

    def nouns(self, text: str) -> list[Noun]:
        return nouns(text, ENGLISH)

    def text(self, tokens) -> str:
        return "".join(f" thing{token}" if self.content[token] else ". There is a" for token in tokens)

    def question(self, noun: Noun) -> Question:
        return Question(*self.sibling(noun.text), self.yes_no)

    def sibling(self, text: str) -> Sibling:
        own = np.random.default_rng(zlib.crc32(text.encode())).integers(5, VOCABULARY, QUESTION)
        return Sibling(Prompt(np.concatenate([self.ids[: PICTURE[1]], own])), PICTURE[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    arguments = parser.parse_args()
    mx.random.seed(0)
    model = Text(CONFIG)
    mx.eval(model.parameters())
    language = RandomLanguage(ids(PROMPT))
    prompt = Prompt(language.ids, spans=[Span("image", *PICTURE)], language=language)
    detector = _detector(model, prompt, language)
    model._config = {**model.config, "lime": {"detector": _values(detector)}}

    def run(spec: str) -> tuple[float, int]:
        session = start(model, prompt, reliance=False, processors=[_varied])
        session.prefill()
        began = time.perf_counter()
        count = len(list(steps(session, parse_method(spec), arguments.tokens)))
        return (time.perf_counter() - began) / count, len(session.margins)

    run("none")
    print("| method | time of an answer, times plain | least and most | questions asked |\n|---|---|---|---|")
    for spec in ("choose:ask=never", "choose", "choose:ask=always"):
        run(spec)
        pairs = [(run(spec), run("none")) for _ in range(arguments.pairs)]
        ratios = [timed[0] / plain[0] for timed, plain in pairs]
        low, high = min(ratios), max(ratios)
        print(f"| {spec} | {statistics.median(ratios):.2f} | {low:.2f} to {high:.2f} | {pairs[0][0][1]} |", flush=True)


def _detector(model: Text, prompt: Prompt, language: RandomLanguage) -> Detector:
    """One that flags and asks about the shares of nouns that are wanted, found on plain decoding."""
    base = Detector({"share": -1.0, "certainty": -1.0}, 0.0, 0.5)
    session = start(model, prompt, processors=[_varied])
    found = []
    for step in steps(session, parse_method("none"), 100):
        if language.content[step.token] and step.relevance is not None:
            values = from_relevance(step.relevance, session.modality) | from_logits(step.logits, step.token)
            found.append(base.p_unsupported(values))
    lowest, threshold = (float(np.quantile(found, 1 - share)) for share in (ASKED, FLAGGED))
    asking = Asking(relevance=1.0, margin=0.0, intercept=0.0, lowest=lowest)
    return replace(base, threshold=threshold, asking=asking)


def _varied(tokens: mx.array, logits: mx.array) -> mx.array:
    """Logits with noise that depends on the place alone: a random model's best token is else always the same one."""
    return logits + mx.random.gumbel(logits.shape, key=mx.random.key(tokens.shape[0]))


def _values(detector: Detector) -> dict:
    return {**vars(detector), "asking": vars(detector.asking)}


if __name__ == "__main__":
    main()
