from __future__ import annotations

import os
from pathlib import Path

import children
import numpy as np
import pytest
from state_tables import SUFFIXES
from synthetic import draw_layer, layer, numbered_rows, write_layers

from tsstore.analysis.states import formats as states_formats
from tsstore.analysis.states.table import export_states
from tsstore.errors import AccessError, DamageError, StoreError, StoreExistsError


@pytest.mark.parametrize("name", ["out.csv", "out", "out.zarr.zip", "s3://bucket/out.zarr"])
def test_names_that_mean_no_local_table_are_refused(tmp_path, name):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    with pytest.raises(StoreError, match="local path" if ":" in name else ".parquet or .zarr"):
        export_states(states, name)
    with pytest.raises(StoreError, match="local paths only"):
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
    kind = {".zarr": states_formats.ZarrGroup, ".parquet": states_formats.ParquetFile}[suffix]

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
        "from tsstore.analysis.states.table import export_states\n"
        "run, out = sys.argv[1:]\n"
        "def kill(layer, done, total): done < total - 1 or os.kill(os.getpid(), 9)\n"
        "export_states(tsstore.open(run)['a'], out, progress=kill)\n"
    )
    assert children.run(killed, tmp_path / "run", tmp_path / f"out{suffix}").returncode == -9
    left, run = sorted(os.listdir(tmp_path))
    assert run == "run"
    assert left.startswith(f"out{suffix}.")
    assert left.endswith(".partial")
