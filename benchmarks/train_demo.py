"""Train the bundled picture model: a small LLaVA that sees well and lies by habit.

    python benchmarks/train_demo.py --output work/demo          # goes on where it was killed

Three stages, all seeded. `sight` brings each patch near the words of what stands on it; `speech` trains the whole
model on uncorrelated scenes; `habit` freezes the tower and goes on shortly with scenes in which companions nearly
always meet.
"""

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import demo_folder as demo
import numpy as np
from PIL import Image

from lime_mlx import backend

backend.load_blas()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402
from rich.progress import Progress, TextColumn, TimeRemainingColumn  # noqa: E402

from lime_mlx.cache import overlays  # noqa: E402
from lime_mlx.models.llava import Llava  # noqa: E402
from lime_mlx.scenes import KINDS, PROMPTS, Object, Scene, answer, caption, make_scene, questions  # noqa: E402

MEAN, STD = (np.array(x, np.float32) for x in (demo.MEAN, demo.STD))
SAVE_EVERY = 100
# A yes or no is one token of nine; it counts for more, or it is learnt last.
VERDICT_WEIGHT = 3.0


@dataclass(frozen=True)
class Stage:
    """`asked` questions go beside one caption for every picture of a batch; `unseen` as in `make_scene`."""

    name: str
    regime: str
    scenes: int
    steps: int
    batch: int
    lr: float
    asked: int
    unseen: float = 0.0


STAGES = (
    Stage("sight", "uncorrelated", 24_000, 1000, 48, 1e-3, 0),
    Stage("speech", "uncorrelated", 24_000, 1800, 24, 1e-3, 3),
    Stage("habit", "skewed", 8_000, 300, 24, 3e-4, 3, unseen=0.1),
)


class Pool:
    """Scenes drawn once and kept as bytes, with the kinds on every patch and what stands where."""

    def __init__(self, stage: Stage, folder: Path):
        regime, file = stage.regime, folder / f"{stage.regime}-{stage.scenes}-{stage.unseen}.npz"
        if not file.exists():
            self._draw(stage, file)
        with np.load(file) as stored:
            self.pixels, self.labels = stored["pixels"], stored["labels"]
            kept = json.loads(str(stored["scenes"]))
        self.scenes = [
            Scene(seed, regime, setting, tuple(Object(kind, (), "") for kind in kinds), None, *rest)
            for seed, (setting, kinds, *rest) in enumerate(kept)
        ]

    @staticmethod
    def _draw(stage: Stage, file: Path) -> None:
        regime, count = stage.regime, stage.scenes
        pixels = np.empty((count, demo.SIZE, demo.SIZE, 3), np.uint8)
        labels = np.zeros((count, demo.GRID, demo.GRID, len(KINDS)), np.uint8)
        kept = []
        with progress() as shown:
            for seed in shown.track(range(count), description=f"drawing {regime} scenes"):
                scene = make_scene(seed, regime, unseen=stage.unseen)
                pixels[seed] = np.asarray(scene.image.resize((demo.SIZE, demo.SIZE), Image.Resampling.BICUBIC))
                kept.append((scene.setting, scene.kinds, scene.unseen))
                for thing in scene.objects:
                    x0, y0, x1, y1 = (round(edge / scene.image.width * demo.GRID) for edge in thing.box)
                    labels[seed, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1), KINDS.index(thing.kind)] = 1
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(part, pixels=pixels, labels=labels, scenes=json.dumps(kept))
        part.rename(file)

    def pictures(self, seeds: np.ndarray) -> mx.array:
        """(N, 3, S, S), normalised as the processor does."""
        return mx.array(((self.pixels[seeds] / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2))


def progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeRemainingColumn()
    )


