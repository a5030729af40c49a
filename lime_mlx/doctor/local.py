"""The examination of a model on this machine: by its template, levels, features, logits and relevance."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import load_model, load_processor
from lime_mlx.errors import NumericalError, PromptError
from lime_mlx.lrp.relevance import relevance, reliance
from lime_mlx.media.audio import open_audio
from lime_mlx.media.image import open_image
from lime_mlx.models.base import LEVELS, Model
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt
from lime_mlx.support.statistics import log_softmax

from .findings import BROKEN, WORKS, Finding, unclear
from .levels import channels, detail, files, pitches, rules
from .likeness import SAME
from .luck import LIMIT, pairing
from .places import orientation
from .scenic import QUESTIONS, scene, soundscape
from .seeing import SECOND_IGNORED
from .texts import SYSTEM_LOST
from .verdict import Report

# From the number of an input, 0 to 3, to its prompt.
Make = Callable[[int], Prompt]
NOUNS = {"image": "picture", "audio": "sound"}
# Less than this share of the relevance on a picture or sound is none.
LEAST_RELIANCE = 1e-4


def examine(name: str, *, revision: str | None = None) -> Report:
    """Examine a folder, a repository of the Hub or "demo".

    Raises `CheckpointError` for a model that cannot be loaded, and `PromptError` for one that reads text only.
    """
    folder = locate(name, revision=revision)
    return examine_loaded(load_model(folder), load_processor(folder), folder, name)


def examine_loaded(model: Model, processor: Processor, folder: str | os.PathLike[str], target: str) -> Report:
    """Examine a model and its processor, whose files are in a folder. Raises `PromptError` for one of text only."""
    taken = [kind for kind in NOUNS if kind in processor.takes]
    if not taken:
        raise PromptError(f"{target} reads text only: it takes no picture and no sound that could be examined.")
    findings: list[Finding] = []
    details: dict[str, object] = {}
    for kind in taken:
        section = Section(model, processor, Path(folder), kind)
        findings += section.findings()
        details |= section.details
    return Report(target, [NOUNS[kind] for kind in taken], findings, details)


class Section:
    """The examination of pictures ("image") or sounds ("audio")."""

    def __init__(self, model: Model, processor: Processor, folder: Path, kind: str) -> None:
        self.model, self.processor, self.folder, self.kind = model, processor, folder, kind
        self.noun = NOUNS[kind]
        self.question = QUESTIONS[self.noun]
        self.details: dict[str, object] = {}

    def prompt(self, *indices: int, system: str | None = None) -> Prompt:
        """The question about the scenes or soundscapes with these numbers."""
        if self.kind == "image":
            opened = [open_image(scene(index)[0]) for index in indices]
            return self.processor.prompt(self.question, images=opened, system=system)
        heard = [open_audio(soundscape(index)[0]) for index in indices]
        return self.processor.prompt(self.question, audio=heard, system=system)

    def findings(self) -> list[Finding]:
        """All rows; where the template loses the picture or sound, no others are possible."""
        template = self._template()
        if template.status == BROKEN:
            return [template]
        rows = [template, *self.levels(), self._features(), self._logits(), self._relevance()]
        if self.kind == "image":
            rows.append(self._differ("two pictures", lambda i: self.prompt(5, i), "second pictures", SECOND_IGNORED))
        rows.append(self._blank())
        orders = ("Answer in French.", "Answer in capital letters.", "You are a pirate.", "Answer with a number.")
        rows.append(
            self._differ("system prompt", lambda i: self.prompt(0, system=orders[i]), "system prompts", SYSTEM_LOST)
        )
        return rows

    def _template(self) -> Finding:
        """Whether the chat template has a place for the picture or sound, of the size that its features need."""
        name, fault = f"template, {self.noun}", f"the chat template loses the {self.noun}"
        try:
            prompt = self.prompt(0)
            self.model.embed(prompt)
        except PromptError as error:
            return Finding(name, BROKEN, f"{fault}: {error}", 0.0, fault)
        positions = int(self.model.modality(prompt).sum())
        self.details[f"{self.noun}_tokens"] = positions
        self.details[f"{self.noun}_template"] = self.processor.tokenizer.decode(prompt.input_ids.tolist())
        return Finding(name, WORKS, f"the {self.noun} has {positions} of the {len(prompt)} tokens of a prompt", 0.0)

    def levels(self) -> list[Finding]:
        """What the first layers get."""
        if self.kind == "audio":
            return [rules(self._array, self.folder, self.kind), pitches(self._array)]
        return [
            rules(self._array, self.folder, self.kind),
            channels(self._array),
            detail(self._array),
            orientation(self._change),
            *files(self._array),
        ]

    def _array(self, source: object) -> NDArray[np.float32]:
        """The levels that the model gets of one opened picture or sound."""
        media = {"images" if self.kind == "image" else "audio": [source]}
        prepared = self.processor.prepare(**media)  # type: ignore[arg-type]  # one of its two lists
        return np.asarray(prepared.arrays[LEVELS[self.kind]], dtype=np.float32)

    def _change(self, picture: object, other: object) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How much the features differ between two pictures (N,), and where they lie: x and y from 0 to 1 (N, 2)."""
        prompts = [self.processor.prompt(self.question, images=[one]) for one in (picture, other)]  # type: ignore[list-item]  # opened pictures
        features = [np.array(self.model.embed(prompt)[0].astype(mx.float32)) for prompt in prompts]
        sizes, points = list[float](), list[tuple[float, float]]()
        for span in self.model.spans(prompts[0]):
            grid = span.grid
            if span.kind != "image" or grid is None:
                continue
            left, top, right, bottom = grid.box
            for row in range(grid.rows):
                for column in range(grid.columns):
                    position = span.start + row * (grid.columns + grid.row_end) + column
                    sizes.append(float(np.linalg.norm(features[0][position] - features[1][position])))
                    x = left + (column + 0.5) / grid.columns * (right - left)
                    y = top + (row + 0.5) / grid.rows * (bottom - top)
                    points.append((x, y))
        return np.array(sizes), np.array(points).reshape(-1, 2)

    def _features(self) -> Finding:
        """Whether the features of two different inputs differ, and are finite."""
        name, fault = f"features of the {self.noun}", f"the features do not depend on the {self.noun}"
        first, second = (self._stands(index) for index in (0, 1))
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            return Finding(name, BROKEN, "the features are not finite", 0.0, "the features are not finite")
        count = min(len(first), len(second))
        apart = float(np.linalg.norm(first[:count] - second[:count]) / max(1e-12, np.linalg.norm(first[:count])))
        if apart <= SAME:
            return Finding(name, BROKEN, f"{fault}: two differ by {apart:.1g} of their length", 0.0, fault)
        return Finding(name, WORKS, f"two {self.noun}s differ by {apart:.2g} of the length of their features", 0.0)

    def _stands(self, index: int) -> NDArray[np.float32]:
        """The features (positions, D) that stand for an input in the prompt."""
        prompt = self.prompt(index)
        embeds = np.array(self.model.embed(prompt)[0].astype(mx.float32))
        return embeds[self.model.modality(prompt)]

    def _logits(self) -> Finding:
        fault = f"the {self.noun} does not reach the logits"
        return self._differ(f"{self.noun} used", self.prompt, f"{self.noun}s", fault)

    def _blank(self) -> Finding:
        def make(index: int) -> Prompt:
            return self.model.blank(self.prompt(0)) if index == 0 else self.prompt(index)

        noun = "a blank picture" if self.kind == "image" else "silence"
        return self._differ(noun, make, f"{noun} and others", f"{noun} is as any {self.noun}")

    def _differ(self, name: str, make: Make, inputs: str, fault: str) -> Finding:
        """Whether four prompts, each made and run twice, have log-probabilities of their own."""
        try:
            rows = [log_softmax(self._last(make(index))) for index in range(4) for _ in range(2)]
        except PromptError as error:
            return unclear(name, str(error).rstrip("."))
        likely = np.argsort(-np.mean(rows, axis=0))[:100]
        apart = np.array([[float(np.abs(a[likely] - b[likely]).mean()) for b in rows] for a in rows])
        within = max(apart[i, i + 1] for i in range(0, 8, 2))
        between = [apart[i, j] for i in range(8) for j in range(i) if i // 2 != j // 2]
        luck = pairing(apart)
        if max(between) <= max(SAME, within):
            return Finding(name, BROKEN, f"{fault}: the logits of different {inputs} are the same", 0.0, fault)
        if luck > LIMIT:
            return unclear(name, f"the logits of {inputs} differ no more than by luck")
        reason = f"the log-probabilities of {inputs} differ by {np.mean(between):.2g}, those of repeats by {within:.2g}"
        return Finding(name, WORKS, reason, luck)

    def _last(self, prompt: Prompt) -> NDArray[np.float32]:
        """The logits (V,) of the first token of an answer. Raises `NumericalError`."""
        logits = np.array(self.model.logits(prompt)[-1])
        if not np.isfinite(logits).all():
            raise NumericalError("The logits are not finite: check the weights.")
        return logits

    def _relevance(self) -> Finding:
        """Whether the answer rests on the picture or sound; which share of its relevance, on average."""
        name, fault = "relevance", f"nothing of an answer rests on the {self.noun}"
        prompts = [self.prompt(index) for index in range(3)]
        shares = [reliance(relevance(self.model, prompt), self.model.modality(prompt)) for prompt in prompts]
        share = self.details[f"{self.noun}_reliance"] = float(np.mean(shares))
        if share < LEAST_RELIANCE:
            return Finding(name, BROKEN, f"{fault}: {share:.1g} of its relevance", 0.0, fault)
        return Finding(name, WORKS, f"{100 * share:.0f} % of the relevance of first words is on the {self.noun}", 0.0)
