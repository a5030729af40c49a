"""Languages, on texts alone: where nouns begin, names, denials and questions; and what is left alone in others."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import lime_mlx
from lime_mlx import generate
from lime_mlx.checkpoint.load import load, load_processor
from lime_mlx.methods import parse_method
from lime_mlx.methods.candidates import Judge
from lime_mlx.prompt import Noun, Place, Prompt, Turn
from lime_mlx.scenes import make_scene
from lime_mlx.support.content import content_tokens
from lime_mlx.support.detector import Asking, Detector
from lime_mlx.support.grammars import ENGLISH, GRAMMARS, OTHERS, grammar_of, may_be
from lime_mlx.support.nouns import agrees, noun_phrase, noun_place
from lime_mlx.words import Token, words

BY_NAME = {grammar.name: grammar for grammar in GRAMMARS}
DEMO = Path(lime_mlx.__file__).parent / "demo"
IMAGE = [("image", False)]
DETECTOR = Detector({"share": -10.0}, 4.0, 0.5)


class Spoken:
    """The language of a prompt, as far as words need it."""

    def __init__(self, grammar):
        self.grammar, self.judges = grammar, grammar is not None

    def noun_place(self, before):
        return noun_place(before, self.grammar) if self.judges else None

    def noun_phrase(self, text):
        return noun_phrase(text, self.grammar or ENGLISH)


class Ask:
    """Takes down what it is asked, and denies everything."""

    def __init__(self, grammar):
        self.language, self.asked = Spoken(grammar), []

    def __call__(self, nouns):
        self.asked += nouns
        return [-9.0] * len(nouns)


# Tokenizers cut a word that leans on the next one behind its apostrophe, or before it.
CUTS = (r"(?<=['\u2019])", r"(?=['\u2019])")


def judged(sentence, grammar, cut=CUTS[0]):
    """The words of a sentence, with the verdicts of a detector on the content tokens."""
    pieces = [piece for word in re.findall(r"\s*\S+", f" {sentence}") for piece in re.split(cut, word)]
    content = content_tokens(pieces, grammar or ENGLISH)
    ask = Ask(grammar)
    statistics = [{"share": 0.1} if names else None for names in content]
    tokens = (Token(text=text, statistics=row, ask=ask) for text, row in zip(pieces, statistics, strict=True))
    return list(words(tokens, DETECTOR))


def nouns(sentence, grammar, cut=CUTS[0]) -> list[Noun]:
    found = [word.noun for word in judged(sentence, grammar, cut) if word.noun is not None]
    return [noun for index, noun in enumerate(found) if not index or noun is not found[index - 1]]


# Each name with the determiner of its question before the bar.
SENTENCES = {
    "English": {
        "The image shows a red ball and an umbrella.": "|red ball, |umbrella",
        "There are two dogs, a cat and grass.": "|dogs, |cat, |grass",
        "There is no dog, but a cat.": "|cat",
        "A man with a hat is next to the child.": "|man, |hat, |child",
        "I can hear rain and the barking of a dog.": "|rain, |barking, |dog",
        "It isn't a bus.": "",
        "The sky is blue.": "|sky",
        "In the background there is a house.": "|background, |house",
        "A dog running on sand.": "|dog, |sand",
        "Yes, it is red.": "",
    },
    "German": {
        "Auf dem Bild ist ein roter Ball zu sehen.": "ein|roter Ball",
        "Das Bild zeigt einen Hund, eine Katze und ein Fahrrad.": "einen|Hund, eine|Katze, ein|Fahrrad",
        "Es gibt Hunde und Katzen im Park.": "|Hunde, |Katzen, einem|Park",
        "Auf dem Bild gibt es Schnee.": "|Schnee",
        "Ich sehe keinen Hund, aber eine Katze.": "eine|Katze",
        "Ein Mann mit Hut sitzt neben einem kleinen Kind.": "ein|Mann, |Hut, einem|kleinen Kind",
        "Die Katze schläft auf dem Sofa.": "|Katze, einem|Sofa",
        "Es regnet, und es ist dunkel.": "",
        "Im Hintergrund befinden sich Bäume und ein Haus.": "|Bäume, ein|Haus",
        "Ohne Brille liest sie ein Buch.": "",
        "Zwei Kinder spielen mit einem großen Ball.": "|Kinder, einem|großen Ball",
        "Nein, auf dem Bild ist kein Auto zu sehen.": "",
    },
    "French": {
        "L'image montre un chien noir et une voiture rouge.": "un|chien, une|voiture",
        "Il y a un homme avec un verre d'eau.": "un|homme, un|verre, |eau",
        "Il y a des chiens, des chats et beaucoup de neige.": "des|chiens, des|chats, |neige",
        "Il n'y a pas de chien, mais il y a un chat.": "un|chat",
        "On voit l'homme devant la maison.": "un|homme, une|maison",
        "On voit l\u2019homme devant l\u2019arbre.": "un|homme, un|arbre",
        "Un petit garçon joue avec deux ballons.": "un|petit garçon, des|ballons",
        "On entend le cri d'un oiseau.": "un|cri, un|oiseau",
        "Au premier plan, une femme porte un chapeau.": "une|femme, un|chapeau",
        "Aucun animal n'est visible.": "",
        "C'est une rue sans voitures.": "une|rue",
        "Le ciel est bleu.": "un|ciel",
    },
    "Spanish": {
        "En la imagen hay un perro negro y una bicicleta roja.": "un|perro, una|bicicleta",
        "Hay perros, gatos y un caballo.": "|perros, |gatos, un|caballo",
        "La imagen muestra un hombre con sombrero.": "un|hombre, |sombrero",
        "No hay ningún perro, pero hay un gato.": "un|gato",
        "Se ven dos niños jugando con una pelota.": "|niños, una|pelota",
        "Un vaso de agua está sobre la mesa.": "un|vaso, |agua, una|mesa",
        "El perro corre por la playa.": "un|perro, una|playa",
        "Se oye el ladrido de un perro y lluvia.": "un|ladrido, un|perro, |lluvia",
        "Hay una gran mesa al lado del sofá.": "una|gran mesa, un|sofá",
        "Sin coches ni bicicletas.": "",
        "¿Hay un perro? Sí.": "un|perro",
    },
    "Italian": {
        "Nell'immagine c'è un cane nero e una bicicletta rossa.": "un|cane, una|bicicletta",
        "Ci sono cani e gatti.": "|cani, |gatti",
        "Si vede un'auto accanto all'albero.": "un'|auto, un|albero",
        "Non c'è nessun cane, ma c'è un gatto.": "un|gatto",
        "C'è acqua sul pavimento.": "|acqua, un|pavimento",
        "Un uomo con cappello tiene un bicchiere d'acqua.": "un|uomo, |cappello, un|bicchiere, |acqua",
        "Si vedono dell'acqua e delle persone.": "un|acqua, delle|persone",
        "Due bambini giocano con gli aquiloni.": "|bambini, degli|aquiloni",
        "Il gatto dorme sul divano.": "un|gatto, un|divano",
        "L'immagine mostra una bella casa.": "una|bella casa",
        "Il cielo è blu.": "un|cielo",
    },
    "Portuguese": {
        "Na imagem há um cachorro preto e uma bicicleta vermelha.": "um|cachorro, uma|bicicleta",
        "Há cães, gatos e um cavalo.": "|cães, |gatos, um|cavalo",
        "Não há nenhum cachorro, mas há um gato.": "um|gato",
        "Um homem com chapéu está sentado no banco.": "um|homem, |chapéu, um|banco",
        "Um cão a correr na praia.": "um|cão, uma|praia",
        "A imagem mostra duas crianças com uma bola.": "|crianças, uma|bola",
        "Um copo de água está sobre o prato.": "um|copo, |água, um|prato",
        "O gato dorme no sofá.": "um|gato, um|sofá",
        "Ouve-se o som de um sino e chuva.": "um|sino, |chuva",
        "Há uma grande mesa ao lado da janela.": "uma|grande mesa, uma|janela",
        "Sem carros nem bicicletas.": "",
    },
}
CASES = [(name, text, found) for name, cases in SENTENCES.items() for text, found in cases.items()]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("name", "sentence", "found"), CASES)
def test_the_nouns_of_a_sentence(name, sentence, found, cut):
    named = nouns(sentence, BY_NAME[name], cut)
    assert ", ".join(f"{noun.determiner}|{noun.text}" for noun in named) == found
    assert may_be(sentence, BY_NAME[name])


QUESTIONS = [
    ("English", Noun("dog"), "Is there a dog in the picture?"),
    ("English", Noun("umbrella"), "Is there an umbrella in the picture?"),
    ("English", Noun("rain", article=False), "Is there rain in the picture?"),
    ("English", Noun("dogs"), "Are there dogs in the picture?"),
    ("German", Noun("roter Ball", determiner="ein"), "Ist ein roter Ball auf dem Bild zu sehen?"),
    ("German", Noun("roten Ball", determiner="einen"), "Gibt es einen roten Ball auf dem Bild zu sehen?"),
    ("German", Noun("kleinen Kind", determiner="einem"), "Ist ein Kind auf dem Bild zu sehen?"),
    ("German", Noun("Hunde", article=False), "Gibt es Hunde auf dem Bild zu sehen?"),
    ("French", Noun("chien", determiner="un"), "Y a-t-il un chien dans l'image ?"),
    ("French", Noun("chats", determiner="des"), "Y a-t-il des chats dans l'image ?"),
    ("Spanish", Noun("perro", determiner="un"), "¿Hay un perro en la imagen?"),
    ("Spanish", Noun("perros"), "¿Hay perros en la imagen?"),
    ("Italian", Noun("auto", determiner="un'"), "C'è un'auto nell'immagine?"),
    ("Italian", Noun("gatti"), "Ci sono gatti nell'immagine?"),
    ("Italian", Noun("persone", determiner="delle"), "Ci sono delle persone nell'immagine?"),
    ("Portuguese", Noun("bola", determiner="uma"), "Há uma bola na imagem?"),
]


@pytest.mark.parametrize(("name", "noun", "question"), QUESTIONS)
def test_the_question_agrees_with_its_noun(name, noun, question):
    assert BY_NAME[name].question(noun, IMAGE) == question


def test_the_question_says_where():
    german, italian = BY_NAME["German"], BY_NAME["Italian"]
    both = [("image", True), ("audio", False)]
    asked = "Ist ein Hund auf den Bildern zu sehen oder in der Aufnahme zu hören?"
    assert german.question(Noun("Hund", determiner="ein"), both) == asked
    assert italian.question(Noun("cane", determiner="un"), [("audio", False)]) == "C'è un cane nel suono?"


PROMPTS = {
    "English": [
        "Describe.",
        "dog?",
        "Count dogs.",
        "What is in the picture?",
        "Name three animals.",
        "Anything unusual?",
    ]
    + ["It's Bob's cat's toy, isn't it?", "Which is it: dog, cat, sheep, horse?", "Who painted Dvořák?"],
    "German": ["Was ist auf dem Bild?", "Beschreibe das Bild.", "Was siehst du?", "Was hörst du in der Aufnahme?"],
    "French": ["Que vois-tu ?", "Qu'est-ce qu'il y a dans l'image ?", "Décrivez cette photo.", "Qu\u2019entends-tu ?"],
    "Spanish": ["¿Qué hay en la imagen?", "Describe la imagen.", "¿Qué ves?", "¿Cuántas personas hay?"],
    "Italian": ["Cosa c'è nell'immagine?", "Descrivi l'immagine.", "C'è un cane?", "Che cosa vedi?"],
    "Portuguese": ["O que há na imagem?", "Descreva a imagem.", "Há um cachorro?", "O que se ouve no áudio?"],
    None: ["描述这张图片。", "画像を説明してください。", "이 사진에 무엇이 있나요?", "ماذا يوجد في الصورة؟"]
    + ["Что на картинке?", "Τι υπάρχει στην εικόνα;", "Wat is er te zien op deze foto?", "Beschrijf de afbeelding."]
    + ["Bu resimde ne var?", "Resmi açıkla.", "Co jest na zdjęciu?", "Opisz obraz.", "Vad finns på bilden?"]
    + ["Mitä kuvassa on?", "Mis on pildil?", "Mi látható a képen?", "Ce este în imagine?", "Què hi ha a la imatge?"]
    + ["Eleza picha hii kwa maneno machache.", "Kuna nini kwenye picha hii?"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in PROMPTS.items() for text in texts])
def test_the_language_of_a_prompt(name, text):
    assert grammar_of([text]) is BY_NAME.get(name)


def test_earlier_texts_decide_where_the_newest_does_not():
    assert grammar_of(["Ball?"]) is ENGLISH
    assert grammar_of(["Ball?", "Was ist auf dem Bild?"]).name == "German"
    assert grammar_of(["Ball?", "图片里有什么?"]) is None
    assert grammar_of(["No", "¿Qué hay en la imagen?"]).name == "Spanish"
    assert grammar_of(["What is there?", "Was ist auf dem Bild?"]) is ENGLISH


def test_an_answer_in_another_language_is_told():
    german = BY_NAME["German"]
    assert not may_be("There is a dog in", german)
    assert may_be("Es gibt einen Hund in", german)
    assert may_be("", german) and may_be("In", german) and may_be("Hund", german)


def test_names_of_runs_of_words():
    german, french = BY_NAME["German"], BY_NAME["French"]
    assert noun_phrase("red ball rolling fast", ENGLISH) == "red ball"
    assert noun_phrase("running", ENGLISH) == "running"
    assert noun_phrase("roter Ball rollt", german) == "roter Ball"
    assert noun_phrase("rot", german) == noun_phrase("", german) == noun_phrase("welchem", german) == ""
    assert noun_phrase("petit chien noir", french) == "petit chien"
    assert noun_phrase("'homme assis", french) == noun_phrase("l\u2019homme", french) == "homme"
    assert noun_phrase("verre d'eau", french) == "verre"


def test_where_nouns_begin():
    french, italian = BY_NAME["French"], BY_NAME["Italian"]
    assert noun_place("There is a", ENGLISH) == Place(True, opening=True)
    assert noun_place("There is a dog and a", ENGLISH) == noun_place("A", ENGLISH) == Place(True)
    assert noun_place("A dog, there are two", ENGLISH) == Place(False, opening=True)
    assert noun_place("Here is the", ENGLISH) == Place(True, True)
    assert noun_place("devant l'", french) == noun_place("devant l\u2019", french) == Place(True, True, "un")
    assert noun_place("un verre d'", french) == Place(False)
    assert noun_place("il n'y a pas d'", french) is None
    assert noun_place("non c'è un", italian) is None
    assert noun_place("non c'è un cane, ma c'è un", italian) == Place(True, False, "un", True)


def test_content_in_other_languages():
    german, french = BY_NAME["German"], BY_NAME["French"]
    pieces = [" Hund", " der", " Bild", "Der", " zeigt", " the", "er", " l", " l'", "'homme", "'un", " d'un", " l'eau"]
    assert [p for p, names in zip(pieces, content_tokens(pieces, german), strict=True) if names] == [
        " Hund", "er", " l", " l'", " d'un", " l'eau",
    ]  # fmt: skip
    kept = [p for p, names in zip(pieces, content_tokens(pieces, french), strict=True) if names]
    assert kept == [" Hund", " der", " Bild", "Der", " zeigt", "er", "'homme", " l'eau"]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.name)
def test_the_lists_are_clean(grammar):
    determiners = grammar.definite | grammar.singular | grammar.counted
    used = determiners | grammar.before | grammar.links | grammar.lists | grammar.contrasts | grammar.denials
    assert grammar.closed >= determiners | grammar.lists | grammar.contrasts | grammar.denials
    assert grammar.indefinite.keys() <= determiners
    assert not grammar.definite & grammar.singular
    assert not grammar.denials & determiners
    assert all(word == word.lower() and word.replace("-", "").replace("'", "").isalpha() for word in used)
    assert all("'" not in word or grammar.elides for word in grammar.closed)
    assert not set(OTHERS) & set(BY_NAME)


@pytest.mark.parametrize(
    ("demo", "count", "fingerprint"), [("picture", 284, "1cbf96a87db2f316"), ("sound", 221, "bf31ac6418f858b9")]
)
def test_content_in_english_is_what_it_was(demo, count, fingerprint):
    """The masks of the version before grammars."""
    processor = load_processor(DEMO / demo)
    media = {"images": [Image.new("RGB", (40, 30))]} if demo == "picture" else {}
    content = processor.prompt("What is there?", **media).language.content
    assert content is processor.content
    assert (content.sum(), hashlib.sha256(content.tobytes()).hexdigest()[:16]) == (count, fingerprint)


def test_the_language_of_a_chat():
    processor = load_processor(DEMO / "picture")
    image = [Image.new("RGB", (40, 30))]
    german = processor.prompt("<image>\nWas ist auf dem Bild?", image).language
    assert german.judges and german.content is processor.content_of(BY_NAME["German"])
    assert german.noun_place("Das ist ein") == Place(True, False, "ein")
    assert german.noun_place("There is a dog in") is None
    later = processor.prompt("Hund?", image, history=[Turn("Was ist auf dem Bild?", "A dog.")]).language
    assert later.content is german.content
    other = processor.prompt("Что на картинке?", image).language
    assert not other.judges and other.content is processor.content
    assert other.noun_place("There is a") is None


def test_no_verdicts_without_a_grammar():
    flagged = judged("Er staat een hond in de tuin.", None)
    assert any(word.names_something for word in flagged)
    assert all(word.p_unsupported is None and not word.flagged and word.noun is None for word in flagged)
    assert any(word.flagged for word in judged("There is a dog.", ENGLISH))


def test_a_noun_is_asked_about_with_its_determiner():
    ask = Ask(BY_NAME["German"])
    detector = replace(DETECTOR, asking=Asking(relevance=0, margin=-1, intercept=0, lowest=0))
    pieces = {" Ein": None, " roter": {"share": 0.9}, " Ball": {"share": 0.9}}
    tokens = (Token(text=text, statistics=statistics, ask=ask) for text, statistics in pieces.items())
    assert [word.flagged for word in words(tokens, detector)] == [False, True, True]
    assert set(ask.asked) == {Noun("roter Ball", True, "ein")}


@pytest.fixture(scope="module")
def demo():
    return load("demo")


PIECES = ["Devant", " l", "'h", "omme", " la", " mais", "on", " mange"]


@pytest.mark.parametrize(("count", "place"), [(2, Place(True, True, "un")), (3, None), (5, Place(True, True, "une"))])
def test_choose_finds_the_beginning_of_a_word_behind_an_apostrophe(demo, count, place):
    language = Spoken(BY_NAME["French"])
    language.text = lambda tokens: "".join(PIECES[token] for token in tokens)
    prompt = SimpleNamespace(language=language)
    generated = list(range(count))
    session = SimpleNamespace(
        prompt=prompt, generated=generated, modality=np.ones(1, bool), may_judge=lambda token: True
    )
    assert Judge(None, True).place(session, count) == place


@pytest.mark.parametrize("question", ["Что на картинке?", "Beschrijf de afbeelding.", "描述这张图片。"])
def test_choose_leaves_other_languages_as_they_are(demo, question):
    image = make_scene(100_005, "adversarial").image
    notices = []
    plain, chosen = (
        generate(*demo, question, image, method=method, max_tokens=30, notice=notices.append)
        for method in ("none", "choose:threshold=0.001")
    )
    assert (chosen.text, chosen.tokens) == (plain.text, plain.tokens) and chosen.text
    assert notices == chosen.notices and len(notices) == 1
    assert "English, German, French, Spanish, Italian and Portuguese only" in notices[0]
    assert not any(word.flagged or word.p_unsupported is not None for word in chosen.words)


def test_choose_says_nothing_in_a_language_that_it_knows(demo):
    image = make_scene(100_005, "adversarial").image
    prompts = [demo[1].prompt(text, [image]) for text in ("What is here?", "Was ist auf dem Bild?", "Что это?")]
    notes = [parse_method("kvsmooth+choose").notes(prompt) for prompt in (*prompts, Prompt([1]))]
    assert [len(each) for each in notes] == [0, 0, 1, 0]
    assert parse_method("lime").notes(prompts[2]) == []


@pytest.mark.parametrize("name", ["umbrella", " Apple", "hour", "honest man", "urn", "uninhabited island", "ice"])
def test_names_behind_an(name):
    assert agrees("A dog and an", name, ENGLISH) and not agrees("a", name, ENGLISH)


@pytest.mark.parametrize("name", ["dog", " unicorn", "uniform", "European", "one-way sign", "ukulele", "house"])
def test_names_behind_a(name):
    assert agrees("A", name, ENGLISH) and not agrees("there is an", name, ENGLISH)


@pytest.mark.parametrize("before", ["", "the", "A dog,", "two", "banana", "There is a red"])
def test_other_words_before_a_name_decide_nothing(before):
    assert agrees(before, "dog", ENGLISH) and agrees(before, "umbrella", ENGLISH)
