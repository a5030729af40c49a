"""From text, pictures and sounds to a `Prompt`: chat messages, media arrays, and what methods know of language."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers.decoders import ByteLevel

from lime_mlx.errors import PromptError
from lime_mlx.files import Json
from lime_mlx.media.audio import Sound
from lime_mlx.prompt import NOUNS, Conversation, Noun, Part, Place, Prompt, Question, Sibling, Source, Turn, YesNo
from lime_mlx.support.content import content_tokens
from lime_mlx.support.grammars import ENGLISH, Grammar, grammar_of, may_be
from lime_mlx.support.nouns import agrees, noun_phrase, noun_place, nouns
from lime_mlx.support.prompted import folded, prompted_tokens, spellings
from lime_mlx.templates import ChatTemplate

Opened = TypeVar("Opened", Image.Image, Sound)


class Prepared(NamedTuple):
    """Pictures or sounds as a model takes them.

    arrays: the media arrays. placeholders: what stands in the prompt for each: how many times the token of its kind, or
    a text. parts: what these stand for, in their order, where the arrays alone do not tell it.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    placeholders: Sequence[int | str]
    parts: Sequence[Part] = ()


@dataclass(frozen=True)
class PreparedMedia:
    """The pictures and sounds of one or more prompts, by kind: together, and each alone."""

    kinds: Mapping[str, Prepared]
    sources: Mapping[str, Sequence[Source]] = field(default_factory=dict)

    @cached_property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {name: array for prepared in self.kinds.values() for name, array in prepared.arrays.items()}

    @cached_property
    def parts(self) -> dict[str, Sequence[Part]]:
        return {kind: prepared.parts for kind, prepared in self.kinds.items()}

    def count(self, kind: str) -> int:
        """How many pictures or sounds there are."""
        return len(self.kinds[kind].placeholders) if kind in self.kinds else 0


@dataclass(frozen=True)
class Medium(Generic[Opened]):
    """How a family takes pictures ("image") or sounds ("audio").

    token: id of the placeholder that the chat template writes.
    """

    kind: str
    token: int
    prepare: Callable[[Sequence[Opened]], Prepared]


AnyMedium = Medium[Image.Image] | Medium[Sound]


@dataclass(frozen=True)
class Settings:
    """What the JSON files of a processor say: of pictures, of sounds, and of the whole."""

    image: Json = field(default_factory=dict)
    audio: Json = field(default_factory=dict)
    processor: Json = field(default_factory=dict)


class Detokenizer(Protocol):
    """From tokens, one by one, to text, as mlx-lm does it."""

    @property
    def text(self) -> str: ...

    @property
    def last_segment(self) -> str: ...

    def reset(self) -> None: ...

    def add_token(self, token: int) -> None: ...

    def finalize(self) -> None: ...


class Tokenizer(Protocol):
    """What is used of mlx-lm's wrapper of a tokenizer."""

    @property
    def eos_token_ids(self) -> Iterable[int]: ...

    @property
    def detokenizer(self) -> Detokenizer: ...

    @property
    def all_special_tokens(self) -> Sequence[str]: ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, "AddedToken"]: ...

    def __len__(self) -> int: ...

    def encode(self, text: str, add_special_tokens: bool = True, verbose: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str: ...

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]: ...

    @property
    def special_tokens_map(self) -> Mapping[str, object]: ...

    @property
    def has_thinking(self) -> bool: ...


class AddedToken(Protocol):
    """A token that a tokenizer has beside those of its vocabulary."""

    @property
    def special(self) -> bool: ...


