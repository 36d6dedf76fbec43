from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import merge as module
from tsstore.counting.merge import (
    merge_records,
    merge_samples,
    merge_samples_by_group,
    merging_pays,
)
from tsstore.counting.records import Records
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)
all_positions = st.lists(st.integers(0, 12), max_size=12)


def mixed(ids: np.ndarray, words: int) -> np.ndarray:
    """Keys of which every distinct id has its own, of bits that look random."""
    keys = np.random.default_rng(7).integers(
        0, 2**64, (int(ids.max(initial=0)) + 1, words), np.uint64
    )
    return keys[ids]


def random_keys(seed: int, count: int, distinct: int, words: int) -> np.ndarray:
    return mixed(np.random.default_rng(seed).integers(0, distinct, count), words)


def crafted(count: int, words: int = 1) -> np.ndarray:
    """Distinct keys whose low bits are all the same."""
    keys = np.zeros((count, words), np.uint64)
    keys[:, 0] = np.arange(count, dtype=np.uint64) << np.uint64(40)
    return keys


def merged_samples(keys: np.ndarray, positions: list[int]) -> tuple[list, list, int]:
    """What merge_samples is to return, by dictionaries."""
    rows = list(map(tuple, keys.tolist()))
    merged, multiplicity, pairs, start = [], [], 0, 0
    for count in positions:
        sample = Counter(rows[start : start + count])
        merged += list(sample)
        multiplicity += list(sample.values())
        pairs += sum(m * (m - 1) // 2 for m in sample.values())
        start += count
    return merged, multiplicity, pairs


def merged_records(records: Records) -> dict[tuple, tuple[int, int]]:
    """What merge_records is to return, by a dictionary, which is in order of first appearance."""
    totals: dict[tuple, tuple[int, int]] = {}
    rows = zip(
        records.keys.tolist(),
        records.multiplicity.tolist(),
        records.incidence.tolist(),
        strict=True,
    )
    for key, multiplicity, incidence in rows:
        k, q = totals.get(tuple(key), (0, 0))
        totals[tuple(key)] = (k + multiplicity, q + incidence)
    return totals


def assert_merged(records: Records) -> None:
    merged, expected = merge_records(records), merged_records(records)
    assert list(map(tuple, merged.keys.tolist())) == list(expected)
    counts = zip(merged.multiplicity.tolist(), merged.incidence.tolist(), strict=True)
    assert list(counts) == list(expected.values())


def run_as_plain_python(monkeypatch) -> None:
    for name in ("_find", "_index", "_merge_samples", "_merge_records"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)


@settings(deadline=None)
@given(seeds, all_positions, st.integers(1, 20), st.sampled_from([1, 2]))
def test_a_sample_has_one_record_for_each_of_its_keys(seed, positions, distinct, words) -> None:
    keys = random_keys(seed, sum(positions), distinct, words)
    records, pairs = merge_samples(keys, np.array(positions, np.int64))
    merged, multiplicity, expected_pairs = merged_samples(keys, positions)
    assert list(map(tuple, records.keys.tolist())) == merged
    assert records.multiplicity.tolist() == multiplicity
    assert set(records.incidence.tolist()) <= {1}
    assert (pairs, type(pairs)) == (expected_pairs, int)
    assert records.rows == len(keys)


@settings(deadline=None)
@given(seeds, all_positions, st.integers(1, 20), st.sampled_from([1, 2]), st.integers(1, 5))
def test_samples_by_group_are_merged_as_those_of_each_group_alone(
    seed, positions, distinct, words, groups
) -> None:
    keys = random_keys(seed, sum(positions), distinct, words)
    group = np.random.default_rng(seed).integers(0, groups, len(positions)).astype(np.uint8)
    found, pairs = merge_samples_by_group(keys, np.array(positions, np.int64), group, groups)
    assert pairs.dtype == np.int64
    row_group = np.repeat(group, positions)
    assert found.group.tolist() == sorted(found.group.tolist())
    for own in range(groups):
        own_positions = np.array(positions, np.int64)[group == own]
        expected, expected_pairs = merge_samples(keys[row_group == own], own_positions)
        part = found.group == own
        assert np.array_equal(found.keys[part], expected.keys)
        assert np.array_equal(found.multiplicity[part], expected.multiplicity)
        assert np.array_equal(found.incidence[part], expected.incidence)
        assert pairs[own] == expected_pairs


@pytest.mark.parametrize("positions", [[], [0], [1, 0, 1, 1]])
def test_samples_of_one_position_are_put_in_order_of_their_groups(positions: list[int]) -> None:
    keys = random_keys(0, sum(positions), 50, 2)
    group = np.array([2, 0, 2, 1][: len(positions)], np.uint8)
    records, pairs = merge_samples_by_group(keys, np.array(positions, np.int64), group, 3)
    order = np.argsort(np.repeat(group, positions), kind="stable")
    assert np.array_equal(records.keys, keys[order])
    assert records.group.tolist() == sorted(np.repeat(group, positions).tolist())
    assert pairs.tolist() == [0, 0, 0]


def test_records_are_merged_within_each_run_of_a_group_only() -> None:
    keys = mixed(np.array([1, 1, 2, 1, 1, 1, 2]), 1)
    group = np.array([0, 0, 0, 1, 1, 0, 0], np.uint8)
    merged = merge_records(Records.bare(keys, group))
    assert merged.group.tolist() == [0, 0, 1, 0, 0]
    assert merged.multiplicity.tolist() == [2, 1, 2, 1, 1]
    assert merged.incidence.tolist() == [2, 1, 2, 1, 1]
    assert merged.keys.tolist() == keys[[0, 2, 3, 5, 6]].tolist()
    assert len(merge_records(Records.bare(keys[:0], group[:0]))) == 0


@settings(deadline=None)
@given(seeds, st.integers(0, 3000), st.integers(1, 900), st.sampled_from([1, 2]))
def test_runs_of_groups_merge_as_each_alone(seed, count, distinct, words) -> None:
    keys = random_keys(seed, count, distinct, words)
    group = np.sort(np.random.default_rng(seed).integers(0, 4, count)).astype(np.uint8)
    merged = merge_records(Records.bare(keys, group))
    for own in range(4):
        expected = merge_records(Records.bare(keys[group == own]))
        part = merged.group == own
        assert np.array_equal(merged.keys[part], expected.keys)
        assert np.array_equal(merged.multiplicity[part], expected.multiplicity)
        assert np.array_equal(merged.incidence[part], expected.incidence)


def test_groups_that_are_not_there_are_refused() -> None:
    keys = random_keys(0, 3, 3, 1)
    with pytest.raises(ValueError, match=r"groups 0 to 2; expected 2 samples of 2 groups"):
        merge_samples_by_group(keys, np.array([2, 1]), np.array([0, 2], np.uint8), 2)
    with pytest.raises(ValueError, match="1 samples of groups 0 to 0; expected 2 samples"):
        merge_samples_by_group(keys, np.array([2, 1]), np.zeros(1, np.uint8), 2)
    with pytest.raises(ValueError, match="add up to 2"):
        merge_samples_by_group(keys, np.array([1, 1]), np.zeros(2, np.uint8), 2)


@pytest.mark.parametrize("words", [1, 2])
def test_equal_keys_of_different_samples_stay_apart(words: int) -> None:
    keys = mixed(np.zeros(9, np.int64), words)
    records, pairs = merge_samples(keys, np.array([2, 0, 3, 4]))
    assert records.multiplicity.tolist() == [2, 3, 4]
    assert records.incidence.tolist() == [1, 1, 1]
    assert pairs == 1 + 3 + 6


def test_keys_that_differ_in_their_second_word_alone_stay_apart() -> None:
    keys = np.array([[5, 1], [5, 2], [5, 1]], np.uint64)
    records, pairs = merge_samples(keys, np.array([3]))
    assert records.keys.tolist() == [[5, 1], [5, 2]]
    assert pairs == 1
    assert_merged(Records.bare(keys))


@pytest.mark.parametrize("positions", [[], [0], [1, 0, 1, 1]])
def test_samples_of_one_position_are_bare_records(positions: list[int]) -> None:
    keys = random_keys(0, sum(positions), 2, 1)
    records, pairs = merge_samples(keys, np.array(positions, np.int64))
    assert np.array_equal(records.keys, keys)
    assert records.rows == len(keys)
    assert pairs == 0


def test_small_samples_after_a_large_one_find_a_clean_table() -> None:
    positions = [3000, 2, 1, 700, 2, 0, 5]
    keys = random_keys(1, sum(positions), 800, 2)
    records, pairs = merge_samples(keys, np.array(positions))
    merged, multiplicity, expected_pairs = merged_samples(keys, positions)
    assert list(map(tuple, records.keys.tolist())) == merged
    assert records.multiplicity.tolist() == multiplicity
    assert pairs == expected_pairs


def test_pairs_of_a_large_sample_do_not_overflow_32_bits() -> None:
    count = 200_000
    records, pairs = merge_samples(np.zeros((count, 1), np.uint64), np.array([count]))
    assert pairs == count * (count - 1) // 2
    assert records.multiplicity.tolist() == [count]


def test_wrong_positions_are_refused() -> None:
    keys = random_keys(0, 6, 3, 1)
    with pytest.raises(ValueError, match="add up to 5; expected the number of keys, 6"):
        merge_samples(keys, np.array([2, 3]))
    with pytest.raises(ValueError, match="-1 to 7 positions"):
        merge_samples(keys, np.array([-1, 7]))
    with pytest.raises(ValueError, match="expected 0 to 2147483648"):
        merge_samples(keys, np.array([2**31 + 1]))


@settings(deadline=None)
@given(seeds, st.integers(0, 200), st.integers(1, 60), st.sampled_from([1, 2]))
def test_equal_keys_become_one_record_with_summed_counts(seed, count, distinct, words) -> None:
    incidence = np.random.default_rng(seed).integers(1, 9, count).astype(np.uint32)
    keys = random_keys(seed, count, distinct, words)
    records = Records(keys, incidence * np.uint32(3), incidence)
    assert_merged(records)
    assert merge_records(records).rows == records.rows


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize(
    "ids",
    [
        np.zeros(3000, np.int64),
        np.arange(3000),
        np.arange(3000) % 2,
        np.sort(np.arange(3000) % 1000),
        np.where(np.arange(3000) % 100 == 0, np.arange(3000), 0),
    ],
    ids=["all equal", "all distinct", "two states", "sorted", "one state 99 %"],
)
def test_extreme_blocks_merge_as_any_other(ids: np.ndarray, words: int) -> None:
    keys = mixed(ids, words)
    assert_merged(Records.bare(keys))
    records, _ = merge_samples(keys, np.array([1000, 2000]))
    assert records.keys.tolist() == [list(key) for key in merged_samples(keys, [1000, 2000])[0]]
    assert_merged(records)


def test_keys_of_one_partition_merge_as_any_others() -> None:
    keys = random_keys(3, 20_000, 9_000, 1) >> np.uint64(30)
    assert_merged(Records.bare(keys))


def test_a_sum_beyond_32_bits_goes_on_in_another_record() -> None:
    most = 2**32 - 1
    keys = np.array([[4], [9], [4], [4], [4]], np.uint64)
    multiplicity = np.array([most - 1, 5, 1, 1, 6], np.uint32)
    merged = merge_records(Records(keys, multiplicity, np.ones(5, np.uint32)))
    assert merged.keys.tolist() == [[4], [9], [4]]
    assert merged.multiplicity.tolist() == [most, 5, 7]
    assert merged.incidence.tolist() == [2, 1, 2]


@pytest.mark.parametrize("words", [1, 2])
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    keys = crafted(5000, words)
    with pytest.raises(CountingError, match="another seed"):
        merge_records(Records.bare(keys))
    with pytest.raises(CountingError, match="another seed"):
        merge_samples(keys, np.array([5000]))


def test_merging_pays_where_keys_repeat_and_not_where_they_do_not() -> None:
    count = 40_000
    few = Records.bare(random_keys(0, count, 500, 1))
    hot = Records.bare(mixed(np.where(np.arange(count) % 2 == 0, np.arange(count), 0), 2))
    distinct = Records.bare(mixed(np.arange(count), 1))
    assert merging_pays(few, 4096)
    assert merging_pays(hot, 4096)
    assert not merging_pays(distinct, 4096)
    assert [merging_pays(distinct, 4096) for _ in range(3)] == [False] * 3


def test_merging_pays_looks_at_all_parts_of_a_block() -> None:
    count = 40_000
    ids = np.arange(count)
    half = np.where(ids < count // 2, ids, 0)
    assert merging_pays(Records.bare(mixed(half, 1)), 4096)
    assert merging_pays(Records.bare(mixed(half[::-1].copy(), 1)), 4096)


def test_merging_pays_says_yes_to_what_is_not_worth_a_sample() -> None:
    distinct = Records.bare(mixed(np.arange(100), 1))
    assert merging_pays(Records.empty(2))
    assert merging_pays(distinct, 100)
    assert not merging_pays(distinct, 99)
    assert not merging_pays(distinct, 3)


@pytest.mark.parametrize("words", [1, 2])
def test_kernels_run_as_plain_python_with_the_same_result(words: int, monkeypatch) -> None:
    positions = np.array([30, 0, 1, 9])
    keys = random_keys(5, 40, 12, words)
    records, pairs = merge_samples(keys, positions)
    group = np.array([1, 0, 1, 0], np.uint8)
    by_group, pairs_by_group = merge_samples_by_group(keys, positions, group, 2)
    many = Records.bare(random_keys(6, 1200, 700, words), (np.arange(1200) // 900).astype(np.uint8))
    merged = merge_records(many)
    run_as_plain_python(monkeypatch)
    plain, plain_pairs = merge_samples(keys, positions)
    plain_by_group, plain_pairs_by_group = merge_samples_by_group(keys, positions, group, 2)
    plain_merged = merge_records(many)
    assert pairs_by_group.tolist() == plain_pairs_by_group.tolist()
    assert by_group.group.tolist() == plain_by_group.group.tolist()
    assert merged.group.tolist() == plain_merged.group.tolist()
    for one, other in ((records, plain), (merged, plain_merged), (by_group, plain_by_group)):
        assert np.array_equal(one.keys, other.keys)
        assert np.array_equal(one.multiplicity, other.multiplicity)
        assert np.array_equal(one.incidence, other.incidence)
    assert pairs == plain_pairs
    monkeypatch.setattr(module, "PROBE_LIMIT", 3)
    with pytest.raises(CountingError, match="another seed"):
        merge_records(Records.bare(crafted(4, words)))
