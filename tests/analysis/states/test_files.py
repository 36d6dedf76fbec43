from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import children
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr
from pyarrow import parquet
from state_tables import SUFFIXES, expected, export_states, table
from synthetic import draw_layer, layer, numbered_rows, write_layers

import tsstore
from tsstore.analysis.states import export as module
from tsstore.analysis.states.tables import ParquetFile
from tsstore.analysis.states.zarr_store import ZarrGroup
from tsstore.errors import AccessError, DamageError, NotAStoreError, StoreError, StoreExistsError


@pytest.mark.parametrize("name", ["out.csv", "out", "out.zarr.zip", "s3://bucket/out.csv"])
def test_names_that_mean_no_table_are_refused(tmp_path, name):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    with pytest.raises(StoreError, match=r"\.parquet or \.zarr"):
        export_states(states, name)
    with pytest.raises(NotAStoreError, match="found a URL, expected"):
        export_states(states, Path("gs://bucket/out.parquet"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_there_is_not_replaced(tmp_path, monkeypatch, suffix):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    out = tmp_path / f"out{suffix}"
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreExistsError, match=f"out{suffix} exists already"):
        export_states(states, out)
    out.unlink()

    def come_first(*task: object) -> None:
        out.mkdir(exist_ok=True)

    with pytest.raises(StoreExistsError, match="exists already"):
        export_states(states, out, progress=come_first)
    assert list(out.iterdir()) == []
    assert sorted(os.listdir(tmp_path)) == [out.name, "run"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_place_that_cannot_be_written_is_an_error(tmp_path, suffix):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    seen = []
    with pytest.raises(AccessError, match=r"cannot be written .*choose another path"):
        export_states(states, tmp_path / "no" / f"out{suffix}", progress=seen.append)
    assert not seen
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, suffix):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    kind = {".zarr": ZarrGroup, ".parquet": ParquetFile}[suffix]

    def fail(*piece: object) -> None:
        raise OSError(28, "No space left on device")

    for method in ("append", "finish"):
        with monkeypatch.context() as patch:
            patch.setattr(kind, method, fail)
            with pytest.raises(AccessError, match=f"out{suffix} cannot be written .*No space"):
                export_states(states, tmp_path / f"out{suffix}")
        assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_leaves_nothing(tmp_path, suffix):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    chunk = next((tmp_path / "run").glob("*/layers/*/states/c/0/0"))
    chunk.write_bytes(b"x" * len(chunk.read_bytes()))
    with pytest.raises(DamageError):
        export_states(states, tmp_path / f"out{suffix}")
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_export_leaves_nothing_that_looks_finished(tmp_path, suffix):
    rows = layer(numbered_rows(np.arange(200_000), 8))
    write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=1 << 16)
    killed = (
        "import os, sys, tsstore\n"
        "run, out = sys.argv[1:]\n"
        "def kill(layer, done, total): done < total - 1 or os.kill(os.getpid(), 9)\n"
        "tsstore.export(run, 'a', out, progress=kill)\n"
    )
    assert children.run(killed, tmp_path / "run", tmp_path / f"out{suffix}").returncode == -9
    left, run = sorted(os.listdir(tmp_path))
    assert run == "run"
    assert left.startswith(f"out{suffix}.")
    assert left.endswith(".partial")


@pytest.fixture
def small_chunks(monkeypatch):
    """Let files have many chunks where there are but a few states."""
    monkeypatch.setattr(module, "MAX_CHUNK_BYTES", 256)


@pytest.mark.usefixtures("small_chunks")
def test_files_have_chunks_of_bounded_size(tmp_path):
    states = write_layers(tmp_path / "run", {"a": layer(numbered_rows(np.arange(500), 8))})["a"]
    export_states(states, tmp_path / "out.zarr")
    export_states(states, tmp_path / "out.parquet")
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert [group[name].chunks for name in sorted(group)] == [(10,), (10,), (10, 8)]
    assert parquet.read_metadata(tmp_path / "out.parquet").num_row_groups > 1


def test_xarray_opens_a_group_without_a_warning(tmp_path):
    part = draw_layer(1, 50, 2)
    states = write_layers(tmp_path / "run", {"a": part})["a"]
    for decoded, axis, size in ((False, "byte", 2), (True, "neuron", 16)):
        out = tmp_path / f"{axis}.zarr"
        count = export_states(states, out, decoded=decoded)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with xarray.open_zarr(out, consolidated=False) as dataset:
                assert dict(dataset.sizes) == {"distinct_state": count, axis: size}
                assert set(dataset.data_vars) == {"state", "multiplicity", "incidence"}
                assert dataset["state"].dims == ("distinct_state", axis)
                assert int(dataset["multiplicity"].sum()) == states.rows
                assert dataset.attrs["layer"] == "a"


def test_data_frames_see_bytes_or_arrays_of_booleans(tmp_path):
    polars = pytest.importorskip("polars")
    part = draw_layer(1, 50, 2)
    states = write_layers(tmp_path / "run", {"a": part})["a"]
    export_states(states, tmp_path / "packed.parquet")
    export_states(states, tmp_path / "decoded.parquet", decoded=True)
    packed = polars.read_parquet(tmp_path / "packed.parquet")
    decoded = polars.read_parquet(tmp_path / "decoded.parquet")
    assert packed.schema == {
        "state": polars.Binary, "multiplicity": polars.Int64, "incidence": polars.Int64
    }  # fmt: skip
    assert decoded.schema["state"] == polars.Array(polars.Boolean, 16)
    assert table(*packed.to_dict().values()) == expected(part)
    frame = pd.read_parquet(tmp_path / "packed.parquet")
    assert type(frame["state"][0]) is bytes


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_says_what_it_is_of(tmp_path, suffix):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})
    states, out = store["a"], tmp_path / f"out{suffix}"
    export_states(states, out)
    if suffix == ".zarr":
        attributes = dict(zarr.open_group(out, mode="r").attrs)
    else:
        attributes = json.loads(parquet.read_schema(out).metadata[b"tsstore"])
    assert attributes.pop("software").startswith("tsstore ")
    assert "least significant first" in attributes.pop("packing")
    assert attributes == {
        "run": str(tmp_path / "run"),
        "run_id": store.run.run_id,
        "layer": "a",
        "neurons": 16,
        "rows": states.rows,
        "samples": 50,
        "order": "none",
    }


def test_an_exported_group_is_not_taken_for_a_run(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    export_states(states, tmp_path / "out.zarr")
    with pytest.raises(NotAStoreError, match="no tsstore run"):
        tsstore.open(tmp_path / "out.zarr")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(StoreError, match=r"pip install tsstore\[parquet\]"):
        export_states(states, tmp_path / "out.parquet")
    assert export_states(states, tmp_path / "out.zarr") > 1
