"""The decoding methods, by name, and the spec that chooses one or several: `kvsmooth+lime:mode=fast,steps=3`."""

import re
from dataclasses import replace

from lime_mlx.errors import MethodError
from lime_mlx.spec import parse

from .acg import ACG
from .adaiat import AdaIAT
from .attention import Heads
from .base import Forward, Method, Plain, Prepared, Rescoring, Wrapper
from .choose import Choose
from .contrastive import AAD, M3ID, PAI, VCD
from .dleaf import DLeaf
from .flb import FLB
from .kvsmooth import KVSmooth
from .lime import Lime
from .only import Only
from .own_text import IAT, LocoRE
from .selfval import SelfValidation
from .sham import Sham
from .yes_no import YesNo

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(Plain, Choose, Lime, KVSmooth, DLeaf, VCD, M3ID, AAD, PAI, Heads, YesNo),
        *(ACG, IAT, AdaIAT, LocoRE, FLB, Only, SelfValidation, Sham),
    )
}


def parse_method(spec: "str | Method") -> Method:
    """The method of a spec `name` or `name:key=value,...`, or of several such joined by +.

    Raises `MethodError` that lists what is valid, or says why methods do not go together.
    """
    if isinstance(spec, Method):
        return spec
    return compose([_parse_one(part) for part in re.split(r"\+(?!\d)", spec)])


def compose(methods: list[Method]) -> Method:
    """One method of several: at most one each for the attention, the cache, the logits and the choice of words."""
    layers: dict[str, Method] = {}
    for method in methods:
        layer = _layer(method)
        if layer in layers:
            first, second = layers[layer].name, method.name
            if first == second:
                raise MethodError(f"{first} is named twice; leave one out.")
            raise MethodError(f"{first} and {second} do not go together: both {layer}.")
        layers[layer] = method
    if isinstance(layers.get(LOGITS), PAI) and ATTENTION in layers:
        raise MethodError(f"pai and {layers[ATTENTION].name} do not go together: both {ATTENTION}.")
    outer = layers.get(LOGITS)
    whole = layers.get(ATTENTION) or (outer.inner if isinstance(outer, Wrapper) else None)
    for layer in (CACHE, LOGITS, VERDICT, CHOICE):
        if isinstance(wrapper := layers.get(layer), Wrapper):
            whole = wrapper if whole is None else replace(wrapper, inner=whole)
    assert whole is not None
    return whole


ATTENTION, CACHE, LOGITS = "compute the token's attention", "change the cache", "change the logits"
CHOICE, VERDICT = "choose the words", "move the threshold of yes"


def _layer(method: Method) -> str:
    if isinstance(method, (Choose, SelfValidation)):
        return CHOICE
    if isinstance(method, YesNo):
        return VERDICT
    if isinstance(method, Rescoring):
        return LOGITS
    return CACHE if isinstance(method, Wrapper) else ATTENTION


def _parse_one(spec: str) -> Method:
    return parse(spec, METHODS, "method", MethodError)


__all__ = ["METHODS", "Choose", "Forward", "Method", "Plain", "Prepared", "compose", "parse_method"]
