"""Portuguese. Most adjectives stand behind the noun; a plural needs no determiner.

The article "a" is not used: it is also the preposition of a verb, "um cão a correr".
"""

from lime_mlx.prompt import Noun

from .base import Grammar, closed, first_noun, pairs, with_determiner, words

DEFINITE = """
o os as do da dos das no na nos nas ao à aos às pelo pela pelos pelas este esta estes estas esse essa esses essas aquele
aquela aqueles aquelas neste nesta nesse nessa deste desta desse dessa meu minha meus minhas teu tua seu sua seus suas
nosso nossa nossos nossas
"""
SINGULAR = "um uma num numa dum duma cada"
COUNTED = """
uns umas algum alguma alguns algumas vários várias muito muita muitos muitas pouco pouca poucos poucas dois duas três
quatro cinco seis sete oito nove dez onze doze cem todos todas outro outra outros outras ambos ambas
"""
BEFORE = """
há havia existe existem com entre mostra mostram contém contêm vejo vê veem ouço ouve ouvem tem têm
"""
# um copo de água, um grupo de pessoas
OPENERS = "grupo copo xícara chávena garrafa prato cheio cheia monte par dúzia"
LINKS = "de d'"
DENIALS = "não nem sem nenhum nenhuma nada ninguém nunca jamais tampouco"

PREPOSITIONS = """
a ante após até contra desde durante em para por perante segundo sob sobre trás junto perto longe frente atrás cima
baixo dentro fora redor lado
"""
PRONOUNS = """
eu tu você vocês ele ela nós vós eles elas me te se lhe lhes vos mim ti si que quem qual quais cujo cuja isto isso
aquilo alguém algo dele dela deles delas nele nela
"""
CONJUNCTIONS = "e ou mas porém porque como quando enquanto embora pois onde quê quanto quantos quantas"
AUXILIARIES = """
sou és é somos são era eram foi foram ser sido seja sendo estou está estão estava estavam estar estado tenho tinha
tinham ter pode podes podem poderia poderiam deve devem vai vão parece parecem
"""
PARTICLES = """
sim aqui ali aí lá também mais menos tão tanto bastante já ainda sempre talvez provavelmente além assim então depois só
apenas esquerda direita acima abaixo favor
"""
FRAMES = """
imagem imagens foto fotos fotografia fotografias cena mostrar mostrando ver vês vemos visível visíveis observa observam
aparece aparecem ouvir audível som sons áudio gravação descreve descreva descrever descrição fundo primeiro plano centro
"""
ADJECTIVES = """
grande grandes grã pequeno pequena pequenos pequenas bom boa belo bela lindo linda velho velha velhos velhas novo nova
novos novas jovem jovens longo longa alto alta
"""

# The answer's determiner tells the gender; a plural needs none.
INDEFINITE = """
um:um uma:uma num:um numa:uma dum:um duma:uma o:um do:um da:uma no:um na:uma ao:um à:uma pelo:um pela:uma este:um
esta:uma esse:um essa:uma aquele:um aquela:uma neste:um nesta:uma nesse:um nessa:uma deste:um desta:uma desse:um
dessa:uma meu:um minha:uma seu:um sua:uma nosso:um nossa:uma algum:um alguma:uma
"""


def asked(noun: Noun, where: str) -> str:
    return f"Há {with_determiner(noun)} {where}?"


PORTUGUESE = Grammar(
    name="Portuguese",
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
    statements=words("há havia"),
    lists=words("e ou"),
    contrasts=words("mas porém"),
    denials=words(DENIALS),
    named=first_noun(words(ADJECTIVES)),
    elides=True,
    asked=asked,
    indefinite=pairs(INDEFINITE),
    places={"image": ("na imagem", "nas imagens"), "audio": ("no som", "nos sons")},
    joined=" ou ",
    yes=("sim",),
    no=("não",),
)  # fmt: skip
