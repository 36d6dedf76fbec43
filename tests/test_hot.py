from __future__ import annotations

from collections import Counter

import counting_cases
import numpy as np
import pytest
from counting_cases import WIDTHS, mixed, rows_of, totals, totals_by_group
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting import hot as module
from tsstore.counting.hot import hot_bytes, merge_hot_rows, merge_hot_samples
from tsstore.counting.records import Records


@pytest.fixture(autouse=True)
def small_samples(monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 16)


def skewed(seed: int, count: int, hot: int, share: float) -> np.ndarray:
    """Numbers of keys: so many hot ones make up a share, the others occur once or so."""
    generator = np.random.default_rng(seed)
    others = generator.integers(hot, hot + 10 * count, count)
    return np.where(generator.random(count) < share, generator.integers(0, hot, count), others)


def check_rows(keys: np.ndarray, group: np.ndarray | None = None, groups: int = 1) -> int:
    """Check that nothing is lost and cold rows keep their order; return how many rows are hot."""
    given_records = Records(keys, group=group)
    cold, *hot = merge_hot_rows(given_records, groups)
    assert totals_by_group([cold, *hot]) == totals_by_group([given_records])
    assert cold.is_bare
    rows = rows_of(given_records)
    if not hot:
        assert cold is given_records
        return 0
    (piece,) = hot
    assert not piece.is_bare
    assert (piece.group is None) == (group is None)
    hot_keys = {(key, own) for key, _, _, own in rows_of(piece)}
    assert len(hot_keys) == len(piece)
    absorbed = {key for key, _ in hot_keys}
    assert rows_of(cold) == [row for row in rows if row[0] not in absorbed]
    return piece.rows


def merged_samples(keys: np.ndarray, positions: np.ndarray, group: np.ndarray) -> tuple:
    """Rows, samples and pairs of each key, sample by sample, by dictionaries."""
    rows, samples, pairs, start = Counter(), Counter(), Counter(), 0
    for count, own in zip(positions.tolist(), group.tolist(), strict=True):
        of_sample = Counter(map(tuple, keys[start : start + count].tolist()))
        start += count
        for key, times in of_sample.items():
            rows[key, own] += times
            samples[key, own] += 1
            pairs[key, own] += times * (times - 1) // 2
    return rows, samples, pairs


def check_samples(
    keys: np.ndarray, positions: np.ndarray, group: np.ndarray | None = None, groups: int = 1
) -> int:
    """Check what is hot against dictionaries, and what is left; return how many rows are hot."""
    equal_pairs = np.full(groups, 5, np.int64)
    cold, cold_positions, hot = merge_hot_samples(keys, positions, group, equal_pairs)
    if not hot:
        assert cold is keys
        assert cold_positions is positions
        assert equal_pairs.tolist() == [5] * groups
        return 0
    (piece,) = hot
    own = np.zeros(len(positions), np.uint8) if group is None else group
    rows, samples, pairs = merged_samples(keys, positions, own)
    found = totals_by_group(hot)
    assert len(found) == len(piece)
    assert found == {place: (rows[place], samples[place]) for place in found}
    expected_pairs = [5] * groups
    for key, of_group in found:
        expected_pairs[of_group] += pairs[key, of_group]
    assert equal_pairs.tolist() == expected_pairs
    absorbed = {key for key, _ in found}
    left = [key not in absorbed for key in map(tuple, keys.tolist())]
    assert np.array_equal(cold, keys[left])
    sample_of_row = np.repeat(np.arange(len(positions)), positions)
    kept = np.bincount(sample_of_row[left], minlength=len(positions))
    assert cold_positions.tolist() == kept.tolist()
    return piece.rows


@given(
    st.integers(0, 2**32),
    st.integers(0, 300),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from(WIDTHS),
    st.integers(0, 3),
)
def test_rows_of_hot_keys_become_one_record_a_key_and_group(
    seed, count, hot, share, words, groups
) -> None:
    keys = mixed(skewed(seed, count, hot, share), words)
    group = np.random.default_rng(seed).integers(0, max(groups, 1), count).astype(np.uint8)
    check_rows(keys, group if groups else None, max(groups, 1))


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 40), min_size=1, max_size=20),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from(WIDTHS),
    st.integers(0, 3),
)
def test_samples_of_hot_keys_are_counted_once_for_each_of_them(
    seed, positions, hot, share, words, groups
) -> None:
    keys = mixed(skewed(seed, sum(positions), hot, share), words)
    group = np.random.default_rng(seed).integers(0, max(groups, 1), len(positions))
    check_samples(
        keys, np.array(positions, np.int64), group.astype(np.uint8) if groups else None,
        max(groups, 1),
    )  # fmt: skip


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("share", [0.99, 0.5])
def test_one_frequent_key_is_hot_wherever_its_rows_are(words: int, share: float) -> None:
    ids = skewed(1, 2000, 1, share)
    expected = np.count_nonzero(ids == 0)
    for order in (ids, np.sort(ids), np.sort(ids)[::-1]):
        assert check_rows(mixed(order, words)) >= expected
        assert check_samples(mixed(order, words), np.full(100, 20)) >= expected


@pytest.mark.parametrize("words", WIDTHS)
def test_equal_keys_are_all_hot_and_nothing_is_left(words: int) -> None:
    keys = mixed(np.zeros(500, np.int64), words)
    assert check_rows(keys) == 500
    assert check_samples(keys, np.array([0, 499, 1])) == 500
    cold, positions, hot = merge_hot_samples(
        keys, np.array([0, 499, 1]), None, np.zeros(1, np.int64)
    )
    assert len(cold) == positions.sum() == 0
    assert rows_of(hot[0]) == [(tuple(keys[0].tolist()), 500, 2, 0)]


