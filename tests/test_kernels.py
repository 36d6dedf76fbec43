from __future__ import annotations

import numpy as np
import pytest

from tsstore.counting.kernels import inlined, kernel


@inlined
def _step(place: int) -> int:
    return 2 if place % 2 else 1


@kernel
def _increase(counts: np.ndarray, place: int) -> None:
    if place % 2:
        counts[place] += _step(place)
    else:
        counts[place] += 1


@kernel
def _increase_all(counts: np.ndarray) -> int:
    for place in range(counts.size):
        _increase(counts, place)
    return counts.size


def test_a_kernel_calls_kernels_and_changes_its_arrays() -> None:
    counts = np.zeros(4, np.int64)
    assert _increase_all(counts) == 4
    assert counts.tolist() == [1, 2, 1, 2]
    assert _increase_all.py_func(counts) == 4
    assert counts.tolist() == [2, 4, 2, 4]


@pytest.mark.parametrize("compiled", [_increase_all, _step])
def test_a_kernel_lets_go_of_the_lock_and_counts_no_references(compiled) -> None:
    assert compiled.targetoptions["nogil"]
    assert not compiled.targetoptions["_nrt"]


def test_only_what_is_inlined_is_made_part_of_its_callers() -> None:
    assert _step.targetoptions["forceinline"]
    assert not _increase.targetoptions.get("forceinline", False)
    assert (_step(3), _step.py_func(4)) == (2, 1)


def test_what_a_kernel_raises_comes_out_of_it() -> None:
    @inlined
    def _check(counts: np.ndarray) -> None:
        if counts.size:
            raise ValueError("too many")

    @kernel
    def _fail(counts: np.ndarray) -> None:
        _check(counts)

    assert _fail(np.zeros(0)) is None
    with pytest.raises(ValueError, match="too many"):
        _fail(np.zeros(1))
