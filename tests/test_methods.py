"""What a method's spec may say, and the defaults that fill it in."""

import pytest
from helpers import small_model

from lime_mlx.errors import MethodError
from lime_mlx.methods import METHODS, Plain, parse_method
from lime_mlx.methods.lime import Lime


@pytest.fixture(scope="module")
def model():
    return small_model()


def problem(spec: str) -> str:
    with pytest.raises(MethodError) as caught:
        parse_method(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_option_is_read():
    spec = (
        "lime: mode = exact, steps=5, lr=1e-3, kl=0.2, tau=0.3, layers=1-2, rules=cplrp, objective=mass, "
        "target=contrast, update=sign, kl_direction=paper, deltas=k, heads=query, gate=0.4, words=all, threshold=0.3, "
        "checkpoint=on, positions=media, replace=plausible, beta=0.5,"
    )
    assert parse_method(spec) == Lime(
        "exact",
        5,
        1e-3,
        0.2,
        0.3,
        "1-2",
        "cplrp",
        "mass",
        "contrast",
        "sign",
        "paper",
        "k",
        "query",
        0.4,
        "all",
        0.3,
        "on",
        "media",
        "plausible",
        0.5,
    )
    assert parse_method("lime") == parse_method("lime:") == Lime()
    assert parse_method(" none ") == Plain()
    method = Lime(steps=3)
    assert parse_method(method) is method


def test_an_unknown_method_lists_the_known():
    assert problem("limes:steps=2") == f"Unknown method 'limes'; choose one of {', '.join(METHODS)}. Did you mean lime?"
    assert {"none", "lime"} <= set(METHODS)


@pytest.mark.parametrize("part", ["stps=2", "name=x", "=3"])
def test_an_unknown_option_lists_the_known(part):
    assert problem(f"lime:lr=1,{part}") == (
        f"Unknown option {part!r} of lime; options are key=value: mode, steps, lr, kl, tau, layers, rules, "
        "objective, target, update, kl_direction, deltas, heads, gate, words, threshold, checkpoint, positions, "
        "replace, beta." + (" Did you mean steps?" if part == "stps=2" else "")
    )


def test_plain_decoding_has_no_options():
    assert problem("none:steps=2") == "Unknown option 'steps=2' of none: none has no options."


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("steps=2.5", "steps is '2.5'; it must be a whole number."),
        ("lr=fast", "lr is 'fast'; it must be a number."),
        ("gate=", "gate is ''; it must be a number."),
        ("steps=0", "steps is 0; it must be from 1 to 1000."),
        ("lr=-1", "lr is -1.0; it must be a number of at least 0."),
        ("kl=nan", "kl is nan; it must be a number of at least 0."),
        ("tau=inf", "tau is inf; it must be a number above 0."),
        ("gate=-0.1", "gate is -0.1; it must be a number of at least 0."),
        ("tau=0", "tau is 0.0; it must be a number above 0."),
        ("mode=quick", "mode is 'quick'; choose one of fast, exact."),
        ("rules=lrp", "rules is 'lrp'; choose one of attnlrp, cplrp, mlplrp, plain. Did you mean cplrp?"),
        ("objective=sum", "objective is 'sum'; choose one of uniform, mass, share."),
        ("target=second", "target is 'second'; choose one of argmax, contrast."),
        ("update=sgd", "update is 'sgd'; choose one of adam, sign, normalised."),
        ("kl_direction=both", "kl_direction is 'both'; choose one of code, paper."),
        ("deltas=vk", "deltas is 'vk'; choose one of kv, k, v. Did you mean kv?"),
        ("heads=key", "heads is 'key'; choose one of kv, query."),
        ("words=nouns", "words is 'nouns'; choose one of content, flagged, all."),
        ("checkpoint=yes", "checkpoint is 'yes'; choose one of auto, on, off."),
        ("mode=exact,heads=kv", "heads=kv goes with mode=fast; exact puts deltas on query heads as the code does."),
        *(
            (f"layers={bad}", f"layers is {bad!r}; write all, one layer such as 3, or a range such as 0-15 or 3-.")
            for bad in ("some", "-1", "5-2", "1-2-3", "1.5", "")
        ),
    ],
)
def test_a_bad_value_says_what_is_valid(spec, message):
    assert problem(f"lime:{spec}") == f"lime: {message}"


def test_defaults_are_those_of_the_family(model):
    llava, audio = small_model(), small_model()
    for other, kind in ((llava, "llava"), (audio, "qwen2_audio")):
        other._config = {"model_type": kind}
    exact, fast = parse_method("lime:mode=exact"), parse_method("lime")
    ready = exact.prepare(llava)
    ours = ready.options
    assert (ours.steps, ours.lr, ours.kl, ours.tau, ours.heads, ready.words) == (7, 3e-4, 0.1, 0.1, "query", "all")
    ours = exact.prepare(audio).options
    assert (ours.steps, ours.lr, ours.kl, ours.tau) == (7, 5e-4, 0.007, 0.1)
    ready = fast.prepare(llava)
    ours = ready.options
    assert (ours.steps, ours.kl, ours.tau, ours.heads, ready.words) == (2, 0.1, 0.1, "kv", "content")
    assert exact.prepare(model) == exact.prepare(llava)
    assert fast.prepare(model) == fast.prepare(llava)


def test_a_checkpoint_brings_its_own_values(model):
    own = small_model()
    own._config = {"model_type": "llava", "lime": {"fast": {"lr": 0.03, "steps": 4, "gate": 0.5}, "exact": {"kl": 0}}}
    fast = parse_method("lime:steps=3").prepare(own)
    options = fast.options
    assert (options.steps, options.lr, options.kl, fast.gate) == (3, 0.03, 0.1, 0.5)
    exact = parse_method("lime:mode=exact").prepare(own)
    options = exact.options
    assert (options.steps, options.lr, options.kl, exact.gate) == (7, 3e-4, 0, None)


