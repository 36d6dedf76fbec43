"""Pairs of neurons, against products of decoded states."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, layer, write_layers
from typer.testing import CliRunner

import tsstore
from tsstore.analysis.execution import reduction
from tsstore.analysis.memory import parse_memory
from tsstore.analysis.neurons import matrix
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.commands.app import app
from tsstore.errors import AnalysisError, MemoryTooSmallError


def alike(seed, samples, neurons, positions):
    """Return a layer of neurons, of which some do nearly the same as the first, or the opposite."""
    rng = np.random.default_rng(seed)
    states = rng.random((samples * positions, neurons)) < rng.uniform(0.05, 0.95, neurons)
    seldom = rng.random((len(states), 4)) < [0, 0.002, 0.002, 0.05]
    states[:, 1:5] = states[:, :1] ^ seldom
    states[:, 3] = ~states[:, 3]
    states[:, 5], states[:, 6] = False, True
    return layer(np.packbits(states, axis=1, bitorder="little"), positions)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "run"
    for number, samples in enumerate((50, 90)):
        columns = {"label": np.arange(samples) % 3}
        layers = {"a": alike(number, samples, 24, 4), "b": draw_layer(number, samples, 12)}
        store = write_layers(path, layers, columns=columns)
    return store


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(reduction, "PIECE_BYTES", 100)
    monkeypatch.setattr(matrix, "LEAST_BLOCK_ROWS", 64)


@pytest.fixture(params=["threads", "through files", "cluster"])
def scheduler(request, monkeypatch):
    if request.param == "cluster":
        return request.getfixturevalue("client")
    monkeypatch.setattr(LocalScheduler, "shared_memory", request.param == "threads")
    return "threads"


def product(states):
    own = states.decode().astype(np.int64)
    return own.T @ own


@pytest.mark.usefixtures("small")
def test_joint_firing_is_a_product_of_states(run, scheduler):
    found = tsstore.neurons(run, joint=True, scheduler=scheduler)
    for name, own in found.items():
        assert own.joint.dims == ("neuron", "other")
        assert own.joint.attrs == {"layer": name, "rows": run[name].rows}
        np.testing.assert_array_equal(own.joint.values, product(run[name]))


@settings(max_examples=8)
@given(st.integers(0, 2**20), st.lists(st.integers(1, 20), min_size=3, max_size=3))
def test_joint_firing_of_any_run(tmp_path_factory, seed, widths):
    layers = {f"w{n}": draw_layer(seed + n, 30, width) for n, width in enumerate(widths)}
    store = write_layers(tmp_path_factory.mktemp("any"), layers)
    for name, own in tsstore.neurons(store, joint=True).items():
        np.testing.assert_array_equal(own.pairs, product(store[name]))
        np.testing.assert_array_equal(np.diagonal(own.pairs), own.counted.counts[0])


@pytest.mark.usefixtures("small")
def test_of_a_view_the_rows_that_it_shows_count(run):
    view = run.filter(label=1).select("b")
    found = tsstore.neurons(view, joint=True)
    np.testing.assert_array_equal(found["b"].joint.values, product(view["b"]))


@pytest.mark.usefixtures("small")
def test_with_little_memory_some_lines_are_counted_at_a_time(run, monkeypatch):
    # Pieces and chunks would take most of the memory.
    monkeypatch.setattr(reduction, "TASK_BYTES", 0)
    states = run["b"]
    options = {"scheduler": "synchronous", "joint": True}
    with pytest.raises(MemoryTooSmallError, match="count pairs of neurons of layer b") as error:
        tsstore.neurons(run, "b", memory="80KiB", **options)
    least = parse_memory(str(error.value).rpartition("memory='")[2].rstrip("'"))
    passes = []
    run_pass = reduction.Reduction.run
    monkeypatch.setattr(
        reduction.Reduction, "run", lambda *given: passes.append(given) or run_pass(*given)
    )
    memory = least + (40 << 10)
    found = tsstore.neurons(run, "b", memory=memory, **options)
    assert len(passes) > 2
    np.testing.assert_array_equal(found["b"].pairs, product(states))


def test_the_plan_says_what_pairs_take(run):
    assert not tsstore.plan(run).pairs
    planned = tsstore.plan(run, joint=True, memory="64MiB", scheduler="threads")
    for name, own in planned.pairs.items():
        neurons, rows = run[name].neurons, run[name].rows
        assert own.matrix_bytes == 8 * neurons**2
        assert own.words == neurons * (neurons + 1) // 2 * -(-rows // 64)
        assert own.passes == 1
        assert 0 < own.projected_peak <= 64 << 20
    assert "(joint firing): 39,948 words of 64 rows to compare, less than 1 s of one core" in str(
        planned
    )
    least = planned.pairs["b"].projected_peak
    tsstore.neurons(run, joint=True, memory=least, scheduler="synchronous")


@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize("share", [0.99, 0.9, 0.5, 0])
def test_near_pairs_are_those_of_decoded_states(run, share, opposite):
    found = tsstore.neurons(run, "a", joint=True)["a"]
    frame = found.near_complementary(share) if opposite else found.near_identical(share)
    states = run["a"].decode()
    expected = {}
    for one in range(24):
        for two in range(one + 1, 24):
            agree = (states[:, one] == (states[:, two] ^ opposite)).mean()
            if agree >= share and not {one, two} & {5, 6}:
                expected[one, two] = agree
    listed = list(zip(frame["neuron"], frame["other"], strict=True))
    assert set(listed) == set(expected)
    assert len(listed) == len(expected)
    for pair, own in zip(listed, frame.itertuples(), strict=True):
        assert own.share == expected[pair]
        assert own.rows == round(own.share * len(states))
        p, q = states[:, pair[0]].mean(), (states[:, pair[1]] ^ opposite).mean()
        assert own.by_chance == pytest.approx(p * q + (1 - p) * (1 - q))
        assert own.kappa == pytest.approx((own.share - own.by_chance) / (1 - own.by_chance))
    assert (np.diff(frame["kappa"]) <= 0).all()
    if share == 0.99:
        assert set(listed) == ({(0, 3), (1, 3), (2, 3)} if opposite else {(0, 1), (0, 2), (1, 2)})


def test_what_cannot_be_told_of_pairs_is_refused(run, monkeypatch):
    found = tsstore.neurons(run, "a")["a"]
    for ask in (found.near_identical, found.near_complementary, lambda: found.joint):
        with pytest.raises(
            AnalysisError, match=r"layer a: pairs of neurons were not counted; .*joint"
        ):
            ask()
    found = tsstore.neurons(run, "a", joint=True)["a"]
    for share in (1.5, -1, float("nan"), "most"):
        with pytest.raises(AnalysisError, match="expected one of the rows"):
            found.near_identical(share)
    monkeypatch.setattr(matrix, "MOST_PAIRS", 3)
    assert len(found.near_identical(0.99)) == 3
    with pytest.raises(AnalysisError, match="more than 3 pairs of neurons do the same in 0 of"):
        found.near_identical(0)
    with pytest.raises(AnalysisError, match="joint= and maps= count all samples together"):
        tsstore.neurons(run, by="label", joint=True)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(AnalysisError, match=r"install tsstore\[xarray\]"):
        _ = found.joint


def test_the_command_lists_pairs(run):
    arguments = ["neurons", run.path, "--layer", "a", "--near", "0.99"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["a", "0", "1", "same", "1.0000"] in [line[:5] for line in lines]
    assert ["a", "0", "3", "opposite"] in [line[:4] for line in lines]
    assert "6 pairs of neurons." in done.stdout
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert {(pair["neuron"], pair["other"]) for pair in document["near_pairs"]} == {
        *((0, 1), (0, 2), (1, 2)),
        *((0, 3), (1, 3), (2, 3)),
    }
