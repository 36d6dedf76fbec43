from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    check_merged,
    crafted,
    merged,
    mixed,
    of_each_shape,
    rows_of,
    sample_few_rows,
)
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.premerge import hot_keys as hot
from tsstore.counting.premerge import within_samples as module
from tsstore.counting.premerge.within_samples import merge_bytes
from tsstore.counting.records import Buffers
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)
all_positions = st.lists(st.integers(0, 12), max_size=12)


def random_keys(seed: int, count: int, distinct: int, words: int) -> np.ndarray:
    return mixed(np.random.default_rng(seed).integers(0, distinct, count), words)


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
def test_samples_are_merged_as_by_counters(
    seed, positions, distinct, words, groups, with_hot_keys
) -> None:
    keys = random_keys(seed, sum(positions), distinct, words)
    group = random_groups(seed, len(positions), groups) if groups else None
    with pytest.MonkeyPatch.context() as patch:
        sample_few_rows(patch, 16 if with_hot_keys else 1 << 14)
        check_merged(keys, np.array(positions, np.int64), group, max(groups, 1))


@of_each_shape
@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("sample_rows", [64, 1 << 14])
def test_extreme_samples_are_merged_as_any_others(ids, words, sample_rows, monkeypatch) -> None:
    sample_few_rows(monkeypatch, sample_rows)
    keys = mixed(ids, words)
    check_merged(keys, np.array([2000]))
    check_merged(keys, np.array([0, 500, 1, 0, 499, 1000]))
    check_merged(keys, np.full(1000, 2), random_groups(1, 1000, 5), 5)
    check_merged(keys, np.ones(2000, np.int64), random_groups(1, 2000, 5), 5)


@pytest.mark.parametrize("words", WIDTHS)
def test_a_sample_has_one_record_of_each_key_and_bare_ones_come_first(words: int) -> None:
    keys = random_keys(1, 900, 500, words)
    bare, others = check_merged(keys, np.array([600, 300]))
    assert bare.is_bare
    assert set(others.incidence.tolist()) == {1}
    assert min(others.multiplicity.tolist()) == 2
    assert len(bare) + len(others) == sum(
        len(np.unique(part, axis=0)) for part in (keys[:600], keys[600:])
    )


def test_equal_keys_of_different_samples_stay_apart() -> None:
    keys = mixed(np.zeros(9, np.int64), 2)
    bare, others = check_merged(keys, np.array([2, 0, 3, 4]))
    assert len(bare) == 0
    assert others.multiplicity.tolist() == [2, 3, 4]
    assert others.incidence.tolist() == [1, 1, 1]


def test_keys_that_differ_in_a_later_word_alone_stay_apart() -> None:
    for words in (2, 3, 5):
        keys = np.zeros((4, words), np.uint64)
        keys[1, words - 1] = keys[2, 1] = 1
        check_merged(keys, np.array([4]))
        check_merged(np.concatenate([keys, keys[:2]]), np.array([3, 3]))


@pytest.mark.parametrize("positions", [[], [0], [1, 0, 1, 1]])
@pytest.mark.parametrize("grouped", [False, True])
def test_samples_of_one_position_are_bare_records(positions: list[int], grouped: bool) -> None:
    keys = random_keys(0, sum(positions), 2, 1)
    group = np.array([2, 0, 2, 1][: len(positions)], np.uint8) if grouped else None
    (piece,) = check_merged(keys, np.array(positions, np.int64), group, 3 if grouped else 1)
    assert piece.is_bare
    assert np.array_equal(piece.keys, keys)
    if grouped:
        assert piece.group.tolist() == np.repeat(group, positions).tolist()


def test_hot_keys_of_all_samples_become_one_record_a_group(monkeypatch) -> None:
    sample_few_rows(monkeypatch, 64)
    keys = mixed(np.where(np.arange(1200) % 7 == 0, np.arange(1200), 0), 2)
    for positions in (np.full(300, 4), np.ones(1200, np.int64)):
        group = np.arange(len(positions), dtype=np.uint8) % 3
        records = check_merged(keys, positions, group, 3)[-1]
        of_key = (records.keys == keys[1]).all(axis=1)
        assert records.group[of_key].tolist() == [0, 1, 2]


