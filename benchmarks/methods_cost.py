"""Time of one token with each method, as a ratio to plain decoding within one run.

    python benchmarks/methods_cost.py            # all methods, Markdown on standard output

The model, its prompt and the way a token is timed are those of speed.py (12 layers, hidden 512); no relevance is
computed. Every token of a method stands between two plain ones at the same position and is compared with their mean.
The model reads text, so VCD and AAD, which change the picture or the sound, are timed as M3ID with a branch as long as
the prompt: what they do for a token is the same.
"""

import argparse
import statistics
from dataclasses import dataclass
from importlib.metadata import version

import speed
from speed import Token

from lime_mlx import backend
from lime_mlx.methods import Method, parse_method
from lime_mlx.methods.contrastive import M3ID
from lime_mlx.models.text import Text
from lime_mlx.prompt import Prompt
from lime_mlx.session import Session

import mlx.core as mx  # isort: skip


@dataclass(frozen=True)
class Alike(M3ID):
    """M3ID against a prompt of the same length."""

    def other(self, session: Session) -> Prompt:
        return session.prompt


METHODS: dict[str, str | Method] = {
    "kvsmooth": "kvsmooth",
    "dleaf": "dleaf",
    "dleaf, k lowest heads": "dleaf:heads=bottom-k,aggregate=max,threshold=mean",
    "heads": "heads",
    "vcd, aad": Alike(),
    "m3id": "m3id",
    "pai": "pai",
    "acg": "acg",
    "iat": "iat",
    "locore": "locore",
    "flb": "flb",
    "only": "only",
    "kvsmooth + dleaf": "kvsmooth+dleaf",
    "kvsmooth + m3id": "kvsmooth+m3id",
}
PROMPTS = (600, 2000)


def cost(model, length: int, method, tokens: int) -> list[float]:
    """A method's time over the plain one's, token by token."""
    speed.PROMPT, speed.PICTURE = length, (5, min(581, length - 19))
    plain, other = Token(model, "none"), Token(model, method)
    for warm in (plain, other):
        warm.step(), warm.step()
    ratios, before = [], plain.step()[0]
    for _ in range(tokens):
        taken = other.step()[0]
        after = plain.step()[0]
        ratios.append(2 * taken / (before + after))
        before = after
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=60, help="pairs for each number")
    parser.add_argument("--only", help="rows whose name contains this")
    arguments = parser.parse_args()
    model = Text(speed.CONFIG)
    mx.eval(model.parameters())
    print(f"mlx {version('mlx')}, {backend.device_name()}; median of {arguments.tokens} tokens (quartiles)\n")
    print(f"| x plain, a token | {' | '.join(f'{length:,} prompt tokens' for length in PROMPTS)} |")
    print("|---|" + "---|" * len(PROMPTS))
    for name, method in [("plain", "none"), *METHODS.items()]:
        if arguments.only and arguments.only not in name:
            continue
        cells = []
        for length in PROMPTS:
            ratios = cost(model, length, parse_method(method), arguments.tokens)
            low, middle, high = statistics.quantiles(ratios, n=4)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
