"""Numbers of samples, rows and pairs by group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.numba_tools.decorators import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HALF: Final = np.uint64(32)
_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))


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


def count_groups(group: NDArray[np.uint8], groups: int) -> NDArray[np.int64]:
    """Return the number of samples of each of so many groups, int64 (groups,).

    Raises
    ------
    ValueError
        If there is a group beyond the last.
    """
    check_groups(group, len(group), groups)
    counts = np.zeros(groups, np.int64)
    _count(group, counts)
    return counts


def check_groups(group: NDArray[np.uint8], samples: int, groups: int) -> None:
    """Raise ValueError if there is not one of so many groups for each sample."""
    if len(group) != samples or group.max(initial=0) >= groups:
        raise ValueError(
            f"{len(group)} samples of groups 0 to {group.max(initial=0)}; expected {samples} "
            f"samples of {groups} groups"
        )


@kernel
def deal(
    words: NDArray[np.uint64], addend: np.uint64, groups: int, dealt: NDArray[np.uint8]
) -> None:
    """Deal samples into groups by words of theirs: equal words, equal groups.

    Parameters
    ----------
    words
        uint64 (samples,).
    addend
        Added to each word: another one deals otherwise.
    groups
        Number of groups, 1 to 255.
    dealt
        uint8 (samples,): where the groups go.

    References
    ----------
    G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014:
    the finaliser of SplitMix64, which spreads each bit over all 64.
    """
    for sample in range(words.size):
        word = words[sample] + addend
        word = (word ^ (word >> _SHIFTS[0])) * _FACTORS[0]
        word = (word ^ (word >> _SHIFTS[1])) * _FACTORS[1]
        word ^= word >> _SHIFTS[2]
        dealt[sample] = ((word >> _HALF) * np.uint64(groups)) >> _HALF


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


@kernel
def _count(group: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
    """Count samples by group."""
    for sample in range(group.size):
        counts[group[sample]] += 1
