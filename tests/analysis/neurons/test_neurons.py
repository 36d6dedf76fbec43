"""What neurons do, against NumPy on decoded states; copies, threads and clusters change nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic import draw_layer, layer, write_layers
from typer.testing import CliRunner

import tsstore
from tsstore.analysis import request, schedulers
from tsstore.analysis.execution import reduction
from tsstore.analysis.memory import parse_memory
from tsstore.analysis.neurons.firing import NEURON_BYTES
from tsstore.commands.app import app
from tsstore.errors import AnalysisError, EmptyStoreError, MemoryTooSmallError, UnknownLayerError


def made(seed, samples, neurons, positions):
    """Draw states (rows, neurons) of so many samples, and the layer of them."""
    rng = np.random.default_rng(seed)
    states = rng.random((samples * positions, neurons)) < rng.uniform(0.1, 0.9, neurons)
    states[:, 2] = False
    states[:, 3] = True
    states[:, 5] = states[:, 1]
    states[:, 6] = ~states[:, 1]
    return states, layer(np.packbits(states, axis=1, bitorder="little"), positions)


@pytest.fixture(params=["synchronous", "threads", "cluster"])
def scheduler(request):
    return request.getfixturevalue("client") if request.param == "cluster" else request.param


def test_neurons_of_a_run_of_several_parts(tmp_path, monkeypatch, scheduler):
    monkeypatch.setattr(reduction, "PIECE_BYTES", 256)
    monkeypatch.setattr(reduction, "BLOCK_PIECES", 2)
    pairs = [made(1, 60, 16, 9), made(2, 80, 16, 9)]
    run = write_layers(tmp_path / "run", *({"conv": batch} for _, batch in pairs))
    states = np.concatenate([own for own, _ in pairs])
    calls = []
    found = tsstore.neurons(run, scheduler=scheduler, progress=lambda *call: calls.append(call))
    conv = found["conv"]
    assert (list(found), conv.neurons, conv.samples, conv.rows) == (["conv"], 16, 140, 1260)
    np.testing.assert_array_equal(conv.rate, states.mean(axis=0))
    fired = states.reshape(140, 9, 16).any(axis=1).sum(axis=0)
    np.testing.assert_array_equal(conv.samples_fired, fired)
    assert (conv.dead.tolist(), conv.always_on.tolist()) == ([2], [3])
    assert (conv.identical, conv.complementary, conv.duplicates) == ([[1, 5]], [([1, 5], [6])], 1)
    p = conv.rate[(conv.rate > 0) & (conv.rate < 1)]
    assert conv.entropy_bound == pytest.approx(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum())
    assert calls[-1][0] == "conv"
    assert calls[-1][1] == calls[-1][2] > 5


def test_tables(tmp_path):
    run = write_layers(tmp_path / "run", {"a": made(1, 50, 8, 4)[1], "b": made(2, 50, 24, 1)[1]})
    found = tsstore.neurons(run)
    frame = found.to_frame()
    assert frame.index.names == ["layer", "neuron"]
    assert len(frame) == 32
    own = frame.loc["a"]
    assert own["kind"].tolist() == ["", "", "dead", "always on", "", "", "", ""]
    assert (own.loc[5, "same_as"], own.loc[1, "opposite_of"], own.loc[6, "opposite_of"]) == (
        1,
        6,
        1,
    )
    assert own["same_as"].isna().sum() == 7
    assert ((own["low"] <= own["rate"]) & (own["rate"] <= own["high"])).all()
    narrow = found["a"].to_frame(level=0.5)
    assert (narrow["high"] - narrow["low"] <= own["high"] - own["low"]).all()
    assert "dead" in str(found)
    assert "a: 1 neuron fired in 0 of 50 samples: each one's rate is below 0.071 at 95 %." in str(
        found
    )
    assert "6 of 32 neurons (19 %) tell nothing: dead, always on, or duplicates." in str(found)
    assert found["a"].idle == 3
    assert "<table>" in found._repr_html_()
    document = json.loads(found.to_json())
    assert document["layers"]["a"]["dead"] == [2]
    assert document["layers"]["b"]["identical"] == [[1, 5]]
    assert document["layers"]["b"]["rate"] == found["b"].rate.tolist()


def test_samples_of_any_length_and_layers_of_choice(tmp_path):
    batch = draw_layer(3, 200, 5)
    other = draw_layer(4, 200, 2)
    run = write_layers(tmp_path / "run", {"a": batch, "b": other})
    found = tsstore.neurons(str(tmp_path / "run"), "a", memory="64MiB")
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"].rate, run["a"].decode().mean(axis=0))
    assert found["a"].samples == (batch.positions > 0).sum()
    with pytest.raises(UnknownLayerError):
        tsstore.neurons(run, "c")
    with pytest.raises(UnknownLayerError, match="no layer 'b' in this Neurons; there are a"):
        found["b"]


def least(run, scheduler="synchronous"):
    with pytest.raises(MemoryTooSmallError) as error:
        tsstore.neurons(run, memory="1KiB", scheduler=scheduler)
    return parse_memory(str(error.value).rpartition("memory='")[2].rstrip("'"))


def test_memory_reckons_with_counts_of_all_levels_and_with_all_threads_of_a_worker(
    tmp_path, monkeypatch
):
    _, batch = made(0, 300, 4000, 1)
    run = write_layers(tmp_path / "run", {"a": batch})
    at_once = least(run)
    monkeypatch.setattr(reduction, "BLOCK_PIECES", 1)
    monkeypatch.setattr(reduction, "PIECE_BYTES", 500)
    in_blocks = least(run)
    one = NEURON_BYTES * (4000 + 64)
    held = reduction.FAN_IN * one
    assert at_once + 3 * held - one - (3 << 20) < in_blocks < at_once + 3 * held - one
    monkeypatch.setattr(request, "processors", lambda: 4)
    assert least(run, "threads") == in_blocks
    monkeypatch.setattr(schedulers.LocalScheduler, "shared_memory", False)
    assert least(run, "threads") == pytest.approx(4 * in_blocks - 3 * 3 * held, abs=8192)


def test_what_cannot_be_counted(tmp_path):
    run = write_layers(tmp_path / "run", {"a": draw_layer(3, 20, 5)})
    with pytest.raises(MemoryTooSmallError, match=r"layer a; give at least memory='\d+KiB'"):
        tsstore.neurons(run, memory="1MiB")
    with pytest.raises(AnalysisError, match="scheduler is 'cloud'"):
        tsstore.neurons(run, scheduler="cloud")
    empty = write_layers(tmp_path / "empty", {"a": layer(np.zeros((0, 2), np.uint8), [0, 0])})
    with pytest.raises(EmptyStoreError):
        tsstore.neurons(empty)


def test_the_command(tmp_path):
    write_layers(tmp_path / "run", {"a": made(1, 50, 8, 4)[1]})
    runner = CliRunner()
    done = runner.invoke(app, ["neurons", str(tmp_path / "run"), "-o", str(tmp_path / "n.csv")])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split() == [
        *("layer", "neurons", "dead", "always", "on", "duplicates", "rate", "(median)"),
        *("10–90", "%"),
    ]
    assert done.stdout.splitlines()[1].split()[:5] == ["a", "8", "1", "1", "1"]
    lines = (tmp_path / "n.csv").read_text().splitlines()
    assert (
        lines[0] == "layer,neuron,rate,low,high,samples_fired,kind,same_as,opposite_of,parameters"
    )
    assert len(lines) == 9
    done = runner.invoke(app, ["neurons", str(tmp_path / "run"), "--json"])
    assert json.loads(done.stdout)["layers"]["a"]["always_on"] == [3]
