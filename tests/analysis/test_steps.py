"""Steps of a run beside each other, against each analysed alone."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from helpers import draw_batch, write_run
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app
from tsstore.store.format.attributes import PartAttributes

LAYERS = {"conv_1": 4, "fc": 40}
STEPS = (10, "10#2", 20)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three steps: the second without a neuron and without predictions."""
    path, rng = tmp_path_factory.mktemp("steps") / "run.zarr", np.random.default_rng(0)
    for attempt, step in enumerate(STEPS):
        columns = {"label": np.arange(300) % 3}
        if step != "10#2":
            columns["prediction"] = rng.integers(0, 3, 300)
        batch = draw_batch(rng, 300, neurons=LAYERS, columns=columns)
        if step == "10#2":
            batch.layers["conv_1"].rows[:] &= 0b1101
        part = PartAttributes(step=step, attempt=attempt)
        write_run(path, [batch], neurons=LAYERS, part=part)
    return path


@pytest.fixture(scope="module")
def found(run):
    return tsstore.steps(run)


def test_lines_are_what_each_step_alone_gives(run, found):
    frame, store = found.to_frame(), tsstore.open(run)
    assert frame.index.tolist() == [
        (layer, step) for layer in ("all layers", *LAYERS) for step in STEPS
    ]
    for step in STEPS:
        analysis, neurons = (of(store.at_step(step)) for of in (tsstore.analyze, tsstore.neurons))
        line, interval = frame.loc["conv_1", step], analysis["conv_1"].efficiency_interval()
        assert (line["lower"], line["upper"]) == (interval.lower, interval.upper)
        assert line["dead"] == len(neurons["conv_1"].dead) == (step == "10#2")
        whole = frame.loc["all layers", step]
        assert (whole["neurons"], whole["samples"], whole["is_lower_bound"]) == (44, 300, True)
        assert whole["duplicates"] == sum(layer.duplicates for layer in neurons.values())
        assert np.array_equal(whole["accuracy"], analysis.accuracy or np.nan, equal_nan=True)


def test_it_shows_itself(found):
    text = repr(found)
    assert text.startswith("<Steps ")
    assert "all layers  10#2" in text
    assert "lower bound" in text
    assert "10#2" in found._repr_html_()
    assert json.loads(found.to_json())["lines"][1]["step"] == "10#2"
    ax = found.plot()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "10#2", "20"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "share, from 0 to 1")
    labels = [words.get_text() for words in ax.get_legend().get_texts()]
    assert labels == ["accuracy", "network efficiency, at least", "dead neurons"]


def test_the_command_writes_a_line_a_layer_and_step(run, found, tmp_path):
    out = tmp_path / "steps.csv"
    options = ["--layer", "conv*", "--filter", "label=1", "--no-intervals", "--output", str(out)]
    done = CliRunner().invoke(app, ["steps", str(run), *options])
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(out)
    assert len(frame) == 2 * len(STEPS)
    assert set(frame["samples"]) == {100}
    assert done.stdout.splitlines()[0].split()[:3] == ["layer", "step", "samples"]
