from __future__ import annotations

from collections import Counter

import counting_cases
import numpy as np
import pytest
from counting_cases import WIDTHS, crafted, mixed, random_records, rows_of
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.hashing import width_of
from tsstore.counting.records import Records
from tsstore.counting.tables import singletons as module


def settle(bare: Records, others: Records, groups: int = 0) -> tuple[Records, np.ndarray]:
    """Return the records that are left, and how many singletons of each group are settled."""
    marks = np.full(module.marks_for(len(bare)), 9, np.uint8)  # what others have left
    settled = np.zeros(max(groups, 1), np.int64)
    left = Records.empty(bare.words, True, bare.group_bytes, len(bare))
    count = module.settle(
        bare.keys, bare.group, others.keys, marks, left.keys, left.group, settled,
        width_of(left.keys),
    )  # fmt: skip
    return left[:count], settled


def check_parted(bare: Records, others: Records, groups: int = 0) -> list[tuple]:
    """Check that only keys that occur once are settled; return the rows that are left."""
    remaining, told = settle(bare, others, groups)
    left = rows_of(remaining)
    settled = Counter(rows_of(bare)) - Counter(left)
    times = Counter(key for key, *_ in rows_of(bare) + rows_of(others))
    assert all(times[key] == 1 for key, *_ in settled)
    by_group = Counter(group for *_, group in settled)
    assert told.tolist() == [by_group[group] * (groups > 0) for group in range(max(groups, 1))]
    assert left == [row for row in rows_of(bare) if row not in settled]
    return left


@given(
    st.integers(0, 2**32),
    st.integers(0, 150),
    st.integers(0, 40),
    st.integers(1, 400),
    st.sampled_from(WIDTHS),
    st.integers(0, 3),
)
def test_what_is_settled_occurs_once_and_the_rest_keeps_its_order(
    seed, count, others, distinct, words, groups
) -> None:
    bare = random_records(seed + 1, count, distinct, words, bare=True, groups=groups)
    check_parted(bare, random_records(seed, others, distinct, words, groups=groups), groups)


@pytest.mark.parametrize("words", WIDTHS)
def test_most_keys_that_occur_once_are_settled(words: int) -> None:
    bare = Records(mixed(np.arange(4000), words))
    left = check_parted(bare, Records.empty(words, bare=False))
    assert len(left) < 0.3 * len(bare)


@pytest.mark.parametrize("times", [2, 3, 7, 8, 9, 255, 256, 257, 1000])
def test_keys_that_occur_often_are_left_however_often(times: int) -> None:
    keys = mixed(np.repeat(np.arange(5), times), 1)
    assert len(check_parted(Records(keys), Records.empty(1, bare=False))) == len(keys)
    ones = np.ones(times, np.uint32)
    others = Records(keys[:times], ones, ones)
    assert len(check_parted(Records(keys[:1]), others)) == 1


def test_keys_of_others_are_never_settled() -> None:
    keys = mixed(np.arange(100), 2)
    ones = np.ones(50, np.uint32)
    left = check_parted(Records(keys), Records(keys[:50], ones, ones))
    assert {key for key, *_ in left} >= set(map(tuple, keys[:50].tolist()))


def test_crafted_keys_are_left_and_distinct_keys_of_zeros_settled() -> None:
    none = Records.empty(1, bare=False)
    assert len(check_parted(Records(crafted(100, 1)), none)) == 100
    assert check_parted(Records(np.zeros((1, 1), np.uint64)), none) == []
    assert check_parted(Records.empty(1), none) == []


def test_there_are_more_marks_than_four_times_the_keys_and_no_more_than_eight() -> None:
    for keys in (0, 1, 2, 3, 4, 1000, 1 << 17, (1 << 17) + 1):
        marks = module.marks_for(keys)
        assert marks & (marks - 1) == 0
        assert 4 * keys < marks <= max(8 * keys, 1)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("groups", [0, 3])
def test_kernels_run_as_plain_python_with_the_same_result(words, groups, monkeypatch) -> None:
    bare = random_records(1, 300, 400, words, bare=True, groups=groups)
    others = random_records(2, 20, 400, words, groups=groups)
    left, settled = settle(bare, others, groups)
    counting_cases.run_as_plain_python(monkeypatch, module)
    assert check_parted(bare, others, groups) == rows_of(left)
    assert settle(bare, others, groups)[1].tolist() == settled.tolist()
    assert len(left) < 300
