"""Layers with a window hold what queries reach, and all answers are those of a cache that holds everything."""

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt
from test_siglip_families import make, picture

from lime_mlx import entries as storage
from lime_mlx import load
from lime_mlx.asking import continued, margins
from lime_mlx.cache import KVCache
from lime_mlx.chat import Chat
from lime_mlx.decoding import decode, start
from lime_mlx.entries import LOOKBACK, LayerCache
from lime_mlx.errors import MethodError, PromptError
from lime_mlx.kv import KVOptions
from lime_mlx.methods import parse_method
from lime_mlx.prefixes import Prefixes
from lime_mlx.prompt import Noun, Prompt, Span

WINDOW = 12
GEMMA = {
    "model_type": "gemma3_text",
    "sliding_window": WINDOW,
    "sliding_window_pattern": 2,
    "query_pre_attn_scalar": 16,
    "num_hidden_layers": 4,
    "tie_word_embeddings": True,
}
SPECS = [
    "none",
    "lime:words=all,lr=0.05",
    "lime:words=all,update=normalised,steps=3",
    "kvsmooth:window=3,ref=0.5",
    "heads",
]
STEPS = KVOptions(prefill_step_size=16)


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    """So small that a short answer makes layers let go of positions many times."""
    monkeypatch.setattr(storage, "CHUNK", 4)
    monkeypatch.setattr(storage, "LOOKBACK", 3)


@pytest.fixture(scope="module")
def model():
    return small_model(**GEMMA)


class WholeCache:
    """All layers hold everything while this lasts."""

    def __init__(self, monkeypatch):
        init = LayerCache.__init__
        monkeypatch.setattr(LayerCache, "__init__", lambda self, options, reach=None, pinned=0: init(self, options))


def answers(model, prompt, spec, kv, tokens=20):
    return [(step.token, step.logits, step.relevance) for step in decode(model, prompt, spec, tokens, kv=kv)]


def assert_same(ours, wanted, tolerance=2e-5):
    assert [token for token, *_ in ours] == [token for token, *_ in wanted]
    for (_, logits, relevance), (_, wanted_logits, wanted_relevance) in zip(ours, wanted, strict=True):
        assert distance(logits, wanted_logits) < tolerance
        assert distance(relevance, wanted_relevance) < 50 * tolerance


@pytest.mark.parametrize("spec", SPECS)
def test_answers_relevance_and_lime_are_those_of_the_whole_cache(model, spec, monkeypatch):
    prompt = small_prompt(40, 4, 24)
    ours = answers(model, prompt, spec, STEPS)
    with monkeypatch.context() as patch:
        WholeCache(patch)
        wanted = answers(model, prompt, spec, STEPS)
    assert_same(ours, wanted)


def test_a_layer_holds_its_window_and_a_little_more(model):
    session = start(model, small_prompt(40, 4, 24), kv=STEPS)
    for token in range(30):
        session.extend()
        session.append(token)
    for layer, block in zip(session.cache.layers, model.language_model.layers, strict=True):
        if block.window is None:
            assert layer.size == 69 and layer.frozen is None
        else:
            assert WINDOW <= layer.size <= WINDOW + 3 + 2 * 4 and layer.gap > 40
            assert layer.frozen.arrays[0].shape[2] == WINDOW - 1 and layer.frozen.stop == 24


@pytest.mark.parametrize("back", [1, 3, 4, 11, 20])
def test_an_answer_goes_back_within_and_beyond_what_is_held(model, back):
    method = parse_method("none").prepare(model)
    session, fresh = (start(model, small_prompt(40, 4, 24), kv=STEPS) for _ in range(2))
    for token in range(20):
        method.step(session)
        session.append(token)
    method.step(session)
    session.rewind(back)
    for token in range(20 - back):
        method.step(fresh)
        fresh.append(token)
    for token in (50, 51, 52):
        assert distance(method.step(session).logits, method.step(fresh).logits) < 2e-5
        session.append(token)
        fresh.append(token)
    assert session.cache.offset == fresh.cache.offset


def test_going_back_beyond_entries_that_a_method_changed_is_refused(model):
    method = parse_method("kvsmooth:window=3,ref=0.5").prepare(model)
    session = start(model, small_prompt(40, 4, 24), kv=STEPS)
    for token in range(30):
        method.step(session)
        session.append(token)
    session.rewind(2)
    method.step(session)
    with pytest.raises(MethodError, match="cannot go back 2[0-9] positions: layers with a window hold only [0-9]+,"):
        session.rewind(25)


