import re
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import Joined, distance, small_model, small_prompt
from reference import Reference

from lime_mlx.cache import overlays
from lime_mlx.decoding import decode, start
from lime_mlx.errors import MethodError
from lime_mlx.lrp.relevance import cached, exact
from lime_mlx.lrp.rules import rules as rules_by_name
from lime_mlx.methods import Plain, parse_method
from lime_mlx.methods.token_optimizer import Exact, Fast
from lime_mlx.methods.updates import UPDATES, Adam
from lime_mlx.products import unpacked

LENGTH, TOKENS = 12, 4
MODES = {"fast": Fast, "exact": Exact}
RULES = ["attnlrp", "cplrp", "plain"]
HARD = "lr=0.05,kl=1"  # enough to change what is said


@pytest.fixture(scope="module")
def model():
    return small_model()


def searching(model, spec: str, length: int = LENGTH, process=None, **session) -> Fast | Exact:
    """The search of the token after the prompt, about to begin."""
    options = parse_method(spec).prepare(model).options
    processors = () if process is None else [lambda tokens, logits: process(logits[0])[None]]
    session = start(model, small_prompt(length), processors=processors, **session)
    session.prefill()
    return MODES[options.mode](options, session)


def watched(search):
    """The forward, and each step's gradient and the deltas after it."""
    seen = []
    forward = search.optimise(lambda gradient, deltas: seen.append((gradient, deltas)))
    return forward, seen


def somewhere(search, seed: int = 0, size: float = 0.1) -> list[dict[str, mx.array]]:
    """Random deltas of the shapes that the search moves."""
    rng = np.random.default_rng(seed)
    return [
        {name: mx.array((size * rng.standard_normal(x.shape)).astype(np.float32)) for name, x in layer.items()}
        for layer in search.zeros()
    ]


def flat(tree: list[dict[str, mx.array]]) -> np.ndarray:
    return np.concatenate([np.array(layer[name], np.float64).ravel() for layer in tree for name in sorted(layer)])


def softmax(logits) -> np.ndarray:
    logits = np.array(logits, dtype=np.float64)
    e = np.exp(logits - logits.max())
    return e / e.sum()


def divergence(p_logits, q_logits) -> float:
    p, q = softmax(p_logits), softmax(q_logits)
    return float((p * np.log(p / q)).sum())


def said(model, method, tokens=TOKENS, content=None, **options):
    return list(decode(model, small_prompt(content=content), method, tokens, **options))


def same_steps(ours, wanted, tolerance=2e-6):
    assert [step.token for step in ours] == [step.token for step in wanted]
    assert all(distance(a.logits, b.logits) < tolerance for a, b in zip(ours, wanted, strict=True))


# --- the objective and its gradient -----------------------------------------------------------------------------------


def objective(relevance, logits, reference, spans, method):
    """L in NumPy, from arXiv 2605.01766, with the divergence of the code or the paper, and our variants."""
    relevance = np.array(relevance, dtype=np.float64)
    share = softmax(relevance / method.tau)
    rel = {
        "uniform": -np.log(share)[spans].mean(),
        "mass": -np.log(share[spans].sum()),
        "share": -relevance[spans].sum() / np.abs(relevance).sum(),
    }[method.objective]
    pair = (reference, logits) if method.kl_direction == "code" else (logits, reference)
    return rel + method.kl * divergence(*pair)


