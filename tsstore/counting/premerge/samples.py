"""Samples of a piece: rows of each, the groups they fall into, and the numbers of these."""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.records import Groups
from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import kernel
from tsstore.numba_tools.words import splitmix

_HALF: Final = np.uint64(32)
_LARGEST_BLOCK: Final = 2**31 - 1


def numbers_by_group(positions: I64, group: Groups, groups: int) -> I64:
    """Return samples, rows and pairs of rows of one sample by group, int64 (3, groups).

    Each sample has so many `positions`, int64 (samples,), and a `group`, (samples,).
    """
    check_groups(group, len(positions), groups)
    numbers = np.zeros((3, groups), np.int64)
    _add_up(positions, group, numbers)
    return numbers


def count_groups(group: Groups, groups: int) -> I64:
    """Return the number of samples of each of so many groups, int64 (groups,)."""
    check_groups(group, len(group), groups)
    counts = np.zeros(groups, np.int64)
    _count(group, counts)
    return counts


def check_positions(positions: I64, rows: int) -> None:
    """Raise ValueError if the rows of samples do not add up to so many, or are too many."""
    smallest, largest = int(positions.min(initial=0)), int(positions.max(initial=0))
    if smallest < 0 or largest > _LARGEST_BLOCK:
        raise ValueError(
            f"samples have {smallest} to {largest} positions; expected 0 to {_LARGEST_BLOCK}"
        )
    if (total := int(positions.sum())) != rows or rows > _LARGEST_BLOCK:
        raise ValueError(
            f"positions add up to {total}; expected the number of rows, {rows}, and no more than "
            f"{_LARGEST_BLOCK}"
        )


def check_groups(group: Groups, samples: int, groups: int) -> None:
    """Raise ValueError if there is not one of so many groups for each sample."""
    if len(group) != samples or group.max(initial=0) >= groups:
        raise ValueError(
            f"{len(group)} samples of groups 0 to {group.max(initial=0)}; expected {samples} "
            f"samples of {groups} groups"
        )


@kernel
def append_samples(keys: U64, positions: I64, first: int, appended: U64) -> None:
    """Write keys (rows, words) with the number of their sample as another word, `first` and on."""
    row, number = 0, np.uint64(first)
    for sample in range(positions.size):
        for _ in range(positions[sample]):
            for word in range(keys.shape[1]):
                appended[row, word] = keys[row, word]
            appended[row, keys.shape[1]] = number
            row += 1
        number += np.uint64(1)


@kernel
def deal(words: U64, addend: np.uint64, groups: int, dealt: U8) -> None:
    """Deal samples into 1 to 255 groups by words of theirs: equal words, equal groups.

    Another `addend`, which is added to each word, deals otherwise.
    """
    for sample in range(words.size):
        word = splitmix(words[sample] + addend)
        dealt[sample] = ((word >> _HALF) * np.uint64(groups)) >> _HALF


@kernel
def _add_up(positions: I64, group: Groups, numbers: I64) -> None:
    """Add up samples, rows and pairs by group."""
    for sample in range(positions.size):
        own, rows = group[sample], positions[sample]
        numbers[0, own] += 1
        numbers[1, own] += rows
        numbers[2, own] += (rows * (rows - 1)) >> 1


@kernel
def _count(group: Groups, counts: I64) -> None:
    """Count samples by group."""
    for sample in range(group.size):
        counts[group[sample]] += 1
