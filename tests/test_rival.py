"""A word against another one in its place: `lime_mlx.probes.rival`."""

from dataclasses import replace

import numpy as np
import pytest

from lime_mlx import explain, load
from lime_mlx.errors import PromptError
from lime_mlx.media.image import open_image
from lime_mlx.probes.rival import contrasts
from lime_mlx.prompt import Prompt
from lime_mlx.scenes import make_scene
from lime_mlx.session import Session


@pytest.fixture(scope="module")
def answered():
    model, processor = load("demo")
    image = open_image(make_scene(100_004, "ordinary").image)
    explanation = explain(model, processor, "What is in the picture?", image=image, method="none", contrast="cat")
    prompt = processor.prompt("What is in the picture?", images=[image])
    return model, prompt, explanation


def test_it_is_the_margin_and_its_relevance_at_the_word(answered):
    model, prompt, explanation = answered
    compared = [(word, each) for word, each in zip(explanation.words, explanation.contrasts, strict=True) if each]
    assert [word.name for word, _ in compared] == [
        word.name for word in explanation.words if word.names_something and word.name != "cat"
    ]
    (cat,) = prompt.language.encode(" cat")
    session, tokens = Session.open(model, prompt), explanation.answer.tokens
    for word, contrast in compared:
        while session.generated != tokens[: tokens.index(word.tokens[0])]:
            session.append(tokens[len(session.generated)])
        session.prefill()
        named, rival = (np.array(session.relevance(target=token).relevance) for token in (word.tokens[0], cat))
        logits = np.array(session.extend())
        assert contrast.margin == pytest.approx(float(logits[word.tokens[0]] - logits[cat]), abs=1e-3)
        np.testing.assert_allclose(contrast.relevance, named - rival, atol=2e-4 * np.abs(named).max())
        assert contrast.rival == "cat"


def test_what_speaks_against_the_runner_up_is_lrp_of_the_margin(answered):
    """The same relevance in one pass: LRP of the margin over the next best token."""
    model, prompt, explanation = answered
    word = next(word for word in explanation.words if word.names_something)
    session, tokens = Session.open(model, prompt), explanation.answer.tokens
    for token in tokens[: tokens.index(word.tokens[0])]:
        session.append(token)
    result = session.relevance(contrast=True)
    rival = prompt.language.text([int(result.rival)]).strip()
    assert int(result.target) == word.tokens[0]
    contrast = next(filter(None, contrasts(model, prompt, explanation.words, rival)))
    np.testing.assert_allclose(
        contrast.relevance, np.array(result.relevance), atol=2e-4 * np.abs(contrast.relevance).max()
    )


def test_it_stands_in_the_json_and_on_the_page(answered, tmp_path):
    _, _, explanation = answered
    for entry, contrast in zip(explanation.to_dict()["words"], explanation.contrasts, strict=True):
        wanted = contrast and {"word": "cat", "margin": round(contrast.margin, 4)}
        assert entry.get("contrast") == wanted
    for view, contrast in zip(explanation.view()["words"], explanation.contrasts, strict=True):
        assert ("contrast" in view) == (contrast is not None)


def test_where_no_word_names_something_every_word_is_compared(answered):
    model, prompt, explanation = answered
    plain = [replace(word, statistics=None) for word in explanation.words]
    compared = contrasts(model, prompt, plain, "cat")
    assert [each is not None for each in compared] == [word.name != "cat" for word in plain]
    assert contrasts(model, prompt, explanation.words, explanation.words[0].name)[0] is None


def test_what_is_wrong_is_said(answered):
    model, prompt, explanation = answered
    with pytest.raises(PromptError, match="is empty"):
        contrasts(model, prompt, explanation.words, "  ")
    bare = Prompt(prompt.input_ids, prompt.media, prompt.spans)
    with pytest.raises(PromptError, match="not in token ids"):
        contrasts(model, bare, explanation.words, "cat")