@pytest.mark.parametrize("goal", ["uniform", "mass", "share"])
@pytest.mark.parametrize("direction", ["code", "paper"])
@pytest.mark.parametrize("mode", MODES)
def test_losses(model, mode, direction, goal):
    search = searching(model, f"lime:mode={mode},kl=0.7,tau=0.5,kl_direction={direction},objective={goal}")
    reference = search.forward(search.zeros()).logits
    reading, rel, kl, _ = search.loss(somewhere(search), reference)
    modality = np.flatnonzero(search.session.modality)
    assert modality.tolist() == [2, 3, 4, 5]
    total = objective(reading.relevance, reading.logits, reference, modality, search.options)
    assert rel.item() + 0.7 * kl.item() == pytest.approx(total, rel=1e-5)
    pair = (reference, reading.logits) if direction == "code" else (reading.logits, reference)
    assert kl.item() == pytest.approx(divergence(*pair), rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        *(f"kl_direction={direction},heads={heads}" for direction in ("code", "paper") for heads in ("kv", "query")),
        *(
            f"objective={goal},target={target}"
            for goal in ("uniform", "mass", "share")
            for target in ("argmax", "contrast")
        ),
    ],
)
def test_fast_gradient_is_that_of_the_objective(model, options):
    """Plain rules, in double precision: the relevance by finite differences, and those of the objective in turn."""
    search, reference = searching(model, f"lime:rules=plain,kl=0.7,tau=0.5,{options}"), Reference(model)
    session = search.session
    embed = np.array(session.newest[0, 0], dtype=np.float64)
    past = [tuple(np.array(x[0], dtype=np.float64) for x in pair) for pair in session.cache.entries()]
    modality, undisturbed = np.flatnonzero(session.modality), reference.logits(embed, past)

    def loss(deltas):
        arrays = [tuple(layer[name][0] for name in "kv") for layer in deltas]
        logits = reference.logits(embed, past, arrays)
        *_, rival, best = np.argsort(logits)
        relevance = reference.relevance(embed, past, best, arrays)
        if "contrast" in options:
            relevance = relevance - reference.relevance(embed, past, rival, arrays)
        return objective(relevance, logits, undisturbed, modality, search.options)

    deltas = somewhere(search)
    *_, gradient = search.loss(deltas, mx.array(undisturbed.astype(np.float32)))
    for seed, moves in ((1, "k"), (2, "v"), (3, "kv")):
        direction = [{n: np.array(x) * (n in moves) for n, x in layer.items()} for layer in somewhere(search, seed, 1)]
        at = [
            loss(
                [
                    {name: np.array(x, np.float64) + step * towards[name] for name, x in layer.items()}
                    for layer, towards in zip(deltas, direction, strict=True)
                ]
            )
            for step in (-1e-4, 1e-4)
        ]
        assert flat(gradient) @ flat(direction) == pytest.approx((at[1] - at[0]) / 2e-4, rel=1e-3)


class Naive:
    """The objective of one token written out, with no checkpoints, gates or tangents: one `mx.grad` inside another."""

    def __init__(self, search):
        self.search, self.session = search, search.session
        self.options, self.decoder, self.rules = search.options, search.decoder, rules_by_name(search.options.rules)
        self.modality = mx.array(np.flatnonzero(self.session.modality))
        if self.options.mode == "exact":
            self.inputs = {"embeds": self.session.embeds}
        else:
            self.inputs = {"newest": self.session.newest, "past": [list(pair) for pair in self.session.cache.entries()]}

    def logits(self, inputs, deltas):
        pairs = [(layer.get("k"), layer.get("v")) for layer in deltas]
        if "embeds" in inputs:
            hidden = self.decoder(inputs["embeds"], overlays([None] * len(pairs), pairs), rules=self.rules)
        else:
            memory = [Joined(past, pair, self.rules) for past, pair in zip(inputs["past"], pairs, strict=True)]
            hidden = self.decoder(inputs["newest"], memory, self.search.length - 1, self.rules)
        return self.decoder.head(hidden[0, -1])

    def relevance(self, deltas):
        rival, best = mx.argsort(mx.stop_gradient(self.session.scores(self.logits(self.inputs, deltas))))[-2:]
        against = self.options.target == "contrast"

        def explained(inputs):
            logits = self.logits(inputs, deltas)
            return logits[best] - against * logits[rival]

        slopes = mx.grad(explained)(self.inputs)
        if "embeds" in slopes:
            return (self.inputs["embeds"] * slopes["embeds"])[0].sum(-1)
        entries = sum(
            (x * slope).sum((0, 1, 3))
            for layer, grads in zip(self.inputs["past"], slopes["past"], strict=True)
            for x, slope in zip(layer, grads, strict=True)
        )
        return mx.concatenate([entries, (self.inputs["newest"] * slopes["newest"])[0].sum(-1)])

    def gradient(self, deltas, reference):
        def loss(free):
            relevance = self.relevance(free)
            share = mx.softmax(relevance / self.options.tau)[self.modality]
            rel = {
                "uniform": -mx.log(share).mean(),
                "mass": -mx.log(share.sum()),
                "share": -relevance[self.modality].sum() / mx.abs(relevance).sum(),
            }[self.options.objective]
            p, q = (x - mx.logsumexp(x) for x in (reference, self.logits(self.inputs, free)))
            divergence = (mx.exp(p) * (p - q)).sum()
            return rel + self.options.kl * divergence

        return mx.grad(loss)(deltas)


