"""Which tokens can name a thing: everything but the closed classes of English, punctuation and digits.

The closed classes are the words that a language has a short, fixed list of: articles, pronouns, prepositions,
conjunctions, auxiliaries, quantifiers, numerals, particles. Counted with them are the words that only frame a
description ("the picture shows"). In any other language every word counts as one that can name a thing.
"""

from collections.abc import Sequence

import numpy as np

ARTICLES = "a an the"
PRONOUNS = """
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
we us our ours ourselves they them their theirs themself themselves one ones oneself this that these those
someone somebody something anyone anybody anything everyone everybody everything nobody nothing none
each other another others such same who whom whose which what whatever whichever whoever whomever
"""
PREPOSITIONS = """
about above across after against along alongside amid amidst among amongst around as aside at atop away back before
behind below beneath beside besides between beyond by despite down during except for from in inside into like near
nearby next of off on onto opposite out outside over past per since through throughout to together toward towards
under underneath unlike until till up upon via with within without
"""
CONJUNCTIONS = (
    "and or but nor so yet if then else than because although though while whereas unless whether both either neither"
)
AUXILIARIES = """
am is are was were be been being do does did doing done have has had having can could will would shall should may
might must ought need dare let cannot don doesn didn isn aren wasn weren hasn haven hadn couldn wouldn shouldn mightn
mustn needn won shan ain
"""
QUANTIFIERS = """
all any some no every much many more most few fewer fewest little less least several enough plenty lot lots various
multiple couple half pair numerous single first second third last zero two three four five six seven eight nine ten
eleven twelve hundred thousand
"""
PARTICLES = """
yes yeah yep nope ok okay not never here there where when why how wherever whenever however therefore thus hence also
too very quite rather just only even still already again ever once now perhaps maybe probably likely possibly well
indeed instead otherwise actually overall additionally furthermore moreover almost about etc please sure certainly
"""
FRAMES = """
picture pictures image images photo photos photograph photographs scene show shows showing shown showed depict depicts
depicting depicted contain contains containing contained include includes including included appear appears appearing
appeared seem seems seen see sees seeing visible describe describes described description
hear hears heard hearing audible sound sounds sounding audio recording recordings clip
"""
CLOSED = frozenset(
    " ".join((ARTICLES, PRONOUNS, PREPOSITIONS, CONJUNCTIONS, AUXILIARIES, QUANTIFIERS, PARTICLES, FRAMES)).split()
)
APOSTROPHES = "'\u2019"


def content_tokens(pieces: Sequence[str | None]) -> np.ndarray:
    """(V,) bool: True for each token text that can name something.

    A text is given as it decodes, with a leading space where the token starts a word. None (a special token, a byte)
    and texts without a letter are False. Without a leading space a text continues a word and is True, unless it is
    capitalised, and so rather starts a line: then it is looked up like a word.
    """
    return np.array([piece is not None and _names(piece) for piece in pieces], dtype=bool)


def _names(piece: str) -> bool:
    if not piece[:1].isspace() and any(apostrophe in piece for apostrophe in APOSTROPHES):
        return False  # 's, n't
    letters = [i for i, character in enumerate(piece) if character.isalpha()]
    if not letters:
        return False
    word = piece[letters[0] : letters[-1] + 1]
    starts = piece[0].isspace() or word[0].isupper()
    for apostrophe in APOSTROPHES:
        word = word.split(apostrophe)[0]
    return not (starts and word.lower() in CLOSED)
