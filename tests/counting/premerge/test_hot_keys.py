"""Hot keys, of rows and of samples, against dictionaries."""

from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    absorbed,
    check_absorbed,
    mixed,
    rows_of,
    sample_few_rows,
    tagged,
    totals,
    totals_by_group,
)
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.hashing import width_of
from tsstore.counting.premerge import cold_keys as cold_module
from tsstore.counting.premerge import hot_keys as module
from tsstore.counting.premerge.cold_keys import absorb_hot_keys
from tsstore.counting.premerge.hot_keys import HotKeys, hot_bytes, slots_of
from tsstore.counting.records import Records


@pytest.fixture(autouse=True)
def small_samples(monkeypatch) -> None:
    sample_few_rows(monkeypatch, 16)


@pytest.fixture
def choices(monkeypatch) -> list[int]:
    """The sizes of the samples that hot keys are chosen from, one after the other."""
    sizes, choose = [], HotKeys._choose

    def spy(hot: HotKeys, keys: np.ndarray, size: int) -> bool:
        sizes.append(size)
        return choose(hot, keys, size)

    monkeypatch.setattr(HotKeys, "_choose", spy)
    return sizes


def skewed(seed: int, count: int, hot: int, share: float) -> np.ndarray:
    """Numbers of keys: so many hot ones make up a share, the others occur once or so."""
    generator = np.random.default_rng(seed)
    others = generator.integers(hot, hot + 10 * count, count)
    return np.where(generator.random(count) < share, generator.integers(0, hot, count), others)


def table_for(keys: np.ndarray, group: np.ndarray | None, groups: int) -> HotKeys:
    return HotKeys(keys.shape[1], groups if group is not None else 0, len(keys))


def check_rows(
    keys: np.ndarray,
    group: np.ndarray | None = None,
    groups: int = 1,
    hot: HotKeys | None = None,
) -> int:
    """Check what is absorbed where each row is a sample; return how many rows are hot."""
    hot = hot or table_for(keys, group, groups)
    _, taken = check_absorbed(keys, None, group, groups, hot)
    assert hot.share == sum(piece.rows for piece in taken) / max(len(keys), 1)
    for piece in taken:
        assert len({(key, own) for key, _, _, own in rows_of(piece)}) == len(piece)
    return round(hot.share * len(keys))


def check_samples(
    keys: np.ndarray,
    positions: np.ndarray,
    group: np.ndarray | None = None,
    groups: int = 1,
    hot: HotKeys | None = None,
) -> int:
    """Check what is absorbed of samples; return how many rows are hot."""
    hot = hot or table_for(keys, group, groups)
    check_absorbed(keys, positions, group, groups, hot)
    return round(hot.share * len(keys))


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
    cold, (counted,), _ = absorbed(keys, np.array([0, 499, 1]))
    assert len(cold) == 0
    assert rows_of(counted) == [(tuple(keys[0].tolist()), 500, 2, 0)]


@pytest.mark.parametrize("words", WIDTHS)
def test_the_key_of_zeros_is_one_like_any_other(words: int) -> None:
    keys = mixed(skewed(3, 1000, 1, 0.4), words)
    keys[::3] = 0
    check_rows(keys)
    check_samples(keys, np.full(100, 10))
    _, records, _ = absorbed(keys, np.ones(1000, np.int64))
    assert totals(records)[(0,) * words] == (334, 334)


def test_two_frequent_keys_of_one_slot_are_told_apart_by_other_bits(monkeypatch) -> None:
    sample_few_rows(monkeypatch, 256)
    ids = np.random.default_rng(0).integers(0, 2, 1000)
    keys = np.array([[5], [5 + (1 << 30)]], np.uint64)[ids]
    first, second = module._SHIFTS
    mask = np.uint64(slots_of(1, 1000) - 1)
    assert len(np.unique((keys >> first) & mask)) == 1
    assert len(np.unique((keys >> second) & mask)) == 2
    assert check_rows(keys) == 1000