def test_forks_and_questions_behind_the_picture(model, monkeypatch):
    """What asking back and further prompts about the same picture need is there long after it left the window."""
    prompt, tails = small_prompt(40, 4, 24), [[7, 8, 9], [3]]
    other = Prompt(np.append(prompt.input_ids[:27], [9, 4, 4]), spans=[Span("image", 4, 24)])

    def run():
        session = start(model, prompt, kv=STEPS)
        for token in range(30):
            session.extend()
            session.append(token)
        session.extend()
        asked = continued(session, 27, tails)
        branch, fork = session.branch(other, 27), session.fork()
        fork.append(5)
        again = continued(branch, 24, tails)
        return [*asked, *again, branch.extend(), fork.extend(), continued(session, session.cache.offset, [[1]])[0]]

    ours = run()
    with monkeypatch.context() as patch:
        WholeCache(patch)
        wanted = run()
    for one, whole in zip(ours, wanted, strict=True):
        assert distance(one, whole) < 2e-5


def test_a_second_turn_takes_the_kept_chunks(model):
    prefixes, prompt = Prefixes(model), small_prompt(40, 4, 24)
    first = prefixes.open(prompt, kv=STEPS)
    for token in range(25):
        first.extend()
        first.append(token)
    second = Prompt(np.append(prompt.input_ids[:30], [3, 9, 12]), spans=prompt.spans)
    session = prefixes.open(second, kv=STEPS)
    assert session.reused == 24
    assert distance(session.extend(), start(model, second, kv=STEPS).extend()) < 2e-5


# --- --max-kv-size


@pytest.mark.parametrize("spec", [*SPECS, "lime:mode=exact,steps=2"])
@pytest.mark.parametrize("changes", [{}, GEMMA], ids=["no windows", "windows"])
def test_a_cache_of_a_limited_size_is_a_mask(changes, spec, monkeypatch):
    """Entries are let go, and nothing but the mask that hides them counts."""
    model, prompt = small_model(**changes), small_prompt(40, 4, 14)
    kv = KVOptions(prefill_step_size=16, max_kv_size=32)
    ours = answers(model, prompt, spec, kv, 12)
    with monkeypatch.context() as patch:
        WholeCache(patch)
        wanted = answers(model, prompt, spec, kv, 12)
    assert_same(ours, wanted, 1e-4)


def test_a_limited_cache_keeps_the_picture_and_the_newest():
    model, kv = small_model(), KVOptions(max_kv_size=32, prefill_step_size=16)
    session = start(model, small_prompt(40, 4, 14), kv=kv)
    for token in range(30):
        session.extend()
        session.append(token)
    for layer in session.cache.layers:
        assert (layer.pinned, layer.reach) == (14, 18)
        assert 32 <= layer.size <= 32 + 3 + 2 * 4
        assert layer.entries()[0].shape[2] == layer.offset
    mask = np.array(session.positions.mask(50, 1))[0]
    assert mask[:14].all() and not mask[14:33].any() and mask[33:].all()


def test_a_limit_that_nothing_reaches_changes_nothing():
    model, prompt = small_model(), small_prompt(20, 4, 14)
    plain = answers(model, prompt, "none", KVOptions(), 8)
    assert_same(answers(model, prompt, "none", KVOptions(max_kv_size=30), 8), plain, 1e-9)


def test_a_size_without_room_for_the_picture_is_refused_with_one_that_has_it():
    model = small_model()
    with pytest.raises(PromptError, match="end at position 30: give 46 or more \\(50 hold the whole prompt\\)"):
        start(model, small_prompt(50, 4, 30), kv=KVOptions(max_kv_size=40))
    with pytest.raises(PromptError, match="--max-kv-size is 5, but the prompt needs position 4: give 20 or more"):
        start(model, Prompt(np.arange(10)), kv=KVOptions(max_kv_size=5))


