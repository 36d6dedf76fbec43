from __future__ import annotations

import numpy as np
import pytest
from helpers import draw_batch, write_run
from state_tables import SUFFIXES, WIDTHS, expected, export_states, read
from synthetic import draw_layer, write_layers

import tsstore
from tsstore.analysis.states import export as module


@pytest.fixture
def small_chunks(monkeypatch):
    """Let files have many chunks where there are but a few states."""
    monkeypatch.setattr(module, "MAX_CHUNK_BYTES", 256)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("width", WIDTHS)
def test_an_export_holds_every_state_once(tmp_path, width, suffix):
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
