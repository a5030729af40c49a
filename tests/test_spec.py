"""Specs: what the annotations of a dataclass say is checked wherever its options come from."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Optional

import numpy as np
import pytest

from lime_mlx.errors import DataError, MethodError
from lime_mlx.spec import Choice, Option, Range, check, nearest, options, parse

UPDATES = ("adam", "sign")


@dataclass(frozen=True)
class Base:
    name: ClassVar[str]

    def __post_init__(self):
        check(self, self.name, MethodError)


@dataclass(frozen=True)
class Lime(Base):
    name = "lime"

    mode: Literal["fast", "exact"] = "fast"
    update: Annotated[str, Choice(*UPDATES)] = "adam"
    steps: Annotated[int, Range(1)] | None = None
    lr: Annotated[float, Range(0)] = 0.5
    tau: Annotated[float, Range(0, exclusive=True)] = 0.1
    gate: Annotated[Optional[float], Range(0, 1)] = None  # noqa: UP045  # both ways to write it are read
    noise: Annotated[int, Range(0, 999)] = 5
    normalise: bool = False
    layers: str = "all"
    heads: Literal["kv", "query"] | None = None
    inner: object = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Plain(Base):
    name = "none"


@dataclass(frozen=True)
class Unchecked:
    """Says what is valid, and does not check it when it is made."""

    count: Annotated[int, Range(1, 20)] = 3


KINDS = {"lime": Lime, "none": Plain}


def problem(spec):
    with pytest.raises(MethodError) as caught:
        parse(spec, KINDS, "method", MethodError)
    return str(caught.value)


WRONG = [
    ("mode", "quick", "'quick'", "choose one of fast, exact."),
    ("mode", "EXACT", "'EXACT'", "choose one of fast, exact. Did you mean exact?"),
    ("update", "sing", "'sing'", "choose one of adam, sign. Did you mean sign?"),
    ("heads", "keys", "'keys'", "choose one of kv, query."),
    ("steps", 0, "0", "it must be at least 1."),
    ("lr", -1.0, "-1.0", "it must be a number of at least 0."),
    ("lr", float("nan"), "nan", "it must be a number of at least 0."),
    ("lr", float("inf"), "inf", "it must be a number of at least 0."),
    ("tau", 0.0, "0.0", "it must be a number above 0."),
    ("gate", 1.5, "1.5", "it must be from 0 to 1."),
    ("gate", float("nan"), "nan", "it must be from 0 to 1."),
    ("noise", 1000, "1000", "it must be from 0 to 999."),
    ("noise", -1, "-1", "it must be from 0 to 999."),
]


@pytest.mark.parametrize(("key", "value", "shown", "must"), WRONG)
def test_a_wrong_value_is_refused_in_a_spec_and_in_python(key, value, shown, must):
    expected = f"lime: {key} is {shown}; {must}"
    assert problem(f"lime:{key}={value}") == expected
    with pytest.raises(MethodError) as caught:
        Lime(**{key: value})
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("steps", 2.0, "it must be a whole number."),
        ("steps", "2", "it must be a whole number."),
        ("steps", True, "it must be a whole number."),
        ("lr", "0.1", "it must be a number."),
        ("lr", False, "it must be a number."),
        ("lr", None, "it must be a number."),
        ("normalise", 1, "it must be true or false."),
        ("normalise", None, "it must be true or false."),
        ("layers", 3, "it must be text."),
        ("mode", None, "it must be text."),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_python(key, value, must):
    with pytest.raises(MethodError) as caught:
        Lime(**{key: value})
    shown = repr(value) if isinstance(value, str) else value
    assert str(caught.value) == f"lime: {key} is {shown}; {must}"


@pytest.mark.parametrize(
    ("text", "must"),
    [
        ("steps=2.5", "steps is '2.5'; it must be a whole number."),
        ("lr=fast", "lr is 'fast'; it must be a number."),
        ("gate=", "gate is ''; it must be a number."),
        ("normalise=1", "normalise is '1'; it must be true or false."),
    ],
)
def test_text_of_the_wrong_kind_is_refused(text, must):
    assert problem(f"lime:{text}") == f"lime: {must}"


def test_valid_values_are_taken():
    chosen = parse("lime: steps=1, lr=0,gate=1,noise=999,normalise=True,heads=kv,update=sign", KINDS, "m", MethodError)
    assert chosen == Lime(steps=1, lr=0.0, gate=1.0, noise=999, normalise=True, heads="kv", update="sign")
    assert (type(chosen.lr), type(chosen.noise)) == (float, int)
    assert Lime(lr=np.float32(0.25), noise=np.int64(7), steps=3).noise == 7
    assert Lime(lr=0).lr == 0
    assert Lime(steps=None, gate=None, heads=None) == Lime()
    assert parse("none", KINDS, "method", MethodError) == Plain()


def test_a_dataclass_that_does_not_check_itself_is_checked_by_parse():
    with pytest.raises(DataError, match=r"^scenes: count is 21; it must be from 1 to 20\.$"):
        parse("scenes:count=21", {"scenes": Unchecked}, "task", DataError)
    with pytest.raises(DataError, match=r"^scenes: count is 0; it must be from 1 to 20\.$"):
        check(Unchecked(0), "scenes", DataError)


@pytest.mark.parametrize(
    ("spec", "end"),
    [
        ("lmie", "choose one of lime, none. Did you mean lime?"),
        ("LIME:steps=2", "choose one of lime, none. Did you mean lime?"),
        ("kvsmooth", "choose one of lime, none."),
    ],
)
def test_a_misspelt_name_gets_the_nearest(spec, end):
    assert problem(spec) == f"Unknown method {spec.partition(':')[0]!r}; {end}"


@pytest.mark.parametrize(
    ("part", "near"),
    [
        ("step=3", " Did you mean steps?"),
        ("Steps=3", " Did you mean steps?"),
        ("stepss=3", " Did you mean steps?"),
        ("normalize=true", " Did you mean normalise?"),
        ("inner=none", ""),
        ("=3", ""),
    ],
)
def test_a_misspelt_key_gets_the_nearest(part, near):
    listed = "mode, update, steps, lr, tau, gate, noise, normalise, layers, heads"
    assert problem(f"lime:{part}") == f"Unknown option {part!r} of lime; options are key=value: {listed}.{near}"
    assert problem(f"none:{part}") == f"Unknown option {part!r} of none: none has no options."


def test_an_option_has_one_value():
    assert problem("lime:steps") == "lime: the option steps needs a value, as in lime:steps=..."
    assert problem("lime:steps=3,steps=4") == "lime: the option steps is given twice; leave one out."
    assert problem("none:steps") == "Unknown option 'steps' of none: none has no options."


def test_what_the_annotations_say():
    found = options(Lime)
    assert found["steps"] == Option(int, True, (Range(1),))
    assert found["gate"] == Option(float, True, (Range(0, 1),))
    assert found["mode"] == Option(str, False, (Choice("fast", "exact"),))
    assert found["heads"] == Option(str, True, (Choice("kv", "query"),))
    assert found["layers"] == Option(str, False, ())
    assert "inner" not in found and "name" not in found
    assert options(Plain) == {}


def test_an_annotation_of_another_kind_is_an_error_of_the_programmer():
    @dataclass
    class Odd:
        sizes: tuple[int, ...] = ()

    @dataclass
    class Both:
        size: int | str = 0

    for kind in (Odd, Both):
        with pytest.raises(TypeError, match="cannot be of the type"):
            options(kind)
    with pytest.raises(TypeError, match="str is not a dataclass"):
        options(str)


def test_a_constraint_of_ones_own():
    class Even:
        def problem(self, value):
            return None if value % 2 == 0 else "take an even number."

    @dataclass(frozen=True)
    class Pairs:
        count: Annotated[int, Range(2), Even()] = 2

    kinds = {"pairs": Pairs}
    assert parse("pairs:count=4", kinds, "task", DataError) == Pairs(4)
    for value, must in ((3, "take an even number."), (0, "it must be at least 2.")):
        with pytest.raises(DataError, match=f"^pairs: count is {value}; {must}$"):
            parse(f"pairs:count={value}", kinds, "task", DataError)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("generat", "generate"),
        ("expalin", "explain"),
        ("Score", "score"),
        ("kl-direction", "kl_direction"),
        ("generate", None),
        ("xyz", None),
        ("", None),
    ],
)
def test_the_nearest_name(name, near):
    assert nearest(name, ["generate", "explain", "score", "kl_direction"]) == near


def test_an_option_without_a_default_is_needed():
    @dataclass(frozen=True)
    class Recipe:
        bits: Annotated[float, Range(2, 8)]
        samples: int = 16
        data: str | None = field(default=None, kw_only=True)

    kinds = {"relevance": Recipe}
    assert options(Recipe)["bits"].required and not options(Recipe)["samples"].required
    with pytest.raises(DataError, match=r"^relevance needs the option bits: write relevance:bits=\.\.\.$"):
        parse("relevance:samples=3", kinds, "predicate", DataError)
    assert parse("relevance:bits=3", kinds, "predicate", DataError, data="here") == Recipe(3.0, data="here")
