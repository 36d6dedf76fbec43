"""Neurons by group: each group's numbers are those of its samples alone, by plain NumPy."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, layer, write_layers
from typer.testing import CliRunner

import tsstore
from tsstore.analysis.execution import reduction
from tsstore.analysis.memory import parse_memory
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.commands.app import app
from tsstore.errors import AnalysisError, EmptyStoreError, MemoryTooSmallError
from tsstore.statistics.rates import rate_limits
from tsstore.store.format.attributes import PartAttributes

WIDTHS = {"a": 1, "b": 3, "c": 11}


def make(path, seed=0, sizes=(40, 1, 30), steps=None, positions=None, widths=None):
    """Write a run of some parts, with columns to group by, and layers that have quiet neurons."""
    rng = np.random.default_rng(seed)
    for number, size in enumerate(sizes):
        loss = rng.integers(0, 40, size) / 8
        loss[rng.random(size) < 0.1] = np.nan
        columns = {"label": np.sort(rng.integers(0, 3, size)) if number else np.arange(size) % 3}
        columns |= {"layer": rng.integers(0, 2, size), "loss": loss}
        layers = {}
        for name, width in (widths or WIDTHS).items():
            lengths = np.full(size, positions) if positions else 1 + rng.integers(0, 5, size)
            rows = rng.integers(0, 256, (lengths.sum(), width), np.uint8)
            # Of some neurons a label alone turns on each, others are off.
            rows &= np.repeat((1 << columns["label"]) | 0xC8, lengths)[:, None].astype(np.uint8)
            layers[name] = layer(rows, lengths)
        step = None if steps is None else steps[number]
        part = PartAttributes(number, len(sizes), step=step)
        store = write_layers(path, layers, columns=columns, part=part)
    return store


def check(found, states, lengths):
    """Check what was found of a layer's samples against NumPy on decoded states."""
    own = np.add.reduceat(states.astype(np.int64), np.cumsum(lengths) - lengths)
    assert (found.samples, found.rows) == (len(lengths), len(states))
    np.testing.assert_array_equal(found.rate, states.mean(axis=0))
    np.testing.assert_array_equal(found.samples_fired, (own > 0).sum(axis=0))
    assert found.dead.tolist() == np.flatnonzero(~states.any(axis=0)).tolist()
    assert found.always_on.tolist() == np.flatnonzero(states.all(axis=0)).tolist()
    limits = rate_limits(
        own.sum(axis=0),
        (own**2).sum(axis=0),
        (own * lengths[:, None]).sum(axis=0),
        (own > 0).sum(axis=0),
        (own == lengths[:, None]).sum(axis=0),
        samples=len(lengths),
        rows=len(states),
        squared_rows=int((lengths**2).sum()),
    )
    np.testing.assert_array_equal(found.rate_limits(), limits)
    columns = [column.tobytes() for column in states.T]
    live = [n for n, column in enumerate(states.T) if 0 < column.sum() < len(column)]
    firsts = {columns[n]: n for n in reversed(live)}
    same = {n: firsts[columns[n]] for n in live if firsts[columns[n]] != n}
    assert {n: group[0] for group in found.identical for n in group[1:]} == same


def check_groups(grouped, store, values):
    """Check each group, and all samples together, whose `values` are one a sample."""
    for name in store.layers:
        states, lengths = store[name].decode(), store[name].read_positions()
        for value, found in grouped.items():
            chosen = values == value
            check(found[name], states[np.repeat(chosen, lengths)], lengths[chosen])
        if len(store.steps) == 1:
            check(grouped.whole[name], states, lengths)


def least_memory(store, **options):
    """Return the memory that an error asks for."""
    with pytest.raises(MemoryTooSmallError) as error:
        tsstore.neurons(store, memory="1KiB", scheduler="synchronous", **options)
    return parse_memory(str(error.value).rpartition("memory='")[2].rstrip("'"))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(reduction, "PIECE_BYTES", 200)
    monkeypatch.setattr(reduction, "BLOCK_PIECES", 2)


@pytest.fixture(params=["threads", "through files", "cluster"])
def scheduler(request, monkeypatch):
    if request.param == "cluster":
        return request.getfixturevalue("client")
    monkeypatch.setattr(LocalScheduler, "shared_memory", request.param == "threads")
    return "threads"


