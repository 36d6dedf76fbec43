"""A small job that can be run again, what it must have left wherever it stopped, and real stops.

As a script this file is a server: it forks a child for each line of its input, a job that ends
at some step as by SIGKILL, and answers with the child's exit status.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

from tsstore import bits
from tsstore.errors import NotAStoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.maintenance.repair import repair
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.run import begin_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter
from tsstore.store.writing.resume import resume_step

SAMPLES = 12
BATCH = 2
COMMIT = 2
"""Batches of a commit: there are 3 commits."""
CHUNK_BYTES = 6
WIDTHS = {"conv_1": 6, "fc.2": 13}
SMALL = {"COLUMN_CHUNK_ROWS": 5, "CHECKSUM_CHUNK_ROWS": 2}

CRASHED = 77


def positions_of(layer: str, ids: np.ndarray) -> np.ndarray:
    """Return the rows of samples: those of one layer begin to vary halfway through the run."""
    return np.where((layer == "conv_1") & (ids >= 5), ids % 3, 1 + (layer == "conv_1"))


def rows_of(layer: str, ids: np.ndarray) -> np.ndarray:
    """Return rows that follow from the id; the first chunk of one layer has nothing that is on."""
    numbers = np.repeat(ids * 2654435761 * (ids >= 4), positions_of(layer, ids))
    return bits.pack(((numbers[:, None] >> np.arange(WIDTHS[layer])) & 1).astype(bool))


def texts_of(ids: np.ndarray) -> np.ndarray:
    return np.array(["ü" * (number % 4) + str(number) for number in ids], dtype=object)


def batch_of(ids: np.ndarray) -> Batch:
    layers = {name: LayerBatch(rows_of(name, ids), positions_of(name, ids)) for name in WIDTHS}
    return Batch(len(ids), layers, {"id": ids, "text": texts_of(ids)})


def define(writer: PartWriter) -> None:
    layers = {name: LayerAttributes(name, width) for name, width in WIDTHS.items()}
    writer.define(layers, {"conv_1": 2, "fc.2": 1}, {"id": "int64", "text": "string"})


@contextmanager
def small_chunks() -> Iterator[None]:
    """Let columns have many chunks where there are but a few samples."""
    with patch.multiple("tsstore.store.format.arrays", **SMALL):
        yield


def run_job(files: LocalFiles, acknowledge: Callable[[int], None] = lambda samples: None) -> None:
    """Record all samples that are not there yet: the same command, first or again.

    Parameters
    ----------
    files
        Where the run lies.
    acknowledge
        Told how many samples the store has said to hold, each time it says so.
    """
    with small_chunks():
        begin_run(files, resume=True)
        earlier = resume_step(files, PartAttributes())
        if earlier.committed_samples:
            acknowledge(earlier.committed_samples)
        part = PartAttributes()
        writer = PartWriter(files, part, chunk_bytes=CHUNK_BYTES, attempt=earlier.attempt)
        acknowledge(earlier.committed_samples)
        ids = earlier.missing(np.arange(SAMPLES))
        if len(ids):
            define(writer)
        for number, start in enumerate(range(0, len(ids), BATCH), 1):
            writer.append(batch_of(ids[start : start + BATCH]))
            if number % COMMIT == 0:
                acknowledge(earlier.committed_samples + writer.commit().samples)
        writer.seal()
        acknowledge(SAMPLES)


def check_run(path: Path, acknowledged: int | None) -> int:
    """Check what a job that stopped has left; return the number of samples.

    Parameters
    ----------
    path
        Of the run.
    acknowledged
        How many samples were committed for certain; None where there need not even be a run.

    Raises
    ------
    AssertionError
        If less is there, or anything that the job did not record, or a batch by half.
    TsstoreError
        If what is there cannot be read.
    """
    try:
        store = open_store(path)
    except NotAStoreError:
        assert acknowledged is None, f"the run is lost, and {acknowledged} samples with it"
        return 0
    found = store.samples
    assert found >= (acknowledged or 0), f"{found} samples of {acknowledged} that were committed"
    batches = sum(part.record.batches for part in store.parts)
    assert found == BATCH * batches, f"{found} samples in {batches} batches"
    check_samples(store, np.arange(found))
    return found


def check_samples(store: StateStore, ids: np.ndarray) -> None:
    """Check that just these samples are in every layer and column, part after part."""
    assert store.samples == len(ids), f"{store.samples} samples, not {len(ids)}"
    if not len(ids):
        return
    np.testing.assert_array_equal(store.column("id"), ids)
    np.testing.assert_array_equal(store.column("text"), texts_of(ids))
    for name in WIDTHS:
        layer = store[name]
        np.testing.assert_array_equal(layer[:], rows_of(name, ids))
        pieces = [part.read_positions(0, part.samples) for part in layer.parts]
        np.testing.assert_array_equal(np.concatenate(pieces), positions_of(name, ids))


def check_finished(path: Path) -> None:
    """Check that a run is whole, and that nothing needs to be done but to tidy up."""
    assert check_run(path, SAMPLES) == SAMPLES, "there are more samples than the job has"
    assert open_store(path).status == "finished", "the job has ended, but not the run"
    report = verify(path)
    assert report.ok, str(report)
    repair(path)
    assert check_run(path, SAMPLES) == SAMPLES, "repair has changed the run"
    report = verify(path)
    quiet = (finding.advice.startswith("nothing needs to be done") for finding in report.findings)
    assert all(quiet), str(report)


@contextmanager
def quick_folder() -> Iterator[Path]:
    """Give a folder in memory where there is one: processes may be killed there as anywhere."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


