"""What docs/how-to/tensorstate.md shows is what happens."""

from __future__ import annotations

import numpy as np
from pages import run_code

import tsstore


def test_the_code_runs_and_says_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_code("how-to/tensorstate.md")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0_post_states 3600 ")
    assert lines[1].startswith("3_post_states 100 ")
    assert np.fromstring(lines[2].strip("[]"), sep=" ").shape == (2,)
    assert lines[3] == "states/sequential.zarr"
    assert lines[4] == "70"
    tsstore.remove_state_layers(names["model"])
    assert tsstore.open(tmp_path / "states" / "sequential.zarr").samples == 100
