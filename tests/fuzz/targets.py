"""What is tried: each target with its valid inputs, and what must hold of each input; see `target.py`."""

import io
import json
import math
import struct
import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from families import FAMILY_OF
from PIL import Image

from fuzz.mutate import CONTROL, Choose, changed_bytes, changed_json
from fuzz.prompt_caches import PROMPT_CACHES
from fuzz.requests import BODY, HTTP
from fuzz.target import ROOT, SEEDS, Target, dumped, own_room
from lime_mlx import limits
from lime_mlx.checkpoint import files as checkpoint_files
from lime_mlx.checkpoint.hub import demos
from lime_mlx.errors import LimeError


# --- config.json ------------------------------------------------------------------------------------------------------
def configs() -> list[bytes]:
    from checkpoints import LLAVA, LLAVA_NEXT, QWEN2_AUDIO

    demo = json.loads((demos()["picture"] / "config.json").read_text())
    cases = [family.CASES[name] for name, family in FAMILY_OF.items()]
    return dumped(LLAVA, LLAVA_NEXT, QWEN2_AUDIO, {**demo, "lime": {"fast": {"steps": 2}}}, *cases)


def try_config(data: bytes) -> bool:
    from lime_mlx.checkpoint.load import build

    folder = own_room("config")
    (folder / "config.json").write_bytes(data)
    config = checkpoint_files.read_config(folder)
    checkpoint_files.quantization(config)
    try:
        model = build(config)
    except LimeError:
        return config.get("model_type") in {case["model_type"] for case in _cases()}
    assert len(model.language_model.layers) <= limits.LAYERS.value
    _ = model.context
    return True


@cache
def _cases() -> list[dict]:
    return [family.CASES[name] for name, family in FAMILY_OF.items()] + [json.loads(one) for one in configs()]


# --- processor files --------------------------------------------------------------------------------------------------
PREPROCESSORS = [
    (
        "qwen2_vl",
        {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 3, "merge_size": 2, "temporal_patch_size": 2},
    ),
    (
        "qwen2_5_vl",
        {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "patch_size": 3, "image_mean": [0.5] * 3},
    ),
    ("llava", {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}, "do_center_crop": True}),
    ("llava", {"size": 28, "crop_size": 28, "image_std": [0.5] * 3, "rescale_factor": 0.00392, "resample": 3}),
    ("llava_next", {"size": {"shortest_edge": 28}, "crop_size": 28, "image_grid_pinpoints": [[28, 56], [56, 28]]}),
    ("gemma3", {"size": {"height": 12, "width": 12}, "do_pan_and_scan": True, "pan_and_scan_max_num_crops": 4}),
    ("idefics3", {"size": {"longest_edge": 48}, "max_image_size": {"longest_edge": 12}, "do_image_splitting": True}),
    ("qwen2_audio", {"feature_size": 16, "sampling_rate": 16000, "n_fft": 400, "hop_length": 160, "chunk_length": 1}),
    ("qwen2_audio", {"feature_extractor_type": "WhisperFeatureExtractor", "padding_value": 0.0, "dither": 0.0}),
]


def preprocessors() -> list[bytes]:
    return dumped(*({"family": family, "settings": settings} for family, settings in PREPROCESSORS))


def try_preprocessor(data: bytes) -> bool:
    from lime_mlx.checkpoint.load import _describing
    from lime_mlx.files import parse_json
    from lime_mlx.media.audio import Sound
    from lime_mlx.models import FAMILIES, family
    from lime_mlx.processor import Settings

    try:
        content = parse_json(data)
    except ValueError:
        return False
    if not isinstance(content, dict) or content.get("family") not in [name for name, _ in PREPROCESSORS]:
        return False
    settings, name = content.get("settings"), content["family"]
    if not isinstance(settings, dict):
        return False
    assert name in FAMILIES
    config = next(case for case in _cases() if case["model_type"] == name)
    with _describing(config):
        media = family(name).media(config, Settings(settings, settings, settings))
    for medium in media:
        if medium.kind == "image":
            prepared = medium.prepare([Image.new("RGB", (40, 30)), Image.new("L", (9, 31))])
        else:
            prepared = medium.prepare([Sound(np.zeros(3000, np.float32), 16_000)])
        for array in prepared.arrays.values():
            assert np.isfinite(array).all()
    return True


