from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import by_group as module
from tsstore.counting.by_group import keys_in_order, numbers_by_group, samples_in_order

GROUPS = 4
samples = st.lists(st.tuples(st.integers(0, 5), st.integers(0, GROUPS - 1)), max_size=30)


def arrays(drawn: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    positions = np.array([rows for rows, _ in drawn], np.int64)
    return positions, np.array([group for _, group in drawn], np.uint8)


def check_numbers(positions: np.ndarray, group: np.ndarray) -> None:
    numbers = numbers_by_group(positions, group, GROUPS)
    assert numbers.dtype == np.int64
    for own in range(GROUPS):
        rows = positions[group == own].tolist()
        pairs = sum(count * (count - 1) // 2 for count in rows)
        assert numbers[:, own].tolist() == [len(rows), sum(rows), pairs]


def check_samples(positions: np.ndarray, group: np.ndarray) -> None:
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=GROUPS))
    starts, ordered = samples_in_order(positions, group, ends)
    assert starts.tolist() == (np.cumsum(positions) - positions)[order].tolist()
    assert ordered.tolist() == positions[order].tolist()


def check_keys(positions: np.ndarray, group: np.ndarray, words: int) -> None:
    positions = np.minimum(positions, 1)
    keys = np.arange(positions.sum() * words, dtype=np.uint64).reshape(-1, words)
    of_rows = np.repeat(group, positions)
    ends = np.cumsum(np.bincount(of_rows, minlength=GROUPS))
    ordered = keys_in_order(keys, positions, group, ends)
    assert np.array_equal(ordered, keys[np.argsort(of_rows, kind="stable")])


@settings(deadline=None)
@given(samples, st.sampled_from([1, 2]))
def test_samples_are_counted_and_put_in_order_as_sorting_does(drawn, words) -> None:
    positions, group = arrays(drawn)
    check_numbers(positions, group)
    check_samples(positions, group)
    check_keys(positions, group, words)


def test_pairs_of_a_large_sample_do_not_overflow_32_bits() -> None:
    numbers = numbers_by_group(np.array([2**31]), np.zeros(1, np.uint8), 1)
    assert numbers[:, 0].tolist() == [1, 2**31, 2**30 * (2**31 - 1)]


def test_groups_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="2 samples of groups 0 to 3; expected 2 samples of 3"):
        numbers_by_group(np.array([1, 1]), np.array([0, 3], np.uint8), 3)
    with pytest.raises(ValueError, match="1 samples of groups 0 to 0; expected 2 samples"):
        numbers_by_group(np.array([1, 1]), np.array([0], np.uint8), 3)


def test_kernels_run_as_plain_python_with_the_same_result(monkeypatch) -> None:
    for name in ("_add_up", "_order_samples", "_order_keys"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    positions, group = arrays([(2, 1), (0, 3), (5, 0), (1, 1), (3, 0)])
    check_numbers(positions, group)
    check_samples(positions, group)
    check_keys(positions, group, 2)
