"""`lime-mlx doctor MODEL`: by template, levels, features, logits and relevance, whatever the words are."""

import json
from dataclasses import replace

import mlx.core as mx
import pytest
from click.testing import CliRunner
from PIL import ImageOps

from lime_mlx.checkpoint.hub import demos
from lime_mlx.checkpoint.load import load_model, load_processor
from lime_mlx.cli import main
from lime_mlx.doctor.findings import BROKEN, CANNOT_TELL, WORKS
from lime_mlx.doctor.local import Section, examine_loaded
from lime_mlx.doctor.luck import LIMIT
from lime_mlx.doctor.pictures import swapped
from lime_mlx.errors import PromptError
from lime_mlx.processor import Processor


def loaded(name: str):
    folder = demos()[name]
    return load_model(folder), load_processor(folder), folder


def changed(processor: Processor, kind: str, change) -> Processor:
    """The processor, whose pictures or sounds are changed before they are prepared."""
    medium = processor._media[kind]
    processor._media[kind] = replace(medium, prepare=lambda sources: medium.prepare([change(one) for one in sources]))
    return processor


@pytest.mark.parametrize(("name", "noun"), [("picture", "picture"), ("sound", "sound")])
def test_a_demo_works(name, noun):
    report = examine_loaded(*loaded(name), "the demo")
    assert report.status == WORKS and report.exceptions == []
    assert report.nouns == [noun]
    assert [one for one in report.findings if one.status == CANNOT_TELL] == []
    assert all(one.luck is not None and one.luck <= LIMIT for one in report.findings)
    assert 0 < report.details[f"{noun}_reliance"] < 1
    assert report.details[f"{noun}_tokens"] > 0
    assert "ASSISTANT:" in report.details[f"{noun}_template"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, "BGR"),
        (ImageOps.mirror, "mirrored"),
        (ImageOps.flip, "upside down"),
        (lambda picture: picture.rotate(-90, expand=True), "rotated by 90"),
        (lambda picture: picture.rotate(180), "rotated by 180"),
        (ImageOps.invert, "inverted"),
        (lambda picture: picture.convert("L").convert("RGB"), "grey"),
        (lambda picture: picture.resize((50, 50)).resize(picture.size), "shrunk"),
    ],
    ids=["BGR", "mirrored", "flipped", "rotated", "turned over", "inverted", "grey", "shrunk"],
)
def test_a_fault_of_the_pixels_is_named(change, words):
    model, processor, folder = loaded("picture")
    rows = Section(model, changed(processor, "image", change), folder, "image").levels()
    faults = [row.fault for row in rows if row.status == BROKEN]
    assert any(words in fault for fault in faults), rows


def test_features_that_do_not_depend_on_the_picture_are_named():
    model, processor, folder = loaded("picture")
    projector = model.multi_modal_projector.linear_2
    projector.weight = mx.zeros_like(projector.weight)
    report = examine_loaded(model, processor, folder, "it")
    assert "the features do not depend on the picture" in report.faults
    assert "the picture does not reach the logits" in report.faults


def test_a_template_that_loses_the_picture_is_named():
    model, processor, folder = loaded("picture")
    deaf = Processor(
        processor.tokenizer,
        "{% for m in messages if m['content'] is not string %}{{ m['content'][-1]['text'] }}{% endfor %}",
        processor.model_type,
        559,
        list(processor._media.values()),
    )
    report = examine_loaded(model, deaf, folder, "it")
    assert report.faults == ["the chat template loses the picture"] and report.exit_code == 1


def test_a_sound_whose_bands_are_turned_is_named():
    model, processor, folder = loaded("sound")
    medium = processor._media["audio"]

    def turned(sources):
        made = medium.prepare(sources)
        return made._replace(arrays={**made.arrays, "input_features": made.arrays["input_features"][:, ::-1].copy()})

    processor._media["audio"] = replace(medium, prepare=turned)
    rows = Section(model, processor, folder, "audio").levels()
    assert "the bands are not in the order of pitch" in [row.fault for row in rows]


def test_a_model_of_text_alone_is_one_sentence():
    model, processor, folder = loaded("picture")
    text = Processor(processor.tokenizer, None, "llama", 559)
    with pytest.raises(PromptError, match="reads text only"):
        examine_loaded(model, text, folder, "it")


def test_the_command_prints_a_table_and_json():
    done = CliRunner().invoke(main, ["doctor", "demo"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == "demo works: it sees its pictures."
    assert "relevance" in done.stdout and "cannot tell" not in done.stdout
    done = CliRunner().invoke(main, ["doctor", "demo-sound", "--json"])
    values = json.loads(done.stdout)
    assert values["verdict"] == "works" and values["media"] == ["sound"]
    assert {"name", "status", "reason", "luck", "fault", "minor"} == set(values["probes"][0])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["doctor"], 2),
        (["doctor", "demo", "--url", "http://127.0.0.1:1/v1"], 2),
        (["doctor", "demo", "--model", "x"], 2),
        (["doctor", "/no/such/folder"], 1),
    ],
)
def test_wrong_usage(words, code):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == code and done.stdout == ""
    assert "Traceback" not in done.stderr