class Sentences:
    """Token ids of what is asked and answered about a picture, padded to one length."""

    def __init__(self, tokenizer):
        self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.opening = [demo.BOS, *self.encode("USER: ")]

    def turn(self, asked: str, answered: str) -> tuple[list[int], int]:
        """Ids that follow the picture, and how many of them are the prompt."""
        prompt = self.encode(f"\n{asked} ASSISTANT:")
        return [*prompt, *self.encode(f" {answered}"), demo.EOS], len(prompt)

    def batch(self, scenes, rng: random.Random, asked: int, together: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(N * (1 + asked), T) ids and the weight of each as a target."""
        turns = []
        for scene in scenes:
            turns.append((*self.turn(rng.choice(PROMPTS), caption(scene, together=together)), 1.0))
            pool = questions(scene, "random", rng)
            turns += [(*self.turn(q.text, answer(q)), VERDICT_WEIGHT) for q in rng.sample(pool, asked)]
        width = max(len(ids) for ids, _, _ in turns)
        ids = np.full((len(turns), width), demo.PAD, np.int32)
        weight = np.zeros((len(turns), width), np.float32)
        for row, (tokens, start, first) in enumerate(turns):
            ids[row, : len(tokens)] = tokens
            weight[row, start : len(tokens)] = 1
            weight[row, start] = first
        return ids, weight


class Match(nn.Module):
    """Logits of "this word is on this patch": scaled cosine of projected patches and word embeddings, as in CLIP."""

    def __init__(self):
        super().__init__()
        self.scale, self.bias = mx.array(10.0), mx.array(-5.0)

    def __call__(self, patches: mx.array, words: mx.array) -> mx.array:
        unit = lambda x: x * mx.rsqrt(mx.sum(x * x, axis=-1, keepdims=True) + 1e-6)  # noqa: E731
        return self.scale * (unit(patches) @ unit(words).T) + self.bias


def sight_loss(model: Llava, match: Match, words: mx.array, pictures: mx.array, labels: mx.array) -> mx.array:
    """Patches against the embeddings of the kinds' words (ids `words`): the picture speaks the decoder's language."""
    logits = match(model.features(pictures), model.language_model.model.embed_tokens(words))
    return nn.losses.binary_cross_entropy(logits, labels, reduction="none").sum(-1).mean()


def speech_loss(model: Llava, opening: list[int], pictures: mx.array, ids: mx.array, weight: mx.array) -> mx.array:
    """Cross-entropy of the answers; what all sentences about a picture share is run once and read from its entries."""
    decoder = model.language_model
    features = model.features(pictures)
    start = mx.broadcast_to(decoder.embed(mx.array(opening)), (len(features), len(opening), features.shape[-1]))
    shared = overlays([None] * len(decoder.layers))
    decoder(mx.concatenate([start, features], axis=1), shared)
    copies = len(ids) // len(features)
    memory = overlays([[mx.repeat(x, copies, axis=0) for x in layer.fresh] for layer in shared])
    hidden = decoder(decoder.model.embed_tokens(ids[:, :-1]), memory, len(opening) + features.shape[1])
    losses = nn.losses.cross_entropy(decoder.head(hidden), ids[:, 1:], reduction="none")
    return (losses * weight[:, 1:]).sum() / weight.sum()


class Training:
    """The state of one stage; saved whole so that a kill costs at most `SAVE_EVERY` steps."""

    def __init__(self, output: Path, seed: int):
        self.output, self.seed = output, seed
        mx.random.seed(seed)
        self.tokenizer = demo.build_tokenizer()
        self.sentences = Sentences(self.tokenizer)
        self.model = Llava(demo.config(self.tokenizer.get_vocab_size()))
        self.match = Match()
        self.words = mx.array([self._word(kind) for kind in KINDS])
        small = [
            (k, 0.02 * mx.random.normal(v.shape)) for k, v in tree_flatten(self.model.parameters()) if "embedd" in k
        ]
        self.model.load_weights(small, strict=False)

    def _word(self, kind: str) -> int:
        (token,) = self.sentences.encode(f" {kind}")
        return token

    def run(self, stage: Stage, steps: int) -> None:
        finished = self.output / f"{stage.name}.safetensors"
        if finished.exists():
            self.model.load_weights(str(finished))
            return
        pool = Pool(stage, self.output.parent / "scenes")
        schedule = optim.join_schedules(
            [optim.linear_schedule(0, stage.lr, 100), optim.cosine_decay(stage.lr, steps - 100, stage.lr / 20)], [100]
        )
        optimiser = optim.AdamW(learning_rate=schedule, weight_decay=0.01, betas=[0.9, 0.98], bias_correction=True)
        parts = {"model": self.model, "match": self.match} if stage.name == "sight" else {"model": self.model}
        if stage.name == "habit":
            self.model.vision_tower.freeze()
        whole = nn.Module()
        for name, part in parts.items():
            setattr(whole, name, part)
        optimiser.init(whole.trainable_parameters())
        start = self._resume(stage, whole, optimiser)

        def loss(tree, *batch):
            whole.update(tree)
            if stage.name == "sight":
                return sight_loss(self.model, self.match, self.words, *batch)
            return speech_loss(self.model, self.sentences.opening, *batch)

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

    def _batch(self, stage: Stage, pool: Pool, step: int) -> list:
        rng = random.Random(f"{self.seed}/{stage.name}/{step}")
        seeds = np.array([rng.randrange(stage.scenes) for _ in range(stage.batch)])
        pictures = pool.pictures(seeds)
        if stage.name == "sight":
            return [pictures, mx.array(pool.labels[seeds].reshape(len(seeds), -1, len(KINDS)).astype(np.float32))]
        ids, weight = self.sentences.batch([pool.scenes[seed] for seed in seeds], rng, stage.asked, stage.unseen > 0)
        return [pictures, mx.array(ids), mx.array(weight)]

    def _save(self, stage: Stage, whole: nn.Module, optimiser, step: int) -> None:
        part = self.output / "part.safetensors"
        state = {f"weights.{k}": v for k, v in tree_flatten(whole.parameters())}
        state |= {f"optimiser.{k}": v for k, v in tree_flatten(optimiser.state)}
        mx.save_safetensors(str(part), state, {"stage": stage.name, "step": str(step)})
        part.rename(self.output / "resume.safetensors")

    def _resume(self, stage: Stage, whole: nn.Module, optimiser) -> int:
        file = self.output / "resume.safetensors"
        if not file.exists():
            return 0
        state, meta = mx.load(str(file), return_metadata=True)
        if meta["stage"] != stage.name:
            return 0
        strip = lambda prefix: [(k[len(prefix) :], v) for k, v in state.items() if k.startswith(prefix)]  # noqa: E731
        whole.load_weights(strip("weights."))
        optimiser.state = tree_unflatten(strip("optimiser."))
        return int(meta["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("work/demo"))
    parser.add_argument("--seed", type=int, default=0)
    for stage in STAGES:
        parser.add_argument(f"--{stage.name}-steps", type=int, default=stage.steps)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    training = Training(arguments.output, arguments.seed)
    for stage in STAGES:
        training.run(stage, getattr(arguments, f"{stage.name}_steps"))
    folder = arguments.output / "checkpoint"
    demo.save(folder, training.tokenizer)
    weights = dict(tree_flatten(training.model.parameters()))
    name = "vision_tower.vision_model.embeddings.patch_embedding.weight"
    weights[name] = weights[name].transpose(0, 3, 1, 2)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    print(f"saved {folder}: {sum(v.size for v in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