# --- the storage itself


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize(("reach", "pinned"), [(None, 0), (5, 0), (5, 3), (30, 2)])
def test_layers_hold_what_is_reached_whatever_is_appended_and_forgotten(reach, pinned):
    """Against a plain list of rows, over random appends, ways back and copies."""
    rng = np.random.default_rng(3)
    mark = pinned or 17
    cache = KVCache(1, KVOptions(), [(reach, pinned)], mark)
    rows = np.zeros((0, 4), np.float32)
    for _ in range(200):
        count = int(rng.choice([1, 1, 1, 2, 9]))
        new = rng.standard_normal((count, 4)).astype(np.float32)
        rows = np.concatenate([rows, new])
        cache[0].extend(*[mx.array(new[None, None])] * 2)
        if rng.random() < 0.2:
            cache = cache.copy()
        if rng.random() < 0.3:
            back = int(rng.integers(0, min(8, len(rows))))
            cache.trim(back)
            assert cache.offset in (len(rows) - back, mark, 0)
            rows = rows[: cache.offset]
        if not len(rows):
            continue
        least = 0 if reach is None else max(0, len(rows) + 1 - reach)
        for held in cache.before(len(rows))[0]:
            values = np.array(held)[0, 0]
            assert values.shape == rows.shape
            assert (values[least:] == rows[least:]).all() and (values[:pinned] == rows[:pinned]).all()
        if len(rows) > mark:
            assert cache[0].resumable(mark)
            values = np.array(cache.before(mark)[0][0])[0, 0]
            first = 0 if reach is None or pinned else max(0, mark + 1 - reach)
            assert (values[first:] == rows[first:mark]).all()
    assert reach is None or cache[0].size <= pinned + reach + 3 + 9 + 8


def test_positions_that_are_gone_cannot_be_read_or_overwritten():
    layer = LayerCache(KVOptions(), 5, 2)
    for _ in range(40):
        layer.extend(normal(1, 1, 1, 4), normal(1, 1, 1, 4))
    layer.overwrite(1, normal(1, 1, 1, 4, seed=1))
    layer.overwrite(39, normal(1, 1, 1, 4, seed=2))
    assert (np.array(layer.entries()[0])[0, 0, 39] == np.array(normal(1, 1, 1, 4, seed=2))[0, 0, 0]).all()
    with pytest.raises(IndexError, match="position 5 is outside"):
        layer.overwrite(5, normal(1, 1, 1, 4))
    with pytest.raises(IndexError, match="holds too little before position 20"):
        layer.entries(20)


def test_the_look_back_holds_a_run_of_words_that_name_nothing():
    assert LOOKBACK >= 32


# --- a whole Gemma 3, with a picture whose positions attend both ways


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return load(make(tmp_path_factory.mktemp("gemma"), "gemma3"))


@pytest.mark.parametrize("method", ["none", "choose", "lime:words=all", "kvsmooth"])
def test_two_turns_with_gemma_are_those_of_the_whole_cache(gemma, method, monkeypatch):
    """Its window is 5 positions, the picture 4, and each prompt some dozens."""
    model, processor = gemma

    def turns():
        chat = Chat(model, processor, method, max_tokens=12, kv=KVOptions(prefill_step_size=8))
        answers = [chat.ask("What is in the picture?", picture(60, 40)), chat.ask("Is there a dog? Where is it?")]
        return [(answer.tokens, answer.cached_tokens, answer.relevance) for answer in answers]

    ours = turns()
    with monkeypatch.context() as patch:
        WholeCache(patch)
        wanted = turns()
    for (tokens, kept, relevance), (wanted_tokens, wanted_kept, wanted_relevance) in zip(ours, wanted, strict=True):
        assert tokens == wanted_tokens and kept == wanted_kept and len(tokens) > 5
        assert all(distance(one, whole) < 1e-3 for one, whole in zip(relevance, wanted_relevance, strict=True))
    assert ours[1][1] > 8


def test_gemma_is_asked_back_long_after_its_picture_left_the_window(gemma, monkeypatch):
    model, processor = gemma
    prompt = processor.prompt("What is in the picture?", images=[picture(60, 40)])

    def run():
        session = start(model, prompt, kv=KVOptions(prefill_step_size=8))
        for token in range(20, 50):
            session.extend()
            session.append(token)
        session.extend()
        asked = margins(session, [Noun("dog"), Noun("umbrella")])
        session.rewind(25)
        return [*asked, *np.array(session.extend())]

    ours = run()
    with monkeypatch.context() as patch:
        WholeCache(patch)
        wanted = run()
    assert ours[0] is not None and distance(ours, wanted) < 1e-4
