"""The sound demo: a `qwen2_audio` that listens to synthesised sounds."""

import json
import random
from pathlib import Path

import demo_folder
import mlx.core as mx
import numpy as np
from demo_folder import IDS, MEDIA, TEXT
from demo_stage import Stage, track

from lime_mlx.media.mel import Mel
from lime_mlx.models.qwen2_audio import Qwen2Audio
from lime_mlx.scenes import SOUND_PROMPTS as PROMPTS
from lime_mlx.scenes import SOUNDS, SoundEvent, SoundScene, answer, caption, make_sound, questions
from lime_mlx.scenes.habits import EMPTY
from lime_mlx.scenes.talk import NUMBERS

__all__ = ["HEAVY", "KINDS", "PROMPTS", "answer", "caption", "questions"]

KINDS = SOUNDS.kinds
# Words by which an answer is right or wrong.
HEAVY = (*KINDS, *NUMBERS)
SECONDS, RATE, HOP, WINDOW, BINS = 6, 16_000, 320, 640, 64
FRAMES = SECONDS * RATE // HOP
TOKENS = FRAMES // 4  # the tower halves the frames twice
SPECIAL = ["<pad>", "<s>", "</s>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
BEFORE, AFTER = "USER: <|audio_bos|>", "<|audio_eos|>\n"  # the sound stands between them
CHAT = demo_folder.template("audio", "<|audio_bos|><|AUDIO|><|audio_eos|>")
STAGES = (
    Stage("hearing", "uncorrelated", 16_000, 1000, 32, 1e-3, 0),
    Stage("speech", "uncorrelated", 16_000, 1100, 24, 1e-3, 3),
    Stage("talk", "uncorrelated", 12_000, 300, 24, 7e-4, 1, free=4, empty=600),
    Stage("detail", "uncorrelated", 12_000, 500, 24, 6e-4, 0, free=4, empty=600, hard=True, second=0.67),
    Stage("habit", "skewed", 4_000, 500, 24, 5e-4, 1, free=3, unseen=0.1, empty=150, hard=True, second=0.2),
)
# Found on validation sounds (docs/demo.md).
OWN = {"steps": 2, "lr": 0.2, "kl": 0.1, "words": "flagged", "threshold": 0.43}
METHODS = {
    "yesno": {"threshold": 1.703},
    "kvsmooth": {"ref": 0.3, "clip": 0.1, "smooth": "v"},
    "dleaf": {"gamma": 0.3},
    "aad": {"alpha": 0.25},
    "m3id": {"decay": 0.1},
    "heads": {"strength": 1.0},
    "pai": {"alpha": 0.1, "guidance": 1.5},
}
LIME = {
    "fast": OWN,
    "exact": OWN,
    "methods": METHODS,
    "detector": {
        "weights": {"share": -0.1432, "positive": -2.496, "peak": -1.227, "certainty": -1.598},
        "intercept": 6.105,
        "threshold": 0.2703,
        "asking": {"relevance": 0.903, "margin": -0.7819, "intercept": 4.389, "lowest": 0.2645},
    },
}
AUDIO = {
    "model_type": "qwen2_audio_encoder",
    "num_mel_bins": BINS,
    "d_model": 128,
    "encoder_layers": 4,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 384,
    "max_source_positions": FRAMES // 2,
    "scale_embedding": False,
    "activation_function": "relu",
}
EXTRACTOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": BINS,
    "sampling_rate": RATE,
    "hop_length": HOP,
    "n_fft": WINDOW,
    "chunk_length": SECONDS,
    "n_samples": SECONDS * RATE,
    "nb_max_frames": FRAMES,
    "padding_side": "right",
    "padding_value": 0.0,
    "dither": 0.0,
    "return_attention_mask": True,
    "processor_class": "Qwen2AudioProcessor",
}


def config(vocabulary: int) -> dict:
    return {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "model_type": "qwen2_audio",
        "audio_token_index": MEDIA,
        **IDS,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "lime": LIME,
        "text_config": {"model_type": "qwen2", **TEXT, "use_sliding_window": False, "vocab_size": vocabulary},
        "audio_config": AUDIO,
    }


