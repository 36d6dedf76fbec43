from __future__ import annotations

from collections import Counter

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    as_counter,
    changes_as_counter,
    changes_by_set,
    changes_of,
    crafted,
    equal_pairs_of,
    mixed,
    of_each_shape,
    random_positions,
    rows_of,
    spectrum_counts,
    spectrum_of,
    tagged,
    totals_by_group,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting.hashing import HashRange
from tsstore.counting.records import LATER, Records
from tsstore.counting.tables import aggregate as aggregating
from tsstore.counting.tables.aggregate import aggregate
from tsstore.counting.tables.grouped import LARGEST_GROUPS, GroupedTable, grouped_slot_bytes
from tsstore.counting.tables.spectra import count_spectra, small_bytes, small_side
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)


def random_records(
    seed: int, count: int, distinct: int, words: int, groups: int = 5, bare: bool = False
) -> Records:
    return counting_cases.random_records(seed, count, distinct, words, groups=groups, bare=bare)


def check_table(table: GroupedTable, pieces: list[Records], groups: int, sets: int = 0) -> None:
    """Compare a table of all records with dictionaries."""
    assert as_counter(spectrum_counts(*table.counts)) == spectrum_of(pieces)
    expected = changes_by_set(pieces, groups, sets) if sets else changes_of(pieces)
    assert changes_as_counter(table.delta()) == expected
    assert len(table.delta().ends) == count_spectra(groups, sets)
    assert table.equal_pairs.dtype == np.int64
    assert table.equal_pairs.tolist() == equal_pairs_of(pieces, groups * (sets + 1))
    assert table.distinct == sum(spectrum_of(pieces).values())


def check(pieces: list[Records], words: int, groups: int, slots: int = 1 << 20) -> GroupedTable:
    table = GroupedTable(words, groups, slots, first_slots=2)
    assert all(map(table.add, pieces))
    check_table(table, pieces, groups)
    return table


@settings(max_examples=100)
@given(
    seeds,
    st.lists(st.tuples(st.integers(0, 120), st.booleans()), max_size=4),
    st.integers(1, 200),
    st.sampled_from(WIDTHS),
    st.integers(1, 7),
)
def test_a_table_counts_by_group_as_dictionaries_do(seed, pieces, distinct, words, groups) -> None:
    records = [
        random_records(seed + n, count, distinct, words, groups, bare)
        for n, (count, bare) in enumerate(pieces)
    ]
    check(records, words, groups)


@of_each_shape
@pytest.mark.parametrize("positions", [[2000], [500, 1, 0, 499, 1000], [2] * 1000, [1] * 2000])
def test_extreme_samples_are_counted_as_any_others(ids, positions) -> None:
    group = (np.arange(len(positions)) % 3).astype(np.uint8)
    check([tagged(mixed(ids, 2), np.array(positions), group)], 2, 4)


@pytest.mark.parametrize("times", [3000, 60_000])
def test_a_sample_may_show_a_state_often(times: int) -> None:
    ids = np.concatenate([np.full(times, 5), np.arange(20), np.full(times, 3), [5, 5]])
    positions, group = np.array([times + 3, 0, 17, 1, times - 1, 2]), np.array([1, 0, 0, 1, 1, 0])
    records = tagged(mixed(ids, 1), positions, group.astype(np.uint8))
    # What is full in the middle of it goes on.
    for slots in (1 << 20, 4 * 44):
        check([records, records], 1, 2, slots)