@pytest.mark.usefixtures("small")
def test_groups_are_what_their_samples_show(tmp_path, scheduler):
    store = make(tmp_path)
    calls = []
    found = tsstore.neurons(
        store, by="label", scheduler=scheduler, progress=lambda *call: calls.append(call)
    )
    check_groups(found, store, store.column("label"))
    assert (found.values, found.layers, found.ungrouped) == ((0, 1, 2), ("a", "b", "c"), 0)
    assert found.sel(label=2)["b"].dead.tolist() == [n for n in range(24) if n % 8 in (0, 1, 4, 5)]
    assert {name for name, *_ in calls} == set(WIDTHS)


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**20),
    positions=st.sampled_from([None, 1, 4, 70]),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    widths=st.lists(st.integers(1, 20), min_size=3, max_size=3),
)
def test_groups_of_any_run_are_what_their_samples_show(
    tmp_path_factory, seed, positions, sizes, widths
):
    named = dict(zip("xyz", widths, strict=True))
    store = make(tmp_path_factory.mktemp("any"), seed, sizes, positions=positions, widths=named)
    check_groups(tsstore.neurons(store, by="label"), store, store.column("label"))


@pytest.mark.usefixtures("small")
def test_with_little_memory_some_groups_are_counted_at_a_time(tmp_path, monkeypatch):
    store = make(tmp_path, sizes=(300,)).select("c")
    expected = tsstore.neurons(store, window=7).to_dict()
    least = least_memory(store, window=7)
    passes = []
    run = reduction.Reduction.run
    monkeypatch.setattr(
        reduction.Reduction, "run", lambda *given: passes.append(given) or run(*given)
    )
    found = tsstore.neurons(store, window=7, memory=least, scheduler="synchronous")
    assert found.to_dict() == expected
    assert len(passes) > 2


def test_neurons_of_groups_counted_in_other_passes_are_told_apart(tmp_path):
    """Each fires in the first row of a group of its own, at the same place of the group's tile."""
    rows = np.packbits(np.repeat(np.eye(16, dtype=np.uint8), 3, axis=0), axis=1)
    rows[np.arange(48) % 3 > 0] = 0
    store = write_layers(tmp_path / "run", {"a": layer(rows)})
    least = least_memory(store, window=3)
    found = tsstore.neurons(store, window=3, memory=least, scheduler="synchronous").whole["a"]
    assert (found.identical, found.duplicates) == ([], 0)


def test_what_was_found_of_other_layers_is_held_of_the_same_memory(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (40, 128), np.uint8)
    store = write_layers(tmp_path / "run", {name: layer(rows) for name in "abc"})
    least = least_memory(store.select("b"), window=1)
    found = tsstore.neurons(store.select("b"), window=1, memory=least, scheduler="synchronous")
    assert len(found) == 40
    with pytest.raises(MemoryTooSmallError, match="too small to count neurons of layer c"):
        tsstore.neurons(store, window=1, memory=least, scheduler="synchronous")
    all_layers = tsstore.neurons(store, window=1, memory=least + (8 << 20))
    assert all_layers.whole["c"].samples == 40


def test_steps_are_groups_and_are_never_pooled(tmp_path):
    store = make(tmp_path, steps=(1, 2, 2))
    for call in (tsstore.neurons, tsstore.analyze):
        with pytest.raises(
            AnalysisError, match="holds the steps 1, 2, which are not pooled"
        ) as error:
            call(store)
        assert f'tsstore.{call.__name__}(store, by="step")' in str(error.value)
    found = tsstore.neurons(store, by="step")
    assert found.values == (1, 2)
    for step, own in found.items():
        assert own.to_dict() == tsstore.neurons(store.at_step(step)).to_dict()
    with pytest.raises(AnalysisError, match="nothing of all groups together, as steps"):
        _ = found.whole


def test_views_windows_and_bins_are_grouped(tmp_path):
    store = make(tmp_path)
    view = store.filter(layer=1).select("b")
    found = tsstore.neurons(view, by="label")
    for label, own in found.items():
        expected = tsstore.neurons(view.filter(label=label))
        assert own.to_dict() == expected.to_dict()
    assert found.whole.to_dict() == tsstore.neurons(view).to_dict()
    windows = tsstore.neurons(store, window=50)
    assert (windows.by, windows.values) == ("window", (0, 50))
    assert [own["a"].samples for _, own in windows.items()] == [50, 21]
    loss = store.column("loss")
    bins = tsstore.neurons(store, by="loss", bins=[0, 1, 6])
    assert bins.ungrouped == np.isnan(loss).sum() > 0
    assert bins.sel(loss=0.5)["a"].samples == (loss <= 1).sum()
    assert bins.whole["a"].samples == len(loss)
    assert "in no group, as loss is missing or in no bin" in str(bins)


