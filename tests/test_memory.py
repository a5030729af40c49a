"""The most memory that explaining and fast LIME take beside weights and cache; allocations are the same in each run."""

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from lime_mlx.decoding import start
from lime_mlx.lrp.relevance import relevance
from lime_mlx.methods import parse_method
from lime_mlx.models.text import Text
from lime_mlx.prompt import Prompt, Span

SHAPES = {"12 x 512": (12, 512, 1408), "28 x 256": (28, 256, 704)}
LENGTH = 600


@cache
def model(shape: str, dtype: str) -> Text:
    layers, width, inner = SHAPES[shape]
    made = Text(
        {
            "model_type": "llama",
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "num_key_value_heads": width // 64,
            "head_dim": 64,
            "vocab_size": 8000,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        }
    )
    if dtype == "bfloat16":
        made.set_dtype(mx.bfloat16)
    if dtype == "4 bits":
        nn.quantize(made, 64, 4)
    mx.eval(made.parameters())
    return made


def weights(made: Text) -> int:
    return sum(x.nbytes for _, x in tree_flatten(made.parameters()))


def peak_above(run) -> int:
    mx.clear_cache()
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    run()
    return mx.get_peak_memory() - held


def session_of(made: Text, reliance: bool):
    ids = np.random.default_rng(0).integers(5, 8000, LENGTH)
    session = start(made, Prompt(ids, spans=[Span("image", 5, 581)]), reliance=reliance)
    session.prefill()
    session.append(7)
    return session


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "4 bits"])
@pytest.mark.parametrize("shape", SHAPES)
def test_explaining_and_fast_lime_fit_beside_the_weights(shape, dtype):
    """At most 15 % of the weights or 10 % of the cache, whichever is more."""
    made = model(shape, dtype)
    for spec in ("none", "lime:words=all", "lime:words=all,update=normalised"):
        session = session_of(made, reliance=True)
        method = parse_method(spec).prepare(made)
        method.step(session)
        session.append(9)
        most = max(0.15 * weights(made), 0.1 * session.cache.nbytes)
        assert peak_above(lambda: mx.eval(method.step(session).logits)) < most, spec  # noqa: B023


def test_deltas_of_several_updates_can_be_made_again():
    made = model("12 x 512", "float32")
    for choice, few in (("on", True), ("off", False)):
        session = session_of(made, reliance=False)
        method = parse_method(f"lime:words=all,steps=3,checkpoint={choice}").prepare(made)
        most = 0.2 * session.cache.nbytes
        assert (peak_above(lambda: mx.eval(method.step(session).logits)) < most) == few  # noqa: B023


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_exact_relevance_holds_the_inputs_of_the_blocks_and_one_block(dtype):
    made = model("12 x 512", dtype)
    prompt = Prompt(np.random.default_rng(0).integers(5, 8000, 300), spans=[Span("image", 5, 281)])
    config = made.language_model.config
    inputs = 4 * 300 * config.hidden_size * (config.num_hidden_layers + 1)
    block = 4 * 300 * (12 * config.num_attention_heads * 300 + 16 * config.intermediate_size)
    copies = 4 * sum(x.size for _, x in tree_flatten(made.language_model.layers[0].parameters()))
    assert peak_above(lambda: relevance(made, prompt)) < inputs + block + copies * (dtype != "float32")
