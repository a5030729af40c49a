"""French. Nouns nearly always have a determiner; most adjectives stand behind them."""

from lime_mlx.prompt import Noun

from .base import Grammar, closed, first_noun, pairs, with_determiner, words

DEFINITE = """
le la les l' du au aux ce cet cette ces mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs
"""
SINGULAR = "un une chaque"
COUNTED = """
des plusieurs quelques certains certaines divers diverses nombreux nombreuses tous toutes tout toute autre autres deux
trois quatre cinq six sept huit neuf dix onze douze cent
"""
BEFORE = "avec"
# il y a, beaucoup d'eau, un groupe de personnes
OPENERS = "y beaucoup plein pleine peu plus groupe verre tasse bouteille assiette paire morceau"
LINKS = "a avait de d'"
DENIALS = "ne n' pas non ni sans aucun aucune jamais rien"

PREPOSITIONS = """
à de d' dans sur sous devant derrière pour par vers chez entre contre parmi près loin autour dessus dessous depuis
pendant avant après selon hors en
"""
PRONOUNS = """
je j' tu il elle on nous vous ils elles me m' te t' t se s' lui eux y que qu' qui quoi dont où ceci cela ça c' quel
quelle quels quelles lequel laquelle lesquels lesquelles celui celle ceux celles moi toi soi même mêmes
"""
CONJUNCTIONS = "et ou mais donc or car si comme quand lorsque puisque parce tandis alors puis"
AUXILIARIES = """
suis es est sommes êtes sont était étaient être été sera serait ai as a avons avez ont avait avaient avoir eu aura
aurait ait fait font faire peut peux peuvent pouvez pourrait doit doivent va vont semble semblent
"""
PARTICLES = """
oui ici là aussi très plus moins peu beaucoup trop assez bien encore déjà toujours souvent parfois seulement surtout
ensemble ailleurs également probablement peut-être plutôt gauche droite merci svp comment pourquoi combien
"""
FRAMES = """
image images photo photos photographie scène montre montrent montrant montré représente représentent contient
contiennent vois voit voyez voient voir visible visibles entends entend entendez entendent entendre audible son sons
enregistrement audio décris décrivez décrire décrit description plan arrière-plan arrière premier fond centre milieu
côté
"""
ADJECTIVES = """
petit petite petits petites grand grande grands grandes gros grosse grosses beau bel belle beaux belles vieux vieil
vieille vieilles jeune jeunes nouveau nouvel nouvelle nouveaux nouvelles joli jolie jolis jolies bon bonne bons bonnes
long longue haut haute
"""

# The answer's determiner tells the gender, or the plural; behind l' the masculine is a guess.
INDEFINITE = """
un:un une:une le:un la:une l':un du:du au:un ce:un cet:un cette:une mon:un ma:une ton:un ta:une son:un sa:une les:des
aux:des ces:des mes:des tes:des ses:des nos:des vos:des leurs:des des:des plusieurs:des quelques:des deux:des trois:des
quatre:des cinq:des six:des sept:des huit:des neuf:des dix:des onze:des douze:des
"""


def asked(noun: Noun, where: str) -> str:
    return f"Y a-t-il {with_determiner(noun)} {where} ?"


FRENCH = Grammar(
    name="French",
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
    statements=words("y"),
    lists=words("et ou"),
    contrasts=words("mais"),
    denials=words(DENIALS),
    named=first_noun(words(ADJECTIVES)),
    elides=True,
    asked=asked,
    indefinite=pairs(INDEFINITE),
    places={"image": ("dans l'image", "dans les images"), "audio": ("dans le son", "dans les sons")},
    joined=" ou ",
    yes=("oui",),
    no=("non",),
)  # fmt: skip
