"""What a model is asked: token ids, media inputs, and which positions came from where."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jinja2
import numpy as np
from PIL import Image
from tokenizers.decoders import ByteLevel

from lime_mlx.errors import PromptError
from lime_mlx.words import content_tokens

MODALITIES = ("image", "audio")


@dataclass(frozen=True)
class Span:
    """Positions `start` to `stop` (half-open) of one picture or sound."""

    kind: str
    start: int
    stop: int

    def __post_init__(self):
        if self.kind not in MODALITIES:
            raise PromptError(f"Unknown span kind {self.kind!r}; choose one of {', '.join(MODALITIES)}.")
        if not 0 <= self.start < self.stop:
            raise PromptError(f"A span must be half-open and not empty, got {self.start} to {self.stop}.")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Prompt:
    """Token ids (T,), media arrays under the names and layouts of the transformers processors, and spans.

    `spans` None means: computed by the model from its config's token ids. Raises `PromptError` when empty.
    """

    input_ids: Sequence[int]
    media: Mapping[str, Any] = field(default_factory=dict)
    spans: Sequence[Span] | None = None

    def __post_init__(self):
        ids = np.asarray(self.input_ids)
        if ids.ndim == 2 and ids.shape[0] == 1:
            ids = ids[0]
        if ids.ndim != 1 or ids.size == 0:
            raise PromptError("The prompt is empty: give at least one token.")
        object.__setattr__(self, "input_ids", ids.astype(np.int32))
        for span in self.spans or ():
            if span.stop > ids.size:
                raise PromptError(f"The span {span.start} to {span.stop} ends after the prompt's {ids.size} tokens.")

    def __len__(self) -> int:
        return len(self.input_ids)


def runs(ids: np.ndarray, token: int, kind: str) -> tuple[Span, ...]:
    """One span for each unbroken run of `token`."""
    hits = np.concatenate([[0], (np.asarray(ids) == token).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(hits))
    return tuple(Span(kind, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def modality_mask(spans: Sequence[Span], length: int) -> np.ndarray:
    """(length,) bool: True where a position came from a picture or a sound."""
    mask = np.zeros(length, dtype=bool)
    for span in spans:
        mask[span.start : span.stop] = True
    return mask


@dataclass(frozen=True)
class Pictures:
    """How a family takes pictures.

    token: id of the placeholder. prepare: pictures to media arrays, and how many placeholders each picture takes.
    """

    token: int
    prepare: Callable[[Sequence[Image.Image]], tuple[dict[str, np.ndarray], list[int]]]


class Processor:
    """Text and pictures to a `Prompt`, and tokens back to text. Needs no weights.

    tokenizer: mlx-lm's wrapper. template: the chat template, or None. pictures: None for a model that reads text only.
    vocab_size: length of the model's logits, which may be more than the tokenizer has tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None,
        model_type: str,
        vocab_size: int,
        pictures: Pictures | None = None,
    ):
        self.tokenizer = tokenizer
        self.model_type = model_type
        self.eos_token_ids = frozenset(tokenizer.eos_token_ids)
        self._template, self._pictures, self._vocab_size = template, pictures, vocab_size

    def prompt(
        self,
        text: str,
        images: Sequence[Image.Image] = (),
        audio: Sequence[Any] = (),
        system: str | None = None,
    ) -> Prompt:
        """One user message, in the model's chat template, with the pictures before the text.

        A text that holds the image token itself, once for each picture, says where the pictures stand.
        Raises `PromptError` when the text is empty or does not fit the pictures, or these do not fit the model.
        """
        if not text.strip():
            raise PromptError("The prompt is empty: say what the model should do.")
        if audio:
            raise PromptError("This model takes no sound; leave it out, or choose another model.")
        if images and self._pictures is None:
            raise PromptError("This model reads text only; leave the picture out, or choose another model.")
        media, counts = self._pictures.prepare(images) if images else ({}, [])
        rendered = self._render(text, len(images), system)
        return Prompt(self._encode(self._expand(rendered, counts) if counts else rendered), media)

    def detokenizer(self) -> Any:
        """A fresh streaming detokenizer of mlx-lm: `add_token`, `finalize`, `last_segment`, `text`."""
        detokenizer = self.tokenizer.detokenizer
        detokenizer.reset()
        return detokenizer

    @cached_property
    def content(self) -> np.ndarray:
        """(V,) bool: tokens that can name something."""
        pieces = token_pieces(self.tokenizer)[: self._vocab_size]
        return content_tokens(pieces + [None] * (self._vocab_size - len(pieces)))

    @property
    def _image_token(self) -> str | None:
        return self._pictures and self.tokenizer.convert_ids_to_tokens(self._pictures.token)

    def _render(self, text: str, pictures: int, system: str | None) -> str:
        """The message in the chat template: as a list of parts, or as a string where the template wants that."""
        if self._template is None:
            raise PromptError("This model has no chat template; give a Prompt of token ids instead of text.")
        placed = text.count(self._image_token) if self._image_token else 0
        if placed not in (0, pictures):
            raise PromptError(
                f"The prompt says {self._image_token} {placed} times, but the number of pictures is {pictures}; "
                "leave it out, or write it once for each picture."
            )
        pictures_before = 0 if placed else pictures
        parts = [{"type": "image"}] * pictures_before + [{"type": "text", "text": text}]
        string = f"{self._image_token}\n" * pictures_before + text
        forms = [(parts, system and [{"type": "text", "text": system}]), (string, system)]
        problems = []
        for content, opening in forms if self._pictures else reversed(forms):
            try:
                rendered = self._apply(content, opening)
            except PromptError as error:
                problems.append(error)
                continue
            lost = self._lost(rendered, text, pictures, system)
            if lost is None:
                return rendered
            problems.append(PromptError(f"The chat template of this model has no place for {lost}."))
        raise problems[0]

    def _apply(self, content: Any, system: Any) -> str:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": content})
        try:
            return self.tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise PromptError(f"The chat template of this model cannot be used: {reason}") from error

    def _lost(self, rendered: str, text: str, pictures: int, system: str | None) -> str | None:
        """What the template left out, or printed as Python or JSON, if anything."""
        around = rendered.replace(text.strip(), "").replace(system or "", "")
        if text.strip() not in rendered or "'type'" in around or '"type"' in around:
            return "the prompt"
        if system and system.strip() not in rendered:
            return "a system prompt"
        if self._image_token and rendered.count(self._image_token) != pictures:
            return "the picture" if pictures == 1 else f"{pictures} pictures"
        return None

    def _expand(self, rendered: str, counts: list[int]) -> str:
        """Repeat each image token once for every position its picture takes."""
        before, *after = rendered.split(self._image_token)
        return before + "".join(self._image_token * n + piece for n, piece in zip(counts, after, strict=True))

    def _encode(self, rendered: str) -> list[int]:
        """Token ids, with what the tokenizer puts in front (BOS) once, whether or not the template wrote it too."""
        opening = self.tokenizer.convert_ids_to_tokens(self.tokenizer.encode("")[:1])
        return self.tokenizer.encode(rendered, add_special_tokens=not (opening and rendered.startswith(opening[0])))


def token_pieces(tokenizer: Any) -> list[str | None]:
    """The text of each token, with a leading space where it starts a word; None for special tokens and bytes."""
    raw = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    special |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    decode = ByteLevel().decode if any(piece and piece[0] == "\u0120" for piece in raw) else _sentencepiece
    return [None if piece is None or piece in special else decode([piece]) for piece in raw]


def _sentencepiece(pieces: list[str]) -> str | None:
    piece = pieces[0]
    return None if piece.startswith("<0x") and piece.endswith(">") else piece.replace("\u2581", " ")
