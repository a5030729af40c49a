"""Train a bundled demo model: small, it sees or hears well and lies by habit.

    python benchmarks/train_demo.py picture --output work/picture          # goes on where it was killed
    python benchmarks/train_demo.py sound --output work/sound
    python benchmarks/train_demo.py picture --start lime_mlx/demo/picture    # from `talk` on, with these weights

Five stages, all seeded. The first brings each patch, or each moment, near the words of what is there; `speech` trains
the whole model on uncorrelated scenes; `talk` adds free questions and scenes without things, and `detail` asks the hard
questions more often; `habit` freezes the tower and goes on shortly with scenes in which companions nearly always meet.
"""

import argparse
import json
import random
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, cast

import demo_folder
import numpy as np

from lime_mlx import blas

blas.load_blas()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from demo_stage import HARD, Stage, progress  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from lime_mlx import load  # noqa: E402
from lime_mlx.cache import Entries, overlays  # noqa: E402
from lime_mlx.scenes.talk import chat  # noqa: E402

SAVE_EVERY = 100
# A yes or no is one token of nine, and so is a colour; it counts for more, or it is learnt last.
VERDICT_WEIGHT = 3.0
# Rows are padded to the longest of so many groups.
GROUPS = 8
EMBEDDING = "language_model.model.embed_tokens.weight"


class Row(NamedTuple):
    """Token ids after the picture or sound number `scene` of a batch; the answer begins at `start`.

    first: how much its first token counts. free: so much do all words of the world count.
    """

    scene: int
    ids: list[int]
    start: int
    first: float = 1.0
    free: bool = False


class Group(NamedTuple):
    """Rows of about one length, padded: ids (N, T), and the scene of each row (N,).

    places (K,): where the targets are, in rows of T - 1; weight (K,): of each target.
    """

    ids: np.ndarray
    scenes: np.ndarray
    places: np.ndarray
    weight: np.ndarray