# --- safetensors ------------------------------------------------------------------------------------------------------
def headers() -> list[bytes]:
    def stored(shapes: dict[str, list[int]]) -> bytes:
        entries, end = {}, 0
        for name, shape in shapes.items():
            size = 4 * math.prod(shape)
            entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps({"__metadata__": {"format": "mlx"}, **entries}).encode()
        return struct.pack("<Q", len(text)) + text + bytes(end)

    return [stored({"a": [2, 3], "b.weight": [4], "c": []}), stored({"model.embed_tokens.weight": [8, 4]}), stored({})]


def try_header(data: bytes) -> bool:
    """The header alone is changed as JSON three times of four; see `Headers`."""
    import mlx.core as mx

    from lime_mlx.checkpoint.load import read_weights

    path = own_room("header") / "model.safetensors"
    path.write_bytes(data)
    tensors = checkpoint_files.header(path)
    stored = read_weights(path.parent)
    assert {name: array.nbytes for name, array in stored.items()} == {name: size for name, (_, size) in tensors.items()}
    (length,) = struct.unpack("<Q", data[:8])
    assert sum(size for _, size in tensors.values()) == len(data) - 8 - length, "the tensors do not tile the file"
    mx.eval(list(stored.values()))
    return True


class Headers(Target):
    """Changes the JSON of a header, or its bytes; the length before it is made right three times of four."""

    def drawn(self, choose: Choose) -> bytes:
        seed = self.seeds[choose(len(self.seeds))]
        if choose(4) == 0:
            return changed_bytes(seed, self.seeds, choose)
        (length,) = struct.unpack("<Q", seed[:8])
        text = changed_json(json.loads(seed[8 : 8 + length]), [], choose)
        return struct.pack("<Q", len(text)) + text + seed[8 + length :]


def indexes() -> list[bytes]:
    one = {
        "metadata": {"total_size": 24},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "b.safetensors"},
    }
    return dumped(one, {"weight_map": {"a": "x.safetensors"}})


def try_index(data: bytes) -> bool:
    folder = own_room("index")
    (folder / checkpoint_files.INDEX).write_bytes(data)
    names = checkpoint_files.weight_files(folder, {checkpoint_files.INDEX})
    assert all(Path(name).name == name and name.isprintable() for name in names)
    checkpoint_files.missing_files(folder)
    checkpoint_files.shards(folder)
    return True


# --- tokenizer, chat template -----------------------------------------------------------------------------------------
def tokenizers() -> list[bytes]:
    stored = json.loads((demos()["sound"] / "tokenizer.json").read_text())
    small = {**stored, "model": {**stored["model"], "merges": stored["model"]["merges"][:20]}}
    sentencepiece = {
        **small,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}]},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
    }
    split = {"type": "Split", "pattern": {"Regex": "\\s+|\\w+"}, "behavior": "Isolated", "invert": False}
    return dumped(small, sentencepiece, {**small, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split]}})


def try_tokenizer(data: bytes) -> bool:
    from lime_mlx.checkpoint.tokenizer import read_tokenizer

    folder = own_room("tokenizer", "sound")
    (folder / "tokenizer.json").write_bytes(data)
    tokenizer = read_tokenizer(folder, {})
    ids = tokenizer.encode("What do you hear? xxxxxxxxxx \n 12", add_special_tokens=False)
    assert all(isinstance(token, int) for token in ids)
    tokenizer.decode(ids)
    detokenizer = tokenizer.detokenizer
    for token in ids[:5]:
        detokenizer.add_token(token)
    detokenizer.finalize()
    return True


