"""From text, pictures and sounds to a `Prompt`: chat messages, media arrays, and what methods know of language."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers.decoders import ByteLevel

from lime_mlx.errors import PromptError
from lime_mlx.prompt import NOUNS, Prompt, Question
from lime_mlx.scenes.language import with_article
from lime_mlx.support.content import content_tokens
from lime_mlx.support.prompted import prompted_tokens, spellings


@dataclass(frozen=True)
class Medium:
    """How a family takes pictures ("image") or sounds ("audio").

    token: id of the placeholder that the chat template writes. prepare: pictures or sounds to media arrays, and what
    stands in the prompt for each of them: how many times the placeholder, or a text. seconds: the time that one
    placeholder stands for, in a sound. seen: the box of a picture (left, top, right, bottom), in its pixels, that the
    placeholders stand for; None is all of it.
    """

    kind: str
    token: int
    prepare: Callable[[Sequence[Any]], tuple[dict[str, np.ndarray], list[int] | list[str]]]
    seconds: float | None = None
    seen: Callable[[Image.Image], tuple[float, float, float, float]] | None = None


@dataclass(frozen=True)
class Settings:
    """What the JSON files of a processor say: of pictures, of sounds, and of the whole."""

    image: Mapping[str, Any] = field(default_factory=dict)
    audio: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)


class Processor:
    """Text, pictures and sounds to a `Prompt`, and tokens back to text. Needs no weights.

    tokenizer: mlx-lm's wrapper. template: the chat template, or None. media: what the model takes beside text.
    vocab_size: length of the model's logits, which may be more than the tokenizer has tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None,
        model_type: str,
        vocab_size: int,
        media: Sequence[Medium] = (),
    ):
        self.tokenizer = tokenizer
        self.model_type = model_type
        self.eos_token_ids = frozenset(tokenizer.eos_token_ids)
        self._template, self._vocab_size = template, vocab_size
        self._media = {medium.kind: medium for medium in media}

    def prompt(
        self,
        text: str,
        images: Sequence[Image.Image] = (),
        audio: Sequence[Any] = (),
        system: str | None = None,
    ) -> Prompt:
        """One user message, in the model's chat template, with pictures and sounds before the text.

        A text that holds a placeholder itself, once for each picture or sound, says where these stand.
        Raises `PromptError` when the text is empty or does not fit the media, or these do not fit the model.
        """
        return self.prompts([text], images, audio, system)[0]

    def prompts(
        self,
        texts: Sequence[str],
        images: Sequence[Image.Image] = (),
        audio: Sequence[Any] = (),
        system: str | None = None,
    ) -> list[Prompt]:
        """A prompt of each text about the same pictures and sounds, which are prepared once. As `prompt` otherwise."""
        if not all(text.strip() for text in texts):
            raise PromptError("The prompt is empty: say what the model should do.")
        given = {kind: sources for kind, sources in (("image", images), ("audio", audio)) if len(sources)}
        for kind in given:
            if kind not in self._media:
                taken = " and ".join(NOUNS[kind][1] for kind in self._media)
                reads = f"takes {taken}, but no {NOUNS[kind][1]}" if taken else "reads text only"
                raise PromptError(f"This model {reads}; leave the {NOUNS[kind][0]} out, or choose another model.")
        arrays: dict[str, np.ndarray] = {}
        placeholders: dict[str, Sequence[int | str]] = {}
        for kind, sources in given.items():
            prepared, placeholders[kind] = self._media[kind].prepare(sources)
            arrays |= prepared
        counts = {kind: len(given.get(kind, ())) for kind in self._media}
        return [self.assemble(text, system, Prepared(arrays, placeholders, counts)) for text in texts]

    def assemble(self, text: str, system: str | None, media: "Prepared") -> Prompt:
        """The prompt of a text about pictures and sounds that are prepared."""
        rendered = self._render(text, media.counts, system)
        for kind, put in media.placeholders.items():
            rendered = _expand(rendered, self._token(kind), put)
        ids = np.array(self._encode(rendered), dtype=np.int32)
        return Prompt(ids, media.arrays, language=PromptLanguage(self, text, system, media, ids))

    @property
    def takes(self) -> frozenset[str]:
        """What the model takes beside text: "image", "audio"."""
        return frozenset(self._media)

    @property
    def seconds(self) -> float | None:
        """The time that one position of a sound stands for."""
        return self._media["audio"].seconds if "audio" in self._media else None

    def seen(self, image: Image.Image) -> tuple[float, float, float, float]:
        """The box (left, top, right, bottom) of a picture, in its pixels, that its positions stand for."""
        seen = self._media["image"].seen
        return (0.0, 0.0, *map(float, image.size)) if seen is None else seen(image)

    def detokenizer(self) -> Any:
        """A fresh streaming detokenizer of mlx-lm: `add_token`, `finalize`, `last_segment`, `text`."""
        detokenizer = self.tokenizer.detokenizer
        detokenizer.reset()
        return detokenizer

    @cached_property
    def content(self) -> NDArray[np.bool_]:
        """(V,) bool: tokens that can name something."""
        return content_tokens(self._pieces)

    def prompted(self, texts: Iterable[str]) -> NDArray[np.bool_]:
        """(V,) bool: the content tokens that texts of the user bring in, in any spelling."""
        for token in map(self._token, self._media):
            texts = [text.replace(token, " ") for text in texts]
        return self.content & prompted_tokens(texts, self._pieces, self._spellings, self._plain_ids)

    @property
    def placeholders(self) -> frozenset[int]:
        """The tokens of which the chat template writes one for each picture or sound."""
        return frozenset(medium.token for medium in self._media.values())

    @cached_property
    def _pieces(self) -> list[str | None]:
        pieces = token_pieces(self.tokenizer)[: self._vocab_size]
        return pieces + [None] * (self._vocab_size - len(pieces))

    @cached_property
    def _spellings(self) -> dict[str, list[int]]:
        return spellings(self._pieces)

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _token(self, kind: str) -> str:
        return self.tokenizer.convert_ids_to_tokens(self._media[kind].token)

    def _render(self, text: str, counts: Mapping[str, int], system: str | None) -> str:
        """The message in the chat template: as a list of parts, or as a string where the template wants that."""
        if self._template is None:
            raise PromptError("This model has no chat template; give a Prompt of token ids instead of text.")
        parts, string = [], ""
        for kind, count in counts.items():
            token = self._token(kind)
            placed = text.count(token)
            if placed not in (0, count):
                raise PromptError(
                    f"The prompt says {token} {placed} times, but the number of {NOUNS[kind][1]} is {count}; "
                    f"leave it out, or write it once for each {NOUNS[kind][0]}."
                )
            if not placed:
                parts += [{"type": kind}] * count
                string += f"{token}\n" * count
        parts.append({"type": "text", "text": text})
        forms = [(parts, system and [{"type": "text", "text": system}]), (string + text, system)]
        problems = []
        for content, opening in forms if self._media else reversed(forms):
            try:
                rendered = self._apply(content, opening)
            except PromptError as error:
                problems.append(error)
                continue
            lost = self._lost(rendered, text, counts, system)
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

    def _lost(self, rendered: str, text: str, counts: Mapping[str, int], system: str | None) -> str | None:
        """What the template left out, or printed as Python or JSON, if anything."""
        around = rendered.replace(text.strip(), "").replace(system or "", "")
        if text.strip() not in rendered or "'type'" in around or '"type"' in around:
            return "the prompt"
        if system and system.strip() not in rendered:
            return "a system prompt"
        for kind, count in counts.items():
            if rendered.count(self._token(kind)) != count:
                return f"the {NOUNS[kind][0]}" if count == 1 else f"{count} {NOUNS[kind][1]}"
        return None

    def _encode(self, rendered: str) -> list[int]:
        """Token ids, with what the tokenizer puts in front (BOS) once, whether or not the template wrote it too."""
        opening = self.tokenizer.convert_ids_to_tokens(self.tokenizer.encode("")[:1])
        return self.tokenizer.encode(rendered, add_special_tokens=not (opening and rendered.startswith(opening[0])))


