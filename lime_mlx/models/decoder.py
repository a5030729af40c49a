"""The one decoder of all families: Llama, Mistral, Qwen2 (biases on q, k, v), Qwen3 (norms on q and k) and Gemma 3.

A function of arrays: embeddings in, hidden states out. What it remembers is passed in, layer by layer, as an object
with an `attention` of its own: a `KVCache` layer that stores, or an `Overlay` that does not. Where positions stand and
what they see is passed in as a `Positions`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.cache import Overlay
from lime_mlx.errors import CheckpointError
from lime_mlx.lrp.rules import PLAIN, RATIOS, Rules
from lime_mlx.positions import SEQUENCE, Positions

from .layers import UNPACK_ROWS, RMSNorm, join_heads, linear, split_heads, unpacked
from .rope import Rope, rope_scaling

# What transformers assumes when config.json leaves it out, where that is not Llama's value.
QWEN = {"intermediate_size": 22016, "vocab_size": 151936, "max_position_embeddings": 32768}
QWEN_VL = {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "sliding_window": 4096,
    "max_window_layers": 80,
}
GEMMA = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
DEFAULTS = {
    "mistral": {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": QWEN,
    "qwen3": {**QWEN, "head_dim": 128},
    "qwen2_vl_text": QWEN_VL,
    "qwen2_5_vl_text": QWEN_VL,
    "qwen2_5_omni_text": {
        **QWEN_VL,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "sliding_window": 32768,
        "max_window_layers": 28,
    },
    "qwen3_vl_text": {**QWEN, "head_dim": 128, "max_position_embeddings": 128000, "rope_theta": 5e5},
    "gemma3_text": GEMMA,
}
# Keys whose null is a value of its own.
NULLABLE = ("sliding_window",)
SLIDING, FULL = "sliding_attention", "full_attention"


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
    rope_local_base_freq: float | None = None
    max_position_embeddings: int = 2048
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    query_pre_attn_scalar: float | None = None
    final_logit_softcapping: float | None = None
    sliding_window: int | None = None
    use_sliding_window: bool = False
    max_window_layers: int = 28
    sliding_window_pattern: int = 6
    layer_types: Sequence[str] | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DecoderConfig":
        """Reads known keys only. Raises `CheckpointError` for a variant that is not built."""
        if values.get("use_bidirectional_attention"):
            raise CheckpointError("This text part attends both ways (use_bidirectional_attention): it is no decoder.")
        values = {"hidden_act": values.get("hidden_activation"), **values}
        known = {
            k: v
            for k, v in values.items()
            if k in inspect.signature(cls).parameters and (v is not None or k in NULLABLE)
        }
        known = {**DEFAULTS.get(known.get("model_type"), {}), **known}
        if known.get("model_type") == "gemma3_text":
            known.setdefault("hidden_act", "gelu_pytorch_tanh")
        rope = known.pop("rope_scaling", None) or values.get("rope_parameters") or {}
        if FULL in rope or SLIDING in rope:
            local, rope = rope.get(SLIDING) or {}, rope.get(FULL) or {}
            known["rope_local_base_freq"] = local.get("rope_theta", known.get("rope_local_base_freq"))
        known["rope_theta"] = rope.get("rope_theta", known.get("rope_theta", cls.rope_theta))
        known["rope_scaling"] = rope_scaling(rope, known.get("max_position_embeddings", cls.max_position_embeddings))
        config = cls(**known)
        if config.hidden_act not in RATIOS:
            raise CheckpointError(
                f"config.json asks for the activation {config.hidden_act!r}; supported: {', '.join(sorted(RATIOS))}."
            )
        if unknown := set(config.layer_types or ()) - {FULL, SLIDING}:
            raise CheckpointError(f"config.json has layers of type {min(unknown)!r}; supported: {FULL}, {SLIDING}.")
        return config

    @property
    def key_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def scale(self) -> float:
        """What attention scores are multiplied by."""
        return (self.query_pre_attn_scalar or self.dim) ** -0.5

    @property
    def gemma(self) -> bool:
        return self.model_type.startswith("gemma3")

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias or self.model_type.startswith("qwen2")

    @property
    def output_bias(self) -> bool:
        return self.attention_bias and not self.model_type.startswith("qwen2")

    @property
    def qk_norm(self) -> bool:
        return self.gemma or self.model_type.startswith("qwen3")

    @property
    def windows(self) -> list[int | None]:
        """How many positions each layer sees back, itself included; None sees all."""
        count, window = self.num_hidden_layers, self.sliding_window
        if window is None or (self.model_type.startswith("qwen") and not self.use_sliding_window):
            return [None] * count
        if self.layer_types is not None:
            slides = [kind == SLIDING for kind in self.layer_types]
        elif self.gemma:
            slides = [bool((index + 1) % self.sliding_window_pattern) for index in range(count)]
        elif self.model_type.startswith("qwen"):
            slides = [index >= self.max_window_layers for index in range(count)]
        else:
            slides = [self.model_type == "mistral"] * count
        return [window if slide else None for slide in slides]


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.heads, self.key_heads, dim = config.num_attention_heads, config.key_heads, config.dim
        self.scale = config.scale
        self.q_proj = nn.Linear(config.hidden_size, self.heads * dim, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, self.key_heads * dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, self.key_heads * dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.heads * dim, config.hidden_size, bias=config.output_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(dim, config.rms_norm_eps, config.gemma)
            self.k_norm = RMSNorm(dim, config.rms_norm_eps, config.gemma)

    def __call__(self, x, rotate, mask, memory, rules):
        q = split_heads(linear(self.q_proj, x), self.heads)
        k = split_heads(linear(self.k_proj, x), self.key_heads)
        v = split_heads(linear(self.v_proj, x), self.key_heads)
        if "q_norm" in self:
            q, k = self.q_norm(q, rules), self.k_norm(k, rules)
        q, k, v = rules.operands(rotate(q), rotate(k), v)
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
    """One layer: h + attention(norm(h)), then h + mlp(norm(h)). Gemma 3 has norms behind both, too."""

    def __init__(self, config: DecoderConfig, window: int | None):
        super().__init__()
        norm = lambda: RMSNorm(config.hidden_size, config.rms_norm_eps, config.gemma)  # noqa: E731
        self.window = window
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = norm()
        self.post_attention_layernorm = norm()
        if config.gemma:
            self.pre_feedforward_layernorm = norm()
            self.post_feedforward_layernorm = norm()

    def __call__(self, h, rotate, mask, memory, rules):
        attended = self.self_attn(self.input_layernorm(h, rules), rotate, mask, memory, rules)
        if "pre_feedforward_layernorm" not in self:
            h = h + attended
            return h + self.mlp(self.post_attention_layernorm(h, rules), rules)
        h = h + self.post_attention_layernorm(attended, rules)
        return h + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(h, rules), rules), rules)


class Body(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [Block(config, window) for window in config.windows]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, config.gemma)


class Decoder(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.model = Body(config)
        longest, local = config.max_position_embeddings, config.rope_local_base_freq
        self._rope = Rope(config.dim, config.rope_theta, config.rope_scaling, longest)
        self._local_rope = Rope(config.dim, local, None, longest) if config.gemma else self._rope
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def layers(self) -> list[Block]:
        return self.model.layers

    def embed(self, ids: mx.array) -> mx.array:
        """Token embeddings (1, T, D) of ids (T,), in the type of the norms: the fp modes unpack to bfloat16."""
        embeds = self.model.embed_tokens(ids)[None].astype(self.model.norm.weight.dtype)
        return embeds * self.config.hidden_size**0.5 if self.config.gemma else embeds

    def block(
        self, index: int, h: mx.array, memory, position: int = 0, rules: Rules = PLAIN, positions: Positions = SEQUENCE
    ) -> mx.array:
        """Layer `index` alone: (B, L, D) to (B, L, D), positions counted from `position`."""
        rotate, mask = self._see(position, h.shape[1], positions)(self.layers[index].window)
        return self.layers[index](h, rotate, mask, memory, rules)

    def __call__(
        self,
        h: mx.array,
        memory: Sequence | None = None,
        position: int = 0,
        rules: Rules = PLAIN,
        positions: Positions = SEQUENCE,
        observers: Mapping[int, Callable[[mx.array], None]] | None = None,
    ) -> mx.array:
        """Hidden states after the final norm, (B, L, D), of embeddings (B, L, D) at `position`, `position + 1`, ...

        `memory` has one object per layer; None sees these positions only and keeps nothing. observers: of some layers,
        called with the hidden states (B, L, D) behind the layer.
        """
        see = self._see(position, h.shape[1], positions)
        for index, layer in enumerate(self.layers):
            rotate, mask = see(layer.window)
            h = layer(h, rotate, mask, Overlay() if memory is None else memory[index], rules)
            feature = positions.feature(index, position, h.shape[1])
            h = h if feature is None else h + feature.astype(h.dtype)
            if observers and index in observers:
                observers[index](h)
        return self.model.norm(h, rules)

    def _see(self, position: int, length: int, positions: Positions):
        """From a layer's window to how it rotates and what it sees, worked out once for each kind of layer."""
        place = positions.at(position, length)

        @cache
        def see(window: int | None):
            rope = self._rope if window is None else self._local_rope
            turn = rope.turn(place)
            return (lambda x: rope(x, turn)), positions.mask(position, length, window)

        return see

    def head(self, hidden: mx.array, rules: Rules = PLAIN) -> mx.array:
        """Logits (..., V) in float32 of hidden states (..., D)."""
        logits, cap = self._scores(hidden).astype(mx.float32), self.config.final_logit_softcapping
        return rules.softcap(logits, cap) if cap else logits

    def _scores(self, hidden: mx.array) -> mx.array:
        if "lm_head" in self:
            return linear(self.lm_head, hidden)
        table = self.model.embed_tokens
        if isinstance(table, nn.QuantizedEmbedding) and hidden.size >= UNPACK_ROWS * hidden.shape[-1]:
            return hidden @ unpacked(table, hidden.dtype).T
        return table.as_linear(hidden)
