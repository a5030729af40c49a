"""Detectors of others: each number against the attention of a whole forward, or by hand."""

import mlx.core as mx
import numpy as np
import pytest

from lime_mlx import load
from lime_mlx.probes.attention import WholeAttention
from lime_mlx.probes.published import attention_signals, middle_layers, observed
from lime_mlx.prompt import Grid, Span
from lime_mlx.scenes import PROMPTS, make_scene
from lime_mlx.session import Session

ONE_ROW = [Span("audio", 1, 6)]
SQUARE = [Span("image", 1, 26, grid=Grid(5, 5))]


def signals(row, spans=ONE_ROW, prompt=7):
    """Of one head in each of two layers; the first position and those behind the input get the rest."""
    count = sum(map(len, spans))
    attention = np.zeros((2, 1, prompt + 1), dtype=np.float32)
    attention[:, 0, 1 : 1 + count] = row
    modality = np.zeros(prompt, dtype=bool)
    modality[1 : 1 + count] = True
    return attention_signals(attention, modality, spans)


def test_svar_and_pas_are_those_of_a_whole_forward():
    model, processor = load("demo")
    prompt = processor.prompt(PROMPTS[0], images=[make_scene(100_000, "ordinary").image])
    session = Session.open(model, prompt)
    for token in (40, 60, 80):
        session.append(token)
    step = observed(session)
    memory = [WholeAttention() for _ in session.decoder.layers]
    hidden = session.decoder(session.embeds, memory, positions=session.positions)
    rows = np.stack([np.array(layer.weights)[:, -1] for layer in memory])
    assert step.attention == pytest.approx(rows, abs=1e-5)
    assert step.logits == pytest.approx(np.array(session.decoder.head(hidden[0, -1])), abs=1e-3)
    assert step.hidden.shape == (len(memory), session.embeds.shape[2])
    last = session.decoder.model.norm(mx.array(step.hidden[-1]))
    assert np.array(last) == pytest.approx(np.array(hidden[0, -1]), abs=1e-4)
    found = attention_signals(step.attention, session.modality, model.spans(prompt))
    seen = rows.mean(axis=1)[:, : len(prompt)] @ session.modality
    assert found["svar"] == pytest.approx(seen[middle_layers(len(rows))].sum(), abs=1e-5)
    assert found["pas"] == pytest.approx(rows[0].mean(axis=0)[len(prompt) :].sum(), abs=1e-5)
    assert found["last"] == pytest.approx(seen[-1], abs=1e-5)
    assert not session.hidden_observers and not session.observers


def test_the_middle_layers_are_5_to_18_of_32():
    assert middle_layers(32) == slice(5, 19)
    assert middle_layers(4) == slice(1, 3)
    assert middle_layers(1) == slice(0, 1)


def test_entropy_is_between_one_place_and_all_alike():
    assert signals([0, 0.4, 0, 0, 0])["entropy"] == 0
    assert signals([0.1] * 5)["entropy"] == pytest.approx(1)
    assert signals([0.3, 0.3, 0, 0, 0])["entropy"] == pytest.approx(np.log(2) / np.log(5))
    assert signals([0.0] * 5)["entropy"] == 0


def test_dispersion_is_what_lies_outside_of_the_largest_blob():
    assert signals([0, 0.4, 0, 0, 0])["dispersion"] == 0
    assert signals([0.2, 0.6, 0, 0, 0])["dispersion"] == pytest.approx(0.25 * (1 + 0) / 2)
    assert signals([0.0] * 5)["dispersion"] == 1


def test_blobs_are_neighbours_in_the_picture():
    together, apart, wrapped = np.zeros((3, 5, 5))
    together[1:3, 1] = 0.5  # two positions are the 10 % with the most attention
    apart[0, 0] = apart[4, 4] = 0.5
    wrapped[0, 4] = wrapped[1, 0] = 0.5  # next to each other in the sequence, not in the picture
    scores = [signals(row.ravel(), SQUARE, 27)["dispersion"] for row in (together, apart, wrapped)]
    assert scores == pytest.approx([0, 0.25, 0.25])