def test_frequent_keys_that_agree_in_all_those_bits_are_counted_all_the_same() -> None:
    keys = np.array([[5], [6]], np.uint64)[np.random.default_rng(0).integers(0, 2, 1000)]
    keys = (keys << np.uint64(60)) | np.uint64(5)
    assert check_rows(keys) <= 1000
    check_samples(keys, np.full(10, 100))


@pytest.mark.parametrize("ids", [np.arange(5000), np.arange(5000) // 2, np.arange(5000) % 2500])
def test_looking_for_them_does_not_pay_where_nothing_is_frequent(
    ids: np.ndarray, monkeypatch
) -> None:
    sample_few_rows(monkeypatch, 1000)
    assert check_rows(mixed(ids, 2)) == 0
    assert check_samples(mixed(ids, 2), np.full(50, 100)) == 0


@pytest.mark.parametrize("positions", [2, 4, 16, 49, 64, 128, 1000])
def test_hot_keys_of_any_position_are_found(positions: int, monkeypatch) -> None:
    sample_few_rows(monkeypatch, 1 << 10)
    samples = (1 << 14) // positions
    position = np.tile(np.arange(positions), samples)
    constant = mixed(position, 2)
    if positions <= 128:
        assert check_samples(constant, np.full(samples, positions)) > 0.9 * len(constant)
    some = mixed(np.where(position % 3 == 1, 0, np.arange(len(position)) + 1), 2)
    assert check_samples(some, np.full(samples, positions)) >= np.count_nonzero(position % 3 == 1)
    few = mixed(np.where(position == 0, 0, np.arange(len(position)) + 1), 2)
    assert (check_rows(few) > 0) == (positions <= 4)


def rows_drawn(count: int, size: int) -> list[int]:
    """What `draw` takes: two different rows of each span, by linear congruences."""
    span, chances, rows = 2 * (count // size), [0], []
    for _ in range(size):
        chances.append((chances[-1] * 1_664_525 + 1_013_904_223) % 2**32)
    for start, one, other in zip(range(0, count, span), chances[1::2], chances[2::2], strict=False):
        first = one * span // 2**32
        second = (first + 1 + other * (span - 1) // 2**32) % span
        rows += [start + first, start + second]
    return rows


def test_a_sample_has_no_row_twice_and_is_of_all_parts_of_a_block() -> None:
    for count in (128, 129, 1000, 12_345):
        keys, drawn = np.arange(count, dtype=np.uint64)[:, None], []
        for draw in (module.draw, module.draw.py_func):
            sample = np.empty((64, 1), np.uint64)
            draw(keys, sample, width_of(keys))
            drawn.append(sample[:, 0].tolist())
        rows = np.array(drawn[0])
        assert drawn == [rows_drawn(count, 64)] * 2
        assert len(set(drawn[0])) == 64
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
    keys = np.full((count, 1), 3, np.uint64)
    cold, (counted,), equal_pairs = absorbed(keys, np.array([count]))
    assert len(cold) == 0
    assert rows_of(counted) == [((3,), count, 1, 0)]
    assert equal_pairs.tolist() == [count * (count - 1) // 2]


def test_slots_are_fewer_for_smaller_blocks_and_more_groups() -> None:
    assert slots_of(1, 1 << 20) == slots_of(0, 1 << 30) == module.MOST_SLOTS
    assert slots_of(32, 1 << 20) == 1 << 11
    assert slots_of(1, 0) == slots_of(255, 1000) == module.LEAST_SLOTS
    assert slots_of(1, 16 * 300) == 256


def test_bytes_are_those_of_tables_records_and_a_sample(monkeypatch) -> None:
    sample_few_rows(monkeypatch, 1000)
    keys = mixed(skewed(1, 20_000, 3, 0.9), 3)
    for groups in (0, 2, 7):
        hot = HotKeys(3, groups, 20_000)
        group = (np.arange(20_000) % groups).astype(np.uint8) if groups else None
        assert check_rows(keys, group, groups or 1, hot) > 0
        records = Records.empty(3, False, groups > 0, hot.table.counts.size)
        held = sum(array.nbytes for array in (*hot.table[1:], *records.arrays()))
        choosing = hot.table.slots.nbytes + 4 * len(hot.table.slots)
        sample = 1000 * 3 * 8
        assert held + choosing + sample == hot_bytes(3, groups, 20_000)


def test_a_record_is_taken_for_each_key_and_group_that_was_met() -> None:
    hot = HotKeys(2, 3, 0)
    hot.table.slots[:] = np.arange(module.LEAST_SLOTS)[:, None]
    hot.table.counts[:] = (2 << 32) + 5
    hot.table.counts[7, 1] = 0
    (taken,) = hot.take()
    assert len(totals_by_group([taken])) == len(taken) == 3 * module.LEAST_SLOTS - 1
    assert set(totals_by_group([taken]).values()) == {(5, 2)}
    assert hot.take() == []


# from piece to piece -----------------------------------------------------------------------


def fixed(ids: np.ndarray) -> np.ndarray:
    """Keys, of which each id has the same in all pieces."""
    hashes = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (hashes >> np.uint64(1))[:, None]


def mostly(hot: int, times: int) -> np.ndarray:
    """2000 keys, of which one occurs so many times and others once, in any order."""
    order = np.random.default_rng(times).permutation(2000)
    return fixed(np.where(order < times, hot, order))


def test_hot_keys_of_one_block_serve_the_next_one(choices) -> None:
    hot = HotKeys(2, 0, 2000)
    for seed in range(4):
        assert check_rows(mixed(skewed(seed, 2000, 3, 0.9), 2), hot=hot) > 1700
    assert choices == [16, 16]
    assert check_rows(mixed(np.arange(8) // 4, 2), hot=hot) == 8
    assert choices == [16, 16]


def test_it_is_tried_again_less_often_where_it_did_not_pay(choices) -> None:
    hot, cold, tried = HotKeys(1, 0, 2000), fixed(np.arange(2000)), []
    for _ in range(20):
        before = len(choices)
        assert not hot.serve(cold)
        tried.append(len(choices) > before)
    pieces = np.flatnonzero(tried)
    assert np.diff(pieces).tolist() == [1, 2, 3, 4, 4, 4]
    while not hot.serve(mostly(5000, 1800)):
        tried.append(False)
    assert len(tried) <= 20 + module.MOST_WAITING
    # What paid is tried again as often as before.
    hot.share = 0.0
    assert not hot.serve(cold)
    before = len(choices)
    assert not hot.serve(cold)
    assert len(choices) > before


@pytest.mark.parametrize("positions", [1, 20])
def test_others_are_chosen_where_those_no_longer_serve(positions: int, choices) -> None:
    hot = HotKeys(1, 0, 2000)
    samples = np.full(2000 // positions, positions)

    def check(keys: np.ndarray) -> int:
        if positions == 1:
            return check_rows(keys, hot=hot)
        return check_samples(keys, samples, hot=hot)

    assert check(mostly(5000, 1800)) >= 1800
    assert check(mostly(5000, 1800)) >= 1800
    assert check(mostly(6000, 1800)) < 300
    assert len(choices) == 2
    assert check(mostly(6000, 1800)) >= 1800
    assert check(mostly(6000, 1800)) >= 1800
    assert len(choices) == 4
    assert check(mostly(0, 1)) < 300
    assert check(mostly(0, 1)) == 0
    assert check(mostly(5000, 1800)) >= 1800


@pytest.mark.parametrize("positions", [1, 20])
@pytest.mark.parametrize(("rows", "pieces"), [(2000, 1), (4000, 2), (6000, 3)])
def test_within_a_block_others_are_chosen_after_as_many_rows(
    positions: int, rows: int, pieces: int, choices
) -> None:
    hot, samples = HotKeys(1, 0, rows), np.full(2000 // positions, positions)
    numbers = [5000, 6000, 6000, 6000]
    given_keys = [mostly(number, 1800) for number in numbers]
    hot.begin()
    left, chosen = [], []
    for keys in given_keys:
        cold, _ = absorb_hot_keys(keys, samples, hot)
        left.append(tagged(cold.keys, np.diff(cold.ends, prepend=0)))
        chosen.append(len(choices) // 2)
    assert chosen == ([1, 1, 2, 2] if pieces < 3 else [1, 1, 1, 2])
    whole = tagged(np.concatenate(given_keys), np.tile(samples, 4))
    assert totals([*left, *hot.take()]) == totals([whole])


def test_hot_keys_serve_until_their_share_is_too_much_less_than_at_first(choices) -> None:
    hot, assured = HotKeys(1, 0, 2000), module.SERVES_FROM * 1800
    times = [1800, 1700, 1600, 1500, int(assured) + 20, int(assured) - 20, 800, 800, 790]
    chosen = []
    for number in times:
        assert number <= check_rows(mostly(5000, number), hot=hot) <= number + 16
        chosen.append(len(choices) // 2)
    assert chosen == [1, 1, 1, 1, 1, 1, 2, 2, 2]


def test_a_small_sample_says_whether_a_larger_one_is_worth_it(choices, monkeypatch) -> None:
    for name, size in (("LEAST_ROWS", 64), ("TRIED_ROWS", 32), ("SAMPLE_ROWS", 128)):
        monkeypatch.setattr(module, name, size)
    for rows, sizes in ((63, []), (64, [32, 32]), (200, [32, 100]), (1000, [32, 128])):
        assert check_rows(mixed(np.zeros(rows), 1)) == (rows if sizes else 0)
        assert choices == sizes
        choices.clear()
        assert check_rows(mixed(np.arange(rows), 1)) == 0
        assert choices == sizes[:1]
        choices.clear()


all_pieces = st.lists(
    st.tuples(
        st.integers(0, 2**32),
        st.integers(0, 150),
        st.integers(1, 5),
        st.sampled_from([0, 0.9]),
        st.sampled_from([0, 3]),
        st.sampled_from([1, 7]),
        st.booleans(),
    ),
    max_size=6,
)


@given(all_pieces, st.sampled_from(WIDTHS))
def test_what_was_seen_before_changes_no_result(pieces, words) -> None:
    tables = {groups: HotKeys(words, groups, 300) for groups in (0, 3)}
    for seed, samples, hot, share, groups, positions, is_dirty in pieces:
        keys = mixed(skewed(seed, samples * positions, hot, share), words)
        group = np.random.default_rng(seed).integers(0, max(groups, 1), samples).astype(np.uint8)
        own = (group if groups else None, max(groups, 1), tables[groups])
        if is_dirty:
            table = tables[groups].table
            table.counts[:], table.slots[:, -1] = 77, 5
        if positions == 1:
            check_rows(keys, *own)
        else:
            check_samples(keys, np.full(samples, positions), *own)


# kernels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("groups", [0, 3])
def test_kernels_run_as_plain_python_with_the_same_result(words, groups, monkeypatch) -> None:
    keys = mixed(skewed(4, 300, 3, 0.7), words)
    positions = np.array([100, 0, 1, 150, 49])
    group = np.random.default_rng(1).integers(0, 3, 300).astype(np.uint8) if groups else None
    own = None if group is None else group[:5]
    cases = (None, group), (positions, own)
    compiled = [absorbed(keys, *case, groups or 1)[1] for case in cases]
    counting_cases.run_as_plain_python(monkeypatch, module, cold_module)
    plain = [absorbed(keys, *case, groups or 1)[1] for case in cases]
    for one, other in zip(plain, compiled, strict=True):
        assert list(map(rows_of, one)) == list(map(rows_of, other))
    assert check_rows(keys, group, groups or 1) > 100
    assert check_samples(keys, positions, own, groups or 1) > 100
