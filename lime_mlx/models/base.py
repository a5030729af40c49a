"""What every family shares: the interface that methods and the generation loop see."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from threading import RLock
from typing import ClassVar, NamedTuple, TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import PromptError
from lime_mlx.files import Json
from lime_mlx.lrp.rules import PLAIN, Rules
from lime_mlx.positions import SEQUENCE, Positions
from lime_mlx.processor import AnyMedium, Settings
from lime_mlx.prompt import MODALITIES, NOUNS, Part, Prompt, Source, Span, divided, modality_mask, runs

from .decoder import Decoder
from .layers import Module, Tower

T = TypeVar("T")
# For each kind of media, what the towers give: the features (positions, D) that stand for the pictures or sounds, and
# behind them those that are added to the output of the decoder's first layers, if there are any.
Features = Mapping[str, Sequence[mx.array]]
# A kind ("image", "audio") and one picture or sound to its features, as in `Features`.
Encode = Callable[[str, Source], Sequence[mx.array]]
Renames = Sequence[tuple[str, str]]
# Of families whose modules transformers calls vision_tower and multi_modal_projector.
PROJECTED: Renames = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
    (r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
)
Weights = dict[str, mx.array]
Levels = NDArray[np.float32]
# The media array that holds the levels of each kind.
LEVELS = {"image": "pixel_values", "audio": "input_features"}


def rename(weights: Mapping[str, T], renames: Renames, drop: Iterable[str] = ()) -> dict[str, T]:
    """Apply (regex, replacement) pairs in order to every name; drop names that contain one of `drop`."""
    out = {}
    for name, value in weights.items():
        if any(part in name for part in drop):
            continue
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    return out


class Inputs(NamedTuple):
    """What the decoder starts from: merged embeddings (1, T, D), and their positions."""

    embeds: mx.array
    positions: Positions = SEQUENCE


class Model(Module):
    """A family: tower and connector (its own), and `language_model`, the one decoder.

    A subclass sets `renames` (weight spellings to ours, applied in order). When it takes media, it also overrides
    `media`, `tokens`, and `pictures` or `sounds`; `parts` where the media arrays tell what the placeholders stand for.
    `chat_template` names the file in templates/ for checkpoints that have none. `framed`: a token of its own stands
    before and after each picture or sound and belongs to it. `blanks`: the level of an even picture and of silence,
    after the preprocessing. `published`: from our names to those under which MLX checkpoints are shared (mlx-vlm,
    mlx-lm), where they differ; `published_head`: a tied head is among them. `lock`: of the thread that computes.
    """

    renames: ClassVar[Renames] = ()
    published: ClassVar[Renames] = ()
    published_head: ClassVar[bool] = False
    drop: ClassVar[Sequence[str]] = ("position_ids", "rotary_emb.inv_freq")
    chat_template: ClassVar[str | None] = None
    framed: ClassVar[bool] = False
    # Pixels are normalised around 0; log-mel features of silence are (log10(1e-10) + 4) / 4.
    blanks: ClassVar[Mapping[str, float]] = {"image": 0.0, "audio": -1.5}

    language_model: Decoder

    def __init__(self, config: Json) -> None:
        super().__init__()
        self._config = config
        self.lock = RLock()
        self._placeholders = self.tokens(config)

    @property
    def config(self) -> Json:
        """config.json as it was read, with the detector that the user calibrated, if any."""
        return self._config

    @classmethod
    def media(cls, config: Json, settings: Settings) -> Sequence[AnyMedium]:
        """How pictures and sounds are taken, by config.json and the settings of the processor."""
        return ()

    @classmethod
    def tokens(cls, config: Json) -> dict[str, int]:
        """For each kind that the family takes, the id of the token that is repeated for its positions.

        Raises `CheckpointError` where config.json gives no token id.
        """
        return {}

    @classmethod
    def text(cls, config: Json) -> Json:
        """The part of config.json that describes the decoder."""
        text: Json = config.get("text_config") or config
        return text

    @classmethod
    def template(cls, config: Json) -> str | None:
        """The chat template of checkpoints that have none."""
        return None if cls.chat_template is None else bundled_template(cls.chat_template)

    @classmethod
    def rename(cls, name: str) -> str:
        """Our name of one weight or module path."""
        return next(iter(rename({name: None}, cls.renames)))

    @classmethod
    def publish(cls, name: str) -> str:
        """The name of one weight or module path in MLX checkpoints, of which `rename` makes ours again."""
        return next(iter(rename({name: None}, cls.published)))

    def sanitize(self, weights: Weights) -> Weights:
        """Names and layouts of this module tree, from any known spelling. Idempotent."""
        weights = rename(weights, self.renames, self.drop)
        if "lm_head" not in self.language_model:
            weights = {k: v for k, v in weights.items() if not k.startswith("language_model.lm_head.")}
        for path, module in nn.Module.named_modules(self):
            if isinstance(module, Tower):
                weights = module.sanitize(weights, f"{path}.")
        return weights

    @property
    def image_token(self) -> int:
        """The token that is repeated for the positions of a picture."""
        return self._placeholders["image"]

    @property
    def audio_token(self) -> int:
        """The token that is repeated for the positions of a sound."""
        return self._placeholders["audio"]

    def pictures(self, prompt: Prompt) -> mx.array:
        """The features of a prompt's pictures, one for each position, (positions, D)."""
        raise NotImplementedError

    def sounds(self, prompt: Prompt) -> mx.array:
        """The features of a prompt's sounds, one for each position, (positions, D)."""
        raise NotImplementedError

    def parts(self, kind: str, media: Mapping[str, object]) -> Sequence[Part]:
        """What the media arrays tell of the parts that the placeholders of a kind stand for; nothing is no error."""
        return ()

    def encode(self, kind: str, prompt: Prompt) -> Sequence[mx.array]:
        """The features of the pictures ("image") or sounds ("audio") of a prompt, as in `Features`."""
        computed = {"image": self.pictures, "audio": self.sounds}[kind]
        return [computed(prompt)]

    def kinds(self, prompt: Prompt) -> list[str]:
        """The kinds of the pictures and sounds that a prompt has, of those that the family takes."""
        return [kind for kind in self._placeholders if prompt.media.get(LEVELS[kind]) is not None]

    def embed(self, prompt: Prompt, features: Features | None = None) -> mx.array:
        """Merged input embeddings (1, T, D): text, with the features of the media at their positions.

        features: those of a kind that are already computed. Raises `PromptError` where prompt and media do not fit.
        """
        if prompt.media and not self._placeholders:
            raise PromptError("This model reads text only; leave the picture or sound out, or choose another model.")
        embeds, features, kinds = self.language_model.embed(self.ids(prompt)), features or {}, self.kinds(prompt)
        for kind, token in self._placeholders.items():
            positions = np.flatnonzero(prompt.input_ids == token)
            if kind in kinds:
                stands, *_ = features[kind] if kind in features else self.encode(kind, prompt)
                embeds = merge(embeds, stands, positions, kind)
            elif positions.size:
                noun = NOUNS[kind][0]
                raise PromptError(f"The prompt has a place for a {noun}, but no {noun} was given.")
        return embeds

    def inputs(self, prompt: Prompt, features: Features | None = None) -> Inputs:
        """Merged input embeddings, and their positions. features: as for `embed`."""
        return Inputs(self.embed(prompt, features))

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        """Which positions came from which picture or sound, part by part, and how they lie on it where that is known.

        Spans that the prompt itself gives are taken as they are.
        """
        if prompt.spans is not None:
            return tuple(prompt.spans)
        spans: list[Span] = []
        for kind, token in self._placeholders.items():
            parts = prompt.parts.get(kind) or self.parts(kind, prompt.media)
            spans += divided(runs(prompt.input_ids, token, kind), parts)
        return tuple(sorted(spans, key=lambda span: span.start))

    @property
    def context(self) -> int | None:
        """The most positions that config.json states for the decoder; None where it states none."""
        stated = self.text(self._config).get("max_position_embeddings")
        return stated if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0 else None

    def modalities(self, prompt: Prompt) -> dict[str, NDArray[np.bool_]]:
        """(T,) bool for "image" and "audio": positions that count as picture and as sound.

        Spans that the prompt itself gives count as they are.
        """
        spans = self.spans(prompt)
        if self.framed and prompt.spans is None:
            spans = tuple(Span(s.kind, max(s.start - 1, 0), min(s.stop + 1, len(prompt))) for s in spans)
        return {kind: modality_mask([s for s in spans if s.kind == kind], len(prompt)) for kind in MODALITIES}

    def modality(self, prompt: Prompt) -> NDArray[np.bool_]:
        """(T,) bool: positions that count as picture or sound."""
        masks = self.modalities(prompt)
        return masks["image"] | masks["audio"]

    def changed(self, prompt: Prompt, kind: str, change: Callable[[Levels], Levels]) -> Prompt:
        """The prompt with other levels of its pictures ("image") or sounds ("audio"), from the levels that it has.

        Levels are pixels, or log-mel features, as they come from the preprocessing. Raises `PromptError` where the
        prompt has none of this kind.
        """
        levels = prompt.media.get(LEVELS[kind])
        if levels is None:
            raise PromptError(f"The prompt has no {NOUNS[kind][0]} to change.")
        media = {**prompt.media, LEVELS[kind]: change(np.asarray(levels, dtype=np.float32))}
        return replace(prompt, media=media, sources={})

    def blank(self, prompt: Prompt) -> Prompt:
        """The prompt with even pictures and silence of the same size."""
        for kind, level in self.blanks.items():
            if prompt.media.get(LEVELS[kind]) is not None:
                prompt = self.changed(prompt, kind, partial(np.full_like, fill_value=level))
        return prompt

    def ids(self, prompt: Prompt) -> mx.array:
        """Token ids (T,), with 0 for the placeholders: the vocabulary may end before them.

        Raises `PromptError` for another token outside the vocabulary.
        """
        vocabulary = self.language_model.config.vocab_size
        ids = np.where(np.isin(prompt.input_ids, [*self._placeholders.values()]), 0, prompt.input_ids)
        outside = ids[(ids < 0) | (ids >= vocabulary)]
        if outside.size:
            raise PromptError(f"Token id {outside[0]} is outside the model's vocabulary of {vocabulary}.")
        return mx.array(ids)

    def logits(self, prompt: Prompt, rules: Rules = PLAIN) -> mx.array:
        """Logits (T, V) in float32 at all positions."""
        decoder, (embeds, positions) = self.language_model, self.inputs(prompt)
        return decoder.head(decoder(embeds, rules=rules, positions=positions), rules)[0]


