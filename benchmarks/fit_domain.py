"""The domain of a demo checkpoint: fitted on validation scenes, measured on others and on inputs from elsewhere.

    python benchmarks/fit_domain.py lime_mlx/demo/picture --write
    python benchmarks/fit_domain.py lime_mlx/demo/sound --write
    python benchmarks/fit_domain.py lime_mlx/demo/picture --measure 101000 --others photos/*.jpg

The first two fit on the scenes 100,000 to 100,999 and put the domain into the checkpoint's config.json: do so after
each training. Without --write the JSON is printed. The third says how often an input is outside of the stored domain:
of scenes from that seed on, of such that were changed, and of other files. A sound that is too long is cut.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from changes import PICTURES, SOUNDS
from PIL import Image
from rich.progress import track

from lime_mlx import load
from lime_mlx.evaluate.tasks.scenes import PARTS, Scenes, Sounds
from lime_mlx.files import read_json, write
from lime_mlx.media.audio import Sound, open_audio
from lime_mlx.media.image import open_image
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor
from lime_mlx.session import Session
from lime_mlx.support.domain import Domain

COUNT, MEASURED = 1000, 500
CHANGED = 100  # how many scenes are changed
LONGEST = 6  # seconds that the sound demo hears
Source = Image.Image | Sound


def features(loaded: tuple[Model, Processor], sources: Iterable[Source], title: str, count: int) -> np.ndarray:
    """(N, F): of each picture or sound."""
    model, processor = loaded
    rows = []
    for source in track(sources, title, total=count):
        media = {"audio": [source]} if isinstance(source, Sound) else {"images": [source]}
        rows.append(Session.open(model, processor.prompt("What is there?", **media)).media_features()[0])
    return np.array(rows)


def opened(path: Path, sound: bool) -> Source:
    if not sound:
        return open_image(path)
    whole = open_audio(path)
    return Sound(whole.samples[: LONGEST * whole.rate], whole.rate)


def drawn(task: Scenes, seed: int) -> Source:
    source = task.source(None, str(seed))
    assert not isinstance(source, Path)
    return source


def measure(loaded: tuple[Model, Processor], domain: Domain, task: Scenes, first: int, others: list[Path]) -> None:
    sound, seeds = isinstance(task, Sounds), range(first, first + MEASURED)
    worlds = {regime: type(task)(regime=regime) for regime in ("adversarial", "ordinary")}
    changes: dict[str, Callable[..., Source]] = {**SOUNDS} if sound else {**PICTURES}
    inputs: dict[str, tuple[Iterable[Source], int]] = {
        f"{regime} scenes": (map(partial(drawn, world), seeds), MEASURED) for regime, world in worlds.items()
    }
    for name, change in changes.items():
        inputs[name] = (map(change, map(partial(drawn, task), seeds[:CHANGED])), CHANGED)
    inputs["other files"] = ((opened(path, sound) for path in others), len(others))
    print("| input | number | outside |")
    print("|---|---|---|")
    for name, (sources, count) in inputs.items():
        outside = [not domain.inside(row) for row in features(loaded, sources, name, count)]
        if outside:
            print(f"| {name} | {len(outside)} | {100 * np.mean(outside):.1f} % |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--write", action="store_true", help="put the domain into config.json")
    parser.add_argument("--measure", type=int, metavar="SEED", help="measure the stored domain on these scenes")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="files that should be outside")
    arguments = parser.parse_args()
    loaded = load(arguments.checkpoint)
    task: Scenes = Sounds() if "audio" in loaded[1].takes else Scenes()
    if arguments.measure is not None:
        domain = Domain.from_config(loaded[0].config)
        if domain is None:
            parser.error("the checkpoint has no domain; fit one with --write")
        measure(loaded, domain, task, arguments.measure, arguments.others)
        return
    seeds = range(PARTS["validation"], PARTS["validation"] + COUNT)
    domain = Domain.fit(features(loaded, (drawn(task, seed) for seed in seeds), "scenes", COUNT), task.inputs)
    if not arguments.write:
        print(json.dumps(domain.to_dict()))
        return
    file = arguments.checkpoint / "config.json"
    config = read_json(file)
    write(file, compact({**config, "lime": {**config["lime"], "domain": domain.to_dict()}}))
    print(f"{file} has a domain with the threshold {domain.threshold:.4g}")


def compact(config: dict) -> str:
    """JSON in lines as before, but with each list of the domain in one line."""
    lists = {f"@{name}@": value for name, value in config["lime"]["domain"].items() if isinstance(value, list)}
    named = {name: f"@{name}@" if f"@{name}@" in lists else value for name, value in config["lime"]["domain"].items()}
    text = json.dumps({**config, "lime": {**config["lime"], "domain": named}}, indent=2)
    for name, value in lists.items():
        text = text.replace(json.dumps(name), json.dumps(value))
    return text + "\n"


if __name__ == "__main__":
    main()
