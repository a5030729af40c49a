"""Every family against transformers, from every spelling of its weights (fixtures by benchmarks/parity.py)."""

import numpy as np
import pytest
from families import FAMILY_OF, MODULES
from helpers import FIXTURES, any_length, distance, fixture, parity_checkpoint, prompt_of
from mlx.utils import tree_flatten

import lime_mlx
from lime_mlx.checkpoint.load import build, load_model, read_config, read_weights

TOKENS = 16


def test_every_case_has_a_fixture():
    assert {path.stem.removeprefix("parity_") for path in FIXTURES.glob("parity_*.npz")} == set(FAMILY_OF)


@pytest.mark.parametrize("config", ["config", "saved_config"])
@pytest.mark.parametrize("case", FAMILY_OF)
def test_logits_and_tokens(case, config, tmp_path):
    """From config.json as people write it, and as transformers 5 saves it: the same logits, the same greedy tokens."""
    wanted = fixture(case)
    model, prompt = any_length(load_model(parity_checkpoint(case, tmp_path, config=config))), prompt_of(wanted)
    assert distance(model.logits(prompt), wanted["logits"]) < 2e-5
    for reliance in (False, True):
        steps = lime_mlx.decode(model, prompt, "none", TOKENS, reliance=reliance)
        assert [step.token for step in steps] == wanted["tokens"].tolist()


@pytest.mark.parametrize(
    ("case", "spelling"),
    [
        (case, spelling)
        for name, family in MODULES.items()
        for case in list(family.CASES)[:2]
        for spelling in getattr(family, "SPELLINGS", ())
    ],
)
def test_spellings_of_the_weights(case, spelling, tmp_path):
    wanted = fixture(case)
    model = load_model(parity_checkpoint(case, tmp_path, spelling))
    assert distance(model.logits(prompt_of(wanted)), wanted["logits"]) < 2e-5


@pytest.mark.parametrize("family", MODULES)
def test_sanitize_is_idempotent(family, tmp_path):
    folder = parity_checkpoint(next(iter(MODULES[family].CASES)), tmp_path)
    model = build(read_config(folder))
    once = model.sanitize(read_weights(folder))
    twice = model.sanitize(dict(once))
    assert {name: value.shape for name, value in once.items()} == {n: v.shape for n, v in twice.items()}
    assert once.keys() == dict(tree_flatten(model.parameters())).keys()
    assert all(np.array_equal(np.array(once[name]), np.array(twice[name])) for name in once)
