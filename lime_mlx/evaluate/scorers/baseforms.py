"""Tokens and base forms of English words: those of the reference CHAIR and AMBER programs, and our own.

`tokens` splits like the Penn Treebank tokeniser, marks of Markdown included. `pattern` strips plurals by spelling
alone, and so damages many words that are no plurals. `wordnet` undoes inflections only where the result is a word.
`plain` is our own.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

_ABBREVIATIONS = frozenset("mr mrs ms dr st vs etc e.g i.e a.m p.m u.s u.k no. jr sr inc co ltd mt ft ave prof".split())
# The marks of Markdown, and strokes between words: of the same length as the blanks that take their place.
_MARKS = str.maketrans(dict.fromkeys("*_~`|#>\\/\u2022\u2013\u2014", " "))
_CONTRACTIONS = re.compile(r"\b(can)(not)\b|\b(gim|lem)(me)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b")


def unmarked(text: str) -> str:
    """The text, as long as before, with blanks for the marks of Markdown: emphasis, headings, lists, tables, code."""
    return text.translate(_MARKS)


def tokens(text: str) -> list[str]:
    """The tokens of a text, in its case; a full stop that ends a sentence is a token of its own."""
    text = re.sub(r"([«“‘„]|[`]+)", r" \1 ", text)
    text = re.sub(r'(^|[ (\[{<])"', r"\1 `` ", text)
    text = re.sub(r"([»”’])", r" \1 ", text)
    text = re.sub(r'"', " '' ", text)
    text = re.sub(r"([:,])(?=\D|$)", r" \1 ", text)
    text = re.sub(r"\.\.+", lambda dots: f" {dots.group()} ", text)
    text = re.sub(r"([;@#$%&?!\]\[(){}<>*])", r" \1 ", text)
    text = text.replace("--", " -- ")
    text = re.sub(r"(?i)('s|'m|'d|'ll|'re|'ve|n't)(?=\s|$|[.,])", r" \1 ", text)
    text = re.sub(r"([^'\s])'(?=\s|$)", r"\1 ' ", text)
    text = _CONTRACTIONS.sub(lambda match: " ".join(part for part in match.groups() if part), text)
    words = text.split()
    split = []
    for index, word in enumerate(words):
        last = (
            all(re.fullmatch(r"[\])}>'\"»”’]+|''", later) for later in words[index + 1 :][:3])
            and index > len(words) - 4
        )
        stem = word[:-1]
        if word.endswith(".") and stem.strip(".") and (last or not _abbreviated(stem.lower())):
            split += [stem, "."]
        else:
            split.append(word)
    return split


def _abbreviated(stem: str) -> bool:
    return stem in _ABBREVIATIONS or bool(re.fullmatch(r"[a-z](\.[a-z])*", stem))


_WHOLE = frozenset("is as".split())

# By spelling alone, the way the `pattern` library does it: the first rule that fits is used.
_UNCHANGED = """
bison bream breeches britches carp chassis christmas clippers cod contretemps corps debris diabetes djinn eland elk
flounder gallows georgia graffiti headquarters herpes high-jinks homework innings jackanapes mackerel measles mews moose
mumps news pincers pliers proceedings rabies salmon scissors series shears species swine swiss trout tuna whiting
wildebeest advice bread butter cannabis cheese electricity equipment fruit furniture garbage gravel happiness
information ketchup knowledge love luggage mathematics mayonnaise meat mustard progress research rice sand software
understanding water
""".split()
_ENDINGS = {
    "men": "man", "people": "person", "children": "child", "sexes": "sex", "axes": "axe", "moves": "move",
    "teeth": "tooth", "geese": "goose", "feet": "foot", "mythoi": "mythos", "brethren": "brother", "kine": "cow",
    "testes": "testis", "octopodes": "octopus", "opera": "opus", "corpora": "corpus", "genera": "genus",
    "genii": "genie", "numena": "numen", "penes": "penis", "soliloquies": "soliloquy", "trilbys": "trilby",
    "turves": "turf", "zoa": "zoon", "atlantes": "atlas", "atlases": "atlas", "beeves": "beef", "brothers": "brother",
    "ganglia": "ganglion", "graffiti": "graffito", "hooves": "hoof", "lice": "louse", "mice": "mouse",
    "oxen": "ox", "our": "my",
}  # fmt: skip
_RULES = [
    (re.compile(spelling, re.IGNORECASE), singular)
    for spelling, singular in (
        (r"(.)ae$", r"\1a"), (r"(.)itis$", r"\1itis"), (r"(.)eaux$", r"\1eau"), (r"(quiz)zes$", r"\1"),
        (r"(matr)ices$", r"\1ix"), (r"(ap|vert|ind)ices$", r"\1ex"), (r"^(ox)en", r"\1"),
        (r"(alias|status)es$", r"\1"), (r"([octopvir|])i$", r"\1us"), (r"(cris|ax|test)es$", r"\1is"),
        (r"(shoe)s$", r"\1"), (r"(o)es$", r"\1"), (r"(bus)es$", r"\1"), (r"([m|l])ice$", r"\1ouse"),
        (r"(x|ch|ss|sh)es$", r"\1"), (r"(m)ovies$", r"\1ovie"), (r"(.)ombies$", r"\1ombie"),
        (r"(s)eries$", r"\1eries"), (r"([^aeiouy]|qu)ies$", r"\1y"), (r"([aeo]l)ves$", r"\1f"),
        (r"([^d]ea)ves$", r"\1f"), (r"arves$", r"arf"), (r"erves$", r"erve"), (r"([nlw]i)ves$", r"\1fe"),
        (r"([lr])ves$", r"\1f"), (r"([aeo])ves$", r"\1ve"), (r"(sive)s$", r"\1"), (r"(tive)s$", r"\1"),
        (r"(hive)s$", r"\1"), (r"([^f])ves$", r"\1fe"), (r"(^analy)ses$", r"\1sis"),
        (r"((a)naly|(b)a|(d)iagno|(p)arenthe|(p)rogno|(s)ynop|(t)he)ses$", r"\1sis"),
        (r"(.)opses$", r"\1opsis"), (r"([ti])a$", r"\1um"), (r"(n)ews$", r"\1ews"), (r"s$", ""),
    )
]  # fmt: skip


def pattern(token: str) -> str:
    """The singular by spelling alone: "dogs" dog, but also "bus" bu, "ties" ty and "glass" glas."""
    low = token.lower()
    if low in _WHOLE or any(low.endswith(word) for word in _UNCHANGED):
        return token
    for plural, singular in _ENDINGS.items():
        if low.endswith(plural):
            return token[: len(token) - len(plural)] + singular
    for spelling, singular in _RULES:
        if spelling.search(token):
            return spelling.sub(singular, token)
    return token


# Inflections without a rule.
IRREGULAR = dict(
    pair.split(":")
    for pair in """
    men:man women:woman people:person children:child feet:foot teeth:tooth geese:goose mice:mouse oxen:ox knives:knife
    calves:calf halves:half leaves:leaf wolves:wolf shelves:shelf lives:life wives:wife loaves:loaf scarves:scarf
    hooves:hoof thieves:thief busses:bus kine:cow grandchildren:grandchild policemen:policeman gentlemen:gentleman
    servicemen:serviceman pocketknives:pocketknife taxies:taxi
    """.split()
)
NOUN, VERB, ADJECTIVE, ADVERB = "noun", "verb", "adjective", "adverb"
# WordNet 3.0's: "men" and "people" are words of their own, "vases" belong to vas, "serves" to serf, "fries" to fry.
_WORDNET_IRREGULAR = {
    NOUN: {
        **IRREGULAR,
        **{"men": "men", "people": "people", "kine": "kine"},
        **{"vases": "vas", "serves": "serf", "fries": "fry", "buffaloes": "buffalo", "flamingoes": "flamingo"},
        **{"potatoes": "potato", "tomatoes": "tomato", "earrings": "earring", "slippers": "slipper"},
        **{"sunglasses": "sunglass", "chopsticks": "chopstick", "camerae": "camera"},
    },
    VERB: {
        **{"born": "bear", "borne": "bear", "lit": "light", "sank": "sink", "sunk": "sink", "sunken": "sink"},
        **{"stove": "stave", "tying": "tie", "taxis": "taxis", "taxying": "taxi"},
    },
    ADJECTIVE: {"solider": "solid", "drier": "dry"},
    ADVERB: {},
}
# Words of the lists that WordNet 3.0 lacks: their plural stays as it is.
_NO_WORDNET = frozenset(
    "biker bluejay brindle coworker firetruck hairdryer knive lenovo longboard macbook netbook paddleboat pitbull phon "
    "riverboat sailboard shortboard skimboard skis smartphone solider stovetop suv teddybear televison iphone "
    "wakeboard glas bedsheet ebook e-book paraglider sanitizer streetlamp cooktop kiwifruit TV".split()
)
_RULES_OF = {
    NOUN: (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y")),
    VERB: (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    ADJECTIVE: (), ADVERB: (),
}  # fmt: skip


def wordnet(token: str, words: Container[str], part: str = NOUN) -> str:
    """The shortest of `words` of which `token` is an inflection as that part of speech; the token where there is none.

    words: what WordNet may give, of that part of speech; nouns that it lacks are left out here.
    """
    if (irregular := _WORDNET_IRREGULAR[part].get(token)) is not None:
        return irregular
    forms = _stems(token, _RULES_OF[part], words)
    if part == VERB and (doubled := re.fullmatch(r"(.+([^aeiou]))\2(?:ed|ing)", token)) and doubled.group(1) in words:
        forms.append(doubled.group(1))
    if part == NOUN:
        forms = [form for form in forms if form not in _NO_WORDNET]
    return min(forms, key=len) if forms else token


def _stems(token: str, rules: Sequence[tuple[str, str]], words: Container[str]) -> list[str]:
    forms = [token, *(token[: len(token) - len(end)] + stem for end, stem in rules if token.endswith(end))]
    return [form for form in forms if form in words]


# Behind these, -es makes a plural of the whole word; elsewhere the e is the word's: manes are no men, cares no cars.
_HISSING = ("s", "x", "z", "ch", "sh", "o")


def plain(token: str, words: Container[str]) -> str:
    """The word itself where it is among `words`, else the singular that is, else the token."""
    if token in words and token not in IRREGULAR:
        return token
    rules = (("ies", "y"), ("ves", "fe"), ("ves", "f"), *((f"{end}es", end) for end in _HISSING), ("s", ""))
    forms = [IRREGULAR[token]] if token in IRREGULAR else _stems(token, rules, words)
    return forms[-1] if forms and forms[-1] in words else token
