"""A process that writes on after another one has resumed its part changes nothing."""

from __future__ import annotations

import random
from copy import copy
from itertools import chain

import numpy as np
import pytest
from interleaving import Actor, SteppedFiles, interleave, pause

from tsstore import bits
from tsstore.errors import PartSealedError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.reading.part import read_record
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter
from tsstore.store.writing.resume import resume_part

TRIALS = 300
SAMPLES = 30
WIDTHS = {"conv_1": 6, "fc.2": 13, "late": 9}


def positions_of(layer: str, ids: np.ndarray, varying_from: int, late_from: int) -> np.ndarray:
    """Return the rows of samples: some layers' begin to vary, and one comes late."""
    if layer == "late":
        return np.where(ids >= late_from, 1, 0)
    return np.where((layer == "fc.2") & (ids >= varying_from), ids % 3, 2)


def rows_of(layer: str, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return rows that are another function of the id in each layer."""
    numbers = np.repeat(ids, positions) * 2654435761 + len(layer)
    return bits.pack(((numbers[:, None] >> np.arange(WIDTHS[layer])) & 1).astype(bool))


class Job:
    """Records samples by their ids, a few at a time."""

    def __init__(self, drawn: random.Random) -> None:
        self.drawn = drawn
        self.varying_from = drawn.randrange(2 * SAMPLES)
        self.late_from = drawn.randrange(2 * SAMPLES)
        self.acknowledged = 0

    def batch(self, ids: np.ndarray, names: list[str]) -> Batch:
        layers = {}
        for name in names:
            counts = positions_of(name, ids, self.varying_from, self.late_from)
            layers[name] = LayerBatch(rows_of(name, ids, counts), counts)
        return Batch(len(ids), layers, {"id": ids})

    def record(self, writer: PartWriter, ids: np.ndarray) -> None:
        names: list[str] = []
        while len(ids):
            count = self.drawn.randrange(1, 6)
            now, ids = ids[:count], ids[count:]
            late = bool((now >= self.late_from).any())
            new = [name for name in WIDTHS if name not in names and (name != "late" or late)]
            if new:
                define(writer, new)
                names += new
            writer.append(self.batch(now, names))
            if self.drawn.random() < 0.6:
                self.acknowledged = writer.commit().samples
        writer.seal()
        self.acknowledged = writer.record.samples

    def check(self, store: StateStore) -> list[list[int]]:
        """Check every row that is committed; return the ids of each part."""
        for part in store.parts:
            ids = part.columns["id"].read(0, part.samples) if part.samples else np.arange(0)
            for name, layer in part.layers.items():
                expected = positions_of(name, ids, self.varying_from, self.late_from)
                np.testing.assert_array_equal(layer.read_positions(0, part.samples), expected)
                rows = layer.states.read(0, layer.rows)
                np.testing.assert_array_equal(rows, rows_of(name, ids, expected))
        return [
            part.columns["id"].read(0, part.samples).tolist() if part.samples else []
            for part in store.parts
        ]


def define(writer: PartWriter, names: list[str]) -> None:
    layers = {name: LayerAttributes(name, WIDTHS[name]) for name in names}
    writer.define(layers, dict.fromkeys(names, 2), {"id": "int64"})


@pytest.fixture(autouse=True)
def _many_small_chunks(monkeypatch):
    monkeypatch.setattr("tsstore.store.format.arrays.COLUMN_CHUNK_ROWS", 8)
    monkeypatch.setattr("tsstore.store.format.arrays.CHECKSUM_CHUNK_ROWS", 2)


@pytest.mark.parametrize("rude", [False, True], ids=["looks for seals", "looks for none"])
@pytest.mark.parametrize(
    "seeds", [range(20), pytest.param(range(20, TRIALS // 2), marks=pytest.mark.slow)], ids=len
)
def test_whatever_a_zombie_writes_no_sample_counts_twice_and_none_is_lost(tmp_path, seeds, rude):
    late = [
        one_trial(tmp_path / str(seed), random.Random(f"{seed} {rude}"), rude) for seed in seeds
    ]
    # Or else nothing was tried.
    assert sum(late) > len(seeds) // 10


def one_trial(path, drawn: random.Random, rude: bool) -> bool:
    """Let one process write while another resumes; return whether it went on after its seal."""
    files = LocalFiles(path, durable=False)
    create_run(files)
    job = Job(drawn)
    resumed = copy(job)
    acknowledged_before = 0
    stepped = SteppedFiles(path, durable=False)
    writer = PartWriter(stepped, PartAttributes(), chunk_bytes=drawn.choice([1, 8, 40]))
    if rude:
        writer._check_seal = lambda: None

    def zombie() -> None:
        try:
            job.record(writer, np.arange(SAMPLES))
        except PartSealedError:
            assert not rude

    def resume() -> None:
        nonlocal acknowledged_before
        for _ in range(drawn.randrange(250)):
            pause()
        acknowledged_before = job.acknowledged
        later, earlier = resume_part(SteppedFiles(path, durable=False), PartAttributes())
        resumed.record(later, earlier.missing(np.arange(SAMPLES)))

    def look() -> None:
        if drawn.random() < 0.02:
            job.check(open_store(path))

    interleave(drawn, [Actor(zombie), Actor(resume)], look)
    held = job.check(open_store(path))
    assert sorted(chain(*held)) == list(range(SAMPLES))
    assert held[0] == list(range(len(held[0])))
    assert len(held[0]) >= acknowledged_before
    return read_record(files, writer.directory).samples > len(held[0])
