"""The files around the code: they agree with the package, and with each other."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from lime_mlx import __version__

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path):
    # YAML reads the key `on` of a workflow as true.
    content = yaml.safe_load((ROOT / path).read_text())
    return {"on" if key is True else key: value for key, value in content.items()}


def project():
    return (ROOT / "pyproject.toml").read_text()


def test_ci_runs_on_both_systems_and_every_python_that_the_package_names():
    workflow = read(".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    matrix = job["strategy"]["matrix"]
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)", project())
    assert len([system for system in matrix["os"] if system.startswith("ubuntu")]) == 1
    # Runners of macOS 14 and later are Apple silicon.
    assert [int(system.removeprefix("macos-")) >= 14 for system in matrix["os"] if "macos" in system] == [True]
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert {"push", "pull_request", "workflow_call"} <= workflow["on"].keys()
    groups = [group for group in re.findall(r"'([a-z,]+)'", job["env"]["EXTRAS"]) if "," in group]
    extras = {name for group in groups for name in group.split(",")}
    assert extras == {"cpu", "dev", "server", "types"} <= set(re.findall(r"^([a-z0-9]+) = \[", project(), re.M))


def test_a_release_is_checked_built_and_published_without_a_token():
    jobs = read(".github/workflows/release.yml")["jobs"]
    assert jobs["check"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs["publish"]["needs"] == ["check", "build"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()
    (step,) = [step["run"] for step in jobs["build"]["steps"] if "tag names" in step.get("name", "")]
    for tag, right in ((f"v{__version__}", True), ("v0.0.0", False)):
        done = subprocess.run(["bash", "-c", step], cwd=ROOT, env={"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": tag})
        assert (done.returncode == 0) == right


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_the_forms_of_issues(path):
    form = read(path)
    if path.stem == "config":
        return
    assert {"name", "description", "body"} <= form.keys()
    names = [field["id"] for field in form["body"]]
    assert len(names) == len(set(names))
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "checkboxes") and field["attributes"]["label"]


def test_a_new_family_is_asked_for_its_parity():
    assert {path.stem for path in FORMS} == {"bug", "config", "family", "feature"}
    for path in (".github/ISSUE_TEMPLATE/family.yml", ".github/pull_request_template.md"):
        assert "python benchmarks/parity.py <model_type>" in (ROOT / path).read_text()


def test_the_citation_names_the_version_and_the_authors():
    citation = read("CITATION.cff")
    assert citation["version"] == __version__
    assert citation["authors"] == [{"name": "the lime-mlx authors"}]
    assert citation["license"] in project()
    for reference in citation["references"]:
        (identifier,) = reference["identifiers"]
        assert identifier["value"].removeprefix("arXiv:") in (ROOT / "NOTICE").read_text()


def test_the_hooks_call_what_make_lint_calls():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    makefile = (ROOT / "Makefile").read_text()
    for hook in repository["hooks"]:
        command = " ".join(hook["entry"].split()[:2])
        assert command in makefile and hook["language"] == "system"
