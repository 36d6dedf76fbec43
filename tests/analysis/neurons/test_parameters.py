"""Of a layer's parameters, how many are those of dead, always-on and duplicate neurons."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app

OLD = Path(__file__).parents[2] / "data" / "format_1" / "plain"


@pytest.fixture
def run(tmp_path):
    """Capture a network, of whose 8 channels one never fires, one always, and two are the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    with torch.no_grad():
        model[0].bias[2], model[0].bias[3] = -99.0, 99.0
        model[3].weight[:, 27:36] = 0
        model[0].weight[1], model[0].bias[1] = model[0].weight[0], model[0].bias[0]
        with tsstore.capture(
            model, tmp_path / "run", layers=["Conv2d", "ReLU", "Linear"]
        ) as recorder:
            for label in range(2):
                with recorder.batch(label=[label] * 40):
                    model(torch.randn(40, 4, 5, 5))
    return str(tmp_path / "run")


def test_parameters_of_neurons_that_tell_nothing(run):
    found = tsstore.neurons(run)
    conv, linear = found["0"], found["3"]
    assert (conv.parameters, linear.parameters) == (8 * (2 * 9 + 1), 3 * 73)
    assert conv.idle_parameters == {"dead": 19, "always_on": 19, "duplicates": 19}
    assert linear.idle_parameters == {"dead": 0, "always_on": 0, "duplicates": 0}
    assert found["1"].idle_parameters == {"dead": 0, "always_on": 0, "duplicates": 0}
    assert found.to_frame()["parameters"].groupby("layer").sum().tolist() == [152, 0, 219]
    assert (
        "Theirs are 57 of 371 parameters (15 %): 19 of dead neurons, 19 of those always on, 19 of "
        "duplicates.\nWithout parameters of their own: 1." in str(found)
    )
    grouped = tsstore.neurons(run, by="label")
    assert grouped.whole["0"].idle_parameters == conv.idle_parameters
    assert [own["0"].parameters for _, own in grouped.items()] == [152, 152]


def test_the_command_says_them_too(run):
    table = CliRunner().invoke(app, ["neurons", run]).stdout
    assert "57 of 371 parameters" in " ".join(table.split())
    document = json.loads(CliRunner().invoke(app, ["neurons", run, "--json"]).stdout)
    assert document["layers"]["0"]["parameters"] == 152
    assert document["layers"]["0"]["idle_parameters"]["dead"] == 19


def test_a_run_of_an_earlier_version_says_that_they_were_not_recorded():
    found = tsstore.neurons(tsstore.open(OLD).filter(label=0))
    one = tsstore.neurons(tsstore.open(OLD).filter([True] + [False] * 23))
    assert one["2"].idle > 0
    assert (one["2"].parameters, one["2"].idle_parameters) == (None, None)
    assert str(one).endswith("No numbers of parameters were recorded of 0 and 2.")
    assert found["0"].to_frame()["parameters"].tolist() == [pd.NA] * 5
    assert found.to_dict()["layers"]["0"]["idle_parameters"] is None
