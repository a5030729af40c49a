"""Prompt caches in files: what comes back, what mlx-lm reads of it, and what is refused."""

import json
import struct

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt
from mlx_lm.models.cache import load_prompt_cache

from lime_mlx import load
from lime_mlx.cache_file import fingerprint, open_with_file
from lime_mlx.decoding import decode, start, steps
from lime_mlx.errors import BackendError, LimeError, PromptError
from lime_mlx.generation import generate
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.methods import parse_method
from lime_mlx.prompt import Prompt, Span
from lime_mlx.scenes import make_scene
from lime_mlx.session import Session

PACKED = KVOptions(kv_bits=8, kv_group_size=32, quantized_kv_start=0)
LIMITED = KVOptions(max_kv_size=38)
WINDOWED = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}


@pytest.fixture(scope="module")
def model():
    return small_model(head_dim=32)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "prompt.safetensors"


def open_file(model, prompt, file, kv=DEFAULT) -> Session:
    return open_with_file(model, prompt, (), kv, file)


def continued(prompt: Prompt, count: int, *tokens: int) -> Prompt:
    """A prompt with the same first tokens and the same picture, and other ones behind them."""
    return Prompt(np.append(prompt.input_ids[:count], tokens), spans=prompt.spans)


@pytest.mark.parametrize("changes", [{}, WINDOWED], ids=["whole", "windows"])
@pytest.mark.parametrize("kv", [DEFAULT, PACKED, LIMITED], ids=["floats", "8 bits", "limited"])
def test_a_file_gives_the_same_answer(file, kv, changes):
    model, prompt = small_model(head_dim=32, **changes), small_prompt(40, 4, 20)
    for number, asked in enumerate([prompt, continued(prompt, 25, 9, 4), prompt]):
        session = open_file(model, asked, file, kv)
        assert (session.reused > 19) == (number > 0)
        for spec in ("none", "lime:words=all"):
            method, fresh = parse_method(spec), start(model, asked, kv=kv)
            ours = list(steps(session.fork(), method, 6))
            wanted = list(steps(fresh, method, 6))
            if kv is PACKED:  # what is quantised before it is read differs
                assert distance(ours[0].logits, wanted[0].logits) < 0.03
                continue
            assert [step.token for step in ours] == [step.token for step in wanted]
            assert distance(ours[-1].logits, wanted[-1].logits) < 2e-4


@pytest.mark.parametrize(("kv", "kind"), [(DEFAULT, "KVCache"), (PACKED, "QuantizedKVCache")])
def test_mlx_lm_reads_the_file(model, file, kv, kind):
    prompt = small_prompt(20, 4, 10)
    session = open_file(model, prompt, file, kv)
    caches, metadata = load_prompt_cache(str(file), return_metadata=True)
    assert json.loads(metadata["lime"])["tokens"] == prompt.input_ids[:-1].tolist()
    session.cache.pack()
    for theirs, ours in zip(caches, session.cache.layers, strict=True):
        assert type(theirs).__name__ == kind and theirs.offset == 19
        held = [
            x for part in (theirs.keys, theirs.values) for x in (part if isinstance(part, (list, tuple)) else [part])
        ]
        for mine, their in zip(ours.held(), held, strict=True):
            assert (np.array(mine) == np.array(their)).all()


def test_mlx_lm_reads_layers_with_a_window(file):
    model = small_model(**WINDOWED)
    open_file(model, Prompt(np.arange(40)), file)
    first, *windowed = load_prompt_cache(str(file))
    assert type(first).__name__ == "KVCache"
    for theirs in windowed:
        assert type(theirs).__name__ == "RotatingKVCache"
        assert (theirs.offset, theirs.max_size, theirs.keep) == (39, 8, 0)