class Processor:
    """Text, pictures and sounds to a `Prompt`, and tokens back to text. Needs no weights.

    tokenizer: mlx-lm's wrapper. template: the chat template, or None. media: what the model takes beside text.
    vocab_size: length of the model's logits, which may be more than the tokenizer has tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | None,
        model_type: str,
        vocab_size: int,
        media: Sequence[AnyMedium] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.model_type = model_type
        self.eos_token_ids = frozenset(tokenizer.eos_token_ids)
        self._template, self._vocab_size = template, vocab_size
        self._media = {medium.kind: medium for medium in media}
        self._content: dict[str, NDArray[np.bool_]] = {}

    def prompt(
        self,
        text: str,
        images: Sequence[Image.Image] = (),
        audio: Sequence[Sound] = (),
        system: str | None = None,
        history: Sequence[Turn] = (),
    ) -> Prompt:
        """One user message, in the model's chat template, with pictures and sounds before the text.

        history: the earlier turns of the chat. Each text of the user shows the pictures and sounds that its turn names,
        see `lime_mlx.prompt.Turn`; `images` and `audio` are those of the whole chat, the oldest first.
        A text that holds a placeholder itself, once for each picture or sound, says where these stand.
        Raises `PromptError` when the text is empty or does not fit the media, or these do not fit the model.
        """
        return self.prompts([text], images, audio, system, history)[0]

    def prompts(
        self,
        texts: Sequence[str],
        images: Sequence[Image.Image] = (),
        audio: Sequence[Sound] = (),
        system: str | None = None,
        history: Sequence[Turn] = (),
    ) -> list[Prompt]:
        """A prompt of each text about the same pictures and sounds, which are prepared once. As `prompt` otherwise."""
        for text in texts:
            check_text(text)
        media = self.prepare(images, audio)
        return [self.assemble(Conversation(text, system, tuple(history)), media) for text in texts]

    def prepare(self, images: Sequence[Image.Image] = (), audio: Sequence[Sound] = ()) -> "PreparedMedia":
        """Pictures and sounds as the model takes them. Raises `PromptError` where it does not take them."""
        given = {kind: sources for kind, sources in (("image", images), ("audio", audio)) if len(sources)}
        if not isinstance(images, Sequence) or not all(isinstance(image, Image.Image) for image in images):
            raise PromptError("`images` takes a list of opened pictures (PIL); `generate` opens files itself.")
        for kind in given:
            if kind not in self._media:
                taken = " and ".join(NOUNS[kind][1] for kind in self._media)
                reads = f"takes {taken}, but no {NOUNS[kind][1]}" if taken else "reads text only"
                raise PromptError(f"This model {reads}; leave the {NOUNS[kind][0]} out, or choose another model.")
        prepared, alone = {}, {}
        for kind, sources in given.items():
            prepare = cast(Callable[[Sequence[object]], Prepared], self._media[kind].prepare)
            prepared[kind] = together = prepare(sources)
            if len(sources) == 1:
                alone[kind] = [Source(partial(dict, together.arrays))]
            else:
                alone[kind] = [Source(partial(_arrays, prepare, source)) for source in sources]
        return PreparedMedia(prepared, alone)

    def assemble(self, chat: Conversation, media: "PreparedMedia") -> Prompt:
        """The prompt of a chat about pictures and sounds that are prepared. Raises `PromptError` as `prompt`."""
        counts = {kind: media.count(kind) for kind in self._media}
        rendered = self._render(chat, counts)
        for kind, prepared in media.kinds.items():
            rendered = _expand(rendered, self._token(kind), prepared.placeholders)
        ids = np.array(self._encode(rendered), dtype=np.int32)
        language = PromptLanguage(self, chat, media, ids)
        return Prompt(ids, media.arrays, language=language, parts=media.parts, sources=media.sources)

    @property
    def takes(self) -> frozenset[str]:
        """What the model takes beside text: "image", "audio"."""
        return frozenset(self._media)

    def detokenizer(self) -> Detokenizer:
        """A fresh streaming detokenizer of mlx-lm: `add_token`, `finalize`, `last_segment`, `text`."""
        detokenizer = self.tokenizer.detokenizer
        detokenizer.reset()
        return detokenizer

    @property
    def content(self) -> NDArray[np.bool_]:
        """(V,) bool: tokens that can name something in English."""
        return self.content_of(ENGLISH)

    def content_of(self, grammar: Grammar) -> NDArray[np.bool_]:
        """(V,) bool: tokens that can name something in a language."""
        if grammar.name not in self._content:
            self._content[grammar.name] = content_tokens(self._pieces, grammar)
        return self._content[grammar.name]

    def prompted(self, texts: Iterable[str]) -> NDArray[np.bool_]:
        """(V,) bool: the tokens that texts of the user bring in, in any spelling."""
        return prompted_tokens(map(self.without_media, texts), self._pieces, self._spellings, self.encode)

    def without_media(self, text: str) -> str:
        """A text of the user without the tokens that say where pictures and sounds stand."""
        for token in map(self._token, self._media):
            text = text.replace(token, " ")
        return text

    def tokens(self, word: str) -> Sequence[int]:
        """The tokens that say `word` alone, in any case, with or without a leading space; empty where none does."""
        return tuple(self._spellings.get(folded(word), ()))

    def starts(self, word: str) -> Sequence[int]:
        """The tokens with which a text begins that says `word`; those that say it alone, where there are such."""
        spaced = [f"{space}{case}" for space in ("", " ") for case in (word, word.capitalize())]
        return self.tokens(word) or [encoded[0] for encoded in map(self.encode, spaced) if encoded]

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

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with none in front."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _token(self, kind: str) -> str:
        (token,) = self.tokenizer.convert_ids_to_tokens([self._media[kind].token])
        return token or ""

    @cached_property
    def _chat_template(self) -> ChatTemplate:
        special = self.tokenizer.special_tokens_map
        tokens = {name: token for name, token in special.items() if isinstance(token, str)}
        thinks = bool(self.tokenizer.has_thinking)
        return ChatTemplate(self._template or "", {**tokens, "enable_thinking": thinks, "thinking": thinks})

    def _render(self, chat: Conversation, counts: Mapping[str, int]) -> str:
        """The chat in its template: messages as lists of parts, or as strings where the template wants that."""
        if self._template is None:
            raise PromptError("This model has no chat template; give a Prompt of token ids instead of text.")
        template = self._chat_template
        written = {kind: sum(text.count(self._token(kind)) for text in chat.users) for kind in counts}
        for kind, count in counts.items():
            if written[kind] not in (0, count):
                raise PromptError(
                    f"The prompt says {self._token(kind)} {written[kind]} times, but the number of {NOUNS[kind][1]} is "
                    f"{count}; leave it out, or write it once for each {NOUNS[kind][0]}."
                )
        shown = [[kind for kind in kinds if not written[kind]] for kinds in chat.shown(counts)]
        parts: list[list[Json]] = [[{"type": kind} for kind in kinds] for kinds in shown]
        strings = ["".join(f"{self._token(kind)}\n" for kind in kinds) for kinds in shown]
        forms = [chat.messages(lambda text: [{"type": "text", "text": text}], parts), chat.messages(str, strings)]
        problems = []
        for messages in forms if self._media else reversed(forms):
            try:
                rendered = template(messages)
            except PromptError as error:
                problems.append(error)
                continue
            lost = self._lost(rendered, chat, counts)
            if lost is None:
                return rendered
            problems.append(PromptError(f"The chat template of this model has no place for {lost}."))
        raise problems[0]

    def _lost(self, rendered: str, chat: Conversation, counts: Mapping[str, int]) -> str | None:
        """What the template left out, or printed as Python or JSON, if anything."""
        around = rendered
        for text in chat.texts:
            around = around.replace(text.strip(), "")
        if chat.text.strip() not in rendered or "'type'" in around or '"type"' in around:
            return "the prompt"
        if chat.system and chat.system.strip() not in rendered:
            return "a system prompt"
        if any(text.strip() not in rendered for text in chat.texts):
            return "earlier turns"
        for kind, count in counts.items():
            if rendered.count(self._token(kind)) != count:
                return f"the {NOUNS[kind][0]}" if count == 1 else f"{count} {NOUNS[kind][1]}"
        return None

    def _encode(self, rendered: str) -> list[int]:
        """Token ids, with what the tokenizer puts in front (BOS) once, whether or not the template wrote it too."""
        opening = self.tokenizer.convert_ids_to_tokens(self.tokenizer.encode("")[:1])
        twice = bool(opening and opening[0] and rendered.startswith(opening[0]))
        # verbose=False: the context is checked later, so that the tokenizer need not warn of it
        return self.tokenizer.encode(rendered, add_special_tokens=not twice, verbose=False)


class PromptLanguage:
    """The `Language` of a prompt that a processor made of a text, a system prompt and prepared media."""

    def __init__(
        self,
        processor: Processor,
        chat: Conversation,
        media: PreparedMedia,
        ids: NDArray[np.int32],
    ) -> None:
        self._processor, self._chat, self._media, self._ids = processor, chat, media, ids
        self._questions: dict[Noun, Question] = {}

    @cached_property
    def grammar(self) -> Grammar | None:
        """Of the language of the prompt; None where we have none."""
        return grammar_of(map(self._processor.without_media, reversed(self._chat.users)))

    @property
    def judges(self) -> bool:
        return self.grammar is not None

    @property
    def content(self) -> NDArray[np.bool_]:
        return self._processor.content_of(self.grammar or ENGLISH)

    @cached_property
    def prompted(self) -> NDArray[np.bool_]:
        return self.content & self._processor.prompted(filter(None, (*self._chat.users, self._chat.system)))

    @property
    def ends(self) -> frozenset[int]:
        return self._processor.eos_token_ids

    def tokens(self, word: str) -> Sequence[int]:
        return self._processor.tokens(word)

    @cached_property
    def yes_no(self) -> YesNo:
        grammar = self.grammar or ENGLISH
        starts = self._processor.starts
        yes, no = ({token for word in words for token in starts(word)} for words in (grammar.yes, grammar.no))
        return YesNo(sorted(yes - no), sorted(no - yes))

    def noun_place(self, before: str) -> Place | None:
        grammar = self.grammar
        return noun_place(before, grammar) if grammar is not None and may_be(before, grammar) else None

    def agrees(self, before: str, name: str) -> bool:
        return agrees(before, name, self.grammar or ENGLISH)

    def noun_phrase(self, text: str) -> str:
        return noun_phrase(text, self.grammar or ENGLISH)

    def nouns(self, text: str) -> list[Noun]:
        return [] if self.grammar is None else nouns(text, self.grammar)

    def text(self, tokens: Sequence[int]) -> str:
        return self._processor.tokenizer.decode(tokens, skip_special_tokens=True)

    def encode(self, text: str) -> Sequence[int]:
        return self._processor.encode(text)

    def question(self, noun: Noun) -> Question:
        """Raises `PromptError` where there is no picture and no sound, no noun, or no token for yes or for no."""
        if noun not in self._questions:
            self._questions[noun] = self._ask(noun)
        return self._questions[noun]

    def _ask(self, noun: Noun) -> Question:
        kinds = [(kind, self._media.count(kind) > 1) for kind in self._media.kinds]
        if not kinds:
            raise PromptError("The prompt has no picture and no sound that a question could be about.")
        if not noun.text.strip():
            raise PromptError("The noun of the question is empty.")
        if not all(self.yes_no):
            raise PromptError(
                "The vocabulary of this model has no tokens that tell yes from no, so it cannot be asked."
            )
        text = (self.grammar or ENGLISH).question(noun._replace(text=noun.text.strip()), kinds)
        return Question(*self.sibling(text), self.yes_no)

    def sibling(self, text: str) -> Sibling:
        prompt = self._processor.assemble(Conversation(text, self._chat.system), self._media)
        length = min(len(self._ids), len(prompt)) - 1
        differs = np.flatnonzero(self._ids[:length] != prompt.input_ids[:length])
        shared = int(differs[0]) if differs.size else length
        rest = {*self._ids[shared:].tolist(), *prompt.input_ids[shared:].tolist()}
        return Sibling(prompt, 0 if rest & self._processor.placeholders else shared)


def check_text(text: object) -> None:
    """Raises `PromptError` for what is no text, or empty."""
    if not isinstance(text, str):
        raise PromptError("The prompt must be text, or a Prompt for the functions that take one.")
    if not text.strip():
        raise PromptError("The prompt is empty: say what the model should do.")


def _arrays(prepare: Callable[[Sequence[object]], Prepared], source: object) -> Mapping[str, NDArray[np.generic]]:
    """The media arrays of one source alone."""
    return prepare([source]).arrays


def _expand(rendered: str, token: str, placeholders: Sequence[int | str]) -> str:
    """Put what stands for each picture or sound in the place of its token."""
    before, *after = rendered.split(token)
    texts = (token * each if isinstance(each, int) else each for each in placeholders)
    return before + "".join(text + piece for text, piece in zip(texts, after, strict=True))


def token_pieces(tokenizer: Tokenizer) -> list[str | None]:
    """The text of each token, with a leading space where it starts a word; None for special tokens and bytes."""
    raw = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    special |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    bytewise = any(piece and piece[0] == "\u0120" for piece in raw)
    decode: Callable[[list[str]], str | None] = ByteLevel().decode if bytewise else _sentencepiece
    return [None if piece is None or piece in special else decode([piece]) for piece in raw]


def _sentencepiece(pieces: list[str]) -> str | None:
    piece = pieces[0]
    return None if piece.startswith("<0x") and piece.endswith(">") else piece.replace("\u2581", " ")
