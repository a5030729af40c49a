"""The notebook of the examples runs, says what it says in the repository, and its answers can be clicked.

`python tests/test_notebook.py --write` runs it again and stores what it gives.
"""

import sys
from pathlib import Path

import pytest
from browser import chromium

NOTEBOOK = Path(__file__).parents[1] / "examples/explain.ipynb"


def read(path: Path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install nbclient ipykernel")
    return nbformat.read(path, as_version=4)


def run(notebook):
    """The notebook with what its cells give now."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install ipykernel")
    client = nbclient.NotebookClient(
        notebook, timeout=300, record_timing=False, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    done = client.execute()
    for cell in done.cells:  # what libraries warn of depends on the machine, and names its folders
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return done


def plain(notebook) -> list[list[str]]:
    """What each cell gives as plain text."""
    return [
        [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", ())]
        for cell in notebook.cells
    ]


def answers(notebook) -> list[str]:
    """The HTML of the answers."""
    html = [
        output.get("data", {}).get("text/html", "") for cell in notebook.cells for output in cell.get("outputs", ())
    ]
    return [each for each in html if "lime-views" in each]


def test_it_names_no_folder_of_a_machine():
    text = NOTEBOOK.read_text("utf-8")
    assert "site-packages" not in text and "stderr" not in text


@pytest.mark.slow
def test_the_notebook_runs_and_says_what_is_stored():
    stored = read(NOTEBOOK)
    assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code")
    assert plain(run(read(NOTEBOOK))) == plain(stored)


def test_its_answers_can_be_clicked(tmp_path):
    pieces = answers(read(NOTEBOOK))
    assert len(pieces) == 2
    page = tmp_path / "notebook.html"
    page.write_text("<!DOCTYPE html><title>A notebook</title>" + "".join(pieces), "utf-8")
    with chromium() as browser:
        browser.open(page)
        browser.all(".lime-word")[4].click()
        assert browser.all('.lime-word[aria-pressed="true"]')[0].text == "dog,"
        assert browser.run("return !document.querySelector('.lime-map').hidden")
        assert len(browser.all(".lime-answer")) == 2 and not browser.all(".lime-fallback")
        assert browser.console() == [] and browser.requests() == [page.as_uri()]


def test_without_a_script_its_words_are_coloured():
    for piece in answers(read(NOTEBOOK)):
        fallback = piece.split('<div class="lime-fallback">')[1].split("<script")[0]
        assert "background:rgba" in fallback and "unsupported" in fallback


if __name__ == "__main__" and "--write" in sys.argv:
    import nbformat

    written = run(read(NOTEBOOK))
    for each in written.cells:
        each.metadata = {}
    nbformat.write(written, NOTEBOOK)
