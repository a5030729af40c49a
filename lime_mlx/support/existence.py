"""The question whether a thing is there, in the languages in which we can put it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

VOWELS = tuple("aeiou")
# Endings of English words in -s that are no plurals: bus, glass, tennis.
SINGULAR_ENDINGS = ("ss", "us", "is")


@dataclass(frozen=True)
class Form:
    """How a language asks.

    singular, plural, bare: the question with "{noun}" and "{where}", of one thing, of several, and without an article.
    places: for each kind of media, where the thing may be: in one picture or sound, and in several. joined: what stands
    between two places. yes, no: the words of the answer. hints: frequent words that tell the language.
    """

    singular: str
    plural: str
    bare: str
    places: Mapping[str, tuple[str, str]]
    joined: str
    yes: Sequence[str]
    no: Sequence[str]
    hints: frozenset[str]


Places = tuple[str, str]


def _form(text: str, image: Places, audio: Places, joined: str, yes: str, no: str, hints: str) -> Form:
    """A language whose question needs no article, and no plural of its own."""
    places = {"image": image, "audio": audio}
    return Form(text, text, text, places, joined, yes.split(), no.split(), frozenset(hints.split()))


ENGLISH = Form(
    "Is there {noun} in {where}?",
    "Are there {noun} in {where}?",
    "Is there {noun} in {where}?",
    {"image": ("the picture", "the pictures"), "audio": ("the sound", "the sounds")},
    " or ",
    ("yes",),
    ("no",),
    frozenset("the is what are there in you do does of a who where how describe".split()),
)
FORMS = (
    ENGLISH,
    _form(
        "Gibt es {noun} {where}?",
        ("auf dem Bild", "auf den Bildern"),
        ("in der Aufnahme", "in den Aufnahmen"),
        " oder ",
        "ja",
        "nein",
        "der die das ist was auf dem bild und ein eine gibt wie wo beschreibe siehst welche",
    ),
    _form(
        "Y a-t-il {noun} {where} ?",
        ("dans l'image", "dans les images"),
        ("dans le son", "dans les sons"),
        " ou ",
        "oui",
        "non",
        "le la les est que qu l d dans sur une un y a-t-il quoi comment où décris image quelle quel",
    ),
    _form(
        "¿Hay {noun} {where}?",
        ("en la imagen", "en las imágenes"),
        ("en el sonido", "en los sonidos"),
        " o ",
        "sí si",
        "no",
        "el la los las es qué que en hay una un de describe cómo dónde imagen",
    ),
    _form(
        "C'è {noun} {where}?",
        ("nell'immagine", "nelle immagini"),
        ("nel suono", "nei suoni"),
        " o ",
        "sì si",
        "no",
        "il lo la gli è che cosa c nell una un di descrivi come dove immagine",
    ),
    _form(
        "Há {noun} {where}?",
        ("na imagem", "nas imagens"),
        ("no som", "nos sons"),
        " ou ",
        "sim",
        "não",
        "o a os as é que na há uma um de descreve descreva como onde imagem",
    ),
)


def form_of(text: str) -> Form:
    """The form of the language whose frequent words the text has most of; English for a text that does not tell."""
    words = re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text.casefold())
    counts = [sum(word in form.hints for word in words) for form in FORMS]
    return FORMS[counts.index(max(counts))]


def asked(form: Form, noun: str, article: bool, kinds: Sequence[tuple[str, bool]]) -> str:
    """The question whether `noun` is there. article: it takes one, as "a dog" does and "rain" does not.

    kinds: the kinds of media that are asked about, each with whether there are several of it.
    """
    where = form.joined.join(form.places[kind][several] for kind, several in kinds)
    if form is not ENGLISH:
        return form.bare.format(noun=noun, where=where)
    if is_plural(noun):
        return form.plural.format(noun=noun, where=where)
    return (form.singular if article else form.bare).format(noun=indefinite(noun) if article else noun, where=where)


def indefinite(noun: str) -> str:
    """a dog, an umbrella."""
    return f"{'an' if noun.casefold().startswith(VOWELS) else 'a'} {noun}"


def is_plural(noun: str) -> bool:
    """Whether an English noun looks like a plural. Spelling alone decides: sheep and lens are misread."""
    return len(noun) > 3 and noun.endswith("s") and not noun.endswith(SINGULAR_ENDINGS)