def encoded(
    prompt: Prompt, model: Model, encode: Callable[[str, Source], Sequence[mx.array]] | None = None
) -> Features:
    """The features of the pictures and sounds of a prompt, which are encoded one by one.

    So those of one are the same to the last bit, whichever others stand beside it. encode: in place of the model's own.
    """
    features: dict[str, Sequence[mx.array]] = {}
    for kind in model.kinds(prompt):
        if encode is None:
            parts = [model.encode(kind, Prompt(prompt.input_ids, source.arrays)) for source in prompt.each(kind)]
        else:
            parts = [encode(kind, source) for source in prompt.each(kind)]
        features[kind] = [mx.concatenate(list(arrays)) for arrays in zip(*parts, strict=True)]
    return features


def bundled_template(name: str) -> str:
    """A chat template of templates/."""
    return (files(__package__) / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def merge(embeds: mx.array, features: mx.array, positions: NDArray[np.intp], kind: str) -> mx.array:
    """Put `features` (N, D) at `positions` (N,) of `embeds` (1, T, D)."""
    if len(positions) != features.shape[0]:
        raise PromptError(
            f"The prompt has room for {len(positions)} {kind} tokens, but the {kind} gives {features.shape[0]}; "
            f"the placeholder must be repeated once for every {kind} token."
        )
    index = np.zeros(embeds.shape[1], dtype=np.int32)
    index[positions] = np.arange(len(positions))
    replaced = np.zeros((1, embeds.shape[1], 1), dtype=bool)
    replaced[0, positions] = True
    return mx.where(mx.array(replaced), features[mx.array(index)][None].astype(embeds.dtype), embeds)


def media_array(value: object, dtype: mx.Dtype) -> mx.array:
    return (value if isinstance(value, mx.array) else mx.array(np.ascontiguousarray(value))).astype(dtype)


def check_pixels(pixels: mx.array, size: int) -> None:
    """Raises `PromptError` for pixels of another shape than (N, 3, size, size)."""
    if pixels.ndim != 4 or pixels.shape[1:] != (3, size, size):
        raise PromptError(f"pixel_values must have shape (N, 3, {size}, {size}), got {tuple(pixels.shape)}.")


def shape_of(value: object) -> tuple[int, ...]:
    """The shape of a media array, () for what is none."""
    return tuple(getattr(value, "shape", ()))
