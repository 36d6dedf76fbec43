"""What `tsstore neurons` draws and prints; most of it is in analysis/neurons."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import draw_batch, write_run
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app
from tsstore.errors import AnalysisError

LAYERS = {"conv": 4, "wide": 3, "fc": 9}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Samples of five positions, of which neurons of `conv` fire at the first ones more often."""
    path, rng = tmp_path_factory.mktemp("neurons") / "run.zarr", np.random.default_rng(0)
    batch = draw_batch(rng, 100, neurons=LAYERS, positions={"conv": 5, "wide": 144})
    rates = np.tile([1.0, 0.7, 0.5, 0.3, 0.1], 100)
    states = rng.random((500, 4)) < rates[:, None]
    batch.layers["conv"].rows[:] = np.packbits(states, axis=1, bitorder="little")
    batch.layers["wide"].rows[:] = 7
    write_run(path, [batch], neurons=LAYERS)
    return str(path)


def test_maps_are_drawn_by_position_in_no_more_than_a_terminal_holds(run):
    done = CliRunner().invoke(app, ["neurons", run, "--maps"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    start = lines.index("conv: 5 positions")
    assert lines[start : start + 4] == [
        "conv: 5 positions",
        "  █▓▒░ ",
        "wide: 144 positions",
        "  " + 72 * "█",
    ]
    assert not [line for line in lines if line.startswith("fc: ")]
    found = json.loads(CliRunner().invoke(app, ["neurons", run, "--maps", "--json"]).stdout)
    expected = tsstore.neurons(run, "conv", maps=True)["conv"].map.values
    assert np.array_equal(found["maps"]["conv"], expected)


def test_maps_are_of_all_samples_together(run):
    done = CliRunner().invoke(app, ["neurons", run, "--maps", "--window", "50"])
    assert isinstance(done.exception, AnalysisError)
    assert str(done.exception).startswith("--maps counts all samples together")
