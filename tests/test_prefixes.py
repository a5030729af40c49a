"""Prompts that begin alike share features and cache entries, and nothing else changes."""

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import LLAVA, LLAVA_NEXT, random_weights, write, write_audio, write_qwen_vl, write_tokenizer
from families import FAMILY_OF
from helpers import any_length, distance, fixture, parity_checkpoint, prompt_of, small_model
from PIL import Image

import lime_mlx
from lime_mlx.checkpoint.load import load, load_model
from lime_mlx.errors import PromptError
from lime_mlx.generation import generate, stream_generate
from lime_mlx.kv import KVOptions
from lime_mlx.media.audio import Sound
from lime_mlx.prefixes import Prefixes
from lime_mlx.prompt import Prompt, Turn
from lime_mlx.scenes import make_scene
from lime_mlx.session import Session

WITH_MEDIA = [
    case for case in FAMILY_OF if fixture(case)["input_ids"].size and any("media." in name for name in fixture(case))
]
EIGHT = KVOptions(prefill_step_size=8)
METHODS = ["none", "choose", "lime:words=content", "kvsmooth", "lime:mode=exact,steps=2", "m3id"]


def logits(session: Session) -> np.ndarray:
    return np.array(session.extend().astype(mx.float32))


def counted(model, monkeypatch) -> list[str]:
    """The kinds of the pictures and sounds that the towers compute from now on."""
    computed, encode = [], type(model).encode

    def counting(self, kind, prompt):
        computed.append(kind)
        return encode(self, kind, prompt)

    monkeypatch.setattr(type(model), "encode", counting)
    return computed


@pytest.fixture(scope="module")
def demo():
    return load("demo")


def picture(seed: int = 100_000) -> Image.Image:
    return make_scene(seed, "adversarial").image


# --- the same logits


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", WITH_MEDIA)
def test_the_logits_are_the_same_to_the_last_bit(case, dtype, tmp_path, monkeypatch):
    model = any_length(load_model(parity_checkpoint(case, tmp_path)))
    model.set_dtype(dtype)
    prompt = prompt_of(fixture(case))
    end = int(np.flatnonzero(model.modality(prompt))[-1]) + 1
    endings = [5, 9, 7], [11, 3, 4, 2, 8], [5, 9, 7, 6]
    asked = [Prompt(np.append(prompt.input_ids[:end], ending), prompt.media) for ending in endings]
    prefixes, computed = Prefixes(model), counted(model, monkeypatch)
    for number, one in enumerate(asked):
        computed.clear()
        session = prefixes.open(one)
        assert session.reused == (session.media_ends[-1] if number else 0)
        assert computed == ([] if number else model.kinds(prompt))
        assert (logits(session) == logits(Session.open(model, one))).all()


@pytest.mark.parametrize("length", [1, 7, 8, 9, 30])
def test_text_is_kept_in_whole_chunks(length):
    model, ids = small_model(), np.random.default_rng(0).integers(0, 64, 40)
    prefixes = Prefixes(model)
    prefixes.open(Prompt(ids), kv=EIGHT)
    other = Prompt(np.append(ids[:length], [(ids[length] + 1) % 64, 2, 3]))
    session = prefixes.open(other, kv=EIGHT)
    assert session.reused == length // 8 * 8
    assert (logits(session) == logits(Session.open(model, other, kv=EIGHT))).all()


@pytest.mark.parametrize("spec", METHODS)
def test_answers_are_those_of_a_run_alone(demo, spec):
    model, processor = demo
    prefixes = Prefixes(model)
    first = generate(model, processor, "What is in the picture?", picture(), method=spec, prefixes=prefixes)
    for text in ("Is there a dog in the picture?", "What is in the picture?"):
        options = {"method": spec, "max_tokens": 24, "relevance": True}
        with_them = generate(model, processor, text, picture(), prefixes=prefixes, **options)
        alone = generate(model, processor, text, picture(), **options)
        assert with_them == alone
        assert with_them.cached_tokens > 64 and alone.cached_tokens == first.cached_tokens == 0
        for one, other in zip(with_them.relevance, alone.relevance, strict=True):
            assert (one is None) == (other is None) and (one is None or (one == other).all())


def test_what_a_method_changed_is_not_kept(demo):
    """KVSmooth overwrites entries; the next answer must not see them."""
    model, processor = demo
    prefixes = Prefixes(model)
    list(stream_generate(model, processor, "Hello?", picture(), method="kvsmooth", prefixes=prefixes))
    kept = {key: [np.array(x) for x in arrays] for key, arrays in prefixes._kept.items()}
    list(stream_generate(model, processor, "Hello?", picture(), method="kvsmooth", prefixes=prefixes))
    assert kept.keys() == prefixes._kept.keys()
    for key, arrays in prefixes._kept.items():
        assert all((np.array(x) == before).all() for x, before in zip(arrays, kept[key], strict=True))


# --- what counts as the same


def test_another_picture_shares_nothing(demo):
    model, processor = demo
    prefixes = Prefixes(model)
    for seed in (100_000, 100_001):
        prompt = processor.prompt("What is it?", [picture(seed)])
        session = prefixes.open(prompt)
        assert session.reused == 0
        assert (logits(session) == logits(Session.open(model, prompt))).all()


