"""The plan of memory before a run: what it counts, and what a user is told."""

import mlx.core as mx
import pytest
from click.testing import CliRunner
from helpers import small_model, small_prompt

from lime_mlx import backend, load
from lime_mlx.cli import main
from lime_mlx.decoding import decode
from lime_mlx.errors import BackendError
from lime_mlx.generation import stream_generate
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.memory import check_fits, doing, memory_needed
from lime_mlx.methods import parse_method
from lime_mlx.models.config import DecoderConfig
from lime_mlx.scenes import make_scene

PACKED = KVOptions(kv_bits=4, kv_group_size=64, quantized_kv_start=0, prefill_step_size=128)
SEVEN_B = DecoderConfig(
    hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4
)
GB = 10**9


def needed(config=SEVEN_B, weights=4 * GB, positions=6000, answer=256, kv=DEFAULT, **more):
    return memory_needed(config, weights, positions, answer, kv, width=2, **more)


def test_a_quantised_cache_needs_less_and_a_limited_one_less_still():
    whole, packed = needed(), needed(kv=PACKED)
    assert packed["plain"] < needed(kv=KVOptions(kv_bits=8, quantized_kv_start=0))["plain"] < whole["plain"]
    assert needed(kv=KVOptions(max_kv_size=2000), pinned=1500)["plain"] < whole["plain"]
    assert needed(kv=KVOptions(kv_bits=4, quantized_kv_start=10_000)) == whole


def test_windows_need_less_than_the_whole():
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    windowed = DecoderConfig(num_hidden_layers=6, sliding_window=512, layer_types=kinds, hidden_act="silu")
    whole = DecoderConfig(num_hidden_layers=6)
    cache = 2 * 6 * 32 * 128 * 6400 * 2
    assert needed(whole)["plain"] - needed(windowed)["plain"] > 0.4 * cache


def test_longer_prompts_answers_and_more_work_need_more():
    assert needed(positions=8000)["plain"] > needed()["plain"] > needed(positions=2000)["plain"]
    plan = needed()
    assert plan["plain"] <= plan["explain"] <= plan["choose"] and plan["lime fast"] < plan["lime exact"]


@pytest.mark.parametrize(
    ("spec", "reliance", "name"),
    [
        ("none", False, "plain"),
        ("none", True, "explain"),
        ("choose", False, "choose"),
        ("lime", False, "lime fast"),
        ("lime:mode=exact", True, "lime exact"),
        ("kvsmooth+lime", False, "lime fast"),
        ("choose+lime:mode=exact,steps=2", False, "lime exact"),
        ("pai", False, "plain"),
    ],
)
def test_a_method_has_its_row_of_the_plan(spec, reliance, name):
    assert doing(parse_method(spec), reliance) == name


@pytest.mark.parametrize(
    "kv", [DEFAULT, KVOptions(kv_bits=4, kv_group_size=32, quantized_kv_start=0, prefill_step_size=128)]
)
def test_the_plan_is_near_the_measured_peak(kv):
    shape = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "hidden_size": 256}
    model = small_model(**shape, intermediate_size=512, num_hidden_layers=4)
    prompt = small_prompt(700, 4, 500)
    plan = memory_needed(model.language_model.config, 0, len(prompt), 4, kv, 500)
    for name, spec, reliance in (("plain", "none", False), ("lime fast", "lime:words=all", True)):
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        list(decode(model, prompt, spec, 4, reliance=reliance, kv=kv))
        assert 0.7 < plan[name] / (mx.get_peak_memory() - before) < 1.4, name


# --- what a user is told


@pytest.fixture
def memory(monkeypatch):
    def of(size):
        monkeypatch.setattr(backend, "memory_total", lambda: int(size))

    return of


def sentences(model, prompt, spec="none", kv=DEFAULT, tokens=256):
    return list(check_fits(model, prompt, parse_method(spec), tokens, False, kv))


def test_the_user_is_warned_and_refused_with_numbers_and_the_remedy(memory):
    model, prompt = small_model(head_dim=32, num_hidden_layers=12, num_key_value_heads=4), small_prompt(3000, 4, 50)
    plain = memory_needed(model.language_model.config, 0, 3000, 256)["plain"]
    memory(100 * plain)
    assert sentences(model, prompt) == []
    memory(1.05 * plain)
    (warning,) = sentences(model, prompt)
    assert warning.startswith("Note: this answer needs about 0.") and "and this machine has 0." in warning
    assert "--prefill-step-size 128 needs about" in warning
    memory(plain / 2)
    with pytest.raises(
        BackendError, match=r"^This answer needs about .* --kv-bits [84] --kv-group-size 32 .* needs about"
    ):
        sentences(model, prompt)
    memory(plain / 100)
    with pytest.raises(BackendError, match="needs about .*, so give fewer or smaller pictures"):
        sentences(model, prompt)
    with pytest.raises(BackendError, match="of memory: give fewer or smaller pictures, a shorter text or"):
        sentences(model, prompt, kv=KVOptions(kv_bits=4, kv_group_size=32, quantized_kv_start=0, prefill_step_size=64))


def test_a_cheaper_method_is_a_remedy(memory):
    model, prompt = small_model(), small_prompt(600, 4, 50)
    plan = memory_needed(model.language_model.config, 0, 600, 256)
    memory(plan["lime exact"] / 2)
    with pytest.raises(BackendError, match="--method lime needs about"):
        sentences(model, prompt, "lime:mode=exact")


def test_generate_and_the_command_say_it(memory, tmp_path):
    model, processor = load("demo")
    picture = make_scene(100_000, "ordinary").image
    notices = []
    weights = 10_000_000
    memory(weights)
    list(stream_generate(model, processor, "What is there?", picture, max_tokens=2, notice=notices.append))
    assert any(notice.startswith("Note: this answer needs about 0.0 GB") for notice in notices)
    memory(1_000_000)
    with pytest.raises(BackendError, match="This answer needs about"):
        next(stream_generate(model, processor, "What is there?", picture, max_tokens=2))


def test_inspect_takes_the_options_of_the_cache():
    def shown(*options):
        result = CliRunner().invoke(main, ["inspect", "demo", *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "--method choose" in shown()
    assert shown("--kv-bits", "4", "--kv-group-size", "32", "--quantized-kv-start", "0") != shown()
    refused = CliRunner().invoke(main, ["inspect", "demo", "--kv-bits", "4"])
    assert refused.exit_code == 1 and "give --kv-group-size 32" in refused.stderr
