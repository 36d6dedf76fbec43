"""The graph of one layer's count: blocks → barrier → partitions → merge tree."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsstore.analysis.exchange import HeldSlices, Receipt, spill
from tsstore.analysis.plan import Plan
from tsstore.counting.aggregate import aggregate
from tsstore.counting.keys import KeyScheme
from tsstore.counting.merge import merge_records, merge_samples, merging_pays
from tsstore.counting.partition import scatter
from tsstore.counting.records import Records
from tsstore.errors import CountingError
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
    """

    spectrum: Spectrum
    equal_pairs_within_samples: int = 0
    pairs_within_samples: int = 0


@dataclass(frozen=True)
class Index:
    """What the barrier knows: every block's receipt."""

    receipts: tuple[Receipt, ...]


def count_block(
    states: LayerStates, scheme: KeyScheme, plan: Plan, folder: str, block: Block
) -> Receipt:
    """Turn the rows of a block into records, by partition; write them to a file if planned."""
    records, equal_pairs, pairs = _read_records(states, scheme, block)
    if merging_pays(records):
        records = merge_records(records)
    if records.rows != block.rows:
        raise CountingError(f"a block of {block.rows} rows of {states.name} gave {records.rows}")
    records, offsets = scatter(records, plan.partition_bits)
    slices = spill(records, offsets, folder) if plan.spill else HeldSlices(records, offsets)
    return Receipt(block.rows, equal_pairs, pairs, slices)


def check_receipts(receipts: Sequence[Receipt], rows: int) -> Index:
    """Check that the blocks stand for every row."""
    found = sum(receipt.rows for receipt in receipts)
    if found != rows:
        raise CountingError(f"the blocks hold {found} rows; expected {rows}")
    return Index(tuple(receipts))


def count_partition(index: Index, plan: Plan, words: int, partition: int) -> Counts:
    """Count the distinct keys of one partition."""
    pieces = aggregate(
        lambda: (receipt.slices.read(partition) for receipt in index.receipts),
        words,
        plan.partition_bits,
        plan.maximum_slots,
    )
    return Counts(Spectrum.from_arrays(*pieces))


def total_pairs(index: Index) -> Counts:
    """Add up what the blocks have counted within samples."""
    return Counts(
        Spectrum.empty(),
        sum(receipt.equal_pairs_within_samples for receipt in index.receipts),
        sum(receipt.pairs_within_samples for receipt in index.receipts),
    )


def merge_counts(counts: Sequence[Counts]) -> Counts:
    """Add up the counts of disjoint shares."""
    return Counts(
        merge(count.spectrum for count in counts),
        sum(count.equal_pairs_within_samples for count in counts),
        sum(count.pairs_within_samples for count in counts),
    )


def build_graph(
    states: LayerStates, scheme: KeyScheme, plan: Plan, folder: str
) -> tuple[dict[Any, Any], Any]:
    """Return the graph that counts a layer, as one plain dictionary, and the key of its result.

    Its keys are unique: a cluster may run many analyses at once.
    """
    token = uuid.uuid4().hex[:12]

    def key(kind: str, *number: int) -> tuple[Any, ...]:
        return f"tsstore-{kind}-{token}", *number

    constants = {key("states"): states, key("scheme"): scheme, key("plan"): plan}
    graph: dict[Any, Any] = dict(constants)
    blocks = []
    for number, block in enumerate(states.blocks(plan.block_rows)):
        blocks.append(key("block", number))
        graph[blocks[-1]] = (count_block, *constants, folder, block)
    index = key("index")
    graph[index] = (check_receipts, blocks, states.rows)
    level = [key("pairs")]
    graph[level[0]] = (total_pairs, index)
    for partition in range(1 << plan.partition_bits):
        level.append(key("partition", partition))
        graph[level[-1]] = (count_partition, index, key("plan"), scheme.words, partition)
    return graph, _merge_tree(graph, level, f"tsstore-merge-{token}")


def _read_records(states: LayerStates, scheme: KeyScheme, block: Block) -> tuple[Records, int, int]:
    """Return a block's records, one for each state of each sample, and its pairs of rows.

    Rows and keys are let go as early as can be: the plan counts on it.
    """
    rows, positions = states.read_block(block)
    keys = scheme.keys(rows)
    del rows
    records, equal_pairs = merge_samples(keys, positions)
    pairs = int(np.dot(positions, positions) - positions.sum()) // 2
    return records, equal_pairs, pairs


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
