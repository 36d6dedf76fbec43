"""The states of a layer themselves, out of core: each distinct one, or those of each sample.

Of samples there are bare records of a key and the number of a sample. All records of one state meet
in one partition, whatever their samples are.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.block import LayerJob, read_keys, select_rows
from tsstore.analysis.execution.exchange import HeldSlices, Receipt, spill
from tsstore.analysis.execution.graph import Index, build_index_graph, check_receipts, gather
from tsstore.analysis.execution.recounting import BLOCK
from tsstore.analysis.execution.reduction import add_tasks
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.planning.cost import OVERHEAD_BYTES, Work
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.planning.layers import layer_work
from tsstore.analysis.request import Request, check_rows, running
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Report, Scheduler, task_keys
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import restore_hashes, scatter_rows, subpartition_bits
from tsstore.counting.parts import subpartitions
from tsstore.counting.premerge.samples import append_samples
from tsstore.counting.records import Buffers, Records, SampleKeys
from tsstore.counting.tables.aggregate import count_tables
from tsstore.counting.tables.plain import Table, slot_bytes
from tsstore.counting.warm_up import warm_up
from tsstore.errors import CountingError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

Counts: TypeAlias = npt.NDArray[np.int64]
Piece: TypeAlias = tuple[npt.NDArray[np.uint8], Counts, Counts]
"""Distinct states, uint8 (n, row_bytes), in how many rows each is, and in how many samples."""

PIECE_BYTES = 1 << 18
"""Of a table's slots that are taken out of it at a time: a whole table may be as large as all that
the plan has left."""

_Words = npt.NDArray[np.uint64]


@contextmanager
def planned(
    states: LayerStates, request: Request, set_apart: int = 0
) -> Iterator[tuple[Plan, Scheduler]]:
    """Yield how the states are counted, by exact keys, and where; some bytes are set apart."""
    check_rows(states)
    with running(request, states) as runner:
        memory, left_out = runner.memory(request.memory), states.sample_filter.planned
        work = layer_work(states, runner, replace(request, exact=True), 0, left_out)
        # Partitions are read here, and not by workers.
        work = replace(work, holders=0)
        yield make_plan(work, memory, runner.threads, runner.shared_memory, set_apart), runner


def distinct_states(
    states: LayerStates, plan: Plan, scheduler: Scheduler, request: Request
) -> Generator[Piece, None, None]:
    """Yield every distinct state of a layer once, with its multiplicity and incidence.

    It takes a plan for exact keys. Blocks are read by the scheduler's workers; partitions are
    counted here, one after another, each when it is asked for. Close the iterator to remove what it
    keeps in the scratch folder.
    """
    scheme, rows = KeyScheme.create(states.row_bytes, exact=True), 0
    warm_up(states.row_bytes, True, False, plan.spill)
    with planned_scratch(plan, scheduler, request.scratch) as folder:
        job = LayerJob(states, scheme, plan, folder, Samples(states.sample_filter))
        counted = by_partition(
            plan, scheduler, request.report(states.name), *build_index_graph(job)
        )
        for index, partition in counted:
            for (pieces,), bits in by_subpartition([(index, scheme.words)], plan, partition):
                for table in count_tables(pieces, scheme.words, bits, plan.maximum_slots):
                    for keys, multiplicity, incidence in _taken_out(table, scheme.words):
                        rows += int(multiplicity.sum())
                        hashes = restore_hashes(keys, partition, plan.partition_bits)
                        yield scheme.rows(hashes), multiplicity, incidence
    if rows != states.rows:
        raise CountingError(
            f"{states.name}: the multiplicities add up to {rows}, but {states.rows} rows are "
            "committed"
        )


def spare_bytes(plan: Plan) -> int:
    """Return how much memory is left for what is done with the states.

    Partitions are counted on one thread: what the plan sets apart for others, and for what such a
    task does besides, is free.
    """
    idle = plan.threads - 1
    return OVERHEAD_BYTES + idle * plan.gathered_bytes + plan.memory - plan.projected_peak


def by_partition(
    plan: Plan, scheduler: Scheduler, report: Report | None, graph: dict[Any, Any], key: Any
) -> Iterator[tuple[Index, int]]:
    """Run a graph that ends in an index, and yield it with each partition; both are reported."""
    tasks, partitions = len(task_keys(graph)), 1 << plan.partition_bits

    def report_first(done: int, total: int) -> None:
        if report is not None:
            report(done, total + partitions)

    # Whoever goes through the states may take what is left.
    scheduler.leave_room(plan.memory, plan.memory)
    index = scheduler.run(graph, key, plan.threads, None if report is None else report_first)
    for partition in range(partitions):
        yield index, partition
        if report is not None:
            report(tasks + partition + 1, tasks + partitions)


Pieces: TypeAlias = Callable[[], Iterable[Records]]


def by_subpartition(
    indices: Sequence[tuple[Index, int]], plan: Plan, partition: int
) -> Iterator[tuple[list[Pieces], int]]:
    """Yield what gives the records of a subpartition, and the bits that its hashes share.

    They are of one index, or of each of several, whose keys have so many words, other than those of
    the others. A partition that can be gathered has many, of which each fits the cache.
    """
    slices = [partial(index.slices, partition) for index, _ in indices]
    gathered = gather(chain.from_iterable(own() for own in slices), plan.gathered_bytes)
    if gathered is None:
        yield list(slices), plan.partition_bits
        return
    records = sum(map(len, gathered))
    bits = subpartition_bits(records, plan.subpartition_records)
    divided = []
    for _, words in indices:
        own = [piece for piece in gathered if piece.words == words]
        divided.append(subpartitions(own, plan.partition_bits, bits))
    for part in range(1 << bits):
        pieces = [[piece for kind in kinds for piece in kind.of(part)] for kinds in divided]
        yield [partial(iter, own) for own in pieces], plan.partition_bits + bits


def _taken_out(table: Table, words: int) -> Iterator[tuple[npt.NDArray[np.uint64], Counts, Counts]]:
    """Yield keys, multiplicities and incidences of a table, a bounded number at a time."""
    step = max(1, PIECE_BYTES // slot_bytes(words))
    for start in range(0, len(table.slots), step):
        keys, multiplicity, incidence = table.occupied(slice(start, start + step))
        if len(keys):
            yield keys, multiplicity, incidence


@dataclass(frozen=True)
class SampleJob(LayerJob):
    """How the rows of each sample are recorded; `firsts` numbers the first samples of parts.

    Numbers are of all stored samples, those that do not count included.
    """

    firsts: tuple[int, ...] = ()


def work_by_sample(
    states: LayerStates,
    scheme: KeyScheme,
    scheduler: Scheduler,
    request: Request,
    left_out: int,
) -> Work:
    """Return what there is to count: keys that are followed by the number of their sample."""
    work = layer_work(states, scheduler, request, 0, left_out)
    return replace(work, words=scheme.words + 1, neurons=Work.neurons)


def graph_by_sample(job: SampleJob) -> tuple[dict[Any, Any], Any]:
    """Return the graph that records the rows of each sample, and the key of their index."""
    # Loops are compiled, or loaded, once in this process, not by all threads at the same time.
    words = job.scheme.words
    pair, positions = np.zeros((2, words + 1), np.uint64), np.array([2])
    append_samples(pair[:, 1:].copy(), positions, 0, pair)
    scatter_rows(SampleKeys(pair, positions), 1)
    token = uuid.uuid4().hex[:12]
    shared, buffers, index = (f"tsstore-{kind}-{token}" for kind in ("job", "buffers", "index"))
    graph: dict[Any, Any] = {shared: job, buffers: (Buffers, job.arena)}
    blocks = job.states.blocks(job.plan.block_rows)
    records = ((_record_block, shared, block, buffers) for block in blocks)
    keys = add_tasks(graph, f"{BLOCK}-{token}", records)
    graph[index] = (check_receipts, keys, job.samples.sample_filter.kept_rows(job.states))
    return graph, index


def without_samples(records: Records) -> tuple[Records, npt.NDArray[np.int64]]:
    """Return bare records of the keys alone, and the sample of each, int64 (records,)."""
    keys = np.ascontiguousarray(records.keys[:, :-1])
    samples = records.keys[:, -1].astype(np.int64)
    return Records(keys), samples


def _record_block(job: SampleJob, block: Block, buffers: Buffers) -> Receipt:
    """Record each row of a block with its sample, by partition."""
    plan, scattered = job.plan, []
    # Keys are held without and with samples, which is more than what the plan reckons for a row.
    for piece in job.states.divide(block, max(1, 2 * plan.piece_rows // 3)):
        keys, positions = _keys_and_samples(job, piece, buffers)
        if len(keys):
            rows = SampleKeys(keys, np.cumsum(positions))
            scattered.append(scatter_rows(rows, plan.partition_bits))
    slices = spill(scattered, job.folder) if plan.spill and scattered else HeldSlices(scattered)
    return Receipt(slices.total, 0, 0, slices)


def _keys_and_samples(
    job: SampleJob, block: Block, buffers: Buffers
) -> tuple[_Words, npt.NDArray[np.int64]]:
    """Return the keys of the rows that count, with the sample last, and the rows of each sample."""
    states, part = job.states, job.states.parts[block.part]
    own = read_keys(states, job.scheme, [block], buffers)
    positions = part.read_positions(block.first_sample, block.samples)
    first = job.firsts[block.part] + block.first_sample
    keys = buffers.array("keys and samples", (len(own), own.shape[1] + 1), np.uint64)
    append_samples(own, positions, first, keys)
    shown = job.samples.sample_filter
    kept = shown.kept(part.directory, block.first_sample, block.samples)
    if kept is None:
        return keys, positions
    return select_rows(keys, np.repeat(kept, positions)), positions[kept]