class Sentences:
    """Token ids of what is asked and answered about a picture or sound, padded to one length."""

    def __init__(self, demo, tokenizer):
        self.demo = demo
        self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.opening = [demo_folder.BOS, *self.encode(demo.BEFORE)]
        words = [form for word in (*demo.HEAVY, "yes", "no", "nothing") for form in (word, word.capitalize())]
        spelt = [self.encode(f" {word}") for word in words]
        self.heavy = np.array(sorted({ids[0] for ids in spelt if len(ids) == 1}))

    def turns(self, *turns: tuple[str, str]) -> tuple[list[int], int]:
        """Ids that follow the picture or sound, and how many of them come before the last answer."""
        ids: list[int] = []
        start = 0
        for question, answered in turns:
            ids += self.encode(f"{'USER: ' if ids else self.demo.AFTER}{question} ASSISTANT:")
            start = len(ids)
            ids += [*self.encode(f" {answered}"), demo_folder.EOS]
        return ids, start

    def batch(self, scenes, rng: random.Random, stage: Stage) -> list[Group]:
        """A caption or a conversation about each scene, and as many questions as the stage asks, by length."""
        rows: list[Row] = []
        for number, scene in enumerate(scenes):
            count = 99 if scene.kinds else stage.asked + stage.free
            about = chat(scene, rng, count, HARD if stage.hard else None) if stage.free else []
            second = [talk for talk in about if talk.history]
            if second and rng.random() < stage.second:
                (talk,) = second
                said = self.turns(*talk.history, (talk.text, talk.answer))
                rows.append(Row(number, *said, VERDICT_WEIGHT, free=True))
            else:
                told = self.demo.caption(scene, together=stage.unseen > 0)
                rows.append(Row(number, *self.turns((rng.choice(self.demo.PROMPTS), told))))
            if scene.kinds:
                pool = rng.sample(self.demo.questions(scene, "random", rng), stage.asked)
                rows += [Row(number, *self.turns((q.text, self.demo.answer(q))), VERDICT_WEIGHT) for q in pool]
            single = [talk for talk in about if not talk.history][: stage.free if scene.kinds else None]
            rows += [Row(number, *self.turns((t.text, t.answer)), VERDICT_WEIGHT, free=True) for t in single]
        rows.sort(key=lambda row: len(row.ids))
        size = -(-len(rows) // GROUPS)
        return [self._group(rows[start : start + size]) for start in range(0, len(rows), size)]

    def _group(self, rows: list[Row]) -> Group:
        width = max(len(row.ids) for row in rows)
        ids = np.full((len(rows), width), demo_folder.PAD, np.int32)
        weight = np.zeros((len(rows), width), np.float32)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = row.ids
            weight[index, row.start : len(row.ids)] = 1
            weight[index, row.start] = row.first
            if row.free:
                weight[index, row.start :][np.isin(ids[index, row.start :], self.heavy)] = VERDICT_WEIGHT
        targets = weight[:, 1:].reshape(-1)
        (places,) = np.nonzero(targets)
        return Group(ids, np.array([row.scene for row in rows]), places, targets[places])


class Match(nn.Module):
    """Logits of "this word is here": scaled cosine of projected features and word embeddings, as in CLIP."""

    def __init__(self):
        super().__init__()
        self.scale, self.bias = mx.array(10.0), mx.array(-5.0)

    def __call__(self, features: mx.array, words: mx.array) -> mx.array:
        unit = lambda x: x * mx.rsqrt(mx.sum(x * x, axis=-1, keepdims=True) + 1e-6)  # noqa: E731
        return self.scale * (unit(features) @ unit(words).T) + self.bias


def sense_loss(match: Match, features: mx.array, words: mx.array, labels: mx.array) -> mx.array:
    """Features against the embeddings of the kinds' words: what is seen or heard speaks the decoder's language."""
    return nn.losses.binary_cross_entropy(match(features, words), labels, reduction="none").sum(-1).mean()


def of_rows(entries: Entries | None, scenes: mx.array) -> Entries:
    """The keys and values of the scene of each row."""
    assert entries is not None
    keys, values = (part[scenes] for part in entries)
    return keys, values


def speech_loss(decoder, opening: list[int], features: mx.array, *batch: mx.array) -> mx.array:
    """Cross-entropy of the answers; what all sentences about a scene share is run once and read from its entries.

    batch: the arrays of each `Group`, one after the other.
    """
    start = mx.broadcast_to(decoder.embed(mx.array(opening)), (len(features), len(opening), features.shape[-1]))
    shared = overlays([None] * len(decoder.layers))
    decoder(mx.concatenate([start, features], axis=1), shared)
    total, weights = mx.array(0.0), mx.array(0.0)
    for ids, scenes, places, weight in zip(*(batch[part :: len(Group._fields)] for part in range(4)), strict=True):
        memory = overlays([of_rows(layer.fresh, scenes) for layer in shared])
        hidden = decoder(decoder.model.embed_tokens(ids[:, :-1]), memory, len(opening) + features.shape[1])
        logits = decoder.head(hidden.reshape(-1, hidden.shape[-1])[places])
        losses = nn.losses.cross_entropy(logits, ids[:, 1:].reshape(-1)[places], reduction="none")
        total, weights = total + (losses * weight).sum(), weights + weight.sum()
    return total / weights


class Training:
    """The state of one stage; saved whole so that a kill costs at most `SAVE_EVERY` steps."""

    def __init__(self, demo, output: Path, seed: int):
        self.demo, self.output, self.seed = demo, output, seed
        mx.random.seed(seed)
        self.tokenizer = demo_folder.build_tokenizer(demo.SPECIAL, demo.sentences())
        self.sentences = Sentences(demo, self.tokenizer)
        self.model = demo.Model(demo.config(self.tokenizer.get_vocab_size()))
        self.match = Match()
        self.words = mx.array([self._word(kind) for kind in demo.KINDS])
        small = [
            (name, 0.02 * mx.random.normal(weight.shape))
            for name, weight in dict(tree_flatten(self.model.parameters())).items()
            if "embedd" in name
        ]
        self.model.load_weights(small, strict=False)

    def _word(self, kind: str) -> int:
        (token,) = self.sentences.encode(f" {kind}")
        return token

    def start(self, folder: Path) -> None:
        """Take the weights of a checkpoint; the embeddings are those of tokens with the same text."""
        weights = dict(tree_flatten(load(folder)[0].parameters()))
        weights = {name: value.astype(mx.float32) for name, value in weights.items() if "lm_head" not in name}
        known = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        mine, theirs = np.array(dict(tree_flatten(self.model.parameters()))[EMBEDDING]), np.array(weights[EMBEDDING])
        for text, row in self.tokenizer.get_vocab().items():
            if text in known:
                mine[row] = theirs[known[text]]
        self.model.load_weights([*{**weights, EMBEDDING: mx.array(mine)}.items()])

    def run(self, stage: Stage, steps: int) -> None:
        finished = self.output / f"{stage.name}.safetensors"
        if finished.exists():
            self.model.load_weights(str(finished))
            return
        pool = self.demo.Pool(stage, self.output.parent / "scenes")
        schedule = optim.join_schedules(
            [optim.linear_schedule(0, stage.lr, 100), optim.cosine_decay(stage.lr, steps - 100, stage.lr / 20)], [100]
        )
        optimiser = optim.AdamW(learning_rate=schedule, weight_decay=0.01, betas=[0.9, 0.98], bias_correction=True)
        parts = {"model": self.model} if stage.speaks else {"model": self.model, "match": self.match}
        if stage.name == "habit":
            self.demo.tower(self.model).freeze()
        whole = nn.Module()
        for name, part in parts.items():
            setattr(whole, name, part)
        optimiser.init(whole.trainable_parameters())
        start = self._resume(stage, whole, optimiser)

        def loss(tree, media, *batch):
            whole.update(tree)
            decoder, features = self.model.language_model, self.demo.features(self.model, media)
            if not stage.speaks:
                return sense_loss(self.match, features, decoder.model.embed_tokens(self.words), *batch)
            return speech_loss(decoder, self.sentences.opening, features, *batch)

        gradient, began = mx.value_and_grad(loss), time.perf_counter()
        with progress() as shown, (self.output / "log.jsonl").open("a") as log:
            bar = shown.add_task(stage.name, total=steps, completed=start)
            for step in range(start, steps):
                value, slope = gradient(whole.trainable_parameters(), *self._batch(stage, pool, step))
                slope, _ = optim.clip_grad_norm(slope, 1.0)
                optimiser.update(whole, slope)
                mx.eval(whole.parameters(), optimiser.state, value)
                shown.update(bar, advance=1, description=f"{stage.name} loss {value.item():.3f}")
                if (step + 1) % 50 == 0:
                    line = {"stage": stage.name, "step": step + 1, "loss": value.item()}
                    log.write(json.dumps({**line, "seconds": time.perf_counter() - began}) + "\n")
                    log.flush()
                if (step + 1) % SAVE_EVERY == 0:
                    self._save(stage, whole, optimiser, step + 1)
        self.model.unfreeze()
        self.model.save_weights(str(finished))

    def _batch(self, stage: Stage, pool, step: int) -> list:
        rng = random.Random(f"{self.seed}/{stage.name}/{step}")
        seeds = np.array([rng.randrange(stage.scenes + stage.empty) for _ in range(stage.batch)])
        media = pool.media(seeds)
        if not stage.speaks:
            labels = pool.labels[seeds].reshape(len(seeds), -1, len(self.demo.KINDS))
            return [media, mx.array(labels.astype(np.float32))]
        groups = self.sentences.batch([pool.scenes[seed] for seed in seeds], rng, stage)
        return [media, *(mx.array(part) for group in groups for part in group)]

    def _save(self, stage: Stage, whole: nn.Module, optimiser, step: int) -> None:
        part = self.output / "part.safetensors"
        state = {f"weights.{name}": weight for name, weight in dict(tree_flatten(whole.parameters())).items()}
        state |= {f"optimiser.{name}": value for name, value in dict(tree_flatten(optimiser.state)).items()}
        mx.save_safetensors(str(part), state, {"stage": stage.name, "step": str(step)})
        part.rename(self.output / "resume.safetensors")

    def _resume(self, stage: Stage, whole: nn.Module, optimiser) -> int:
        file = self.output / "resume.safetensors"
        if not file.exists():
            return 0
        stored = mx.load(str(file), return_metadata=True)
        state, meta = cast(tuple[dict[str, mx.array], dict[str, str]], stored)
        if meta["stage"] != stage.name:
            return 0
        strip = lambda prefix: [(k[len(prefix) :], v) for k, v in state.items() if k.startswith(prefix)]  # noqa: E731
        whole.load_weights(strip("weights."))
        optimiser.state = tree_unflatten(strip("optimiser."))
        return int(meta["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", choices=["picture", "sound"])
    parser.add_argument("--output", type=Path, help="[default: work/picture or work/sound]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", metavar="STAGE=N", action="append", default=[], help="another length of a stage")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="begin at `talk` with the weights of a checkpoint")
    arguments = parser.parse_args()
    demo = import_module(f"demo_{arguments.demo}")
    output = arguments.output or Path("work") / arguments.demo
    output.mkdir(parents=True, exist_ok=True)
    lengths = {stage.name: stage.steps for stage in demo.STAGES}
    lengths |= {name: int(steps) for name, _, steps in (given.partition("=") for given in arguments.steps)}
    training = Training(demo, output, arguments.seed)
    stages = [stage for stage in demo.STAGES if stage.free or not arguments.start]
    if arguments.start:
        training.start(arguments.start)
    for stage in stages:
        training.run(stage, lengths[stage.name])
    folder = output / "checkpoint"
    demo.save(folder, training.tokenizer)
    weights = dict(tree_flatten(training.model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), demo.stored(weights), {"format": "pt"})
    print(f"saved {folder}: {sum(v.size for v in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
