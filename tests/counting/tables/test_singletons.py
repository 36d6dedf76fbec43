from __future__ import annotations

from collections import Counter

import counting_cases
import numpy as np
import pytest
from counting_cases import WIDTHS, crafted, mixed, random_records, rows_of
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.records import Records
from tsstore.counting.tables import singletons as module
from tsstore.counting.tables.singletons import PAYS_FROM, SingletonFilter


def check_parted(
    filtered: SingletonFilter, bare: Records, others: Records, groups: int = 0
) -> list[tuple]:
    """Check that only keys that occur once are settled; return the rows that are left."""
    before = filtered.settled.copy()
    left = rows_of(filtered.settle(bare, others))
    settled = Counter(rows_of(bare)) - Counter(left)
    times = Counter(key for key, *_ in rows_of(bare) + rows_of(others))
    assert all(times[key] == 1 for key, *_ in settled)
    by_group = Counter(group for *_, group in settled)
    told = (filtered.settled - before).tolist()
    assert told == [by_group[group] for group in range(max(groups, 1))]
    assert left == [row for row in rows_of(bare) if row not in settled]
    return left


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 150), min_size=1, max_size=4),
    st.integers(0, 40),
    st.integers(1, 400),
    st.sampled_from(WIDTHS),
    st.integers(0, 3),
)
def test_what_is_settled_occurs_once_and_the_rest_keeps_its_order(
    seed, counts, others, distinct, words, groups
) -> None:
    filtered = SingletonFilter(words, groups)
    for number, count in enumerate(counts):
        bare = random_records(seed + number, count, distinct, words, bare=True, groups=groups)
        check_parted(
            filtered, bare, random_records(seed, others, distinct, words, groups=groups), groups
        )
        assert filtered.settled.dtype == np.int64


@pytest.mark.parametrize("words", WIDTHS)
def test_most_keys_that_occur_once_are_settled(words: int) -> None:
    bare = Records(mixed(np.arange(4000), words))
    left = check_parted(SingletonFilter(words), bare, Records.empty(words, bare=False))
    assert len(left) < 0.3 * len(bare)


@pytest.mark.parametrize("times", [2, 3, 7, 8, 9, 255, 256, 257, 1000])
def test_keys_that_occur_often_are_left_however_often(times: int) -> None:
    keys = mixed(np.repeat(np.arange(5), times), 1)
    filtered = SingletonFilter(1)
    check_parted(filtered, Records(keys), Records.empty(1, bare=False))
    assert filtered.settled.tolist() == [0]
    ones = np.ones(times, np.uint32)
    others = Records(keys[:times], ones, ones)
    assert len(check_parted(filtered, Records(keys[:1]), others)) == 1


def test_keys_of_others_are_never_settled() -> None:
    keys = mixed(np.arange(100), 2)
    ones = np.ones(50, np.uint32)
    left = check_parted(SingletonFilter(2), Records(keys), Records(keys[:50], ones, ones))
    assert {key for key, *_ in left} >= set(map(tuple, keys[:50].tolist()))


def test_crafted_keys_are_left_and_distinct_keys_of_zeros_settled() -> None:
    filtered = SingletonFilter(1)
    none = Records.empty(1, bare=False)
    assert len(check_parted(filtered, Records(crafted(100, 1)), none)) == 100
    assert check_parted(filtered, Records(np.zeros((1, 1), np.uint64)), none) == []
    assert check_parted(filtered, Records.empty(1), none) == []
    assert filtered.settled.tolist() == [1]


def test_smaller_shares_after_a_large_one_find_clean_marks_and_room() -> None:
    filtered = SingletonFilter(3, 2)
    none = Records.empty(3, bare=False, group_bytes=1)
    for count in (1000, 10, 1001, 1, 2500):
        bare = random_records(count, count, 2 * count, 3, bare=True, groups=2)
        check_parted(filtered, bare, none, 2)


def test_whether_it_pays_is_learnt_from_the_last_share() -> None:
    filtered = SingletonFilter(1)
    assert filtered.pays
    assert 0.5 < PAYS_FROM < 1
    filtered.learn(50, 100)
    assert not filtered.pays
    bare = Records(mixed(np.arange(100), 1))
    assert filtered.settle(bare, Records.empty(1, bare=False)) is bare
    assert filtered.settled.tolist() == [0]
    filtered.learn(99, 100)
    assert filtered.pays
    assert filtered.settle(bare, Records.empty(1, bare=False)) is not bare


@pytest.mark.parametrize("groups", [0, 2])
def test_a_partition_begins_with_nothing_settled_but_what_was_learnt(groups: int) -> None:
    filtered = SingletonFilter(2, groups)
    none = Records.empty(2, bare=False, group_bytes=int(groups > 0))
    bare = random_records(1, 400, 4000, 2, bare=True, groups=groups)
    for pays in (True, False, True):
        check_parted(filtered, bare, none, groups)
        filtered.learn(100 * pays, 100)
        filtered.begin()
        assert filtered.settled.tolist() == [0] * max(groups, 1)
        assert filtered.pays == pays


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("groups", [0, 3])
def test_kernels_run_as_plain_python_with_the_same_result(words, groups, monkeypatch) -> None:
    bare = random_records(1, 300, 400, words, bare=True, groups=groups)
    others = random_records(2, 20, 400, words, groups=groups)
    compiled, plain = SingletonFilter(words, groups), SingletonFilter(words, groups)
    left = check_parted(compiled, bare, others, groups)
    counting_cases.run_as_plain_python(monkeypatch, module)
    assert check_parted(plain, bare, others, groups) == left
    assert plain.settled.tolist() == compiled.settled.tolist()
    assert plain.settled.sum() > 0