def tokenizer_settings() -> list[bytes]:
    folder = demos()["sound"]
    names = ("tokenizer_config.json", "generation_config.json")
    stored = [json.loads((folder / name).read_text()) for name in names]
    special = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "model_max_length": 1000}
    return dumped(*stored, {**stored[0], **special}, {**stored[0], "added_tokens_decoder": {"0": {"content": "<pad>"}}})


def try_tokenizer_settings(data: bytes) -> bool:
    from lime_mlx.checkpoint.tokenizer import read_template, read_tokenizer

    folder = own_room("settings", "sound")
    (folder / "tokenizer_config.json").write_bytes(data)
    (folder / "generation_config.json").write_bytes(data)
    read_template(folder)
    tokenizer = read_tokenizer(folder, {})
    tokenizer.encode("What do you hear?", add_special_tokens=False)
    return True


TEMPLATE_WORDS = (
    *("{{ 'x' * 3000000000 }}", "{{ 'ab' * 20000 * 90000 }}"),
    *(
        "{% for m in messages %}",
        "{% endfor %}",
        "{{ m.content }}",
        "{% if m.role == 'user' %}",
        "{% endif %}",
        "{{",
        "}}",
    ),
    *(
        "{%",
        "%}",
        "{#",
        "#}",
        "{%- ",
        " -%}",
        "|",
        "~",
        "+",
        "*",
        "**",
        "//",
        "%",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
    ),
    *(
        "range(99999)",
        "10**9",
        "'x' * 99999",
        "messages",
        "namespace(x=1)",
        "{% set ns.x = ns.x ~ ns.x %}",
        "ns.x",
        "loop",
    ),
    *(
        "| tojson(indent=9)",
        "| join('x')",
        "| replace('a', 'b')",
        "| center(99999)",
        "| list",
        "| map('upper')",
        "| sort",
    ),
    *(
        ".split('a')",
        ".replace('', 'xx')",
        ".format(1)",
        "'%99s' % 1",
        "{% macro m(n) %}",
        "{% endmacro %}",
        "m(1)",
        "self",
    ),
    *(
        "{% set x = [x, x] %}",
        "x",
        "{% block b %}",
        "{% endblock %}",
        "loop(m)",
        "recursive",
        "{% generation %}",
        "none",
    ),
    *(
        "raise_exception('x')",
        "strftime_now('%Y')",
        "lipsum()",
        "is defined",
        "not",
        "in",
        "{% raw %}",
        "{% endraw %}",
        "\n",
    ),
    *(
        "{% call m(1) %}",
        "{% endcall %}",
        "{% filter upper %}",
        "{% endfilter %}",
        "__class__",
        ".items()",
        CONTROL,
        "\N{DOG FACE}",
    ),
)


def templates() -> list[bytes]:
    paths = [*sorted((ROOT / "lime_mlx/models/templates").glob("*.jinja")), demos()["picture"] / "chat_template.jinja"]
    more = "{% set ns = namespace(x='a') %}{% macro m(n) %}[{{ n }}]{% endmacro %}{% for m in messages %}{{ m.role ~ ns.x }}"
    return [path.read_bytes() for path in paths] + [more.encode() + b"{{ m.content | trim }}{% endfor %}"]


def try_template(data: bytes) -> bool:
    from lime_mlx.templates import ChatTemplate, compiled

    text = data.decode(errors="replace")
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "Is it?"}]}]
    rendered = None
    try:
        rendered = ChatTemplate(text, {"bos_token": "<s>"})(messages)
    except LimeError as error:
        assert "\n" not in str(error)
    if rendered is None:
        try:
            compiled(text)
        except Exception:
            return False
        return True
    assert len(rendered) <= limits.TEMPLATE_TEXT.value
    return True


