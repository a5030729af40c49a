"""Bits by relevance, descriptions of checkpoints, and the upload to a Hub of our own on 127.0.0.1."""

import itertools
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import LLAVA, QWEN2_AUDIO, TEXT, random_weights, tf5, write, write_audio, write_tokenizer
from click.testing import CliRunner
from families import MODULES
from helpers import parity_checkpoint

from lime_mlx import decode
from lime_mlx.checkpoint.load import load
from lime_mlx.cli import main
from lime_mlx.convert import allocation, convert, inspect, pipeline, sensitivity, upload
from lime_mlx.convert.schemes import BITS
from lime_mlx.errors import CheckpointError, ConversionError
from lime_mlx.memory import memory_needed
from lime_mlx.scenes import make_scene

OPTIONS = {"quantize": True, "q_group_size": 32, "compare_logits": False}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("source") / "model", LLAVA, random_weights(LLAVA))
    write_tokenizer(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 28, "crop_size": 28}))
    return folder


def random_damage(seed, layers):
    rng = np.random.default_rng(seed)
    curves = {str(i): np.sort(rng.exponential(size=len(BITS)))[::-1] / 4.0 ** np.arange(6) for i in range(layers)}
    return {path: dict(zip(BITS, curve.tolist(), strict=True)) for path, curve in curves.items()}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("average", [2, 2.5, 3.7, 8])
def test_bits_go_where_they_help_most(seed, average):
    """Never above the average, and nearly as good as the best of all choices for five layers of several sizes."""
    damage, sizes = random_damage(seed, 5), dict(zip("01234", [10, 20, 10, 40, 30], strict=True))
    chosen = allocation.allocate(damage, sizes, average)
    spent = sum(chosen[path] * sizes[path] for path in sizes)
    assert spent <= average * sum(sizes.values()) + 1e-6
    best = min(
        sum(damage[path][bits] for path, bits in zip(sizes, choice, strict=True))
        for choice in itertools.product(BITS, repeat=5)
        if sum(map(lambda b, n: b * n, choice, sizes.values())) <= average * sum(sizes.values())
    )
    worst = sum(damage[path][2] for path in sizes)
    found = sum(damage[path][chosen[path]] for path in sizes)
    assert found - best <= 0.1 * (worst - best) + 1e-12
    assert set(chosen.values()) == {int(average)} if average in (2, 8) else len(set(chosen.values())) > 1


def test_damage_is_of_logits_and_of_reliance():
    """By hand: shares of each at 3 bits, and the weight between them."""
    curve = lambda at_three: {bits: at_three * 4.0 ** (3 - bits) for bits in BITS}  # noqa: E731
    found = {
        "a": sensitivity.Sensitivity(1, curve(3.0), curve(0.0)),
        "b": sensitivity.Sensitivity(1, curve(1.0), curve(0.5)),
    }
    damage = sensitivity.damages(found, 2.0)
    assert (damage["a"][3], damage["b"][3], damage["b"][4]) == (0.75, 0.25 + 2.0, (0.25 + 2.0) / 4)


@pytest.mark.parametrize("kind", ["picture", "sound", "text"])
def test_relevance_guided(kind, source, tmp_path):
    """The average is kept; layers differ; a resumed conversion does not measure again; the model is as it was."""
    if kind == "sound":
        audio = {**QWEN2_AUDIO["audio_config"], "max_source_positions": 300}
        source = write_audio(tmp_path / "in", audio_config=audio)
        settings = json.loads((source / "preprocessor_config.json").read_text())
        (source / "preprocessor_config.json").write_text(json.dumps({**settings, "chunk_length": 6}))
    elif kind == "text":
        source = write(tmp_path / "in", TEXT, random_weights(TEXT))
        write_tokenizer(source, chat_template="{{ messages[0]['content'] }}")
    spec = "relevance:bits=3.3,samples=1"
    if kind == "sound":
        with pytest.raises(ConversionError, match="takes no pictures"):
            convert(source, tmp_path / "out", quant_predicate=spec, calibration_data=str(tmp_path), **OPTIONS)
    report = convert(source, tmp_path / "out", quant_predicate=spec, **OPTIONS)
    sizes = {path: one.size for path, one in report.sensitivity.items()}
    bits = {path: scheme.bits for path, scheme in report.layers.items()}
    assert set(bits) == set(sizes)
    assert 3.0 < sum(bits[p] * n for p, n in sizes.items()) / sum(sizes.values()) <= 3.3
    assert len(set(bits.values())) > 1
    assert all(one.divergence[2] > one.divergence[8] >= 0 for one in report.sensitivity.values())
    assert any(one.reliance[2] > 0 for one in report.sensitivity.values()) == (kind != "text")


