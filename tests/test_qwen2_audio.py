"""Qwen2-Audio beyond its parity cases: the tower on its own, the processor, whole checkpoints, and what is refused."""

import json
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from checkpoints import (
    AUDIO,
    BANDS,
    LLAVA,
    QWEN2_AUDIO,
    SECONDS,
    merged,
    random_weights,
    text_only,
    write,
    write_audio,
    write_tokenizer,
)
from click.testing import CliRunner
from helpers import distance
from mlx.utils import tree_flatten
from PIL import Image

from lime_mlx import generate, load
from lime_mlx.checkpoint.load import build, load_model, load_processor
from lime_mlx.cli import main
from lime_mlx.errors import CheckpointError, MediaError, PromptError
from lime_mlx.media.audio import RATE, Sound
from lime_mlx.models.towers.whisper import pooled, positions
from lime_mlx.prompt import Prompt

ASKED = "What do you hear?"
FRAMES = 100 * SECONDS
POSITIONS = "audio_tower.embed_positions.weight"


def sound(seconds: float, seed: int = 0) -> Sound:
    count = round(seconds * RATE)
    noise = np.random.default_rng(seed).standard_normal(count) / 10
    return Sound((np.sin(np.arange(count) / (4 + seed)) / 2 + noise).clip(-1, 1).astype(np.float32), RATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_audio(tmp_path_factory.mktemp("qwen2_audio") / "model")


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder)


# --- the tower


@cache
def tower_input() -> tuple[mx.array, np.ndarray]:
    return mx.array(np.random.default_rng(0).standard_normal((4, BANDS, FRAMES)).astype(np.float32)), np.array(
        [7, FRAMES, 64, 33]
    )