PENALTY = [None, lambda logits: mx.where(mx.arange(logits.shape[0]) % 2 == 0, logits * 0.4, logits * 0.7 - 1)]


@pytest.mark.parametrize("process", PENALTY, ids=["plain", "penalty"])
@pytest.mark.parametrize(
    "options", [*(f"rules={rules}" for rules in RULES), "objective=mass", "objective=share,target=contrast"]
)
@pytest.mark.parametrize(
    "mode", ["mode=fast,heads=kv", "mode=fast,heads=query", "mode=exact,checkpoint=off", "mode=exact,checkpoint=on"]
)
def test_gradient_is_the_nested_one(model, mode, options, process):
    search = searching(model, f"lime:{mode},{options},tau=0.5,kl=0.7", process=process)
    deltas, reference = somewhere(search), search.forward(search.zeros()).logits
    reading, *_, gradient = search.loss(deltas, reference)
    naive = Naive(search)
    assert distance(reading.relevance, naive.relevance(deltas)) < 1e-5
    assert distance(flat(gradient), flat(naive.gradient(deltas, reference))) < 1e-4


@pytest.mark.parametrize(
    "options",
    ["deltas=k", "deltas=v", "layers=1", "layers=1-2", "kl_direction=paper", "objective=share", "target=contrast"],
)
def test_checkpoints_change_no_gradient(model, options):
    spec = f"lime:mode=exact,{options},kl=0.7"
    kept, again = (searching(model, f"{spec},checkpoint={choice}") for choice in ("off", "on"))
    assert (kept.checkpointed(), again.checkpointed()) == (False, True)
    deltas, reference = somewhere(kept), kept.forward(kept.zeros()).logits
    first, second = (search.loss(deltas, reference) for search in (kept, again))
    assert distance(flat(second[3]), flat(first[3])) < 1e-4
    for a, b in zip((*second[0][:3], *second[1:3]), (*first[0][:3], *first[1:3]), strict=True):
        assert np.array(a) == pytest.approx(np.array(b), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("process", [None, lambda logits: logits - 3.0 * (mx.arange(logits.size) == mx.argmax(logits))])
@pytest.mark.parametrize("mode", MODES)
def test_a_margin_is_explained_by_the_difference_of_both_explanations(model, mode, process):
    search = searching(model, f"lime:mode={mode},target=contrast", process=process)
    deltas = somewhere(search)
    reading = search.forward(deltas, contrast=True)
    scores = np.array(search.session.scores(reading.logits))
    *_, rival, best = np.argsort(scores)
    assert (reading.target.item(), reading.rival.item()) == (best, rival)
    apart = [np.array(search.forward(deltas, mx.array(token)).relevance) for token in (best, rival)]
    assert distance(reading.relevance, apart[0] - apart[1]) < 1e-5


def test_other_step_rules_move_by_lr():
    gradient, start = (
        [{"k": mx.array([3.0, -4.0, 0.0])}, {"v": mx.array([12.0])}],
        [{"k": mx.ones(3)}, {"v": mx.ones(1)}],
    )
    moved = flat(UPDATES["sign"](0.1).update(gradient, start))
    assert moved == pytest.approx([0.9, 1.1, 1.0, 0.9])
    moved = flat(UPDATES["normalised"](0.1).update(gradient, start)) - 1
    assert np.sqrt((moved**2).mean()) == pytest.approx(0.1)
    assert moved == pytest.approx(-0.2 * np.array([3, -4, 0, 12]) / 13)
    still = [{"k": mx.zeros(3)}, {"v": mx.zeros(1)}]
    assert flat(UPDATES["normalised"](0.1).update(still, start)) == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize("update", ["adam", "sign", "normalised"])
@pytest.mark.parametrize("goal", ["uniform", "mass", "share"])
@pytest.mark.parametrize("mode", MODES)
def test_every_objective_falls_with_every_step_rule(model, mode, goal, update):
    spec = f"lime:mode={mode},steps=6,lr=3e-3,kl=0,objective={goal},update={update},target=contrast"
    for step in said(model, spec, trace=True)[:2]:
        assert step.trace["rel_loss"][-1] < step.trace["rel_loss"][0]


def test_checkpoints_by_themselves_follow_the_memory(model, monkeypatch):
    search = searching(model, "lime:mode=exact")
    assert not search.checkpointed()
    monkeypatch.setattr("lime_mlx.backend.memory_total", lambda: 1e4)
    assert search.checkpointed()


def test_adam_is_the_one_with_bias_correction():
    rng, lr, (b1, b2), eps = np.random.default_rng(0), 0.01, (0.9, 0.999), 1e-8
    gradients = [rng.standard_normal(5) * 10.0 ** -np.arange(5) for _ in range(4)]
    adam, ours, wanted, m, v = Adam(lr), [{"k": mx.zeros(5)}, {}], np.zeros(5), 0, 0
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        wanted = wanted - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        ours = adam.update([{"k": mx.array(g.astype(np.float32))}, {}], ours)
        np.testing.assert_allclose(np.array(ours[0]["k"]), wanted, rtol=2e-6)
    assert ours[1] == {}


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_one_step_is_plain_decoding(model, mode):
    steps = said(model, f"lime:mode={mode},steps=1,lr=1", trace=True)
    same_steps(steps, said(model, "none"))
    assert not any(step.optimised or step.trace for step in steps)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [2, 4])
