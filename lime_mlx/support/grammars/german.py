"""German. Nouns are capitalised, so a name goes up to its last capital: roter Ball."""

from collections.abc import Sequence

from lime_mlx.prompt import Noun

from .base import Grammar, closed, pairs, with_determiner, words

DEFINITE = """
der die das den dem des im am zum zur vom beim ins ans aufs dieser diese dieses diesen diesem jener jene jenes jenen
jenem mein meine meinen meinem meiner meines dein deine deinen deinem deiner deines sein seine seinen seinem seiner
seines ihr ihre ihren ihrem ihrer ihres unser unsere unseren unserem unserer euer eure derselbe dieselbe dasselbe beide
beiden
"""
SINGULAR = "ein eine einen einem einer eines jeder jede jedes jeden jedem"
COUNTED = """
einige einiger einigen viel viele vieler vielen mehrere mehrerer mehreren manche manchen wenig wenige wenigen etliche
verschiedene verschiedenen alle aller allen zahlreiche zahlreichen etwas paar zwei drei vier fünf sechs sieben acht neun
zehn elf zwölf hundert
"""
# Words behind which a noun may stand without a determiner; verbs there are in lower case, and so no names.
BEFORE = """
mit von aus bei nach seit in auf an unter über vor hinter neben zwischen für um gegen durch samt innerhalb außerhalb
gibt gab es sich ist sind war waren hat haben zeigt zeigen enthält enthalten sehe siehst sieht sehen höre hörst hört
hören
"""
DENIALS = "kein keine keinen keinem keiner keines nicht nie niemals niemand nichts ohne weder"

PREPOSITIONS = "zu ab bis entlang gegenüber trotz während wegen statt außer"
PRONOUNS = """
ich du er sie wir ihm ihn ihnen mich mir dich dir uns euch man jemand alles wer wen wem was welche welcher welches
welchen welchem dessen deren selbst einander andere anderer anderes anderen anderem
"""
CONJUNCTIONS = "und oder sowie aber sondern dass weil wenn ob als wie denn doch obwohl damit indem bevor nachdem"
AUXILIARIES = """
bin bist seid warst wäre wären gewesen habe hast hatte hatten hätte werde wird werden wurde wurden worden würde würden
kann kannst können könnte könnten muss müssen soll sollen sollte darf dürfen will wollen möchte mag lässt lassen
"""
PARTICLES = """
ja nein da dort hier dann nun jetzt auch nur noch schon sehr so ganz eher etwa fast immer wieder mehr weniger wohl
vielleicht wahrscheinlich vermutlich möglicherweise außerdem daneben darunter dahinter davor darüber darauf darin dabei
links rechts oben unten bitte wo wann warum woher wohin
"""
FRAMES = """
bild bilder bildern bildes foto fotos aufnahme aufnahmen szene abbildung gezeigt zeige seht gesehen sichtbar erkennbar
erkennen erkennst befindet befinden scheint scheinen gehört hörbar ton töne geräusch geräusche klang audio klingt
klingen beschreibe beschreib beschreiben beschreibt beschreibung nenne vordergrund hintergrund mitte
"""

# From the answer's determiner to that of the question. "einem" and "einer" are for those whose adjectives end otherwise
# behind "ein" and "eine", so that these are left out; "die" does not tell one from many.
INDEFINITE = """
ein:ein eine:eine einen:einen den:einen einem:einem eines:einem dem:einem der:einem das:einem im:einem am:einem
zum:einem vom:einem beim:einem ins:einem ans:einem aufs:einem einer:einer zur:einer
"""
WITHOUT_ADJECTIVES = {"einem": "ein", "einer": "eine"}


def named(words: Sequence[str]) -> Sequence[str]:
    """The words up to the last capital."""
    count = max((index for index, word in enumerate(words, start=1) if word[:1].isupper()), default=0)
    return words[:count]


def asked(noun: Noun, where: str) -> str:
    """ "Ist" for the nominative: ein Hund. "Gibt es" for the accusative, einen Hund, and without a determiner."""
    if noun.determiner in WITHOUT_ADJECTIVES:
        capitals = [word for word in noun.text.split() if word[:1].isupper()]
        noun = Noun(" ".join(capitals) or noun.text, determiner=WITHOUT_ADJECTIVES[noun.determiner])
    start = "Ist" if noun.determiner in ("ein", "eine") else "Gibt es"
    return f"{start} {with_determiner(noun)} {where}?"


GERMAN = Grammar(
    name="German",
    closed=closed(
        DEFINITE, SINGULAR, COUNTED, BEFORE, DENIALS,
        PREPOSITIONS, PRONOUNS, CONJUNCTIONS, AUXILIARIES, PARTICLES, FRAMES,
    ),
    definite=words(DEFINITE),
    singular=words(SINGULAR),
    counted=words(COUNTED),
    before=words(BEFORE),
    statements=words("gibt"),
    lists=words("und oder sowie"),
    contrasts=words("aber sondern"),
    denials=words(DENIALS),
    named=named,
    asked=asked,
    indefinite=pairs(INDEFINITE),
    places={
        "image": ("auf dem Bild zu sehen", "auf den Bildern zu sehen"),
        "audio": ("in der Aufnahme zu hören", "in den Aufnahmen zu hören"),
    },
    joined=" oder ",
    yes=("ja",),
    no=("nein",),
)  # fmt: skip
