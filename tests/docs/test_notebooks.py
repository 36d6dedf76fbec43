"""The notebooks run from top to bottom, and hold what they show.

``TSSTORE_GOLDEN=write python -m pytest -n 0 -m slow tests/docs/test_notebooks.py`` runs them in a
kernel of their own, and stores their outputs.
"""

from __future__ import annotations

import ast
import os
import warnings
from functools import partial
from pathlib import Path

import nbformat
import pytest
import torch

NOTEBOOKS = {path.stem: path for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb")}
PICTURES = {"tutorial": 2, "transformer": 1, "checkpoints_and_classes": 4, "cluster": 0}
SAID = {
    "tutorial": ("sample-limited", "conv_3_post_states"),
    "transformer": ("blocks.0.act", "sentence"),
    "checkpoints_and_classes": ("all layers", "network efficiency", "shuffled labels"),
    "cluster": ("projected peak", "True", "conv_2"),
}
"""What outputs tell, by notebook."""


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def told(notebook):
    """Return all outputs as text, but for pictures."""
    found = [output for cell in code(notebook) for output in cell.outputs]
    assert {output.output_type for output in found} <= {"execute_result", "display_data", "stream"}
    assert not [o for o in found if o.output_type == "stream" and o.name == "stderr"]
    # What a cell prints comes in as many pieces as its kernel happens to send.
    return "".join(
        o.text if o.output_type == "stream" else o.data["text/plain"] + "\n" for o in found
    )


def shown(source):
    """Run a cell as a notebook does; yield the text of its last expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) and not source.endswith(";") else None
    yield ast.Module(body, [])
    if last is not None:
        yield ast.Interactive([last])


def test_each_notebook_is_tried_here():
    assert set(NOTEBOOKS) == set(PICTURES) == set(SAID)


@pytest.fixture
def as_in_a_kernel(monkeypatch, tmp_path):
    """Let a notebook change this process for a while: of few images, workers that are threads."""
    import distributed
    from matplotlib import pyplot

    from tsstore.demo import mnist

    images, threads, every = mnist.test_images, torch.get_num_threads(), distributed.LocalCluster
    few = partial(every, processes=False)
    monkeypatch.setattr(mnist, "test_images", lambda: tuple(one[:2000] for one in images()))
    monkeypatch.setattr(distributed, "LocalCluster", few)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pyplot.close("all")
    yield
    torch.set_num_threads(threads)
    pyplot.close("all")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name, as_in_a_kernel, capsys):
    from matplotlib import pyplot

    names, pictures = {"__name__": "notebook"}, 0
    for number, cell in enumerate(code(nbformat.read(NOTEBOOKS[name], 4))):
        for tree in shown(cell.source):
            kind = "single" if isinstance(tree, ast.Interactive) else "exec"
            exec(compile(tree, f"{name}, cell {number}", kind), names)
        pictures += len(pyplot.get_fignums())
        pyplot.close("all")
    printed, said = capsys.readouterr()
    assert all(words in printed for words in SAID[name])
    assert said == ""
    assert pictures == PICTURES[name]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_holds_what_it_shows(name):
    notebook = nbformat.read(NOTEBOOKS[name], 4)
    assert [cell.execution_count for cell in code(notebook)] == [*range(1, len(code(notebook)) + 1)]
    text = told(notebook)
    assert all(words in text for words in SAID[name])
    assert not [place for place in ("/tmp", "/home", "/root", os.getcwd()) if place in text]
    pictures = [output for cell in code(notebook) for output in cell.outputs if "data" in output]
    assert sum("image/png" in output.data for output in pictures) == PICTURES[name]
    assert NOTEBOOKS[name].stat().st_size < 200_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_a_kernel_as_it_did(name, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOKS[name], 4)
    before = told(notebook).splitlines()
    with warnings.catch_warnings():
        # The notebook's kernel is another process: what its client warns of is not ours.
        warnings.simplefilter("ignore")
        from nbclient import NotebookClient

        NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    if os.environ.get("TSSTORE_GOLDEN") == "write":
        for cell in notebook.cells:
            cell.metadata = {}
        nbformat.write(notebook, NOTEBOOKS[name])
    else:
        assert len(told(notebook).splitlines()) == len(before)
    assert all(words in told(notebook) for words in SAID[name])
