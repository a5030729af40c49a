"""What is chosen by a spec `name:key=value,...`: a method, a task of the evaluation."""

import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_type_hints

from lime_mlx.errors import LimeError

T = TypeVar("T")


def parse(spec: str, kinds: Mapping[str, type[T]], what: str, error: type[LimeError]) -> T:
    """The dataclass of `kinds` that a spec names, with its options; fields that are keyword-only are no options.

    Raises `error`, with what is valid, for an unknown name or option or a value of the wrong kind.
    """
    name, _, options = spec.strip().partition(":")
    if name not in kinds:
        raise error(f"Unknown {what} {name!r}; choose one of {', '.join(kinds)}.")
    kind = kinds[name]
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind) if not field.kw_only]
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in options.split(","))):
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if key not in known or not equals:
            listed = ", ".join(known) if known else "it has none"
            raise error(f"Unknown option {part!r} of {name}; options are key=value: {listed}.")
        values[key] = _typed(name, key, text, hints[key], error)
    return kind(**values)


def _typed(name: str, key: str, text: str, hint: Any, error: type[LimeError]) -> Any:
    (kind, *_) = [t for t in (get_args(hint) if isinstance(hint, types.UnionType) else (hint,)) if t is not type(None)]
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise error(f"{name}: {key} is {text!r}; it must be true or false.")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as problem:
        word = {"int": "a whole number", "float": "a number"}[kind.__name__]
        raise error(f"{name}: {key} is {text!r}; it must be {word}.") from problem
