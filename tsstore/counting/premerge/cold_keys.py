"""What is left when hot keys have been absorbed: the other rows, sample after sample."""

from __future__ import annotations

import numpy as np

from tsstore.counting.hashing import Place, Width, width_of
from tsstore.counting.premerge.hot_keys import HotKeys, HotTable, absorb_rows, absorb_sample
from tsstore.counting.premerge.samples import check_groups, check_positions
from tsstore.counting.records import Buffers, Groups, SampleKeys
from tsstore.numba_tools.arrays import I64, U64
from tsstore.numba_tools.decorators import kernel


def absorb_hot_keys(
    keys: U64,
    positions: I64 | None,
    hot: HotKeys,
    group: Groups | None = None,
    buffers: Buffers | None = None,
) -> tuple[SampleKeys, I64]:
    """Count the rows of hot keys, and return the others.

    Parameters
    ----------
    keys
        uint64 (n, words), C-contiguous: the keys of whole samples, sample after sample.
    positions
        int64 (samples,): the number of rows of each sample, zero or more; their sum is n. None:
        each row is a sample.
    hot
        The hot keys, which know how many groups are told apart.
    group
        uint8 or uint16 (samples,): the group of each sample, if groups are told apart.
    buffers
        Where the keys lie until the next call, unless they are the same, and spare memory. None
        takes new memory.

    Returns
    -------
    cold
        The keys that are not hot; memory of those that were passed is spare, if it is not theirs.
    equal_pairs
        int64 (groups,): the number of pairs of rows of one sample that are equal and hot, by group:
        the sum of m (m - 1) / 2 over the multiplicities m of the hot keys of each sample.
    """
    equal_pairs = np.zeros(hot.groups, np.int64)
    if positions is not None:
        check_positions(positions, len(keys))
    if group is not None:
        check_groups(group, len(keys) if positions is None else len(positions), hot.groups)
    buffers, width = buffers or Buffers(), width_of(keys)
    cold: U64 = buffers.array("cold", keys.shape, np.uint64)
    if not hot.serve(keys):
        ends = None if positions is None else np.cumsum(positions)
        return SampleKeys(keys, ends, group, cold), equal_pairs
    left: Place
    if positions is None:
        cold_group = None
        if group is not None:
            cold_group = buffers.array("cold groups", group.shape, group.dtype.type)
        left = absorb_rows(keys, group, hot.table, cold, cold_group, width)
        found = SampleKeys(
            cold[: int(left)], None, None if cold_group is None else cold_group[: int(left)], keys
        )
    else:
        touched = buffers.array("touched", (int(positions.max(initial=0)) + 1,), np.uint64)
        ends = np.empty(len(positions), np.int64)
        left = _absorb(keys, positions, group, hot.table, touched, cold, ends, equal_pairs, width)
        found = SampleKeys(cold[: int(left)], ends, group, keys)
    hot.learn(len(keys) - int(left), len(keys))
    return found, equal_pairs


@kernel
def _absorb(
    keys: U64,
    positions: I64,
    group: Groups | None,
    hot: HotTable,
    touched: U64,
    cold: U64,
    ends: I64,
    equal_pairs: I64,
    width: Width,
) -> Place:
    """Absorb hot keys sample after sample; return how many keys are left."""
    left: Place
    pairs: Place
    left = start = own = np.int64(0)
    for sample in range(positions.size):
        stop = start + positions[sample]
        if group is not None:
            own = np.int64(group[sample])
        left, pairs = absorb_sample(keys, start, stop, own, hot, touched, cold, left, width)
        equal_pairs[own] += pairs
        ends[sample] = left
        start = stop
    return left
