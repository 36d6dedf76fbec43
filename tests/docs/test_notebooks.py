"""The notebooks run from top to bottom."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


FEW_IMAGES = """
from tsstore.demo import mnist
all_images = mnist.test_images
mnist.test_images = lambda: tuple(each[:2000] for each in all_images())
"""


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize(
    ("before", "states"),
    [(FEW_IMAGES, ""), pytest.param("", "546,290", marks=pytest.mark.slow)],
    ids=["of few images", "of all"],
)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, before, states, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    with warnings.catch_warnings():
        # The notebook's kernel is another process: what its client warns of is not ours.
        warnings.simplefilter("ignore")
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(path, as_version=4)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(before))
        NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    found = outputs(notebook)
    assert not [output for output in found if output.output_type == "error"]
    assert not [o for o in found if o.output_type == "stream" and o.name == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in found) == 2
    text = "".join(str(output.get("data", output.get("text"))) for output in found)
    for words in ("sample-limited", "conv_3_post_states 2000", states):
        assert words in text


def test_there_is_a_tutorial():
    assert "tutorial" in [path.stem for path in NOTEBOOKS]
