from __future__ import annotations

import numpy as np
import zarr

from tsstore.analysis.states.zarr_store import DurableStore
from tsstore.store.files.local import LocalFiles


def test_what_zarr_writes_is_synced(tmp_path, monkeypatch):
    step, synced = LocalFiles._step, []

    def note(self, operation, path, *arguments):
        synced.append((operation, path))
        return step(self, operation, path, *arguments)

    monkeypatch.setattr(LocalFiles, "_step", note)
    store = DurableStore(tmp_path / "out.zarr")
    array = zarr.create_array(store, name="a", data=np.arange(10, dtype=np.uint8), chunks=(4,))
    store.files.sync()
    assert array[:].tolist() == list(range(10))
    assert sum(operation == "sync" for operation, _ in synced) >= 4
    folders = {path for operation, path in synced if operation == "sync_directory"}
    assert folders >= {tmp_path / "out.zarr", tmp_path / "out.zarr/a/c"}


def test_nothing_is_written_once_it_is_removed(tmp_path):
    store = DurableStore(tmp_path / "out.zarr")
    array = zarr.create_array(store, name="a", shape=(8,), chunks=(4,), dtype="int8")
    store.remove()
    array[:] = 1
    assert not (tmp_path / "out.zarr").exists()