@dataclass(frozen=True)
class Prepared:
    """Pictures and sounds as media arrays, what stands in the prompt for each of a kind, and how many are of a kind."""

    arrays: Mapping[str, np.ndarray]
    placeholders: Mapping[str, Sequence[int | str]]
    counts: Mapping[str, int]


class PromptLanguage:
    """The `Language` of a prompt that a processor made of a text, a system prompt and prepared media."""

    def __init__(self, processor: Processor, text: str, system: str | None, media: Prepared, ids: NDArray[np.int32]):
        self._processor, self._text, self._system, self._media, self._ids = processor, text, system, media, ids
        self._questions: dict[str, Question] = {}

    @property
    def content(self) -> NDArray[np.bool_]:
        return self._processor.content

    @cached_property
    def prompted(self) -> NDArray[np.bool_]:
        return self._processor.prompted(filter(None, (self._text, self._system)))

    def question(self, noun: str) -> Question:
        """Whether `noun` is in the picture or the sound. Raises `PromptError` where there is neither, or no noun."""
        if noun not in self._questions:
            self._questions[noun] = self._ask(noun)
        return self._questions[noun]

    def _ask(self, noun: str) -> Question:
        where = [NOUNS[kind][count > 1] for kind, count in self._media.counts.items() if count]
        if not where:
            raise PromptError("The prompt has no picture and no sound that a question could be about.")
        if not noun.strip():
            raise PromptError("The noun of the question is empty.")
        text = f"Is there {with_article(noun.strip())} in the {' or the '.join(where)}?"
        prompt = self._processor.assemble(text, self._system, self._media)
        length = min(len(self._ids), len(prompt)) - 1
        differs = np.flatnonzero(self._ids[:length] != prompt.input_ids[:length])
        shared = int(differs[0]) if differs.size else length
        rest = {*self._ids[shared:].tolist(), *prompt.input_ids[shared:].tolist()}
        return Question(prompt, 0 if rest & self._processor.placeholders else shared)


def _expand(rendered: str, token: str, places: Sequence[int | str]) -> str:
    """Put what stands for each picture or sound in the place of its token."""
    before, *after = rendered.split(token)
    put = (token * place if isinstance(place, int) else place for place in places)
    return before + "".join(place + piece for place, piece in zip(put, after, strict=True))


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
