"""Spanish. Most adjectives stand behind the noun; a plural needs no determiner."""

from lime_mlx.prompt import Noun

from .base import Grammar, closed, first_noun, pairs, with_determiner, words

DEFINITE = """
el la los las del al este esta estos estas ese esa esos esas aquel aquella aquellos aquellas mi mis tu tus su sus
nuestro nuestra nuestros nuestras
"""
SINGULAR = "un una cada"
COUNTED = """
unos unas algún alguna algunos algunas varios varias mucho mucha muchos muchas poco poca pocos pocas dos tres cuatro
cinco seis siete ocho nueve diez once doce cien todos todas otro otra otros otras ambos ambas
"""
BEFORE = "hay había con entre muestra muestran contiene contienen veo ve ven oigo oye oyen tiene tienen"
# un vaso de agua, un grupo de personas
OPENERS = "grupo vaso taza botella plato lleno llena montón par docena"
LINKS = "de"
DENIALS = "no ni sin ningún ninguno ninguna nada nadie nunca jamás tampoco"

PREPOSITIONS = """
a ante bajo contra desde durante en hacia hasta para por según sobre tras junto cerca lejos delante detrás encima debajo
dentro fuera alrededor lado
"""
PRONOUNS = """
yo tú él ella ello nosotros nosotras ustedes vosotros ellos ellas me te se le les lo nos os mí ti sí que qué quien quién
quienes cual cuál cuales cuáles cuyo cuya esto eso aquello alguien algo uno
"""
CONJUNCTIONS = "y e o u pero sino si porque como cuando mientras aunque pues donde dónde cuándo cómo cuánto cuántos"
AUXILIARIES = """
soy eres es somos son era eran fue fueron ser sido sea siendo estoy estás está están estaba estaban estar estado he ha
han has habían haber hubo tengo tenía puede puedes pueden podría podrían debe deben va van parece parecen
"""
PARTICLES = """
aquí allí ahí también muy más menos tan tanto bastante ya aún todavía siempre quizás quizá tal vez probablemente además
así entonces luego solo sólo izquierda derecha arriba abajo favor
"""
FRAMES = """
imagen imágenes foto fotos fotografía fotografías escena mostrar mostrando ver ves vemos visible visibles observa
observan aprecia aparece aparecen oyes oír escucha escuchas escuchan audible sonido sonidos audio grabación describe
describa describir descripción fondo primer plano centro
"""
ADJECTIVES = """
gran grande grandes pequeño pequeña pequeños pequeñas buen buena bello bella hermoso hermosa viejo vieja viejos viejas
nuevo nueva nuevos nuevas joven jóvenes largo larga alto alta
"""

# The answer's determiner tells the gender; a plural needs none.
INDEFINITE = """
un:un una:una el:un la:una del:un al:un este:un esta:una ese:un esa:una aquel:un aquella:una nuestro:un nuestra:una
algún:un alguna:una
"""


def asked(noun: Noun, where: str) -> str:
    return f"¿Hay {with_determiner(noun)} {where}?"


SPANISH = Grammar(
    name="Spanish",
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
    statements=words("hay había"),
    lists=words("y e o u"),
    contrasts=words("pero sino"),
    denials=words(DENIALS),
    named=first_noun(words(ADJECTIVES)),
    elides=True,
    asked=asked,
    indefinite=pairs(INDEFINITE),
    places={"image": ("en la imagen", "en las imágenes"), "audio": ("en el sonido", "en los sonidos")},
    joined=" o ",
    yes=("sí", "si"),
    no=("no",),
)  # fmt: skip
