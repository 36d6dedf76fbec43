"""Numbers of samples, rows and pairs by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tsstore.compiling import kernel

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
    check_groups(group, len(positions), groups)
    numbers = np.zeros((3, groups), np.int64)
    _add_up(positions, group, numbers)
    return numbers


def check_groups(group: NDArray[np.uint8], samples: int, groups: int) -> None:
    """Raise ValueError if there is not one of so many groups for each sample."""
    if len(group) != samples or group.max(initial=0) >= groups:
        raise ValueError(
            f"{len(group)} samples of groups 0 to {group.max(initial=0)}; expected {samples} "
            f"samples of {groups} groups"
        )


@kernel
def _add_up(
    positions: NDArray[np.int64], group: NDArray[np.uint8], numbers: NDArray[np.int64]
) -> None:
    """Add up samples, rows and pairs by group."""
    for sample in range(positions.size):
        own, rows = group[sample], positions[sample]
        numbers[0, own] += 1
        numbers[1, own] += rows
        numbers[2, own] += (rows * (rows - 1)) >> 1