def test_the_token_comes_from_the_last_of_the_forwards(model, mode, steps):
    """`steps` forwards, so one update less; the trace has what is known of each."""
    search = searching(model, f"lime:mode={mode},steps={steps},{HARD}", trace=True)
    forward, seen = watched(search)
    assert len(seen) == steps - 1
    assert {key: value.shape for key, value in forward.trace.items()} == {
        "logits": (steps, 64),
        "ref_logits": (64,),
        "relevance": (steps - 1, LENGTH),
        **dict.fromkeys(["kl", "rel_loss", "total_loss", "grad_norm", "delta_norm"], (steps - 1,)),
    }
    for step, (gradient, deltas) in enumerate(seen):
        assert forward.trace["grad_norm"][step] == pytest.approx(np.linalg.norm(flat(gradient)), rel=1e-5)
        assert forward.trace["delta_norm"][step] == pytest.approx(np.linalg.norm(flat(deltas)), rel=1e-5)
        reading = search.forward(deltas)
        assert distance(forward.trace["logits"][step + 1], reading.logits) < 1e-5
        if step + 1 < steps - 1:
            assert distance(forward.trace["relevance"][step + 1], reading.relevance) < 1e-4
    np.testing.assert_array_equal(np.array(forward.logits), forward.trace["logits"][-1])
    np.testing.assert_array_equal(forward.trace["ref_logits"], forward.trace["logits"][0])
    token = mx.argmax(forward.logits)
    if token.item() == np.argmax(forward.trace["ref_logits"]):
        np.testing.assert_array_equal(forward.relevance, forward.trace["relevance"][0])
    else:
        assert distance(forward.relevance, search.forward(search.zeros(), token).relevance) < 1e-5
    np.testing.assert_allclose(forward.trace["total_loss"], forward.trace["rel_loss"] + forward.trace["kl"], rtol=1e-6)
    assert forward.optimised


