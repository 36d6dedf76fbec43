"""The samples whose states are least expected, given all other samples: out of core, in two passes.

The first one reads the rows, and makes a record of each state of each sample: its key, the sample,
in how many of its rows. All records of one state meet in one partition. The second pass goes over
these: it counts each state in all samples, and then looks up what every sample finds in the others.
"""

from __future__ import annotations

import operator
import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.block import LayerJob, read_keys
from tsstore.analysis.execution.exchange import HeldSlices, Receipt, spill
from tsstore.analysis.execution.graph import Index, check_receipts
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.layer_plan import Plan, make_plan
from tsstore.analysis.request import Request, check_rows, countable
from tsstore.analysis.schedulers import Scheduler, choose, task_keys
from tsstore.analysis.states.distinct import shares
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import scatter
from tsstore.counting.records import Buffers, Records
from tsstore.counting.tables.aggregate import count_tables
from tsstore.counting.tables.spectra import Tally
from tsstore.counting.warm_up import warm_up
from tsstore.errors import AnalysisError, CountingError, TsstoreWarning
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.surprisal import mean_surprisal, unseen
from tsstore.store.files.open import StorePath
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block
from tsstore.store.reading.sample_frame import frame_of_samples
from tsstore.store.reading.store import StateStore
from tsstore.text import Progress, printable

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_BYTES = 48
"""Of each sample: what is added up, and what is worked out of it."""
DIGITS = 9
"""Decimals of the bits that are told: sums of another order differ in later ones."""

_Words = npt.NDArray[np.uint64]
_Numbers = npt.NDArray[np.int64]


