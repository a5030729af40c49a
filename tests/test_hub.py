"""Downloads from a Hub of our own on 127.0.0.1, which also breaks off, lies, and keeps some repositories shut."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import LLAVA, TEXT, merged, random_weights, text_only, write, write_tokenizer
from hubs import MAIN, NOWHERE, OLD, Hub, fetched, files_of, running

from lime_mlx.checkpoint.load import load, load_model
from lime_mlx.errors import CheckpointError

WEIGHTS = "model.safetensors"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
NOT_NEEDED = (
    "consolidated.safetensors original/config.json onnx/model.safetensors adapter_model.safetensors "
    "model.fp16.safetensors modeling_tiny.py pytorch_model.bin tiny.gguf README.md picture.png"
).split()
# The Hub's settings are read at import, hence a process of its own. Small pieces, so that a tiny file has a middle.
LOCATE = """
import json, sys, time
from huggingface_hub import constants
from lime_mlx.errors import CheckpointError
from lime_mlx.checkpoint.hub import locate
constants.DOWNLOAD_CHUNK_SIZE, time.sleep = 1000, lambda _: None
for name, options in json.load(sys.stdin):
    try:
        print(locate(name, **options))
    except CheckpointError as error:
        print(error)
"""


def config(**changes) -> bytes:
    return json.dumps(merged(TEXT, **changes)).encode()


# What a repository or folder holds, and why it is refused.
UNUSABLE = {
    "gguf": ({"config.json": config(), "tiny-Q4.gguf": b"GGUF"}, "only as GGUF (tiny-Q4.gguf)"),
    "bare-gguf": ({"tiny-Q4.gguf": b"GGUF", "mmproj.gguf": b"GGUF"}, "only as GGUF (mmproj.gguf)"),
    "pickle": ({"config.json": config(), "pytorch_model.bin": b"cos\nsystem\n"}, "only as pickle (pytorch_model.bin)"),
    "lora": ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"", "args.bin": b""}, "without its base"),
    "lora-of-mlx": ({"config.json": config(), "adapters.safetensors": b""}, "(LoRA, adapters.safetensors)"),
    "mistral": ({"config.json": config(), "consolidated.safetensors": b""}, "no weights: no .safetensors file"),
    "empty": ({"config.json": config()}, "no weights: no .safetensors file"),
    "no-config": ({WEIGHTS: b""}, "no config.json"),
    "code": (
        {"config.json": config(model_type="tiny", auto_map={"AutoModel": "tiny.T"}), "tiny.py": b"", WEIGHTS: b""},
        "need code from their repository (auto_map in config.json), which lime-mlx never runs",
    ),
    "unknown": ({"config.json": config(model_type="mamba"), WEIGHTS: b""}, "'mamba' are not supported"),
    "bits": ({"config.json": config(quantization_config={"quant_method": "gptq"}), WEIGHTS: b""}, "quantised by gptq"),
    "nonsense": ({"config.json": b"{", WEIGHTS: b""}, "config.json is not JSON"),
}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    weights = random_weights(LLAVA)
    plain, sharded = (
        write(tmp_path_factory.mktemp("r"), merged(LLAVA, auto_map={"AutoModel": "modeling_tiny.T"}), weights),
        write(tmp_path_factory.mktemp("r"), LLAVA, weights, shards=3),
    )
    for folder in (plain, sharded):
        write_tokenizer(folder)
    tiny = files_of(plain) | dict.fromkeys(NOT_NEEDED, b"x")
    old = tiny | {"chat_template.jinja": b"old"}
    found = {"me/tiny": {MAIN: tiny, OLD: old}, "me/gated": {MAIN: tiny}, "me/down": {}}
    found["me/shards"] = {MAIN: files_of(sharded) | dict.fromkeys(NOT_NEEDED, b"x")}
    return found | {f"me/{name}": {MAIN: files} for name, (files, _) in UNUSABLE.items()}


@pytest.fixture
def hub(repositories):
    with running(repositories) as address:
        yield address


def locate(cache, endpoint, *names, **environment):
    """One line for each name or (name, options): the folder, or the error."""
    settings = {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", LOCATE],
        input=json.dumps([(name, {}) if isinstance(name, str) else name for name in names]),
        capture_output=True,
        text=True,
        env={**outside, "HF_HUB_DISABLE_XET": "1", **settings},
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == len(names), said
    return said


def test_only_what_is_needed(hub, tmp_path):
    described = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    for name, weights in (("me/tiny", [WEIGHTS]), ("me/shards", [*SHARDS, "model.safetensors.index.json"])):
        (folder,) = locate(tmp_path, hub, name)
        wanted = sorted(described + weights)
        assert sorted(os.listdir(folder)) == wanted
        assert [name for name, _ in fetched()] == wanted
        model, _ = load(folder)
        assert model.config["model_type"] == "llava"
        assert locate(tmp_path, hub, name) == [folder]
        assert fetched() == []


def test_revisions(hub, tmp_path):
    revised = [("me/tiny", {"revision": revision}) for revision in ("v1", OLD, "v9")]
    new, old, commit, unknown = locate(tmp_path, hub, "me/tiny", *revised)
    assert old == commit != new
    assert (Path(old) / "chat_template.jinja").read_text() == "old"
    assert "me/tiny has no revision 'v9'" in unknown
    again, _, unknown = locate(tmp_path, NOWHERE, *revised, HF_HUB_OFFLINE="1")
    assert again == old
    assert "me/tiny at revision v9 is no folder here and not in the local cache" in unknown


@pytest.mark.parametrize("offline", ["1", "0"], ids=["told so", "no network"])
def test_offline_says_what_is_missing(hub, tmp_path, offline):
    early = ("me/tiny", {"revision": "v1"})
    whole, part, bare = locate(tmp_path, hub, "me/tiny", "me/shards", early)
    for path in (Path(part, "config.json"), Path(part, "tokenizer.json"), Path(part, SHARDS[1]), Path(bare, WEIGHTS)):
        path.unlink()
    names = ("me/tiny", "me/shards", early, "me/none")
    again, *refused = locate(tmp_path, hub if offline == "1" else NOWHERE, *names, HF_HUB_OFFLINE=offline)
    assert again == whole
    part = "is not wholly in the local cache of the Hub"
    states = [
        f"me/shards {part}: config.json, tokenizer.json, {SHARDS[1]} missing, and ",
        f"me/tiny at revision v1 {part}: {WEIGHTS} missing, and ",
        "me/none is no folder here and not in the local cache of the Hub, and ",
    ]
    why = "HF_HUB_OFFLINE is set" if offline == "1" else "the connection to the Hub failed ([Errno "
    for message, state in zip(refused, states, strict=True):
        assert message.startswith(state + why)
        assert message.endswith("; run once online, or give a folder.")


def test_a_broken_connection_goes_on_where_it_broke(hub, repositories, tmp_path):
    Hub.breaks[WEIGHTS] = 5000
    (folder,) = locate(tmp_path, hub, "me/tiny")
    assert Path(folder, WEIGHTS).read_bytes() == repositories["me/tiny"][MAIN][WEIGHTS]
    assert [span for name, span in fetched() if name == WEIGHTS] == ["", "bytes=5000-"]


@pytest.mark.parametrize(("method", "words"), [("GET", "model-00002-of-00003.safetensors missing"), ("HEAD", "size")])
def test_a_file_that_never_comes_whole(hub, tmp_path, method, words):
    Hub.lies[SHARDS[1]] = method
    (message,) = locate(tmp_path, hub, "me/shards")
    assert message.startswith("me/shards ")
    assert words in message
    assert set(SHARDS) < {name for name, _ in fetched()}
    Hub.lies.clear()
    (folder,) = locate(tmp_path, hub, "me/shards")
    assert fetched() == [(SHARDS[1], "")]
    load_model(folder)


def test_gated_repositories_and_tokens(hub, tmp_path):
    tokens = [("me/gated", {"token": token}) for token in ("wrong", "expired")]
    none, wrong, expired = locate(tmp_path, hub, "me/gated", *tokens)
    for message in (none, wrong):
        assert f"is gated: accept its conditions on {hub}/me/gated and set HF_TOKEN" in message
    assert "the token is not valid" in expired
    assert fetched() == []
    folder, again = locate(tmp_path, hub, "me/gated", ("me/gated", {"token": "wrong"}), HF_TOKEN="right")
    assert Path(folder, WEIGHTS).is_file()
    assert again == folder


def test_a_hub_that_fails(hub, tmp_path):
    (folder,) = locate(tmp_path, hub, "me/tiny")
    Hub.down.add("me/tiny")
    again, down, none, name = locate(tmp_path, hub, "me/tiny", "me/down", "me/none", "a/-")
    assert again == folder
    assert "me/down cannot be downloaded: " in down
    assert "503" in down
    assert "no such repository" in none
    assert "'a/-' is neither a folder nor the name of a Hub repository" in name


def test_what_cannot_be_used_is_refused_before_its_weights(hub, tmp_path):
    said = locate(tmp_path, hub, *(f"me/{name}" for name in UNUSABLE))
    for message, (name, (_, words)) in zip(said, UNUSABLE.items(), strict=True):
        assert words in message, name
        assert message.endswith(".")
        assert re.match(rf"me/{name} |Models of|The weights are|/.*config.json", message), message
    assert {name for name, _ in fetched()} <= {"config.json", "adapter_config.json"}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_folder_that_cannot_be_used(name, tmp_path):
    files, words = UNUSABLE[name]
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    if words.startswith("quantised"):
        write(tmp_path, json.loads(files["config.json"]), text_only(random_weights(LLAVA)))
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path)
    assert words in str(caught.value)
