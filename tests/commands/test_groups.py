"""`tsstore information` and `tsstore shared-states`: what they print is what Python gives."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from helpers import draw_batch, write_run
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app
from tsstore.errors import AnalysisError
from tsstore.store.format.attributes import PartAttributes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("groups") / "run.zarr"
    columns = {"label": np.arange(120) % 3}
    batch = draw_batch(np.random.default_rng(0), 120, neurons={"fc": 6, "a": 3}, columns=columns)
    write_run(path, [batch], neurons={"fc": 6, "a": 3})
    return str(path)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document(*arguments):
    found = json.loads(invoke(*arguments, "--json").stdout)
    return {key: value for key, value in found.items() if key not in ("schema", "tsstore")}


def test_information_is_that_of_python(run):
    found = tsstore.information(run, "label", ["fc"])
    assert document("information", run, "--by", "label", "--layer", "fc") == found.to_dict()
    done = invoke("information", run, "--by", "label", "--layer", "fc")
    heading, line, *told = done.stdout.splitlines()
    assert heading.split() == " ".join(found.headings).split()
    assert line.split() == " ".join(found["fc"].cells).split()
    assert told == found.sentences
    (progress, *_) = done.stderr.splitlines()
    assert progress.startswith("fc: ")


def test_information_has_no_interval_where_none_is_asked(run):
    options = ("--no-intervals", "--repeats", "each", "--exact", "--filter", "label=0")
    layers = document("information", run, "--by", "label", *options)["layers"]
    assert [layer["information_lower_bits"] for layer in layers.values()] == [None, None]
    assert [layer["group_bits"] for layer in layers.values()] == [0, 0]


def test_information_needs_groups(run):
    assert "Missing option '--by'" in invoke("information", run).output


def test_shared_states_are_those_of_python(run, tmp_path):
    found, out = tsstore.shared_states(run, "label"), tmp_path / "shared.csv"
    assert document("shared-states", run, "--by", "label") == found.to_dict()
    done = invoke("shared-states", run, "--by", "label", "-o", out)
    assert [line.split() for line in done.stdout.splitlines()[1:3]] == [
        list(layer.cells) for layer in found.values()
    ]
    table = pd.read_csv(out)
    assert list(table) == ["layer", "label", "0", "1", "2"]
    assert (table[["0", "1", "2"]].to_numpy()[:3] == found["fc"].matrix).all()


def test_shared_states_are_of_windows_or_steps_as_well(run, tmp_path):
    assert document("shared-states", run, "--window", "60")["samples"] == [60, 60]
    rng = np.random.default_rng(1)
    for step in (10, 20):
        part = PartAttributes(step=step)
        write_run(tmp_path / "steps.zarr", [draw_batch(rng, 9)], part=part)
    done = invoke("shared-states", tmp_path / "steps.zarr")
    assert "holds 2 steps: counted --by step" in done.stderr
    assert "2 groups of 9 samples" in done.stdout
    assert isinstance(invoke("shared-states", run).exception, AnalysisError)