@pytest.mark.parametrize("mode", MODES)
def test_fewer_steps_are_the_beginning_of_more(model, mode):
    short, long = (said(model, f"lime:mode={mode},steps={n},{HARD}", 1, trace=True)[0] for n in (3, 5))
    for key in ("kl", "rel_loss", "grad_norm", "delta_norm", "relevance"):
        np.testing.assert_allclose(short.trace[key], long.trace[key][:2], rtol=1e-5)
    np.testing.assert_allclose(short.trace["logits"], long.trace["logits"][:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_falls(model, mode):
    trace = said(model, f"lime:mode={mode},steps=6,lr=0.001,kl=0.1", 1, trace=True)[0].trace
    assert (np.diff(trace["total_loss"]) < 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_the_divergence_keeps_the_distribution_near(model, mode):
    def drift(kl):
        trace = said(model, f"lime:mode={mode},steps=8,lr=0.02,kl={kl}", 1, trace=True)[0].trace
        return divergence(trace["ref_logits"], trace["logits"][-1])

    free, held, tied = (drift(kl) for kl in (0, 3, 100))
    assert free > held > 5 * tied


@pytest.mark.parametrize("mode", MODES)
def test_tokens_are_optimised_afresh(model, mode):
    """A token after others is what it is when those were part of the prompt."""
    spec = f"lime:mode={mode},steps=3,{HARD}"
    first, second = said(model, spec, 2)
    prompt = small_prompt()
    longer = replace(prompt, input_ids=[*prompt.input_ids, first.token])
    again = next(decode(model, longer, spec, 1))
    assert distance(second.logits, again.logits) < 1e-4
    assert distance(second.relevance, again.relevance) < 1e-4


@pytest.mark.parametrize("spec", ["steps=3", "steps=1", "steps=3,gate=0", "steps=3,gate=0.5", "steps=3,words=content"])
@pytest.mark.parametrize("mode", MODES)
def test_the_cache_holds_what_plain_decoding_keeps(model, mode, spec):
    content = np.arange(64) % 2 == 0
    lime = parse_method(f"lime:mode={mode},{HARD},{spec}").prepare(model)
    ours, plain = (start(model, small_prompt(content=content)) for _ in range(2))
    for _ in range(TOKENS):
        token = int(mx.argmax(lime.step(ours).logits))
        Plain().prepare(model).step(plain)
        assert plain.cache.offset == plain.embeds.shape[1]
        if mode == "fast":  # exact runs the whole sequence anyway
            assert ours.cache.offset == plain.cache.offset
        ours.append(token)
        plain.append(token)
        ours.prefill()
        plain.prefill()
        assert ours.cache.offset == plain.cache.offset == ours.embeds.shape[1] - 1
        for mine, wanted in zip(ours.cache.entries(), plain.cache.entries(), strict=True):
            assert all(distance(a, b) < 2e-6 for a, b in zip(mine, wanted, strict=True))


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("deltas", "moved"), [("k", {"k"}), ("v", {"v"}), ("kv", {"k", "v"})])
def test_deltas_live_on_keys_values_or_both(model, mode, deltas, moved):
    whole = watched(searching(model, f"lime:mode={mode},steps=2,{HARD}"))[1][0][0]
    (gradient, after), *_ = watched(searching(model, f"lime:mode={mode},steps=2,deltas={deltas},{HARD}"))[1]
    for layer, (ours, wanted, delta) in enumerate(zip(gradient, whole, after, strict=True)):
        assert set(ours) == set(delta) == moved, layer
        assert all(distance(ours[name], wanted[name]) < 1e-4 for name in moved)
        assert all(np.abs(np.array(delta[name])).max() > 0 for name in moved)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("layers", "moved"), [("all", {0, 1, 2}), ("1", {1}), ("1-2", {1, 2}), ("0-0", {0})])
def test_deltas_live_on_the_chosen_layers(model, mode, layers, moved):
    whole = watched(searching(model, f"lime:mode={mode},steps=2,{HARD}"))[1][0][0]
    gradient, after = watched(searching(model, f"lime:mode={mode},steps=2,layers={layers},{HARD}"))[1][0]
    for layer, (ours, wanted, delta) in enumerate(zip(gradient, whole, after, strict=True)):
        assert set(ours) == set(delta) == ({"k", "v"} if layer in moved else set())
        assert all(distance(ours[name], wanted[name]) < 1e-4 for name in ours)


def test_a_delta_of_a_key_head_is_felt_by_all_its_queries(model):
    """So its gradient is the sum over those of one delta per query head."""
    key, query = (watched(searching(model, f"lime:heads={heads},steps=2,{HARD}"))[1][0][0] for heads in ("kv", "query"))
    for ours, wanted in zip(key, query, strict=True):
        for name in "kv":
            assert (ours[name].shape, wanted[name].shape) == ((1, 2, LENGTH, 16), (1, 4, LENGTH, 16))
            grouped = np.array(wanted[name]).reshape(1, 2, 2, LENGTH, 16).sum(2)
            assert distance(ours[name], grouped) < 1e-5


def test_exact_has_deltas_on_query_heads(model):
    assert {x.shape for layer in searching(model, "lime:mode=exact").zeros() for x in layer.values()} == {
        (1, 4, LENGTH, 16)
    }


@pytest.mark.parametrize("mode", MODES)
def test_kl_direction_changes_the_divergence_alone(model, mode):
    code, paper = (
        said(model, f"lime:mode={mode},steps=3,kl_direction={direction},{HARD}", 1, trace=True)[0].trace
        for direction in ("code", "paper")
    )
    for key in ("rel_loss", "relevance", "delta_norm"):  # nothing diverges before the first update
        np.testing.assert_allclose(code[key][:1], paper[key][:1], rtol=1e-5)
    np.testing.assert_allclose(code["logits"][:2], paper["logits"][:2], rtol=1e-4, atol=1e-5)
    before, after = code["ref_logits"], code["logits"][1]
    assert code["kl"][1] == pytest.approx(divergence(before, after), rel=1e-3)
    assert paper["kl"][1] == pytest.approx(divergence(after, before), rel=1e-3)
    assert code["kl"][1] != pytest.approx(paper["kl"][1], rel=1e-2)
    assert distance(code["logits"][2], paper["logits"][2]) > 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_rules_change_the_relevance_and_not_the_forward(model, mode):
    traces = {r: said(model, f"lime:mode={mode},steps=3,rules={r},{HARD}", 1, trace=True)[0].trace for r in RULES}
    for rules in RULES:
        search = searching(model, f"lime:mode={mode},rules={rules}")
        assert distance(traces[rules]["relevance"][0], search.forward(search.zeros()).relevance) < 1e-6
        assert distance(traces[rules]["ref_logits"], traces["plain"]["ref_logits"]) < 2e-6
    for a, b in (("attnlrp", "cplrp"), ("attnlrp", "plain"), ("cplrp", "plain")):
        assert distance(traces[a]["relevance"][0], traces[b]["relevance"][0]) > 0.1
        assert distance(traces[a]["logits"][1], traces[b]["logits"][1]) > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_a_target_is_found_after_the_penalty(model, mode):
    plain = said(model, f"lime:mode={mode},steps=2,lr=0", 1)[0]
    penalty = lambda tokens, logits: mx.where(mx.arange(64) == plain.token, -50.0, logits)  # noqa: E731
    ours = said(model, f"lime:mode={mode},steps=2,lr=0", 1, logits_processors=[penalty])[0]
    second = int(np.argsort(plain.logits)[-2])
    assert ours.token == second
    assert distance(ours.logits, plain.logits) < 2e-6
    session = start(model, small_prompt())
    session.prefill()
    if mode == "exact":
        wanted = exact(model.language_model, session.embeds, rules_by_name("attnlrp"), target=second)
    else:
        arguments = session.cache.entries(), session.newest, rules_by_name("attnlrp")
        wanted = cached(model.language_model, *arguments, target=second)
    assert distance(ours.relevance, wanted.relevance) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_gates_and_reports_are_about_the_tokens_own_logit_with_either_target(model, mode):
    spec = f"lime:mode={mode},steps=2,lr=1e-9"
    ours, wanted = (said(model, f"{spec},target={target}", trace=True) for target in ("contrast", "argmax"))
    for step, plain in zip(ours, wanted, strict=True):
        assert step.token == plain.token
        assert distance(step.relevance, plain.relevance) < 1e-5
        assert distance(step.trace["relevance"][0], plain.trace["relevance"][0]) > 0.1
    gate = np.sort([step.reliance for step in wanted])[1:3].mean()
    gated = said(model, f"{spec},target=contrast,gate={gate}")
    assert [step.optimised for step in gated] == [step.reliance < gate for step in wanted]


@pytest.mark.parametrize("mode", MODES)
def test_one_update_knows_no_divergence(model, mode):
    """Its gradient is zero where the deltas are."""
    tied, free = (said(model, f"lime:mode={mode},steps=2,lr=0.05,kl={kl}", 1)[0] for kl in (1e3, 0))
    assert distance(tied.logits, free.logits) < 1e-4


# --- gates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_gate_of_zero_leaves_every_token(model, mode):
    steps = said(model, f"lime:mode={mode},steps=3,gate=0,{HARD}")
    same_steps(steps, said(model, "none"))
    assert not any(step.optimised for step in steps)


@pytest.mark.parametrize("mode", MODES)
def test_a_gate_above_one_leaves_none(model, mode):
    spec = f"lime:mode={mode},steps=3,{HARD}"
    steps = said(model, f"{spec},gate=1.1")
    same_steps(steps, said(model, spec))
    assert all(step.optimised for step in steps)


@pytest.mark.parametrize("mode", MODES)
def test_a_gate_takes_the_tokens_below_it(model, mode):
    reliances = [step.reliance for step in said(model, f"lime:mode={mode},steps=2,lr=1e-9", 8)]
    low, high = sorted(reliances)[3:5]
    steps = said(model, f"lime:mode={mode},steps=2,lr=1e-9,gate={(low + high) / 2}", 8)
    assert [step.optimised for step in steps] == [r <= low for r in reliances]
    assert [step.reliance for step in steps] == pytest.approx(reliances, rel=1e-4)


@pytest.mark.parametrize("reliance", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_words_that_name_nothing_are_left(model, mode, reliance):
    """Even those after words that were changed are what plain decoding says after them."""
    content = np.arange(64) % 2 == 0
    steps = said(model, f"lime:mode={mode},steps=3,words=content,{HARD}", 8, content=content, reliance=reliance)
    plain, session = [], start(model, small_prompt())
    for step in steps:
        plain.append(np.array(Plain().prepare(model).step(session).logits))
        session.append(step.token)
    optimised = [step.optimised for step in steps]
    assert optimised == [bool(content[logits.argmax()]) for logits in plain]
    assert len(set(optimised)) == 2
    for step, logits in zip(steps, plain, strict=True):
        assert (distance(step.logits, logits) < 1e-5) is not step.optimised
        told = step.optimised and step.token == int(logits.argmax())
        assert (step.relevance is not None) is (reliance or told)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("words", "content"), [("all", np.zeros(64, dtype=bool)), ("content", None)])
def test_all_words_are_optimised_when_asked_or_when_none_are_known(model, mode, words, content):
    spec = f"lime:mode={mode},steps=2,{HARD}"
    steps = said(model, f"{spec},words={words}", content=content)
    assert all(step.optimised for step in steps)
    same_steps(steps, said(model, spec, content=None))


# --- whose entries move, and which tokens may take a word's place -------------------------------------------------


@pytest.mark.parametrize("mode", ["mode=fast", "mode=exact,checkpoint=off", "mode=exact,checkpoint=on"])
@pytest.mark.parametrize(("positions", "moving"), [("media", range(2, 6)), ("prompt", range(12)), ("all", range(14))])
def test_only_the_entries_that_may_move_do(model, mode, positions, moving):
    method = parse_method(f"lime:{mode},steps=3,lr=0.05,positions={positions}").prepare(model)
    session = start(model, small_prompt())
    for token in (5, 9):
        method.step(session)
        session.append(token)
    session.prefill()
    _, seen = watched(MODES[method.options.mode](method.options, session))
    whole = [x for layer in seen[-1][1] for x in layer.values()]
    moved = np.any([np.any(np.array(x) != 0, axis=(0, 1, 3)) for x in whole], axis=0)
    assert np.flatnonzero(moved).tolist() == list(moving)


def test_all_positions_are_those_of_the_published_form(model):
    spec = f"lime:steps=3,{HARD}"
    same_steps(said(model, spec), said(model, f"{spec},positions=all"), 1e-9)
    assert distance(said(model, f"{spec},positions=media", 1)[0].logits, said(model, spec, 1)[0].logits) > 1e-3


def placed(model, content, replace: str, beta: float):
    """The first step of LIME that puts a token of little probability in the place of another, and the plain logits."""
    spec = f"lime:steps=3,lr=0.2,kl=0,replace={replace},beta={beta},words=content"
    step = said(model, spec, 1, content=content, trace=True)[0]
    return step, step.trace["ref_logits"]


def test_only_plausible_tokens_take_a_words_place(model):
    content = np.ones(64, dtype=bool)
    step, plain = placed(model, content, "any", 0.9)
    assert plain.argmax() != step.token  # so that the cut has something to do
    again, _ = placed(model, content, "plausible", 0.9)
    allowed = plain >= plain.max() + np.log(0.9)
    assert allowed.sum() == 1 and not allowed[step.token]
    assert again.token == plain.argmax()
    np.testing.assert_array_equal(again.logits[allowed], step.logits[allowed])
    assert (again.logits[~allowed] < again.logits[allowed].min() - 1e3).all() and np.isfinite(again.logits).all()
    np.testing.assert_array_equal(again.trace["logits"], step.trace["logits"])


def test_a_token_that_names_something_may_always_take_a_words_place(model):
    step, plain = placed(model, np.ones(64, dtype=bool), "any", 0.9)
    content = np.zeros(64, dtype=bool)
    content[plain.argmax()] = True
    assert placed(model, content, "names", 0.9)[0].token == plain.argmax()
    content[step.token] = True
    assert placed(model, content, "names", 0.9)[0].token == step.token
    assert placed(model, content, "plausible", 0.9)[0].token == plain.argmax()


def test_the_published_forms_and_bare_prompts_take_any_token(model):
    for spec in ("lime:mode=exact", "lime:words=all", "lime:mode=exact,words=content"):
        assert parse_method(spec).prepare(model).options.replace == "any"
    assert parse_method("lime").prepare(model).options.replace == "names"
    for mode in MODES:
        bare = said(model, f"lime:mode={mode},steps=3,{HARD},words=content,replace=names,beta=0.9")
        same_steps(bare, said(model, f"lime:mode={mode},steps=3,{HARD},words=content,replace=any"), 1e-9)


# --- quantised weights ------------------------------------------------------------------------------------------------

FORMATS = {"4 bits": {"group_size": 32, "bits": 4}, "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}


def quantised_pair(options):
    """A quantised model, and a float32 one with the weights it stands for."""
    packed, twin = (small_model(attention_bias=True, mlp_bias=True) for _ in range(2))
    nn.quantize(packed, **options)
    layers = {p: m for p, m in packed.named_modules() if isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding)}
    assert len(layers) == 7 * 3 + 2
    twin.load_weights([(f"{path}.weight", unpacked(m, mx.float32)) for path, m in layers.items()], strict=False)
    return packed, twin


@pytest.mark.parametrize("length", [LENGTH, 7])  # the CPU unpacks weights for eight rows or more
@pytest.mark.parametrize("mode", ["fast", "exact,checkpoint=off", "exact,checkpoint=on"])
@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_second_order_gradient_through_quantised_weights(options, mode, length):
    ours, wanted = (searching(model, f"lime:mode={mode},kl=0.7", length) for model in quantised_pair(options))
    deltas, reference = somewhere(ours), wanted.forward(wanted.zeros()).logits
    reading, rel, kl, gradient = ours.loss(deltas, reference)
    other, other_rel, other_kl, whole = wanted.loss(deltas, reference)
    assert distance(reading.logits, other.logits) < 1e-5
    assert distance(reading.relevance, other.relevance) < 1e-4
    assert (rel.item(), kl.item()) == pytest.approx((other_rel.item(), other_kl.item()), rel=1e-4)
    assert distance(flat(gradient), flat(whole)) < 1e-4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_decoding_with_quantised_weights(options, mode):
    packed, twin = quantised_pair(options)
    spec = f"lime:mode={mode},steps=3,lr=0.01,kl=1"
    same_steps(said(packed, spec, 3), said(twin, spec, 3), 1e-3)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_without_a_picture_is_refused(model, mode):
    message = "lime needs a picture or a sound in the prompt; use --method none for text alone."
    with pytest.raises(MethodError, match=re.escape(message)):
        next(decode(model, replace(small_prompt(), spans=()), f"lime:mode={mode}"))


@pytest.mark.parametrize("mode", MODES)
def test_too_large_a_step_is_a_fault_and_the_token_is_plain(model, mode):
    (step,) = decode(model, small_prompt(), f"lime:mode={mode},lr=1e38,steps=3", 1)
    assert step.fault == "lime gave logits that are not finite at lr 1e+38; use a smaller lr."
    assert step.token == said(model, "none", 1)[0].token and not step.optimised
