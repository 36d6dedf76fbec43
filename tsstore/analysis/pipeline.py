"""The graph of one layer's count: blocks → barrier → partitions → merge tree."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsstore.analysis.exchange import HeldSlices, Receipt, spill
from tsstore.analysis.groups import RandomGroups
from tsstore.analysis.left_out import NOTHING, LeftOut
from tsstore.analysis.plan import Plan
from tsstore.counting.aggregate import aggregate
from tsstore.counting.by_group import numbers_by_group
from tsstore.counting.changes import Changes, add_up_changes
from tsstore.counting.grouped import aggregate_groups
from tsstore.counting.keys import KeyScheme
from tsstore.counting.merge import (
    merge_records,
    merge_samples,
    merge_samples_by_group,
    merging_pays,
)
from tsstore.counting.partition import scatter
from tsstore.counting.probing import slots_for
from tsstore.counting.records import Records
from tsstore.errors import CountingError
from tsstore.statistics.groups import GroupChanges, merge_changes
from tsstore.statistics.spectrum import Spectrum, merge
from tsstore.store.layers import Block, LayerStates

FAN_IN = 16


@dataclass(frozen=True)
class Counts:
    """What is counted of a layer, or of a share of it.

    Attributes
    ----------
    spectrum
        Distinct states by multiplicity and incidence.
    equal_pairs_within_samples
        Pairs of equal rows within one sample.
    pairs_within_samples
        Pairs of rows within one sample.
    changes
        What leaving each group of samples out changes; None without groups.
    cells
        Changes of the spectrum that are still to be sorted into `changes`: of partitions that wait
        to be merged.
    """

    spectrum: Spectrum
    equal_pairs_within_samples: int = 0
    pairs_within_samples: int = 0
    changes: GroupChanges | None = None
    cells: Changes | None = None


@dataclass(frozen=True)
class Index:
    """What the barrier knows: every block's receipt."""

    receipts: tuple[Receipt, ...]

    @property
    def groups(self) -> int:
        """Number of groups of samples; 0 without groups."""
        numbers = self.receipts[0].groups if self.receipts else None
        return 0 if numbers is None else numbers.groups


def count_block(
    states: LayerStates,
    scheme: KeyScheme,
    plan: Plan,
    folder: str,
    block: Block,
    groups: RandomGroups | None = None,
    left_out: LeftOut = NOTHING,
) -> Receipt:
    """Turn the rows of a block into records, by partition; write them to a file if planned."""
    if groups is None:
        records, rows, equal_pairs, pairs = _read_records(states, scheme, block, left_out)
        numbers = None
    else:
        records, numbers = _read_records_by_group(states, scheme, block, groups, left_out)
        rows = int(numbers.rows.sum())
        equal_pairs = int(numbers.equal_pairs_within_samples.sum())
        pairs = int(numbers.pairs_within_samples.sum())
    if merging_pays(records):
        records = merge_records(records)
    if records.rows != rows:
        raise CountingError(f"a block of {rows} rows of {states.name} gave {records.rows}")
    records, offsets = scatter(records, plan.partition_bits)
    slices = spill(records, offsets, folder) if plan.spill else HeldSlices(records, offsets)
    return Receipt(rows, equal_pairs, pairs, slices, numbers)


def check_receipts(receipts: Sequence[Receipt], rows: int) -> Index:
    """Check that the blocks stand for every row that counts."""
    found = sum(receipt.rows for receipt in receipts)
    if found != rows:
        raise CountingError(f"the blocks hold {found} rows; expected {rows}")
    return Index(tuple(receipts))