def test_measured_once(source, tmp_path, monkeypatch):
    class Stopped(BaseException):
        pass

    def stop(what, done, total):
        if what == "write" and done > total / 2:
            raise Stopped

    options = {"quant_predicate": "relevance:bits=3,samples=1", "shard_bytes": 60_000, **OPTIONS}
    with pytest.raises(Stopped):
        convert(source, tmp_path / "out", progress=stop, **options)
    monkeypatch.setattr("lime_mlx.convert.plan.measure", None)
    report = convert(source, tmp_path / "out", **options)
    assert report.resumed and not report.sensitivity


def test_calibration_on_pictures_of_ones_own(source, tmp_path):
    with pytest.raises(ConversionError, match="has no pictures"):
        convert(source, tmp_path / "out", quant_predicate="relevance:bits=3", calibration_data=str(tmp_path), **OPTIONS)
    make_scene(0, "ordinary").image.save(tmp_path / "a.png")
    predicate = {"quant_predicate": "relevance:bits=3", "calibration_data": str(tmp_path)}
    assert convert(source, tmp_path / "out", **predicate, **OPTIONS).sensitivity


def test_inspect(source, tmp_path):
    """Parts add up; the picture's tokens are those of the processor; what is packed is counted unpacked."""
    found = inspect(source, picture=(640, 480))
    weights = random_weights(LLAVA)
    assert (found.family, found.takes, found.tokens, found.tokenizer) == ("llava", ("image",), 4, "BPE")
    assert found.parameters == sum(array.size for array in weights.values())
    assert found.size == sum(array.nbytes for array in weights.values()) and found.dtypes == ("float32",)
    tower = sum(array.size for name, array in weights.items() if name.startswith("vision_tower"))
    assert found.parts["tower"].parameters == tower and found.parts["head"].parameters == 320 * 64
    report = convert(source, tmp_path / "out", quant_predicate="mixed_3_6", **OPTIONS)
    packed = inspect(tmp_path / "out")
    assert packed.parameters == found.parameters == report.parameters
    assert packed.size == report.size and packed.layers == report.layers
    assert packed.memory["plain"] < found.memory["plain"]
    assert (
        packed.memory["plain"] <= packed.memory["explain"] <= packed.memory["lime fast"] < packed.memory["lime exact"]
    )


@pytest.mark.parametrize("family", MODULES)
def test_spellings_and_parts_of_every_family(family, tmp_path):
    case = next(iter(MODULES[family].CASES))
    spellings = getattr(MODULES[family], "SPELLINGS", {})
    found = inspect(parity_checkpoint(case, tmp_path, "mlx" if "mlx" in spellings else "transformers"))
    if family != "qwen2_5_omni":  # there the tower's matrices stand apart in MLX's spelling, too
        assert found.spelling == ("mlx" if "mlx" in spellings or family == "text" else "transformers")
    assert found.problem and found.tokens is None  # there is no tokenizer
    if found.takes:
        assert {"decoder", "connector", "tower"} <= found.parts.keys()
    else:
        assert found.parts.keys() <= {"decoder", "embeddings", "head"}


def test_spelling_of_transformers(tmp_path):
    assert inspect(write(tmp_path, LLAVA, tf5(random_weights(LLAVA)))).spelling == "transformers"


def test_memory_is_about_what_is_measured():
    """Peaks of the demo, beside its weights."""
    model, processor = load("demo")
    prompt = processor.prompt("What is in the picture?", images=[make_scene(0, "ordinary").image])
    expected = memory_needed(model.language_model.config, 0, len(prompt), 8)
    for name, method, reliance in [
        ("plain", "none", False),
        ("explain", "none", True),
        ("lime fast", "lime:gate=1", False),
    ]:
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        list(decode(model, prompt, method, 8, reliance=reliance))
        peak = mx.get_peak_memory() - before
        assert 0.4 * peak < expected[name] < 1.6 * peak, name