def test_a_batch_gives_what_each_sound_gives_alone(loaded):
    """Also without the frames that only padding sees, as the model itself leaves them out."""
    model, _ = loaded
    mel, valid = tower_input()
    batch = model.features(mel, mx.array(valid))
    for row, frames in enumerate(valid.tolist()):
        count = ((frames - 1) // 2 - 1) // 2 + 1
        assert pooled(frames) == count
        alone = model.features(mel[row : row + 1, :, : 2 * positions(frames) + 1], mx.array([frames]))
        assert distance(alone[0, :count], batch[row, :count]) < 1e-6
        changed = mel[row : row + 1] + 9 * (mx.arange(FRAMES) > 2 * positions(frames))
        assert distance(model.features(changed, mx.array([frames]))[0, :count], batch[row, :count]) < 1e-6


def test_features_can_be_trained(loaded):
    """Gradients for the weights, through the mask, equal finite differences; the positions are not trained."""
    model, _ = loaded
    mel, valid = tower_input()
    weights = dict(tree_flatten(model.audio_tower.trainable_parameters()))
    assert "embed_positions.weight" not in weights
    goal = mx.array(np.random.default_rng(1).standard_normal((4, FRAMES // 4, 64)).astype(np.float32))
    seen = (mx.arange(FRAMES // 4) < mx.array(pooled(valid))[:, None])[..., None]

    def loss(values):
        model.audio_tower.load_weights(list(values.items()), strict=False)
        return (seen * model.features(mel, mx.array(valid)) * goal).sum()

    slopes = mx.grad(loss)(weights)
    for name in ("conv1.weight", "conv2.bias", "layers.0.self_attn.k_proj.weight", "layers.1.fc1.weight"):
        way = mx.array(np.random.default_rng(2).standard_normal(weights[name].shape).astype(np.float32))
        step = 1e-2 / mx.linalg.norm(way.flatten())
        ends = [loss({**weights, name: weights[name] + sign * step * way}) for sign in (1, -1)]
        along = ((ends[0] - ends[1]) / (2 * step)).item()
        assert (slopes[name] * way).sum().item() == pytest.approx(along, rel=2e-2), name
    loss(weights)


def test_positions_that_are_left_out_are_sinusoids(tmp_path):
    weights = random_weights(QWEN2_AUDIO)
    del weights[POSITIONS]
    model = load_model(write(tmp_path, QWEN2_AUDIO, weights))
    table = np.array(model.audio_tower.embed_positions.weight)
    length, width = table.shape
    for place in (0, 1, length - 1):
        for pair in range(width // 2):
            angle = place / 10000 ** (pair / (width // 2 - 1))
            assert table[place, pair] == pytest.approx(np.sin(angle), abs=1e-5)
            assert table[place, width // 2 + pair] == pytest.approx(np.cos(angle), abs=1e-5)


@pytest.mark.parametrize("head", [True, False], ids=["its own", "none"])
def test_the_head_is_that_of_the_weights(tmp_path, head):
    """tie_word_embeddings counts only where the weights have no head: transformers 5 does not tie this family."""
    config = merged(QWEN2_AUDIO, text_config={**QWEN2_AUDIO["text_config"], "tie_word_embeddings": True})
    weights = random_weights(config)
    own = weights["language_model.lm_head.weight"]
    if not head:
        del weights["language_model.lm_head.weight"]
    decoder = load_model(write(tmp_path, config, weights)).language_model
    x = mx.random.normal((1, own.shape[1]))
    assert distance(decoder.head(x), x @ (own if head else decoder.model.embed_tokens.weight).T) < 1e-6


# --- the processor


@pytest.mark.parametrize("seconds", [(1.0,), (0.025,), (0.3, 0.97), (0.501, 0.13, 1.0)], ids=str)
def test_transformers_says_the_same(folder, seconds):
    """Token ids, in the template that transformers has for folders without one, mel frames and masks."""
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    sounds = [sound(length, seed) for seed, length in enumerate(seconds)]
    processor = load_processor(folder)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    theirs = Qwen2AudioProcessor(extractor, processor.tokenizer._tokenizer)
    for system in (None, "Say little."):
        content = [*({"type": "audio"} for _ in sounds), {"type": "text", "text": ASKED}]
        messages = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": content}]
        written = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        wanted = theirs(text=written, audio=[s.samples for s in sounds], sampling_rate=RATE, return_tensors="np")
        prompt = processor.prompt(ASKED, audio=sounds, system=system)
        assert prompt.input_ids.tolist() == wanted["input_ids"][0].tolist()
    np.testing.assert_allclose(prompt.media["input_features"], wanted["input_features"], atol=1e-5)
    np.testing.assert_array_equal(prompt.media["feature_attention_mask"], wanted["feature_attention_mask"])


def test_the_places_of_two_sounds(loaded):
    """Each is its own span, in the order given; the markers around it count as sound."""
    model, processor = loaded
    first, second = sound(0.5), sound(0.25, seed=1)
    prompt = processor.prompt(ASKED, audio=[first, second])
    assert [(span.kind, len(span)) for span in model.spans(prompt)] == [("audio", 12), ("audio", 6)]
    assert model.modality(prompt).sum() == 12 + 6 + 4
    embeds, places = np.array(model.embed(prompt)[0]), prompt.input_ids == AUDIO
    alone = [
        np.array(model.embed(Prompt(p.input_ids, p.media))[0])[p.input_ids == AUDIO]
        for p in (processor.prompt(ASKED, audio=[heard]) for heard in (first, second))
    ]
    assert distance(embeds[places], np.concatenate(alone)) < 1e-6
    swapped = model.embed(processor.prompt(ASKED, audio=[second, first]))
    assert distance(np.array(swapped[0])[places], embeds[places]) > 0.1


def test_where_a_sound_stands_can_be_said(loaded):
    model, processor = loaded
    prompt = processor.prompt("<|audio_bos|><|AUDIO|><|audio_eos|>Is that a dog?", audio=[sound(0.5)])
    assert [len(span) for span in model.spans(prompt)] == [12]


def test_another_rate_is_resampled(loaded):
    _, processor = loaded
    wave = sound(0.5)
    twice = Sound(np.repeat(wave.samples, 2), 2 * RATE)
    prompts = [processor.prompt(ASKED, audio=[heard]) for heard in (wave, twice)]
    assert prompts[0].input_ids.tolist() == prompts[1].input_ids.tolist()


def test_one_place_of_a_sound_is_a_twenty_fifth_of_a_second(loaded):
    model, processor = loaded
    prompt = processor.prompt(ASKED, audio=[sound(0.3), sound(0.6)])
    assert [span.seconds for span in model.spans(prompt)] == [pytest.approx(0.04)] * 2
    assert [span.source for span in model.spans(prompt)] == [0, 1]
    assert [span.seconds for span in model.spans(Prompt(prompt.input_ids, prompt.media))] == [None] * 2


# --- whole checkpoints


@pytest.mark.parametrize("method", ["none", "lime:words=all", "lime:mode=exact,steps=2", "lime:rules=mlplrp,words=all"])
def test_an_answer_about_two_sounds(loaded, method):
    wave = sound(0.3)
    answer = generate(*loaded, ASKED, audio=[wave, (sound(0.6).samples, RATE)], method=method, max_tokens=4)
    assert len(answer.tokens) == 4
    assert all(0 < reliance < 1 for reliance in answer.reliance)


def test_exact_lime_with_and_without_checkpoints(loaded):
    answers = [
        generate(
            *loaded,
            ASKED,
            audio=sound(0.4),
            method=f"lime:mode=exact,steps=3,lr=0.05,checkpoint={way}",
            max_tokens=4,
            relevance=True,
        )
        for way in ("on", "off")
    ]
    assert answers[0].tokens == answers[1].tokens
    for on, off in zip(*(answer.relevance for answer in answers), strict=True):
        assert distance(on, off) < 1e-3


def test_the_sound_is_heard(loaded):
    """Another sound, other logits; the same, the same."""
    model, processor = loaded
    logits = [model.logits(processor.prompt(ASKED, audio=[sound(0.5, seed)]))[-1] for seed in (0, 1, 0)]
    assert distance(logits[0], logits[1]) > 1e-3
    assert mx.array_equal(logits[0], logits[2])


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    file = tmp_path_factory.mktemp("sounds") / "two.wav"
    soundfile.write(file, np.stack([sound(0.5).samples] * 2, axis=1), RATE)
    return str(file)


def test_a_file_from_the_command_line(folder, recording):
    result = CliRunner().invoke(
        main, ["generate", "--model", str(folder), "--audio", recording, "--max-tokens", "3", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["tokens"]) == 3
    assert "channels" in result.stderr.splitlines()[0]


# --- what is refused


def test_a_model_takes_what_it_takes(folder, loaded, tmp_path, recording):
    picture = Image.new("RGB", (30, 30))
    with pytest.raises(PromptError, match="takes sounds, but no pictures"):
        generate(*loaded, ASKED, image=picture)
    write(tmp_path, LLAVA, random_weights(LLAVA))
    write_tokenizer(tmp_path)
    with pytest.raises(PromptError, match="takes pictures, but no sounds"):
        generate(*load(tmp_path), ASKED, audio=recording)
    result = CliRunner().invoke(main, ["generate", "--model", str(tmp_path), "--audio", recording])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "takes pictures, but no sounds" in result.stderr


@pytest.mark.parametrize(("seconds", "said"), [(1.001, "1.01 s"), (42.5, "42.5 s")])
def test_a_sound_that_is_too_long(loaded, seconds, said):
    with pytest.raises(MediaError, match=f"The sound is {said} long, and this model hears at most 1 s; cut it."):
        generate(*loaded, ASKED, audio=sound(seconds))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: Prompt(p.input_ids), "a place for a sound, but no sound was given"),
        (
            lambda p: Prompt(p.input_ids[p.input_ids != AUDIO], p.media),
            "room for 0 audio tokens, but the audio gives 5",
        ),
        (lambda p: Prompt(np.append(p.input_ids, AUDIO), p.media), "room for 6 audio tokens, but the audio gives 5"),
        (
            lambda p: Prompt(p.input_ids, {**p.media, "input_features": p.media["input_features"][:, :-1]}),
            r"input_features must have shape \(N, 16, 100\), got \(1, 15, 100\)",
        ),
        (
            lambda p: Prompt(p.input_ids, {**p.media, "input_features": np.zeros((1, BANDS, 101))}),
            r"input_features must have shape \(N, 16, 100\), got \(1, 16, 101\)",
        ),
        (
            lambda p: Prompt(p.input_ids, {**p.media, "feature_attention_mask": np.ones((2, 100))}),
            r"feature_attention_mask must have shape \(1, 100\), as the frames, got \(2, 100\)",
        ),
    ],
)
def test_sounds_that_do_not_fit_the_prompt(loaded, change, message):
    model, processor = loaded
    prompt = processor.prompt(ASKED, audio=[sound(0.21)])
    with pytest.raises(PromptError, match=message):
        model.embed(change(prompt))


TOWER, TEXT = QWEN2_AUDIO["audio_config"], QWEN2_AUDIO["text_config"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_config": {**TOWER, "model_type": "whisper"}}, "has a 'whisper' tower; only qwen2_audio_encoder"),
        ({"audio_config": {**TOWER, "activation_function": "mish"}}, "the activation 'mish'; supported: .*gelu"),
        ({"audio_config": {**TOWER, "encoder_attention_heads": 5}}, "32 wide, which cannot be divided by .* 5 heads"),
        ({"text_config": {**TEXT, "model_type": "mamba"}}, "a 'mamba' text part; supported: llama, mistral, qwen2"),
        ({"audio_token_index": "<|AUDIO|>"}, "audio token of config.json is '<|AUDIO|>', which is no token id"),
    ],
)
def test_configs_that_are_not_built(changes, message):
    with pytest.raises(CheckpointError, match=message.replace("|", r"\|")):
        build(merged(QWEN2_AUDIO, **changes))


@pytest.mark.parametrize(
    ("settings", "found"), [({"feature_size": 80}, "80 bands and 100"), ({"chunk_length": 2}, "16 bands and 200")]
)
def test_frames_that_the_model_does_not_take(tmp_path, settings, found):
    write_audio(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    with pytest.raises(CheckpointError, match=f"makes {found} frames of a sound, .* takes 16 and 100"):
        load_processor(tmp_path)


def test_a_text_only_conversion(tmp_path):
    weights = {f"language_model.{name}": value for name, value in text_only(random_weights(QWEN2_AUDIO)).items()}
    with pytest.raises(CheckpointError, match="text-only conversion of a model that reads pictures or sound"):
        load_model(write(tmp_path, QWEN2_AUDIO, weights))
