"""Samples in the order of their groups, and their numbers by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tsstore.counting.kernels import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


def numbers_by_group(
    positions: NDArray[np.int64], group: NDArray[np.uint8], groups: int
) -> NDArray[np.int64]:
    """Return samples, rows and pairs of rows of one sample by group, int64 (3, groups).

    Parameters
    ----------
    positions
        int64 (samples,): the number of rows of each sample.
    group
        uint8 (samples,): the group of each sample.
    groups
        Number of groups.

    Raises
    ------
    ValueError
        If `group` has another length, or a group beyond the last.
    """
    if len(group) != len(positions) or group.max(initial=0) >= groups:
        raise ValueError(
            f"{len(group)} samples of groups 0 to {group.max(initial=0)}; expected "
            f"{len(positions)} samples of {groups} groups"
        )
    numbers = np.zeros((3, groups), np.int64)
    _add_up(positions, group, numbers)
    return numbers


def samples_in_order(
    positions: NDArray[np.int64], group: NDArray[np.uint8], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each sample's rows start, and how many there are, group by group.

    Parameters
    ----------
    positions, group
        As for :func:`numbers_by_group`.
    ends
        int64 (groups,): where the samples of each group end.

    Returns
    -------
    starts, positions
        int64 (samples,) each; samples of a group keep their order.
    """
    starts, ordered = np.empty_like(positions), np.empty_like(positions)
    _order_samples(positions, group, _starts(ends), starts, ordered)
    return starts, ordered


def keys_in_order(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8],
    ends: NDArray[np.int64],
) -> NDArray[np.uint64]:
    """Return the keys of samples of at most one row, group by group.

    Parameters
    ----------
    keys
        uint64 (n, words): of sample after sample.
    positions, group
        As for :func:`numbers_by_group`.
    ends
        int64 (groups,): where the rows of each group end.
    """
    ordered = np.empty_like(keys)
    _order_keys(keys, positions, group, _starts(ends), ordered)
    return ordered


def _starts(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), ends[:-1]])


@kernel
def _add_up(
    positions: NDArray[np.int64], group: NDArray[np.uint8], numbers: NDArray[np.int64]
) -> None:
    """Add up samples, rows and pairs by group."""
    for sample in range(positions.size):
        own, rows = group[sample], positions[sample]
        numbers[0, own] += 1
        numbers[1, own] += rows
        numbers[2, own] += rows * (rows - 1) // 2


@kernel
def _order_samples(
    positions: NDArray[np.int64],
    group: NDArray[np.uint8],
    cursors: NDArray[np.int64],
    starts: NDArray[np.int64],
    ordered: NDArray[np.int64],
) -> None:
    """Write each sample where the cursor of its group is, and advance that."""
    start = 0
    for sample in range(positions.size):
        place = cursors[group[sample]]
        cursors[group[sample]] = place + 1
        starts[place], ordered[place] = start, positions[sample]
        start += positions[sample]


@kernel
def _order_keys(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8],
    cursors: NDArray[np.int64],
    ordered: NDArray[np.uint64],
) -> None:
    """Write each row where the cursor of its sample's group is, and advance that."""
    last = keys.shape[1] - 1
    row = 0
    for sample in range(positions.size):
        if positions[sample] > 0:
            place = cursors[group[sample]]
            cursors[group[sample]] = place + 1
            ordered[place, 0], ordered[place, last] = keys[row, 0], keys[row, last]
            row += 1
