"""Italian. Most adjectives stand behind the noun; "c'è" asks about one thing, "ci sono" about several."""

from lime_mlx.prompt import Noun

from .base import Grammar, closed, first_noun, pairs, with_determiner, words

DEFINITE = """
il lo la l' i gli le del dello della dell' al allo alla all' ai agli alle dal dallo dalla dall' dai dagli dalle nel
nello nella nell' nei negli nelle sul sullo sulla sull' sui sugli sulle col questo questa quest' questi queste quel
quello quella quell' quei quegli quelle mio mia miei mie tuo tua tuoi tue suo sua suoi sue nostro nostra nostri nostre
vostro vostra loro
"""
SINGULAR = "un uno una un' ogni qualche"
COUNTED = """
dei degli delle alcuni alcune diversi diverse vari varie molto molta molti molte poco poca pochi poche tanti tante
parecchi due tre quattro cinque sei sette otto nove dieci undici dodici cento tutti tutte altro altra altri altre
entrambi entrambe
"""
BEFORE = "con tra fra mostra mostrano contiene contengono vedo vede vedono sento sente sentono ha hanno"
# c'è acqua, ci sono cani, un bicchiere d'acqua, un gruppo di persone
OPENERS = "ci c' gruppo bicchiere tazza bottiglia piatto pieno piena paio"
LINKS = "è sono era erano di d'"
DENIALS = "no non né senza nessun nessuno nessuna nessun' niente nulla mai neanche nemmeno"

PREPOSITIONS = """
a ad da di d' in su per sotto sopra dietro davanti dentro fuori vicino lontano accanto verso contro durante dopo prima
presso intorno attorno
"""
PRONOUNS = """
io tu lui lei noi voi esso essa essi esse mi ti si ci c' vi ne me te sé li che chi cui quale quali cosa ciò qualcuno
qualcosa stesso stessa m' t' s' v'
"""
CONJUNCTIONS = "e ed o od oppure ma bensì però se perché come com' quando mentre anche dove dov' quanti quante"
AUXILIARIES = """
sono siamo siete essere stato stata stati state sia siano ho hai abbiamo avete aveva avevano avere avuto può puoi
possono potrebbe potrebbero deve devono va vanno sta stai stanno sembra sembrano viene vengono fa
"""
PARTICLES = """
sì qui qua lì là più meno tanto troppo abbastanza già ancora sempre forse probabilmente inoltre così poi ora allora solo
soltanto sinistra destra favore
"""
FRAMES = """
immagine immagini foto fotografia fotografie scena mostrando vedi vedere visibile visibili raffigura raffigurano senti
sentire suono suoni audio registrazione ascolta descrivi descriva descrivere descrizione sfondo primo piano centro
"""
ADJECTIVES = """
grande grandi gran piccolo piccola piccoli piccole bel bello bella bei belle buon buona vecchio vecchia vecchi vecchie
nuovo nuova nuovi nuove giovane giovani lungo lunga alto alta
"""

# The answer's determiner tells the gender, or the plural; behind l' the masculine is a guess.
INDEFINITE = """
un:un uno:uno una:una un':un' il:un del:un al:un dal:un nel:un sul:un col:un questo:un quel:un lo:uno dello:uno allo:uno
dallo:uno nello:uno sullo:uno quello:uno la:una della:una alla:una dalla:una nella:una sulla:una questa:una quella:una
l':un dell':un all':un dall':un nell':un sull':un quell':un i:dei ai:dei dai:dei nei:dei sui:dei questi:dei quei:dei
dei:dei gli:degli agli:degli dagli:degli negli:degli sugli:degli quegli:degli degli:degli le:delle alle:delle
dalle:delle nelle:delle sulle:delle queste:delle quelle:delle delle:delle alcuni:alcuni alcune:alcune
"""
PLURAL = words("dei degli delle alcuni alcune")


def asked(noun: Noun, where: str) -> str:
    """A noun without a determiner counts as a plural if it ends in -i."""
    several = noun.determiner in PLURAL or (not noun.determiner and noun.text.endswith("i"))
    start = "Ci sono" if several else "C'è"
    return f"{start} {with_determiner(noun)} {where}?"


ITALIAN = Grammar(
    name="Italian",
    closed=closed(
        DEFINITE, SINGULAR, COUNTED, BEFORE, LINKS, DENIALS,
        PREPOSITIONS, PRONOUNS, CONJUNCTIONS, AUXILIARIES, PARTICLES, FRAMES,
    ),
    definite=words(DEFINITE),
    singular=words(SINGULAR),
    counted=words(COUNTED),
    before=words(BEFORE),
    openers=words(OPENERS),
    links=words(LINKS),
    statements=words("ci c'"),
    lists=words("e ed o od oppure"),
    contrasts=words("ma bensì però"),
    denials=words(DENIALS),
    named=first_noun(words(ADJECTIVES)),
    elides=True,
    asked=asked,
    indefinite=pairs(INDEFINITE),
    places={"image": ("nell'immagine", "nelle immagini"), "audio": ("nel suono", "nei suoni")},
    joined=" o ",
    yes=("sì", "si"),
    no=("no",),
)  # fmt: skip