def test_records_of_one_group_that_follow_each_other_take_one_entry() -> None:
    group = (np.arange(50) % 7).astype(np.uint8)
    for positions in (np.full(50, 2), np.ones(100, np.int64)):
        own = np.repeat(group, 100 // len(positions) if len(positions) == 50 else 2)
        own = group if len(positions) == 50 else own
        records = tagged(mixed(np.repeat(np.arange(50), 2), 1), positions, own)
        table = check([records], 1, 7, 1 << 10)
        assert (table.distinct, table.used) == (50, 100)
        q = 1 if len(positions) == 50 else 2
        changed = Counter({(g, 2, q): -(8 if g == 0 else 7) for g in range(7)})
        assert changes_as_counter(table.delta()) == changed


def test_what_was_counted_before_the_second_group_came_is_kept() -> None:
    one = mixed(np.zeros(5, np.int64), 2)
    records = Records(
        one,
        np.array([5, 6, 7, 8, 9], np.uint32),
        np.array([1, 2, 3, 4, 5], np.uint32),
        np.array([3, 3, 0, 3, 254], np.uint8),
    )
    table = GroupedTable(2, LARGEST_GROUPS, 1 << 10)
    for start in range(5):
        assert table.add(records[start : start + 1])
    check_table(table, [records], LARGEST_GROUPS)
    assert (table.distinct, table.used) == (1, 6)
    assert changes_as_counter(table.delta())[3, 16, 8] == 1


def test_counts_go_beyond_32_bits() -> None:
    most = np.full(4, 2**32 - 1, np.uint32)
    records = Records(np.zeros((4, 1), np.uint64), most, most, np.array([0, 1, 1, 1], np.uint8))
    table = check([records], 1, 2, 16)
    assert table.delta().multiplicity.dtype == np.int64


def test_keys_that_differ_in_their_second_word_alone_stay_apart() -> None:
    keys = np.array([[5, 1], [5, 2], [5, 1], [5, 1]], np.uint64)
    group = np.array([0, 0, 1], np.uint8)
    check([tagged(keys, np.array([1, 1, 2]), group)], 2, 2, 16)


def test_an_empty_table_is_empty() -> None:
    table = check([random_records(1, 0, 1, 2, 3, bare) for bare in (True, False)], 2, 3, 16)
    assert table.delta().ends.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bare", [False, True])
def test_a_table_has_as_many_counts_as_states_of_64_bits(bare: bool) -> None:
    records = random_records(1, 400, 90, 2, bare=bare)
    for part in (records, records[:50]):
        table = GroupedTable(2, 5, 1 << 12)
        assert (table.distinct, table.used) == (0, 0)
        assert table.add(part)
        multiplicity, incidence = table.counts
        assert multiplicity.dtype == incidence.dtype == np.int64
        assert len(multiplicity) == table.distinct
        check_table(table, [part], 5)


@pytest.mark.parametrize("words", WIDTHS)
def test_the_index_doubles_up_to_its_maximum_and_no_further(words: int) -> None:
    keys, none = mixed(np.arange(40), words), np.zeros(40, np.uint8)
    table = GroupedTable(words, 2, 128, first_slots=4)
    # The index has 64 slots at most: it is half full, and so is the log.
    assert table.add(tagged(keys[:32], group=none[:32]))
    assert table.distinct == 32
    assert not table.add(tagged(keys[32:], group=none[32:]))


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("positions", [[24], [1] * 24, [8] * 3, [5, 0, 3, 16]])
def test_a_full_log_is_added_up_and_goes_on_if_that_makes_room(words: int, positions) -> None:
    ids = np.tile(np.arange(8), 3)
    positions = np.array(positions)
    groups = np.repeat(np.arange(3, dtype=np.uint8), 8)
    sample_group = groups[np.minimum(np.cumsum(positions) - positions, 23)]
    piece = tagged(mixed(ids, words), positions, sample_group)
    table = GroupedTable(words, 4, 4 * 48, first_slots=32)
    # Each piece begins 24 entries at most, of which so many are left in the end: half of the log.
    for _ in range(7):
        assert table.add(piece)
    check_table(table, [piece] * 7, 4)
    several = tagged(
        mixed(np.tile(np.arange(8), 4), words), group=np.repeat(np.arange(4, dtype=np.uint8), 8)
    )
    assert not all(table.add(several) for _ in range(3))


@pytest.mark.parametrize("largest", [1, 4, 40])
def test_a_log_that_is_full_in_the_middle_of_samples_and_groups_counts_these_once(
    largest: int,
) -> None:
    rng = np.random.default_rng(1)
    for count in range(60, 90):
        pieces = []
        for first in range(0, count, 23):
            rows = min(23, count - first)
            positions = rng.integers(0, largest + 1, 60)
            positions = np.diff(np.minimum(np.cumsum(positions), rows), prepend=0, append=rows)
            group = rng.integers(0, 2, len(positions)).astype(np.uint8)
            pieces.append(tagged(mixed(rng.integers(0, 12, rows), 1), positions, group))
        check(pieces, 1, 2, 4 * 50)


def test_rows_that_were_never_written_take_no_memory() -> None:
    table = GroupedTable(1, 2, 1 << 24)
    assert table.nbytes == 4 * 1024
    assert table.add(random_records(1, 100, 100, 1, 2))
    assert table.nbytes <= table.used * 32 + 4 * 1024


def test_slots_are_bounded_by_what_is_said_of_them() -> None:
    assert grouped_slot_bytes(2) - grouped_slot_bytes(1) == 2
    for words in (1, 2):
        records, slots = random_records(3, 20_000, 3000, words, 9), 1 << 17
        table = GroupedTable(words, 9, slots)
        assert table.add(records)
        assert table.used <= slots // 2
        assert table.nbytes <= slots * grouped_slot_bytes(words)


def test_too_few_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="a table of 1024 to 7 slots; expected at least 2 and 8"):
        GroupedTable(1, 2, 7)
    with pytest.raises(ValueError, match="at least 2 and 8"):
        GroupedTable(1, 2, 16, first_slots=1)


