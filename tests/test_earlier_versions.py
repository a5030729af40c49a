"""What version 0.1.0 wrote is read: the settings of a demo model, and a detector that it calibrated for a copy of it.

The fixtures are files that 0.1.0 wrote. The model was trained further since, and the answers below are its own.
"""

import json
import shutil
from pathlib import Path

import pytest

from lime_mlx.checkpoint.hub import demos
from lime_mlx.checkpoint.load import load
from lime_mlx.decoding import decode
from lime_mlx.files import fingerprint
from lime_mlx.methods import parse_method
from lime_mlx.scenes import make_scene
from lime_mlx.support.detector import Detector

# Keys and values that have a new spelling are read with a note.
pytestmark = pytest.mark.filterwarnings("ignore:.* is the old spelling of .*:FutureWarning")
FIXTURES = Path(__file__).parent / "fixtures"
CONFIG, DETECTOR = FIXTURES / "demo_config_0_1_0.json", FIXTURES / "detector_0_1_0.json"
# The name of the detector's file: it tells the checkpoint from others.
FINGERPRINT = "6717aa69c04b1fcc"
STATISTICS = {"share": 0.4, "positive": 0.3, "peak": 0.1, "certainty": -0.5}
# What the model says of scene 2: plainly, and by LIME with its own detector and with that of the fixture.
PLAIN = [266, 471, 450, 262, 364, 15, 262, 361, 15, 262, 412, 15, 262, 397, 326, 295, 444, 17, 2]
LIME = [266, 471, 450, 262, 364, 15, 262, 361, 15, 262, 412, 15, 262, 412, 326, 295, 444, 17, 2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of a user who has no detector yet."""
    monkeypatch.setenv("LIME_MLX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def copy(tmp_path, home):
    """The demo of pictures with the settings that 0.1.0 wrote for it."""
    folder = shutil.copytree(demos()["picture"], tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    settings = json.loads(CONFIG.read_text())["lime"]
    (folder / "config.json").write_text(json.dumps({**config, "lime": settings}))
    return folder


def answer(model, processor, method):
    prompt = processor.prompt("What is in the picture?", images=[make_scene(2, "ordinary").image])
    content = {} if prompt.language else {"content": processor.content}
    stop = frozenset(processor.eos_token_ids)
    return [step.token for step in decode(model, prompt, method, 48, stop=stop, **content)]


def test_a_demo_copy_keeps_its_fingerprint_its_settings_and_its_answers(copy):
    assert fingerprint(copy) == FINGERPRINT
    model, processor = load(copy)
    stored = json.loads(CONFIG.read_text())["lime"]
    assert model.config["lime"] == stored
    detector = Detector.from_config(model.config)
    assert dict(detector.weights) == stored["detector"]["weights"]
    assert (detector.intercept, detector.threshold) == (4.293, 0.462)
    for mode in ("fast", "exact"):
        lime = parse_method(f"lime:mode={mode}").prepare(model)
        assert (lime.options.steps, lime.options.lr, lime.words, lime.threshold) == (2, 0.2, "flagged", 0.3)
    assert answer(model, processor, "none") == PLAIN
    assert answer(model, processor, "lime") == LIME


def test_a_detector_is_found_by_the_fingerprint_and_used(copy, home):
    (home / "detectors").mkdir(parents=True)
    shutil.copy(DETECTOR, home / "detectors" / f"{FINGERPRINT}.json")
    model, processor = load(copy)
    stored = json.loads(DETECTOR.read_text())["detector"]
    detector = Detector.from_config(model.config)
    assert dict(detector.weights) == stored["weights"]
    assert (detector.intercept, detector.threshold) == (stored["intercept"], stored["threshold"])
    assert detector.p_unsupported(STATISTICS) == pytest.approx(0.4499965431615495, abs=1e-12)
    assert model.config["lime"]["fast"] == json.loads(CONFIG.read_text())["lime"]["fast"]
    assert answer(model, processor, "lime") == LIME


def test_a_detector_of_another_checkpoint_is_left_alone(copy, home):
    (home / "detectors").mkdir(parents=True)
    shutil.copy(DETECTOR, home / "detectors" / f"{FINGERPRINT[::-1]}.json")
    model, _ = load(copy)
    assert model.config["lime"] == json.loads(CONFIG.read_text())["lime"]