@pytest.mark.parametrize("words", WIDTHS)
def test_the_key_of_zeros_is_one_like_any_other(words: int) -> None:
    keys = mixed(skewed(3, 1000, 1, 0.4), words)
    keys[::3] = 0
    check_rows(keys)
    check_samples(keys, np.full(100, 10))
    assert totals(merge_hot_rows(Records(keys)))[(0,) * words] == (334, 334)


def test_two_frequent_keys_of_one_slot_are_told_apart_by_other_bits(monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 256)
    ids = np.random.default_rng(0).integers(0, 2, 1000)
    keys = np.array([[5], [5 + (1 << 30)]], np.uint64)[ids]
    first, second = module._SHIFTS
    mask = np.uint64((1 << module.SLOT_BITS) - 1)
    assert len(np.unique((keys >> first) & mask)) == 1
    assert len(np.unique((keys >> second) & mask)) == 2
    assert check_rows(keys) == 1000


def test_frequent_keys_that_agree_in_all_those_bits_are_counted_all_the_same() -> None:
    keys = np.array([[5], [6]], np.uint64)[np.random.default_rng(0).integers(0, 2, 1000)]
    keys = (keys << np.uint64(60)) | np.uint64(5)
    assert check_rows(keys) <= 1000
    check_samples(keys, np.full(10, 100))


@pytest.mark.parametrize("ids", [np.arange(5000), np.arange(5000) // 2, np.arange(5000) % 2500])
def test_merging_does_not_pay_where_nothing_is_frequent(ids: np.ndarray, monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 1000)
    assert check_rows(mixed(ids, 2)) == 0
    assert check_samples(mixed(ids, 2), np.full(50, 100)) == 0


@pytest.mark.parametrize("positions", [2, 4, 16, 49, 64, 128, 1000])
def test_hot_keys_of_any_position_are_found(positions: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 1 << 10)
    samples = (1 << 14) // positions
    position = np.tile(np.arange(positions), samples)
    constant = mixed(position, 2)
    if positions <= 128:
        assert check_samples(constant, np.full(samples, positions)) > 0.9 * len(constant)
    some = mixed(np.where(position % 3 == 1, 0, np.arange(len(position)) + 1), 2)
    assert check_samples(some, np.full(samples, positions)) >= np.count_nonzero(position % 3 == 1)
    few = mixed(np.where(position == 0, 0, np.arange(len(position)) + 1), 2)
    assert (check_rows(few) > 0) == (positions <= 4)


def test_a_sample_has_no_row_twice_and_is_of_all_parts_of_a_block(monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 64)
    for count in (128, 129, 1000, 12_345):
        rows = module._drawn_rows(count)
        assert len(set(rows.tolist())) == 64
        assert 0 <= rows.min() <= rows.max() < count
        assert np.diff(np.sort(rows)).max() < 4 * (count // 64)
        assert (rows[::2] // (count // 64 * 2) == np.arange(32)).all()


def test_too_few_rows_to_tell_are_returned_as_they_are() -> None:
    assert check_rows(mixed(np.zeros(31, np.int64), 1)) == 0
    assert check_rows(mixed(np.zeros(32, np.int64), 1)) == 32
    assert check_rows(mixed(np.zeros(0, np.int64), 1)) == 0
    assert check_samples(mixed(np.zeros(31, np.int64), 1), np.array([31])) == 0


def test_counts_of_one_huge_sample_do_not_run_into_each_other() -> None:
    count = 200_000
    equal_pairs = np.zeros(1, np.int64)
    keys = np.full((count, 1), 3, np.uint64)
    cold, _, hot = merge_hot_samples(keys, np.array([count]), None, equal_pairs)
    assert len(cold) == 0
    assert rows_of(hot[0]) == [((3,), count, 1, 0)]
    assert equal_pairs.tolist() == [count * (count - 1) // 2]


def test_a_table_by_group_has_fewer_slots_and_its_bytes_are_told(monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 1000)
    keys = mixed(skewed(1, 2000, 3, 0.9), 3)
    for groups in (0, 1, 2, 7):
        chosen, _ = module._choose(keys, max(groups, 1))
        counts = 8 * len(chosen) * max(groups, 1)
        assert 2 * chosen.nbytes + 8 * len(chosen) + counts == hot_bytes(3, groups)
    assert len(chosen) == 1 << module.GROUPED_SLOT_BITS
    assert hot_bytes(1, 0) == (16 + 16) << module.SLOT_BITS


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("groups", [0, 3])
def test_kernels_run_as_plain_python_with_the_same_result(words, groups, monkeypatch) -> None:
    keys = mixed(skewed(4, 300, 3, 0.7), words)
    positions = np.array([100, 0, 1, 150, 49])
    group = np.random.default_rng(1).integers(0, 3, 300).astype(np.uint8) if groups else None
    own = None if group is None else group[:5]
    compiled = [rows_of(piece) for piece in merge_hot_rows(Records(keys, group=group), groups or 1)]
    counting_cases.run_as_plain_python(monkeypatch, module)
    assert not hasattr(module._elect, "py_func")
    plain = [rows_of(piece) for piece in merge_hot_rows(Records(keys, group=group), groups or 1)]
    assert plain == compiled
    assert check_rows(keys, group, groups or 1) > 100
    assert check_samples(keys, positions, own, groups or 1) > 100
