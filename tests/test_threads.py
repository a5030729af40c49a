"""One model used from several threads computes for one at a time, and each gets the answer that it gets alone."""

import threading
import time
from functools import cache

import mlx.core as mx
import numpy as np
import pytest

from lime_mlx import Chat, Prefixes, generate, load, relevance, stream_generate
from lime_mlx.exclusive import each_exclusive, exclusive
from lime_mlx.scenes import PROMPTS, make_scene

FIRST = 150_100
THREADS = 3


@cache
def loaded():
    return load("demo")


@cache
def prompt(seed: int):
    return loaded()[1].prompt(PROMPTS[0], images=[make_scene(seed, "adversarial").image])


def at_once(*functions):
    """What functions return that run at the same time, each in a thread of its own."""
    results, ready = {}, threading.Barrier(len(functions))

    def run(number, function):
        ready.wait()
        try:
            results[number] = function()
        except Exception as error:
            results[number] = error
        finally:
            mx.clear_streams()

    threads = [threading.Thread(target=run, args=entry) for entry in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return [results[number] for number in range(len(functions))]


class Overlap:
    """Counts how often two threads are inside at once: a processor of logits that dawdles."""

    def __init__(self):
        self.inside = self.most = self.calls = 0

    def __call__(self, tokens, logits):
        self.inside += 1
        self.most, self.calls = max(self.most, self.inside), self.calls + 1
        time.sleep(0.002)
        self.inside -= 1
        return logits


@pytest.mark.parametrize("method", ["none", "choose", "lime:steps=2", "vcd+kvsmooth"])
def test_threads_get_the_answers_that_they_get_alone(method):
    overlap = Overlap()

    def answer(seed):
        return generate(
            *loaded(), prompt(seed), method=method, max_tokens=10, relevance=True, logits_processors=[overlap]
        )

    seeds = range(FIRST, FIRST + THREADS)
    alone = [answer(seed) for seed in seeds]
    together = at_once(*(lambda seed=seed: answer(seed) for seed in seeds))
    assert overlap.most == 1 and overlap.calls > 20
    for one, other in zip(alone, together, strict=True):
        assert one.tokens == other.tokens and one.reliance == other.reliance
        assert all(map(np.array_equal, one.relevance, other.relevance))


def test_kept_prefixes_serve_threads():
    prefixes = Prefixes(loaded()[0])
    seeds = [FIRST, FIRST + 1, FIRST, FIRST + 1]
    alone = [generate(*loaded(), prompt(seed), method="none", max_tokens=8).tokens for seed in seeds]
    together = at_once(
        *(
            lambda seed=seed: generate(*loaded(), prompt(seed), method="none", max_tokens=8, prefixes=prefixes)
            for seed in seeds
        )
    )
    assert [answer.tokens for answer in together] == alone
    assert sum(answer.cached_tokens > 0 for answer in together) >= 2


def test_relevance_beside_an_answer_and_a_chat():
    image = make_scene(FIRST, "adversarial").image

    def talk():
        chat = Chat(*loaded(), max_tokens=6)
        return [chat.ask(PROMPTS[0], image=image).tokens, chat.ask("Is there a dog?").tokens]

    def answer():
        return generate(*loaded(), prompt(FIRST), method="lime:steps=2", max_tokens=6).tokens

    def share():
        return relevance(loaded()[0], prompt(FIRST)).tolist()

    alone = [talk(), answer(), share()]
    assert at_once(talk, answer, share) == alone


def test_an_answer_that_nobody_reads_on_holds_up_no_other():
    stream = stream_generate(*loaded(), prompt(FIRST), method="lime:steps=1", max_tokens=8)
    next(stream)
    (other,) = at_once(lambda: generate(*loaded(), prompt(FIRST + 1), method="none", max_tokens=4).tokens)
    assert len(other) == 4
    rest = [response.token for response in stream]
    assert len(rest) == 7


def test_what_holds_the_lock():
    class Model:
        lock = threading.RLock()

    class Session:
        model = Model()

    def is_free():
        (free,) = at_once(lambda: Model.lock.acquire(blocking=False) and (Model.lock.release() or True))
        return free

    @exclusive
    def compute(model):
        return is_free()

    @each_exclusive
    def count(session):
        yield is_free()
        yield is_free()
        raise ValueError("x")

    assert compute(Model()) is False and is_free()
    items = count(Session())
    assert next(items) is False and is_free() and next(items) is False
    with pytest.raises(ValueError, match="x"):
        next(items)
    assert is_free()
