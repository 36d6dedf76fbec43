"""What docs/how-to/training.md shows of a training of five epochs is what happens."""

from __future__ import annotations

import re

import pytest
from pages import blocks, read, run_code
from trainers import WARNINGS
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of the run, and what the page leaves."""
    # Loaded here, not by every process that collects: it takes seconds.
    pytest.importorskip("lightning")
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, run_code("how-to/training.md")


def test_each_epoch_has_the_numbers_that_its_states_and_columns_have(trained):
    folder, names = trained
    store, frame = tsstore.open(folder / "trained.zarr"), names["frame"]
    assert store.steps == (30, 60, 90, 120, 150)
    for step in store.steps:
        view = store.at_step(step)
        analysis, whole = tsstore.analyze(view), frame.loc["all layers", step]
        assert whole["accuracy"] == (view.column("label") == view.column("prediction")).mean()
        assert whole["efficiency"] == analysis.network_efficiency()
        assert whole["is_lower_bound"] == analysis.is_lower_bound
        dead = {name: int((~view[name].decode().any(axis=0)).sum()) for name in view.layers}
        assert whole["dead"] == sum(dead.values())
        for name, layer in analysis.items():
            line = frame.loc[name, step]
            assert (line["dead"], line["neurons"]) == (dead[name], layer.neurons)
            assert (line["efficiency"], line["verdict"]) == (layer.shown_efficiency, layer.verdict)


def test_the_command_shows_what_the_page_does(trained):
    folder, names = trained
    done = CliRunner().invoke(app, ["steps", str(folder / "trained.zarr")])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    shown = [line.split() for line in lines if re.match("all layers|1 |3 ", line)]
    (page,) = blocks(read("how-to/training.md"), "text")
    told = [line.split() for line in page.splitlines() if re.match("  (all layers|1 |3 )", line)]
    # Rates are those of one machine's arithmetic.
    assert len(shown) == len(told) == len(names["frame"]) == 15
    assert [line[:3] for line in shown] == [line[:3] for line in told]
