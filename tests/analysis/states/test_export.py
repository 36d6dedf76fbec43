from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import zarr
from helpers import draw_batch, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from state_tables import SUFFIXES, WIDTHS, expected, export_states, read
from synthetic import draw_layer, write_layers

import tsstore
from tsstore.analysis.states import export as module
from tsstore.analysis.states.export import sorted_pieces
from tsstore.errors import AnalysisError, MemoryTooSmallError


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("width", WIDTHS)
def test_an_export_holds_every_state_once(tmp_path, monkeypatch, width, suffix):
    # Some chunks of a file, and eight times as many where each bit is a byte.
    monkeypatch.setattr(module, "MAX_CHUNK_BYTES", 50 * max(width, 8))
    parts = [draw_layer(seed, 40, width, distinct=60) for seed in (1, 2)]
    states = write_layers(tmp_path / "run", *({"a": part} for part in parts))["a"]
    out = tmp_path / f"out{suffix}"
    assert export_states(states, out) == len(expected(*parts))
    assert read(out) == expected(*parts)
    export_states(states, tmp_path / f"decoded{suffix}", decoded=True)
    assert read(tmp_path / f"decoded{suffix}", 8 * width) == expected(*parts)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_decoded_states_have_a_value_for_each_neuron_and_none_for_pad_bits(tmp_path, suffix):
    batches = [draw_batch(np.random.default_rng(seed), 90) for seed in (1, 2)]
    write_run(tmp_path / "run", batches)
    store = tsstore.open(tmp_path / "run")
    for name, neurons in (("conv_1", 6), ("fc.2", 13)):
        out = tmp_path / f"{name}{suffix}"
        distinct = export_states(store[name], out, decoded=True)
        layers = [batch.layers[name] for batch in batches]
        assert read(out, neurons) == expected(*layers)
        assert distinct == len(np.unique(store[name].decode(), axis=0))


def in_file(out):
    """Return a table as it is, in its order."""
    if out.suffix == ".zarr":
        group = zarr.open_group(out, mode="r")
        rows = [bytes(row) for row in np.asarray(group["state"])]
        return list(zip(rows, group["multiplicity"][:], group["incidence"][:], strict=True))
    frame = pd.read_parquet(out)
    return list(zip(*(frame[name].tolist() for name in frame), strict=True))


def content(out):
    """Return the bytes of a table's files."""
    paths = sorted(out.rglob("*")) if out.is_dir() else [out]
    return {path.relative_to(out): path.read_bytes() for path in paths if path.is_file()}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("width", [1, 9, 17])
def test_a_sorted_export_is_in_order_and_the_same_each_time(tmp_path, monkeypatch, width, suffix):
    monkeypatch.setattr(module, "SORTED_CHUNK_BYTES", 60 * (width + 16))
    parts = [draw_layer(seed, 200, width, distinct=150) for seed in (1, 2)]
    store = write_layers(tmp_path / "run", *({"a": part} for part in parts))
    everything = expected(*parts)
    out = tmp_path / f"out{suffix}"
    assert tsstore.export(store, "a", out, sort=True) == len(everything)
    wanted = sorted((-k, state, q) for state, (k, q) in everything.items())
    assert in_file(out) == [(state, -k, q) for k, state, q in wanted]
    first = content(out)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    pieces = []

    def in_runs(*arguments):
        pieces.append(len(list(scratch.iterdir())))
        return sorted_pieces(*arguments[:2], 3 * (width + 16) * 10, scratch)

    monkeypatch.setattr(module, "sorted_pieces", in_runs)
    again = tmp_path / f"again{suffix}"
    tsstore.export(store, "a", again, sort=True, scratch=scratch, scheduler="synchronous")
    assert content(again) == first
    assert pieces
    assert list(scratch.iterdir()) == []
    decoded = tmp_path / f"decoded{suffix}"
    tsstore.export(store, "a", decoded, sort=True, decoded=True)
    assert list(read(decoded, 8 * width)) == [state for _, state, _ in wanted]


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 20),
    sizes=st.lists(st.integers(0, 40), max_size=6),
    room=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_states_are_sorted_whatever_fits_into_memory(width, sizes, room, seed):
    rng = np.random.default_rng(seed)
    rows = np.unique(rng.integers(0, 3, (sum(sizes), width), dtype=np.uint8), axis=0)
    rows = rng.permutation(rows)
    k, q = rng.integers(1, 4, (2, len(rows)))
    ends = np.cumsum(sizes)
    pieces = [(rows[a:b], k[a:b], q[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    found = list(sorted_pieces(iter(pieces), width, 3 * room * (width + 16), None))
    told = [
        (state.tobytes(), *numbers)
        for states, *counts in found
        for state, *numbers in zip(states, *(count.tolist() for count in counts), strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: (-k[i], rows[i].tobytes()))
    assert told == [(rows[i].tobytes(), int(k[i]), int(q[i])) for i in order]


def test_sorting_takes_memory_of_its_own_and_a_file_that_can_be_written(tmp_path, monkeypatch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})
    least = []
    for sort in (False, True):
        with pytest.raises(MemoryTooSmallError, match="memory of 1 MiB is too small") as error:
            tsstore.export(store, "a", tmp_path / "out.zarr", sort=sort, memory="1MiB")
        least.append(int(re.search(r"give at least memory='(\d+)KiB'", str(error.value))[1]))
    assert least[1] - least[0] == 12 << 10
    out = tmp_path / "least.zarr"
    tsstore.export(store, "a", out, sort=True, memory=f"{least[1]}KiB")
    shutil.rmtree(out)

    def fail(path, mode):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tsstore.analysis.states.export.open", fail, raising=False)
    monkeypatch.setattr(module, "sorted_pieces", lambda *a: sorted_pieces(*a[:2], 1, tmp_path))
    with pytest.raises(AnalysisError, match=r"cannot be written \(No space left"):
        tsstore.export(store, "a", tmp_path / "out.zarr", sort=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
