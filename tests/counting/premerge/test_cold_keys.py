from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    absorbed,
    check_absorbed,
    mixed,
    of_each_shape,
    rows_of,
    sample_few_rows,
)
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.premerge import cold_keys as module
from tsstore.counting.premerge import hot_keys as hot
from tsstore.counting.premerge.cold_keys import absorb_hot_keys
from tsstore.counting.premerge.hot_keys import HotKeys
from tsstore.counting.records import Buffers

seeds = st.integers(0, 2**32)
all_positions = st.lists(st.integers(0, 12), max_size=12)


def random_keys(seed: int, count: int, distinct: int, words: int) -> np.ndarray:
    return mixed(np.random.default_rng(seed).integers(0, distinct, count), words, 0)


def random_groups(seed: int, count: int, groups: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, groups, count).astype(np.uint8)


@given(
    seeds,
    all_positions,
    st.integers(1, 40),
    st.sampled_from(WIDTHS),
    st.integers(0, 3),
    st.booleans(),
)
def test_hot_keys_are_absorbed_as_by_counters_and_the_others_are_left(
    seed, positions, distinct, words, groups, with_hot_keys
) -> None:
    keys = random_keys(seed, sum(positions), distinct, words)
    group = random_groups(seed, len(positions), groups) if groups else None
    with pytest.MonkeyPatch.context() as patch:
        sample_few_rows(patch, 16 if with_hot_keys else 1 << 14)
        check_absorbed(keys, np.array(positions, np.int64), group, max(groups, 1))


@of_each_shape
@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("sample_rows", [64, 1 << 14])
def test_extreme_samples_are_absorbed_as_any_others(ids, words, sample_rows, monkeypatch) -> None:
    sample_few_rows(monkeypatch, sample_rows)
    keys = mixed(ids, words)
    check_absorbed(keys, np.array([2000]))
    check_absorbed(keys, np.array([0, 500, 1, 0, 499, 1000]))
    check_absorbed(keys, np.full(1000, 2), random_groups(1, 1000, 5), 5)
    for positions in (None, np.ones(2000, np.int64)):
        check_absorbed(keys, positions, random_groups(1, 2000, 5), 5)
        check_absorbed(keys, positions, random_groups(1, 2000, 5).astype(np.uint16), 5)


@pytest.mark.parametrize("positions", [None, [], [0], [1, 0, 1, 1], [2, 0, 5]])
@pytest.mark.parametrize("grouped", [False, True])
def test_too_few_rows_to_choose_from_are_left_as_they_are(positions, grouped: bool) -> None:
    count = 4 if positions is None else sum(positions)
    samples = 4 if positions is None else len(positions)
    keys = random_keys(0, count, 2, 1)
    group = np.array([2, 0, 2, 1][:samples], np.uint8) if grouped else None
    own = None if positions is None else np.array(positions, np.int64)
    cold, taken = check_absorbed(keys, own, group, 3 if grouped else 1)
    assert taken == []
    assert cold.keys is keys
    assert cold.group is group
    assert len(cold) == count
    assert cold.group_bytes == grouped


def test_hot_keys_of_all_samples_become_one_record_a_group(monkeypatch) -> None:
    sample_few_rows(monkeypatch, 64)
    keys = mixed(np.where(np.arange(1200) % 7 == 0, np.arange(1200), 0), 2)
    for positions in (np.full(300, 4), np.ones(1200, np.int64), None):
        samples = 1200 if positions is None else len(positions)
        group = np.arange(samples, dtype=np.uint8) % 3
        cold, (records,) = check_absorbed(keys, positions, group, 3)
        of_key = (records.keys == keys[1]).all(axis=1)
        assert records.group[of_key].tolist() == [0, 1, 2]
        assert not (cold.keys == keys[1]).all(axis=1).any()


def test_samples_after_a_large_one_find_nothing_of_it(monkeypatch) -> None:
    sample_few_rows(monkeypatch, 64)
    positions = np.array([3000, 2, 1, 700, 2, 0, 5, 600])
    check_absorbed(random_keys(1, 4310, 40, 2), positions)
    check_absorbed(random_keys(1, 4310, 3, 1), positions[::-1].copy())