def save(folder: Path, tokenizer) -> None:
    named = {"audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
    files = {
        "config.json": config(tokenizer.get_vocab_size()),
        "preprocessor_config.json": EXTRACTOR,
        "processor_config.json": {"processor_class": "Qwen2AudioProcessor", **named},
    }
    demo_folder.save(folder, tokenizer, CHAT, files, named)


def sentences():
    rng = random.Random("sentences")
    for seed in range(400):
        _, kinds = SOUNDS.choose(random.Random(seed), "uncorrelated")
        scene = _silent(seed, "uncorrelated", [(kind, start, start + 1.0) for start, kind in enumerate(kinds)])
        yield from (f"\n{rng.choice(PROMPTS)} ASSISTANT: {caption(scene, rng)}", "USER: ")
        for question in questions(scene, "random", rng):
            yield f"\n{question.text} ASSISTANT: {answer(question)}"
        yield from demo_folder.talks(scene, rng)
        yield from demo_folder.talks(_silent(seed, EMPTY, ()), rng)
    yield from demo_folder.words((*KINDS, *NUMBERS))


def _silent(seed: int, regime: str, events, unseen: str | None = None) -> SoundScene:
    """A scene without its samples; events: kind, start and stop of each."""
    told = tuple(SoundEvent(*event) for event in events)
    return SoundScene(seed, regime, SOUNDS.settings[0], told, np.empty(0, np.float32), unseen)


class Pool:
    """Sounds made once and kept as log-mel bytes, with the kinds at every moment and what sounds."""

    def __init__(self, stage: Stage, folder: Path):
        file = folder / f"sound-{stage.pool}"
        if not file.exists():
            self._make(stage, file)
        with np.load(file) as stored:
            self.mel, self.labels = stored["mel"], stored["labels"]
            kept = json.loads(str(stored["scenes"]))
        self.scenes = [
            _silent(seed, regime, events, unseen)
            for (regime, seed), (events, unseen) in zip(stage.seeds(), kept, strict=True)
        ]

    @staticmethod
    def _make(stage: Stage, file: Path) -> None:
        count, listen = len(stage.seeds()), Mel.from_dict(EXTRACTOR)
        mel = np.empty((count, BINS, FRAMES), np.uint8)
        labels = np.zeros((count, TOKENS, len(KINDS)), np.uint8)
        kept = []
        for row, (regime, seed) in enumerate(track(stage.seeds(), f"making {stage.regime} sounds")):
            scene = make_sound(seed, regime, SECONDS, stage.unseen)
            features, _ = listen(scene.samples)
            mel[row] = np.clip(np.round((features + LOWEST) * STEPS), 0, 255)
            kept.append(([(event.kind, event.start, event.stop) for event in scene.events], scene.unseen))
            for event in scene.events:
                start, stop = (round(edge / SECONDS * TOKENS) for edge in (event.start, event.stop))
                labels[row, start : max(stop, start + 1), KINDS.index(event.kind)] = 1
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(part, mel=mel, labels=labels, scenes=json.dumps(kept))
        part.rename(file)

    def media(self, seeds: np.ndarray) -> mx.array:
        """(N, bins, frames), as the processor gives it but for the rounding."""
        return mx.array(self.mel[seeds].astype(np.float32) / STEPS - LOWEST)


# Log-mel features lie between -1.5 and 1.5 or a little over: bytes in steps of 0.0125.
LOWEST, STEPS = 1.5, 80.0


def Model(config: dict) -> Qwen2Audio:  # noqa: N802
    """The model with the head tied to the embeddings, which the hearing stage brings near the sounds."""
    model = Qwen2Audio(config)
    model.language_model.pop("lm_head", None)
    return model


def tower(model: Qwen2Audio):
    return model.audio_tower


def features(model: Qwen2Audio, mel: mx.array) -> mx.array:
    """What the tower and the projector make of the sound, (N, TOKENS, D)."""
    return model.features(mel, mx.full((mel.shape[0],), FRAMES))


def stored(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The weights in PyTorch's layout, as float16, with a head: transformers ties none in this family."""
    weights = {**weights, "language_model.lm_head.weight": weights["language_model.model.embed_tokens.weight"]}
    return {
        name: (value.swapaxes(1, 2) if "audio_tower.conv" in name and value.ndim == 3 else value).astype(mx.float16)
        for name, value in weights.items()
    }
