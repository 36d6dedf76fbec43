from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import draw_batch, start_part, write_run

from tsstore.errors import DamageError, PartSealedError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.record import CommitRecord
from tsstore.store.reading.part import read_seal
from tsstore.store.reading.store import open_store
from tsstore.store.run import create_run
from tsstore.store.writing.part import PartWriter, create_seal, seal_part

PART = "part-00000-00000"


@pytest.fixture
def files(tmp_path):
    return LocalFiles(tmp_path)


@pytest.fixture
def batch():
    return draw_batch(np.random.default_rng(0), 5)


def test_a_seal_freezes_the_last_commit(files, tmp_path, batch):
    writer = write_run(tmp_path, [batch, batch], close=False)
    writer.append(batch)
    seal = seal_part(files, PART, "resumed by rank 0 of 1", "host process 7")
    assert seal.record == writer.record
    assert (seal.why, seal.by) == ("resumed by rank 0 of 1", "host process 7")
    assert open_store(tmp_path).samples == 10
    assert open_store(tmp_path).parts[0].seal == seal
    with pytest.raises(PartSealedError, match="was sealed by another process"):
        writer.commit()
    assert open_store(tmp_path).samples == 10


def test_the_first_seal_stays(files, tmp_path, batch):
    write_run(tmp_path, [batch])
    closed = read_seal(files, PART)
    assert seal_part(files, PART, "resumed", "another") == closed
    assert closed.why == "closed"
    with pytest.raises(FileExistsError):
        create_seal(files, PART, CommitRecord(), "resumed", "another")
    assert read_seal(files, PART) == closed


def test_of_many_that_seal_one_decides_for_all(files, tmp_path, batch):
    write_run(tmp_path, [batch], close=False)
    with ThreadPoolExecutor(8) as pool:
        seals = list(
            pool.map(lambda n: seal_part(files, PART, "resumed", f"process {n}"), range(8))
        )
    assert len({seal.by for seal in seals}) == 1
    assert seals[0] == read_seal(files, PART)


def test_a_seal_that_comes_in_between_counts(files, tmp_path, batch, monkeypatch):
    write_run(tmp_path, [batch], close=False)

    def read_and_be_sealed(files: LocalFiles, part: str) -> CommitRecord:
        create_seal(files, part, CommitRecord(generation=1), "resumed", "another")
        return CommitRecord(generation=2)

    monkeypatch.setattr("tsstore.store.writing.part.read_record", read_and_be_sealed)
    seal = seal_part(files, PART, "resumed", "this one")
    assert (seal.record.generation, seal.by) == (1, "another")


@pytest.mark.parametrize("defined", [False, True])
def test_a_part_without_a_commit_is_sealed_empty(files, tmp_path, batch, defined):
    create_run(files)
    writer = start_part(tmp_path, batch) if defined else PartWriter(files, PartAttributes())
    assert seal_part(files, PART, "resumed", "another").record == CommitRecord()
    with pytest.raises(PartSealedError, match="sealed by another process"):
        writer.commit()
    assert open_store(tmp_path).samples == 0


def test_a_part_that_lost_its_record_is_not_sealed(files, tmp_path, batch):
    write_run(tmp_path, [batch], close=False)
    files.remove(f"{PART}/commit/zarr.json")
    with pytest.raises(DamageError, match=r"commit/zarr.json is .*missing"):
        seal_part(files, PART, "resumed", "another")
    assert not files.exists(f"{PART}/sealed/zarr.json")


def test_a_seal_that_vanishes_is_damage(files, tmp_path, batch, monkeypatch):
    write_run(tmp_path, [batch])
    monkeypatch.setattr("tsstore.store.writing.part.read_seal", lambda *_: None)
    with pytest.raises(DamageError, match=r"sealed/zarr.json has vanished; restore"):
        seal_part(files, PART, "resumed", "another")


def test_a_seal_is_synced(files, tmp_path, batch, monkeypatch):
    write_run(tmp_path, [batch], close=False)
    done: list[str] = []
    create, sync = LocalFiles.create, LocalFiles.sync
    monkeypatch.setattr(
        LocalFiles, "create", lambda self, key, data: (done.append(key), create(self, key, data))
    )
    monkeypatch.setattr(LocalFiles, "sync", lambda self: (done.append("sync"), sync(self)))
    seal_part(files, PART, "resumed", "another")
    assert done == [f"{PART}/sealed/zarr.json", "sync"]
