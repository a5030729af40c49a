"""lime-mlx models, and the memory that weights need."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import huggingface_hub
import mlx.core as mx
import pytest
from checkpoints import LLAVA, TEXT, merged, quantized, random_weights, text_only, write, write_tokenizer
from click.testing import CliRunner
from mlx.utils import tree_flatten

from lime_mlx import backend
from lime_mlx.checkpoint.catalog import how_it_fits
from lime_mlx.checkpoint.files import header, held_bytes
from lime_mlx.checkpoint.load import held, load_model, read_weights
from lime_mlx.cli import main
from lime_mlx.cli import models as models_command
from lime_mlx.errors import BackendError
from lime_mlx.models import FAMILIES, family, takes, tower_type
from lime_mlx.models.base import Model
from lime_mlx.settings import set_default_model

COMMIT, EARLIER = "a" * 40, "b" * 40
HEAD = "language_model.lm_head"
SCAN = huggingface_hub.scan_cache_dir


def cast(weights, dtype):
    return {name: array.astype(dtype) for name, array in weights.items()}


def packed(weights, **options):
    return merged(LLAVA, quantization=options), quantized(LLAVA, weights, **options)


@pytest.fixture(scope="module")
def weights():
    return random_weights(LLAVA)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, weights):
    """A cache of the Hub, with models that are whole, partial, damaged or of no use."""
    home = tmp_path_factory.mktemp("hub")

    def snapshot(name, commit=COMMIT, ref="main"):
        repository = home / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "blobs").mkdir(exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
        folder = repository / "snapshots" / commit
        write_tokenizer(folder)
        return folder

    write(snapshot("me/brain"), LLAVA, cast(weights, mx.bfloat16), shards=2)
    write(snapshot("me/half"), LLAVA, cast(weights, mx.float16))
    write(snapshot("me/packed"), *packed(weights, group_size=32, bits=4))
    mixed = {"group_size": 32, "bits": 4, "mode": "affine", HEAD: {"group_size": 32, "bits": 6}}
    write(snapshot("me/mixed"), merged(LLAVA, quantization=mixed), weights)
    write(snapshot("me/small-float"), *packed(weights, mode="mxfp4"))
    write(snapshot("me/text"), merged(LLAVA, vision_config=None), text_only(weights))
    write(snapshot("me/text-family"), merged(TEXT, vocab_size=320), text_only(weights))
    part = write(snapshot("me/part"), LLAVA, weights, shards=3)
    for name in ("model-00002-of-00003.safetensors", "tokenizer.json"):
        (part / name).unlink()
    cut = write(snapshot("me/cut"), LLAVA, weights) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    (write(snapshot("me/bad"), LLAVA, weights) / "config.json").write_text("{")
    write(snapshot("me/awq"), merged(LLAVA, quantization_config={"quant_method": "awq"}), weights)
    write(snapshot("me/bert"), {"model_type": "bert"}, weights)
    (write(snapshot("me/gguf"), LLAVA, weights) / "model.safetensors").rename(snapshot("me/gguf") / "model.gguf")
    snapshot("me/no-config")
    write(snapshot("me/two"), LLAVA, weights)
    (write(snapshot("me/two", EARLIER, "v1"), LLAVA, weights) / "config.json").write_text("{")
    (write(snapshot("me/dangling"), LLAVA, weights) / "gone.json").symlink_to("nowhere")
    write(home / "datasets--me--data" / "snapshots" / COMMIT, LLAVA, weights)
    (home / "version.txt").write_text("1")
    return home


@pytest.fixture
def run(cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", partial(SCAN, cache))

    def invoke(*arguments):
        result = CliRunner().invoke(main, ["models", *arguments])
        assert result.exit_code == 0, result.output
        return result

    return invoke


# weights, complete, fits, and a word of why not
EXPECTED = {
    "demo": ("float32", True, "yes", None),
    "demo-sound": ("float16", True, "yes", None),
    "me/awq": (None, False, None, "awq"),
    "me/bad": (None, False, None, "is not JSON"),
    "me/bert": (None, False, None, "'bert'"),
    "me/brain": ("bf16", True, "yes", None),
    "me/cut": (None, False, None, "it is cut short"),
    "me/gguf": (None, False, None, "only as GGUF (model.gguf)"),
    "me/half": ("float16", True, "yes", None),
    "me/mixed": ("4/6-bit affine g32", True, "yes", None),
    "me/packed": ("4-bit affine g32", True, "yes", None),
    "me/part": (None, False, None, None),
    "me/small-float": ("4-bit mxfp4 g32", True, "yes", None),
    "me/text": ("float32", True, "yes", None),
    "me/text-family": ("float32", True, "yes", None),
    "me/two": ("float32", True, "yes", None),
}


def test_what_the_cache_holds(run, cache, monkeypatch):
    monkeypatch.setattr(backend, "memory_total", lambda: 8 * 10**9)
    result = run("--json")
    answer = json.loads(result.stdout)
    entries = {entry["name"]: entry for entry in answer["models"]}
    assert list(entries) == list(EXPECTED)
    for name, (kind, complete, fits, problem) in EXPECTED.items():
        entry = entries[name]
        assert (entry["weights"], entry["complete"], entry["fits"]) == (kind, complete, fits), entry
        assert problem in entry["problem"] if problem else entry["problem"] is None, entry
        assert entry["size"] > 0
    assert entries["me/part"]["missing"] == ["tokenizer.json", "model-00002-of-00003.safetensors"]
    assert [name for name, entry in entries.items() if entry["text_only"]] == ["me/text"]
    assert [name for name, entry in entries.items() if not entry["supported"]] == ["me/bad", "me/bert"]
    assert entries["me/two"]["path"].endswith(COMMIT)
    assert answer["memory"] == 8 * 10**9
    assert answer["families"].keys() == FAMILIES.keys()
    assert answer["families"]["qwen2_5_omni"] == ["text", "image", "audio"]
    assert "models--me--dangling" in result.stderr
    assert result.stderr.count("\n") == 1


def test_tables(run):
    lines = run().stdout.splitlines()
    rows = {line.split("  ")[0]: line.rstrip() for line in lines}
    assert rows["gemma3"].endswith("  text, image")
    assert rows["me/packed"].split()[-6:] == ["llava", "4-bit", "affine", "g32", "yes", "complete"]
    assert rows["me/text"].endswith("text-only conversion")
    assert rows["me/bert"].endswith("not supported")
    assert rows["me/part"].endswith("incomplete: tokenizer.json, model-00002-of-00003.safetensors missing")
    assert "  config.json is not JSON: " in rows["me/bad"]
    assert "70 % of the memory (yes)" in " ".join(" ".join(lines).split())
    assert "70 % of the memory (yes)" in " ".join(run("--help").stdout.split())


def test_without_mlx_and_without_a_cache(run, monkeypatch, tmp_path):
    def missing():
        raise BackendError("MLX has no backend here")

    monkeypatch.setattr(backend, "require_mlx", missing)
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", partial(SCAN, tmp_path / "none"))
    result = run("--json")
    answer = json.loads(result.stdout)
    assert [(entry["name"], entry["fits"]) for entry in answer["models"]] == [
        ("demo", None),
        ("demo-sound", None),
    ]
    assert answer["memory"] is None
    assert "MLX has no backend here" in result.stderr
    assert "complete" in run().stdout


def test_the_environment_says_where_the_cache_is(cache):
    code = "import sys; from lime_mlx.cli import main; main(['models', '--json'], standalone_mode=False); "
    code += "print({'mlx_lm', 'transformers', 'mlx.nn'} & sys.modules.keys(), file=sys.stderr)"
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [entry["name"] for entry in json.loads(done.stdout)["models"]] == list(EXPECTED)
    assert done.stderr.endswith("set()\n")


@pytest.mark.parametrize(
    ("needed", "word"), [(0, "yes"), (70, "yes"), (71, "tight"), (100, "tight"), (101, "no"), (10**6, "no")]
)
def test_what_fits(monkeypatch, needed, word):
    monkeypatch.setattr(backend, "memory_total", lambda: 100)
    assert how_it_fits(needed) == word
    assert backend.fits(needed) == (word != "no")


@pytest.mark.parametrize("kind", [mx.float32, mx.bfloat16, mx.float16, 4])
def test_memory_of_the_weights(tmp_path, weights, monkeypatch, kind):
    """The header tells what the loaded weights take, and one byte less of memory is too little."""
    config, stored = (
        packed(cast(weights, mx.float16), group_size=32, bits=4) if kind == 4 else (LLAVA, cast(weights, kind))
    )
    folder = write(tmp_path, config, stored)
    taken = sum(array.nbytes for _, array in tree_flatten(load_model(folder).parameters()))
    tensors = header(folder / "model.safetensors").values()
    assert held_bytes(tensors, backend.compute_dtype().size) == held(read_weights(folder)) == taken
    monkeypatch.setattr(backend, "memory_total", lambda: taken)
    load_model(folder)
    name = f"{HEAD}.scales" if kind == 4 else f"{HEAD}.weight"
    write(folder, config, {**stored, name: mx.full(stored[name].shape, mx.nan, stored[name].dtype)})
    monkeypatch.setattr(backend, "memory_total", lambda: taken - 1)
    with pytest.raises(BackendError, match=r"take 0\.0 GB, and this machine has 0\.0 GB of memory: take a smaller"):
        load_model(folder)  # not the error of weights that are not finite: they are not read


@pytest.mark.parametrize("name", FAMILIES)
def test_the_registry_says_what_a_family_takes(name):
    try:
        model = family(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not there")
    assert bool(takes(name)) == (model.media.__func__ is not Model.media.__func__)
    assert set(takes(name)) <= {"image", "audio"}


def test_a_family_may_have_another_class_for_another_tower(monkeypatch):
    """The rest of the registry stays: without a tower, or with one that is not listed, the family itself is chosen."""
    other = replace(FAMILIES["llava"], towers={"siglip_vision_model": FAMILIES["idefics3"]})
    monkeypatch.setitem(FAMILIES, "llava", other)
    config = {"model_type": "llava", "vision_config": {"model_type": "siglip_vision_model"}}
    assert family("llava", tower_type(config)).__name__ == "Idefics3"
    for vision in ({"model_type": "clip_vision_model"}, {}, None, "siglip_vision_model"):
        assert family("llava", tower_type({**config, "vision_config": vision})).__name__ == "Llava"
    assert family("llava").__name__ == "Llava"


@pytest.fixture
def full(tmp_path, weights, monkeypatch):
    """A cache with two models of the same commit; one has two revisions and the rest of a broken download."""
    for commit, ref in ((COMMIT, "main"), (EARLIER, "v1")):
        folder = tmp_path / "models--me--two" / "snapshots" / commit
        write(folder, LLAVA, weights)
        (tmp_path / "models--me--two" / "refs").mkdir(exist_ok=True)
        (tmp_path / "models--me--two" / "refs" / ref).write_text(commit)
    (tmp_path / "models--me--two" / "blobs").mkdir()
    (tmp_path / "models--me--two" / "blobs" / "x.incomplete").write_bytes(bytes(1000))
    write(tmp_path / "models--me--other" / "snapshots" / COMMIT, LLAVA, weights)
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", partial(SCAN, tmp_path))
    return tmp_path


def delete(*arguments, **options):
    return CliRunner().invoke(main, ["models", "--delete", *arguments], **options)


def size_of(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_is_deleted_is_named_and_asked_about(full, monkeypatch):
    monkeypatch.setattr(models_command, "interactive", lambda: True)
    folder, other = full / "models--me--two", size_of(full / "models--me--other")
    kept = delete("me/two", input="n\n")
    assert kept.exit_code == 0
    assert f"me/two: 7 files, {size_of(folder) / 1e6:.1f} MB, in {folder}" in kept.stderr
    assert "Nothing was deleted." in kept.stdout
    assert folder.is_dir()
    gone = delete("me/two", input="y\n")
    assert gone.exit_code == 0
    assert "Deleted me/two" in gone.stdout
    assert not folder.exists()
    assert size_of(full / "models--me--other") == other


def test_without_a_terminal_only_yes_deletes(full):
    folder = full / "models--me--two"
    size = size_of(folder)
    refused = delete("me/two", input="y\n")
    assert refused.exit_code == 1
    assert "add --yes to delete me/two: 7 files" in refused.stderr
    assert folder.is_dir()
    gone = delete("me/two", "--yes", "--json")
    values = {"name": "me/two", "folder": str(folder), "size": size, "files": 7, "deleted": True}
    assert json.loads(gone.stdout) == values
    assert gone.stderr == ""
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("me/twoo", "is not in the cache of the Hub"),
        ("demo", "is a part of lime-mlx and stays"),
    ],
)
def test_what_cannot_be_deleted(full, name, words):
    result = delete(name, "--yes")
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert name == "demo" or "Did you mean me/two?" in result.stderr


def test_the_default_model_is_named_as_such(full, monkeypatch, tmp_path):
    monkeypatch.setenv("LIME_MLX_HOME", str(tmp_path / "home"))
    set_default_model("me/two")
    assert "Your settings name it: " in delete("me/two", "--yes").stderr
    assert CliRunner().invoke(main, ["models", "--yes"]).exit_code == 2
