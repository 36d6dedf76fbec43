"""Compiling, or loading, all loops before they are needed.

Threads would wait for each other in the middle of their work, processes would compile the same at
once, and the compiler's memory would count as theirs.
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from typing import Final

import numpy as np

from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import scatter
from tsstore.counting.premerge import hot_keys as hot
from tsstore.counting.premerge.direct_index import MOST_ROW_BYTES, DirectTable
from tsstore.counting.premerge.samples import count_groups, deal, numbers_by_group
from tsstore.counting.premerge.within_samples import merge_samples
from tsstore.counting.records import Groups, Records, bytes_of_group, group_dtype
from tsstore.counting.tables.aggregate import aggregate, aggregate_gathered
from tsstore.counting.tables.spectra import add_up_entries

_FEW_ROWS: Final = 16
_ROWS_OF_MANY: Final = 1 << 14


@lru_cache
def warm_up(row_bytes: int, exact: bool, groups: int, spill: bool, sets: bool = False) -> None:
    """Run every loop that counting rows of so many bytes needs, once in a process.

    Parameters
    ----------
    row_bytes, exact
        As for :meth:`KeyScheme.create`.
    groups, sets
        How many groups of samples are told apart, 0 for none; whether these are of sets.
    spill
        Whether records come from files: they cannot be written to, and loops are compiled for them
        separately.
    """
    scheme = KeyScheme.create(row_bytes, seed=0, exact=exact)
    width = bytes_of_group(groups)
    told = (2, 0) if width else (0, 0)
    # Of as many sets as take numbers of this width.
    told = (1, 1 << 8 if width > 1 else 1) if sets else told
    pieces = [piece for records in _merged(scheme, width) for piece in records]
    pieces.append(_many(scheme.words, width))
    scattered = [scatter([piece], 1)[0] for piece in pieces]
    scatter([scattered[0], scattered[0]], 1, 1)
    _count(scattered, scheme.words, *told)
    if spill:
        _count(list(map(_as_from_a_file, scattered)), scheme.words, *told)


def _merged(scheme: KeyScheme, width: int) -> list[list[Records]]:
    """Return records of samples of one position and of several, with hot keys and without."""
    merged = []
    data = np.zeros((_FEW_ROWS, scheme.row_bytes), np.uint8)
    data[:, 0] = np.arange(_FEW_ROWS) // 4
    few = scheme.keys(data)
    groups = (0, 2, 1 << 9)[width]
    dtype = group_dtype(max(groups, 1))
    for rows in (_FEW_ROWS, hot.LEAST_ROWS):
        keys = np.repeat(few, rows // _FEW_ROWS, axis=0)
        for positions in (1, 4):
            count = np.full(rows // positions, positions, np.int64)
            dealt = np.zeros(len(count), np.uint8)
            if width:
                deal(np.arange(len(count), dtype=np.uint64), np.uint64(0), 2, dealt)
            group: Groups = dealt.astype(dtype)
            count_groups(group, 2)
            numbers_by_group(count, group, 2)
            table = hot.HotKeys(scheme.words, groups, rows)
            own = group if width else None
            records, _ = merge_samples(keys, count, table, own)
            merged += [records, table.take()]
    if scheme.row_bytes <= MOST_ROW_BYTES:
        direct = DirectTable(scheme, groups, _FEW_ROWS)
        direct.count(data, np.array([_FEW_ROWS]), np.zeros(1, dtype) if width else None)
        merged.append(direct.take())
    return merged


def _many(words: int, width: int) -> Records:
    """Return records of so many keys, each in two groups, that all tables grow."""
    rows = np.arange(_ROWS_OF_MANY)
    keys = np.repeat((rows[:, None] // 2).astype(np.uint64), words, axis=1)
    return Records(keys, group=(rows % 2).astype(f"u{width}") if width else None)


def _count(records: list[Records], words: int, groups: int, sets: int) -> None:
    """Count with and without gathering, and add up what both changed, as of two partitions."""
    _, streamed = aggregate(lambda: records, words, 0, 1 << 17, groups, sets)
    _, gathered = aggregate_gathered(records, words, 0, 1 << 17, groups=groups, sets=sets)
    if streamed is not None and gathered is not None:
        add_up_entries([streamed, gathered])


def _as_from_a_file(records: Records) -> Records:
    """Return records that cannot be written to."""
    copy = deepcopy(records)
    for array in copy.arrays():
        array.setflags(write=False)
    return copy