@pytest.mark.parametrize("layers", ["3", "0-3", "7-9"])
def test_layers_must_be_there(model, layers):
    with pytest.raises(MethodError, match=f"^lime: layers is '{layers}', but the model has 3 layers.$"):
        parse_method(f"lime:layers={layers}").prepare(model)


@pytest.mark.parametrize(
    "stored", [{"fast": {"speed": 1}}, {"fast": {"lr": "0.1"}}, {"fast": [1]}, ["lr"], {"fast": {"steps": 2.5}}]
)
def test_a_checkpoints_own_values_are_checked(stored):
    model = small_model()
    model._config = {"model_type": "llava", "lime": stored}
    with pytest.raises(MethodError, match="config.json has values for lime"):
        parse_method("lime").prepare(model)


RANGES = {
    "kvsmooth": {"ref": (0, 1), "window": (1, None), "clip": (0, 1), "warmup": (0, None)},
    "dleaf": {"gamma": (0, 1), "k": (1, None)},
    "heads": {"strength": (0, None)},
    "vcd": {"alpha": (0, None), "beta": (0, 1), "noise": (0, 999), "seed": (0, None)},
    "m3id": {"decay": (0, None), "beta": (0, 1)},
    "aad": {"alpha": (0, None)},
    "pai": {"alpha": (0, None), "guidance": (0, None), "beta": (0, 1)},
    "acg": {"gamma": (0, None)},
    "iat": {"alpha": (0, None)},
    "locore": {"beta": (0, None), "window": (0, None)},
    "flb": {"gamma": (0, None), "rate": (0, None), "beta": (0, 1)},
    "only": {"agree": (0, None), "differ": (0, None), "gamma": (0, 2), "layer": (0, None), "beta": (0, 1)},
    "selfval": {"samples": (1, None), "limit": (1, None), "seed": (0, None)},
    "sham": {"yes": (0, None), "no": (0, None), "the": (0, None), "a": (0, None), "beta": (0, 1), "length": (1, None)},
}
WHOLE = ("window", "warmup", "k", "noise", "seed", "layer", "length", "samples", "limit")
RANGED = [(name, key, *ends) for name, options in RANGES.items() for key, ends in options.items()]


@pytest.mark.parametrize(("name", "key", "low", "high"), RANGED)
def test_a_value_out_of_range_names_the_range(name, key, low, high):
    least = f"at least {low}" if key in WHOLE else f"a number of at least {low}"
    bound = least if high is None else f"from {low} to {high}"
    step = 1 if key in WHOLE else 0.01
    beyond = [low - step] if high is None else [low - step, high + step]
    for value in beyond + ([] if key in WHOLE else ["nan", "inf", "-inf"]):
        assert problem(f"{name}:{key}={value}") == f"{name}: {key} is {value}; it must be {bound}."
    for value in (low, high):
        if value is not None:
            assert getattr(parse_method(f"{name}:{key}={value}"), key) == value
    word = "a whole number" if key in WHOLE else "a number"
    assert problem(f"{name}:{key}=much") == f"{name}: {key} is 'much'; it must be {word}."


CHOICES = {
    "kvsmooth": {"smooth": "kv, k, v"},
    "dleaf": {"heads": "below-mean, bottom-k", "aggregate": "mean, max", "threshold": "running-best, mean"},
}


@pytest.mark.parametrize(
    ("name", "key", "listed"), [(name, *choice) for name, options in CHOICES.items() for choice in options.items()]
)
def test_an_unknown_choice_lists_the_known(name, key, listed):
    assert problem(f"{name}:{key}=best") == f"{name}: {key} is 'best'; choose one of {listed}."
    for choice in listed.split(", "):
        assert getattr(parse_method(f"{name}:{key}={choice}"), key) == choice


def test_true_or_false():
    for text, value in (("true", True), ("False", False)):
        assert parse_method(f"kvsmooth:normalise={text}").normalise is value
    assert problem("kvsmooth:normalise=1") == "kvsmooth: normalise is '1'; it must be true or false."


@pytest.mark.parametrize("name", ["kvsmooth", "dleaf", "pai", "heads", "acg", "iat", "locore"])
def test_layers_of_every_method(model, name):
    shape = "write all, one layer such as 3, or a range such as 0-15 or 3-."
    assert problem(f"{name}:layers=2-1") == f"{name}: layers is '2-1'; {shape}"
    for layers in ("3", "0-3", "7-9"):
        with pytest.raises(MethodError) as caught:
            parse_method(f"{name}:layers={layers}").prepare(model)
        assert str(caught.value) == f"{name}: layers is {layers!r}, but the model has 3 layers."
    with pytest.raises(MethodError, match=f"^{name}: layers is '3-', but the model has 3 layers.$"):
        parse_method(f"m3id+{name}:layers=3-" if name != "pai" else "kvsmooth+pai:layers=3-").prepare(model)
    for layers in ("all", "0", "0-2", "2-"):
        assert parse_method(f"{name}:layers={layers}").prepare(model)


@pytest.mark.parametrize("name", sorted(set(RANGES) - {"vcd"}))
def test_an_unknown_option_of_any_method_lists_its_own(name):
    listed = problem(f"{name}:strong=1").rpartition(": ")[2]
    assert set(RANGES[name]) | set(CHOICES.get(name, ())) <= set(listed.rstrip(".").split(", "))
    assert "inner" not in listed
