"""How faithful maps were where they were measured: on scenes with known content, by `benchmarks/faithfulness.py`."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TypedDict, cast

import mlx.core as mx
import numpy as np

from lime_mlx.models.base import Model
from lime_mlx.probes.faithful import ORDERS

FILE = Path(__file__).with_name("measured.json")
# The world in which maps over each kind of input were measured, and how it is called.
WORLDS = {"image": ("picture", "drawn scenes"), "audio": ("sound", "synthesised sounds")}


class World(TypedDict):
    """What was measured in one world. kinds: the figures of each kind of map, with value, low, high and n."""

    scenes: int
    model: str
    kinds: dict[str, dict[str, dict[str, float]]]


class Measurements(TypedDict):
    """The committed figures. seeds: of the first scene, and one behind that of the last."""

    seeds: list[int]
    worlds: dict[str, World]


@cache
def measurements() -> Measurements:
    return cast(Measurements, json.loads(FILE.read_text("utf-8")))


def fingerprint(model: Model) -> str:
    """What tells the measured models from others: their last norm, and whether they are quantised.

    The norm counts in bfloat16, so that a model has one fingerprint on every device.
    """
    body = model.language_model.model
    norm = np.array(body.norm.weight.astype(mx.bfloat16).astype(mx.float32))
    form = "quantised" if "scales" in body.embed_tokens else "floats"
    return sha256(norm.tobytes() + form.encode()).hexdigest()[:16]


def measured(model: Model, media: Collection[str], kind: str = "cached") -> str:
    """What was measured of a kind of map over these media ("image", "audio"), in sentences with their intervals.

    For models other than the measured ones it says that nothing was measured of them.
    """
    sentences, here = [], fingerprint(model)
    for medium, (world, inputs) in WORLDS.items():
        if medium not in media:
            continue
        part = measurements()["worlds"][world]
        figures = part["kinds"][kind]
        held, inside = figures["held"], figures["inside"]
        where = "the bundled model" if part["model"] == here else "the bundled demo model, not on this one"
        sentences.append(
            f"Such maps were measured on {where}: in {part['scenes']} {inputs}, {_percent(held)} of {held['n']} maps "
            f"held (covering their brightest cells first beat {ORDERS} random orders), "
            f"and {_percent(inside)} of the positive relevance lay on the thing itself."
        )
        if part["model"] != here:
            sentences.append("lime-mlx explain --check tests the maps of an answer of this model.")
    return " ".join(sentences)


def _percent(figure: dict[str, float]) -> str:
    value, low, high = (f"{100 * figure[name]:.0f}" for name in ("value", "low", "high"))
    return f"{value} % ({low} to {high})"
