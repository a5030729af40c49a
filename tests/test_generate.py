"""The loop and the Python API around it, on a tiny random LLaVA."""

import checkpoints as tiny
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import make_logits_processors, make_sampler
from PIL import Image

import lime_mlx
from lime_mlx import Prompt, Span, decode, generate, load, stream_generate
from lime_mlx.errors import MethodError, NumericalError, PromptError
from lime_mlx.lrp.relevance import grounding, reliance, shares

PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate") / "model"
    tiny.write(folder, tiny.LLAVA, tiny.random_weights(tiny.LLAVA))
    tiny.write_tokenizer(folder)
    return load(folder)


@pytest.mark.parametrize("method", ["none", "lime:words=all", "lime:mode=exact,steps=2"])
def test_an_answer_has_one_entry_for_every_token(loaded, method):
    answer = generate(*loaded, "Is there a dog?", image=PICTURE, method=method, max_tokens=6, relevance=True)
    count = len(answer.tokens)
    assert count == answer.generation_tokens == 6
    assert answer.finish_reason == "length"
    assert len(answer.pieces) == len(answer.reliance) == len(answer.shares) == count
    assert answer.text == "".join(answer.pieces) == loaded[1].tokenizer.decode(answer.tokens)
    assert [len(r) for r in answer.relevance] == [answer.prompt_tokens + n for n in range(count)]
    assert all(0 <= r <= 1 for r in answer.reliance)
    assert all(sum(share) == pytest.approx(1) for share in answer.shares)
    assert answer.peak_memory > 0


def test_a_prompt_brings_its_own_media(loaded):
    prompt = loaded[1].prompt("dog", images=[PICTURE])
    for further in ({"image": PICTURE}, {"audio": "a.wav"}, {"system": "Be short."}):
        with pytest.raises(PromptError, match="has its pictures, sounds and system text already"):
            generate(*loaded, prompt, max_tokens=2, **further)


def test_answers_are_compared_by_what_they_hold(loaded):
    one, same = (generate(*loaded, "dog", image=PICTURE, max_tokens=3, relevance=True) for _ in range(2))
    assert one == same and one.words == same.words
    assert one != generate(*loaded, "dog", image=PICTURE, max_tokens=2, relevance=True)


def test_reliance_is_left_out_where_nobody_wants_it(loaded):
    answer = generate(*loaded, "dog", image=PICTURE, method="none", max_tokens=3, reliance=False)
    assert answer.reliance == [None] * 3


def test_reading_relevance_changes_no_token(loaded):
    with_it, without = (
        generate(*loaded, "dog", image=PICTURE, method="none", max_tokens=12, reliance=wanted)
        for wanted in (True, False)
    )
    assert with_it.tokens == without.tokens


def test_the_stream_ends_at_the_end_token(loaded):
    model, processor = loaded
    prompt = processor.prompt("dog", images=[PICTURE])
    tokens = [step.token for step in decode(model, prompt, "none", 8, reliance=False)]
    place = next(i for i, token in enumerate(tokens) if token not in tokens[:i] and i > 1)
    stopped = [step.token for step in decode(model, prompt, "none", 8, reliance=False, stop=frozenset([tokens[place]]))]
    assert stopped == tokens[: place + 1]


def test_a_stop_token_is_no_part_of_the_answer(loaded, monkeypatch):
    model, processor = loaded
    first = next(stream_generate(model, processor, "dog", PICTURE, method="none", max_tokens=4, reliance=False))
    monkeypatch.setattr(processor, "eos_token_ids", frozenset([first.token]))
    answer = generate(model, processor, "dog", PICTURE, method="none", max_tokens=4, reliance=False)
    assert answer.finish_reason == "stop"
    assert (answer.text, answer.tokens) == ("", [])


