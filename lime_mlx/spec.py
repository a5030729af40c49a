"""What is chosen by a spec `name:key=value,...`: a method, or a task of the evaluation.

The options of a spec are the fields of a dataclass, and their annotations say which values are valid:

    mode: Literal["fast", "exact"] = "fast"
    update: Annotated[str, Choice(*UPDATES)] = "adam"
    steps: Annotated[int, Range(1)] | None = None

`parse` checks the options that a user writes. `check` does the same for a dataclass that Python code makes.
"""

import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from math import inf, isfinite
from numbers import Integral, Real
from typing import (
    Annotated,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)
from warnings import warn

from lime_mlx.errors import LimeError, short

T = TypeVar("T")

# How alike two words must be, from 0 to 1, so that one is suggested for the other.
LIKENESS = 0.7
LONGEST_WORD = 64
BITS = 1023  # the most of a whole number: more are no float
TRUTHS = {"true": True, "false": False}
TYPES: dict[type, tuple[type, str]] = {
    bool: (bool, "it must be true or false."),
    int: (Integral, "it must be a whole number."),
    float: (Real, "it must be a number."),
    str: (str, "it must be text."),
}


@runtime_checkable
class Constraint(Protocol):
    """What an annotation says of the values of an option."""

    def problem(self, value: object) -> str | None:
        """What a wrong value must be, as the end of a message; None for a valid value."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included. Numbers that are not finite are never valid, nor those of many bits.

    exclusive: `low` itself is not valid.
    """

    low: float
    high: float = inf
    exclusive: bool = False

    def problem(self, value: object) -> str | None:
        if isinstance(value, Integral) and int(value).bit_length() > BITS:
            return f"it must have at most {BITS} bits."
        if isinstance(value, Real) and self._holds(float(value)):
            return None
        if self.high < inf and not self.exclusive:
            return f"it must be from {self.low:g} to {self.high:g}."
        whole = isinstance(value, Integral)
        if self.exclusive:
            bound = "above" if whole else "a number above"
        else:
            bound = "at least" if whole else "a number of at least"
        return f"it must be {bound} {self.low:g}{f' and at most {self.high:g}' if self.high < inf else ''}."

    def _holds(self, value: float) -> bool:
        return isfinite(value) and self.low <= value <= self.high and not (self.exclusive and value == self.low)


@dataclass(frozen=True, init=False)
class Choice:
    """One of some words: `Choice("kv", "k", "v")`."""

    words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", words)

    def problem(self, value: object) -> str | None:
        if value in self.words:
            return None
        return f"choose one of {', '.join(self.words)}.{suggestion(str(value), self.words)}"


@dataclass(frozen=True)
class Option:
    """What the annotation of a field says: the type of the values, whether None is one, and what else holds.

    required: the field has no default.
    """

    kind: type
    optional: bool
    constraints: tuple[Constraint, ...]
    required: bool = False

    def read(self, text: str) -> object:
        """The value that a user wrote. Raises `ValueError` for text of the wrong kind."""
        if self.kind is not bool:
            value: object = self.kind(text)
            return value
        if text.lower() not in TRUTHS:
            raise ValueError(text)
        return TRUTHS[text.lower()]

    def problem(self, value: object) -> str | None:
        """What a wrong value must be, as the end of a message; None for a valid value."""
        if value is None and self.optional:
            return None
        accepted, must = TYPES[self.kind]
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            return must
        return next((text for one in self.constraints if (text := one.problem(value))), None)