def test_records_of_wrong_groups_are_refused() -> None:
    keys = mixed(np.arange(200), 1)
    with pytest.raises(ValueError, match="do not tell groups"):
        GroupedTable(1, 2, 1 << 10).add(tagged(keys))
    with pytest.raises(ValueError, match="group 2 of 2"):
        GroupedTable(1, 2, 1 << 10).add(tagged(keys, group=np.full(200, 2, np.uint8)))


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("pass_bits", [0, 1, 3])
def test_the_ranges_of_all_passes_make_up_the_whole(bare: bool, pass_bits: int) -> None:
    records = random_records(1, 300, 120, 2, bare=bare)
    spectrum, pairs = Counter(), np.zeros(5, np.int64)
    for number in range(1 << pass_bits):
        table = GroupedTable(2, 5, 1 << 12, hashes=HashRange.of(1, pass_bits, number))
        assert table.add(records)
        spectrum += as_counter(spectrum_counts(*table.counts))
        pairs += table.equal_pairs
        own = (table.keys[:, 0] >> np.uint64(63 - pass_bits)) & np.uint64((1 << pass_bits) - 1)
        assert set(own.tolist()) <= {number}
    assert spectrum == spectrum_of([records])
    assert pairs.tolist() == equal_pairs_of([records], 5)


@settings(max_examples=60)
@given(seeds, st.sampled_from(WIDTHS), st.sampled_from([64, 100, 512, 1 << 14]), st.integers(0, 6))
def test_tables_that_outgrow_take_more_passes_to_the_same_counts(
    seed, words, maximum_slots, initial_bits
) -> None:
    pieces = [random_records(seed + n, 90, 120, words, bare=n != 2) for n in range(6)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregating, "FIRST_SLOTS", 4 << initial_bits)
        spectrum, pairs, delta = aggregate(lambda: iter(pieces), words, 1, maximum_slots, 5)
    assert as_counter(spectrum) == spectrum_of(pieces)
    assert pairs.tolist() == equal_pairs_of(pieces, 5)
    assert changes_as_counter(delta) == changes_of(pieces)


def test_no_records_change_nothing() -> None:
    spectrum, pairs, delta = aggregate(list, 2, 5, 64, 3)
    assert len(spectrum[0]) == len(delta) == 0
    assert delta.ends.tolist() == pairs.tolist() == [0, 0, 0]


@pytest.mark.parametrize("words", WIDTHS)
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    records = tagged(crafted(5000, words), group=np.zeros(5000, np.uint8))
    with pytest.raises(CountingError, match="another seed"):
        aggregate(lambda: [records], words, 1, 1 << 20, 2)


