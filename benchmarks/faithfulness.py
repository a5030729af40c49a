"""Are the maps faithful? Deletion and insertion, pointing and grounding, for kinds of maps, on both built-in worlds.

    python benchmarks/faithfulness.py run.jsonl --scenes 100 --part test      # goes on where it stopped
    python benchmarks/faithfulness.py run.jsonl --report                      # tables, from what is there
    python benchmarks/faithfulness.py run.jsonl --write                       # and the numbers that the pages show

The model describes each scene (plain decoding). Of the words that name something that is there, the first two are
checked, and the first word that names what is not there. A picture has the 8 x 8 cells of its map, a sound the 75 times
of its map. Kinds: those of `lime_mlx.probes.kinds`; `perturbation`, by how much the log-probability of the word falls
where one cell alone is covered (what Captum's FeatureAblation computes of an ImageMaskInput, see captum_reference.py;
of a sound, one of 15 times); `another word`, the cached map of the other word.

A sound is also cut into time-frequency cells, 4 bands of 15 times: "in bands". There, `cached` covers all bands of a
time at once, and `spectrogram` is the exact relevance that goes on through the tower to the spectrogram by plain
gradient x input. Intervals are bootstrapped over scenes, at 95 %.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from rich.progress import track

from lime_mlx import blas

blas.load_blas()

from map_study import Box, covered, hit, inside  # noqa: E402

from lime_mlx import explain, load  # noqa: E402
from lime_mlx.evaluate.statistics import interval  # noqa: E402
from lime_mlx.lrp.rules import ATTN_LRP  # noqa: E402
from lime_mlx.media.audio import Sound  # noqa: E402
from lime_mlx.models.base import media_array, merge  # noqa: E402
from lime_mlx.probes.deletion import Curves, cells_of, letters, medium_map, removed  # noqa: E402
from lime_mlx.probes.faithful import LEAST_RISE, SHARES, MapCheck, masks, order, random_orders  # noqa: E402
from lime_mlx.probes.kinds import KINDS, relevances  # noqa: E402
from lime_mlx.probes.measured import fingerprint  # noqa: E402
from lime_mlx.scenes import KINDS as THINGS  # noqa: E402
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, SOUNDS, make_scene, make_sound  # noqa: E402

PARTS = {"validation": 100_000, "test": 200_000}
MODELS = {"picture": "demo", "sound": "demo-sound"}
BANDS, TIMES = 4, 15
WORDS = 2
COLUMNS = {
    "faithfulness": "faithfulness",
    "deletion": "deletion",
    "insertion": "insertion",
    "held": "held",
    "cached less this": "less than cached",
    "pointing": "hit",
    "grounding": "inside",
}


def spectrogram(model: Any, prompt: Any, tokens: list[int], places: list[int]) -> np.ndarray:
    """(bins, frames): relevance of a word at the levels of a sound, above the quietest of them."""
    mel, mask = (np.asarray(prompt.media[name]) for name in ("input_features", "feature_attention_mask"))
    valid = mask.sum(axis=1).astype(np.int32)
    positions = np.flatnonzero(prompt.input_ids == model.audio_token)
    total = np.zeros(mel.shape[1:])
    for index in places:
        text = mx.concatenate([model.ids(prompt), mx.array(tokens[:index], mx.int32)])
        embeds = model.language_model.embed(text)

        def logit(levels: mx.array, embeds: mx.array = embeds, token: int = tokens[index]) -> mx.array:
            features = model.features(levels, mx.array(valid))[0, : len(positions)]
            hidden = model.language_model(merge(embeds, features, positions, "audio"), rules=ATTN_LRP)
            return model.language_model.head(hidden[:, -1], ATTN_LRP)[0, token]

        levels = media_array(mel, mx.float32)
        total += np.array(mx.grad(logit)(levels))[0] * (mel[0] - mel[0, :, : valid[0]].min())
    return total[:, : valid[0]]


def pooled(values: np.ndarray, rows: int = BANDS, columns: int = TIMES) -> np.ndarray:
    """A map of a sound summed into time-frequency cells; a row alone is shared evenly by all bands."""
    if len(values) == 1:
        values = np.repeat(values / rows, rows, axis=0)
    down, across = (np.arange(n) * k // n for n, k in zip(values.shape, (rows, columns), strict=True))
    out = np.zeros((rows, columns))
    np.add.at(out, np.ix_(down, across), values)
    return out


def scene_of(world: str, seed: int) -> tuple[dict[str, Any], dict[str, Box], tuple[str, ...]]:
    """What `explain` takes, the box of each thing as fractions of the whole, and all names of things."""
    if world == "picture":
        picture = make_scene(seed, "ordinary")
        corners = {thing.kind: [edge / picture.image.width for edge in thing.box] for thing in picture.objects}
        boxes: dict[str, Box] = {kind: (left, top, right, low) for kind, (left, top, right, low) in corners.items()}
        return {"image": picture.image}, boxes, THINGS
    sound = make_sound(seed, "ordinary")
    seconds = len(sound.samples) / sound.rate
    boxes = {event.kind: (event.start / seconds, 0.0, event.stop / seconds, 1.0) for event in sound.events}
    return {"audio": Sound(sound.samples, sound.rate)}, boxes, SOUNDS.kinds


def study(world: str, model: Any, processor: Any, seed: int) -> dict[str, Any]:
    """Everything that is measured of one scene."""
    given, boxes, things = scene_of(world, seed)
    question = PROMPTS[0] if world == "picture" else SOUND_PROMPTS[0]
    answer = explain(model, processor, question, method="none", max_tokens=64, **given)
    pictures, sounds = [given["image"]] if world == "picture" else [], [given["audio"]] if world == "sound" else []
    prompt = processor.prompt(question, images=pictures, audio=sounds)
    tokens = list(answer.answer.tokens)
    naming = [n for n, word in enumerate(answer.words) if word.name in things and word.relevance is not None]
    right = [n for n in naming if answer.words[n].name in boxes][:WORDS]
    wrong = [n for n in naming if answer.words[n].name not in boxes][:1]
    row: dict[str, Any] = {"world": world, "seed": seed, "words": []}
    if not right and not wrong:
        return row
    places = letters(answer.words, processor.tokenizer.decode)
    medium = ("image" if world == "picture" else "audio", 0)
    shown: dict[int, Any] = {n: answer.words[n].relevance for n in [*right, *wrong]}
    shape = medium_map(shown[next(iter(shown))], answer.spans, medium).shape
    cells = cells_of(model, processor, prompt, pictures, medium, shape)
    curves = Curves(model, cells, tokens, places)
    random = np.array([curves(masks(each)) for each in random_orders(int(np.prod(shape)))])
    coarse = shape if world == "picture" else (1, TIMES)
    falls = removed(Curves(model, cells_of(model, processor, prompt, pictures, medium, coarse), tokens, places))
    rows = relevances(model, prompt, tokens, [places[n] for n in right], [kind for kind in KINDS if kind != "cached"])
    cached = {n: medium_map(shown[n], answer.spans, medium) for n in shown}
    bands = cells_of(model, processor, prompt, pictures, medium, (BANDS, TIMES)) if world == "sound" else None
    in_bands = None if bands is None else Curves(model, bands, tokens, places)
    falls_in_bands = None if in_bands is None else removed(in_bands)
    for index, n in enumerate(right):
        maps: dict[str, Any] = {"cached": cached[n]}
        maps |= {kind: medium_map(rows[kind][index], answer.spans, medium) for kind in rows}
        maps["perturbation"] = np.repeat(falls[:, n], int(np.prod(shape)) // len(falls)).reshape(shape)
        for other in right:
            if other != n:
                maps["another word"] = cached[other]
        one = measured(answer.words[n].name, curves, n, maps, boxes)
        row["words"].append(one | {"random": rounded(random[:, :, n])})
        if in_bands is not None and falls_in_bands is not None:
            maps = {"cached": pooled(cached[n]), "perturbation": falls_in_bands[:, n].reshape(BANDS, TIMES)}
            maps["spectrogram"] = pooled(spectrogram(model, prompt, tokens, places[n]))
            row["words"][-1]["bands"] = measured(answer.words[n].name, in_bands, n, maps, boxes)["maps"]
    for n in wrong:
        one = measured(answer.words[n].name, curves, n, {"cached": cached[n]}, {})
        row["words"].append(one | {"random": rounded(random[:, :, n])})
    return row


def measured(name: str, curves: Curves, n: int, maps: dict[str, np.ndarray], boxes: dict[str, Box]) -> dict[str, Any]:
    """The curves of a word under each map, and where each map lies."""
    out: dict[str, Any] = {"word": name, "present": name in boxes, "maps": {}}
    for kind, values in maps.items():
        cells = order(values)
        most, least = (rounded(curves(masks(each))[:, n]) for each in (cells, cells[::-1]))
        out["maps"][kind] = {"most": most, "least": least}
        if name in boxes:
            box = boxes[name]
            out["maps"][kind] |= {"hit": hit(values, box), "inside": round(inside(values, box), 4)}
            out["area"] = round(float(covered(box, *values.shape).mean()), 4)
    return out


def rounded(values: np.ndarray) -> list[Any]:
    return np.round(values, 5).tolist()


def checks(row: dict[str, Any], present: bool) -> Iterator[tuple[str, MapCheck, dict[str, Any], float]]:
    """The kinds of map of a scene, with their curves, where they lie, and the area of the box."""
    medium = "image" if row["world"] == "picture" else "audio"
    for number, word in enumerate(row["words"]):
        if word["present"] == present:
            none = np.zeros((0, len(SHARES)))
            maps = [(kind, one, np.array(word["random"])) for kind, one in word["maps"].items()]
            maps += [(f"{kind}, in bands", one, none) for kind, one in word.get("bands", {}).items()]
            for kind, one, random in maps:
                most, least = np.array(one["most"]), np.array(one["least"])
                check = MapCheck(word["word"], kind, medium, 0, (0, 0), most, least, random, SHARES, number)
                yield kind, check, one, word.get("area", 0.0)


def mean(values: list[float], seeds: list[int]) -> dict[str, Any]:
    low, high = interval(values, np.ones(len(values)), seeds)
    return {"value": round(float(np.mean(values)), 3), "low": round(low, 3), "high": round(high, 3), "n": len(values)}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """For each kind of map, its figures with their intervals, over the words that rest on the input."""
    table: dict[str, dict[str, tuple[list[float], list[int]]]] = {}
    pairs: dict[tuple[int, int], dict[str, float]] = {}

    def add(kind: str, figure: str, value: float, seed: int) -> None:
        values, seeds = table.setdefault(kind, {}).setdefault(figure, ([], []))
        values.append(value)
        seeds.append(seed)

    for row in rows:
        for kind, check, place, area in checks(row, True):
            add(kind, "hit", place["hit"], row["seed"])
            add(kind, "inside", place["inside"], row["seed"])
            add(kind, "area", area, row["seed"])
            add(kind, "clear", float(check.rise >= LEAST_RISE), row["seed"])
            if check.rise < LEAST_RISE:
                continue
            for figure in ("faithfulness", "deletion", "insertion"):
                add(kind, figure, float(getattr(check, figure)), row["seed"])
            if len(check.random):
                add(kind, "held", float(check.outcome == "held"), row["seed"])
                add(kind, "random", float(check.chance.mean()), row["seed"])
            pairs.setdefault((row["seed"], check.index), {})[kind] = check.faithfulness
        for _, check, _, _ in checks(row, False):
            add("invented words", "clear", float(check.outcome != "unclear"), row["seed"])
            if check.outcome != "unclear":
                add("invented words", "held", float(check.outcome == "held"), row["seed"])
                add("invented words", "faithfulness", check.faithfulness, row["seed"])
    for (seed, _), each in pairs.items():
        for kind, value in each.items():
            rival = "cached, in bands" if kind.endswith("in bands") else "cached"
            if kind != rival:
                add(kind, "less than cached", each[rival] - value, seed)
    return {kind: {figure: mean(*values) for figure, values in figures.items()} for kind, figures in table.items()}


def table(world: str, scenes: int, kinds: dict[str, dict[str, dict[str, Any]]]) -> Iterator[str]:
    """The figures of a world in Markdown."""
    clear = kinds["cached"]["clear"]
    yield f"\n{world}: {scenes} scenes, {clear['n']} right words; the input decides {cell(clear, 100)} % of them\n"
    yield f"| map | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}"
    for kind, values in kinds.items():
        cells = (cell(values[name]) if name in values else "" for name in COLUMNS.values())
        yield f"| {kind} (n={values['faithfulness']['n']}) | {' | '.join(cells)} |"
    invented = kinds["invented words"]["clear"]
    random = kinds["cached"]["random"]
    yield f"\nThe area in random order is {cell(random)}; the input decides {cell(invented, 100)} % of {invented['n']}"
    yield f"invented words. The box is {cell(kinds['cached']['area'])} of the whole."


def cell(figure: dict[str, Any], times: float = 1) -> str:
    digits = 0 if times == 100 else 2
    value, low, high = (f"{times * figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scenes", type=int, default=100, help="of each world")
    parser.add_argument("--part", choices=PARTS, default="validation")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.output.read_text().splitlines()] if arguments.output.exists() else []
    if not arguments.report and not arguments.write:
        done = {(row["world"], row["seed"]) for row in rows}
        models = {world: load(name) for world, name in MODELS.items()}
        for number in track(range(arguments.scenes)):
            for world in MODELS:
                seed = PARTS[arguments.part] + number
                if (world, seed) not in done:
                    rows.append(study(world, *models[world], seed))
                    with arguments.output.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    figures: dict[str, Any] = {}
    for world in MODELS:
        part = [row for row in rows if row["world"] == world]
        figures[world] = {"scenes": len(part), "model": fingerprint(load(MODELS[world])[0]), "kinds": summary(part)}
        print("\n".join(table(world, len(part), figures[world]["kinds"])))
    if arguments.write:
        seeds = sorted({row["seed"] for row in rows})
        target = Path(__file__).parents[1] / "lime_mlx" / "probes" / "measured.json"
        target.write_text(json.dumps({"seeds": [seeds[0], seeds[-1]], "worlds": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
