"""The one decoder of all families: Llama, Mistral, Qwen2 (biases on q, k, v), Qwen3 (norms on q and k) and Gemma 3.

The decoder is a function of arrays: embeddings in, hidden states out. The caller passes one `Memory` for each layer: a
layer of a `KVCache`, which stores entries, or an `Overlay`, which does not. A `Positions` gives positions and masks.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.attention import Memory, attend
from lime_mlx.cache import Overlay
from lime_mlx.lrp.rules import PLAIN, Rules
from lime_mlx.positions import SEQUENCE, Positions

from .config import DecoderConfig
from .layers import UNPACK_ROWS, Module, RMSNorm, join_heads, linear, split_heads, unpacked
from .rope import Rope

__all__ = ["MLP", "Decoder", "DecoderConfig"]


Rotation = Callable[[mx.array], mx.array]


class Attention(Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.key_heads, dim = config.num_attention_heads, config.key_heads, config.dim
        self.scale = config.scale
        self.q_proj = nn.Linear(config.hidden_size, self.heads * dim, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, self.key_heads * dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, self.key_heads * dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.heads * dim, config.hidden_size, bias=config.output_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(dim, config.rms_norm_eps, config.norm_plus_one)
            self.k_norm = RMSNorm(dim, config.rms_norm_eps, config.norm_plus_one)

    def __call__(self, x: mx.array, rotate: Rotation, mask: mx.array | None, memory: Memory, rules: Rules) -> mx.array:
        q = split_heads(linear(self.q_proj, x), self.heads)
        k = split_heads(linear(self.k_proj, x), self.key_heads)
        v = split_heads(linear(self.v_proj, x), self.key_heads)
        if "q_norm" in self:
            q, k = self.q_norm(q, rules), self.k_norm(k, rules)
        q, k, v = rules.operands(rotate(q), rotate(k), v)
        return linear(self.o_proj, join_heads(memory.attention(q, k, v, self.scale, mask, rules)))

    def attended(self, x: mx.array, weights: mx.array, past: mx.array) -> mx.array:
        """(1, 1, D) by attention weights (1, K, G, 1, T), from past values (1, K, T - 1, d) and that of x (1, 1, D)."""
        v = mx.concatenate([past, split_heads(linear(self.v_proj, x), self.key_heads)], axis=2)
        return linear(self.o_proj, join_heads(attend(weights, v)))


class Widths(Protocol):
    """The config of the gated layers after the attention."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def intermediate_size(self) -> int: ...

    @property
    def hidden_act(self) -> str: ...

    @property
    def mlp_bias(self) -> bool: ...


class MLP(Module):
    def __init__(self, config: Widths) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def __call__(self, x: mx.array, rules: Rules) -> mx.array:
        activated = rules.activation(linear(self.gate_proj, x), self.activation)
        return linear(self.down_proj, rules.gate(activated, linear(self.up_proj, x)))


class Block(Module):
    """One layer: h + attention(norm(h)), then h + mlp(norm(h)). Gemma 3 also has norms after both."""

    def __init__(self, config: DecoderConfig, window: int | None) -> None:
        super().__init__()
        norm = partial(RMSNorm, config.hidden_size, config.rms_norm_eps, config.norm_plus_one)
        self.window = window
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = norm()
        self.post_attention_layernorm = norm()
        if config.norms_behind:
            self.pre_feedforward_layernorm = norm()
            self.post_feedforward_layernorm = norm()

    def __call__(self, h: mx.array, rotate: Rotation, mask: mx.array | None, memory: Memory, rules: Rules) -> mx.array:
        attended = self.self_attn(self.input_layernorm(h, rules), rotate, mask, memory, rules)
        if "pre_feedforward_layernorm" in self:
            attended = self.post_attention_layernorm(attended, rules)
        return self.feed_forward(h + attended, rules)

    def feed_forward(self, h: mx.array, rules: Rules = PLAIN) -> mx.array:
        """The layer's second half."""
        if "pre_feedforward_layernorm" not in self:
            return h + self.mlp(self.post_attention_layernorm(h, rules), rules)
        return h + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(h, rules), rules), rules)


class Body(Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [Block(config, window) for window in config.windows]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, config.norm_plus_one)


class Decoder(Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        longest = config.max_position_embeddings
        self._rope = self._local_rope = Rope(config.dim, config.rope_theta, config.rope_scaling, longest)
        if config.local_rope:
            self._local_rope = Rope(config.dim, config.rope_local_base_freq, None, longest)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def layers(self) -> list[Block]:
        return self.model.layers

    def embed(self, ids: mx.array) -> mx.array:
        """Token embeddings (1, T, D) of ids (T,), in the dtype of the norms, since the fp modes unpack to bfloat16."""
        embeds: mx.array = self.model.embed_tokens(ids)[None].astype(self.model.norm.weight.dtype)
        return embeds * self.config.hidden_size**0.5 if self.config.scaled_embeddings else embeds

    def block(
        self,
        index: int,
        h: mx.array,
        memory: Memory,
        start: int = 0,
        rules: Rules = PLAIN,
        positions: Positions = SEQUENCE,
    ) -> mx.array:
        """Layer `index` alone: (B, L, D) to (B, L, D), positions counted from `start`."""
        rotate, mask = self._views(start, h.shape[1], positions)(self.layers[index].window)
        return self.layers[index](h, rotate, mask, memory, rules)

    def __call__(
        self,
        h: mx.array,
        memory: Sequence[Memory] | None = None,
        start: int = 0,
        rules: Rules = PLAIN,
        positions: Positions = SEQUENCE,
        observers: Mapping[int, Callable[[mx.array], None]] | None = None,
    ) -> mx.array:
        """Hidden states after the final norm, (B, L, D), of embeddings (B, L, D) at `start`, `start + 1`, ...

        memory: one `Memory` for each layer. None attends to these positions only and stores nothing. observers: of some
        layers; each gets the hidden states (B, L, D) behind its layer.
        """
        view = self._views(start, h.shape[1], positions)
        for index, layer in enumerate(self.layers):
            rotate, mask = view(layer.window)
            h = layer(h, rotate, mask, Overlay() if memory is None else memory[index], rules)
            feature = positions.feature(index, start, h.shape[1])
            h = h if feature is None else h + feature.astype(h.dtype)
            if observers and index in observers:
                observers[index](h)
        return self.model.norm(h, rules)

    def _views(
        self, start: int, length: int, positions: Positions
    ) -> Callable[[int | None], tuple[Rotation, mx.array | None]]:
        """A function from the window of a layer to its rotation and mask, each computed once for a window."""
        coordinates = positions.at(start, length)

        @cache
        def view(window: int | None) -> tuple[Rotation, mx.array | None]:
            rope = self._rope if window is None else self._local_rope
            angles = rope.angles(coordinates)
            return (lambda x: rope(x, angles)), positions.mask(start, length, window)

        return view

    def head(self, hidden: mx.array, rules: Rules = PLAIN) -> mx.array:
        """Logits (..., V) in float32 of hidden states (..., D)."""
        logits, cap = self._unembedded(hidden).astype(mx.float32), self.config.final_logit_softcapping
        return rules.softcap(logits, cap) if cap else logits

    def _unembedded(self, hidden: mx.array) -> mx.array:
        if "lm_head" in self:
            return linear(self.lm_head, hidden)
        table = self.model.embed_tokens
        if isinstance(table, nn.QuantizedEmbedding) and hidden.size >= UNPACK_ROWS * hidden.shape[-1]:
            return hidden @ unpacked(table, hidden.dtype).T
        logits: mx.array = table.as_linear(hidden)
        return logits
