"""NaN and infinity: one token is decoded plainly, several switch the method off, and nothing hides them."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from itertools import takewhile

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import small_model, small_prompt

import lime_mlx
from lime_mlx.checkpoint.hub import demos
from lime_mlx.cli import main
from lime_mlx.decoding import decode, steps
from lime_mlx.errors import NumericalError
from lime_mlx.evaluate.asking import answer as recorded
from lime_mlx.lrp.relevance import shares
from lime_mlx.methods import Method, parse_method
from lime_mlx.methods.base import Prepared, Wrapper
from lime_mlx.methods.contrastive import plausible
from lime_mlx.methods.guard import MOST
from lime_mlx.session import Session

COUNT = 10


@dataclass(frozen=True)
class Poison(Wrapper):
    """The method inside, with NaN in what it gives and leaves at some tokens of the answer, counted from 0."""

    name = "poison"
    at: tuple[int, ...] = ()
    what: str = "logits"

    def __post_init__(self) -> None:
        """No option of a spec."""

    def prepare(self, model):
        return Poisoned(self, self.inner.prepare(model))


@dataclass(frozen=True)
class Poisoned(Prepared):
    options: Poison
    inner: Prepared

    def step(self, session):
        forward = self.inner.step(session)
        if len(session.generated) not in self.options.at:
            return forward
        if self.options.what == "error":
            raise NumericalError("not finite")
        if self.options.what == "relevance":
            return replace(forward, relevance=np.full_like(forward.relevance, np.nan))
        position = session.cache.offset - 1
        for layer in session.cache.layers:
            k, v = (x[:, :, position : position + 1] for x in layer.entries())
            layer.overwrite(position, k * mx.nan, v + mx.inf)
        if self.options.what == "entries":
            return forward
        return replace(forward, logits=forward.logits + (mx.nan if self.options.what == "logits" else mx.inf))


def decoded(method: str | Method, count: int = COUNT, **options):
    return list(decode(small_model(), small_prompt(), method, count, **options))


@pytest.mark.parametrize("what", ["logits", "infinity", "error", "relevance"])
def test_after_one_nan_the_answer_is_that_of_plain_decoding(what):
    plain, poisoned = decoded("none"), decoded(Poison(at=(4,), what=what))
    assert [step.token for step in poisoned] == [step.token for step in plain]
    for one, other in zip(poisoned, plain, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
        np.testing.assert_array_equal(one.relevance, other.relevance)
    assert [step.fault is not None for step in poisoned] == [False] * 4 + [True] + [False] * 5


def test_entries_that_only_the_next_token_reads_are_taken_back_too():
    plain, poisoned = decoded("none"), decoded(Poison(at=(4,), what="entries"))
    assert [step.token for step in poisoned] == [step.token for step in plain]
    np.testing.assert_allclose(poisoned[-1].logits, plain[-1].logits, atol=1e-4)
    assert [step.fault is None for step in poisoned].count(False) == 1


@pytest.mark.parametrize("inner", ["m3id:decay=1", "lime:words=all,lr=1", "kvsmooth", "flb:gamma=2", "m3id+kvsmooth"])
def test_only_the_token_with_the_nan_is_plain(inner):
    method, model = parse_method(inner), small_model()

    def by_hand():
        """The method for four tokens, plain decoding for one from where it stands, and the method again."""
        session = Session.open(model, small_prompt())
        tokens = [step.token for step in steps(session, method, 4)]
        session.rewind(0)
        tokens += [step.token for step in steps(session, parse_method("none"), 5)]
        return tokens + [step.token for step in steps(session, method, COUNT)]

    def poisoned():
        session = Session.open(model, small_prompt())
        return [step.token for step in steps(session, Poison(at=(4,), inner=method), COUNT)]

    assert poisoned()[:5] == by_hand()[:5]
    assert poisoned() == by_hand()


def test_three_in_a_row_switch_the_method_off():
    method = parse_method("m3id:decay=3,beta=0")
    alone = [step.token for step in decoded(method, 4)]
    off = decoded(Poison(at=(4, 5, 6), inner=method))
    session = Session.open(small_model(), small_prompt())
    for token in alone:
        session.append(token)
    rest = [step.token for step in steps(session, parse_method("none"), COUNT)]
    assert [step.token for step in off] == alone + rest
    assert [step.fault is None for step in off].count(False) == MOST
    on = decoded(Poison(at=(3, 4, 6, 7), inner=method))
    assert [step.fault is None for step in on].count(False) == 4 and [step.token for step in on][7:] != rest[3:]


def test_plain_logits_that_are_not_finite_end_the_run_with_the_step():
    model = small_model()
    head = model.language_model.lm_head
    head.weight = head.weight * mx.nan
    for method in ("none", "m3id", "lime:words=all", "flb", "kvsmooth", "m3id+lime", "flb+kvsmooth"):
        with pytest.raises(NumericalError, match="at generated token 1"):
            list(decode(model, small_prompt(), method, 3))


def test_no_cut_hides_a_nan():
    logits = mx.array([0.0, 1.0, 2.0])
    assert mx.isfinite(plausible(logits, logits, 0.1)).all().item()
    for bad in (mx.nan, mx.inf, -mx.inf):
        worse = mx.array([bad, 1.0, 2.0])
        assert mx.isnan(plausible(worse, logits, 0.1)).all().item()
        assert mx.isnan(plausible(logits, worse, 0.1)).all().item()


def test_relevance_that_is_not_finite_is_no_share():
    with pytest.raises(NumericalError, match="relevance is not finite"):
        shares(np.array([1.0, np.nan]), {"image": np.array([True, False])})
    poisoned = decoded(Poison(at=(0, 1, 2, 3), what="relevance"))
    assert all(step.shares is not None for step in poisoned)


def test_plain_relevance_that_is_not_finite_is_left_out_and_counted(monkeypatch):
    real = Session.read

    def read(self, *arguments, **options):
        return real(self, *arguments, **options) + (mx.nan if len(self.generated) == 2 else 0)

    plain = decoded("none", 5)
    monkeypatch.setattr(Session, "read", read)
    damaged = decoded("none", 5)
    assert [step.token for step in damaged] == [step.token for step in plain]
    assert [step.shares is None for step in damaged] == [False, False, True, False, False]
    assert [step.fault for step in damaged if step.fault] == ["The relevance is not finite."]


def generate(*arguments):
    return CliRunner().invoke(main, ["generate", "examples/scene.png", "--max-tokens", "4", *arguments])


@pytest.mark.parametrize("method", ["none", "vcd", "m3id", "pai", "only", "vcd+lime", "m3id+kvsmooth", "choose+vcd"])
def test_a_model_without_finite_logits_answers_nothing(tmp_path, method):
    folder = tmp_path / "model"
    shutil.copytree(demos()["picture"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["rope_theta"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    result = generate("--method", method, "--model", str(folder))
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and "please report" not in result.stderr


HUGE = [
    *("vcd:alpha=1e308", "pai:alpha=1e308", "only:agree=1e308", "flb:gamma=1e308", "sham:the=1e308"),
    *("vcd:alpha=1e308+lime", "vcd:alpha=1e308+kvsmooth", "pai:alpha=1e308+kvsmooth", "choose+vcd:alpha=1e308"),
]


@pytest.mark.parametrize("method", HUGE)
def test_an_infinite_guidance_gives_the_plain_answer_and_says_so(method):
    plain, result = generate("--method", "none", "--json"), generate("--method", method, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["numerical_faults"] > 0
    assert answer["text"] == json.loads(plain.stdout)["text"]
    assert json.loads(plain.stdout)["numerical_faults"] == 0
    assert len(re.findall(r"Note: at generated token [12]: The values of \w+ are not finite\.", result.stderr)) == 1


def test_a_record_counts_them(tmp_path):
    model, processor = lime_mlx.load("demo")
    image = lime_mlx.scenes.make_scene(100_000, "uncorrelated").image
    prompt = processor.prompt("What is in the picture?", [image])
    fields = recorded(lambda: Session.open(model, prompt), parse_method("pai:alpha=1e308"), processor, 8, True, False)
    assert fields["numerical_faults"] == MOST and "<pad>" not in fields["text"]
    healthy = recorded(lambda: Session.open(model, prompt), parse_method("none"), processor, 8, True, False)
    assert "numerical_faults" not in healthy and fields["text"] == healthy["text"]
    json.dumps(fields, allow_nan=False)


def test_a_reliance_of_nan_is_never_shown():
    answer = json.loads(generate("--method", "pai:alpha=1e308", "--json").stdout)
    assert all(0 <= value <= 1 for value in answer["reliance"] if value is not None)
    assert list(takewhile(lambda token: token != 2, answer["tokens"]))