def surprising(
    store: StateStore | StorePath,
    layer: str,
    n: int = 20,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Find the samples whose states in a layer are least expected, given all other samples.

    All samples count, those that repeat others as well: a copy is no surprise.

    Parameters
    ----------
    store
        A run, or its path.
    layer
        Name of the layer.
    n
        How many samples to return, at most.
    memory, scheduler, scratch, progress
        As for :func:`tsstore.analyze`.

    Returns
    -------
    pandas.DataFrame
        A line a sample, the most surprising first, indexed as `StateStore.samples_frame` is:
        `bits`, the mean surprisal of its rows; `new`, the share of its rows whose state no other
        sample shows; `rows`; then its sample columns. Of equally surprising samples the first ones
        are there; ``frame.attrs["equally_surprising"]`` is how many more are as the last one is.

    Raises
    ------
    UnknownLayerError, EmptyStoreError
        If there is no such layer, or it has no rows.
    DamageError
        If a chunk is not what was committed.
    MemoryTooSmallError, AnalysisError
        If `n` is less than 1, one sample alone has rows, or memory, scheduler or scratch make no
        sense.

    Warns
    -----
    TsstoreWarning
        If no state occurs in two samples: none is then more surprising than another.

    Notes
    -----
    A row whose state is in K of all N rows, k of them in its own sample of r rows, has a surprisal
    of ``-log2((1 - u) (K - k) / (N - r))`` bits if another sample shows the state (K > k), else of
    ``-log2(u / f0)``: u is the share of all rows in states of one sample alone (Good 1953), f0 how
    many states Chao2 estimates to be unseen, one at least. ``tsstore/statistics/surprisal.py`` has
    the sources.
    """
    if operator.index(n) < 1:
        raise AnalysisError(f"n is {n}; expected how many samples to return, 1 at least")
    request = Request(memory, scheduler, progress, scratch)
    store = countable(store)
    states = store[layer]
    check_rows(states)
    found = _count(states, request)
    bits = found.bits(states)
    order = np.argsort(-np.nan_to_num(bits, nan=-np.inf), kind="stable")
    first = order[: min(n, np.count_nonzero(found.rows))]
    numbers = {
        "bits": bits[first],
        "new": found.new_rows[first] / found.rows[first],
        "rows": found.rows[first],
    }
    frame = frame_of_samples(states.sample_parts, first, numbers)
    last = numbers["bits"][-1]
    ties = np.count_nonzero(bits == last) - np.count_nonzero(numbers["bits"] == last)
    frame.attrs["equally_surprising"] = int(ties)
    return frame


@dataclass(frozen=True)
class _Job(LayerJob):
    """How the states of each sample are recorded; `firsts` numbers the first samples of parts."""

    firsts: tuple[int, ...] = ()


@dataclass
class _Found:
    """What was added up of each sample, those that are not shown included."""

    logs: npt.NDArray[np.float64]
    new_rows: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    tally: Tally = field(default_factory=Tally)

    def add(
        self, sample: npt.NDArray[np.int64], here: npt.NDArray[np.int64], all_rows: Any
    ) -> None:
        """Add states of samples: in how many rows of the sample each is, and of all samples."""
        elsewhere = all_rows - here
        seen = elsewhere > 0
        np.add.at(self.logs, sample[seen], here[seen] * np.log2(elsewhere[seen]))
        np.add.at(self.new_rows, sample[~seen], here[~seen])
        np.add.at(self.rows, sample, here)

    def bits(self, states: LayerStates) -> npt.NDArray[np.float64]:
        """Return the mean surprisal of each sample, in bits; NaN of one without rows."""
        spectrum = Spectrum.from_arrays(*self.tally.spectrum())
        with_rows = int(np.count_nonzero(self.rows))
        where = f"{states.location}: layer {printable(states.name)}"
        if with_rows < 2:
            raise AnalysisError(
                f"{where}: one sample alone has rows; expected others to compare it"
            )
        mass, left = unseen(spectrum, with_rows, states.neurons)
        if mass == 1:
            warnings.warn(
                f"{where}: no state occurs in two samples: none is more surprising than another",
                TsstoreWarning,
                stacklevel=3,
            )
        return mean_surprisal(self.logs, self.new_rows, self.rows, mass, left).round(DIGITS)


def _count(states: LayerStates, request: Request) -> _Found:
    """Add up what each sample's states are in the others."""
    scheme = KeyScheme.create(states.row_bytes)
    parts = [part.samples for part in states.parts]
    samples = sum(parts)
    report = request.report(states.name)
    directories = [part.directory for part in states.parts]
    with (
        closing(choose(request.scheduler)) as runner,
        runner.reading(states.parts[0].states.files, directories),
    ):
        plan = _plan(states, scheme, samples, runner, request)
        warm_up(states.row_bytes, False, False, plan.spill)
        with planned_scratch(plan, runner, request.scratch) as folder:
            job = _Job(states, scheme, plan, folder, firsts=tuple(accumulate(parts, initial=0)))
            graph, key = _graph(job)
            tasks, partitions = len(task_keys(graph)), 1 << plan.partition_bits

            def report_first(done: int, total: int) -> None:
                if report is not None:
                    report(done, total + partitions)

            shown = None if report is None else report_first
            index: Index = runner.run(graph, key, plan.threads, shown)
            found = _Found(np.zeros(samples), *np.zeros((2, samples), np.int64))
            for partition in range(partitions):
                _add_partition(found, index, plan, scheme.words, partition)
                if report is not None:
                    report(tasks + partition + 1, tasks + partitions)
    if found.rows.sum() != states.rows:
        raise CountingError(
            f"{states.name}: {found.rows.sum()} rows were found again, of {states.rows}"
        )
    return found


def _plan(
    states: LayerStates, scheme: KeyScheme, samples: int, runner: Scheduler, request: Request
) -> Plan:
    """Plan for keys that are followed by the number of their sample.

    What is held of each sample is reckoned as that of those left out is, 8 bytes each.
    """
    work = Work(
        name=states.name,
        rows=states.stored_rows,
        row_bytes=states.row_bytes,
        words=scheme.words + 1,
        largest_sample=states.largest_sample,
        chunk_bytes=max(part.states.spec.chunk_bytes for part in states.parts),
        parts=len(states.parts),
        left_out=states.sample_filter.planned + samples * SAMPLE_BYTES // 8,
        all_threads=runner.all_threads,
    )
    return make_plan(work, runner.memory(request.memory), runner.threads, runner.shared_memory)


def _graph(job: _Job) -> tuple[dict[Any, Any], Any]:
    """Return the graph that records the states of each sample, and the key of their index."""
    token = uuid.uuid4().hex[:12]
    shared, buffers, index = (f"tsstore-{kind}-{token}" for kind in ("job", "buffers", "index"))
    graph: dict[Any, Any] = {shared: job, buffers: (Buffers,)}
    keys: list[Any] = []
    for block in job.states.blocks(job.plan.block_rows):
        keys.append((f"tsstore-recorded-{token}", len(keys)))
        graph[keys[-1]] = (_record_block, shared, block, buffers)
    graph[index] = (check_receipts, keys, job.states.rows)
    return graph, index


def _record_block(job: _Job, block: Block, buffers: Buffers) -> Receipt:
    """Record each state of each sample of a block once, by partition."""
    plan, scattered, rows = job.plan, [], 0
    # Sorting takes more than what the plan reckons for a row.
    for piece in job.states.divide(block, max(1, plan.piece_rows // 3)):
        for records in _records(job, piece, buffers):
            if len(records):
                rows += records.rows
                scattered.append(scatter([records], plan.partition_bits))
    slices = spill(scattered, job.folder) if plan.spill and scattered else HeldSlices(scattered)
    return Receipt(rows, 0, 0, slices)


def _records(job: _Job, block: Block, buffers: Buffers) -> Iterator[Records]:
    """Yield what samples have once, and what they have several times: keys with the sample last."""
    states, part = job.states, job.states.parts[block.part]
    keys = read_keys(states, job.scheme, block, buffers)
    positions = part.read_positions(block.first_sample, block.samples)
    first = job.firsts[block.part] + block.first_sample
    sample = np.repeat(np.arange(first, first + block.samples, dtype=np.uint64), positions)
    kept = states.sample_filter.kept(part.directory, block.first_sample, block.samples)
    if kept is not None:
        chosen = np.repeat(kept, positions)
        keys, sample = keys[chosen], sample[chosen]
    keyed = np.column_stack([keys, sample])
    if positions.max(initial=0) <= 1:
        yield Records(keyed)
        return
    order = np.lexsort((*keyed[:, -2::-1].T, keyed[:, -1]))
    keyed = keyed[order]
    is_new = np.ones(len(keyed) + 1, np.bool_)
    is_new[1:-1] = (keyed[1:] != keyed[:-1]).any(axis=1)
    starts = np.flatnonzero(is_new)
    times = np.diff(starts).astype(np.uint32)
    once = times == 1
    yield Records(keyed[starts[:-1][once]])
    several = starts[:-1][~once]
    yield Records(keyed[several], times[~once], np.ones(len(several), np.uint32))


def _add_partition(found: _Found, index: Index, plan: Plan, words: int, partition: int) -> None:
    """Count the states of a partition, and look up what each of its records finds elsewhere."""
    for share, bits in shares(index, plan, words + 1, partition):

        def without_samples() -> Iterator[Records]:
            for piece in share():  # noqa: B023 - used before the next share
                keys = np.ascontiguousarray(piece.keys[:, :-1])
                yield Records(keys, piece.multiplicity, piece.incidence)

        for table in count_tables(without_samples, words, bits, plan.maximum_slots):
            keys, multiplicity, incidence = table.occupied()
            if not len(keys):
                continue
            found.tally.add(multiplicity, incidence)
            order = np.argsort(keys[:, 0])
            keys, multiplicity = keys[order], multiplicity[order]
            for piece in share():
                place, is_here = _find(keys, piece.keys[:, :-1])
                here = np.ones(len(piece), np.int64)
                if piece.multiplicity is not None:
                    here = piece.multiplicity.astype(np.int64)
                sample = piece.keys[:, -1].astype(np.int64)
                found.add(sample[is_here], here[is_here], multiplicity[place[is_here]])


def _find(known: _Words, keys: _Words) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return where keys are among known ones, in order of their first word; and which are there."""
    place = np.searchsorted(known[:, 0], keys[:, 0])
    place[place == len(known)] = 0
    return place, (known[place] == keys).all(axis=1)
