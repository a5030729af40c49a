"""What must hold in every family: in all cases of `families`, or in the first of each module where it takes longer."""

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from families import FAMILY_OF, MODULES
from helpers import any_length, distance, excess, fixture, parity_checkpoint, prompt_of
from mlx.utils import tree_flatten

import lime_mlx
from lime_mlx.checkpoint.load import load_model
from lime_mlx.decoding import steps
from lime_mlx.kv import KVOptions
from lime_mlx.lrp.rules import ATTN_LRP
from lime_mlx.methods import parse_method
from lime_mlx.models.base import Model
from lime_mlx.products import unpacked
from lime_mlx.prompt import Prompt
from lime_mlx.session import Session

FIRST = {name: next(iter(module.CASES)) for name, module in MODULES.items()}
WITH_MEDIA = [case for name, case in FIRST.items() if hasattr(MODULES[name], "inputs")]
GROUP = 32


def fresh(case: str) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        return any_length(load_model(parity_checkpoint(case, Path(folder))))


@cache
def loaded(case: str) -> tuple[Model, Prompt]:
    return fresh(case), prompt_of(fixture(case))


def saved(folder: Path, config: dict, weights: dict[str, mx.array]) -> Model:
    """The model of a folder in MLX's layout."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return load_model(folder)


def traced(case: str, options: str, tokens: int = 1) -> list:
    return list(lime_mlx.decode(*loaded(case), f"lime:steps=3,{options}", tokens, trace=True))


@pytest.mark.parametrize("method", ["none", "lime:mode=fast,steps=3,words=all", "lime:mode=exact,steps=2"])
@pytest.mark.parametrize("case", WITH_MEDIA)
def test_a_branch_of_a_prefilled_prompt_goes_on_as_the_prompt_itself(case, method):
    model, prompt = loaded(case)
    common = int(np.flatnonzero(model.modality(prompt))[-1]) + 1
    opening = Session.open(model, prompt)
    opening.prefill(common)
    before = [np.array(x) for pair in opening.cache.entries() for x in pair]
    for ending in ([5, 9, 7], [11, 3, 4, 2, 8]):
        asked = Prompt(np.append(prompt.input_ids[:common], ending), prompt.media)
        branched = list(steps(opening.branch(asked), parse_method(method), 3))
        alone = list(steps(Session.open(model, asked), parse_method(method), 3))
        assert [step.token for step in branched] == [step.token for step in alone]
        assert distance(*(np.stack([s.logits for s in found]) for found in (branched, alone))) < 1e-5
        assert distance(branched[0].relevance, alone[0].relevance) < 1e-4
    after = [np.array(x) for pair in opening.cache.entries() for x in pair]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("reliance", [True, False])
@pytest.mark.parametrize("case", FAMILY_OF)
def test_prefill_and_decode_give_the_logits_of_the_whole(case, reliance):
    model, prompt = loaded(case)
    steps = list(lime_mlx.decode(model, prompt, "none", 4, reliance=reliance, kv=KVOptions(prefill_step_size=7)))
    whole = Prompt(np.append(prompt.input_ids, [step.token for step in steps[:-1]]), prompt.media)
    assert distance(np.stack([step.logits for step in steps]), model.logits(whole)[-4:]) < 1e-5


@pytest.mark.parametrize("case", FAMILY_OF)
def test_relevance_is_gradient_times_input(case):
    """The embeddings, and what the positions adds to later layers, in one ordinary gradient."""
    model, prompt = loaded(case)
    decoder, (embeds, positions) = model.language_model, model.inputs(prompt)
    target = int(mx.argmax(model.logits(prompt)[-1]))

    def logit(inputs):
        hidden = decoder(inputs[0], rules=ATTN_LRP, positions=replace(positions, features=inputs[1:]))
        return decoder.head(hidden, ATTN_LRP)[0, -1, target]

    inputs = [embeds, *positions.features]
    wanted = np.zeros(len(prompt))
    for array, gradient in zip(inputs, mx.grad(logit)(inputs), strict=True):
        wanted[: array.shape[1]] += np.array((array * gradient).sum(axis=-1))[0]
    found = lime_mlx.relevance(model, prompt)
    assert np.isfinite(found).all()
    assert distance(found, wanted) < 1e-5
    assert np.abs(found[model.modality(prompt)]).sum() > 0 or not prompt.media


@pytest.mark.parametrize("case", WITH_MEDIA)
def test_exact_lime(case):
    with_checkpoints, without = (traced(case, f"mode=exact,lr=1e-3,kl=0,checkpoint={c}", 2) for c in ("on", "off"))
    for one, other in zip(with_checkpoints, without, strict=True):
        assert one.token == other.token
        assert one.trace.keys() == other.trace.keys()
        for key, values in one.trace.items():
            rounding = 1e-6 if key == "kl" else 0  # a difference of nearly equal logits
            assert excess(values, other.trace[key], 1e-4 * np.linalg.norm(values) + rounding) < 1, key


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("case", WITH_MEDIA)
def test_lime_lowers_its_objective(case, mode):
    """With ordinary gradients, where the direction is that of the objective: rules make it another one."""
    for step in traced(case, f"mode={mode},lr=1e-3,kl=0,rules=plain", 2):
        assert step.trace["rel_loss"][1] < step.trace["rel_loss"][0]


@pytest.mark.parametrize("deltas", ["kv", "k", "v"])
@pytest.mark.parametrize("case", WITH_MEDIA)
def test_fast_lime(case, deltas):
    (step,) = traced(case, f"lr=1e-3,kl=0,deltas={deltas}")
    model, prompt = loaded(case)
    first = step.trace["relevance"][0]
    assert first.shape == (len(prompt),)
    assert np.isfinite(first).all()
    assert np.abs(first[model.modality(prompt)]).sum() > 0
    assert 0 < step.reliance < 1
    assert len(set(step.trace["rel_loss"])) == 2


def quantised(case: str, bits: int) -> tuple[dict, dict[str, mx.array], dict[str, mx.array]]:
    """config.json and weights with every layer quantised whose rows divide, and the same weights unpacked."""
    model = fresh(case)
    fits = lambda _, module: hasattr(module, "to_quantized") and module.weight.shape[-1] % GROUP == 0  # noqa: E731
    nn.quantize(model, group_size=GROUP, bits=bits, class_predicate=fits)
    packed = dict(tree_flatten(model.parameters()))
    plain = dict(packed)
    for path, module in model.named_modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            plain[f"{path}.weight"] = unpacked(module, mx.float32)
            del plain[f"{path}.scales"], plain[f"{path}.biases"]
    assert len(packed) > len(plain)
    return {**model.config, "quantization": {"group_size": GROUP, "bits": bits}}, packed, plain


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("case", FIRST.values())
def test_quantised_is_the_same_as_unpacked(case, bits, tmp_path):
    config, packed, plain = quantised(case, bits)
    model = saved(tmp_path / "packed", config, packed)
    assert any(isinstance(module, nn.QuantizedLinear) for module in model.language_model.modules())
    wanted = saved(tmp_path / "plain", loaded(case)[0].config, plain)
    prompt = loaded(case)[1]
    logits, expected = model.logits(prompt), wanted.logits(prompt)
    assert distance(logits, expected) < 1e-3
    assert (mx.argmax(logits, axis=-1) == mx.argmax(expected, axis=-1)).all().item()
    assert distance(lime_mlx.relevance(model, prompt), lime_mlx.relevance(wanted, prompt)) < 1e-3
    if case in WITH_MEDIA:
        ours, theirs = (
            next(lime_mlx.decode(each, prompt, "lime:steps=3,lr=1e-3", 1, trace=True)) for each in (model, wanted)
        )
        assert ours.token == theirs.token
        assert distance(ours.trace["rel_loss"], theirs.trace["rel_loss"]) < 1e-3


@pytest.mark.parametrize("case", FIRST.values())
def test_bfloat16(case, tmp_path):
    """Stored so; and computed so from the embeddings to the logits, with no float32 on the way."""
    model, prompt = loaded(case)
    weights = {name: array.astype(mx.bfloat16) for name, array in tree_flatten(model.parameters())}
    half = saved(tmp_path / "half", model.config, weights)
    assert distance(half.logits(prompt), model.logits(prompt)) < 0.05
    half.set_dtype(mx.bfloat16)
    assert distance(half.logits(prompt), model.logits(prompt)) < 0.05
    embeds, positions = half.inputs(prompt)
    hidden = half.language_model(embeds, positions=positions)
    assert embeds.dtype == hidden.dtype == mx.bfloat16
    assert all(feature.dtype == mx.bfloat16 for feature in positions.features)
    assert np.isfinite(lime_mlx.relevance(half, prompt)).all()
