"""The small model of helpers.py again, in NumPy and double precision: one token against a cache."""

import numpy as np
from mlx.utils import tree_flatten


class Reference:
    def __init__(self, model):
        self.config = model.language_model.config
        self.weights = {
            name.removeprefix("language_model."): np.array(array, dtype=np.float64)
            for name, array in tree_flatten(model.parameters())
        }

    def logits(self, embed, past, deltas=None):
        """Logits (V,) of `embed` (D,) after each layer's past keys and values, (H, T, d); deltas are on all entries."""
        h, position = embed, past[0][0].shape[1]
        for index, (keys, values) in enumerate(past):
            x = self.norm(h, f"model.layers.{index}.input_layernorm")
            h = h + self.attention(x, index, keys, values, position, deltas and deltas[index])
            x = self.norm(h, f"model.layers.{index}.post_attention_layernorm")
            gate, up = self.linear(x, index, "mlp.gate_proj"), self.linear(x, index, "mlp.up_proj")
            h = h + self.linear(gate / (1 + np.exp(-gate)) * up, index, "mlp.down_proj")
        return self.weights["lm_head.weight"] @ self.norm(h, "model.norm")

    def attention(self, x, index, keys, values, position, delta):
        config, prefix = self.config, f"model.layers.{index}.self_attn"
        q, k, v = (self.linear(x, index, f"self_attn.{p}_proj").reshape(-1, config.dim) for p in "qkv")
        q, k = (self.rotate(self.norm(x, f"{prefix}.{n}_norm"), position) for x, n in ((q, "q"), (k, "k")))
        heads, groups = len(q), len(q) // len(k)
        keys = np.repeat(np.concatenate([keys, k[:, None]], axis=1), groups, axis=0)
        values = np.repeat(np.concatenate([values, v[:, None]], axis=1), groups, axis=0)
        if delta is not None:
            dk, dv = (np.repeat(d, heads // len(d), axis=0) for d in delta)
            keys, values = keys + dk, values + dv
        weights = np.exp((keys @ q[:, :, None])[..., 0] / np.sqrt(config.dim))
        weights /= weights.sum(-1, keepdims=True)
        return self.linear((weights[:, None] @ values).reshape(-1), index, "self_attn.o_proj")

    def linear(self, x, index, name):
        return self.weights[f"model.layers.{index}.{name}.weight"] @ x

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config.rms_norm_eps) * self.weights[f"{name}.weight"]

    def rotate(self, x, position):
        half = self.config.dim // 2
        angle = position * self.config.rope_theta ** (-np.arange(half) / half)
        a, b = x[:, :half], x[:, half:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=-1)

    def relevance(self, embed, past, target, deltas=None, small=1e-5):
        """(T + 1,): how the logit of `target` grows when one position's keys and values, or the embedding, do."""

        def logit(position, share):
            if position == len(slopes) - 1:
                return self.logits(embed * (1 + share), past, deltas)[target]
            factor = np.ones((past[0][0].shape[1], 1))
            factor[position] += share
            return self.logits(embed, [(k * factor, v * factor) for k, v in past], deltas)[target]

        slopes = np.zeros(past[0][0].shape[1] + 1)
        for position in range(len(slopes)):
            slopes[position] = (logit(position, small) - logit(position, -small)) / (2 * small)
        return slopes
