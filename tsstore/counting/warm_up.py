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
from tsstore.counting.parts import PartPiece, Parts, divide_rows, gather, tag_rows
from tsstore.counting.premerge import hot_keys as hot
from tsstore.counting.premerge.cold_keys import absorb_hot_keys
from tsstore.counting.premerge.direct_index import MOST_ROW_BYTES, DirectTable
from tsstore.counting.premerge.samples import count_groups, deal, numbers_by_group
from tsstore.counting.records import (
    Groups,
    Records,
    SampleKeys,
    bytes_of_group,
    group_dtype,
)
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
    rows, counted = _preaggregated(scheme, width)
    rows.append(_many(scheme.words, width))
    scattered = [tag_rows(of, 1).records for of in rows]
    divide_rows(rows[1], 10)
    scattered += [scatter([piece], 1)[0] for piece in counted]
    scatter([scattered[0], scattered[0]], 1, 1)
    _count(scattered, scheme.words, *told)
    if spill:
        for piece in scattered:
            whole = Parts([PartPiece(piece, np.array([0, len(piece)]))], 0)
            gather(whole.columns, 0, piece)
        _count(list(map(_as_from_a_file, scattered)), scheme.words, *told)


def _preaggregated(scheme: KeyScheme, width: int) -> tuple[list[SampleKeys], list[Records]]:
    """Return samples of one position and of several, with hot keys and without, and the latter."""
    left, counted = [], []
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
            # Hot keys are absorbed another way where each row is a sample.
            left += [
                absorb_hot_keys(keys, of, table, own)[0]
                for of in ([None, count] if positions == 1 else [count])
            ]
            counted += table.take()
    if scheme.row_bytes <= MOST_ROW_BYTES:
        direct = DirectTable(scheme, groups, _FEW_ROWS)
        direct.count(data, np.array([_FEW_ROWS]), np.zeros(1, dtype) if width else None)
        counted += direct.take()
    return left, counted


def _many(words: int, width: int) -> SampleKeys:
    """Return rows of so many keys, each in two groups, that all tables grow."""
    rows = np.arange(_ROWS_OF_MANY)
    keys = np.repeat((rows[:, None] // 2).astype(np.uint64), words, axis=1)
    return SampleKeys(keys, None, (rows % 2).astype(f"u{width}") if width else None)


def _count(records: list[Records], words: int, groups: int, sets: int) -> None:
    """Count with and without gathering, and add up what both changed, as of two partitions."""
    *_, streamed = aggregate(lambda: records, words, 1, 1 << 17, groups, sets)
    *_, gathered = aggregate_gathered(records, words, 1, 1 << 17, groups=groups, sets=sets)
    if streamed is not None and gathered is not None:
        add_up_entries([streamed, gathered])


def _as_from_a_file(records: Records) -> Records:
    """Return records that cannot be written to."""
    copy = deepcopy(records)
    for array in copy.arrays():
        array.setflags(write=False)
    return copy