def test_a_whole_answer_about_a_picture(tmp_path):
    model, processor = load("demo")
    picture, notices = make_scene(100_000, "ordinary").image, []
    options = {"max_tokens": 8, "cache_file": tmp_path / "scene.safetensors", "notice": notices.append}
    for text in ("What is in the picture?", "Is there a dog in the picture?", "What is in the picture?"):
        ours = generate(model, processor, text, picture, **options)
        assert ours.tokens == generate(model, processor, text, picture, max_tokens=8).tokens
    assert ours.cached_tokens > 64
    told = [notice for notice in notices if "scene.safetensors" in notice]
    assert told[0].startswith("Wrote ") and f"{ours.cached_tokens} of {ours.prompt_tokens} tokens" in told[-1]
    with pytest.raises(PromptError, match="was made for [0-9a-f]{8}, and this prompt has [0-9a-f]{8}: give the same"):
        generate(model, processor, "What is there?", make_scene(100_001, "ordinary").image, **options)
    with pytest.raises(PromptError, match="this prompt has no picture or sound"):
        generate(model, processor, "What is there?", **options)


# --- what does not fit


def test_another_model_is_refused(model, file):
    open_file(model, small_prompt(), file)
    other = small_model(1, head_dim=32)
    assert fingerprint(other) != fingerprint(model) == fingerprint(small_model(head_dim=32))
    with pytest.raises(PromptError, match=f"made for another model \\({fingerprint(model)[:8]}, and this one is "):
        open_file(other, small_prompt(), file)


def test_one_changed_weight_makes_another_model():
    """As merging an adapter into one projection does it."""
    model, before = small_model(), fingerprint(small_model())
    layer = model.language_model.layers[1].self_attn.v_proj
    layer.weight = layer.weight + 1e-3
    assert fingerprint(model) != before


def test_options_of_another_cache_are_refused(model, file):
    prompt = small_prompt(20, 4, 10)
    open_file(model, prompt, file, PACKED)
    for kv in (KVOptions(kv_bits=4, kv_group_size=32), KVOptions(kv_bits=8, kv_group_size=64)):
        with pytest.raises(PromptError, match="8 bits in groups of 32: give --kv-bits 8 --kv-group-size 32, or name"):
            open_file(model, prompt, file, kv)
    session = open_file(model, prompt, file)
    assert session.kv.kv_bits == 8 and session.cache[0].packing.bits == 8
    with pytest.raises(PromptError, match="was made without --max-kv-size: leave it out"):
        open_file(model, prompt, file, LIMITED)
    file.unlink()
    open_file(model, prompt, file, LIMITED)
    with pytest.raises(PromptError, match="was made with 38 as --max-kv-size: give 38,"):
        open_file(model, prompt, file)


def test_text_that_begins_otherwise_is_refused(model, file):
    prompt = small_prompt(20, 4, 10)
    open_file(model, prompt, file)
    other = prompt.input_ids.copy()
    other[0] += 1
    with pytest.raises(PromptError, match="holds 19 tokens, of which this prompt begins with 0, too few"):
        open_file(model, Prompt(other, spans=prompt.spans), file)
    assert open_file(model, continued(prompt, 12, 1, 2), file).reused == 12


def test_text_that_ends_where_windows_hold_nothing_any_more_is_refused(file):
    model, ids = small_model(**WINDOWED), np.arange(700) % 64
    open_file(model, Prompt(ids), file)
    assert open_file(model, Prompt(np.append(ids, 5)), file).reused == 699
    with pytest.raises(PromptError, match="holds 699 tokens, of which this prompt begins with 300, too few"):
        open_file(model, Prompt(np.append(ids[:300], [1, 2])), file)


def test_names_and_places_are_checked(model, tmp_path):
    with pytest.raises(PromptError, match="does not end in .safetensors"):
        open_file(model, small_prompt(), tmp_path / "cache.npz")
    with pytest.raises(LimeError, match="There is no folder"):
        open_file(model, small_prompt(), tmp_path / "none" / "x.safetensors")


