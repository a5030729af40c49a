"""How the parts of config.json become the dataclasses that towers and decoder are built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json

from .layers import check_activation
from .rope import rope_scaling

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Config:
    """A part of config.json. The defaults of a subclass are those of transformers."""

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        """Reads known keys only; null takes the default. Raises `CheckpointError` for a variant that is not built."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names and value is not None})


def renamed(values: Json, aliases: Mapping[str, str]) -> Json:
    """The values that are set, with other names for some; a value under the right name counts more."""
    given = {name: value for name, value in values.items() if value is not None}
    return {aliases[name]: value for name, value in given.items() if name in aliases} | given


def token_id(config: Json, keys: Sequence[str], default: int, kind: str) -> int:
    """The id of a token, under the first of `keys` that is set. Raises `CheckpointError` for what is no id."""
    token = next((config[key] for key in keys if config.get(key) is not None), default)
    if not isinstance(token, int) or token < 0:
        raise CheckpointError(f"The {kind} token of config.json is {token!r}, which is no token id.")
    return token


def check_type(config: Json, part: str, kind: object, supported: Sequence[str]) -> None:
    """Raises `CheckpointError` where a part of the model is of another `model_type` than those `supported`."""
    if kind not in supported:
        choice = f"supported: {', '.join(supported)}" if len(supported) > 1 else f"only {supported[0]} is supported"
        raise CheckpointError(f"This {config['model_type']} checkpoint has a {kind!r} {part}; {choice}.")


# The text parts that a family takes when it was published with several.
TEXTS = ("llama", "mistral", "qwen2", "qwen3")
SLIDING, FULL = "sliding_attention", "full_attention"
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
    "hidden_act": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
DEFAULTS: dict[str, Json] = {
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
# How the decoder of a model type differs from Llama's. config.json does not say it: these keys are never read from it.
QWEN2_VARIANT = {"qkv_bias": True, "output_bias": False, "window_layers": "last", "window_is_optional": True}
QWEN3_VARIANT = {"qk_norm": True, "window_layers": "last", "window_is_optional": True}
VARIANTS: dict[str, Json] = {
    "mistral": {"window_layers": "all"},
    "qwen2": QWEN2_VARIANT,
    "qwen2_vl_text": QWEN2_VARIANT,
    "qwen2_5_vl_text": QWEN2_VARIANT,
    "qwen2_5_omni_text": QWEN2_VARIANT,
    "qwen3": QWEN3_VARIANT,
    "qwen3_vl_text": QWEN3_VARIANT,
    "gemma3_text": {
        "qk_norm": True,
        "norm_plus_one": True,
        "norms_behind": True,
        "scaled_embeddings": True,
        "window_layers": "pattern",
        "local_rope": True,
    },
}
VARIANT_KEYS = frozenset(key for variant in VARIANTS.values() for key in variant)
# Keys whose null is a value of its own.
NULLABLE = ("sliding_window",)


@dataclass(frozen=True)
class DecoderConfig(Config):
    """The text part of config.json, and how the decoder of its `model_type` differs from Llama's.

    Defaults are Llama's, which sparse hub configs leave out. The last fields are the variants: qkv_bias and output_bias
    of the attention; qk_norm: norms on queries and keys; norm_plus_one: norms whose weight is stored without 1;
    norms_behind: norms behind attention and MLP too; scaled_embeddings: by the root of their width; local_rope: layers
    with a window rotate by `rope_local_base_freq`; window_layers: "none", "all", all but each last of a "pattern", or
    the "last" from `max_window_layers` on have a window, where `layer_types` does not say it; window_is_optional: it
    counts only with `use_sliding_window`.
    """

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
    rope_scaling: Json | None = None
    rope_local_base_freq: float = 10000.0
    max_position_embeddings: int = 2048
    hidden_act: str = "silu"
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    query_pre_attn_scalar: float | None = None
    final_logit_softcapping: float | None = None
    sliding_window: int | None = None
    use_sliding_window: bool = False
    max_window_layers: int = 28
    sliding_window_pattern: int = 6
    layer_types: Sequence[str] | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    norm_plus_one: bool = False
    norms_behind: bool = False
    scaled_embeddings: bool = False
    local_rope: bool = False
    window_layers: str = "none"
    window_is_optional: bool = False

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        if values.get("use_bidirectional_attention"):
            raise CheckpointError("This text part attends both ways (use_bidirectional_attention): it is no decoder.")
        values = {"hidden_act": values.get("hidden_activation"), **values}
        names = {field.name for field in fields(cls)} - VARIANT_KEYS
        given = {k: v for k, v in values.items() if k in names and (v is not None or k in NULLABLE)}
        kind = given.get("model_type", cls.model_type)
        given = {**DEFAULTS.get(kind, {}), **given}
        bias = bool(values.get("attention_bias"))
        given = {**given, "qkv_bias": bias, "output_bias": bias, **VARIANTS.get(kind, {})}
        rope = given.pop("rope_scaling", None) or values.get("rope_parameters") or {}
        if FULL in rope or SLIDING in rope:
            local, rope = rope.get(SLIDING) or {}, rope.get(FULL) or {}
            given |= {"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {}
        given["rope_theta"] = rope.get("rope_theta", given.get("rope_theta", cls.rope_theta))
        given["rope_scaling"] = rope_scaling(rope, given.get("max_position_embeddings", cls.max_position_embeddings))
        config = cls(**given)
        check_activation(config.hidden_act)
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
        return float((self.query_pre_attn_scalar or self.dim) ** -0.5)

    @property
    def windows(self) -> list[int | None]:
        """How many positions each layer sees back, itself included; None sees all."""
        count, window = self.num_hidden_layers, self.sliding_window
        if window is None or (self.window_is_optional and not self.use_sliding_window):
            return [None] * count
        if self.layer_types is not None:
            return [window if kind == SLIDING else None for kind in self.layer_types]
        return [window if self._slides(index) else None for index in range(count)]

    def _slides(self, layer: int) -> bool:
        if self.window_layers == "pattern":
            return bool((layer + 1) % self.sliding_window_pattern)
        return self.window_layers == "all" or (self.window_layers == "last" and layer >= self.max_window_layers)
