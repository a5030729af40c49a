"""Why LIME names things again: what it puts in the place of a word, and which part of its deltas does so.

Captions of adversarial validation scenes by the bundled demos, on LIME's own path. Only words whose kind the world
knows are counted. For each word that LIME replaced: what stood there, what it became, and whether the scene still had a
kind that the caption had not named. The parts of the deltas are tried alone, at the same place in the same answer.

    OMP_NUM_THREADS=1 python benchmarks/lime_repeats.py
    OMP_NUM_THREADS=1 python benchmarks/lime_repeats.py --demo demo-sound --scenes 100 --method lime:positions=prompt
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx import blas, load
from lime_mlx.attention import softmax
from lime_mlx.cache import Delta, overlays
from lime_mlx.decoding import start
from lime_mlx.evaluate.scorers.scenes import kinds_named, mentions
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.evaluate.tasks.scenes import Scenes
from lime_mlx.methods import parse_method
from lime_mlx.methods.lime import PreparedLime
from lime_mlx.methods.token_optimizer import Fast
from lime_mlx.methods.updates import Deltas
from lime_mlx.scenes import World
from lime_mlx.session import Session
from lime_mlx.support.statistics import log_softmax

TASKS = {"demo": "scenes", "demo-sound": "sounds"}
TOKENS = 48
# Kinds that plain decoding gives less than this are not counted in the changes of log-probabilities.
LEAST = 1e-6
# Parts of the positions on which the deltas are tried alone.
PARTS = ("all", "media", "question", "own", "all but own")


@dataclass(frozen=True)
class Replaced:
    """A word that LIME judged and moved.

    before, after: the role of the word of plain decoding, and of LIME: "absent", "new", "again" or "other". open: the
    scene has a kind that the caption did not name. by_part: the role that each part of the deltas gives. logp: the
    undisturbed log-probability of LIME's word. shift: by part, the mean change of the log-probability of kinds that are
    absent, named before, and still open. attention, media_attention: the share of own text and of the media in the
    attention, before and after. relevance: that of own text in |R|. mass: of softmax(R / tau), the shares of picture,
    question and own text.
    """

    before: str
    after: str
    open: bool
    by_part: dict[str, str]
    logp: float
    shift: dict[str, dict[str, float]]
    attention: tuple[float, float]
    media_attention: tuple[float, float]
    relevance: float
    mass: tuple[float, float, float]


@dataclass(frozen=True)
class Caption:
    """One caption on LIME's path. mentions: the kinds that it names, in order; at: whether LIME moved each of them."""

    mentions: list[str]
    moved: list[bool]
    replaced: list[Replaced]


class Study:
    """The captions of one demo by one form of LIME."""

    def __init__(self, demo: str, method: str, scenes: int, first: int):
        self.model, self.processor = load(demo)
        task = parse_task(f"{TASKS[demo]}:part=validation,ask=captions,count={scenes}")
        assert isinstance(task, Scenes)
        self.task: Scenes = task
        self.world: World = task.world
        self.numbers = range(first, first + scenes)
        prepared = parse_method(method).prepare(self.model)
        assert isinstance(prepared, PreparedLime) and prepared.caches
        self.prepared = prepared
        texts = [
            self.processor.tokenizer.decode([token]) for token in range(self.model.language_model.config.vocab_size)
        ]
        self.kinds = [(named[0] if (named := kinds_named(text, self.world)) else None) for text in texts]

    def captions(self) -> Iterator[Caption]:
        for number in self.numbers:
            scene = self.task.scene(number)
            prompt = self.processor.prompt(self.task.request, **self.task.opened(None, str(number)))
            session = start(self.model, prompt, reliance=False)
            yield self.caption(session, set(scene.kinds))

    def caption(self, session: Session, truth: set[str]) -> Caption:
        named: list[str] = []
        moved: list[bool] = []
        replaced: list[Replaced] = []
        while len(session.generated) < TOKENS:
            updates: list[Deltas] = []
            search = Fast(self.prepared.options, session, partial(self.prepared.skips, session))
            session.prefill()
            forward = search.optimise(lambda _, deltas: updates.append(_whole(deltas)))  # noqa: B023
            token = int(mx.argmax(forward.logits))
            if updates:
                one = self.replaced(session, search, updates[-1], token, named, truth)
                if one is not None:
                    replaced.append(one)
            if token in self.processor.eos_token_ids:
                break
            session.append(token)
            text = self.processor.tokenizer.decode(session.generated, skip_special_tokens=True)
            now = mentions(text, self.world)
            moved += [bool(updates)] * (len(now) - len(named))
            named = now
        return Caption(named, moved, replaced)

    def replaced(
        self, session: Session, search: Fast, deltas: Deltas, token: int, named: Sequence[str], truth: set[str]
    ) -> Replaced | None:
        """What became of the newest place, where LIME gave `token`; None where plain decoding gives it, too."""
        plain = search.forward(search.zeros())
        before = np.array(plain.logits)
        first = int(before.argmax())
        if first == token:
            return None
        role = partial(self.role, named=named, truth=truth)
        places = self.places(session, search.length)
        parts = {name: np.array(search.last_logits(_kept(deltas, mask))) for name, mask in places.items()}
        groups = {
            "absent": [t for t, kind in enumerate(self.kinds) if kind and kind not in truth],
            "named": [t for t, kind in enumerate(self.kinds) if kind in truth and kind in named],
            "open": [t for t, kind in enumerate(self.kinds) if kind in truth and kind not in named],
        }
        likely = log_softmax(before) > np.log(LEAST)
        counted = {name: [t for t in tokens if likely[t]] for name, tokens in groups.items()}
        relevance = np.array(plain.relevance)
        own, media = places["own"], places["media"]
        scaled = np.exp(log_softmax(relevance / self.prepared.options.tau))
        seen = [self.attention(session, search, d) for d in (None, deltas)]
        return Replaced(
            role(first),
            role(token),
            bool(truth - set(named)),
            {name: role(int(logits.argmax())) for name, logits in parts.items()},
            float(log_softmax(before)[token]),
            {
                part: {
                    name: float((log_softmax(logits) - log_softmax(before))[tokens].mean())
                    for name, tokens in counted.items()
                    if tokens
                }
                for part, logits in parts.items()
            },
            (float(seen[0][own].sum()), float(seen[1][own].sum())),
            (float(seen[0][media].sum()), float(seen[1][media].sum())),
            float(np.abs(relevance[own]).sum() / np.abs(relevance).sum()),
            (float(scaled[media].sum()), float(scaled[places["question"]].sum()), float(scaled[own].sum())),
        )

    def role(self, token: int, named: Sequence[str], truth: set[str]) -> str:
        kind = self.kinds[token]
        if kind is None:
            return "other"
        if kind in named:
            return "again"
        return "new" if kind in truth else "absent"

    def places(self, session: Session, length: int) -> dict[str, NDArray[np.bool_]]:
        """(T,) bool for each part."""
        media = np.pad(session.modality, (0, length - len(session.modality)))
        own = np.arange(length) >= len(session.prompt)
        whole = np.ones(length, dtype=bool)
        return dict(zip(PARTS, (whole, media, ~own & ~media, own, ~own), strict=True))

    def attention(self, session: Session, search: Fast, deltas: Deltas | None) -> NDArray[np.float64]:
        """(T,): the attention of the newest position, mean over heads and layers."""
        rows: list[mx.array] = []

        def keep(scores: mx.array) -> mx.array:
            weights = softmax(scores)
            rows.append(weights.reshape(-1, weights.shape[-1]).mean(axis=0))
            return weights

        pairs = None if deltas is None else _pairs(deltas)
        edits = dict.fromkeys(range(len(session.decoder.layers)), keep)
        memory = overlays(session.before_newest(), pairs, edits=edits)
        mx.eval(session.decoder(session.newest, memory, search.length - 1, search.rules, session.positions))
        return cast(NDArray[np.float64], np.mean([np.array(row, dtype=np.float64) for row in rows], axis=0))


