"""The decoding methods, by name, and the spec that chooses one or several: `kvsmooth+lime:mode=fast,steps=3`."""

import re
from dataclasses import replace

from lime_mlx.errors import MethodError
from lime_mlx.methods.base import Forward, Method, Plain, Wrapper
from lime_mlx.session import Session
from lime_mlx.spec import parse

from .attention import Heads
from .contrastive import AAD, M3ID, PAI, VCD, Contrastive
from .dleaf import DLeaf
from .kvsmooth import KVSmooth
from .lime import Lime

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Plain, Lime, KVSmooth, DLeaf, VCD, M3ID, AAD, PAI, Heads)
}


def parse_method(spec: "str | Method") -> Method:
    """The method of a spec `name` or `name:key=value,...`, or of several such joined by +.

    Raises `MethodError` that lists what is valid, or says why methods do not go together.
    """
    if isinstance(spec, Method):
        return spec
    return compose([_parse_one(part) for part in re.split(r"\+(?!\d)", spec)])


def compose(methods: list[Method]) -> Method:
    """One method of several single ones: at most one each that computes the logits, smooths the cache, contrasts."""
    layers: dict[str, Method] = {}
    for method in methods:
        place = _place(method)
        if place in layers:
            first, second = layers[place].name, method.name
            raise MethodError(f"{first} and {second} do not go together: both {place}.")
        layers[place] = method
    if isinstance(layers.get(CONTRAST), PAI) and ATTENTION in layers:
        raise MethodError(f"pai and {layers[ATTENTION].name} do not go together: both {ATTENTION}.")
    whole = layers.get(ATTENTION, layers[CONTRAST].inner if CONTRAST in layers else None)
    for place in (CACHE, CONTRAST):
        if place in layers:
            whole = layers[place] if whole is None else replace(layers[place], inner=whole)
    return whole


ATTENTION, CACHE, CONTRAST = "compute the token's attention", "change the cache", "contrast the logits"


def _place(method: Method) -> str:
    if isinstance(method, Contrastive):
        return CONTRAST
    return CACHE if isinstance(method, Wrapper) else ATTENTION


def _parse_one(spec: str) -> Method:
    return parse(spec, METHODS, "method", MethodError)


__all__ = ["METHODS", "Forward", "Method", "Plain", "Session", "compose", "parse_method"]