def test_samplers_and_logits_processors_of_mlx_lm(loaded):
    model, processor = loaded
    prompt = processor.prompt("dog", images=[PICTURE])
    mx.random.seed(0)
    warm = [s.token for s in decode(model, prompt, "none", 8, reliance=False, sampler=make_sampler(temp=3.0))]
    cold = [s.token for s in decode(model, prompt, "none", 8, reliance=False)]
    assert warm != cold
    banned = make_logits_processors(logit_bias={cold[0]: -1e9})
    assert cold[0] not in [s.token for s in decode(model, prompt, "none", 8, logits_processors=banned)]
    target = next(decode(model, prompt, "lime:words=all", 1, logits_processors=banned, trace=True))
    assert target.token != cold[0]


def test_measured_cost(loaded):
    *_, last = stream_generate(*loaded, "dog", PICTURE, method="lime:words=all", max_tokens=4, measure=True)
    assert last.cost.ratio > 1
    assert last.cost.extra_bytes >= 0
    *_, last = stream_generate(*loaded, "dog", PICTURE, method="none", max_tokens=4, reliance=False, measure=True)
    assert last.cost.extra_bytes < 1e6


def test_a_response_comes_before_the_next_token_is_computed(loaded):
    picked = []

    def sampler(scores):
        picked.append(1)
        return mx.argmax(scores, axis=-1)

    for count, _ in enumerate(
        stream_generate(*loaded, "dog", PICTURE, method="none", max_tokens=4, sampler=sampler), start=1
    ):
        assert len(picked) == count


@pytest.mark.parametrize("count", [0, -1])
def test_no_tokens_are_refused(loaded, count):
    with pytest.raises(PromptError, match="at least 1"):
        next(decode(loaded[0], Prompt([1, 5]), "none", count))


def test_lime_without_a_picture_is_refused(loaded):
    with pytest.raises(MethodError, match="picture or a sound"):
        next(decode(loaded[0], Prompt([1, 5]), "lime"))


def test_logits_that_are_not_finite_say_at_which_token(loaded):
    model, processor = loaded
    prompt = processor.prompt("dog", images=[PICTURE])
    norm = model.language_model.model.norm
    kept = norm.weight
    norm.weight = kept * mx.nan
    with pytest.raises(NumericalError, match="generated token 1"):
        next(decode(model, prompt, "none", 2, reliance=False))
    norm.weight = kept


def test_lime_that_breaks_says_so(loaded):
    model, processor = loaded
    prompt = processor.prompt("dog", images=[PICTURE])
    notices = []
    plain = generate(model, processor, prompt, method="none", max_tokens=5)
    large = "lime:words=all,steps=3,lr=1e38"
    answer = generate(model, processor, prompt, method=large, max_tokens=5, notice=notices.append)
    assert answer.numerical_faults == 3 and answer.tokens == plain.tokens
    (note,) = [sentence for sentence in notices if "smaller lr" in sentence]
    assert note.startswith("Note: at generated token 1: ")


def test_shares_by_their_formula():
    relevance, modality = np.array([1.0, -2.0, 0.5, -0.5, 4.0]), np.array([False, True, True, False])
    heard = np.array([False, False, False, True])
    assert shares(relevance, {"image": modality}) == pytest.approx((2.5 / 8, 0, 1.5 / 8, 4 / 8))
    assert shares(relevance, {"image": modality, "audio": heard}) == pytest.approx((2.5 / 8, 0.5 / 8, 1 / 8, 4 / 8))
    assert reliance(relevance, modality) == pytest.approx(2.5 / 8)
    assert shares(np.zeros(4), {"audio": modality}) == (0, 0, 0, 0)
    assert grounding([9, 3, -5, 1, 2], np.array([False, True, True, True, True]), [True, True, False, False]) == 0.5


def test_spans_are_checked():
    with pytest.raises(PromptError, match="ends after"):
        Prompt([1, 2], spans=[Span("image", 0, 3)])
    with pytest.raises(PromptError, match="half-open"):
        Span("image", 2, 2)


def test_the_package_names_what_the_docs_name():
    for name in lime_mlx.__all__:
        assert getattr(lime_mlx, name) is not None
