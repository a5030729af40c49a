"""The decoding methods, by name, and the spec that chooses one: `lime:mode=exact,steps=7`."""

import types
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from lime_mlx.errors import MethodError

from .base import Forward, Method, Plain, Session
from .lime import Lime

METHODS: dict[str, type[Method]] = {method.name: method for method in (Plain, Lime)}


def parse_method(spec: "str | Method") -> Method:
    """The method of a spec `name` or `name:key=value,...`. Raises `MethodError` that lists what is valid."""
    if isinstance(spec, Method):
        return spec
    name, _, options = spec.strip().partition(":")
    if name not in METHODS:
        raise MethodError(f"Unknown method {name!r}; choose one of {', '.join(METHODS)}.")
    kind = METHODS[name]
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in options.split(","))):
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if key not in known or not equals:
            listed = ", ".join(known) if known else "it has none"
            raise MethodError(f"Unknown option {part!r} of {name}; options are key=value: {listed}.")
        values[key] = _typed(name, key, text, hints[key])
    return kind(**values)


def _typed(name: str, key: str, text: str, hint: Any) -> Any:
    kinds = [t for t in (get_args(hint) if isinstance(hint, types.UnionType) else (hint,)) if t is not type(None)]
    try:
        return kinds[0](text)
    except ValueError as error:
        word = {"int": "a whole number", "float": "a number"}[kinds[0].__name__]
        raise MethodError(f"{name}: {key} is {text!r}; it must be {word}.") from error


__all__ = ["METHODS", "Forward", "Method", "Plain", "Session", "parse_method"]
