"""How near the cached relevance is to the exact one, on captions of the demo model.

    python benchmarks/fidelity.py --scenes 100

For every generated token: Spearman correlation of the two over the picture's tokens, their reliance, and how much of
each falls into the box of the object that the word names (grounding), beside the share of patches that the box covers.
"""

import argparse

import numpy as np
from rich.progress import track

from lime_mlx import blas

blas.load_blas()

from lime_mlx import load  # noqa: E402
from lime_mlx.decoding import start  # noqa: E402
from lime_mlx.lrp.relevance import cached, exact, grounding, reliance  # noqa: E402
from lime_mlx.lrp.rules import rules  # noqa: E402
from lime_mlx.scenes import PROMPTS, make_scene  # noqa: E402

FIRST_SEED = 210_000


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    rank = lambda x: np.argsort(np.argsort(x)).astype(float)  # noqa: E731
    return float(np.corrcoef(rank(a), rank(b))[0, 1])


def patches(box, size: int, side: int) -> np.ndarray:
    """(side * side,) bool: patches whose centre lies in the box."""
    x0, y0, x1, y1 = (edge * side / size for edge in box)
    centre = np.arange(side) + 0.5
    return np.outer((centre > y0) & (centre < y1), (centre > x0) & (centre < x1)).ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rules", default="attnlrp")
    parser.add_argument("--scenes", type=int, default=100)
    arguments = parser.parse_args()
    model, processor = load(arguments.model)
    chosen = rules(arguments.rules)
    everything, content, share_pairs, box_rows = [], [], [], []
    for seed in track(range(FIRST_SEED, FIRST_SEED + arguments.scenes)):
        scene = make_scene(seed, "ordinary")
        where = {thing.kind: thing.box for thing in scene.objects}
        session = start(model, processor.prompt(PROMPTS[0], images=[scene.image]), reliance=False)
        span = session.modality
        for _ in range(48):
            session.prefill()
            fast = cached(session.decoder, session.cache.entries(), session.newest, chosen)
            slow = exact(session.decoder, session.embeds, chosen, target=fast.target)
            a, b, token = np.array(fast.relevance), np.array(slow.relevance), int(fast.target)
            if token in processor.eos_token_ids:
                break
            correlation = spearman(a[: len(span)][span], b[: len(span)][span])
            everything.append(correlation)
            share_pairs.append((reliance(a, span), reliance(b, span)))
            if processor.content[token]:
                content.append(correlation)
            kind = processor.tokenizer.decode([token]).strip()
            if kind in where:
                inside = patches(where[kind], scene.image.width, int(span.sum() ** 0.5))
                box_rows.append((grounding(a, span, inside), grounding(b, span, inside), inside.mean()))
            session.extend()
            session.append(token)
    shares, boxes = np.array(share_pairs), np.array(box_rows).reshape(-1, 3)
    for name, values in (("all tokens", everything), ("content words", content)):
        low, middle, high = np.percentile(values, [5, 50, 95])
        print(f"Spearman over image tokens, {name} (n={len(values)}): mean {np.mean(values):.3f}, "
              f"median {middle:.3f}, 5-95 % {low:.3f} to {high:.3f}")  # fmt: skip
    print(f"reliance: fast {shares[:, 0].mean():.3f}, exact {shares[:, 1].mean():.3f}, "
          f"Spearman across tokens {spearman(*shares.T):.3f}")  # fmt: skip
    print(f"grounding in the named object's box (n={len(boxes)}): fast {boxes[:, 0].mean():.3f}, "
          f"exact {boxes[:, 1].mean():.3f}; the box covers {boxes[:, 2].mean():.3f} of the patches")  # fmt: skip


if __name__ == "__main__":
    main()
