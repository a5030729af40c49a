"""A chat of two turns: what the model made up in the first may be judged and replaced in the second."""

from functools import cache

import numpy as np
import pytest

from lime_mlx import load
from lime_mlx.decoding import start
from lime_mlx.evaluate.scorers.scenes import mentions
from lime_mlx.methods import parse_method
from lime_mlx.prompt import Turn
from lime_mlx.scenes import PROMPTS, make_scene
from lime_mlx.session import Session

# As many scenes are tried until so many inventions are found.
FIRST, SCENES, WANTED = 100_300, 200, 3
METHODS = ["lime:words=content", "lime:words=content,positions=prompt", "choose:ask=never,back=0"]


@cache
def demo():
    return load("demo")


def caption(seed: int) -> list[int]:
    """The tokens of plain decoding's caption of a scene."""
    model, processor = demo()
    session = start(model, processor.prompt(PROMPTS[0], images=[make_scene(seed, "adversarial").image]))
    plain = parse_method("none").prepare(model)
    while len(session.generated) < 40:
        token = int(plain.step(session).logits.argmax())
        if token in processor.eos_token_ids:
            break
        session.append(token)
    return session.generated


def second_turn(seed: int, history: list[Turn], said: list[int]) -> Session:
    """A caption is asked for after earlier turns, and begins with the tokens `said`."""
    model, processor = demo()
    image = make_scene(seed, "adversarial").image
    session = start(model, processor.prompt(PROMPTS[0], images=[image], history=history))
    for token in said:
        session.append(token)
    return session


@cache
def inventions() -> list[tuple[int, str, list[int], str]]:
    """(seed, the caption of turn 1, its tokens before a kind that is absent, that kind).

    Those where plain decoding, after the same beginning, says the same absent kind in turn 2 again.
    """
    model, processor = demo()
    plain, found = parse_method("none").prepare(model), []
    for seed in range(FIRST, FIRST + SCENES):
        if len(found) == WANTED:
            break
        tokens, kinds = caption(seed), make_scene(seed, "adversarial").kinds
        text = processor.tokenizer.decode(tokens).strip()
        for place, token in enumerate(tokens):
            named = mentions(processor.tokenizer.decode([token]))
            if named and named[0] not in kinds:
                session = second_turn(seed, [Turn(PROMPTS[0], text)], tokens[:place])
                if int(plain.step(session).logits.argmax()) == token:
                    found.append((seed, text, tokens[: place + 1], named[0]))
                break
    return found


def said_next(spec: str, session: Session) -> int:
    forward = parse_method(spec).prepare(demo()[0]).step(session)
    return int(forward.logits.argmax()) if forward.token is None else forward.token


def test_the_demo_repeats_an_invention():
    assert len(inventions()) == WANTED


@pytest.mark.parametrize("spec", METHODS)
def test_an_invention_of_turn_1_may_be_judged_and_replaced_in_turn_2(spec):
    replaced = 0
    for seed, text, (*before, invented), kind in inventions():
        session = second_turn(seed, [Turn(PROMPTS[0], text)], before)
        assert kind in text and session.may_judge(invented)
        replaced += said_next(spec, session) != invented
    assert replaced >= 2 / 3 * len(inventions())


@pytest.mark.parametrize("spec", METHODS)
def test_words_of_the_users_earlier_questions_are_exempt(spec):
    for seed, text, (*before, invented), kind in inventions():
        asked = Turn(f"Is there a {kind} in the picture?", f"Yes, there is a {kind}.")
        session = second_turn(seed, [asked, Turn(PROMPTS[0], text)], before)
        assert not session.may_judge(invented)
        plain = int(parse_method("none").prepare(demo()[0]).step(session.fork()).logits.argmax())
        if plain == invented:
            assert said_next(spec, session) == invented


def test_only_the_user_and_the_system_bring_words_in():
    processor, image = demo()[1], make_scene(FIRST, "adversarial").image

    def prompted(**texts: object) -> set[str]:
        language = processor.prompt(PROMPTS[0], images=[image], **texts).language
        return {processor.tokenizer.decode([token]).strip() for token in np.flatnonzero(language.prompted)}

    assert "kite" not in prompted(history=[Turn("What is there?", "A kite.")])
    assert "kite" in prompted(history=[Turn("Is there a kite?", "No.")])