def parse(spec: str, kinds: Mapping[str, type[T]], what: str, error: type[LimeError], **fixed: object) -> T:
    """The dataclass of `kinds` that a spec names, with its options.

    what: how a message calls the thing that is chosen, such as "method". fixed: values of fields that are not options.
    Raises `error` for an unknown name or option, a wrong value, and an option that is missing; the message lists what
    is valid and suggests the nearest.
    """
    name, _, rest = spec.strip().partition(":")
    if name not in kinds:
        raise error(f"Unknown {what} {short(name)!r}; choose one of {', '.join(kinds)}.{suggestion(name, kinds)}")
    valid, old = options(kinds[name]), getattr(kinds[name], "old_spellings", {})
    values: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, text = (piece.strip() for piece in part.partition("="))
        key, text = renamed(key, text, old)
        if key in valid and not equals:
            raise error(f"{name}: the option {key} needs a value, as in {name}:{key}=...")
        if key in values:
            raise error(f"{name}: the option {key} is given twice; leave one out.")
        if not valid:
            raise error(f"Unknown option {short(part)!r} of {name}: {name} has no options.")
        if key not in valid:
            listed = f"options are key=value: {', '.join(valid)}"
            raise error(f"Unknown option {short(part)!r} of {name}; {listed}.{suggestion(key, valid)}")
        values[key] = _value(name, key, text, valid[key], error)
    if absent := [key for key, option in valid.items() if option.required and key not in values]:
        raise error(f"{name} needs the option {absent[0]}: write {name}:{absent[0]}=...")
    return kinds[name](**values, **fixed)


def renamed(key: str, value: T, old: Mapping[str, str]) -> tuple[str, T]:
    """A key and its value in today's spelling, with a warning where an old one was used.

    old: from a key, or from "key=value", to today's.
    """
    for pattern in (f"{key}={value}", key):
        if pattern in old:
            today, _, text = old[pattern].partition("=")
            warn(f"{pattern} is the old spelling of {old[pattern]}, which means the same.", FutureWarning, stacklevel=2)
            return today, cast(T, text) if text else value
    return key, value


def check(chosen: object, name: str, error: type[LimeError]) -> None:
    """Check the options of a dataclass, best in its `__post_init__`. Raises `error` as `parse` does.

    name: what a spec calls the dataclass; the message begins with it.
    """
    for key, option in options(type(chosen)).items():
        _require(name, key, getattr(chosen, key), option, error)


def options(kind: type) -> Mapping[str, Option]:
    """The options of a dataclass, by name. Fields that are keyword-only are not options of a spec."""
    return _options(kind)


@cache
def _options(kind: type) -> Mapping[str, Option]:
    if not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is not a dataclass.")
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: replace(_option(hints[field.name]), required=_is_required(field))
        for field in fields(kind)
        if not field.kw_only
    }


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that a misspelt `name` probably means; None where no name is alike, or `name` is right."""
    plain = {_plain(one): one for one in names}
    word = _plain(name)
    if len(word) > LONGEST_WORD:
        return None
    if word not in plain:
        swapped = [one for one in plain if sorted(one) == sorted(word)]
        word = next(iter(swapped or get_close_matches(word, plain, n=1, cutoff=LIKENESS)), "")
    return plain[word] if plain.get(word, name) != name else None


def suggestion(name: str, names: Iterable[str]) -> str:
    """` Did you mean lime?`, to stand behind a message; empty where none of `names` is near."""
    near = nearest(name, names)
    return f" Did you mean {near}?" if near else ""


def _value(name: str, key: str, text: str, option: Option, error: type[LimeError]) -> object:
    try:
        value = option.read(text)
    except ValueError as problem:
        raise error(f"{name}: {key} is {short(text)!r}; {TYPES[option.kind][1]}") from problem
    _require(name, key, value, option, error)
    return value


def _require(name: str, key: str, value: object, option: Option, error: type[LimeError]) -> None:
    if problem := option.problem(value):
        if isinstance(value, int) and value.bit_length() > BITS:
            text = f"a number of {value.bit_length()} bits"
        else:
            text = str(value) if isinstance(value, Real) else repr(value)
        raise error(f"{name}: {key} is {short(text)}; {problem}")


def _is_required(field: Field[object]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _option(hint: object) -> Option:
    """What an annotation says: a type, perhaps with None, Annotated or Literal around it in any order."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        option = _option(inner)
        constraints = tuple(note for note in notes if isinstance(note, Constraint))
        return Option(option.kind, option.optional, option.constraints + constraints)
    if get_origin(hint) is Literal:
        return Option(str, False, (Choice(*get_args(hint)),))
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [one for one in get_args(hint) if one is not type(None)]
        if len(kinds) == 1:
            option = _option(kinds[0])
            return Option(option.kind, True, option.constraints)
    elif isinstance(hint, type) and hint in TYPES:
        return Option(hint, False, ())
    raise TypeError(f"An option of a spec cannot be of the type {hint}.")


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")
