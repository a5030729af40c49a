"""Dataclasses for the parts of config.json. The towers and the decoder are built from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import UnionType
from typing import TYPE_CHECKING, get_args, get_type_hints

from lime_mlx import limits
from lime_mlx.errors import CheckpointError, short
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
        given = {name: value for name, value in values.items() if name in names and value is not None}
        check_values(cls, given)
        return cls(**given)


# The limits of whole numbers, by a part of their names; the first that fits counts.
NUMBERS = (
    ("layers", limits.LAYERS),
    ("depth", limits.LAYERS),
    ("image_size", limits.SIDE),
    ("patch", limits.SIDE),
    ("window", limits.POSITIONS),
    ("positions", limits.POSITIONS),
    ("position_embeddings", limits.POSITIONS),
    ("", limits.WIDTH),
)
LARGEST = 1e30  # of floats: their squares are still finite in float64, and rope's powers in float32


def check_values(cls: type[Config], values: Json) -> None:
    """Raises `ValueError` for a value of another type than its field has, or beyond the limits."""
    for name, hint in get_type_hints(cls).items():
        kinds, value = {*get_args(hint)} if isinstance(hint, UnionType) else {hint}, values.get(name)
        if value is None:
            continue
        if int in kinds:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} is {short(repr(value))}, which is no whole number")
            next(limit for part, limit in NUMBERS if part in name).check(value, name, ValueError)
        elif float in kinds:
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LARGEST:
                raise ValueError(f"{name} is {short(repr(value))}, which is no number from 0 to {LARGEST:g}")
        elif str in kinds and not isinstance(value, str):
            raise ValueError(f"{name} is {short(repr(value))}, which is no text")


def renamed(values: Json, aliases: Mapping[str, str]) -> Json:
    """The values that are not null, with aliases replaced by names. A value under the name itself has priority."""
    given = {name: value for name, value in values.items() if value is not None}
    return {aliases[name]: value for name, value in given.items() if name in aliases} | given


def token_id(config: Json, keys: Sequence[str], default: int, kind: str) -> int:
    """The token id under the first of `keys` that is set. Raises `CheckpointError` when the value is no token id."""
    token = next((config[key] for key in keys if config.get(key) is not None), default)
    if not is_token(token):
        raise CheckpointError(f"The {kind} token of config.json is {short(repr(token))}, which is no token id.")
    assert isinstance(token, int)
    return token


def is_token(value: object) -> bool:
    """Whether a value can be the id of a token: a whole number of 31 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def check_type(config: Json, part: str, kind: object, supported: Sequence[str]) -> None:
    """Raises `CheckpointError` where a part of the model is of another `model_type` than those `supported`."""
    if kind not in supported:
        choice = f"supported: {', '.join(supported)}" if len(supported) > 1 else f"only {supported[0]} is supported"
        raise CheckpointError(f"This {config['model_type']} checkpoint has a {kind!r} {part}; {choice}.")


# The decoders that families with several published text parts can have.
TEXTS = ("llama", "mistral", "qwen2", "qwen3")
SLIDING, FULL = "sliding_attention", "full_attention"
# The defaults of transformers for keys that config.json leaves out, where they differ from Llama's.
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
# How the decoder of a model type differs from Llama's. These keys are never read from config.json.
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
# Keys for which null is a value and not a missing key.
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
        check_values(cls, given)
        config = cls(**given)
        check_activation(config.hidden_act)
        if unknown := set(config.layer_types or ()) - {FULL, SLIDING}:
            raise CheckpointError(f"config.json has layers of type {min(unknown)!r}; supported: {FULL}, {SLIDING}.")
        return config

    def check_heads(self) -> None:
        """Raises `ValueError` for heads that do not divide the width, or each other."""
        if not self.head_dim and self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size:,}")
        if self.num_attention_heads % self.key_heads:
            raise ValueError(f"{self.key_heads} heads of keys do not divide {self.num_attention_heads} heads")
        if self.dim % 2 or not self.rope_theta:
            raise ValueError("rotary embeddings need heads of an even width, and a rope_theta above 0")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types has {len(self.layer_types):,} entries for {self.num_hidden_layers} layers")

    @property
    def key_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def scale(self) -> float:
        """The factor of the attention scores."""
        return float((self.query_pre_attn_scalar or self.dim) ** -0.5)

    @property
    def windows(self) -> list[int | None]:
        """For each layer, how many positions a query attends to, its own included. None means all."""
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
