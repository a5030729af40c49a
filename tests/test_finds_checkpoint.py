"""Checkpoints that ask for too much, or are wrong in ways that once were no sentence."""

import json
import os
import resource
import shutil
import struct
import time

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lime_mlx import limits
from lime_mlx.checkpoint.files import header
from lime_mlx.checkpoint.hub import demos
from lime_mlx.checkpoint.load import load_model, load_processor, locate
from lime_mlx.cli import main
from lime_mlx.errors import CheckpointError, LimeError, MediaError
from lime_mlx.media.image import open_pictures
from lime_mlx.media.patches import Patches
from lime_mlx.methods import parse_method

BASE = demos()["picture"]
CONFIG = json.loads((BASE / "config.json").read_text())


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(BASE, tmp_path / "model")


def change(folder, name, **changes):
    path = folder / name
    stored = json.loads(path.read_text()) if path.is_file() else {}
    for key, value in changes.items():
        part = stored
        *parents, last = key.split("__")
        for parent in parents:
            part = part[parent]
        part[last] = value
    path.write_text(json.dumps(stored))


def sentence(action, *arguments):
    began = time.monotonic()
    with pytest.raises(LimeError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert time.monotonic() - began < 5 and "\n" not in message and len(message) < 700
    assert all(character.isprintable() for character in message)
    return message


def loaded(folder):
    load_model(folder)
    load_processor(folder).prompt("What is there?", [Image.new("RGB", (64, 64))])


BOMBS = {
    "text_config__num_hidden_layers": 1_000_000,
    "vision_config__num_hidden_layers": 65_536,
    "text_config__hidden_size": 1 << 40,
    "text_config__vocab_size": 1 << 60,
    "vision_config__image_size": 1_000_000,
    "text_config__num_attention_heads": 10**30,
    "text_config__head_dim": 1 << 33,
}


@pytest.mark.parametrize("key", BOMBS)
def test_a_size_beyond_the_limit_is_refused_at_once(folder, key):
    change(folder, "config.json", **{key: BOMBS[key]})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = sentence(loaded, folder)
    assert key.split("__")[1] in message and "limit" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_layers_may_be_as_many_as_the_limit_says():
    limits.LAYERS.check(limits.LAYERS.most, "layers")
    with pytest.raises(LimeError, match="layers is 1,025, and the limit of layers of a tower or decoder is 1,024"):
        limits.LAYERS.check(limits.LAYERS.most + 1, "layers")


@pytest.mark.parametrize("key", ["min_pixels", "max_pixels"])
def test_pixels_of_a_prepared_picture(key):
    with pytest.raises(CheckpointError, match=r"the limit of pixels of a picture that a model takes is 16,777,216"):
        Patches.from_dict({key: 10**9})


def test_pictures_add_up(monkeypatch):
    pictures = [Image.new("RGB", (100, 100))] * 12
    assert len(open_pictures(pictures)) == 12
    monkeypatch.setattr(limits, "OPENED_PIXELS", limits.Limit("pixels of all pictures", 50_000, "LIME_MLX_MAX_PIXELS"))
    with pytest.raises(MediaError, match="LIME_MLX_MAX_PIXELS raises it"):
        open_pictures(pictures)
    monkeypatch.setenv("LIME_MLX_MAX_PIXELS", "1000000")
    assert len(open_pictures(pictures)) == 12
    for wrong in ("-5", "many", "9" * 400, "\N{SUPERSCRIPT TWO}"):
        monkeypatch.setenv("LIME_MLX_MAX_PIXELS", wrong)
        assert limits.OPENED_PIXELS.value == 50_000


def test_steps_of_lime_are_bounded(folder):
    assert "from 1 to 1000" in sentence(parse_method, "lime:steps=1001")
    change(folder, "config.json", lime__fast__steps=10**6)
    run = ["generate", "examples/scene.png", "--model", str(folder), "--method", "lime", "--max-tokens", "1"]
    result = CliRunner().invoke(main, run)
    assert result.exit_code == 1 and "config.json has values for lime" in result.stderr


WRONG = {
    "heads that do not divide the width": {"text_config__num_attention_heads": 7, "text_config__head_dim": None},
    "heads of keys": {"text_config__num_key_value_heads": 3},
    "an eps as text": {"text_config__rms_norm_eps": "1e-5"},
    "an eps of a tower as text": {"vision_config__layer_norm_eps": "1e-5"},
    "an eps of NaN": {"text_config__rms_norm_eps": float("nan")},
    "a theta of 0": {"text_config__rope_theta": 0},
    "a theta below 0": {"text_config__rope_theta": -1.0},
    "a theta as a list": {"text_config__rope_theta": [1e4]},
    "heads as a fraction": {"text_config__num_attention_heads": 1.5},
    "layers below 0": {"text_config__num_hidden_layers": -1},
    "true layers": {"text_config__num_hidden_layers": True},
    "an activation as a list": {"text_config__hidden_act": ["silu"]},
    "a token beyond int32": {"image_token_index": 1 << 40},
    "a token of true": {"image_token_index": True},
    "layer types as a number": {"text_config__layer_types": 5},
    "too few layer types": {"text_config__layer_types": ["full_attention"]},
    "a model type with escapes": {"model_type": "\x1b[31mllava\x07"},
    "a long model type": {"model_type": "x" * 5000},
    "quantised by escapes": {"quantization_config": {"quant_method": "\x1b]0;title\x07" + "y" * 5000}},
    "a mode as a list": {"quantization": {"mode": ["affine"]}},
    "half a character": {"text_config__model_type": "\ud800"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_config_is_a_sentence(folder, name):
    change(folder, "config.json", **WRONG[name])
    sentence(loaded, folder)


@pytest.mark.parametrize("ends", [1 << 40, [2, 1 << 31], -1, True, 1.5, "2", [[2]]])
def test_ends_that_are_no_tokens(folder, ends):
    change(folder, "generation_config.json", eos_token_id=ends)
    assert "no token id" in sentence(loaded, folder)


@pytest.mark.parametrize("length", ["auto", None, [], 1e400, -5, {"a": 1}])
def test_a_longest_text_of_any_kind(folder, length):
    change(folder, "tokenizer_config.json", model_max_length=length)
    try:
        loaded(folder)
    except LimeError as error:
        message = str(error)
        assert "tokenizer" in message and "\n" not in message  # noqa: PT017


def test_deep_and_large_json(folder, monkeypatch):
    (folder / "preprocessor_config.json").write_text('{"a":' * 500 + "1" + "}" * 500)
    assert "limit of levels of JSON is 100" in sentence(loaded, folder)
    (folder / "preprocessor_config.json").write_text('{"a":' * 50_000)
    sentence(loaded, folder)
    (folder / "preprocessor_config.json").write_text("{}" + " " * 5000)
    monkeypatch.setattr(limits, "JSON_BYTES", limits.Limit("bytes of a JSON file", 1000))
    assert "limit of bytes of a JSON file" in sentence(load_processor, folder)


@pytest.mark.parametrize(
    "names", [[5], [None], [["a"]], [{"a": 1}], ["x" * 5000], ["../a"], [""], ["a\0b"], ["\x1b[2J"], ["a", 5]]
)
def test_an_index_of_what_is_no_file(folder, names):
    (folder / "model.safetensors").unlink()
    weight_map = {f"w{number}": name for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    sentence(load_model, folder)


@pytest.mark.parametrize(
    "name", ["x" * 5000, "~nobody-of-this-name/model", "a\0b", "\udcff", "\x1b[31m", "a/" + "b" * 300]
)
def test_names_of_models_that_no_folder_has(name):
    sentence(locate, name)
    result = CliRunner().invoke(main, ["generate", "-p", "hello", "--model", name])
    assert result.exit_code == 1 and "please report" not in result.stderr and "\x1b" not in result.stderr


def write(path, entries, body=b"", length=None):
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def tensor(start, stop, shape=None, kind="F32"):
    return {"dtype": kind, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


def test_ranges_that_tile_the_body_are_read(tmp_path):
    path = write(tmp_path / "a.safetensors", {"b": tensor(8, 16), "a": tensor(0, 8), "c": tensor(16, 16)}, bytes(16))
    assert header(path) == {"a": ("F32", 8), "b": ("F32", 8), "c": ("F32", 0)}
    assert header(BASE / "model.safetensors")


@pytest.mark.parametrize(
    ("entries", "body"),
    [
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12),
        ({"a": tensor(0, 8), "b": tensor(0, 8)}, 8),
        ({"a": tensor(4, 12)}, 12),
        ({"a": tensor(0, 8), "b": tensor(12, 16)}, 16),
        ({"a": tensor(0, 8)}, 12),
        ({"a": tensor(0, 8)}, 4),
        ({"a": tensor(8, 0, [2])}, 8),
        ({"a": tensor(0, 8, [3])}, 8),
        ({"a": tensor(0, 8, [-1, -2])}, 8),
        ({"a": tensor(0, 8, [2.0])}, 8),
        ({"a": tensor(0, 8, kind="F99")}, 8),
        ({"a": tensor(0, 8, kind=["F32"])}, 8),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}}, 8),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": "08"}}, 8),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [False, 8]}}, 8),
        ({"a": None}, 0),
        ({"a\x1b[2J": tensor(0, 8, [3])}, 8),
        ("[]", 0),
        ("5", 0),
        ("{" * 5000, 0),
        ('{"a":' * 5000 + "1" + "}" * 5000, 0),
        ("\xff", 0),
    ],
)
def test_ranges_that_do_not(tmp_path, entries, body):
    sentence(header, write(tmp_path / "a.safetensors", entries, bytes(body)))


def test_shifted_weights_are_no_model(folder):
    """The same tensors, each 4 bytes later: every shape fits, and every number is wrong."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + length])
    for entry in entries.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [offset + 4 for offset in entry["data_offsets"]]
    write(path, entries, b"\0\0\0\0" + data[8 + length :])
    assert "does not begin where" in sentence(load_model, folder)


def test_arrays_without_axes(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + length])
    names = [name for name in entries if name != "__metadata__"]
    write(path, {name: tensor(4 * i, 4 * i + 4, []) for i, name in enumerate(names)}, bytes(4 * len(names)))
    assert "do not fit config.json" in sentence(load_model, folder)


def test_escapes_in_names_of_tensors_do_not_reach_the_terminal(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    text = data[8 : 8 + length].replace(
        b"language_model.model.norm.weight", b"\\u001b[2Jmodel.norm.weight" + b"x" * 5000
    )
    text = text if b"\\u001b" in text else text.replace(b'norm.weight"', b'norm\\u001b[2J.weight"', 1)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    result = CliRunner().invoke(main, ["generate", "-p", "hello", "--model", str(folder)])
    assert result.exit_code == 1 and "\x1b" not in result.stderr and len(result.stderr) < 1600


def test_a_config_that_is_a_pipe_or_a_folder(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    sentence(load_model, folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    sentence(load_model, folder)


def test_zero_dimensional_inputs():
    from lime_mlx.errors import PromptError
    from lime_mlx.media.audio import open_audio
    from lime_mlx.media.image import open_image
    from lime_mlx.prompt import Prompt

    for action in (
        lambda: open_image(np.array(5, dtype=np.uint8)),
        lambda: open_audio((np.float32(1), 16_000)),
        lambda: open_audio((np.zeros(99, np.float32), np.zeros(3))),
        lambda: open_audio((np.zeros(99, np.float32), float("nan"))),
    ):
        with pytest.raises(MediaError):
            action()
    with pytest.raises(PromptError):
        Prompt(np.array(5))
