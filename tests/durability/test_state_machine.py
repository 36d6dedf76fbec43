"""Any order of what jobs and readers of a run may do, against lists of what they have done."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import pytest
from crashing import CHUNK_BYTES, batch_of, check_samples, define, quick_folder, small_chunks
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from power import Killed, LoggedFiles

from tsstore.errors import PartSealedError, StoreError
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.maintenance.repair import repair
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.run import begin_run
from tsstore.store.writing.part import PartWriter
from tsstore.store.writing.resume import resume_step

WORLD = 2
RANKS = st.integers(0, WORLD - 1)
COUNTS = st.integers(1, 4)
STEPS = st.integers(0, 90)
"""After which to be killed: a commit has fewer."""


@dataclass
class ModelPart:
    """What a part should hold: the ids of its samples, batch by batch.

    Attributes
    ----------
    committed
        How many batches.
    sealed
        Whether no later commit counts.
    """

    batches: list[list[int]] = field(default_factory=list)
    committed: int = 0
    sealed: bool = False

    @property
    def ids(self) -> list[int]:
        return [number for batch in self.batches[: self.committed] for number in batch]


@dataclass
class Job:
    """A process that writes a part."""

    files: LoggedFiles
    writer: PartWriter
    part: ModelPart


class RunMachine(RuleBasedStateMachine):
    """A run of two ranks, with jobs that are killed or live too long, and readers of any age."""

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        self.path = self.resources.enter_context(quick_folder()) / "run.zarr"
        self.parts: dict[str, ModelPart] = {}
        self.jobs: dict[int, Job] = {}
        self.zombies: list[Job] = []
        self.next_id = 0
        self.reader: StateStore | None = None
        self.reader_ids: list[int] = []

    def teardown(self) -> None:
        self.resources.close()

    @initialize()
    def create(self) -> None:
        begin_run(self.files())

    def files(self, stop: int | None = None) -> LoggedFiles:
        return LoggedFiles(self.path, [], stop, durable=False)

    @property
    def ids(self) -> list[int]:
        """All committed ids, part after part."""
        return [number for _, part in sorted(self.parts.items()) for number in part.ids]

    @rule(rank=RANKS, steps=STEPS)
    def start_and_be_killed(self, rank: int, steps: int) -> None:
        self.jobs.pop(rank, None)
        files = self.files(stop=steps)
        attributes = PartAttributes(rank=rank, world_size=WORLD)
        try:
            earlier = resume_step(files, attributes)
            define(PartWriter(files, attributes, attempt=earlier.attempt))
        except Killed:
            pass
        for part in open_store(self.path).parts:
            # How far it has come does not matter: nothing was recorded.
            model = self.parts.setdefault(part.directory, ModelPart())
            model.sealed = part.seal is not None

    @rule(rank=RANKS)
    def start(self, rank: int) -> None:
        """Begin a job, or begin it anew: an earlier one of its rank may still live."""
        files = self.files()
        earlier = resume_step(files, PartAttributes(rank=rank, world_size=WORLD))
        own = [part for name, part in self.parts.items() if f"-{rank:05d}-" in name]
        for part in own:
            part.sealed = True
        assert earlier.committed_samples == sum(len(part.ids) for part in own)
        sealed = {number for part in self.parts.values() if part.sealed for number in part.ids}
        missing = earlier.missing(np.arange(self.next_id)).tolist()
        assert missing == [number for number in range(self.next_id) if number not in sealed]
        attributes = PartAttributes(rank=rank, world_size=WORLD)
        writer = PartWriter(files, attributes, chunk_bytes=CHUNK_BYTES, attempt=earlier.attempt)
        assert writer.directory not in self.parts
        define(writer)
        if rank in self.jobs:
            self.zombies.append(self.jobs[rank])
        self.parts[writer.directory] = ModelPart()
        self.jobs[rank] = Job(files, writer, self.parts[writer.directory])

    @rule(rank=RANKS, counts=st.lists(COUNTS, max_size=3), again=st.booleans())
    def append(self, rank: int, counts: list[int], again: bool) -> None:
        for count in counts:
            self.record(self.job(rank), self.some_ids(count, again))

    @rule(rank=RANKS, counts=st.lists(COUNTS, max_size=3))
    def commit(self, rank: int, counts: list[int]) -> None:
        job = self.job(rank)
        for count in counts:
            self.record(job, self.some_ids(count))
        assert job.writer.commit().batches == len(job.part.batches)
        job.part.committed = len(job.part.batches)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        job = self.jobs.pop(data.draw(st.sampled_from(sorted(self.jobs))))
        job.writer.seal()
        job.part.committed = len(job.part.batches)
        job.part.sealed = True

    @rule(rank=RANKS, count=COUNTS, steps=STEPS, close=st.booleans())
    def be_killed(self, rank: int, count: int, steps: int, close: bool) -> None:
        """Be killed while a batch is appended and committed, or the part closed; or before."""
        job = self.job(rank)
        del self.jobs[rank]
        job.files.stop_after(steps)
        try:
            self.record(job, self.some_ids(count))
            if close:
                job.writer.seal()
            else:
                job.writer.commit()
        except Killed:
            pass
        self.look_what_is_left(job)

    def job(self, rank: int) -> Job:
        """Return the rank's job, which is begun where there is none."""
        if rank not in self.jobs:
            self.start(rank)
        return self.jobs[rank]

    def some_ids(self, count: int, again: bool = False) -> np.ndarray:
        """Return new ids, or some that were taken before: samplers may repeat samples."""
        if again:
            return np.arange(min(count, self.next_id))
        self.next_id += count
        return np.arange(self.next_id - count, self.next_id)

    def record(self, job: Job, ids: np.ndarray) -> None:
        job.part.batches.append(ids.tolist())
        job.writer.append(batch_of(ids))

    def look_what_is_left(self, job: Job) -> None:
        """A commit that was stopped halfway has been made, or it has not."""
        parts = {part.directory: part for part in open_store(self.path).parts}
        left = parts[job.writer.directory]
        assert left.record.batches in (job.part.committed, len(job.part.batches))
        job.part.committed = left.record.batches
        job.part.sealed = left.seal is not None

    @precondition(lambda self: self.zombies)
    @rule(data=st.data(), count=COUNTS, rude=st.booleans())
    def go_on_as_a_zombie(self, data: st.DataObject, count: int, rude: bool) -> None:
        """Go on after another job took over; a rude one does not even look for the seal."""
        writer = data.draw(st.sampled_from(self.zombies)).writer
        batch = batch_of(np.arange(1000, 1000 + count))
        if writer.sealed:
            with pytest.raises(PartSealedError):
                writer.append(batch)
        elif rude:
            writer._check_seal = lambda: None
            writer.append(batch)
            writer.commit()
        else:
            writer.append(batch)
            if "_check_seal" not in vars(writer):
                with pytest.raises(PartSealedError):
                    writer.commit()

    @rule()
    def read(self) -> None:
        self.check(open_store(self.path))

    @rule()
    def open(self) -> None:
        self.reader, self.reader_ids = open_store(self.path), self.ids

    @precondition(lambda self: self.reader)
    @rule()
    def read_as_of_an_earlier_time(self) -> None:
        assert self.reader
        check_samples(self.reader, np.array(self.reader_ids))

    @precondition(lambda self: self.reader)
    @rule()
    def refresh(self) -> None:
        assert self.reader
        self.check(self.reader.refresh())
        self.reader_ids = self.ids

    def check(self, store: StateStore) -> None:
        assert [part.directory for part in store.parts] == sorted(self.parts)
        check_samples(store, np.array(self.ids))
        assert store.repeated_samples == len(self.ids) - len(set(self.ids))

    @rule()
    def verify(self) -> None:
        report = verify(self.path)
        assert report.ok, str(report)
        assert report.samples == len(self.ids)

    @rule()
    def repair(self) -> None:
        if all(part.sealed for part in self.parts.values()):
            repair(self.path)
            assert repair(self.path).reshaped == ()
        else:
            # All jobs are in this process, which is alive.
            with pytest.raises(StoreError, match="is being written by process"):
                repair(self.path)
        self.check(open_store(self.path))


def run_machine(examples: int, steps: int) -> None:
    with small_chunks():
        run_state_machine_as_test(
            RunMachine, settings=settings(max_examples=examples, stateful_step_count=steps)
        )


def test_what_jobs_have_committed_is_there_whatever_happens():
    run_machine(examples=20, steps=25)


@pytest.mark.slow(minutes=1)
def test_what_jobs_have_committed_is_there_for_long():
    run_machine(examples=400, steps=40)