def test_the_same_pixels_from_another_file_are_the_same_picture(demo, tmp_path, monkeypatch):
    model, processor = demo
    prefixes, computed = Prefixes(model), counted(model, monkeypatch)
    picture().save(tmp_path / "a.png")
    for name in ("a.png", "b.png"):
        (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
        answer = generate(model, processor, "What is it?", tmp_path / name, max_tokens=2, prefixes=prefixes)
    assert answer.cached_tokens > 64 and computed == ["image"]


def test_a_picture_of_a_later_turn_is_computed_alone(demo, monkeypatch):
    model, processor = demo
    prefixes, computed = Prefixes(model), counted(model, monkeypatch)
    turns = [Turn("What is here?", "A dog.", ("image",)), Turn("And here?", "A cat.", ("image",))]
    pictures = [picture(100_000), picture(100_001)]
    prompts = [
        processor.prompt("What is here?", pictures[:1]),
        processor.prompt("And here?", pictures, history=turns[:1]),
        processor.prompt("The same?", pictures, history=turns),
        processor.prompt("The same?", pictures[::-1], history=turns),
    ]
    for prompt, reused in zip(prompts, (0, 1, 2, 0), strict=True):
        computed.clear()
        session = prefixes.open(prompt)
        assert session.reused == [0, *session.media_ends][reused]
        assert len(computed) == (1 if prompt in prompts[:2] else 0)
        assert (logits(session) == logits(Session.open(model, prompt))).all()


@pytest.mark.parametrize("kind", ["llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_audio"])
def test_features_one_by_one_are_those_of_all_together(kind, tmp_path):
    if kind == "qwen2_audio":
        write_audio(tmp_path)
        waves = np.random.default_rng(0).standard_normal((2, 16000)).astype(np.float32)
        media = {"audio": [Sound(waves[0], 16000), Sound(waves[1][:9000], 16000)]}
    elif kind.startswith("qwen"):
        write_qwen_vl(tmp_path, kind)
        media = {"images": [picture(100_000).resize((90, 60)), picture(100_001).resize((50, 130))]}
    else:
        config = LLAVA if kind == "llava" else LLAVA_NEXT
        write(tmp_path, config, random_weights(config))
        write_tokenizer(tmp_path)
        media = {"images": [picture(100_000).resize((90, 60)), picture(100_001).resize((50, 130))]}
    model, processor = load(str(tmp_path))
    prompt = processor.prompt("What is it?", **media)
    assert [len(sources) for sources in prompt.sources.values()] == [2]
    together, alone = model.inputs(prompt), model.inputs(prompt, Prefixes(model).features(prompt))
    assert distance(alone.embeds, together.embeds) < 1e-5
    for one, other in zip(alone.positions.features, together.positions.features, strict=True):
        assert distance(one, other) < 1e-5


def test_prefixes_of_another_model_are_refused(demo):
    model, processor = demo
    with pytest.raises(PromptError, match="another model"):
        generate(model, processor, "Hello?", picture(), prefixes=Prefixes(small_model()))


# --- the limit


def test_the_oldest_go_first(demo):
    model, processor = demo
    prompts = [processor.prompt("What is it?", [picture(100_000 + number)]) for number in range(4)]
    prefixes = Prefixes(model)
    prefixes.open(prompts[0])
    one = prefixes.nbytes
    prefixes.limit = 3 * one
    for number in (1, 2, 0, 3):
        prefixes.open(prompts[number])
        assert prefixes.nbytes <= 3 * one
    assert prefixes.nbytes == sum(x.nbytes for arrays in prefixes._kept.values() for x in arrays) == 3 * one
    assert [prefixes.open(prompts[number]).reused > 0 for number in (0, 2, 3)] == [True] * 3
    assert prefixes.open(prompts[1]).reused == 0
    prefixes.clear()
    assert (len(prefixes), prefixes.nbytes, prefixes.open(prompts[0]).reused) == (0, 0, 0)


def test_no_chunk_stays_without_those_before_it():
    model, rng = small_model(), np.random.default_rng(0)
    prefixes, beginning = Prefixes(model), rng.integers(0, 64, 24)
    prefixes.open(Prompt(beginning), kv=EIGHT)
    prefixes.limit = 5 * (prefixes.nbytes // 2)
    for _ in range(30):
        length = int(rng.integers(1, 4)) * 8
        prompt = Prompt(np.append(beginning[:length], rng.integers(0, 64, int(rng.integers(1, 30)))))
        session = prefixes.open(prompt, kv=EIGHT)
        assert (logits(session) == logits(Session.open(model, prompt, kv=EIGHT))).all()
        assert 0 < prefixes.nbytes <= prefixes.limit
        keys = [key for key, _ in prefixes._chunks(session)]
        kept = [key in prefixes._kept for key in keys]
        assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize("limit", [0, 1000])
def test_what_does_not_fit_is_not_kept(demo, limit):
    model, processor = demo
    prefixes = Prefixes(model, limit)
    options = {"method": "none", "max_tokens": 4}
    answers = [generate(model, processor, "What is it?", picture(), prefixes=prefixes, **options) for _ in range(2)]
    assert answers[0] == answers[1] == generate(model, processor, "What is it?", picture(), **options)
    assert (prefixes.nbytes, len(prefixes)) == (0, 0)


def test_a_negative_limit_is_refused(demo):
    with pytest.raises(PromptError, match="0 or more"):
        Prefixes(demo[0], -1)


def test_what_is_kept_holds_no_more_than_it_says(demo):
    """Slices of a session's buffers would keep the whole buffers alive."""
    model, processor = demo
    prefixes, prompt = Prefixes(model), processor.prompt("What is it?", [picture()])
    prefixes.open(prompt)
    prefixes.clear()
    mx.clear_cache()
    before = mx.get_active_memory()
    prefixes.open(prompt)
    assert prefixes.nbytes <= mx.get_active_memory() - before < 1.2 * prefixes.nbytes + 20_000


def test_the_package_offers_it():
    assert lime_mlx.Prefixes is Prefixes
