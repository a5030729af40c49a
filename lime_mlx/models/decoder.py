"""The one decoder of all families: Llama, Qwen2 (biases on q, k, v) and Qwen3 (norms on q and k).

A function of arrays: embeddings in, hidden states out. What it remembers is passed in, layer by layer, as an object
with an `attention` of its own: a `KVCache` layer that stores, or an `Overlay` that does not.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.rope_utils import initialize_rope

from lime_mlx.cache import Overlay
from lime_mlx.errors import CheckpointError
from lime_mlx.lrp.rules import PLAIN, RATIOS, Rules

from .layers import UNPACK_ROWS, RMSNorm, join_heads, linear, split_heads, unpacked

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
# What transformers assumes when config.json leaves it out, where that is not Llama's value.
QWEN = {"intermediate_size": 22016, "vocab_size": 151936, "max_position_embeddings": 32768}
DEFAULTS = {"qwen2": QWEN, "qwen3": {**QWEN, "head_dim": 128}}


@dataclass(frozen=True)
class DecoderConfig:
    """The text part of config.json. Defaults are Llama's, which sparse hub configs leave out."""

    model_type: str = "llama"
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int = 32000
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    max_position_embeddings: int = 2048
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DecoderConfig":
        """Reads known keys only. Raises `CheckpointError` for a variant that is not built."""
        known = {k: v for k, v in values.items() if k in inspect.signature(cls).parameters and v is not None}
        known = {**DEFAULTS.get(known.get("model_type"), {}), **known}
        rope = known.get("rope_scaling") or values.get("rope_parameters")
        if rope:
            known["rope_theta"] = rope.get("rope_theta", known.get("rope_theta", cls.rope_theta))
            longest = known.get("max_position_embeddings", cls.max_position_embeddings)
            known["rope_scaling"] = _rope_scaling(rope, longest)
        config = cls(**known)
        if config.hidden_act not in RATIOS:
            raise CheckpointError(
                f"config.json asks for the activation {config.hidden_act!r}; supported: {', '.join(sorted(RATIOS))}."
            )
        return config

    @property
    def key_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias or self.model_type.startswith("qwen2")

    @property
    def output_bias(self) -> bool:
        return self.attention_bias and not self.model_type.startswith("qwen2")

    @property
    def qk_norm(self) -> bool:
        return self.model_type.startswith("qwen3")


def _rope_scaling(rope: dict[str, Any], longest: int) -> dict[str, Any] | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise CheckpointError(f"config.json asks for {kind!r} rotary embeddings; supported: {', '.join(ROPE_TYPES)}.")
    if kind == "default":
        return None
    given = {k: v for k, v in rope.items() if v is not None}
    scaling = {"original_max_position_embeddings": longest, **given, "type": kind, "rope_type": kind}
    return _yarn(scaling) if kind == "yarn" else scaling


def _yarn(scaling: dict[str, Any]) -> dict[str, Any]:
    """As transformers reads it: the two mscales count together or not at all, and an attention factor before them."""
    if scaling.get("truncate") is False:
        raise CheckpointError("config.json asks for yarn rotary embeddings without truncation, which is not supported.")
    if not (scaling.get("mscale") and scaling.get("mscale_all_dim")):
        scaling |= {"mscale": 1, "mscale_all_dim": 0}
    if "attention_factor" in scaling and scaling["factor"] > 1:
        growth = 0.1 * math.log(scaling["factor"])
        scaling |= {"mscale": (scaling["attention_factor"] - 1) / growth, "mscale_all_dim": 0}
    return scaling


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.heads, self.key_heads, dim = config.num_attention_heads, config.key_heads, config.dim
        self.scale = dim**-0.5
        self.q_proj = nn.Linear(config.hidden_size, self.heads * dim, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, self.key_heads * dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, self.key_heads * dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.heads * dim, config.hidden_size, bias=config.output_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(dim, config.rms_norm_eps)

    def __call__(self, x, rope, position, mask, memory, rules):
        q = split_heads(linear(self.q_proj, x), self.heads)
        k = split_heads(linear(self.k_proj, x), self.key_heads)
        v = split_heads(linear(self.v_proj, x), self.key_heads)
        if "q_norm" in self:
            q, k = self.q_norm(q, rules), self.k_norm(k, rules)
        q, k, v = rules.operands(rope(q, offset=position), rope(k, offset=position), v)
        return linear(self.o_proj, join_heads(memory.attention(q, k, v, self.scale, mask, rules)))


class MLP(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.activation = config.hidden_act
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def __call__(self, x, rules):
        activated = rules.activation(linear(self.gate_proj, x), self.activation)
        return linear(self.down_proj, rules.gate(activated, linear(self.up_proj, x)))


class Block(nn.Module):
    """One layer: h + attention(norm(h)), then h + mlp(norm(h))."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def __call__(self, h, rope, position, mask, memory, rules):
        h = h + self.self_attn(self.input_layernorm(h, rules), rope, position, mask, memory, rules)
        return h + self.mlp(self.post_attention_layernorm(h, rules), rules)


class Body(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [Block(config) for _ in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.model = Body(config)
        self._rope = initialize_rope(
            config.dim, config.rope_theta, False, config.rope_scaling, config.max_position_embeddings
        )
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def layers(self) -> list[Block]:
        return self.model.layers

    def embed(self, ids: mx.array) -> mx.array:
        """Token embeddings (1, T, D) of ids (T,), in the type of the norms: the fp modes unpack to bfloat16."""
        return self.model.embed_tokens(ids)[None].astype(self.model.norm.weight.dtype)

    def block(self, index: int, h: mx.array, memory, position: int = 0, rules: Rules = PLAIN) -> mx.array:
        """Layer `index` alone: (B, L, D) to (B, L, D), positions counted from `position`."""
        return self.layers[index](h, self._rope, position, _mask(h.shape[1], position, rules), memory, rules)

    def __call__(
        self, h: mx.array, memory: Sequence | None = None, position: int = 0, rules: Rules = PLAIN
    ) -> mx.array:
        """Hidden states after the final norm, (B, L, D), of embeddings (B, L, D) at `position`, `position + 1`, ...

        `memory` has one object per layer; None sees these positions only and keeps nothing.
        """
        mask = _mask(h.shape[1], position, rules)
        for index, layer in enumerate(self.layers):
            h = layer(h, self._rope, position, mask, Overlay() if memory is None else memory[index], rules)
        return self.model.norm(h, rules)

    def head(self, hidden: mx.array) -> mx.array:
        """Logits (..., V) in float32 of hidden states (..., D)."""
        if "lm_head" in self:
            return linear(self.lm_head, hidden).astype(mx.float32)
        table = self.model.embed_tokens
        if isinstance(table, nn.QuantizedEmbedding) and hidden.size >= UNPACK_ROWS * hidden.shape[-1]:
            return (hidden @ unpacked(table, hidden.dtype).T).astype(mx.float32)
        return table.as_linear(hidden).astype(mx.float32)


def _mask(length: int, past: int, rules: Rules):
    """Causal mask (L, past + L), or None for one position, which sees everything before it."""
    if length == 1:
        return None
    return mx.arange(past, past + length)[:, None] >= mx.arange(past + length)[None]
