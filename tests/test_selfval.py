"""Self-Validation: confidences against prompts of their own, token by token; the chosen caption; back and on."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt
from PIL import Image
from stepwise import softmax

import lime_mlx
from lime_mlx import load
from lime_mlx.decoding import decode, start, steps
from lime_mlx.errors import MethodError
from lime_mlx.media.audio import open_audio
from lime_mlx.methods import parse_method
from lime_mlx.methods.selfval import REQUEST, named_first
from lime_mlx.prompt import Noun, Prompt
from lime_mlx.scenes.language import with_article
from lime_mlx.session import Session
from lime_mlx.support.grammars import ENGLISH
from lime_mlx.support.nouns import nouns

EXAMPLES = Path(lime_mlx.__file__).parents[1] / "examples"
THINGS = ["dog", "banana", "ball", "no such thing", "bus"]


class World:
    """A bundled demo with the medium that it is asked about."""

    def __init__(self, name, where, text, **media):
        self.model, self.processor = load(name)
        self.where, self.media, self.prompt = where, media, self.processor.prompt(text, **media)

    def session(self):
        return start(self.model, self.prompt, reliance=False)

    def caption(self, spec, **options):
        decoded = decode(self.model, self.prompt, spec, 48, stop=self.processor.eos_token_ids, **options)
        return [step.token for step in decoded]

    def logits(self, text, tokens):
        """Logits after `tokens` as an answer to `text`, by a prompt of its own."""
        session = Session.open(self.model, self.processor.prompt(text, **self.media))
        logits = session.extend()
        for token in tokens:
            session.append(token)
            logits = session.extend()
        return np.array(logits, dtype=np.float64)

    def confidence(self, noun, ask):
        """How sure the model is of a thing, from prompts of their own."""
        if ask == "question":
            article = with_article(noun.text) if noun.article else noun.text
            row = self.logits(f"Is there {article} in the {self.where}?", [])
            yes, no = (row[list(self.prompt.language.tokens(word))].max() for word in ("yes", "no"))
            return 1 / (1 + np.exp(no - yes))
        p, request = 1.0, REQUEST.format(where=self.where)
        name = self.processor.tokenizer.encode(noun.text.capitalize(), add_special_tokens=False)
        for count, token in enumerate(name):
            p *= softmax(self.logits(request, name[:count])[None])[0, token]
        return p


@pytest.fixture(scope="module")
def worlds():
    picture = Image.open(EXAMPLES / "scene.png").convert("RGB")
    return {
        "picture": World("demo", "picture", "What is in the picture?", images=[picture]),
        "sound": World("demo-sound", "sound", "What do you hear?", audio=[open_audio(EXAMPLES / "sounds.wav")]),
    }


@pytest.mark.parametrize("where", ["picture", "sound"])
def test_names_are_as_likely_as_in_a_prompt_of_their_own(worlds, where):
    world = worlds[where]
    language, session = world.prompt.language, world.session()
    names = [list(language.encode(thing.capitalize())) for thing in THINGS]
    assert max(map(len, names)) > 1
    ours = named_first(session, language, REQUEST.format(where=where), names)
    wanted = [world.confidence(Noun(thing), "word") for thing in THINGS]
    np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-9)
    session.extend()
    np.testing.assert_allclose(named_first(session, language, REQUEST.format(where=where), names), ours, rtol=1e-3)


def test_many_names_are_asked_for_in_several_batches(worlds, monkeypatch):
    world = worlds["picture"]
    language, request = world.prompt.language, REQUEST.format(where="picture")
    names = [list(language.encode(thing.capitalize())) for thing in THINGS]
    whole = named_first(world.session(), language, request, names)
    monkeypatch.setattr("lime_mlx.methods.selfval.BATCH", 2)
    np.testing.assert_allclose(named_first(world.session(), language, request, names), whole, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("where", ["picture", "sound"])
@pytest.mark.parametrize("ask", ["word", "question"])
def test_the_caption_of_the_surest_things_is_said(worlds, where, ask):
    world = worlds[where]
    spec = f"selfval:samples=4,temperature=1.3,ask={ask}"
    ready, session = parse_method(spec).prepare(world.model), world.session()
    session.prefill()
    captions = [ready._caption(session, world.prompt.language, number) for number in range(4)]
    assert len({tuple(caption) for caption in captions}) > 1
    means = []
    for caption in captions:
        named = nouns(world.processor.tokenizer.decode(caption, skip_special_tokens=True), ENGLISH)
        means.append(np.mean([world.confidence(noun, ask) for noun in named]) if named else 1.0)
    assert max(means) > 1.01 * min(means)
    assert world.caption(spec) == captions[int(np.argmax(means))]
    assert session.generated == []


def test_samples_are_those_of_the_temperature(worlds):
    """Hardly any is plain decoding; with more of it they differ, by seed and by number."""
    world = worlds["picture"]
    language, session = world.prompt.language, world.session()
    session.prefill()
    cold = parse_method("selfval:temperature=0.0001").prepare(world.model)
    assert cold._caption(session, language, 0) == world.caption("none")
    samples = set()
    for seed in range(2):
        ready = parse_method(f"selfval:temperature=2,seed={seed},limit=12").prepare(world.model)
        for number in range(5):
            caption = ready._caption(session, language, number)
            assert caption == ready._caption(session, language, number)
            assert len(caption) <= 13
            samples.add(tuple(caption))
    assert len(samples) == 10


def test_each_token_is_drawn_by_its_probability(worlds):
    """The first token of many samples, against the probabilities of the temperature."""
    world = worlds["picture"]
    session = world.session()
    session.prefill()
    ready = parse_method("selfval:samples=150,temperature=3,limit=1").prepare(world.model)
    first = np.array([ready._caption(session, world.prompt.language, number)[0] for number in range(150)])
    p = softmax(np.array(world.session().extend(), dtype=np.float64)[None] / 3)[0]
    for token in np.argsort(-p)[:3]:
        error = np.sqrt(p[token] * (1 - p[token]) / 150)
        assert abs((first == token).mean() - p[token]) < 4 * error + 1e-3


def test_what_is_asked_of_relevance_changes_nothing(worlds):
    world = worlds["picture"]
    ours, read = (
        list(decode(world.model, world.prompt, "selfval:samples=2,temperature=1.5", 48, reliance=wanted))
        for wanted in (False, True)
    )
    assert [step.token for step in ours] == [step.token for step in read]
    session = world.session()
    for step in read[:4]:
        session.prefill()
        assert distance(step.relevance, session.relevance(target=step.token).relevance) < 1e-4
        session.append(step.token)


def test_it_goes_back_and_on(worlds):
    """What was taken back is said again; another token, or the end of the caption, is followed by plain decoding."""
    world = worlds["picture"]
    ready, session = parse_method("selfval:samples=2").prepare(world.model), world.session()
    said = []
    for _ in range(5):
        said.append(ready.step(session).token)
        session.append(said[-1])
    session.rewind(3)
    branch = session.fork()
    assert ready.step(session).token == said[2] == ready.step(branch).token
    other = (said[2] + 1) % 50
    session.append(other)
    forward = ready.step(session)
    assert forward.token is None
    plain = world.session()
    for token in [*said[:2], other]:
        plain.append(token)
    assert distance(forward.logits, plain.extend()) < 1e-5


def test_with_a_method_inside(worlds):
    world = worlds["picture"]
    inner = "m3id:decay=0.5+kvsmooth:ref=0.3"
    assert parse_method(f"selfval+{inner}").inner == parse_method(inner)
    assert world.caption(f"selfval:samples=1,temperature=0.0001+{inner}") == world.caption(inner)


def test_it_is_refused():
    model = small_model()
    with pytest.raises(MethodError, match="^selfval needs a picture or a sound in the prompt; use --method none"):
        list(decode(model, Prompt([1, 2, 3]), "selfval", 1))
    with pytest.raises(MethodError, match="^selfval needs a prompt that a processor made"):
        list(decode(model, small_prompt(), "selfval", 1))
    with pytest.raises(MethodError, match="^selfval and choose do not go together: both choose the words.$"):
        parse_method("selfval+choose")
    with pytest.raises(MethodError) as caught:
        parse_method("selfval:ask=twice")
    assert str(caught.value) == "selfval: ask is 'twice'; choose one of word, question."


def test_things_of_a_text():
    text = "A room with a dog, a red ball and rain. There is no cat, but a dog. Two buses are running by the house."
    assert [noun.text for noun in nouns(text, ENGLISH)] == ["room", "dog", "red ball", "rain", "dog", "buses", "house"]
    assert [noun.article for noun in nouns("There is rain and a dog.", ENGLISH)] == [False, True]
    assert nouns("", ENGLISH) == nouns("Yes.", ENGLISH) == nouns("It is red.", ENGLISH) == []


def test_the_processors_and_the_sampler_of_the_caller(worlds):
    """The plan is sampled from the processed scores; what the caller draws with does not matter."""
    world = worlds["picture"]
    ends = sorted(world.processor.eos_token_ids)

    def no_commas(tokens, logits):
        banned = mx.array(list(world.prompt.language.tokens(",")))
        logits[:, banned] = -1e9
        return logits

    session = start(world.model, world.prompt, reliance=False, processors=[no_commas])
    drawn = list(steps(session, parse_method("selfval:samples=2"), 48, lambda _: mx.array([5]), frozenset(ends)))
    text = world.processor.tokenizer.decode([step.token for step in drawn], skip_special_tokens=True)
    assert "," not in text and len(drawn) > 3
