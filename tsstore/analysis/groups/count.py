"""Counting the groups of a layer's samples in one pass over its blocks, and all of them together.

Groups hold different samples, so that they are partitions by themselves: the records of a block go
by group first, then by hash. Partitions of one group are counted alone; those of one range of
hashes, of all groups, together, which gives the whole. A sample that is in no group counts in the
whole: it is in a group of its own that is not counted alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.block import LayerJob, read_keys
from tsstore.analysis.execution.exchange import HeldSlices, Scattered, Slices, read_slices, spill
from tsstore.analysis.execution.graph import Counts, gather, merge_counts
from tsstore.analysis.execution.reduction import merge_tree
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.machine import give_back_memory
from tsstore.analysis.planning.cost import fan_in
from tsstore.analysis.planning.layer_plan import Plan, layer_plan
from tsstore.analysis.request import Request
from tsstore.analysis.samples import Samples, Sets
from tsstore.analysis.schedulers import Scheduler
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import scatter
from tsstore.counting.premerge.hot_keys import HotKeys
from tsstore.counting.premerge.samples import numbers_by_group, rows_of_samples
from tsstore.counting.premerge.within_samples import merge_samples
from tsstore.counting.records import Buffers, Records
from tsstore.counting.tables.aggregate import aggregate, aggregate_gathered
from tsstore.counting.warm_up import warm_up
from tsstore.errors import CountingError
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.spectrum_delta import SpectrumDelta
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import PIECE_SAMPLES, Block
from tsstore.store.reading.sample_filter import SampleFilter

WHOLE = -1
"""Number of what is counted of all groups together."""

_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GroupsJob:
    """How the groups of a layer are counted: what all tasks need, as one value.

    There are so many `groups`, the last of which is of samples that are in none; `sets`
    tell each sample's.
    """

    layer: LayerJob
    sets: Sets
    groups: int
    has_whole: bool = True

    @property
    def plan(self) -> Plan:
        """The layer's plan."""
        return self.layer.plan

    @property
    def random_groups(self) -> int:
        """Groups that are told apart for intervals; 0 for none."""
        return self.layer.samples.group_count


@dataclass(frozen=True)
class GroupsReceipt:
    """What a block hands on: records, by group and by hash; and numbers of its samples.

    Numbers are samples, rows, equal pairs and pairs within samples: int64 (groups, 4, random).
    """

    slices: Slices
    numbers: _Numbers


@dataclass(frozen=True)
class GroupsIndex:
    """All receipts, and what they come to."""

    slices: tuple[Slices, ...]
    numbers: _Numbers

    def of(self, spans: Sequence[tuple[int, int]]) -> Iterator[Records]:
        """Yield the records of partitions that follow each other, span by span."""
        return read_slices(self.slices, spans)


@dataclass(frozen=True)
class Share:
    """What one partition task counts: partitions of one group, or one range of hashes of all.

    Partitions are given from a first one up to another. Their keys have so many bits of the hash in
    common.
    """

    group: int
    spans: tuple[tuple[int, int], ...]
    hash_bits: int


