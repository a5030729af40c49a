"""English. Nouns follow adjectives, so a name ends where a word looks like a verb or an adverb."""

from collections.abc import Sequence

from lime_mlx.prompt import Noun

from .base import Grammar, words

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

DEFINITE = "the this that these those my your his her its our their both same"
SINGULAR = "a an another each every one single"
COUNTED = """
some any all many more most few several various multiple numerous two three four five six seven eight nine ten eleven
twelve hundred of
"""
SHOWING = """
show shows showing depict depicts depicting contain contains containing include includes including feature features
featuring see sees seeing hear hears hearing has have having
"""
NOT_BEFORE = "as like past up down off out together to"
DENIALS = "no not never without neither nor none cannot"

# Words that begin with a vowel by their sound but not by their letter, and the reverse. Case does not matter.
VOWEL_LETTERS = tuple("aeiou")
VOWEL_SOUNDS = ("hour", "honest", "honor", "honour", "heir")
CONSONANT_SOUNDS = ("uni", "use", "usu", "uten", "utop", "eu", "ewe", "one", "once", "ukulele")
# Words in uni- that are no "you": uninhabited.
NOT_UNI = ("unin", "unim", "unid")
# Endings of words in -s that are no plurals: bus, glass, tennis.
SINGULAR_ENDINGS = ("ss", "us", "is")
# Endings of words behind a noun that say what it does, or how.
VERBAL = ("ing", "ed", "ly")


def named(words: Sequence[str]) -> Sequence[str]:
    """The words without verbs and adverbs behind the first one."""
    for count, word in enumerate(words):
        if count and word.endswith(VERBAL):
            return words[:count]
    return words


def asked(noun: Noun, where: str) -> str:
    if is_plural(noun.text):
        return f"Are there {noun.text} in {where}?"
    return f"Is there {indefinite(noun.text) if noun.article else noun.text} in {where}?"


def indefinite(noun: str) -> str:
    """a dog, an umbrella."""
    return f"{'an' if begins_with_vowel(noun) else 'a'} {noun}"


def begins_with_vowel(noun: str) -> bool:
    """Whether a noun sounds as if a vowel began it: an hour, a unicorn. Spelling decides; rare words are misread."""
    word = noun.casefold()
    if word.startswith(CONSONANT_SOUNDS) and not word.startswith(NOT_UNI):
        return False
    return word.startswith((*VOWEL_LETTERS, *VOWEL_SOUNDS))


def agrees(determiner: str, name: str) -> bool:
    """Whether a name may stand right behind a determiner: a or an decides."""
    return determiner not in ("a", "an") or begins_with_vowel(name) == (determiner == "an")


def is_plural(noun: str) -> bool:
    """Whether a noun looks like a plural. Spelling alone decides: sheep and lens are misread."""
    return len(noun) > 3 and noun.endswith("s") and not noun.endswith(SINGULAR_ENDINGS)


ENGLISH = Grammar(
    name="English",
    closed=words(ARTICLES, PRONOUNS, PREPOSITIONS, CONJUNCTIONS, AUXILIARIES, QUANTIFIERS, PARTICLES, FRAMES),
    definite=words(DEFINITE),
    singular=words(SINGULAR),
    counted=words(COUNTED),
    before=(words(PREPOSITIONS) - words(NOT_BEFORE)) | words(SHOWING),
    openers=words("there"),
    links=words("is are was were be"),
    statements=words("there"),
    lists=words("and or"),
    contrasts=words("but"),
    denials=words(DENIALS),
    denial_endings=("n't",),
    named=named,
    agrees=agrees,
    asked=asked,
    places={"image": ("the picture", "the pictures"), "audio": ("the sound", "the sounds")},
    joined=" or ",
    yes=("yes",),
    no=("no",),
)
