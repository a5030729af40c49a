"""Free questions about a scene of either world: each with its right answer in words, and with what makes one right.

`ask` puts a question of one of `TALKS`, kinds of questions that differ in what the answer must hold and in its form.
What is asked for can be seen or heard plainly: neighbours in an order stand at least `APART` of the width of a picture
apart, and sounds in an order begin at least `LATER` seconds apart. A kind that is `unseen` is never asked about.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from .draw import COLORS
from .habits import EMPTY, World
from .language import ANSWERS, PROMPTS, SOUND_PROMPTS, caption, listed, with_article
from .soundscape import SoundScene
from .world import PALETTE, Scene

APART, LATER = 0.06, 0.2
NUMBERS = ("one", "two", "three", "four", "five")
WORD, LIST, ORDERED, VERDICT = "word", "list", "ordered", "verdict"
# class -> its kinds, and those of which nobody can say it
CLASSES: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "picture": {
        "animal": (
            ("dog", "cat", "horse", "cow", "bird", "duck", "fish"),
            ("car", "bus", "table", "cup", "house", "umbrella", "pizza", "clock"),
        ),
        "vehicle": (
            ("car", "bus", "bicycle", "boat", "train", "plane"),
            ("dog", "cat", "tree", "flower", "chair", "lamp", "banana", "book"),
        ),
    },
    "sound": {
        "animal": (("dog", "cat", "bird", "cow", "duck"), ("bell", "phone", "siren", "rain", "piano", "train")),
        "instrument": (("piano", "guitar", "drum"), ("dog", "cow", "rain", "thunder", "engine", "duck")),
    },
}
# Words beside kinds and settings that say something of a scene.
_SAYING = {
    "picture": ("left", "right", *COLORS, *CLASSES["picture"]),
    "sound": ("first", "last", "before", "after", *CLASSES["sound"]),
}
# Other spellings of the words that `named` finds.
_SAME = {"not": "no", "n't": "no", "none": "nothing", "grey": "gray"} | {
    str(number): word for number, word in enumerate(NUMBERS, 1)
}


@dataclass(frozen=True)
class Talk:
    """A question that is answered freely.

    kind: one of `TALKS`. answer: the right answer. says: the words of the world in it (see `named`), as often as it
    holds them. may: those that another right answer can hold too. form: "word" for an answer of one word, "list" for
    names without articles, "ordered" where the order of the words matters, "verdict" where the answer is yes or no,
    else "". history: the turns before, what the user and what the model said.
    """

    kind: str
    text: str
    answer: str
    says: tuple[str, ...]
    may: tuple[str, ...] = ()
    form: str = ""
    history: tuple[tuple[str, str], ...] = ()

    @property
    def truth(self) -> dict[str, list[str]]:
        """What a scorer needs, as JSON."""
        return {"says": [*self.says], "may": [*self.may], "form": [self.form]}


@lru_cache
def _pattern(world: World) -> re.Pattern[str]:
    plain = ("yes", "nothing", *NUMBERS, *_SAYING[world.medium], *_SAME)
    settings = world.settings if world.medium == "picture" else ()
    return re.compile(rf"\b({'|'.join((*world.kinds, *settings))})(?:e?s)?\b|\b(no|{'|'.join(plain)})\b|(n't)\b", re.I)


def named(text: str, world: World) -> list[str]:
    """The words of a text that say something of a scene, in order: kinds, settings, numbers, yes, no and so on."""
    found = ("".join(groups).lower() for groups in _pattern(world).findall(text))
    return [_SAME.get(word, word) for word in found]


class _View:
    """What is really in a scene, and chance: what the kinds of questions are made from."""

    def __init__(self, scene: Scene | SoundScene, rng: random.Random) -> None:
        self.scene, self.rng, self.world = scene, rng, scene.world
        self.medium = scene.world.medium
        self.picture = isinstance(scene, Scene)
        places: list[tuple[str, float, str]]
        if isinstance(scene, Scene):
            width = scene.image.width
            places = [(o.kind, (o.box[0] + o.box[2]) / 2 / width, o.color) for o in scene.objects]
        else:
            places = [(event.kind, event.start, "") for event in scene.events]
        places = [place for place in places if place[0] != scene.unseen]
        self.kinds = [kind for kind, _, _ in places]
        self.colours = {kind: colour for kind, _, colour in places}
        least = APART if self.picture else LATER
        where = [place for _, place, _ in places]
        # whether each place and the one after it are in a plain order
        self.clear = [b - a >= least for a, b in zip(where, where[1:], strict=False)]

    def plain(self, first: int, last: int) -> bool:
        """Whether the order of the things `first` to `last` is plain, and that to their neighbours."""
        return all(self.clear[max(first - 1, 0) : last + 1])

    def absent(self) -> str:
        """A kind that is not there: every second time a missing companion, if there is one."""
        missing = sorted(self.world.broken(self.scene.kinds))
        if missing and self.rng.random() < 0.5:
            return self.rng.choice(missing)
        return self.rng.choice([kind for kind in self.world.kinds if kind not in self.scene.kinds])

    def talk(
        self, kind: str, texts: Sequence[str], answer: str, /, may: Sequence[str] = (), form: str = "", **words: str
    ) -> Talk:
        """The question in one of its wordings; `words` go into the wordings and the answer."""
        answer = answer.format(**words)
        answer = answer[0].upper() + answer[1:] if form != LIST else answer
        text = self.rng.choice(texts).format(**words)
        return Talk(kind, text, answer, tuple(named(answer, self.world)), tuple(may), form)


def _a(kinds: Sequence[str]) -> str:
    """a ball and a cup; nothing."""
    return listed([with_article(kind) for kind in kinds]) if kinds else "nothing"


def _verdict(view: _View) -> tuple[str, str]:
    """Something to ask about, and its answer."""
    rng = view.rng
    if view.picture and rng.random() < 0.2:
        there = rng.random() < 0.5
        others = [setting for setting in view.world.settings if setting != view.scene.setting]
        thing = view.scene.setting if there else rng.choice(others)
    else:
        there = bool(view.kinds) and rng.random() < 0.5
        thing = rng.choice(view.kinds) if there else view.absent()
    return thing, ANSWERS["yes" if there else "no"].format(thing=with_article(thing), kind=thing)


def _yesno(view: _View) -> Talk:
    thing, answer = _verdict(view)
    texts = ("Is there {a} in the {medium}?", "Is there {a} in the {medium}?", "Do you {sense} {a}?")
    sense = "see" if view.picture else "hear"
    return view.talk("yesno", texts, answer, form=VERDICT, a=with_article(thing), medium=view.medium, sense=sense)


def _beside(view: _View) -> Talk | None:
    index = view.rng.randrange(len(view.kinds))
    kind = view.kinds[index]
    if not view.plain(index, index):
        return None
    if view.picture:
        near = view.kinds[max(index - 1, 0) : index] + view.kinds[index + 1 : index + 2]
        texts = ("What is beside the {kind}?", "What is next to the {kind}?")
        return view.talk("beside", texts, "{near}.", (kind,), kind=kind, near=_a(near))
    way = view.rng.choice(("before", "after"))
    if not view.plain(*((index - 1, index) if way == "before" else (index, index + 1))):
        return None
    near = view.kinds[max(index - 1, 0) : index] if way == "before" else view.kinds[index + 1 : index + 2]
    return view.talk(
        "beside", ("What comes {way} the {kind}?",), "{near}.", (kind, way), way=way, kind=kind, near=_a(near)
    )


def _count(view: _View) -> Talk:
    number = NUMBERS[len(view.kinds) - 1]
    noun = "thing" if view.picture else "sound"
    texts = ("How many things are in the picture?", "How many things do you see?")
    if not view.picture:
        texts = ("How many sounds are there?", "How many sounds do you hear?")
    are, s = ("is", "") if number == "one" else ("are", "s")
    return view.talk("count", texts, "There {are} {number} {noun}{s}.", number=number, are=are, noun=noun, s=s)


def _colour(view: _View) -> Talk:
    several = [kind for kind in view.kinds if len(PALETTE[kind]) > 1]
    kind = view.rng.choice(several or view.kinds)
    texts = ("What colour is the {kind}?", "Tell me the colour of the {kind}.")
    return view.talk("colour", texts, "The {kind} is {colour}.", (kind,), kind=kind, colour=view.colours[kind])


def _order(view: _View) -> Talk | None:
    first, second = sorted(view.rng.sample(range(len(view.kinds)), 2)) if len(view.kinds) > 1 else (0, 0)
    if first == second or not any(view.clear[first:second]):
        return None
    early, late = view.kinds[first], view.kinds[second]
    one, other = view.rng.sample((early, late), 2)
    texts = ("Which comes first, {one} or {other}?",)
    return view.talk(
        "order", texts, "The {kind} comes first.", ("first",), kind=early, one=f"the {one}", other=f"the {other}"
    )


def _either(view: _View) -> Talk:
    there, absent = view.rng.choice(view.kinds), view.absent()
    one, other = view.rng.sample((with_article(there), with_article(absent)), 2)
    texts = ("Is it {one} or {other}?", "Which is it, {one} or {other}?")
    return view.talk("either", texts, "It is {a}.", one=one, other=other, a=with_article(there))


def _form(view: _View) -> Talk:
    if view.rng.random() < 0.5:
        thing, answer = _verdict(view)
        text = "Answer in one word: is there {a} in the {medium}?"
        verdict = answer.partition(",")[0]
        return view.talk(
            "form", (text,), "{verdict}.", form=WORD, a=with_article(thing), medium=view.medium, verdict=verdict
        )
    noun = "things" if view.picture else "sounds"
    return view.talk("form", ("List the {noun}.",), "{kinds}", form=LIST, noun=noun, kinds=", ".join(view.kinds))


def _apart(view: _View) -> Talk:
    rng = view.rng
    name = rng.choice([*CLASSES[view.medium]])
    members, others = CLASSES[view.medium][name]
    member = rng.random() < 0.5
    kind = rng.choice(members if member else others)
    answer = "Yes, {a} is {class_}." if member else "No, {a} is no {name}."
    words = {"a": with_article(kind), "class_": with_article(name), "name": name}
    return view.talk("apart", ("Is {a} {class_}?",), answer, form=VERDICT, **words)


def _leading(view: _View) -> Talk | None:
    texts = ("Describe the {kind}.", "Tell me about the {kind}.")
    if view.rng.random() < 0.5:
        return view.talk("leading", texts, "There is no {kind}.", kind=view.absent())
    index = view.rng.randrange(len(view.kinds))
    kind = view.kinds[index]
    if view.picture:
        return view.talk("leading", texts, "The {kind} is {colour}.", kind=kind, colour=view.colours[kind])
    if not view.plain(max(index - 1, 0), index):
        return None
    if not index:
        return view.talk("leading", texts, "The {kind} comes first.", form=ORDERED, kind=kind)
    before = view.kinds[index - 1]
    return view.talk("leading", texts, "The {kind} comes after the {before}.", form=ORDERED, kind=kind, before=before)


def _twice(view: _View) -> Talk | None:
    if len(view.kinds) < 2 or not view.plain(0, 1):
        return None
    first, second = view.kinds[:2]
    texts = ("What is on the left, and what is beside it?",)
    answer = "On the left is {a}. Beside the {first} is {b}."
    if not view.picture:
        texts = ("What comes first, and what comes next?",)
        answer = "First comes {a}. After the {first} comes {b}."
    words = {"a": with_article(first), "b": with_article(second)}
    return view.talk("twice", texts, answer, form=ORDERED, first=first, **words)


def _name(view: _View) -> Talk | None:
    last = view.rng.random() < 0.5
    index = len(view.kinds) - 1 if last else 0
    if not view.plain(index, index):
        return None
    place = ("left", "right")[last] if view.picture else ("first", "last")[last]
    texts = ("What is on the {place}?",) if view.picture else ("What comes {place}?",)
    return view.talk("name", texts, "{a}.", (place,), place=place, a=with_article(view.kinds[index]))


def _else(view: _View) -> Talk | None:
    """What else is there, after the name of one thing."""
    before = _name(view)
    if before is None:
        return None
    known = next(kind for kind in view.kinds if kind in before.says)
    rest = _a([kind for kind in view.kinds if kind != known])
    talk = view.talk("second", ("What else is there?",), "{rest}.", ("no",), rest=rest)
    return _after(talk, before.text, before.answer)


def _after(talk: Talk, *turn: str) -> Talk:
    user, assistant = turn
    return Talk("second", talk.text, talk.answer, talk.says, talk.may, talk.form, ((user, assistant),))


def _second(view: _View) -> Talk | None:
    if view.scene.unseen:
        return None
    if view.rng.random() < 0.25:
        return _else(view)
    ask = view.rng.choice((_yesno, _beside, _count, _colour if view.picture else _order))
    talk = ask(view)
    prompts = PROMPTS if view.picture else SOUND_PROMPTS
    return talk and _after(talk, view.rng.choice(prompts), caption(view.scene))


def _empty(view: _View) -> Talk:
    if view.rng.random() < 0.5:
        thing, answer = _verdict(view)
        text = "Is there {a} in the {medium}?"
        return view.talk("empty", (text,), answer, form=VERDICT, a=with_article(thing), medium=view.medium)
    answer = caption(view.scene)
    may = ("nothing", "no", view.scene.setting) if view.picture else ("no",)
    return view.talk("empty", PROMPTS if view.picture else SOUND_PROMPTS, answer, may)


_MAKERS: dict[str, Callable[[_View], Talk | None]] = {
    "yesno": _yesno,
    "beside": _beside,
    "count": _count,
    "colour": _colour,
    "order": _order,
    "either": _either,
    "form": _form,
    "second": _second,
    "apart": _apart,
    "leading": _leading,
    "twice": _twice,
    "name": _name,
    EMPTY: _empty,
}
_ONLY = {"picture": "order", "sound": "colour"}
# The kinds of questions about a picture, or a sound, that is not empty.
TALKS = {medium: tuple(kind for kind in _MAKERS if kind not in (EMPTY, lacking)) for medium, lacking in _ONLY.items()}


def ask(scene: Scene | SoundScene, kind: str, rng: random.Random) -> Talk | None:
    """A question of a kind of `TALKS`, or "empty" for an empty scene; None where none could be answered plainly."""
    view = _View(scene, rng)
    if (kind == EMPTY) is not (not view.kinds):
        return None
    return _MAKERS[kind](view)


def chat(
    scene: Scene | SoundScene, rng: random.Random, count: int, often: Mapping[str, float] | None = None
) -> list[Talk]:
    """`count` questions of different kinds, drawn at random; those of an empty scene are all of one kind.

    often: the weight of a kind in the draw, 1 for the others (Efraimidis and Spirakis, 2006).
    """
    if not scene.kinds:
        return [talk for talk in map(partial(ask, scene, EMPTY), [rng] * count) if talk]
    kinds = rng.sample(TALKS[scene.world.medium], len(TALKS[scene.world.medium]))
    if often:
        kinds.sort(key=lambda kind: -(rng.random() ** (1 / often.get(kind, 1.0))))
    return [talk for talk in (ask(scene, kind, rng) for kind in kinds) if talk][:count]