# --- media ------------------------------------------------------------------------------------------------------------
def pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    image, found = Image.fromarray(pixels), []
    for form, options in (
        *(("PNG", {}), ("JPEG", {"quality": 80}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {}), ("PPM", {})),
        *(("TIFF", {"compression": "tiff_lzw"}), ("PNG", {"optimize": True}), ("JPEG", {"progressive": True})),
    ):
        file = io.BytesIO()
        image.save(file, form, **options)
        found.append(file.getvalue())
    for mode in ("P", "LA", "RGBA", "I;16", "1", "CMYK"):
        file = io.BytesIO()
        image.convert("I;16" if mode == "I;16" else mode).save(file, "TIFF" if mode == "CMYK" else "PNG")
        found.append(file.getvalue())
    return found


def try_picture(data: bytes) -> bool:
    from lime_mlx.media.formats import kind_of
    from lime_mlx.media.image import open_image

    if not data:
        return False
    try:
        picture = open_image(data)
    except LimeError:
        return kind_of(data) == "picture"
    assert picture.mode == "RGB" and min(picture.size) >= 2
    return True


def sounds() -> list[bytes]:
    samples = (0.3 * np.sin(np.arange(2400) / 9)).astype(np.float32)
    found = []
    for form, kind in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("AIFF", "PCM_16"), ("AU", "PCM_16"),
                       ("CAF", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("MP3", "MPEG_LAYER_III")):  # fmt: skip
        file = io.BytesIO()
        soundfile.write(file, samples, 8000, format=form, subtype=kind)
        found.append(file.getvalue())
    file = io.BytesIO()
    with wave.open(file, "wb") as stereo:
        stereo.setnchannels(2)
        stereo.setsampwidth(1)
        stereo.setframerate(44100)
        stereo.writeframes(bytes(4000))
    return [*found, file.getvalue()]


def try_sound(data: bytes) -> bool:
    from lime_mlx.media.audio import open_audio
    from lime_mlx.media.formats import kind_of

    if not data:
        return False
    try:
        sound = open_audio(data)
    except LimeError:
        return kind_of(data) == "sound"
    assert sound.rate == 16_000 and np.isfinite(sound.samples).all() and np.abs(sound.samples).max() <= 1
    return True


# --- benchmark files, records, detectors ------------------------------------------------------------------------------
def benchmarks() -> list[bytes]:
    question = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"}
    pope = [question, {**question, "question_id": 2, "label": "no"}]
    table = {"annotations_sha256": "0" * 64, "objects": ["cat", "dog"], "images": {"1": [0, 1], "2": []}}
    relation = {"dog": ["animal", "puppy"], "cat": ["animal"]}
    amber = [
        {"id": 1, "image": "a.jpg", "query": "Describe this image."},
        {"id": 2, "image": "b.jpg", "query": "Is it?"},
    ]
    return dumped(*({"kind": kind, "content": one} for kind, one in enumerate((pope, table, relation, amber))))


def try_benchmark(data: bytes) -> bool:
    from lime_mlx.evaluate.data.coco import made_from
    from lime_mlx.evaluate.tasks.amber import _entries
    from lime_mlx.evaluate.tasks.chair import _table
    from lime_mlx.evaluate.tasks.pope import read_questions

    try:
        wrapped = json.loads(data)
    except (ValueError, RecursionError):
        wrapped = None
    content = json.dumps(wrapped["content"]).encode() if isinstance(wrapped, dict) and "content" in wrapped else data
    kind = wrapped.get("kind") if isinstance(wrapped, dict) else 0
    path = own_room("benchmark") / "file.json"
    path.write_bytes(content)
    if kind == 1:
        assert all(isinstance(names, list) for names in _table(path).values())
        made_from(path)
    elif kind == 3:
        _entries(path, ("id", "image", "query"))
    else:
        questions = read_questions(path)
        assert questions and all(question.label in ("yes", "no") for question in questions)
    return True


def records() -> list[bytes]:
    one = {
        "id": "a/1",
        "medium": "100000",
        "split": "yes/no",
        "prompt": "Is there a dog?",
        "label": "yes",
        "truth": None,
    }
    two = {
        "id": "caption/1",
        "medium": "100000",
        "split": "caption",
        "prompt": "Describe.",
        "label": None,
        "truth": ["dog"],
    }
    return dumped(
        {**one, "text": "Yes.", "tokens": [5, 6], "steps": 3, "reliance": [0.5, None], "seconds": 0.1, "memory": 0.2},
        {**two, "text": "A dog and a cat.", "tokens": [5], "steps": 3, "reliance": None, "numerical_faults": 1},
        {**one, "error": "no such file"},
    )


