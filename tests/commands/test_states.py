from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest
from state_tables import expected, most_frequent, read
from synthetic import draw_layer, layer, write_layers
from typer.testing import CliRunner

import tsstore
from tsstore.commands import app as commands
from tsstore.errors import (
    AnalysisError,
    EmptyStoreError,
    MemoryTooSmallError,
    NotAStoreError,
    StoreError,
    UnknownLayerError,
)

WIDE = draw_layer(1, 50, 40, distinct=30)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a layer with 1,500 rows of three states in 50 samples, and a wide one."""
    rows = np.array([[1, 128], [255, 0], [0, 0]], np.uint8)
    numbers = np.repeat([0, 1, 2], [1_234, 256, 10])
    path = tmp_path_factory.mktemp("states") / "run.zarr"
    return write_layers(path, {"conv_1": layer(rows[numbers], 30), "fc": WIDE}).path


def invoke(*arguments):
    return CliRunner().invoke(commands.app, [str(argument) for argument in arguments])


def test_states_are_drawn_with_what_is_known_of_them(run):
    result = invoke("states", run, "--layer", "conv_1")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["state", "neurons", "on", "rows", "share", "of", "rows", "samples"],
        ["■□□□□□□□□□□□□□□■", "2", "1,234", "82.3", "%", "42"],
        ["■■■■■■■■□□□□□□□□", "8", "256", "17.1", "%", "9"],
        ["□□□□□□□□□□□□□□□□", "0", "10", "0.667", "%", "1"],
        ["A", "block", "is", "a", "neuron,", "neuron", "0", "first:", "■", "on,", "□", "off."],
        ["These", "are", "all", "3", "states."],
    ]
    (line,) = result.stderr.splitlines()
    assert line.startswith("conv_1: ")
    assert line.endswith(" done")


def test_states_are_shown_in_hexadecimal_if_asked_for(run):
    result = invoke("states", run, "--layer", "fc", "--most", "2", "--hex")
    _, first, second, reading, *_ = result.stdout.splitlines()
    states = [state.hex() for state in most_frequent(tsstore.open(run)["fc"], 2)["state"]]
    assert first.split()[0] == f"{states[0][:24]}…{states[0][-8:]}"
    assert second.split()[0] == f"{states[1][:24]}…{states[1][-8:]}"
    assert reading.startswith("Two hexadecimal digits are a byte of 8 neurons")


def test_states_as_json_are_whole(run):
    result = invoke("states", run, "--layer", "fc", "--json", "--most", "1")
    assert result.stderr == ""
    assert json.loads(result.stdout).items() >= tsstore.states(run, "fc", 1).to_dict().items()


@pytest.mark.parametrize("suffix", [".parquet", ".zarr"])
def test_an_export_says_what_was_written(run, tmp_path, suffix):
    out = tmp_path / f"o\x1but{suffix}"
    result = invoke("export", run, "--layer", "fc_post_states", "--states", out)
    assert result.exit_code == 0
    everything = expected(WIDE)
    assert read(out) == everything
    assert result.stdout.endswith(
        rf"o\x1but{suffix}: {len(everything)} distinct states of the {len(WIDE.rows)} rows of fc"
        "\n"
    )
    assert result.stderr.startswith("fc: ")


def test_options_reach_what_counts(run, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("tsstore.analysis.schedulers.LocalScheduler.shared_memory", False)
    monkeypatch.setattr(
        "tsstore.analysis.schedulers.LocalScheduler.check_scratch", lambda _, f: made.append(f)
    )
    options = ["--memory", "1GiB", "--scheduler", "synchronous", "--scratch", tmp_path]
    result = invoke("states", run, "--layer", "fc", "--most", "3", *options)
    assert len(result.stdout.splitlines()) == 1 + 3 * 4 + 3
    out = tmp_path / "out.parquet"
    assert invoke("export", run, "--layer", "fc", "--states", out, "--decoded", *options).stdout
    assert np.stack(pd.read_parquet(out)["state"]).shape == (len(expected(WIDE)), 320)
    assert read(out, 320) == expected(WIDE)
    assert [os.path.dirname(folder) for folder in made] == [str(tmp_path)] * 2
    assert os.listdir(tmp_path) == ["out.parquet"]


@pytest.mark.parametrize("command", [["states"], ["export", "--states", "out.zarr"]])
def test_layers_that_cannot_be_counted_are_refused(run, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(invoke(*command, run, "--layer", "x").exception, UnknownLayerError)
    nowhere = invoke(*command, tmp_path / "nowhere.zarr", "--layer", "fc")
    assert isinstance(nowhere.exception, NotAStoreError)
    empty = write_layers(tmp_path / "run.zarr", {"fc": draw_layer(0, 2, 1, largest=0)})
    assert np.size(empty["fc"]) == 0
    assert isinstance(invoke(*command, empty.path, "--layer", "fc").exception, EmptyStoreError)
    for option, error in (
        (("--memory", "1KiB"), MemoryTooSmallError),
        (("--scheduler", "spark"), AnalysisError),
    ):
        assert isinstance(invoke(*command, run, "--layer", "fc", *option).exception, error)
    assert os.listdir(tmp_path) == ["run.zarr"]


def test_other_kinds_of_files_are_refused(run):
    result = invoke("export", run, "--layer", "fc", "--states", "out.csv")
    assert isinstance(result.exception, StoreError)
    assert ".parquet or .zarr" in str(result.exception)


def test_samples_of_a_state_are_shown_with_their_columns(tmp_path):
    part = draw_layer(1, 50, 2, distinct=3)
    columns = {"id": np.arange(50), "label": np.array(["kind"] * 50, object)}
    store = write_layers(tmp_path / "run", {"a": part}, columns=columns)
    frame = store["a"].samples_of(store["a"][0])
    digits = store["a"][0].tobytes().hex()
    command = ["samples", store.path, "--layer", "a"]
    result = invoke(*command, digits, "--output", tmp_path / "out.csv")
    heading, *lines, told = result.stdout.splitlines()
    assert heading.split() == ["sample", "position", "id", "label"]
    assert [int(line.split()[0]) for line in lines] == frame.index.get_level_values(2).tolist()[:20]
    assert [line.split()[2:] for line in lines] == [[str(n), "kind"] for n in frame["id"][:20]]
    which = frame["id"].nunique()
    rows = f"{len(frame)} rows of {len(part.rows)} in this state, of {which} samples"
    assert told == f"{rows}; 20 are shown, --output has all."
    assert pd.read_csv(tmp_path / "out.csv")["id"].tolist() == frame["id"].tolist()
    few = invoke(*command, digits, "--filter", "id=0")
    assert few.stdout.splitlines()[-1].endswith("of 1 sample.")
    assert isinstance(invoke(*command, "xyz").exception, StoreError)


def test_the_most_surprising_samples_are_shown(tmp_path):
    part = draw_layer(1, 50, 2, distinct=30)
    store = write_layers(tmp_path / "run", {"a": part}, columns={"id": np.arange(50)})
    frame = tsstore.surprising(store, "a", 3)
    command = ["surprising", store.path, "--layer", "a", "-n", 3]
    result = invoke(*command, "--output", tmp_path / "out.csv")
    heading, *lines, told = result.stdout.splitlines()
    assert heading.split() == ["sample", "bits", "new", "rows", "rows", "id"]
    assert [line.split()[-1] for line in lines] == [str(number) for number in frame["id"]]
    assert [line.split()[1] for line in lines] == [f"{bits:.2f}" for bits in frame["bits"]]
    assert told.startswith("Bits: the mean surprisal of a sample's rows")
    assert pd.read_csv(tmp_path / "out.csv")["bits"].tolist() == frame["bits"].tolist()


def test_an_export_is_sorted_if_asked_for(run, tmp_path):
    out = tmp_path / "out.parquet"
    assert invoke("export", run, "--layer", "fc", "--states", out, "--sort").exit_code == 0
    everything = expected(WIDE)
    assert list(read(out)) == sorted(everything, key=lambda one: (-everything[one][0], one))


def test_long_ids_are_cut_in_the_middle_so_that_they_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("tsstore.commands.terminal.PLAIN_WIDTH", 60)
    names = [f"validation_of_the_second_year_{number:04d}" for number in range(20)]
    run = write_layers(
        tmp_path / "run", {"a": draw_layer(0, 20, 5)}, columns={"id": np.array(names, object)}
    )
    shown = invoke("surprising", run.path, "--layer", "a", "-n", "20").stdout
    ends = [f"ear_{number:04d}" for number in range(20)]
    assert sum(end in shown for end in ends) == shown.count("…") > 10
    assert names[0] not in shown
