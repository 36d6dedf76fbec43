"""What commands print on a terminal of any width, as golden texts.

``TSSTORE_GOLDEN=write python -m pytest tests/commands/test_screens.py`` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import made_results
import numpy as np
import pytest
from helpers import draw_batch, write_run
from made_results import even, limited
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from tsstore.commands import terminal
from tsstore.commands.app import app

GOLDEN = Path(__file__).parent / "screens"
LAYERS = {"model.encoder.layers.0.act": 5, "model.encoder.layers.0.fc": 20, "head": 3}
ACT, HEAD = "model.encoder.layers.0.act", "head"
COMMANDS = {
    "samples": ("samples", "run.zarr", "00", "--layer", ACT),
    "states": ("states", "run.zarr", "--layer", ACT, "-n", "5"),
    "only_state": ("states", "run.zarr", "--layer", HEAD),
    "surprising": ("surprising", "run.zarr", "--layer", ACT, "-n", "3"),
    "shared_states": ("shared-states", "run.zarr", "--by", "label"),
    "information": ("information", "run.zarr", "--by", "label"),
    "demo": ("demo",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 240 samples of four positions, with ids and texts as people have them."""
    folder, rng = tmp_path_factory.mktemp("screens"), np.random.default_rng(0)
    files = [f"/data/validation/n0{1440764 + n % 3}/ILSVRC2012_val_{n:08}.JPEG" for n in range(240)]
    columns = {"id": files, "label": np.arange(240) % 3, "loss": rng.random(240)}
    positions = dict.fromkeys(LAYERS, 4)
    batch = draw_batch(rng, 240, neurons=LAYERS, positions=positions, columns=columns)
    batch.layers[ACT].rows[::25] = 0
    batch.layers[HEAD].rows[:] = 6
    write_run(folder / "run.zarr", [batch], neurons=LAYERS)
    return folder


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_look_like_this(name, width, folder, monkeypatch):
    class Terminal(Console):
        def __init__(self, **options):
            super().__init__(**options, force_terminal=True, width=width)

    found = made_results.analysis(even("features.conv_1"), limited("features.conv_2"))
    monkeypatch.setattr("tsstore.demo.run.run_demo", lambda *_, **__: found)
    monkeypatch.setattr(terminal, "Console", Terminal)
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, COMMANDS[name])
    assert done.exit_code == 0, done.output
    golden = GOLDEN / f"{name}_{width}.txt"
    if os.environ.get("TSSTORE_GOLDEN") == "write":
        golden.write_text(done.stdout, encoding="utf-8")
    assert done.stdout == golden.read_text(encoding="utf-8")
    assert max(map(cell_len, done.stdout.splitlines())) <= width