def test_keys_that_no_pass_can_divide_are_an_error() -> None:
    records = tagged(np.arange(20, dtype=np.uint64)[:, None], group=np.zeros(20, np.uint8))
    with pytest.raises(CountingError, match="share the first 48 bits"):
        aggregate(lambda: [records], 1, 1, 16, 2)


@settings(max_examples=40)
@given(
    seeds,
    st.integers(1, 80),
    st.sampled_from([1, 2, 9]),
    st.sampled_from([2, 3, 60]),
    st.integers(1, 4),
)
def test_each_set_is_counted_as_if_there_were_no_others(seed, distinct, words, groups, sets):
    # Samples in no set are of one more.
    codes = groups * (sets + 1)
    pieces = []
    for n, count in enumerate((120, 50, 90)):
        bare = n != 1
        piece = random_records(seed + n, count, distinct, words, min(codes, 255), bare)
        pieces.append(piece)
    table = GroupedTable(words, groups, 1 << 14, sets=sets)
    own = [Records(*p.columns[:3], group=p.group.astype(_dtype(codes))) for p in pieces]
    assert all(map(table.add, own))
    check_table(table, own, groups, sets)


def _dtype(codes: int) -> type:
    return np.uint8 if codes <= 256 else np.uint16


def test_what_is_added_up_at_once_is_less_of_more_spectra() -> None:
    sides = [small_side(32, sets) for sets in (0, 10, 100, 1000)]
    assert sides == [64, 32, 8, 4]
    assert small_bytes(32, 10) == 8 * 16 * 33 * count_spectra(32, 10)
    assert grouped_slot_bytes(1, 3) > grouped_slot_bytes(1)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("words", [1, 2, 9])
def test_keys_are_found_again_with_what_each_group_has_of_them(monkeypatch, words, plain):
    records = random_records(1, 500, 200, words, bare=True)
    if plain:
        counting_cases.run_counting_as_plain_python(monkeypatch)
    with np.errstate(over="ignore"):
        table = GroupedTable(words, 5, 1 << 12, 1 << 11)
        assert table.add(records)
        numbers = table.find(records.keys)
        unknown = table.find(mixed(np.arange(9), words) + np.uint64(1))
    keys = table.keys.copy()
    assert (keys[:, 0] >= LATER).all()
    assert unknown.tolist() == [-1] * 9
    keys[:, 0] &= ~LATER
    assert list(map(tuple, keys[numbers].tolist())) == [key for key, *_ in rows_of(records)]
    found = {
        (*keys[number].tolist(), group): tuple(counts)
        for number, group, *counts in zip(*(own.tolist() for own in table.entries), strict=True)
    }
    assert len(found) == len(table.entries[0])
    assert found == {(*key, group): own for (key, group), own in totals_by_group([records]).items()}


@pytest.mark.parametrize("words", WIDTHS)
def test_kernels_run_as_plain_python_with_the_same_result(words: int, monkeypatch) -> None:
    pieces = [random_records(9, 150, 90, words, bare=True), random_records(8, 50, 90, words)]
    compiled = GroupedTable(words, 5, 1024, first_slots=4)
    assert all(map(compiled.add, pieces))
    counting_cases.run_counting_as_plain_python(monkeypatch)
    with np.errstate(over="ignore"):
        plain = check(pieces, words, 5, 1024)
        assert np.array_equal(plain.keys, compiled.keys)
        assert all(map(np.array_equal, plain.entries, compiled.entries))
        positions = random_positions(1, 80)
        group = np.arange(len(positions), dtype=np.uint8) % 2
        # The log is full on the way.
        check([tagged(mixed(np.arange(80) % 12, words), positions, group)] * 2, words, 2, 4 * 50)


def test_plain_python_ends_long_searches_too(monkeypatch) -> None:
    counting_cases.run_counting_as_plain_python(monkeypatch, PROBE_LIMIT=3)
    records = tagged(crafted(5, 1), group=np.zeros(5, np.uint8))
    with np.errstate(over="ignore"), pytest.raises(CountingError, match="another seed"):
        GroupedTable(1, 2, 1 << 10).add(records)
