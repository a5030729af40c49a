"""The languages that we have a grammar of, and which of them a text is in."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from .base import Grammar
from .english import ENGLISH
from .french import FRENCH
from .german import GERMAN
from .italian import ITALIAN
from .portuguese import PORTUGUESE
from .spanish import SPANISH

GRAMMARS = (ENGLISH, GERMAN, FRENCH, SPANISH, ITALIAN, PORTUGUESE)
# Frequent words of other languages, so that their texts are not taken for one of those above.
OTHERS = {
    "Dutch": "de het een van en in is op wat er zie je zijn dat die deze dit niet met voor aan ook te foto beschrijf",
    "Swedish": "en ett och det är på som i av vad finns du den till med inte för har kan ser bilden beskriv",
    "Danish": "en et og det er på som i af hvad der du den til med ikke for har kan ser billedet beskriv",
    "Norwegian": "en et og det er på som i av hva du den til med ikke for har kan ser bildet beskriv",
    "Finnish": "on ja ei se että mitä tämä tässä kuvassa mikä kuvaa kuva ovat kanssa onko näet",
    "Estonian": "on ja ei see et mis mida kas kus pildil pilt pilti kirjelda näed heli kuuled",
    "Polish": "i w na z jest co to się nie do czy są ten ta tym zdjęciu obrazie opisz widzisz jaki",
    "Czech": "a v na je co to se ne s do jsou ten ta tomto obrázku popiš vidíš jaký",
    "Hungarian": "a az egy és van mi nem ez hogy látható képen kép mit látsz írd le",
    "Romanian": "și în este ce o un la cu de pe nu sunt imagine imaginea descrie vezi care",
    "Turkish": "bir ve bu ne var mi mı için de da resimde resim görüyorsun açıkla tarif et nedir",
    "Indonesian": "yang di dan ini itu ada apa dalam dengan gambar adalah tidak jelaskan pada untuk",
    "Vietnamese": "là có và trong này gì của một cho hình ảnh không mô tả bức",
    "Catalan": "el la els les un una i és què hi ha de a en amb no aquesta imatge descriu veus",
}
LANGUAGES: Mapping[str, frozenset[str]] = {grammar.name: grammar.closed for grammar in GRAMMARS} | {
    name: frozenset(text.split()) for name, text in OTHERS.items()
}
BY_NAME = {grammar.name: grammar for grammar in GRAMMARS}
# Words, without the English endings behind an apostrophe, which look like French words: it's, don't.
WORD = re.compile(r"\b(?!(?<=['\u2019])(?:s|t|re|ve|ll|d|m)\b)[^\W\d_]+")
# A text of so few words may lack frequent ones: "dog?", "Count dogs."
SHORT = 3
# In a longer text at least this share of the words are frequent ones of its language.
SHARE = 0.2


def grammar_of(texts: Iterable[str]) -> Grammar | None:
    """The grammar of the language of `texts`; None for a language that we have no grammar of.

    The first text decides, and those behind it where it fits several languages. English if it still fits then: a short
    text such as "dog?" is in no language more than in another, and models answer it in English.
    """
    fitting = list(LANGUAGES)
    for text in texts:
        told = languages(text)
        if not told:
            return None
        fitting = [name for name in fitting if name in told] or fitting
        if len(fitting) == 1:
            break
    return BY_NAME.get(fitting[0])


def languages(text: str) -> list[str]:
    """The languages that a text may be in; empty for none of those that we know."""
    letters = [character for character in text if character.isalpha()]
    if 2 * sum("LATIN" in unicodedata.name(character, "") for character in letters) < len(letters):
        return []
    counts, length = _counts(text)
    most = max(counts.values())
    if length > SHORT and most < SHARE * length:
        return []
    return [name for name, count in counts.items() if count == most]


def may_be(text: str, grammar: Grammar) -> bool:
    """Whether no other language has more than twice as many words of a text, which may be a beginning."""
    counts, _ = _counts(text)
    return 2 * counts[grammar.name] >= max(counts.values())


def _counts(text: str) -> tuple[dict[str, int], int]:
    """How many words of a text are frequent ones of each language, and how many words there are."""
    found = WORD.findall(text.lower())
    return {name: sum(word in frequent for word in found) for name, frequent in LANGUAGES.items()}, len(found)


__all__ = ["ENGLISH", "GRAMMARS", "Grammar", "grammar_of", "languages", "may_be"]