class CrashingFiles(LocalFiles):
    """Numbers the steps that change the disk from 1, and ends the process at one of them.

    Nothing is synced: what a killed process has written is not lost.

    Parameters
    ----------
    root
        Of the run.
    step
        Where to end; 0 for nowhere.
    when
        ``"before"``, ``"halfway"`` or ``"after"`` the step; of the steps only writes can be
        done by half.
    """

    def __init__(self, root: str | Path, step: int, when: str) -> None:
        super().__init__(root)
        self.steps: list[str] = []
        self._last = step
        self._when = when

    def _step(self, operation: str, path: Path, call: Callable[..., Any], *arguments: Any) -> Any:
        self.steps.append(operation)
        last = len(self.steps) == self._last
        if last and self._when == "halfway" and operation == "write":
            call(arguments[0], arguments[1][: len(arguments[1]) // 2])
        if last and self._when != "after":
            os._exit(CRASHED)
        result = None if operation.startswith("sync") else call(*arguments)
        if last:
            os._exit(CRASHED)
        return result


class InterruptedFiles(LocalFiles):
    """Lets others act just before a step, numbered from 1."""

    def __init__(self, root: Path, step: int, others: Callable[[], object]) -> None:
        super().__init__(root, durable=False)
        self.interrupted = False
        self._left = step
        self._others = others

    def _step(self, operation: str, path: Path, call: Callable[..., Any], *arguments: Any) -> Any:
        self._left -= 1
        if not self._left:
            self.interrupted = True
            self._others()
        return call(*arguments)


def crash_here(path: str, step: int, when: str, acknowledged: str) -> None:
    """Run the job in this process, and let it end at a step."""
    with open(acknowledged, "a", buffering=1) as file:
        run_job(CrashingFiles(path, step, when), lambda samples: print(samples, file=file))


def steps_of_job(path: Path) -> tuple[list[str], list[int]]:
    """Run the job to its end in this process.

    Returns
    -------
    tuple
        Its steps, and how many of them were done each time it acknowledged something.
    """
    files = CrashingFiles(path, 0, "")
    done: list[int] = []
    run_job(files, lambda samples: done.append(len(files.steps)))
    return files.steps, done


class Crasher:
    """Lets jobs crash in processes of their own: forks of a small one that has no threads.

    Attributes
    ----------
    crashed, finished
        How many jobs were stopped, and how many had fewer steps.
    """

    def __init__(self) -> None:
        self.crashed = self.finished = 0
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def crash(self, path: Path, step: int, when: str) -> int | None:
        """Let a job end at a step; return how many samples were committed for certain."""
        assert self._server.stdin
        assert self._server.stdout
        notes = path.with_name("acknowledged")
        request = {"path": str(path), "step": step, "when": when, "acknowledged": str(notes)}
        print(json.dumps(request), file=self._server.stdin, flush=True)
        status = int(self._server.stdout.readline())
        assert status in (0, CRASHED)
        self.crashed += status == CRASHED
        self.finished += status == 0
        told = notes.read_text().split()
        return int(told[-1]) if told else None

    def __enter__(self) -> Crasher:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()


def _serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            crash_here(**json.loads(line))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
