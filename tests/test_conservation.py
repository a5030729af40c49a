"""Conservation of relevance, layer by layer: right rules pass, wrong ones are caught."""

import json

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from families import FAMILY_OF
from helpers import any_length, fixture, parity_checkpoint, prompt_of, small_model

from lime_mlx import load
from lime_mlx.checkpoint.load import load_model
from lime_mlx.cli import inspect, main
from lime_mlx.lrp.conservation import TOLERANCE, conservation
from lime_mlx.lrp.relevance import exact
from lime_mlx.lrp.rules import ATTN_LRP, CP_LRP, GRADIENT, MLP_LRP, NAMES, AttnLRP, divide
from lime_mlx.prompt import Prompt
from lime_mlx.scenes import PROMPTS, make_scene


class WholeGate(AttnLRP):
    """A gate that hands all of the relevance to both of its factors."""

    def gate(self, activated, up):
        return activated * up


class WrongShares(AttnLRP):
    """Keys and queries that get twice what the rules declare."""

    def operands(self, q, k, v):
        return divide(q, 2), divide(k, 2), divide(v, 2)


class WrongNorm(AttnLRP):
    def rms_norm(self, x, weight, eps):
        return x * mx.rsqrt(mx.mean(x * x, axis=-1, keepdims=True) + eps) * weight


@pytest.fixture(scope="module")
def embedded():
    model = small_model(attention_bias=True)
    return model.language_model, model.inputs(Prompt(np.arange(1, 13)))


@pytest.mark.parametrize("rules", [ATTN_LRP, CP_LRP, MLP_LRP], ids=lambda rules: rules.name)
def test_right_rules_conserve(embedded, rules):
    decoder, (embeds, positions) = embedded
    balance = conservation(decoder, embeds, rules, positions=positions)
    assert balance.holds and balance.worst.unexplained < TOLERANCE
    assert [layer.name for layer in balance.layers] == ["head", "layer 2", "layer 1", "layer 0"]
    for above, below in zip(balance.layers, balance.layers[1:], strict=False):
        assert below.out == pytest.approx(above.into, abs=1e-4)
    whole = exact(decoder, embeds, rules, target=balance.token, positions=positions)
    assert balance.arrived == pytest.approx(float(whole.relevance.sum()), abs=1e-3)
    assert "is conserved" in balance.sentence
    assert any(abs(layer.biases) > 1e-3 for layer in balance.layers)


@pytest.mark.parametrize("rules", [WholeGate(), WrongShares(), WrongNorm(), GRADIENT], ids=lambda r: type(r).__name__)
def test_wrong_rules_are_caught(embedded, rules):
    decoder, (embeds, positions) = embedded
    balance = conservation(decoder, embeds, rules, positions=positions)
    assert not balance.holds and balance.worst.unexplained > 10 * TOLERANCE
    assert "is not conserved" in balance.sentence


def test_cplrp_keeps_nothing_in_the_softmax(embedded):
    decoder, (embeds, positions) = embedded
    balance = conservation(decoder, embeds, CP_LRP, positions=positions)
    assert all(abs(layer.softmax) < 1e-4 for layer in balance.layers)
    kept = sum(layer.biases for layer in balance.layers)
    assert balance.arrived + kept == pytest.approx(balance.logit, abs=1e-3)


@pytest.mark.parametrize("case", sorted(FAMILY_OF))
def test_every_family_conserves(case, tmp_path):
    """Biases on queries, norms on them, soft caps, windows, grouped heads, features of later layers."""
    model = any_length(load_model(parity_checkpoint(case, tmp_path)))
    embeds, positions = model.inputs(prompt_of(fixture(case)))
    balance = conservation(model.language_model, embeds, ATTN_LRP, positions=positions)
    assert balance.holds, balance.sentence


def test_the_bundled_model_conserves_for_a_given_token():
    model, processor = load("demo")
    embeds, positions = model.inputs(processor.prompt(PROMPTS[0], images=[make_scene(100_000, "ordinary").image]))
    balance = conservation(model.language_model, embeds, ATTN_LRP, 300, positions)
    assert balance.token == 300 and balance.holds
    assert balance.logit == pytest.approx(float(model.language_model.head(
        model.language_model(embeds, positions=positions)[0, -1])[300]), abs=1e-3)  # fmt: skip


def test_inspect_prints_the_balance():
    run = CliRunner().invoke(main, ["inspect", "demo-sound", "--conservation"])
    assert run.exit_code == 0, run.output
    assert "layer 3" in run.output and "Relevance is conserved under attnlrp" in run.output
    run = CliRunner().invoke(main, ["inspect", "demo", "--conservation", "--rules", "plain", "--json"])
    values = json.loads(run.stdout)["conservation"]
    assert values["holds"] is False and values["rules"] == "plain" and values["layers"][0]["name"] == "head"
    assert inspect.RULES == NAMES
