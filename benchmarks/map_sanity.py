"""Do the maps depend on what the model learned, and is relevance conserved? Both, for the bundled models.

    python benchmarks/map_sanity.py --scenes 30 --part test

The weights of the decoder are shuffled from the last layer to the first (`lime_mlx.probes.sanity`). After each layer,
the map of the first right word of each answer is compared with the true one, by Spearman's rank correlation over the
picture or the sound. Beside it: the correlation with the map of another word under the true weights. Intervals are
bootstrapped over scenes, at 95 %. Then the balance of relevance (`lime_mlx.lrp.conservation`) at each of these words:
the largest part of a layer that is unexplained, and where the relevance of the logit goes.
"""

import argparse

import numpy as np
from rich.progress import track

from lime_mlx import blas

blas.load_blas()

import mlx.core as mx  # noqa: E402
from faithfulness import MODELS, PARTS, mean, scene_of  # noqa: E402

from lime_mlx import explain, load  # noqa: E402
from lime_mlx.lrp.conservation import conservation  # noqa: E402
from lime_mlx.lrp.rules import rules  # noqa: E402
from lime_mlx.probes.deletion import letters, medium_map  # noqa: E402
from lime_mlx.probes.kinds import KINDS, relevances  # noqa: E402
from lime_mlx.probes.sanity import cascade, likeness  # noqa: E402
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS  # noqa: E402
from lime_mlx.session import Session  # noqa: E402

RULES = ("attnlrp", "cplrp", "plain")


def study(world: str, model, processor, seed: int) -> tuple[dict[tuple[str, str], float], dict[str, list[float]]]:
    """Correlations by kind and stage, and the balances by rules, of one scene."""
    given, boxes, things = scene_of(world, seed)
    question = PROMPTS[0] if world == "picture" else SOUND_PROMPTS[0]
    answer = explain(model, processor, question, method="none", max_tokens=64, **given)
    prompt = processor.prompt(question, images=[*filter(None, [given.get("image")])], audio=sounds(given))
    places, tokens = letters(answer.words, processor.tokenizer.decode), list(answer.answer.tokens)
    right = [place for word, place in zip(answer.words, places, strict=True) if word.name in boxes][:2]
    if not right:
        return {}, {}
    medium = ("image" if world == "picture" else "audio", 0)

    def maps() -> dict[str, list[np.ndarray]]:
        rows = relevances(model, prompt, tokens, right, list(KINDS))
        return {kind: [medium_map(row, answer.spans, medium) for row in each] for kind, each in rows.items()}

    true, out = maps(), {}
    for kind, each in true.items():
        if len(each) > 1:
            out[kind, "another word"] = likeness(*each)
    for stage in cascade(model, seed):
        for kind, each in maps().items():
            out[kind, stage] = likeness(each[0], true[kind][0])
    session = Session.open(model, prompt)
    for token in tokens[: right[0][0]]:
        session.append(token)
    balances = {}
    for name in RULES:
        balance = conservation(
            session.decoder, session.embeds, rules(name), tokens[right[0][0]], positions=session.positions
        )
        kept = [sum(getattr(layer, part) for layer in balance.layers) for part in ("biases", "softmax")]
        balances[name] = [balance.worst.unexplained, *(part / balance.logit for part in (balance.arrived, *kept))]
    mx.clear_cache()
    return out, balances


def sounds(given: dict) -> list:
    return [given["audio"]] if "audio" in given else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=30, help="of each world")
    parser.add_argument("--part", choices=PARTS, default="validation")
    arguments = parser.parse_args()
    for world, name in MODELS.items():
        model, processor = load(name)
        table: dict[tuple[str, str], tuple[list[float], list[int]]] = {}
        balances: dict[str, list[list[float]]] = {}
        for seed in track(range(PARTS[arguments.part], PARTS[arguments.part] + arguments.scenes)):
            rows, balance = study(world, model, processor, seed)
            for key, value in rows.items():
                values, seeds = table.setdefault(key, ([], []))
                values.append(value)
                seeds.append(seed)
            for rule, parts in balance.items():
                balances.setdefault(rule, []).append(parts)
        print(f"{world}, {arguments.scenes} scenes: correlation with the true map")
        for (kind, stage), (values, seeds) in sorted(table.items()):
            shown = mean(values, seeds)
            print(
                f"  {kind}, {stage}: {shown['value']:.3f} ({shown['low']:.3f} to {shown['high']:.3f}), n={shown['n']}"
            )
        for rule, several in balances.items():
            worst, arrived, biases, kept = np.array(several).T
            print(
                f"  {rule}: at most {100 * worst.max():.2g} % unexplained in {len(several)} words; of the logit, "
                f"{100 * np.mean(arrived):.1f} % reach the embeddings, {100 * np.mean(biases):.1f} % stay in biases, "
                f"{100 * np.mean(kept):.1f} % in the softmax"
            )


if __name__ == "__main__":
    main()