def test_a_frame_has_layer_group_and_neuron(tmp_path):
    store = make(tmp_path)
    found = tsstore.neurons(store, by="label")
    frame = found.to_frame()
    assert frame.index.names == ["layer", "label", "neuron"]
    assert len(frame) == 3 * 8 * sum(WIDTHS.values())
    pd.testing.assert_frame_equal(frame.loc["b", 1], found.sel(label=1)["b"].to_frame())
    assert tsstore.neurons(store, by="layer").to_frame().index.names == ["layer", "group", "neuron"]
    binned = tsstore.neurons(store, by="loss", bins=2).to_frame()
    assert len(binned) == 2 * 8 * sum(WIDTHS.values())


@pytest.mark.parametrize(
    ("steps", "values"), [((None, None, None), [None]), ((None, 2, 2), [None, 2])]
)
def test_a_group_without_a_value_has_its_rows_in_a_frame(tmp_path, steps, values):
    found = tsstore.neurons(make(tmp_path, steps=steps), by="step")
    frame = found.to_frame()
    assert [None if pd.isna(value) else value for value in frame.index.unique("step")] == values
    assert len(frame) == len(values) * 8 * sum(WIDTHS.values())
    for value, own in found.items():
        step = frame.index.get_level_values("step")
        layers = frame[step.isna() if value is None else step == value].droplevel("step")
        pd.testing.assert_frame_equal(layers.loc["b"], own["b"].to_frame())


def test_tables_say_which_neurons_are_dead_in_some_groups_alone(tmp_path):
    store = make(tmp_path)
    found = tsstore.neurons(store, by="label")
    lines = str(found).splitlines()
    assert lines[1].split()[:4] == ["layer", "label", "samples", "neurons"]
    assert [line.split()[1] for line in lines[2:6]] == ["0", "1", "2", "all"]
    fewest = min(np.bincount(store.column("label")))
    assert f"b: 9 neurons dead in some groups alone; the smallest has {fewest} samples." in str(
        found
    )
    assert "<table>" in found._repr_html_()
    document = json.loads(found.to_json())
    assert document["groups"]["1"] == found.sel(label=1).to_dict()
    assert document["whole"]["layers"]["a"]["dead"] == [4, 5]


def test_what_makes_no_groups_is_refused_as_by_analyze(tmp_path):
    store = make(tmp_path)
    for options in (
        {"by": "none"},
        {"by": "label", "window": 3},
        {"bins": 2},
        {"window": 0},
        {"by": "step", "bins": 2},
    ):
        messages = []
        for call in (tsstore.neurons, tsstore.analyze):
            with pytest.raises(tsstore.TsstoreError) as error:
                call(store, **options)
            messages.append((type(error.value), str(error.value)))
        assert messages[0] == messages[1]
    empty = draw_layer(0, 4, 1)
    rows = layer(np.zeros((2, 1), np.uint8), [1, 1, 0, 0])
    store = write_layers(
        tmp_path / "no rows", {"a": empty, "b": rows}, columns={"label": np.array([0, 0, 1, 1])}
    )
    with pytest.raises(EmptyStoreError, match="layer b has no rows of samples with label = 1"):
        tsstore.neurons(store, "b", by="label")


def test_the_command_groups_as_analyze_does(tmp_path):
    make(tmp_path / "run")
    runner = CliRunner()
    out = tmp_path / "n.csv"
    done = runner.invoke(app, ["neurons", str(tmp_path / "run"), "--by", "label", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split()[:3] == ["layer", "label", "samples"]
    assert out.read_text().splitlines()[0].startswith("layer,label,neuron,rate,low,high")
    make(tmp_path / "trained", steps=(1, 2, 3))
    done = runner.invoke(app, ["neurons", str(tmp_path / "trained"), "--json"])
    assert list(json.loads(done.stdout)["groups"]) == ["1", "2", "3"]
    assert "holds 3 steps: counted --by step; see --step" in done.stderr
