from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.premerge import samples as module
from tsstore.counting.premerge.samples import count_groups, numbers_by_group

GROUPS = 4
WORD = 2**64
samples = st.lists(st.tuples(st.integers(0, 5), st.integers(0, GROUPS - 1)), max_size=30)


def arrays(drawn: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    positions = np.array([rows for rows, _ in drawn], np.int64)
    return positions, np.array([group for _, group in drawn], np.uint8)


def check_numbers(positions: np.ndarray, group: np.ndarray) -> None:
    numbers = numbers_by_group(positions, group, GROUPS)
    assert numbers.dtype == np.int64
    assert numbers.shape == (3, GROUPS)
    for own in range(GROUPS):
        rows = positions[group == own].tolist()
        pairs = sum(count * (count - 1) // 2 for count in rows)
        assert numbers[:, own].tolist() == [len(rows), sum(rows), pairs]


def dealt(words: list[int], addend: int, groups: int) -> list[int]:
    found = np.full(len(words), 255, np.uint8)
    module.deal(np.array(words, np.uint64), np.uint64(addend), groups, found)
    return found.tolist()


def expected_deal(words: list[int], addend: int, groups: int) -> list[int]:
    """The same in Python's own integers."""
    found = []
    for word in words:
        mixed = (word + addend) % WORD
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % WORD
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % WORD
        found.append((mixed ^ mixed >> 31) // 2**32 * groups // 2**32)
    return found


@given(samples)
def test_samples_rows_and_pairs_are_counted_as_by_sums(drawn) -> None:
    check_numbers(*arrays(drawn))


def test_pairs_of_a_large_sample_do_not_overflow_32_bits() -> None:
    numbers = numbers_by_group(np.array([2**31]), np.zeros(1, np.uint8), 1)
    assert numbers[:, 0].tolist() == [1, 2**31, 2**30 * (2**31 - 1)]


def test_all_groups_there_can_be_are_counted() -> None:
    numbers = numbers_by_group(np.full(256, 3), np.arange(256, dtype=np.uint8), 256)
    assert numbers.tolist() == [[1] * 256, [3] * 256, [3] * 256]


def test_groups_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="2 samples of groups 0 to 3; expected 2 samples of 3"):
        numbers_by_group(np.array([1, 1]), np.array([0, 3], np.uint8), 3)
    with pytest.raises(ValueError, match="1 samples of groups 0 to 0; expected 2 samples"):
        numbers_by_group(np.array([1, 1]), np.array([0], np.uint8), 3)


@given(samples)
def test_samples_of_each_group_are_counted(drawn) -> None:
    _, group = arrays(drawn)
    counts = count_groups(group, GROUPS)
    assert counts.dtype == np.int64
    assert counts.tolist() == [group.tolist().count(own) for own in range(GROUPS)]


def test_all_groups_there_can_be_are_counted_and_no_others() -> None:
    assert count_groups(np.arange(256, dtype=np.uint8), 256).tolist() == [1] * 256
    with pytest.raises(ValueError, match="3 samples of groups 0 to 2; expected 3 samples of 2"):
        count_groups(np.arange(3, dtype=np.uint8), 2)


@given(
    st.lists(st.integers(0, WORD - 1), max_size=20),
    st.integers(0, WORD - 1),
    st.sampled_from([1, 2, 32, 255]),
)
def test_samples_are_dealt_by_their_words_as_is_said(words, addend, groups) -> None:
    assert dealt(words, addend, groups) == expected_deal(words, addend, groups)


@pytest.mark.parametrize("groups", [1, 3, 255])
def test_every_group_is_dealt_about_as_many_samples(groups: int) -> None:
    counts = np.bincount(dealt(list(range(100 * groups)), 5, groups), minlength=groups)
    assert len(counts) == groups
    assert 50 < counts.min() <= counts.max() < 150


@pytest.mark.parametrize("words", [1, 3])
@pytest.mark.parametrize("compiled", [True, False])
def test_keys_get_the_number_of_their_sample_as_a_word(words: int, compiled: bool) -> None:
    positions = np.array([2, 0, 1, 4])
    keys = np.arange(7 * words, dtype=np.uint64).reshape(7, words)
    appended = np.zeros((7, words + 1), np.uint64)
    append = module.append_samples if compiled else module.append_samples.py_func
    append(keys, positions, 5, appended)
    numbers = np.repeat(np.arange(5, 9), positions)
    np.testing.assert_array_equal(appended, np.column_stack([keys, numbers]))


def test_kernels_run_as_plain_python_with_the_same_result(monkeypatch) -> None:
    counting_cases.run_as_plain_python(monkeypatch, module)
    words = [0, 1, WORD - 1, 5]
    with np.errstate(over="ignore"):
        assert dealt(words, 3, 32) == expected_deal(words, 3, 32)
    assert count_groups(np.array([2, 0, 2], np.uint8), 3).tolist() == [1, 0, 2]
    check_numbers(*arrays([(2, 1), (0, 3), (5, 0), (1, 1), (3, 0)]))
