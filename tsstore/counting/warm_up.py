"""Compiling, or loading, all loops before they are needed.

Threads would wait for each other in the middle of their work, processes would compile the same at
once, and the compiler's memory would count as theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tsstore.counting.aggregate import Table, aggregate
from tsstore.counting.changes import Changes, add_up_changes
from tsstore.counting.grouped import GroupedTable, aggregate_groups
from tsstore.counting.merge import merge_records, merge_samples, merge_samples_by_group
from tsstore.counting.partition import scatter
from tsstore.counting.records import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tsstore.counting.keys import KeyScheme

_ROWS = 16

_Scalar = TypeVar("_Scalar", bound=np.generic)


def warm_up(scheme: KeyScheme, grouped: bool) -> None:
    """Run every loop once that counting rows of a scheme needs, with or without groups."""
    rows = np.zeros((_ROWS, scheme.row_bytes), np.uint8)
    rows[:, 0] = np.arange(_ROWS) // 2
    keys, positions = scheme.keys(rows), np.full(_ROWS // 2, 2, np.int64)
    if grouped:
        group = np.arange(len(positions), dtype=np.uint8) % 2
        merge_samples_by_group(keys, np.ones(_ROWS, np.int64), np.zeros(_ROWS, np.uint8), 2)
        records, _ = merge_samples_by_group(keys, positions, group, 2)
    else:
        records, _ = merge_samples(keys, positions)
    records, _ = scatter(merge_records(records), 1)
    for piece in (records, _as_from_a_file(records)):
        _count_grouped(piece) if grouped else _count(piece)


def _as_from_a_file(records: Records) -> Records:
    """Return records that cannot be written to, for which loops are compiled separately."""
    group = None if records.group is None else _sealed(records.group)
    return Records(
        _sealed(records.keys), _sealed(records.multiplicity), _sealed(records.incidence), group
    )


def _sealed(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    view = array.view()
    view.setflags(write=False)
    return view


def _count(records: Records) -> None:
    aggregate(lambda: [records], records.words, 1, 1024)
    Table(records.words, 1024, initial_slots=2).add(records)


def _count_grouped(records: Records) -> None:
    aggregate_groups(lambda: [records], records.words, 2, 1, 1024)
    crossed = Records(
        np.concatenate([records.keys, records.keys]),
        np.ones(2 * len(records), np.uint32),
        np.ones(2 * len(records), np.uint32),
        np.repeat(np.arange(2, dtype=np.uint8), len(records)),
    )
    table = GroupedTable(records.words, 2, 1024, initial_slots=2)
    table.add(crossed)
    for numbers in (np.ones(1, np.int32), np.ones(1, np.int64)):
        add_up_changes(2 * [Changes(np.ones(2, np.int64), numbers, numbers, numbers)])