def count_partition(index: Index, plan: Plan, words: int, partition: int) -> Counts:
    """Count the distinct keys of one partition."""

    def slices() -> Iterator[Records]:
        return (receipt.slices.read(partition) for receipt in index.receipts)

    share = plan.partition_bits, plan.maximum_slots
    if not index.groups:
        return Counts(Spectrum.from_arrays(*aggregate(slices, words, *share)))
    records = sum(receipt.slices.total for receipt in index.receipts) >> plan.partition_bits
    pieces, cells = aggregate_groups(slices, words, index.groups, *share, slots_for(records // 2))
    return Counts(Spectrum.from_arrays(*pieces), cells=cells)


def total_pairs(index: Index) -> Counts:
    """Add up what the blocks have counted within samples."""
    return Counts(
        Spectrum.empty(),
        sum(receipt.equal_pairs_within_samples for receipt in index.receipts),
        sum(receipt.pairs_within_samples for receipt in index.receipts),
        _merge_changes([receipt.groups for receipt in index.receipts]),
    )


def merge_counts(counts: Sequence[Counts]) -> Counts:
    """Add up the counts of disjoint shares."""
    cells = [count.cells for count in counts if count.cells is not None]
    return Counts(
        merge(count.spectrum for count in counts),
        sum(count.equal_pairs_within_samples for count in counts),
        sum(count.pairs_within_samples for count in counts),
        _merge_changes([count.changes for count in counts]),
        add_up_changes(cells) if cells else None,
    )


def finish_counts(
    counts: Counts,
    states: LayerStates,
    groups: RandomGroups | None,
    left_out: LeftOut = NOTHING,
) -> Counts:
    """Sort the changes of all partitions, and count the samples of parts that have no rows."""
    if groups is None:
        return counts
    numbers = np.zeros((4, groups.count), np.int64)
    if counts.changes is not None:
        numbers += counts.changes.numbers
    for part in states.parts:
        if not part.rows:
            group = groups.of_samples(part.directory, 0, part.samples)
            group = left_out.select(group, part.directory, 0)
            numbers[0] += np.bincount(group, minlength=groups.count)
    columns = () if counts.cells is None else counts.cells.columns
    return replace(counts, changes=GroupChanges.from_arrays(numbers, *columns), cells=None)


def build_graph(
    states: LayerStates,
    scheme: KeyScheme,
    plan: Plan,
    folder: str,
    groups: RandomGroups | None = None,
    left_out: LeftOut = NOTHING,
) -> tuple[dict[Any, Any], Any]:
    """Return the graph that counts a layer, as one plain dictionary, and the key of its result.

    Its keys are unique: a cluster may run many analyses at once.
    """
    token = uuid.uuid4().hex[:12]

    def key(kind: str, *number: int) -> tuple[Any, ...]:
        return f"tsstore-{kind}-{token}", *number

    constants = {key("states"): states, key("scheme"): scheme, key("plan"): plan}
    choice = {key("groups"): groups, key("left-out"): left_out}
    graph: dict[Any, Any] = {**constants, **choice}
    blocks = []
    for number, block in enumerate(states.blocks(plan.block_rows)):
        blocks.append(key("block", number))
        graph[blocks[-1]] = (count_block, *constants, folder, block, *choice)
    index = key("index")
    graph[index] = (check_receipts, blocks, left_out.kept_rows(states))
    level = [key("pairs")]
    graph[level[0]] = (total_pairs, index)
    for partition in range(1 << plan.partition_bits):
        level.append(key("partition", partition))
        graph[level[-1]] = (count_partition, index, key("plan"), scheme.words, partition)
    return graph, _merge_tree(graph, level, f"tsstore-merge-{token}")


def _read_records(
    states: LayerStates, scheme: KeyScheme, block: Block, left_out: LeftOut
) -> tuple[Records, int, int, int]:
    """Return a block's records, one for each state of each sample, its rows, and pairs of rows.

    Rows and keys are let go as early as can be: the plan counts on it.
    """
    rows, positions = left_out.read_block(states, block)
    keys = scheme.keys(rows)
    del rows
    records, equal_pairs = merge_samples(keys, positions)
    pairs = int(np.dot(positions, positions) - positions.sum()) // 2
    return records, len(keys), equal_pairs, pairs


def _read_records_by_group(
    states: LayerStates, scheme: KeyScheme, block: Block, groups: RandomGroups, left_out: LeftOut
) -> tuple[Records, GroupChanges]:
    """Do the same, for each group of samples; its records and numbers are those of each."""
    directory = states.parts[block.part].directory
    group = groups.of_samples(directory, block.first_sample, block.samples)
    group = left_out.select(group, directory, block.first_sample)
    rows, positions = left_out.read_block(states, block)
    keys = scheme.keys(rows)
    del rows
    records, equal_pairs = merge_samples_by_group(keys, positions, group, groups.count)
    del keys
    samples, rows_of_group, pairs = numbers_by_group(positions, group, groups.count)
    return records, GroupChanges.from_arrays([samples, rows_of_group, equal_pairs, pairs])


def _merge_changes(parts: Sequence[GroupChanges | None]) -> GroupChanges | None:
    """Add up changes where there are any."""
    held = [part for part in parts if part is not None]
    return merge_changes(held) if held else None


def _merge_tree(graph: dict[Any, Any], level: list[Any], name: str) -> Any:
    """Add the merging of all counts of a level to the graph; return the last key."""
    depth = 0
    while len(level) > 1:
        groups = [level[start : start + FAN_IN] for start in range(0, len(level), FAN_IN)]
        level = [(name, depth, number) for number in range(len(groups))]
        for merged, group in zip(level, groups, strict=True):
            graph[merged] = (merge_counts, group)
        depth += 1
    return level[0]
