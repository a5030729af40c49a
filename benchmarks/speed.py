"""Time and memory of decoding, as ratios within one run.

    python benchmarks/speed.py            # all three parts, Markdown on standard output

(a) plain decoding against mlx-lm on the same text weights; (b) a LIME token against a plain one at 600 prompt tokens,
12 layers, hidden 512; (c) the peak memory of each.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from lime_mlx import backend, blas

blas.load_blas()

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.generate import generate_step  # noqa: E402
from mlx_lm.models import llama  # noqa: E402

from lime_mlx.decoding import start, steps  # noqa: E402
from lime_mlx.errors import PromptError  # noqa: E402
from lime_mlx.methods import Method, parse_method  # noqa: E402
from lime_mlx.models.text import Text  # noqa: E402
from lime_mlx.prompt import Noun, Place, Prompt, Question, Sibling, Span, YesNo  # noqa: E402

VOCABULARY = 8000
CONFIG = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
PROMPT, PICTURE = 600, (5, 581)
METHODS = (
    ("fast, 1 update", "lime:steps=2,words=all", 8),
    ("fast, 1 update, 10 % of words", None, 40),
    ("fast, 3 updates", "lime:steps=4,words=all", 5),
    ("fast, 6 updates", "lime:steps=7,words=all", 5),
    ("relevance only", "none", 8),
    ("exact, 1 update", "lime:mode=exact,steps=2", 2),
    ("exact, 1 update, checkpointed", "lime:mode=exact,steps=2,checkpoint=on", 2),
    ("exact, 6 updates", "lime:mode=exact,steps=7", 1),
)


@dataclass(frozen=True)
class RandomLanguage:
    """Says of random tokens that some of them are content, and that the question brought in none."""

    content: NDArray[np.bool_]

    @property
    def prompted(self) -> NDArray[np.bool_]:
        return np.zeros_like(self.content)

    @property
    def judges(self) -> bool:
        return False

    @property
    def ends(self) -> frozenset[int]:
        return frozenset()

    @property
    def yes_no(self) -> YesNo:
        return YesNo((), ())

    def tokens(self, word: str) -> Sequence[int]:
        return ()

    def text(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))

    def encode(self, text: str) -> Sequence[int]:
        return [int(word) for word in text.split()]

    def noun_place(self, before: str) -> Place | None:
        return None

    def agrees(self, before: str, name: str) -> bool:
        return True

    def noun_phrase(self, text: str) -> str:
        return ""

    def nouns(self, text: str) -> list[Noun]:
        return []

    def sibling(self, text: str) -> Sibling:
        raise PromptError("Random tokens have no text.")

    def question(self, noun: Noun) -> Question:
        raise PromptError("Random tokens ask no question.")


def ids(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(5, VOCABULARY, count)


def against_mlx_lm(pairs: int, tokens: int = 64) -> str:
    """Median of paired ratios mlx-lm time / our time, each decoding the same tokens greedily."""
    ours = Text(CONFIG)
    theirs = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    weights = dict(tree_flatten(ours.parameters()))
    theirs.load_weights([(name.removeprefix("language_model."), weight) for name, weight in weights.items()])
    mx.eval(ours.parameters(), theirs.parameters())
    prompt = ids(128)

    def our_run() -> tuple[float, list[int]]:
        session = start(ours, Prompt(prompt), reliance=False)
        decoded = steps(session, parse_method("none"), tokens + 1)
        first = next(decoded).token
        began = time.perf_counter()
        rest = [step.token for step in decoded]
        return time.perf_counter() - began, [first, *rest]

    def their_run() -> tuple[float, list[int]]:
        decoded = generate_step(mx.array(prompt), theirs, max_tokens=tokens + 1)
        first = int(next(decoded)[0])
        began = time.perf_counter()
        rest = [int(token) for token, _ in decoded]
        return time.perf_counter() - began, [first, *rest]

    our_run(), their_run()
    ratios, mine, other = [], [], []
    for _ in range(pairs):
        (a, ours_decoded), (b, theirs_decoded) = our_run(), their_run()
        assert ours_decoded == theirs_decoded, "the two decoded different tokens"
        mine.append(a / tokens)
        other.append(b / tokens)
        ratios.append(b / a)
    low, high = min(ratios), max(ratios)
    return (
        f"plain decode, ours {1e3 * statistics.median(mine):.1f} ms/token, mlx-lm {1e3 * statistics.median(other):.1f} "
        f"ms/token; speed ratio ours / mlx-lm: median {statistics.median(ratios):.3f} of {pairs} pairs "
        f"({low:.3f} to {high:.3f}); {tokens} tokens each, the same ones"
    )


class Token:
    """One decode step at a time, with its time and its peak memory above what was held before it."""

    def __init__(
        self, model: Text, spec: str | Method, reliance: bool = False, language: RandomLanguage | None = None
    ) -> None:
        prompt = Prompt(ids(PROMPT), spans=[Span("image", *PICTURE)], language=language)
        self.session = start(model, prompt, reliance=reliance)
        self.method = parse_method(spec).prepare(model)
        self.session.prefill()
        mx.eval(self.session.cache.arrays())

    def step(self) -> tuple[float, int]:
        mx.clear_cache()
        held = mx.get_active_memory()
        mx.reset_peak_memory()
        began = time.perf_counter()
        mx.eval(self.method.step(self.session).logits)
        taken = time.perf_counter() - began
        peak = mx.get_peak_memory() - held
        self.session.append(7)
        return taken, peak


def against_plain(only: str | None) -> list[str]:
    model = Text(CONFIG)
    mx.eval(model.parameters())
    plain = Token(model, "none")
    plain.step()
    lines = ["| one token at 600 prompt tokens | ms | x plain | peak above held, MB |", "|---|---|---|---|"]
    rows = []
    for name, spec, count in METHODS:
        if only and only not in name:
            continue
        language = None
        if spec is None:
            spec = "lime:steps=2,words=content"
            language = RandomLanguage(np.random.default_rng(1).random(VOCABULARY) < 0.1)
        token = Token(model, spec, reliance=spec == "none", language=language)
        if count > 2:
            token.step()
        pairs = [(plain.step(), token.step()) for _ in range(count)]
        base = statistics.median(p[0] for p, _ in pairs)
        middle = statistics.fmean if language is not None else statistics.median
        taken = middle([t[0] for _, t in pairs])
        memory = max(t[1] for _, t in pairs)
        rows.append(f"| {name} (n={count}) | {1e3 * taken:.1f} | {taken / base:.1f} | {memory / 1e6:.0f} |")
    alone = [plain.step() for _ in range(9)]
    taken = statistics.median(seconds for seconds, _ in alone)
    rows.insert(0, f"| plain | {1e3 * taken:.1f} | 1 | {max(peak for _, peak in alone) / 1e6:.0f} |")
    return lines + rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", help="rows whose name contains this")
    arguments = parser.parse_args()
    print(f"mlx {version('mlx')}, {backend.device_name()}\n")
    print(against_mlx_lm(arguments.pairs) + "\n")
    print("\n".join(against_plain(arguments.only)))


if __name__ == "__main__":
    main()
