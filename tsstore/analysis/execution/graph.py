"""The graph of one layer's count: blocks → barrier → partitions → merge tree."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.beside import Add, Results, add_results
from tsstore.analysis.execution.block import LayerJob, count_blocks
from tsstore.analysis.execution.exchange import DividedSlices, FiledSlices, Receipt, read_slices
from tsstore.analysis.execution.reduction import add_tasks, merge_levels, merge_tree
from tsstore.analysis.memory import give_back_memory
from tsstore.analysis.planning.cost import FAN_IN, fan_in, last_fan_in, merge_shares
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.samples import Samples
from tsstore.counting.arena import Arena
from tsstore.counting.parts import Parts, subpartitions_of
from tsstore.counting.records import Buffers, Records
from tsstore.counting.tables.aggregate import aggregate, aggregate_gathered, aggregate_parts
from tsstore.counting.tables.spectra import (
    DeltaEntries,
    add_up_entries,
    add_up_in_order,
    join_entries,
)
from tsstore.errors import CountingError
from tsstore.statistics.jackknife import SpectrumDelta, merge_deltas
from tsstore.statistics.spectrum import Spectrum, merge
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

TASK_ROWS = 1 << 16
"""Rows of small blocks that a task takes together: fewer cost less than the task itself."""


@dataclass(frozen=True)
class Counts:
    """What is counted of a layer, or of a share of it.

    Pairs are of rows within one sample; those that are equal are found where their state is
    counted, by the table for pre-aggregation or with its partition. Without groups of samples there
    are no changes, which leaving each of them out makes; entries are what partitions know of them,
    in the end added up and in order, of some groups after others. Beside is what else was made of
    the rows.
    """

    spectrum: Spectrum
    equal_pairs_within_samples: int = 0
    pairs_within_samples: int = 0
    changes: SpectrumDelta | None = None
    entries: tuple[DeltaEntries, ...] = ()
    beside: Results = ()


@dataclass(frozen=True)
class Index:
    """What the barrier knows: every block's receipt, and how many sets of samples there are.

    What was made beside of the rows of all blocks is with the first of them.
    """

    receipts: tuple[Receipt, ...]
    sets: int = 0

    @property
    def told(self) -> tuple[int, int]:
        """How many groups are told apart, and in how many sets."""
        numbers = self.receipts[0].groups if self.receipts else None
        return 0 if numbers is None else numbers.groups // (self.sets + 1), self.sets

    def slices(self, partition: int) -> Iterator[Records]:
        """Yield the records of one partition, piece by piece."""
        every = [receipt.slices for receipt in self.receipts]
        return read_slices(every, partition)

    @cached_property
    def parts(self) -> tuple[Parts, Parts]:
        """All records that are held divided, bare ones and others."""
        held = [own.slices for own in self.receipts if isinstance(own.slices, DividedSlices)]
        bits = held[0].bits + held[0].divided_bits if held else 0
        pieces = [piece for slices in held for piece in slices.pieces]
        bare, others = (
            Parts([piece for piece in pieces if piece.records.is_bare == is_bare], bits)
            for is_bare in (True, False)
        )
        return bare, others


def merge_receipts(adds: Sequence[Add], lists: Iterable[Sequence[Receipt]]) -> list[Receipt]:
    """Return receipts as one list, and with the first what was made beside of all their rows."""
    first, *others = [receipt for receipts in lists for receipt in receipts]
    results = add_results(adds, [first.beside, *(receipt.beside for receipt in others)])
    rest = (replace(receipt, beside=()) for receipt in others)
    return [replace(first, beside=results), *rest]


def check_receipts(
    receipts: Sequence[Receipt], rows: int, sets: int = 0, arena: Arena | None = None
) -> Index:
    """Check that the blocks stand for every row that counts.

    What their tasks took is given back if no record is in it, and what an arena has left of it.
    """
    if arena is not None or any(isinstance(own.slices, FiledSlices) for own in receipts):
        give_back_memory(arena)
    found = sum(receipt.rows for receipt in receipts)
    if found != rows:
        raise CountingError(f"the blocks hold {found} rows; expected {rows}")
    return Index(tuple(receipts), sets)


def count_partition(
    index: Index, plan: Plan, words: int, partition: int, buffers: Buffers | None = None
) -> Counts:
    """Count the distinct keys of one partition."""
    sizes, told = (plan.partition_bits, plan.maximum_slots), index.told
    share = plan.subpartition_records, buffers
    if plan.divided_bits:
        span = subpartitions_of(partition, plan.divided_bits)
        bits = plan.partition_bits + plan.divided_bits
        found, pairs, entries = aggregate_parts(
            index.parts, span, words, bits, plan.maximum_slots, *share, *told
        )
    else:
        slices = partial(index.slices, partition)
        gathered = gather(slices(), plan.gathered_bytes)
        if gathered is None:
            found, pairs, entries = aggregate(slices, words, *sizes, *told)
        else:
            found, pairs, entries = aggregate_gathered(gathered, words, *sizes, *share, *told)
    changes = None
    if entries is not None:
        none = np.zeros_like(pairs)
        changes = SpectrumDelta.from_arrays([none, none, pairs, none])
    own = () if entries is None else (entries,)
    return Counts(Spectrum.from_arrays(*found), int(pairs.sum()), 0, changes, own)


def gather(slices: Iterator[Records], most_bytes: int) -> list[Records] | None:
    """Return all records, if they are not too many."""
    gathered, size = [], 0
    for piece in slices:
        gathered.append(piece)
        size += piece.nbytes
        if size > most_bytes:
            return None
    return gathered


def total_pairs(index: Index) -> Counts:
    """Add up what the blocks know of samples, and of equal rows."""
    return Counts(
        Spectrum.empty(),
        sum(receipt.equal_pairs_within_samples for receipt in index.receipts),
        sum(receipt.pairs_within_samples for receipt in index.receipts),
        _merge_changes([receipt.groups for receipt in index.receipts]),
        beside=index.receipts[0].beside if index.receipts else (),
    )


def merge_counts(counts: Sequence[Counts]) -> Counts:
    """Add up the counts of disjoint shares."""
    entries = _entries(counts)
    return merge_all(counts, [add_up_entries(entries)] if entries else [])


def merge_all(counts: Sequence[Counts], entries: Iterable[DeltaEntries | None]) -> Counts:
    """Add up the counts of disjoint shares but for their entries, which have been added up."""
    return Counts(
        merge(count.spectrum for count in counts),
        sum(count.equal_pairs_within_samples for count in counts),
        sum(count.pairs_within_samples for count in counts),
        _merge_changes([count.changes for count in counts]),
        tuple(own for own in entries if own is not None),
        next((count.beside for count in counts if count.beside), ()),
    )


def merge_entries(counts: Sequence[Counts], share: int, shares: int) -> DeltaEntries | None:
    """Add up the entries of one of so many shares of all groups, in order; None without any."""
    entries = _entries(counts)
    if not entries:
        return None
    first, stop = (len(entries[0].ends) * end // shares for end in (share, share + 1))
    return add_up_in_order([own.of(first, stop) for own in entries])


def _entries(counts: Sequence[Counts]) -> list[DeltaEntries]:
    return [own for count in counts for own in count.entries]


def finish_counts(counts: Counts, states: LayerStates, samples: Samples) -> Counts:
    """Make changes of all entries, and count the samples of parts that have no rows."""
    if samples.groups is None:
        return counts
    numbers = group_numbers(counts, states, samples)
    if not counts.entries:
        return replace(counts, changes=SpectrumDelta.from_arrays(numbers))
    entries = join_entries(counts.entries, np.int64)
    changes = SpectrumDelta.from_groups(numbers, entries.ends, *entries.columns)
    return replace(counts, changes=changes, entries=())


def count_in_one_task(job: LayerJob) -> Counts:
    """Count a layer block after block, then partition after partition, as its graph would."""
    buffers = Buffers(job.arena)
    receipts = [count_blocks(job, blocks, buffers) for blocks in block_tasks(job)]
    if job.beside:
        receipts = merge_receipts([one.add for one in job.beside], [receipts])
    rows = job.samples.sample_filter.kept_rows(job.states)
    index = check_receipts(receipts, rows, job.samples.set_count, _tight(job))
    # Those of blocks are let go of, as in a graph.
    buffers = Buffers(job.arena)
    partitions = range(1 << job.plan.partition_bits)
    of = job.plan, job.scheme.words
    counts = [count_partition(index, *of, partition, buffers) for partition in partitions]
    return merge_all([total_pairs(index), *counts], [merge_entries(counts, 0, 1)])


def group_numbers(counts: Counts, states: LayerStates, samples: Samples) -> npt.NDArray[np.int64]:
    """Return samples, rows and pairs by group, int64 (4, groups of all sets)."""
    numbers = np.zeros((4, samples.code_count), np.int64)
    if counts.changes is not None:
        numbers += counts.changes.numbers
    for part in states.parts:
        group = None if part.rows else samples.codes_of(part.directory, 0, part.samples)
        if group is not None:
            group = samples.sample_filter.select(group, part.directory, 0)
            numbers[0] += np.bincount(group, minlength=samples.code_count)
    return numbers


def build_graph(job: LayerJob) -> tuple[dict[Any, Any], Any]:
    """Return the graph that counts a layer, as one plain dictionary, and the key of its result.

    Its keys are unique: a cluster may run many analyses at once.
    """
    graph, index = _first_half(job)
    return graph, add_partitions(graph, job, index)


def add_partitions(graph: dict[Any, Any], job: LayerJob, index: Any) -> Any:
    """Add the second half of a graph, given the key of its index; return the key of its result."""
    token = uuid.uuid4().hex[:12]
    pairs, buffers = f"tsstore-pairs-{token}", f"tsstore-buffers-{token}"
    graph |= {pairs: (total_pairs, index), buffers: (Buffers, job.arena)}
    of = index, job.plan, job.scheme.words
    partitions = range(1 << job.plan.partition_bits)
    counts = ((count_partition, *of, partition, buffers) for partition in partitions)
    level = add_tasks(graph, f"tsstore-partition-{token}", counts)
    groups, spill = job.samples.group_count, job.plan.spill
    last, name = last_fan_in(groups, spill), f"tsstore-merge-{token}"
    level = merge_levels(graph, level, fan_in(groups), name, merge_counts, last)
    shares = merge_shares(groups, job.plan.partition_bits, spill)
    adds = ((merge_entries, level, share, shares) for share in range(shares))
    entries = add_tasks(graph, f"tsstore-changes-{token}", adds)
    graph[f"tsstore-merged-{token}"] = (merge_all, [pairs, *level], entries)
    return f"tsstore-merged-{token}"


def build_index_graph(job: LayerJob) -> tuple[dict[Any, Any], Any]:
    """Return the first half of the graph: blocks and barrier, and the key of the index.

    Records are in partitions alone: whoever goes through the index reads these as they are.
    """
    return _first_half(replace(job, plan=replace(job.plan, divided_bits=0)))


def _first_half(job: LayerJob) -> tuple[dict[Any, Any], Any]:
    graph: dict[Any, Any] = {}
    receipts = add_blocks(graph, job, block_tasks(job))
    return graph, add_index(graph, job, receipts)


def add_blocks(graph: dict[Any, Any], job: LayerJob, tasks: Iterable[Sequence[Block]]) -> list[Any]:
    """Add the tasks of some blocks to a graph; return the keys of their receipts."""
    token = uuid.uuid4().hex[:12]
    # Dask hands out a few blocks at a time only if they depend on next to nothing: hence one value
    # with all that they need. Buffers are made by a task, so that they are released when all blocks
    # are done.
    shared, buffers = (f"tsstore-job-{token}",), (f"tsstore-buffers-{token}",)
    graph |= {shared: job, buffers: (Buffers, job.arena)}
    counts = ((count_blocks, shared, blocks, buffers) for blocks in tasks)
    return add_tasks(graph, f"tsstore-block-{token}", counts)


def add_index(graph: dict[Any, Any], job: LayerJob, receipts: Any) -> Any:
    """Add the barrier to a graph, given the keys of all receipts; return the key of the index."""
    token = uuid.uuid4().hex[:12]
    if job.beside:
        # What is made beside is added up as blocks end; records of all of them are waited for.
        adds = partial(merge_receipts, [one.add for one in job.beside])
        lists = [[receipt] for receipt in receipts]
        receipts = merge_tree(graph, lists, FAN_IN, f"tsstore-receipts-{token}", adds)
    rows = job.samples.sample_filter.kept_rows(job.states)
    index = f"tsstore-index-{token}"
    graph[index] = (check_receipts, receipts, rows, job.samples.set_count, _tight(job))
    return index


def _tight(job: LayerJob) -> Arena | None:
    """Return the arena if memory is short, so that nothing is kept from blocks to partitions."""
    return job.arena if job.plan.gives_back else None


def block_tasks(job: LayerJob) -> Iterator[list[Block]]:
    """Yield the blocks of each task."""
    return joined_tasks(job.states.blocks(job.plan.block_rows), job.plan.block_rows)


class _HasRows(Protocol):
    @property
    def rows(self) -> int: ...


_Some = TypeVar("_Some", bound=_HasRows)


def joined_tasks(blocks: Iterable[_Some], most_rows: int) -> Iterator[list[_Some]]:
    """Yield blocks by task: one, or several that are small, of parts that are."""
    held: list[_Some] = []
    rows, most = 0, min(TASK_ROWS, most_rows)
    for block in blocks:
        if held and rows + block.rows > most:
            yield held
            held, rows = [], 0
        held.append(block)
        rows += block.rows
    if held:
        yield held


def _merge_changes(parts: Sequence[SpectrumDelta | None]) -> SpectrumDelta | None:
    """Add up changes where there are any."""
    held = [part for part in parts if part is not None]
    return merge_deltas(held) if held else None
