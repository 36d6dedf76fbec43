"""Scattering records by the top bits of their hash: equal keys meet in one partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.counting.kernels import kernel
from tsstore.counting.records import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_BITS: Final = 24


def scatter(records: Records, bits: int) -> tuple[Records, NDArray[np.int64]]:
    """Order records by the top `bits` bits of their hash, and keep the order within those.

    Returns
    -------
    records
        Those of partition 0, then of partition 1, and so on; 0 bits return them as they are.
    offsets
        int64 (2**bits + 1,): partition p is ``records[offsets[p] : offsets[p + 1]]``.

    Raises
    ------
    ValueError
        If `bits` is not in 0 … 24.
    """
    if not 0 <= bits <= _LARGEST_BITS:
        raise ValueError(f"{bits} bits to scatter by; expected 0 to {_LARGEST_BITS}")
    if bits == 0:
        return records, np.array([0, len(records)], np.int64)
    shift = np.uint64(64 - bits)
    offsets = np.zeros(2**bits + 1, np.int64)
    _count(records.keys, shift, offsets[1:])
    np.cumsum(offsets, out=offsets)
    keys = np.empty_like(records.keys)
    multiplicity = np.empty_like(records.multiplicity)
    incidence = np.empty_like(records.incidence)
    group = None if records.group is None else np.empty_like(records.group)
    _move(
        records.keys,
        records.multiplicity,
        records.incidence,
        records.group,
        keys,
        multiplicity,
        incidence,
        group,
        shift,
        offsets[:-1].copy(),
    )
    return Records(keys, multiplicity, incidence, group), offsets


@kernel
def _count(keys: NDArray[np.uint64], shift: np.uint64, counts: NDArray[np.int64]) -> None:
    """Add the number of keys of each partition to `counts`."""
    for row in range(keys.shape[0]):
        counts[keys[row, 0] >> shift] += 1


@kernel
def _move(
    keys: NDArray[np.uint64],
    multiplicity: NDArray[np.uint32],
    incidence: NDArray[np.uint32],
    group: NDArray[np.uint8] | None,
    moved: NDArray[np.uint64],
    moved_multiplicity: NDArray[np.uint32],
    moved_incidence: NDArray[np.uint32],
    moved_group: NDArray[np.uint8] | None,
    shift: np.uint64,
    cursors: NDArray[np.int64],
) -> None:
    """Write each record where the cursor of its partition is, and advance that."""
    last = keys.shape[1] - 1
    for row in range(keys.shape[0]):
        partition = keys[row, 0] >> shift
        place = cursors[partition]
        cursors[partition] = place + 1
        moved[place, 0], moved[place, last] = keys[row, 0], keys[row, last]
        moved_multiplicity[place] = multiplicity[row]
        moved_incidence[place] = incidence[row]
        if group is not None and moved_group is not None:
            moved_group[place] = group[row]