def test_inspect_command(source):
    run = CliRunner().invoke
    shown = run(main, ["inspect", str(source), "--image-size", "640x480"])
    assert shown.exit_code == 0, shown.output
    assert "A picture of 640 x 480 pixels takes 4 tokens" in shown.stdout and "Not quantised." in shown.stdout
    whole = json.loads(run(main, ["inspect", str(source), "--json"]).stdout)
    assert whole["parts"]["head"]["parameters"] == 320 * 64 and whole["memory"]["lime exact"] > 0
    assert "1024x768" in run(main, ["inspect", str(source), "--image-size", "big"]).stderr
    assert run(main, ["inspect", str(source / "none")]).exit_code == 1


def test_inspect_refuses_what_cannot_be_loaded(source, tmp_path):
    with pytest.raises(CheckpointError, match="is missing"):
        inspect(write(tmp_path, LLAVA, dict(list(random_weights(LLAVA).items())[:-1])))


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload needs. `stored`: path in the repository to content; `asked`: what was called."""

    stored: dict[str, bytes]
    asked: list[str]
    token = "Bearer right"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        kind = re.sub(r".*/(create|preupload|batch|commit|validate-yaml)\b.*", r"\1", self.path)
        self.asked.append(kind)
        if self.headers.get("Authorization") != self.token and kind != "batch":
            return self.answer({"error": "no"}, 401)
        getattr(self, f"post_{kind.replace('-', '_')}")(body)

    def do_GET(self):
        allowed = self.headers.get("Authorization") == self.token
        self.answer({"id": "me/tiny", "siblings": [], "sha": "0" * 40}, 200 if allowed else 401)

    def post_create(self, body):
        assert json.loads(body)["name"] == "tiny"
        self.answer({"url": f"{self.home}/me/tiny"}, 409 if "commit" in self.asked else 200)

    def post_validate_yaml(self, body):
        self.answer({"errors": [], "warnings": []})

    def post_preupload(self, body):
        names = [file["path"] for file in json.loads(body)["files"]]
        mode = lambda name: "lfs" if name.endswith(".safetensors") else "regular"  # noqa: E731
        files = [{"path": name, "uploadMode": mode(name), "shouldIgnore": False} for name in names]
        self.answer({"files": files})

    def post_batch(self, body):
        objects = json.loads(body)["objects"]
        action = lambda oid: {"upload": {"href": f"{self.home}/lfs/{oid}"}}  # noqa: E731
        found = [{**item, "actions": action(item["oid"])} for item in objects]
        self.answer({"transfer": "basic", "objects": found}, kind="application/vnd.git-lfs+json")

    def do_PUT(self):
        self.stored[self.path.split("/")[-1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({})

    def post_commit(self, body):
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                import base64

                self.stored[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.stored[value["path"]] = self.stored.pop(value["oid"])
        self.answer({"commitUrl": f"{self.home}/me/tiny/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True})

    @property
    def home(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, content, status=200, kind="application/json"):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def address(monkeypatch, url):
    """Where the Hub is; its library reads that at import."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", url)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    handler = type("Here", (Hub,), {"stored": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # the Hub's library in its HTTP library
def test_upload(source, tmp_path, hub):
    """The whole folder in one commit, twice: a repository that is there already is no error."""
    folder = convert(source, tmp_path / "out", **OPTIONS).folder
    for _ in range(2):
        upload(folder, "me/tiny", token="right")
    assert hub.stored == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.asked.count("create") == hub.asked.count("commit") == 2


def test_upload_without_the_right(source, tmp_path, hub, monkeypatch):
    folder = convert(source, tmp_path / "out", **OPTIONS).folder
    with pytest.raises(ConversionError, match="HF_TOKEN"):
        upload(folder, "me/tiny", token="wrong")
    address(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(ConversionError, match="could not be uploaded"):
        upload(folder, "me/tiny", token="right")
    assert not hub.stored and folder.is_dir()


def test_conversion_uploads_only_when_asked(source, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(pipeline, "upload", lambda *arguments, **_: called.append(arguments))
    convert(source, tmp_path / "a", **OPTIONS)
    assert not called
    convert(source, tmp_path / "b", upload_repo="me/tiny", **OPTIONS)
    assert called == [(Path(tmp_path / "b"), "me/tiny")]
    assert "--model me/tiny" in (tmp_path / "b" / "README.md").read_text()
