"""Is the promise of `lime-mlx evaluate --calibrate --risk` kept as often as it says? And which test makes it?

    python benchmarks/risk_coverage.py --model demo            # 400 + 600 captions of adversarial validation scenes
    python benchmarks/risk_coverage.py --model demo-sound
    python benchmarks/risk_coverage.py --simulate              # laws of losses whose risk is known; no model

With a model: the detector is fitted on the first 400 captions. The other 600 are split by picture at random, again and
again: on one half the bound is computed, on the other the mean loss at the chosen threshold is compared with the risk.
That mean has chance of its own, so pictures are also drawn from the 600 with replacement: the risk of that law is
known, it is the mean over all 600. `tight` tests one threshold alone, and the risk is just below its mean loss over the
600, so that to pass is to break the promise: the one that keeps 97 % of the true objects that plain decoding names, and
the last one, which is plain decoding. Captions go to --output and are not made twice.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.progress import Progress

from lime_mlx.evaluate.bound import Wish, choose, read
from lime_mlx.evaluate.calibrate import captioned
from lime_mlx.evaluate.checks import RunConfig
from lime_mlx.evaluate.fitting import fitted
from lime_mlx.evaluate.procedures import REPLAYED, Floats, Outcomes, replayed
from lime_mlx.evaluate.risk import hoeffding_bentkus, p_value, passed
from lime_mlx.support.promise import DROP, MARK

TASKS = {"demo": "scenes", "demo-sound": "sounds"}
KEPT = 0.97


def one(rng: np.random.Generator, mean: Floats, count: int) -> Floats:
    """Losses (t, count) that are 0 or 1, of the means (t,); they grow with the mean."""
    return (rng.random(count) < mean[:, None]).astype(np.float64)


def share(rng: np.random.Generator, mean: Floats, count: int) -> Floats:
    """One unsupported word among two to five."""
    words = rng.integers(2, 6, count)
    return np.asarray((rng.random(count) < mean[:, None] * words) / words, dtype=np.float64)


def beta(rng: np.random.Generator, mean: Floats, count: int) -> Floats:
    """Beta(5 m, 5 (1 - m)), independent for each threshold."""
    return rng.beta(5 * mean[:, None], 5 * (1 - mean[:, None]), (len(mean), count))


LAWS: dict[str, Callable[[np.random.Generator, Floats, int], Floats]] = {
    "0 or 1": one,
    "1 of 2 to 5": share,
    "Beta": beta,
}


def simulate(risk: float, confidence: float, repetitions: int) -> None:
    """Print how often each test passes a mean loss, and how often the chosen threshold has too large a risk."""
    rng, means = np.random.default_rng(0), np.array([0.25, 0.5, 0.75, 1.0])
    print(
        f"How often a mean loss passes a risk of {risk:g} with confidence {confidence:g} ({repetitions} repetitions)\n"
    )
    print("| losses | answers | test |" + "".join(f" mean {mean:g} x risk |" for mean in means))
    print("|---|---|---|" + "---|" * len(means))
    for name, law in LAWS.items():
        for count in (250, 500, 1000):
            draws = [law(rng, risk * means, count) for _ in range(repetitions)]
            by_betting = np.mean([p_value(losses, risk, confidence) <= 1 - confidence for losses in draws], axis=0)
            bounds = [[hoeffding_bentkus(row, risk) <= 1 - confidence for row in losses] for losses in draws]
            for test, rates in (("betting", by_betting), ("Hoeffding-Bentkus", np.mean(bounds, axis=0))):
                print(f"| {name} | {count} | {test} |" + "".join(f" {rate:.3f} |" for rate in rates))
    allowed = f"at most {1 - confidence:g} may be"
    print(
        f"\nHow often the last threshold that passes has a risk above {risk:g}, and the promise is broken: {allowed}\n"
    )
    print("| losses | answers | promised | broken |")
    print("|---|---|---|---|")
    ladder = risk * np.r_[np.linspace(0.1, 0.9, 9), 1 + 1e-9, 1.05, 1.2, 1.5]
    for name, law in LAWS.items():
        for count in (250, 500, 1000):
            lengths = np.array([passed(law(rng, ladder, count), risk, confidence) for _ in range(repetitions)])
            broken = np.mean([length > 0 and ladder[length - 1] > risk for length in lengths])
            print(f"| {name} | {count} | {np.mean(lengths > 0):.3f} | {broken:.4f} |")


def measured(model: str, folder: Path, fit: int, pictures: int) -> dict[str, Outcomes]:
    """What each procedure keeps of the captions that the detector was not fitted on."""
    task = TASKS.get(model, "scenes")
    config = RunConfig([model], ["none"], [f"{task}:part=validation,count={fit + pictures},ask=captions"])
    with Progress() as progress:
        captions = captioned(config, model, folder, progress, [])
    rows = [{**word, "medium": ""} for record in captions.records[:fit] for word in record.get("words", ())]
    detector = fitted(rows)

    def find(words: Sequence[str]) -> list[tuple[int, str]]:
        return captions.task.objects(words, captions.material)

    found = {}
    for procedure in (MARK, DROP):
        first, others = (
            replayed(procedure, read(captions, part), detector, find, REPLAYED)
            for part in (slice(fit), slice(fit, None))
        )
        found[procedure] = others.since(first.safest())
    return found


def tight(found: Outcomes, index: int) -> tuple[Outcomes, float]:
    """One threshold alone, and a risk just below its mean loss."""
    alone = slice(index, index + 1)
    tables = (found.losses[alone], found.covered[alone], found.again[alone])
    single = Outcomes(found.thresholds[alone], *tables, found.present, found.named)
    return single, float(single.losses.mean()) * (1 - 1e-9)


def covered(found: Outcomes, wish: Wish, splits: int) -> str:
    """How often a promise is made, and how often it is broken: on the other half, and where the risk is known."""
    rng, count = np.random.default_rng(0), found.losses.shape[1]
    risks = found.losses.mean(axis=1)
    made, above, kept, broken = 0, 0, [], 0
    for _ in range(splits):
        order = rng.permutation(count)
        index = choose(found.of(order[: count // 2]), wish)
        if index is not None:
            made += 1
            above += bool(found.losses[index, order[count // 2 :]].mean() > wish.risk)
            kept.append(found.kept[index])
        drawn = choose(found.of(rng.integers(count, size=count // 2)), wish)
        broken += drawn is not None and bool(risks[drawn] > wish.risk)
    mean = f"{np.mean(kept):.3f}" if kept else "-"
    return f"{made / splits:.3f} | {mean} | {above / splits:.4f} | {broken / splits:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="demo, demo-sound, or another checkpoint for scenes")
    parser.add_argument("--fit", type=int, default=400, help="captions that the detector is fitted on")
    parser.add_argument("--pictures", type=int, default=600, help="captions that are split")
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--output", type=Path, default=Path("work/risk"))
    parser.add_argument("--simulate", action="store_true", help="the table of known laws instead, for a risk of 0.02")
    parser.add_argument("--repetitions", type=int, default=4000, help="of each simulated law")
    arguments = parser.parse_args()
    if arguments.simulate:
        simulate(0.02, arguments.confidence, arguments.repetitions)
        return
    tables = measured(arguments.model, arguments.output, arguments.fit, arguments.pictures)
    print(f"{arguments.model}: {arguments.splits} splits of {arguments.pictures} pictures in halves")
    print(f"Broken may be at most {1 - arguments.confidence:g}. Promised: the share of splits with a promise.\n")
    print("| procedure | risk | promised | kept | above on the other half | broken |")
    print("|---|---|---|---|---|---|")
    for procedure, found in tables.items():
        some = int((found.kept >= KEPT).argmax())
        rows = {f"{risk:g}": (found, risk) for risk in (0.02, 0.03, 0.05)}
        rows |= {f"{(row := tight(found, index))[1]:.4f}, tight": row for index in (some, len(found.losses) - 1)}
        for name, (tested, risk) in rows.items():
            wish = Wish(risk, arguments.confidence, procedure)
            print(f"| {procedure} | {name} | {covered(tested, wish, arguments.splits)} |", flush=True)


if __name__ == "__main__":
    main()
