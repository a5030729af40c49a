"""Small models, golden numbers and comparisons that several tests share."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
from drawn import draw
from families import FAMILY_OF, spell
from mlx.utils import tree_flatten

from lime_mlx.cache import Overlay
from lime_mlx.checkpoint.load import build, load_model
from lime_mlx.models.base import Model
from lime_mlx.prompt import Prompt, Span

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
FIXTURES = HERE / "fixtures"

# Two queries to a key head, norms on queries and keys: what LIME's deltas can get wrong, in a few thousand weights.
SMALL = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 64,
    "rms_norm_eps": 1e-6,
}


def small_model(seed: int = 0, dtype: mx.Dtype = mx.float32, **changes) -> Model:
    """A random text model; `Prompt` spans make some of its tokens a picture."""
    rng = np.random.default_rng(seed)
    model = build({**SMALL, **changes})
    weights = {}
    for name, array in tree_flatten(model.parameters()):
        noise = rng.standard_normal(array.shape)
        size = 0.5 if "embed_tokens" in name or "lm_head" in name else 0.2
        weights[name] = mx.array((1 + 0.1 * noise if "norm" in name else size * noise).astype(np.float32))
    model.load_weights(list(weights.items()))
    model.set_dtype(dtype)
    return model.eval()


def small_prompt(length: int = 12, start: int = 2, stop: int = 6, vocabulary: int = 64, content=None) -> Prompt:
    """Random tokens of which `start` to `stop` count as a picture; content (V,) bool are the content tokens."""
    ids = np.random.default_rng(length).integers(0, vocabulary, length)
    language = None if content is None else SimpleNamespace(content=content, prompted=np.zeros(vocabulary, bool))
    return Prompt(ids, spans=[Span("image", start, stop)], language=language)


@cache
def fixture(case: str) -> dict[str, np.ndarray]:
    """What transformers writes and computes for a case of `families`; by benchmarks/parity.py."""
    with np.load(FIXTURES / f"parity_{case}.npz") as arrays:
        return dict(arrays)


def prompt_of(fixture: dict) -> Prompt:
    media = {name.removeprefix("media."): value for name, value in fixture.items() if name.startswith("media.")}
    return Prompt(
        fixture["input_ids"], {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in media.items()}
    )


def any_length(model: Model) -> Model:
    """The model with no stated context: some prompts of the cases are longer than their small models state."""
    model.config.get("text_config", {}).pop("max_position_embeddings", None)
    return model


def parity_checkpoint(case: str, folder: Path, spelling: str = "transformers", config: str = "config") -> Path:
    """The checkpoint of a case, with its weights in one of the spellings that are in use."""
    weights = {}
    for name, shape in json.loads(str(fixture(case)["weights"])).items():
        values = draw(name, tuple(shape))
        if spelling == "mlx" and len(shape) > 2:
            values = np.ascontiguousarray(np.moveaxis(values, 1, -1))
        weights[spell(name, FAMILY_OF[case], spelling)] = mx.array(values)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(str(fixture(case)[config]))
    return folder


class Joined:
    """A layer's past and new entries as one array, each treated by the rule as keys and values are."""

    def __init__(self, past, delta, rules):
        _, k, v = rules.operands(past[0], *past)
        self.past, self.delta = (k, v), delta

    def attention(self, q, k, v, scale, mask, rules):
        entries = [mx.concatenate(pair, axis=2) for pair in zip(self.past, (k, v), strict=True)]
        return Overlay(None, self.delta).attention(q, *entries, scale, mask, rules)


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def golden_model(name: str) -> Model:
    return load_model(GOLDEN / name / "model")


def golden_config(name: str) -> dict:
    return json.loads((GOLDEN / name / "model" / "config.json").read_text())


def distance(ours, wanted) -> float:
    """L2 norm of the difference, relative to that of `wanted`."""
    ours, wanted = np.asarray(ours, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    assert ours.shape == wanted.shape
    return float(np.linalg.norm(ours - wanted) / max(np.linalg.norm(wanted), 1e-300))


def excess(ours, wanted, tolerance) -> float:
    """The largest difference, in units of the tolerance."""
    ours, wanted = np.asarray(ours, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    assert ours.shape == wanted.shape
    return float((np.abs(ours - wanted) / tolerance).max())
