"""Readers of a run that is being written: only commits, in order, and never a false alarm."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tsstore import bits
from tsstore.errors import StoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.documents import create_group
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

SECONDS = 1.5
"""How long writers write at least; on a busy machine until enough has been seen."""
PATIENCE = 120.0
NEURONS = {"conv_1": 6, "fc.2": 13, "late": 9}
VARYING_FROM, LATE_FROM = 40, 90


def positions_of(layer: str, ids: np.ndarray) -> np.ndarray:
    """Return the rows of samples: those of one layer begin to vary, another layer comes late."""
    if layer == "late":
        return np.where(ids >= LATE_FROM, 1, 0)
    return np.where((layer == "conv_1") & (ids >= VARYING_FROM), ids % 3, 2)


def rows_of(layer: str, ids: np.ndarray) -> np.ndarray:
    """Return rows that tell their sample and layer."""
    numbers = np.repeat(ids, positions_of(layer, ids)) * 2654435761 + len(layer)
    return bits.pack(((numbers[:, None] >> np.arange(NEURONS[layer])) & 1).astype(bool))


class Writer(threading.Thread):
    """Records samples 0, 1, 2 … into parts of one rank until it is told to end."""

    def __init__(self, path: Path, rank: int) -> None:
        super().__init__()
        self.path, self.rank = path, rank
        self.begun, self.ended = time.monotonic(), threading.Event()
        self.acknowledged = self.commits = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.record()
        except BaseException as error:
            self.error = error

    def end_if(self, enough: bool) -> None:
        """Let it end, if it has been seen for long enough."""
        seconds = time.monotonic() - self.begun
        if (enough and seconds > SECONDS) or seconds > PATIENCE:
            self.ended.set()

    def record(self) -> None:
        rng = np.random.default_rng(self.rank)
        files = LocalFiles(self.path, durable=False)
        part = PartAttributes(rank=self.rank, world_size=2)
        writer, first, known = PartWriter(files, part, chunk_bytes=20), 0, set()
        while not self.ended.is_set():
            ids = np.arange(first, first + rng.integers(1, 6))
            names = {name for name in NEURONS if name != "late" or ids[-1] >= LATE_FROM}
            new = {name: LayerAttributes(name, NEURONS[name]) for name in sorted(names - known)}
            if new:
                writer.define(new, dict.fromkeys(new, 2), {"id": "int64", "text": "string"})
            known, first = names, first + len(ids)
            layers = {
                name: LayerBatch(rows_of(name, ids), positions_of(name, ids)) for name in known
            }
            text = np.array([f"{i}ü" for i in ids], dtype=object)
            writer.append(Batch(len(ids), layers, {"id": ids, "text": text}))
            if rng.random() < 0.5:
                writer.commit()
                self.commits += 1
                self.acknowledged = writer.record.samples
        writer.seal()
        self.acknowledged = writer.record.samples


def check(store: StateStore, seen: dict[str, int]) -> None:
    """Check each part's committed samples, in every layer and column, and that none went away."""
    for part in store.parts:
        ids = np.arange(part.samples)
        assert part.samples >= seen.get(part.directory, 0)
        seen[part.directory] = part.samples
        for name, layer in part.layers.items():
            expected = positions_of(name, ids)
            np.testing.assert_array_equal(layer.read_positions(0, part.samples), expected)
            np.testing.assert_array_equal(layer.states.read(0, layer.rows), rows_of(name, ids))
        for name, column in part.columns.items():
            expected = ids.tolist() if name == "id" else [f"{i}ü" for i in ids]
            assert column.read(0, part.samples).tolist() == expected
    for name in store.layers:
        if all(name in part.layers for part in store.parts if part.samples):
            assert len(store[name].read_positions()) == store.samples
        else:
            with pytest.raises(StoreError, match="layer late has no states in part-"):
                store[name]


@pytest.fixture
def writers(tmp_path):
    create_run(LocalFiles(tmp_path, durable=False))
    writers = [Writer(tmp_path, rank) for rank in range(2)]
    yield writers
    for writer in [writer for writer in writers if writer.ident]:
        writer.ended.set()
        writer.join()


def test_readers_of_a_live_run_see_commits_only_and_no_damage(tmp_path, writers):
    followed, rounds = open_store(tmp_path), 0
    followed_seen: dict[str, int] = {}
    opened_seen: dict[str, int] = {}
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        acknowledged = [writer.acknowledged for writer in writers]
        check(followed.refresh(), followed_seen)
        check(open_store(tmp_path), opened_seen)
        assert sum(acknowledged) <= followed.samples
        report = verify(tmp_path)
        assert report.ok, str(report)
        assert followed.status in ("live", "finished")
        rounds += 1
        commits = sum(writer.commits for writer in writers)
        for writer in writers:
            writer.end_if(rounds > 5 and commits > 50 and sum(acknowledged) > 2 * LATE_FROM)
    assert [writer.error for writer in writers] == [None, None]
    check(followed.refresh(), followed_seen)
    assert followed.finished
    assert followed.samples == sum(writer.acknowledged for writer in writers) > 2 * LATE_FROM
    assert rounds > 5
    assert sum(writer.commits for writer in writers) > 50
    assert not verify(tmp_path).findings


def test_a_handle_reads_its_own_commit_while_the_writer_goes_on(tmp_path, writers):
    writers[0].start()
    reads = 0
    store = open_store(tmp_path)
    while writers[0].is_alive():
        ids = np.arange(store.samples)
        for name, states in store.items():
            np.testing.assert_array_equal(states[:], rows_of(name, ids))
            reads += 1
        if reads % 20 == 0:
            store = open_store(tmp_path)
        writers[0].end_if(reads > 20)
    assert writers[0].error is None
    assert reads > 20


def test_a_part_that_is_being_made_is_passed_over_until_it_is_there(tmp_path):
    """Each state that the first files of a part go through, in order."""
    files = LocalFiles(tmp_path, durable=False)
    create_run(files)
    store = open_store(tmp_path)
    directory = "part-00000-00000"
    (tmp_path / directory).mkdir()
    assert store.refresh().parts == ()
    (tmp_path / directory / "zarr.json.0123456789abcdef.partial").write_bytes(b'{"za')
    assert store.refresh().parts == ()
    create_group(files, directory, PartAttributes(started="2026-01-02T00:00:00+00:00").to_json())
    assert store.refresh().samples == 0
    assert [part.directory for part in store.parts] == [directory]
    (tmp_path / directory / "commit").mkdir()
    assert store.refresh().parts[0].record.generation == 0