def test_small_samples_after_a_large_one_find_a_clean_table() -> None:
    positions = np.array([3000, 2, 1, 700, 2, 0, 5, 600])
    check_merged(random_keys(1, 4310, 800, 2), positions)
    check_merged(random_keys(1, 4310, 3, 1), positions[::-1].copy())


def test_one_mark_for_all_rows_leaves_the_result_as_it_is() -> None:
    keys = random_keys(2, 3000, 2000, 2)
    keys[:, 0] &= np.uint64((1 << 20) - 1)  # no bit of those that choose a mark
    bare, others = check_merged(keys, np.array([1500, 1, 1499]))
    assert len(bare) > len(others) > 0


def test_pairs_of_one_huge_sample_go_beyond_32_bits() -> None:
    count = 200_000
    pieces, pairs = merged(np.zeros((count, 1), np.uint64), np.array([count]))
    assert pairs.tolist() == [count * (count - 1) // 2]
    assert [row for piece in pieces for row in rows_of(piece)] == [((0,), count, 1, 0)]


def test_one_huge_sample_of_many_keys_is_merged_as_any_other() -> None:
    check_merged(random_keys(5, 70_000, 40_000, 1), np.array([70_000]))


def test_wrong_positions_are_refused() -> None:
    keys = random_keys(0, 6, 3, 1)
    with pytest.raises(ValueError, match="add up to 5; expected the number of rows, 6"):
        merged(keys, np.array([2, 3]))
    with pytest.raises(ValueError, match="-1 to 7 positions"):
        merged(keys, np.array([-1, 7]))
    with pytest.raises(ValueError, match="0 to 2147483648 positions; expected 0 to 2147483647"):
        merged(keys, np.array([2**31]))


def test_groups_that_are_not_there_are_refused() -> None:
    keys = random_keys(0, 3, 3, 1)
    with pytest.raises(ValueError, match="groups 0 to 2; expected 2 samples of 2 groups"):
        merged(keys, np.array([2, 1]), np.array([0, 2], np.uint8), 2)
    with pytest.raises(ValueError, match="1 samples of groups 0 to 0; expected 2 samples"):
        merged(keys, np.array([2, 1]), np.zeros(1, np.uint8), 2)
    with pytest.raises(ValueError, match="add up to 2"):
        merged(keys, np.array([1, 1]), np.zeros(2, np.uint8), 2)


@pytest.mark.parametrize("words", WIDTHS)
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    keys = np.repeat(crafted(5000, words), 2, axis=0)
    with pytest.raises(CountingError, match="another seed"):
        merged(keys, np.array([10_000]))


def test_bytes_are_those_of_the_tables_of_one_sample() -> None:
    largest = 1000
    marks, slots = 1 << 15, 2048
    assert merge_bytes(3, largest) == 4 * marks + 4 * slots + largest * (3 * 24 + 16)
    assert merge_bytes(1, 10**6) - merge_bytes(1, 10**6 - 1) == 40
    assert merge_bytes(1, 1) == 4 * (1 << 12) + 4 * 2 + 40
    buffers = Buffers()
    work = module._workspace(largest, 3, buffers)
    assert sum(array.nbytes for array in work) == merge_bytes(3, largest)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("groups", [0, 2])
def test_kernels_run_as_plain_python_with_the_same_result(words, groups, monkeypatch) -> None:
    positions = np.array([30, 0, 1, 9, 60])
    keys = random_keys(5, 100, 30, words)
    group = np.array([1, 0, 1, 0, 1], np.uint8) if groups else None
    compiled = [rows_of(piece) for piece in check_merged(keys, positions, group, groups or 1)]
    counting_cases.run_as_plain_python(monkeypatch, module, hot)
    plain = [rows_of(piece) for piece in check_merged(keys, positions, group, groups or 1)]
    assert plain == compiled
    monkeypatch.setattr(module, "PROBE_LIMIT", 3)
    with pytest.raises(CountingError, match="another seed"):
        merged(np.repeat(crafted(5, words), 2, axis=0), np.array([10]))


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
        check_merged(mixed(ids, 1), positions)
        check_merged(mixed(np.sort(ids), 2), positions, own, 120)
