"""From a block's chunks to its records."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsstore.analysis.groups import RandomGroups
from tsstore.analysis.left_out import LeftOut
from tsstore.counting.buffers import Buffers
from tsstore.counting.by_group import count_groups, numbers_by_group
from tsstore.counting.hot import merge_hot_rows
from tsstore.counting.keys import KeyScheme
from tsstore.counting.merge import merge_samples
from tsstore.counting.records import Records
from tsstore.statistics.groups import GroupChanges
from tsstore.store.layers import Block, LayerStates

SPAN_BYTES = 1 << 20
"""Of rows that become keys at a time, about: while they are still in the processor's cache."""


def read_records(
    states: LayerStates,
    scheme: KeyScheme,
    block: Block,
    groups: RandomGroups | None,
    left_out: LeftOut,
    buffers: Buffers,
) -> tuple[list[Records], GroupChanges]:
    """Return a block's records, and its samples, rows and pairs of rows by group.

    The records may lie in the buffers. Without groups, all samples are one.
    """
    part = states.parts[block.part]
    keys = _read_keys(states, scheme, block, buffers)
    group, count = None, 1
    if groups is not None:
        group = groups.of_samples(part.directory, block.first_sample, block.samples)
        count = groups.count
    if part.constant_positions == 1 and not left_out.samples:
        rows = np.array([block.rows]) if group is None else count_groups(group, count)
        none = np.zeros_like(rows)
        numbers = GroupChanges.from_arrays([rows, rows, none, none])
        return merge_hot_rows(Records(keys, group=group), count, buffers), numbers
    positions = part.read_positions(block.first_sample, block.samples)
    kept = left_out.kept(part.directory, block.first_sample, block.samples)
    if kept is not None:
        keys, positions = _select_rows(keys, np.repeat(kept, positions)), positions[kept]
        group = None if group is None else group[kept]
    records, equal_pairs = merge_samples(keys, positions, group, count, buffers)
    own = np.zeros(len(positions), np.uint8) if group is None else group
    samples, rows, pairs = numbers_by_group(positions, own, count)
    return records, GroupChanges.from_arrays([samples, rows, equal_pairs, pairs])


def _read_keys(
    states: LayerStates, scheme: KeyScheme, block: Block, buffers: Buffers
) -> npt.NDArray[np.uint64]:
    """Return the keys of a block's rows: uint64 (rows, words), in the buffers."""
    stored = states.parts[block.part].states
    keys = buffers.array("keys", (block.rows, scheme.words), np.uint64)
    span = stored.spec.chunk_rows * -(-SPAN_BYTES // stored.spec.chunk_bytes)

    def encoded(count: int) -> memoryview:
        return buffers.array("encoded", (count,), np.uint8).data

    row, stop = block.first_row, block.first_row + block.rows
    while row < stop:
        end = min(stop, (row // span + 1) * span)
        room = buffers.array("rows", (end - row, states.row_bytes), np.uint8)
        rows = stored.read(row, end, room, encoded)
        scheme.keys(rows, keys[row - block.first_row : end - block.first_row])
        row = end
    return keys


def _select_rows(
    keys: npt.NDArray[np.uint64], kept: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint64]:
    """Return the keys that stay.

    One item a key: selecting along the first of two axes takes eight bytes a key more.
    """
    words = keys.shape[1]
    items = keys.view(np.dtype((np.void, 8 * words))).reshape(-1)
    return items[kept].view(np.uint64).reshape(-1, words)
