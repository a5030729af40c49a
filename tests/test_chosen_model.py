"""Which model a command uses: --model, $LIME_MLX_MODEL, the user's settings, the demo; and who is named for it."""

import pytest
from click.testing import CliRunner
from PIL import Image

from lime_mlx.checkpoint.choice import Choice, chosen_model
from lime_mlx.cli import main
from lime_mlx.cli.evaluate import chosen_models
from lime_mlx.errors import CheckpointError, LimeError
from lime_mlx.settings import set_default_model, settings_file


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("LIME_MLX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LIME_MLX_MODEL", raising=False)


def test_the_order(monkeypatch):
    assert chosen_model(None) == Choice(None, "demo")
    file = set_default_model("me/settled")
    assert chosen_model(None) == Choice("me/settled", "settings")
    assert chosen_model(None).note == f"Using me/settled, as your settings say ({file})."
    monkeypatch.setenv("LIME_MLX_MODEL", "me/variable")
    chosen = chosen_model(None)
    assert (chosen.name, chosen.origin) == ("me/variable", "environment")
    assert chosen.note == "Using me/variable, as $LIME_MLX_MODEL says; your settings name me/settled."
    chosen = chosen_model("me/typed")
    assert (chosen.name, chosen.origin) == ("me/typed", "option")
    assert chosen.note == "Using me/typed, as --model says; $LIME_MLX_MODEL names me/variable."
    monkeypatch.setenv("LIME_MLX_MODEL", "")
    assert chosen_model(None).origin == "settings"


def test_an_option_that_overrules_nothing_needs_no_note():
    assert chosen_model("me/typed").note is None
    set_default_model("me/typed")
    assert chosen_model("me/typed").note is None


def test_broken_settings_count_only_where_they_decide(monkeypatch):
    settings_file().parent.mkdir()
    settings_file().write_text("{")
    with pytest.raises(LimeError, match="mend this settings file, or delete it and run lime-mlx setup"):
        chosen_model(None)
    assert chosen_model("me/typed").note is None
    monkeypatch.setenv("LIME_MLX_MODEL", "me/variable")
    assert chosen_model(None).note == "Using me/variable, as $LIME_MLX_MODEL says."


def test_an_error_says_who_named_the_model():
    set_default_model("me/settled")
    line = r"^It is not there; me/settled was taken as your settings say \(.*\)\.$"
    with pytest.raises(CheckpointError, match=line), chosen_model(None).blamed():
        raise CheckpointError("It is not there.")
    with pytest.raises(CheckpointError, match=r"^It is not there\.$"), chosen_model("me/typed").blamed():
        raise CheckpointError("It is not there.")


def test_the_commands_follow_it(tmp_path):
    picture = tmp_path / "photo.png"
    Image.new("RGB", (40, 40), "red").save(picture)

    def run(*arguments):
        return CliRunner().invoke(main, [*arguments, str(picture), "--max-tokens", "1"])

    assert "Using the bundled demo model, which knows drawn scenes" in run("generate").stderr
    set_default_model("./nowhere")
    for command in ("generate", "explain"):
        result = run(command)
        assert result.exit_code == 1
        line = f"./nowhere was taken as your settings say ({settings_file()})."
        assert result.stderr.startswith("Error: There is no folder './nowhere'") and result.stderr.strip().endswith(
            line
        )
        assert result.stderr.count("\n") == 1
    result = run("generate", "--model", "demo")
    assert result.exit_code == 0
    assert "Using demo, as --model says; your settings name ./nowhere." in result.stderr


def test_evaluate_follows_it(monkeypatch):
    notes: list[str] = []
    assert chosen_models([], ["scenes"], notes) == ["demo"]
    assert chosen_models([], ["scenes", "sounds"], notes) == ["demo", "demo-sound"]
    assert "drawn scenes and synthesised sounds" in notes[-1]
    set_default_model("me/settled")
    assert chosen_models([], ["scenes"], notes) == ["me/settled"]
    assert "as your settings say" in notes[-1]
    assert chosen_models(["a", "b"], ["scenes"], notes) == ["a", "b"]
    monkeypatch.setenv("LIME_MLX_MODEL", "me/variable")
    assert chosen_models([], ["scenes"], notes) == ["me/variable"]


def test_evaluate_says_who_named_a_model_that_is_not_there(tmp_path):
    set_default_model("./nowhere")
    result = CliRunner().invoke(main, ["evaluate", "--task", "scenes:count=1,part=validation", "--quiet"])
    assert result.exit_code == 1
    assert result.stderr.strip().endswith(f"./nowhere was taken as your settings say ({settings_file()}).")
