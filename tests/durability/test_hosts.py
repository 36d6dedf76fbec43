"""What hosts do to a job: ranks beside each other, clocks that jump, few files, and late names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

import children
import numpy as np
import pytest
import rank_job
from helpers import draw_batch, rows_of, start_part, write_run
from watching import packed

import tsstore
from tsstore.errors import DamageError, TsstoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format import documents
from tsstore.store.maintenance.compact import compact
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading import status
from tsstore.store.reading.part import open_parts
from tsstore.store.reading.store import StateStore
from tsstore.store.run import read_run


def check(path: Path, count: int) -> tsstore.StateStore:
    """The run has each sample once, with its own rows, and nothing is wrong with it."""
    store = tsstore.open(path)
    ids = store.column("id")
    assert sorted(ids.tolist()) == list(range(count))
    right = packed(rank_job.model()(rank_job.inputs(ids)))[:, 0]
    np.testing.assert_array_equal(store[rank_job.LAYER][:], right)
    report = verify(path)
    assert report.ok, str(report)
    return store


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_ranks_on_one_host_write_one_run_and_go_on_with_it(tmp_path, method):
    script = (
        "import sys, rank_job\n"
        "method, path, ranks, count = sys.argv[1:]\n"
        "rank_job.record_all(method, path, int(ranks), int(count))\n"
    )
    path = tmp_path / "run.zarr"
    for ranks, count in ((3, 31), (2, 50)):
        done = children.run(script, method, path, ranks, count, timeout=120)
        assert done.returncode == 0, done.stderr
    assert check(path, 50).repeated_samples == 0
    assert len(tsstore.open(path).parts) == 5


JUMPS = {
    "back by a year": [0, -365],
    "forward by ten years": [0, 3650],
    "back and forth": [0, 40, -40, 3, -3],
    "before 1970": [0, -25_000],
}


@pytest.mark.parametrize("jumps", JUMPS)
def test_a_clock_that_jumps_changes_no_number_and_stops_no_job(tmp_path, monkeypatch, jumps):
    """Between commits, in the job and in its readers."""
    days = cycle(JUMPS[jumps])

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=next(days))

    for module in (documents, status):
        monkeypatch.setattr(module, "datetime", Clock)
    path = tmp_path / "run.zarr"
    for count in (20, 40):
        rank_job.record(path, 0, 1, count)
        store = tsstore.open(path)
        assert store.status == "finished"
        assert "last commit" in str(store)
    store = check(path, 40)
    distinct = len(np.unique(store[rank_job.LAYER][:], axis=0))
    assert tsstore.analyze(path, scheduler="synchronous")[rank_job.LAYER].distinct == distinct
    compact(path, tmp_path / "compact.zarr")
    check(tmp_path / "compact.zarr", 40)


@pytest.mark.parametrize("days", [-1000, 1000])
def test_a_reader_whose_clock_is_wrong_moves_on_with_a_live_run(tmp_path, monkeypatch, days):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=days)

    batches = [draw_batch(np.random.default_rng(seed), 5) for seed in range(3)]
    writer = write_run(tmp_path, batches[:1], close=False)
    monkeypatch.setattr(status, "datetime", Clock)
    store = tsstore.open(tmp_path)
    for number in (2, 3):
        writer.append(batches[number - 1])
        writer.commit()
        assert store.refresh().samples == 5 * number
        # Its process is on this host: that it lives is known without any clock.
        assert store.status == "live"
    np.testing.assert_array_equal(store["fc.2"][:], rows_of(batches, "fc.2"))


def test_sixty_four_open_files_are_enough(tmp_path):
    script = """
    import os, resource, sys
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    import torch, tsstore
    from tsstore.store.maintenance.compact import compact
    from tsstore.store.maintenance.verify import verify

    folder = sys.argv[1]
    model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(30)])
    for first in (0, 40):
        with (
            torch.inference_mode(),
            tsstore.capture(model, f"{folder}/run", layers=["Linear"], resume=True) as recorder,
        ):
            for start in range(first, first + 40, 10):
                with recorder.batch(id=range(start, start + 10)):
                    model(torch.randn(10, 4))
                recorder.commit()
    store = tsstore.open(f"{folder}/run")
    assert store.samples == 80, store
    analysis = tsstore.analyze(store, scratch=folder, memory="64MiB")
    assert len(analysis) == 30
    assert tsstore.export(store, "7", f"{folder}/out.zarr") == analysis["7"].distinct
    assert verify(f"{folder}/run").ok
    assert compact(store, f"{folder}/compact").samples == 80
    """
    done = children.run(script, tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compact", "out.zarr", "run"]


class LateFiles(LocalFiles):
    """Shows new names late, as clients of network file systems do; what they name is up to date.

    A name is seen when it is as old as `lag` in the order in which names came to be.
    """

    def __init__(self, path: Path, names: list[str], lag: int = 0) -> None:
        super().__init__(path, durable=False)
        self.names_in_order = names
        self.lag = lag

    def is_late(self, key: str) -> bool:
        late = self.names_in_order[len(self.names_in_order) - self.lag :] if self.lag else []
        return any(name == key or name.startswith(f"{key}/") for name in late) and not any(
            name == key or name.startswith(f"{key}/")
            for name in self.names_in_order[: len(self.names_in_order) - self.lag]
        )

    def _open(self, key):
        if self.is_late(key):
            raise FileNotFoundError(key)
        return super()._open(key)

    def exists(self, key):
        return not self.is_late(key) and super().exists(key)

    def list(self, key):
        return [name for name in super().list(key) if not self.is_late(f"{key}/{name}".strip("/"))]


@pytest.mark.parametrize("chunk_bytes", [20, 1 << 20])
def test_names_that_are_seen_late_are_no_wrong_numbers(tmp_path, chunk_bytes):
    """A reader sees earlier commits, or is told that something is missing; then all is right."""
    path = tmp_path / "run.zarr"
    batches = [
        draw_batch(np.random.default_rng(seed), 5, columns={"id": np.arange(5) + 5 * seed})
        for seed in range(4)
    ]
    names: list[str] = []
    writer = start_part(path, batches[0], chunk_bytes=chunk_bytes)

    def look() -> None:
        found = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        names.extend(sorted(set(found) - set(names)))

    outcomes = set()
    for number, batch in enumerate(batches):
        writer.append(batch)
        writer.commit()
        look()
        for lag in range(len(names), -1, -1):
            files = LateFiles(path, names, lag)
            try:
                store = StateStore(files, read_run(files), open_parts(files))
                rows = store["fc.2"][:]
                ids = store.column("id")
            except TsstoreError as error:
                is_damage = isinstance(error, DamageError)
                outcomes.add(str(error) if is_damage else type(error).__name__)
                last = None
                continue
            assert len(rows) == len(ids) == store.samples
            np.testing.assert_array_equal(rows, rows_of(batches, "fc.2")[: len(rows)])
            outcomes.add("right")
            last = store.samples
        assert last == 5 * (number + 1)
    assert "right" in outcomes
    allowed = {"right", "NotAStoreError", "AccessError", "UnknownLayerError"}
    assert all("it is missing" in said for said in outcomes - allowed)


def test_a_time_before_the_epoch_is_a_time():
    assert status.parse_time("1901-05-05T00:00:00+00:00", "it") < datetime(1970, 1, 1, tzinfo=UTC)