def try_record(data: bytes) -> bool:
    from lime_mlx.evaluate.store import Cell, Store
    from lime_mlx.evaluate.summary import rows, summarise

    store = Store(own_room("record"))
    path = store.folder / "answers" / "m" / "none" / "scenes.jsonl"
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        tasks = {"scenes": {"questions": 1, "sha256": "x"}}
        settings = {"common": {}, "models": {"m": "x"}, "methods": ["none"], "tasks": tasks, "data": None}
        (store.folder / "settings.json").write_text(json.dumps(settings))
        (store.folder / "material").mkdir()
        (store.folder / "material" / "scenes.json").write_text("{}")
    path.write_bytes(b"".join(line + b"\n" for line in [data.replace(b"\n", b" "), *records()]))
    answers = store.answers(Cell("m", "none", "scenes"))
    assert answers.records
    json.dumps(rows(summarise(store, "ours")))
    return True


def detectors() -> list[bytes]:
    config = json.loads((demos()["picture"] / "config.json").read_text())["lime"]
    domain = {**config["domain"]}
    promise = {"risk": 0.02, "confidence": 0.9, "threshold": 0.4, "procedure": "drop", "pictures": 900, "loss": 0.01}
    promise |= {"recall": 0.8, "kept": 0.9, "task": "scenes", "medium": "image", "question": "What is there?"}
    promise |= {"tokens": 32, "weights": "0" * 16, "detector": "0" * 8}
    return dumped(
        {"detector": config["detector"]},
        {"detector": {key: value for key, value in config["detector"].items() if key != "asking"}, "promise": promise},
        {"detector": config["detector"], "domain": domain, "yes": {"threshold": 0.5}},
    )


def try_detector(data: bytes) -> bool:
    from lime_mlx.files import read_json
    from lime_mlx.support.detector import Detector
    from lime_mlx.support.domain import Domain
    from lime_mlx.support.promise import Promise

    path = own_room("detector") / "detector.json"
    path.write_bytes(data)
    stored = read_json(path)
    detector = Detector.parse(stored.get("detector"), "x")
    p = detector.p_unsupported({**dict.fromkeys(detector.weights, 0.5), "margin": 1.0})
    assert 0 <= p <= 1 and len(detector.digest) == 8
    if stored.get("domain") is not None:
        domain = Domain.parse(stored["domain"], "x")
        assert domain.inside(np.zeros(len(domain.mean))) in (True, False)
    if stored.get("promise") is not None:
        Promise.parse(stored["promise"], "x")
    return True


# --- specs and command lines ------------------------------------------------------------------------------------------
SPEC_WORDS = (
    *(
        "lime",
        "choose",
        "vcd",
        "kvsmooth",
        "dleaf",
        "m3id",
        "pai",
        "heads",
        "sham",
        "selfval",
        "only",
        "flb",
        "none",
        "+",
    ),
    *(
        ":",
        ",",
        "=",
        "mode=exact",
        "steps=3",
        "lr=3e-4",
        "layers=0-15",
        "layers=3-",
        "words=all",
        "alpha=1",
        "beta=0.1",
        "k=8",
    ),
    *(
        "seed=0",
        "-1",
        "1e308",
        "nan",
        "inf",
        "1e400",
        "9" * 40,
        "true",
        "",
        " ",
        "all",
        "0x10",
        "1_000",
        CONTROL,
        "x" * 5000,
    ),
    *(
        "pope",
        "chair",
        "scenes",
        "amber",
        "set=coco",
        "split=all",
        "relevance:bits=3.5",
        "samples=16",
        "\ufffd",
        "\N{DOG FACE}",
    ),
)