def _pairs(deltas: Deltas) -> list[Delta]:
    return [(layer.get("k"), layer.get("v")) for layer in deltas]


def _whole(deltas: Sequence[Mapping[str, object]]) -> Deltas:
    """The deltas as arrays."""
    return [{name: mx.array(np.array(x)) for name, x in layer.items()} for layer in deltas]


def _kept(deltas: Deltas, mask: NDArray[np.bool_]) -> Deltas:
    """The deltas, zero where `mask` (T,) is False."""
    column = mx.array(mask.astype(np.float32))[:, None]
    return [{name: x * column for name, x in layer.items()} for layer in deltas]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=TASKS, default="demo")
    parser.add_argument("--method", default="lime")
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--first", type=int, default=100_300)
    arguments = parser.parse_args()
    blas.load_blas()
    study = Study(arguments.demo, arguments.method, arguments.scenes, arguments.first)
    report(list(study.captions()))


def report(captions: Sequence[Caption]) -> None:
    total = sum(len(caption.mentions) for caption in captions)
    again: Counter[str] = Counter()
    for caption in captions:
        for index, (kind, moved) in enumerate(zip(caption.mentions, caption.moved, strict=True)):
            if kind in caption.mentions[:index]:
                earlier = any(caption.moved[i] for i in range(index) if caption.mentions[i] == kind)
                again["replaced" if moved else "kept, LIME put it there before" if earlier else "kept"] += 1
    print(f"{total} mentions, {sum(again.values())} name a kind again: {dict(again)}")
    replaced = [one for caption in captions for one in caption.replaced]
    print(f"{len(replaced)} words were replaced. From, to, with something left to name or not:")
    for (before, after, left), count in Counter((r.before, r.after, r.open) for r in replaced).most_common():
        print(f"  {before:6} -> {after:6} {'something' if left else 'nothing':9} {count}")
    print("What the parts of the deltas alone give, of the words that were replaced, by what was left to name:")
    for left in (True, False):
        chosen = [one for one in replaced if one.open is left]
        for part in PARTS:
            roles = Counter(one.by_part[part] for one in chosen)
            shown = ", ".join(f"{role} {roles[role]}" for role in ("absent", "new", "again", "other"))
            print(f"  {'something' if left else 'nothing':9} {part:11} {shown}")
    print("Mean change of log p of the kinds, by the part of the deltas:")
    for part in PARTS:
        means = {
            name: np.mean([one.shift[part][name] for one in replaced if name in one.shift[part]])
            for name in ("absent", "named", "open")
        }
        print(f"  {part:11} " + ", ".join(f"{name} {mean:+.2f}" for name, mean in means.items()))
    for name, pairs in (("own text", "attention"), ("media", "media_attention")):
        before, after = np.mean([getattr(one, pairs) for one in replaced], axis=0)
        print(f"  attention to {name}: {before:.4f} -> {after:.4f}")
    mass = np.mean([one.mass for one in replaced], axis=0)
    print(f"  own text in |R|: {np.mean([one.relevance for one in replaced]):.3f}")
    print(
        "  softmax(R / tau): "
        + ", ".join(f"{n} {x:.3f}" for n, x in zip(("media", "question", "own"), mass, strict=True))
    )
    logp = np.array([one.logp for one in replaced]) / np.log(10)
    print(f"  log10 p of the new word, undisturbed: quartiles {np.round(np.percentile(logp, [0, 5, 25, 50, 75]), 2)}")


if __name__ == "__main__":
    main()
