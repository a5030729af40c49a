"""Conversion: the same numbers, the layout of mlx-community, and an output that is whole or absent."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checkpoints import LLAVA, TEXT, merged, quantized, random_weights, write
from click.testing import CliRunner
from converting import picture_source
from families import MODULES, spell
from helpers import distance, fixture, parity_checkpoint, prompt_of
from mlx.utils import tree_flatten

from lime_mlx.checkpoint.files import read_config
from lime_mlx.checkpoint.load import load_model, read_weights
from lime_mlx.cli import main
from lime_mlx.convert import convert, schemes, staging
from lime_mlx.convert import write as writing
from lime_mlx.errors import BackendError, ConversionError

CASES = [case for family in MODULES.values() for case in list(family.CASES)[:2]]
SMALL_SHARDS = 60_000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return picture_source(tmp_path_factory.mktemp("source") / "model")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left_behind(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")]


@pytest.mark.parametrize("case", CASES)
def test_every_family_from_the_hub_and_back(case, tmp_path):
    """Float: logits equal, and names are the published ones; quantised: as in memory; dequantised: as quantised."""
    family, prompt = next(f for f in MODULES.values() if case in f.CASES), prompt_of(fixture(case))
    spellings = getattr(family, "SPELLINGS", {})
    (tmp_path / "hub").mkdir()
    hub = parity_checkpoint(case, tmp_path / "hub", "hub" if "hub" in spellings else "transformers")
    convert(hub, tmp_path / "float", compare_logits=False)
    wanted = load_model(hub)
    assert distance(load_model(tmp_path / "float").logits(prompt), wanted.logits(prompt)) < 1e-6
    written = read_weights(tmp_path / "float")
    if "mlx" in spellings or "hub" in spellings:
        published = "mlx" if "mlx" in spellings else "hub"
        names = {spell(n, family, published) for n in json.loads(str(fixture(case)["weights"]))}
        # A tower's queries, keys and values are written as the one matrix that they are read into.
        names = {re.sub(r"attn\.[qkv]\.", "attn.qkv.", name) for name in names}
        left_out = (*wanted.drop, "lm_head.")  # a tied head is written where mlx-vlm wants it, and only there
        assert all(any(part in name for part in left_out) for name in names - set(written))
        assert all(wanted.published_head and "lm_head." in name for name in set(written) - names)

    report = convert(tmp_path / "float", tmp_path / "packed", quantize=True, q_group_size=32, compare_logits=False)
    assert report.layers and report.comparison is None
    nn.quantize(wanted, 32, 4, class_predicate=lambda path, _: path in report.layers)
    packed = load_model(tmp_path / "packed")
    assert np.array_equal(packed.logits(prompt), wanted.logits(prompt))
    convert(tmp_path / "packed", tmp_path / "again", dequantize=True, compare_logits=False)
    assert distance(load_model(tmp_path / "again").logits(prompt), packed.logits(prompt)) < 1e-5
    assert "quantization" not in read_config(tmp_path / "again")


@pytest.mark.parametrize(
    ("mode", "bits", "group"),
    [("affine", bits, 32) for bits in (2, 3, 4, 5, 6, 8)]
    + [("affine", 4, 64), ("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)],
)
def test_modes(mode, bits, group, source, tmp_path):
    """Defaults of each mode; arrays as MLX makes them; the tower stays float unless asked."""
    options = {"q_bits": bits, "q_group_size": group} if mode == "affine" else {}
    convert(source, tmp_path / "out", quantize=True, q_mode=mode, compare_logits=False, **options)
    found = dict(tree_flatten(load_model(tmp_path / "out").parameters()))
    wanted = quantized(
        LLAVA,
        random_weights(LLAVA),
        lambda path, module: hasattr(module, "to_quantized") and path.startswith("language_model"),
        bits=bits,
        group_size=group,
        mode=mode,
    )
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in found)
    settings = read_config(tmp_path / "out")["quantization"]
    assert settings == {"bits": bits, "group_size": group, "mode": mode}


def test_the_tower_too(source, tmp_path):
    report = convert(
        source, tmp_path / "out", quantize=True, quantize_vision=True, q_group_size=32, compare_logits=False
    )
    parts = {path.split(".")[0] for path in report.layers}
    assert parts == {"language_model", "vision_tower", "multi_modal_projector"}
    assert not any("position_embedding" in path for path in (*report.layers, *report.kept))
    load_model(tmp_path / "out")


def test_layers_that_do_not_divide_stay_float(tmp_path):
    config = merged(TEXT, intermediate_size=96)
    folder = write(tmp_path / "in", config, random_weights(config))
    report = convert(folder, tmp_path / "out", quantize=True, compare_logits=False)
    assert report.kept == tuple(f"language_model.model.layers.{i}.mlp.down_proj" for i in (0, 1))
    assert isinstance(load_model(tmp_path / "out").language_model.layers[0].mlp.down_proj, nn.Linear)


def test_recipes():
    """By hand, for 16 layers: the first and last two, and every third of the others, have more bits."""
    from lime_mlx.checkpoint.load import build

    model = build(merged(TEXT, num_hidden_layers=16))
    scheme = schemes.Scheme(4, 32)
    choose = schemes.recipe("mixed_3_6", model, scheme)
    high = [i for i in range(16) if choose(f"language_model.model.layers.{i}.self_attn.v_proj").bits == 6]
    assert high == [0, 1, 4, 7, 10, 13, 14, 15]
    assert [choose(f"language_model.model.layers.{i}.mlp.down_proj").bits for i in (0, 2)] == [6, 3]
    assert choose("language_model.model.layers.0.self_attn.q_proj").bits == 3
    assert choose("language_model.lm_head").bits == choose("language_model.model.embed_tokens").bits == 6
    assert choose("multi_modal_projector.linear_1").bits == 3


def test_layout(source, tmp_path):
    """Files, index and config.json as mlx-community has them; the card keeps the licence."""
    report = convert(
        source, tmp_path / "out", quantize=True, quant_predicate="mixed_3_6", q_group_size=32, shard_bytes=SMALL_SHARDS
    )
    out = tmp_path / "out"
    count = len(report.files)
    assert count > 3
    assert list(report.files) == [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    others = {"config.json", "model.safetensors.index.json", "README.md", "tokenizer.json", "tokenizer_config.json"}
    assert set(content(out)) == {*report.files, *others, "preprocessor_config.json", "chat_template.jinja"}
    places, total = {}, 0
    for name in report.files:
        arrays, metadata = mx.load(str(out / name), return_metadata=True)
        assert metadata == {"format": "mlx"}
        size = sum(array.nbytes for array in arrays.values())
        assert size == report.files[name] and (size <= SMALL_SHARDS or len(arrays) == 1)
        places |= dict.fromkeys(arrays, name)
        total += size
    index = json.loads((out / "model.safetensors.index.json").read_text())
    parameters = sum(array.size for array in random_weights(LLAVA).values())
    assert index == {"metadata": {"total_size": total, "total_parameters": parameters}, "weight_map": places}
    assert list(index["weight_map"]) == sorted(places)
    assert report.bits == 8 * total / parameters
    config = read_config(out)
    assert list(config) == sorted(config) and config["quantization"] == config["quantization_config"]
    layer = {"bits": 6, "group_size": 32, "mode": "affine"}
    assert config["quantization"]["language_model.model.embed_tokens"] == layer
    card = (out / "README.md").read_text()
    for line in ("license: mit", "library_name: mlx", "pipeline_tag: image-text-to-text", "- mlx", "- tiny"):
        assert f"\n{line}\n" in card
    assert report.comparison.kind == "image" and report.comparison.kl < 1


def test_card_of_a_repository(source, tmp_path, monkeypatch):
    """The base model, and the licence of its card, which is fetched; without it the conversion goes on."""
    asked = []

    def download(repo, name, **options):
        asked.append((repo, name, options["revision"]))
        if repo != "me/base":
            raise OSError("offline")
        return str(source / "README.md")

    bare = shutil.copytree(source, tmp_path / "bare", ignore=shutil.ignore_patterns("README.md"))
    monkeypatch.setattr("lime_mlx.convert.pipeline.locate", lambda *_, **__: bare)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    for repo, licensed in (("me/base", True), ("me/gone", False)):
        out = convert(repo, tmp_path / repo[3:], revision="v1", compare_logits=False).folder
        text = (out / "README.md").read_text()
        assert f"base_model: {repo}\n" in text and ("license: mit" in text) == licensed
    assert asked == [("me/base", "README.md", "v1"), ("me/gone", "README.md", "v1")]


def test_dtype(source, tmp_path):
    """config.json's type is the default; what it says of itself is what is written."""
    folder = shutil.copytree(source, tmp_path / "in")
    config = merged(LLAVA, torch_dtype="bfloat16", dtype="bfloat16", text_config={**TEXT, "dtype": "bfloat16"})
    (folder / "config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "a", compare_logits=False)
    assert {array.dtype for array in read_weights(tmp_path / "a").values()} == {mx.bfloat16}
    report = convert(folder, tmp_path / "b", dtype="float16")
    assert {array.dtype for array in read_weights(tmp_path / "b").values()} == {mx.float16}
    assert report.comparison.distance < 1e-3 and report.comparison.same == 1
    written = read_config(tmp_path / "b")
    assert written["dtype"] == written["text_config"]["dtype"] == "float16" and "torch_dtype" not in written


class Stopped(BaseException):
    """As a kill: nothing that a program does at its end is done."""


def stop_after(count):
    """A progress that ends the process after so many tensors."""
    seen = []

    def progress(what, done, total):
        if what == "write":
            seen.append(done)
            if len(seen) > count:
                raise Stopped

    return progress


@pytest.mark.parametrize("tensors", [0, 1, 7, 20, 45, 80])
def test_an_interrupted_conversion_goes_on(tensors, source, tmp_path):
    options = {"quantize": True, "q_group_size": 32, "shard_bytes": SMALL_SHARDS, "compare_logits": False}
    whole = convert(source, tmp_path / "whole" / "out", **options)
    out = tmp_path / "cut" / "out"
    with pytest.raises(Stopped):
        convert(source, out, progress=stop_after(tensors), **options)
    assert not out.exists() and left_behind(out)
    finished = [p.name for p in (out.parent / ".out.unfinished").glob("*.safetensors")]
    stamps = {name: (out.parent / ".out.unfinished" / name).stat().st_mtime_ns for name in finished}
    report = convert(source, out, **options)
    assert report.resumed == len(finished) and (tensors < 45 or finished)
    assert all((out / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    assert content(out) == content(whole.folder)
    assert not left_behind(out)


def test_other_options_start_over(source, tmp_path):
    options = {"quantize": True, "q_group_size": 32, "shard_bytes": SMALL_SHARDS, "compare_logits": False}
    with pytest.raises(Stopped):
        convert(source, tmp_path / "out", progress=stop_after(60), **options)
    assert list((tmp_path / ".out.unfinished").glob("*.safetensors"))
    report = convert(source, tmp_path / "out", **{**options, "q_bits": 8})
    assert report.resumed == 0
    convert(source, tmp_path / "clean", **{**options, "q_bits": 8})
    assert {n: b for n, b in content(tmp_path / "out").items() if n != "README.md"} == {
        n: b for n, b in content(tmp_path / "clean").items() if n != "README.md"
    }


def test_force_replaces_only_checkpoints(source, tmp_path):
    out = tmp_path / "out"
    convert(source, out, compare_logits=False)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConversionError, match="--force"):
        convert(source, out)
    assert (out / "notes.txt").exists()
    with pytest.raises(Stopped):
        convert(source, out, force=True, quantize=True, progress=stop_after(9))
    assert (out / "notes.txt").exists()
    convert(source, out, force=True, quantize=True, compare_logits=False)
    assert not (out / "notes.txt").exists() and "quantization" in read_config(out) and not left_behind(out)
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    with pytest.raises(ConversionError, match="no checkpoint"):
        convert(source, home, force=True)
    assert content(home) == {"letter.txt": b"dear"}


def test_one_process_at_a_time(source, tmp_path):
    with staging.Staging(tmp_path / "out"), pytest.raises(ConversionError, match="Another process"):
        convert(source, tmp_path / "out")
    convert(source, tmp_path / "out", compare_logits=False)


def test_a_full_disk(source, tmp_path, monkeypatch):
    """Too little room is seen before; a disk that fills up meanwhile gives one sentence, and nothing at the output."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1 << 20))
        with pytest.raises(ConversionError, match="GB free"):
            convert(source, out)
    calls = []

    def fsync(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "fsync", fsync)
        with pytest.raises(ConversionError, match="the disk is full"):
            convert(source, out, shard_bytes=SMALL_SHARDS)
    assert not out.exists()
    assert not list((tmp_path / ".out.unfinished").glob("*.part"))
    assert convert(source, out, shard_bytes=SMALL_SHARDS, compare_logits=False).resumed == 1


def test_memory_is_that_of_one_tensor(tmp_path):
    """Peak of the arrays: at most four times the largest tensor, however many there are."""
    config = merged(TEXT, hidden_size=256, intermediate_size=1024, num_hidden_layers=12, vocab_size=2048)
    folder = write(tmp_path / "in", config, random_weights(config))
    size, largest = (folder / "model.safetensors").stat().st_size, 4 * 2048 * 256
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    convert(folder, tmp_path / "out", quantize=True, dtype="bfloat16", compare_logits=False)
    peak = mx.get_peak_memory() - before
    assert size > 20 * largest
    assert peak <= 4 * largest


def test_too_large_to_compare(source, tmp_path, monkeypatch):
    monkeypatch.setattr("lime_mlx.backend.memory_total", lambda: 1000)
    assert convert(source, tmp_path / "out").comparison is None


def test_logits_far_from_the_source_are_not_accepted(source, tmp_path, monkeypatch):
    other = load_model(source)
    other.language_model.model.norm.weight = -other.language_model.model.norm.weight
    models = iter([load_model(source), other])
    monkeypatch.setattr("lime_mlx.convert.verify.load_model", lambda _: next(models))
    with pytest.raises(ConversionError, match="relative distance"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(source, tmp_path):
    run = CliRunner().invoke
    out = str(tmp_path / "out")
    common = ["convert", "--hf-path", str(source), "--mlx-path", out, "-q", "--q-group-size", "32"]
    dry = run(main, [*common, "--dry-run"])
    assert dry.exit_code == 0 and "would have" in dry.stdout and not list(tmp_path.iterdir())
    done = run(main, [*common, "--quant-predicate", "mixed_3_6"])
    assert done.exit_code == 0, done.output
    assert "layers.1: down_proj 6" in done.stdout and "Checked: " in done.stdout and "KL " in done.stdout
    again = run(main, common)
    assert again.exit_code == 1 and again.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert run(main, ["convert", "--q-mode", "int4"]).exit_code == 2


def test_sources_that_do_not_fit_in_memory_are_converted(source, tmp_path, monkeypatch):
    """Only running a model needs it in memory."""
    monkeypatch.setattr("lime_mlx.backend.memory_total", lambda: 1000)
    with pytest.raises(BackendError):
        load_model(source)
    assert convert(source, tmp_path / "out").tensors