def specs() -> list[bytes]:
    methods = "lime:mode=exact,steps=7,lr=3e-4 kvsmooth+lime:words=all vcd:alpha=1,beta=0.1 choose:k=8 pope:set=coco,split=all"
    return [
        spec.encode() for spec in [*methods.split(), "sham:yes=1,length=20", "pai:layers=0-15", "relevance:bits=3.5"]
    ]


def try_spec(data: bytes) -> bool:
    from lime_mlx.convert.options import Options
    from lime_mlx.evaluate.tasks import parse_task
    from lime_mlx.methods import Method, parse_method

    text, valid = data.decode(errors="replace"), False
    for parse in (parse_method, parse_task, lambda spec: Options(quantize=True, quant_predicate=spec)):
        try:
            chosen = parse(text)
        except LimeError as error:
            assert "\n" not in str(error) and len(str(error)) <= 1500
            continue
        valid = True
        assert not isinstance(chosen, Method) or hash(chosen) is not None
    return valid or text.split(":")[0].split("+")[0].strip() in SPEC_WORDS


COMMAND_WORDS = (
    *(
        "generate",
        "explain",
        "convert",
        "evaluate",
        "report",
        "score",
        "data",
        "inspect",
        "models",
        "list",
        "get",
        "pope",
    ),
    *(
        "--image",
        "--audio",
        "-p",
        "--model",
        "--method",
        "--max-tokens",
        "--temperature",
        "--top-p",
        "--seed",
        "--stop",
        "--json",
    ),
    *(
        "--output",
        "x.html",
        "/dev/null",
        "--limit",
        "--task",
        "--scorer",
        "--output-dir",
        "--hf-path",
        "--mlx-path",
        "-q",
        "--q-bits",
    ),
    *(
        "0",
        "-1",
        "1e308",
        "nan",
        "9" * 30,
        "",
        "-",
        "--",
        "~nobody/x",
        "/proc/self/mem",
        "no-such-model",
        "lime:steps=x",
        CONTROL,
    ),
    *(
        "\ufffd",
        "x" * 5000,
        "--help",
        "--risk",
        "0.02",
        "--calibrate",
        "--explain",
        "--flag",
        "--quiet",
        "--image-size",
        "5x5",
    ),
)


def command_lines() -> list[bytes]:
    lines = [
        *("generate -p x --model no-such-model", "explain x.png", "score /no/run", "report /no/run --output x.html"),
        *(
            "convert --hf-path no-such-model --mlx-path out -q",
            "evaluate --task pope --model no-such-model --data /no/data",
        ),
        *(
            "inspect no-such-model --image-size 33x44",
            "generate x.png --max-tokens 5",
            "data list --dir /no/data",
            "models --json",
        ),
    ]
    return ["\n".join(line.split()).encode() for line in lines]