def count_groups(
    states: LayerStates,
    request: Request,
    scheduler: Scheduler,
    samples: Samples,
    sets: Sets,
    count: int,
    whole: bool = True,
) -> tuple[list[Counts], KeyScheme]:
    """Return what was counted of each of so many sets of samples, and at last of all of them.

    `samples` say which samples count and which random groups are told apart; both are the same for
    all sets. All together are counted as well unless they are of several steps.
    """
    sets = {name: np.where(own < 0, count, own).astype(np.int16) for name, own in sets.items()}
    memory = scheduler.memory(request.memory)
    rows = rows_by_set(states, sets, samples.sample_filter, count + 1)
    # The numbers of sets are held all the while, and room is needed for keys in their order.
    held = max(samples.sample_filter.planned + sum(map(len, sets.values())) // 4, 1)
    plan = layer_plan(
        states, memory, scheduler, samples.group_count, held, request.exact, request.scratch
    )
    plan = replace(plan, direct=False)
    scheme = KeyScheme.create(states.row_bytes, request.seed, request.exact)
    warm_up(states.row_bytes, request.exact, samples.group_count > 0, plan.spill)
    if plan.gives_back:
        give_back_memory()
    with planned_scratch(plan, scheduler, request.scratch) as folder:
        layer = LayerJob(states, scheme, plan, folder, samples)
        graph, key = _graph(GroupsJob(layer, sets, count + 1, whole), rows)
        found = scheduler.run(graph, key, plan.threads, request.report(states.name))
        if plan.gives_back:
            give_back_memory()
    held_samples = samples_by_set(states, sets, samples, count + 1)
    counts = [_finish(found.get(n), held_samples[n], rows[n], states) for n in range(count)]
    counts.append(_finish(found.get(WHOLE), held_samples.sum(axis=0), rows.sum(), states))
    return counts, scheme


def _finish(counts: Counts | None, samples: _Numbers, rows: int, states: LayerStates) -> Counts:
    """Return what was counted of a set with its changes sorted, checked against its rows."""
    if counts is None:
        return Counts(Spectrum.empty())
    if counts.spectrum.rows != rows:
        raise CountingError(
            f"{states.name}: the multiplicities add up to {counts.spectrum.rows}, but {rows} rows "
            "of a group are committed"
        )
    if counts.changes is None or counts.entries is None:
        return counts
    # Of parts without rows no block tells the samples.
    numbers = np.stack([samples, *counts.changes.numbers[1:]])
    changes = SpectrumDelta.from_groups(numbers, counts.entries.ends, *counts.entries.columns)
    left = changes.rows.copy()
    np.add.at(left, changes.group, changes.states * changes.multiplicity)
    if left.any():
        raise CountingError(f"{states.name}: random groups leave {left.tolist()} rows of a group")
    return replace(counts, changes=changes, entries=None)


def samples_by_set(states: LayerStates, sets: Sets, samples: Samples, count: int) -> _Numbers:
    """Return the samples of each set and random group, int64 (sets, random groups)."""
    found = np.zeros((count, samples.group_count or 1), np.int64)
    for part in states.parts:
        for first in range(0, part.samples, PIECE_SAMPLES):
            number = min(PIECE_SAMPLES, part.samples - first)
            own = sets[part.directory][first : first + number]
            random = np.zeros(number, np.uint8)
            if samples.groups is not None:
                random = samples.groups.of_samples(part.directory, first, number)
            kept = samples.sample_filter.kept(part.directory, first, number)
            if kept is not None:
                own, random = own[kept], random[kept]
            np.add.at(found, (own, random), 1)
    return found


def rows_by_set(
    states: LayerStates, sets: Sets, sample_filter: SampleFilter, count: int
) -> _Numbers:
    """Return the rows of each of so many sets, int64 (sets,), from the rows of samples alone.

    Samples whose number is -1 are in none.
    """
    rows = np.zeros(count, np.int64)
    for part in states.parts:
        first = 0
        for positions in part.position_pieces():
            own = sets[part.directory][first : first + len(positions)]
            chosen = own >= 0
            kept = sample_filter.kept(part.directory, first, len(positions))
            if kept is not None:
                chosen &= kept
            np.add.at(rows, own[chosen], positions[chosen])
            first += len(positions)
    return rows


def _graph(job: GroupsJob, rows: _Numbers) -> tuple[dict[Any, Any], Any]:
    """Return the graph that counts all groups, and the key of its result; its keys are unique."""
    token = uuid.uuid4().hex[:12]

    def key(kind: str, *number: int) -> tuple[Any, ...]:
        return f"tsstore-{kind}-{token}", *number

    shared, buffers = key("groups"), key("buffers")
    graph: dict[Any, Any] = {shared: job, buffers: (Buffers,)}
    states, plan = job.layer.states, job.plan
    blocks = []
    for number, block in enumerate(states.blocks(plan.block_rows)):
        blocks.append(key("block", number))
        graph[blocks[-1]] = (count_block, shared, block, buffers)
    graph[key("index")] = (_index, blocks, int(rows.sum()))
    tables = key("tables")
    graph[tables] = (Buffers,)
    found: dict[int, Any] = {}
    most, shares = fan_in(job.random_groups), list(_shares(job, rows))
    by_group: dict[int, list[Any]] = {}
    for number, share in enumerate(shares):
        own = key("partition", number)
        graph[own] = (count_share, shared, key("index"), share, tables)
        by_group.setdefault(share.group, []).append(own)
    for group, level in by_group.items():
        name = f"tsstore-merge-{group}-{token}"
        found[group] = merge_tree(graph, level, most, name, merge_counts)
    graph[key("counts")] = (_together, list(found), list(found.values()), key("index"))
    return graph, key("counts")


def _shares(job: GroupsJob, rows: _Numbers) -> Iterator[Share]:
    """Yield what each partition task counts: of a small group all partitions at once."""
    bits = job.plan.partition_bits
    partitions = 1 << bits
    most = max(int(rows.sum()) >> bits, 1)
    for group in np.flatnonzero(rows[:-1]).tolist():
        own = min(max(-(-int(rows[group]) // most) - 1, 0).bit_length(), bits)
        step = partitions >> own
        for first in range(0, partitions, step):
            start = group * partitions + first
            yield Share(group, ((start, start + step),), own)
    if job.has_whole:
        for first in range(partitions):
            of_all = range(first, job.groups * partitions, partitions)
            yield Share(WHOLE, tuple((start, start + 1) for start in of_all), bits)


def count_block(job: GroupsJob, block: Block, buffers: Buffers | None = None) -> GroupsReceipt:
    """Turn the rows of a block into records, by group and by hash; write them if planned."""
    plan, states = job.plan, job.layer.states
    buffers = buffers or Buffers()
    numbers = np.zeros((job.groups, 4, job.random_groups or 1), np.int64)
    scattered: list[Scattered] = []
    for piece in states.divide(block, plan.piece_rows):
        scattered += _count_piece(job, piece, numbers, buffers)
    if sum(records.rows for records, _ in scattered) != numbers[:, 1].sum():
        raise CountingError(f"{numbers[:, 1].sum()} rows of {states.name} gave other records")
    held = plan.spill and scattered
    return GroupsReceipt(
        spill(scattered, job.layer.folder) if held else HeldSlices(scattered), numbers
    )


def _count_piece(
    job: GroupsJob, piece: Block, numbers: _Numbers, buffers: Buffers
) -> list[Scattered]:
    """Return the records of a piece, bare ones and others; add up the numbers of its samples."""
    scheme, count = job.layer.scheme, job.random_groups
    keys, positions, codes, random = _in_order(job, piece, buffers)
    starts = np.concatenate([[0], np.cumsum(positions)])
    hot_rows = max(job.plan.hot_rows // job.groups, 1)
    table = buffers.kept("hot", lambda: HotKeys(scheme.words, count, hot_rows))
    table.begin()
    edges = np.searchsorted(codes, np.arange(job.groups + 1))
    found: dict[bool, list[tuple[int, Scattered]]] = {True: [], False: []}
    for group in np.flatnonzero(np.diff(edges)).tolist():
        own = slice(edges[group], edges[group + 1])
        rows = keys[starts[own.start] : starts[own.stop]]
        told = None if random is None else random[own]
        records, equal = merge_samples(rows, positions[own], table, told, buffers)
        for kind in (*records, *table.take()):
            if len(kind):
                moved = scatter([kind], job.plan.partition_bits)
                found[kind.is_bare].append((group, moved))
        of_random = np.zeros(len(codes[own]), np.uint8) if told is None else told
        own_samples, own_rows, pairs = numbers_by_group(positions[own], of_random, count or 1)
        numbers[group] += np.stack([own_samples, own_rows, equal, pairs])
    return [_joined(own, job) for own in found.values() if own]


def _in_order(
    job: GroupsJob, piece: Block, buffers: Buffers
) -> tuple[
    npt.NDArray[np.uint64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int16],
    npt.NDArray[np.uint8] | None,
]:
    """Return keys of the samples that count, group after group; and each one's rows and groups."""
    states, samples = job.layer.states, job.layer.samples
    part, span = (
        states.parts[piece.part],
        slice(piece.first_sample, piece.first_sample + piece.samples),
    )
    positions = part.read_positions(piece.first_sample, piece.samples)
    codes = job.sets[part.directory][span]
    kept = samples.sample_filter.kept(part.directory, piece.first_sample, piece.samples)
    order = np.argsort(codes, kind="stable")
    if kept is not None:
        order = order[kept[order]]
    keys = read_keys(states, job.layer.scheme, piece, buffers)
    keys = rows_of_samples(keys, positions, order)
    random = None
    if samples.groups is not None:
        random = samples.groups.of_samples(part.directory, piece.first_sample, piece.samples)[order]
    return keys, positions[order], codes[order], random


def _joined(parts: list[tuple[int, Scattered]], job: GroupsJob) -> Scattered:
    """Return records of groups, which ascend, as one, by group and by hash."""
    partitions = 1 << job.plan.partition_bits
    sizes = np.zeros((job.groups, partitions), np.int64)
    by_group: dict[int, list[Scattered]] = {}
    for group, (records, offsets) in parts:
        sizes[group] += np.diff(offsets)
        by_group.setdefault(group, []).append((records, offsets))
    pieces: list[Records] = []
    for own in by_group.values():
        if len(own) == 1:
            pieces.append(own[0][0])
            continue
        for partition in range(partitions):
            pieces += HeldSlices(own).read(partition)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if len(pieces) == 1:
        return pieces[0], offsets
    columns = zip(*(piece.columns for piece in pieces), strict=True)
    joined: list[Any] = [None if own[0] is None else np.concatenate(own) for own in columns]
    return Records(*joined), offsets


def _index(receipts: Sequence[GroupsReceipt], rows: int) -> GroupsIndex:
    """Check that the blocks stand for every row that counts."""
    numbers = np.sum([receipt.numbers for receipt in receipts], axis=0)
    if (found := int(numbers[:, 1].sum())) != rows:
        raise CountingError(f"the blocks hold {found} rows; expected {rows}")
    give_back_memory()
    return GroupsIndex(tuple(receipt.slices for receipt in receipts), numbers)


def count_share(job: GroupsJob, index: GroupsIndex, share: Share, buffers: Buffers) -> Counts:
    """Count the distinct keys of some partitions."""
    plan, words, random = job.plan, job.layer.scheme.words, job.random_groups
    slices = partial(index.of, share.spans)
    sizes = share.hash_bits, plan.maximum_slots
    gathered = gather(slices(), plan.gathered_bytes)
    if gathered is None:
        found, entries = aggregate(slices, words, *sizes, random)
    else:
        found, entries = aggregate_gathered(
            gathered, words, *sizes, plan.subpartition_records, buffers, random
        )
    return Counts(Spectrum.from_arrays(*found), entries=entries)


def _together(
    groups: Sequence[int], counts: Sequence[Counts], index: GroupsIndex
) -> dict[int, Counts]:
    """Return what was counted of each group, with the numbers of its samples."""
    found = {}
    for group, own in zip(groups, counts, strict=True):
        numbers = index.numbers.sum(axis=0) if group == WHOLE else index.numbers[group]
        found[group] = replace(
            own,
            equal_pairs_within_samples=int(numbers[2].sum()),
            pairs_within_samples=int(numbers[3].sum()),
            changes=None if own.entries is None else SpectrumDelta.from_arrays(numbers),
        )
    return found