def test_a_file_larger_than_the_memory_is_refused(model, file, monkeypatch):
    open_file(model, small_prompt(), file)
    monkeypatch.setattr("lime_mlx.backend.memory_total", lambda: 1000)
    with pytest.raises(BackendError, match="holds 0.0 GB, and this machine has 0.0 GB .* --kv-bits 4"):
        open_file(model, small_prompt(), file)


# --- hostile files


def stored(file):
    arrays, metadata = mx.load(str(file), return_metadata=True)
    return dict(arrays), dict(metadata)


def changed_metadata(**values):
    def change(arrays, metadata):
        metadata["0.lime"] = json.dumps({**json.loads(metadata["0.lime"]), **values})

    return change


def changed_array(name, function):
    def change(arrays, metadata):
        arrays[name] = function(arrays[name])

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, metadata: arrays.pop("1.0"),
        lambda arrays, metadata: metadata.pop("0.lime"),
        lambda arrays, metadata: metadata.update({"0.lime": "[" * 5000}),
        lambda arrays, metadata: metadata.update({"0.lime": "[1]"}),
        changed_metadata(format=2),
        changed_metadata(tokens=[]),
        changed_metadata(tokens=[1, 2]),
        changed_metadata(tokens=[1.5] * 19),
        changed_metadata(tokens=[10**30] * 19),
        changed_metadata(tokens=list(range(4000))),
        changed_metadata(media="all"),
        changed_metadata(model=7),
        changed_metadata(max_kv_size="x"),
        changed_array("0.0", lambda x: x[:, :, :5]),
        changed_array("0.0", lambda x: x[:, :1]),
        changed_array("0.1", lambda x: x[..., :16]),
        changed_array("0.1", lambda x: x[0]),
        changed_array("2.1", lambda x: x * mx.nan),
        changed_array("2.1", lambda x: x.astype(mx.int32)),
        changed_array("0.1", lambda x: mx.zeros((1, 2, 0, 32))),
    ],
)
def test_a_hostile_file_is_refused(model, file, change):
    prompt = small_prompt(20, 4, 10)
    open_file(model, prompt, file)
    arrays, metadata = stored(file)
    change(arrays, metadata)
    mx.save_safetensors(str(file), arrays, metadata)
    with pytest.raises(LimeError, match=str(file)):
        open_file(model, prompt, file)


@pytest.mark.parametrize("content", [b"", b"x", struct.pack("<Q", 1 << 60), struct.pack("<Q", 2) + b"{}"])
def test_a_file_that_is_no_cache_is_refused(model, file, content):
    file.write_bytes(content)
    with pytest.raises(PromptError, match="is no prompt cache"):
        open_file(model, small_prompt(), file)


def test_cut_and_altered_files_never_crash(model, file):
    """Every place of the header, and random places of the rest."""
    prompt, rng = small_prompt(20, 4, 10), np.random.default_rng(0)
    open_file(model, prompt, file)
    whole = file.read_bytes()
    head = struct.unpack("<Q", whole[:8])[0] + 8
    for place in rng.integers(0, head, 60).tolist() + rng.integers(head, len(whole), 10).tolist():
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 85]) + whole[place + 1 :]):
            file.write_bytes(content)
            try:
                session = open_file(model, prompt, file)
                assert np.isfinite(np.array(session.extend())).all()
            except LimeError:
                pass


def test_a_folder_and_a_model_are_no_caches(model, file, tmp_path):
    mx.save_safetensors(str(file), {"model.norm.weight": mx.ones((4,))})
    with pytest.raises(PromptError, match="does not say which tokens it holds"):
        open_file(model, small_prompt(), file)
    folder = tmp_path / "x.safetensors"
    folder.mkdir()
    with pytest.raises(LimeError, match=r"x\.safetensors"):
        open_file(model, small_prompt(), folder)


def test_plain_decoding_without_a_file_reads_and_writes_none(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(decode(model, Prompt(np.arange(5), spans=[Span("image", 1, 3)]), "none", 2))
    assert not list(tmp_path.iterdir())