def try_command(data: bytes) -> bool:
    """The words stand on lines of their own. Models are never named well enough to be found."""
    from click.testing import CliRunner

    from lime_mlx.cli import COMMANDS, main

    words = [word.replace("\0", "") for word in data.decode(errors="replace").split("\n")]
    if "demo" in words or "demo-sound" in words or not words:
        return False
    needs_model = words[0] in ("generate", "explain", "evaluate")
    words += ["--model", "no-such-model"] if needs_model and "--help" not in words else []
    if words[0] == "data" and "get" in words:
        words += ["--from", "/no/folder", "--dir", "/no/data"]
    result = CliRunner().invoke(main, words, env={"LIME_MLX_HOME": "/dev/null", "HF_HUB_OFFLINE": "1"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2), result.exit_code
    assert "please report" not in result.output and "Traceback" not in result.output, result.output[:400]
    assert not any(control in result.output for control in ("\x1b", "\x07", "\x9b")), repr(result.output[:400])
    return words[0] in COMMANDS


# --- a whole model ----------------------------------------------------------------------------------------------------
def whole_models() -> list[bytes]:
    config = json.loads((demos()["picture"] / "config.json").read_text())
    config["lime"] = {key: value for key, value in config["lime"].items() if key != "domain"}
    files = ("preprocessor_config.json", "processor_config.json", "generation_config.json")
    return dumped(
        {"config.json": config, **{name: json.loads((demos()["picture"] / name).read_text()) for name in files}}
    )


METHODS = ("none", "vcd", "lime:words=all,steps=2", "choose", "pai", "m3id+kvsmooth", "only", "flb")


def try_model(data: bytes) -> bool:
    """Load the demo with changed files, and answer with three tokens: finite, or an error."""
    from lime_mlx import generate, load

    content, folder = json.loads(data), own_room("model", "picture")
    if not isinstance(content, dict):
        return False
    for name, stored in content.items():
        if name in ("config.json", "preprocessor_config.json", "processor_config.json", "generation_config.json"):
            (folder / name).write_text(json.dumps(stored))
    model, processor = load(folder)
    method = METHODS[len(data) % len(METHODS)]
    answer = generate(
        model, processor, "What is there?", image=Image.new("RGB", (50, 40), "red"), method=method, max_tokens=3
    )
    assert all(value is None or 0 <= value <= 1 for value in answer.reliance)
    json.dumps(answer.to_dict(), allow_nan=False)
    return True


# --- HTTP -------------------------------------------------------------------------------------------------------------
def responses() -> list[bytes]:
    picture = pictures()[0]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(picture)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    moved = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
    return [head + picture, chunked, moved, b"HTTP/1.0 200 OK\r\n\r\n" + picture, b"HTTP/1.1 404 Not Found\r\n\r\n"]


def try_response(data: bytes) -> bool:
    from fuzz.server import served
    from lime_mlx.media.fetch import download

    with served(data) as address:
        content, kind = download(address, max_bytes=1 << 20, timeout=3.0)
    assert len(content) <= 1 << 20 and isinstance(kind, str)
    return True


CHECKPOINT = ("checkpoint/files.py", "files.py")
TARGETS = {
    target.name: target
    for target in (
        Target("config", configs, try_config, ("models/config.py", "models/rope.py", "checkpoint/files.py")),
        Target(
            "processor", preprocessors, try_preprocessor, ("media/preprocess.py", "media/patches.py", "media/mel.py")
        ),
        Headers("header", headers, try_header, CHECKPOINT, "bytes"),
        Target("index", indexes, try_index, CHECKPOINT),
        Target("tokenizer", tokenizers, try_tokenizer, ("checkpoint/tokenizer.py",)),
        Target(
            "tokenizer-settings", tokenizer_settings, try_tokenizer_settings, ("checkpoint/tokenizer.py", "files.py")
        ),
        Target("template", templates, try_template, ("templates.py",), "text", TEMPLATE_WORDS),
        Target("picture", pictures, try_picture, ("media/image.py", "media/formats.py"), "bytes"),
        Target("sound", sounds, try_sound, ("media/audio.py", "media/formats.py"), "bytes"),
        Target(
            "benchmark", benchmarks, try_benchmark, ("evaluate/tasks/pope.py", "evaluate/tasks/chair.py", "files.py")
        ),
        Target("record", records, try_record, ("evaluate/store.py", "evaluate/summary.py")),
        Target("detector", detectors, try_detector, ("support/detector.py", "support/domain.py", "support/promise.py")),
        Target("spec", specs, try_spec, ("spec.py", "methods/__init__.py"), "text", SPEC_WORDS),
        Target(
            "command",
            command_lines,
            try_command,
            ("cli/__init__.py", "cli/common.py"),
            "text",
            COMMAND_WORDS,
            slow=True,
        ),
        Target("response", responses, try_response, ("media/fetch.py",), "bytes", slow=True),
        Target(
            "model", whole_models, try_model, ("checkpoint/load.py", "generation.py", "methods/guard.py"), slow=True
        ),
        BODY,
        HTTP,
        *PROMPT_CACHES,
    )
}


def stored_seeds(target: str) -> Iterator[Path]:
    """The inputs that once were finds."""
    yield from sorted(path for path in (SEEDS / target).glob("*") if path.is_file())