def test_pairs_of_one_huge_sample_go_beyond_32_bits() -> None:
    count = 200_000
    cold, taken, pairs = absorbed(np.zeros((count, 1), np.uint64), np.array([count]))
    assert pairs.tolist() == [count * (count - 1) // 2]
    assert [row for piece in taken for row in rows_of(piece)] == [((0,), count, 1, 0)]
    assert (len(cold), cold.ends.tolist()) == (0, [0])


def test_what_is_left_lies_in_buffers_until_the_next_time(monkeypatch) -> None:
    sample_few_rows(monkeypatch, 64)
    keys = mixed(np.where(np.arange(600) % 3 == 0, np.arange(600), 0), 2)
    group = (np.arange(600) % 2).astype(np.uint8)
    buffers, table = Buffers(), HotKeys(2, 2, 600)
    for positions in (None, np.ones(600, np.int64)):
        first, again = (
            absorb_hot_keys(keys, positions, table, group, buffers)[0] for _ in range(2)
        )
        assert 0 < len(first) == len(again) < 600
        assert np.shares_memory(first.keys, again.keys)
        new = absorb_hot_keys(keys, positions, table, group)[0]
        assert not np.shares_memory(first.keys, new.keys)
        assert np.array_equal(again.keys, new.keys)
        assert again.group.tolist() == new.group.tolist()
        assert not np.shares_memory(keys, new.keys)


def test_wrong_positions_are_refused() -> None:
    keys = random_keys(0, 6, 3, 1)
    with pytest.raises(ValueError, match="add up to 5; expected the number of rows, 6"):
        absorbed(keys, np.array([2, 3]))
    with pytest.raises(ValueError, match="-1 to 7 positions"):
        absorbed(keys, np.array([-1, 7]))
    with pytest.raises(ValueError, match="0 to 2147483648 positions; expected 0 to 2147483647"):
        absorbed(keys, np.array([2**31]))


def test_groups_that_are_not_there_are_refused() -> None:
    keys = random_keys(0, 3, 3, 1)
    with pytest.raises(ValueError, match="groups 0 to 2; expected 2 samples of 2 groups"):
        absorbed(keys, np.array([2, 1]), np.array([0, 2], np.uint8), 2)
    with pytest.raises(ValueError, match="1 samples of groups 0 to 0; expected 2 samples"):
        absorbed(keys, np.array([2, 1]), np.zeros(1, np.uint8), 2)
    with pytest.raises(ValueError, match="2 samples of groups 0 to 0; expected 3 samples"):
        absorbed(keys, None, np.zeros(2, np.uint8), 2)
    with pytest.raises(ValueError, match="add up to 2"):
        absorbed(keys, np.array([1, 1]), np.zeros(2, np.uint8), 2)


@pytest.mark.parametrize("hot_rows", [0, 4, 60])
@pytest.mark.parametrize("distinct", [1, 8, 60, 120])
def test_nothing_is_written_beyond_the_room_there_is(distinct, hot_rows, monkeypatch) -> None:
    sample_few_rows(monkeypatch, 32)
    # Unlike compiled loops, plain Python says so.
    counting_cases.run_as_plain_python(monkeypatch, module, hot)
    ids = np.where(np.arange(120) % 60 < hot_rows, 0, np.arange(120) % distinct)
    group = np.arange(120, dtype=np.uint8)
    for count in (1, 2, 3, 60, 120):
        positions, own = np.full(120 // count, count), group[: 120 // count]
        check_absorbed(mixed(ids, 1), positions)
        check_absorbed(mixed(np.sort(ids), 2), positions, own, 120)
    check_absorbed(mixed(ids, 2), None, group, 120)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("groups", [0, 2])
def test_kernels_run_as_plain_python_with_the_same_result(words, groups, monkeypatch) -> None:
    sample_few_rows(monkeypatch, 32)
    ids = np.where(np.arange(100) % 3 == 0, np.arange(100), 0)
    keys, positions = mixed(ids, words), np.array([30, 0, 1, 9, 60])
    group = np.arange(100, dtype=np.uint8) % 2 if groups else None
    cases = (positions, None if group is None else group[:5]), (None, group)
    compiled = [check_absorbed(keys, *case, groups or 1) for case in cases]
    counting_cases.run_as_plain_python(monkeypatch, module, hot)
    plain = [check_absorbed(keys, *case, groups or 1) for case in cases]
    for (cold, taken), (other, others) in zip(plain, compiled, strict=True):
        assert 0 < len(cold) < 100
        assert np.array_equal(cold.keys, other.keys)
        assert list(map(rows_of, taken)) == list(map(rows_of, others))
