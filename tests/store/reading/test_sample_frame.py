from __future__ import annotations

import numpy as np
import pytest
from helpers import draw_batch, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, write_layers

import tsstore
from tsstore import bits
from tsstore.errors import StoreError


def wanted(states, state):
    """Return the samples, through all parts, and positions that show a state, by comparing."""
    positions = states.read_positions()
    sample = np.repeat(np.arange(len(positions)), positions)
    ends = np.cumsum(positions)
    lines = np.flatnonzero((states.decode() == state).all(axis=1))
    return sample[lines].tolist(), (lines - (ends - positions)[sample[lines]]).tolist()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "run"
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        columns = {"id": rng.permutation(70), "label": [f"n{i % 3}" for i in range(70)]}
        positions = {"conv_1": rng.integers(0, 6, 70).tolist(), "fc.2": 2}
        batch = draw_batch(rng, 70, positions=positions, columns=columns)
        write_run(path, [batch])
    return tsstore.open(path)


@pytest.mark.parametrize("name", ["conv_1", "fc.2"])
def test_each_row_of_a_state_is_found_with_what_was_recorded(store, name):
    states, everything = store[name], store.samples_frame()
    for line in (0, 5, states.rows - 1):
        row, state = states[line], states.decode(line)
        frame = states.samples_of(row.tobytes())
        samples, positions = wanted(states, state)
        assert frame.index.equals(everything.index[samples])
        assert frame["position"].tolist() == positions
        assert list(frame) == ["position", "id", "label"]
        assert frame[["id", "label"]].equals(everything.iloc[samples])
        drawn = "".join("□■"[bit] for bit in state.astype(int))
        for same in (
            row,
            row.tobytes().hex(),
            state,
            state.tolist(),
            drawn,
            f"{drawn[:4]} {drawn[4:]}",
        ):
            assert states.samples_of(same).equals(frame)


def test_a_view_finds_its_own_samples_only(store):
    view = store.filter(label="n1")
    states = view["conv_1"]
    state = states[0]
    frame = states.samples_of(state)
    assert set(frame["label"]) == {"n1"}
    samples, positions = wanted(states, states.decode(0))
    assert frame.index.equals(view.samples_frame().index[samples])
    assert frame["position"].tolist() == positions


def test_a_state_that_nobody_shows_has_an_empty_table(tmp_path):
    batch = draw_batch(np.random.default_rng(1), 3, columns={"id": [1, 2, 3]})
    write_run(tmp_path / "run", [batch])
    states = tsstore.open(tmp_path / "run")["fc.2"]
    absent = next(
        row for row in bits.pack(np.eye(13, dtype=bool)) if not (states[:] == row).all(axis=1).any()
    )
    frame = states.samples_of(absent)
    assert len(frame) == 0
    assert list(frame) == ["position", "id"]
    assert frame.index.names == ["step", "part", "sample"]


def test_a_column_that_is_called_position_keeps_its_values(tmp_path):
    part = draw_layer(1, 30, 2, 4)
    store = write_layers(tmp_path / "run", {"a": part}, columns={"position": np.arange(30)})
    frame = store["a"].samples_of(store["a"][0])
    assert list(frame) == ["position", "position (recorded)"]
    samples, positions = wanted(store["a"], store["a"].decode(0))
    assert frame["position"].tolist() == positions
    assert frame["position (recorded)"].tolist() == samples


@pytest.mark.parametrize(
    "state", ["", "xyz", "00", "■□", b"\0", b"\xff\xff", [True] * 12, [0] * 13, 3, None, "ffff", {}]
)
def test_what_is_no_state_of_the_layer_is_refused(store, state):
    with pytest.raises(StoreError, match=r"layer fc.2: found the state .* of 13 neurons"):
        store["fc.2"].samples_of(state)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_samples_are_found_whatever_the_layers_are(tmp_path_factory, data):
    widths = data.draw(st.lists(st.integers(1, 20), min_size=3, max_size=3))
    parts = [draw_layer(n, 25, width, distinct=6) for n, width in enumerate(widths)]
    layers = {f"l{n}": part for n, part in enumerate(parts)}
    path = tmp_path_factory.mktemp("found") / "run"
    store = write_layers(path, layers, layers, chunk_bytes=100)
    for name, states in store.items():
        if states.rows:
            line = data.draw(st.integers(0, states.rows - 1), name)
            frame = states.samples_of(states[line])
            samples, positions = wanted(states, states.decode(line))
            assert frame.index.equals(store.samples_frame().index[samples])
            assert frame["position"].tolist() == positions
