from __future__ import annotations

from collections import Counter
from dataclasses import replace

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    as_counter,
    changes_as_counter,
    changes_of,
    crafted,
    mixed,
    of_each_shape,
    partitions_of,
    rows_of_states,
    sample_few_rows,
    spectrum_counts,
    spectrum_of,
    totals_by_group,
    true_spectrum,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import partition
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import subpartitions
from tsstore.counting.records import Buffers, Records, group_dtype
from tsstore.counting.tables import aggregate as aggregating
from tsstore.counting.tables import group_changes, grouped_parts
from tsstore.counting.tables import grouped as module
from tsstore.counting.tables import spectra as delta_module
from tsstore.counting.tables.aggregate import aggregate, aggregate_gathered
from tsstore.counting.tables.grouped import (
    LARGEST_GROUPS,
    GroupedTable,
    grouped_slot_bytes,
    least_slots,
)
from tsstore.counting.tables.grouped_parts import GroupedParts
from tsstore.counting.tables.spectra import (
    DeltaEntries,
    Tally,
    count_spectra,
    small_bytes,
    small_side,
)
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)


def random_records(seed: int, count: int, distinct: int, words: int, groups: int = 5) -> Records:
    return counting_cases.random_records(seed, count, distinct, words, groups=groups)


def aggregate_groups(slices, words: int, groups: int, *sizes: int) -> tuple:
    return aggregate(slices, words, *sizes, groups=groups)


def aggregate_groups_gathered(pieces: list, words: int, groups: int, *sizes) -> tuple:
    return aggregate_gathered(pieces, words, *sizes, groups=groups)


def oracle(*pieces: Records) -> tuple[Counter, Counter]:
    """The spectrum, and the changes of all groups, by dictionaries."""
    return spectrum_of(pieces), changes_of(pieces)


def contents(spectrum: tuple, changes: DeltaEntries) -> tuple[Counter, Counter]:
    return as_counter(spectrum), changes_as_counter(changes)


def table_contents(table: GroupedTable) -> tuple[Counter, Counter]:
    return contents(spectrum_counts(*table.counts), table.delta())


# the whole chain ---------------------------------------------------------------------------


def check_whole_chain(
    scheme: KeyScheme, rows: np.ndarray, positions: np.ndarray, group: np.ndarray, groups: int,
    bits: int, slots: int, share: int,
) -> None:  # fmt: skip
    """Compare both ways of counting all partitions with the definition, without each group."""
    found = [[Counter(), Counter()] for _ in range(2)]
    for pieces in partitions_of(scheme, rows, positions, bits, group, groups):
        args = scheme.words, groups, bits, slots
        gathered = contents(*aggregate_groups_gathered(pieces, *args, share))
        streamed = contents(*aggregate_groups(lambda pieces=pieces: pieces, *args))
        for (spectrum, changes), more in zip(found, (gathered, streamed), strict=True):
            spectrum.update(more[0])
            changes.update(more[1])
    expected = true_spectrum(rows, positions.tolist())
    for spectrum, changes in found:
        assert spectrum == expected
        assert {own for own, _, _ in changes} <= set(range(groups))
    for own in range(groups):
        left_out = set(np.flatnonzero(group == own).tolist())
        expected = true_spectrum(rows, positions.tolist(), left_out)
        for spectrum, changes in found:
            without = spectrum.copy()
            without.update({(k, q): n for (of, k, q), n in changes.items() if of == own})
            assert +without == expected
            assert min(without.values(), default=0) >= 0


@given(
    seeds,
    st.integers(1, 100),
    st.booleans(),
    st.one_of(st.lists(st.integers(0, 12), max_size=10), st.lists(st.integers(0, 1), max_size=80)),
    st.integers(1, 60),
    st.integers(1, 6),
    st.integers(0, 7),
    st.sampled_from([64, 1024]),
    st.sampled_from([4, 8, 1 << 10]),
)
def test_the_whole_chain_counts_by_group_as_counters_do(
    seed, row_bytes, exact, positions, distinct, groups, bits, slots, share
) -> None:
    rows = rows_of_states(seed, sum(positions), distinct, row_bytes)
    scheme = KeyScheme.create(row_bytes, seed, exact)
    group = np.random.default_rng(seed).integers(0, groups, len(positions)).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        sample_few_rows(patch, 8)
        positions = np.array(positions, np.int64)
        check_whole_chain(scheme, rows, positions, group, groups, bits, slots, share)


@of_each_shape
@pytest.mark.parametrize("row_bytes", [3, 16, 24])
def test_extreme_data_is_counted_by_group_as_any_other(ids, row_bytes, monkeypatch) -> None:
    sample_few_rows(monkeypatch, 256)
    rows = np.zeros((len(ids), row_bytes), np.uint8)
    rows[:, -2:] = ids.astype("<u2").view(np.uint8).reshape(-1, 2)
    scheme = KeyScheme.create(row_bytes, exact=True)
    group = np.arange(2000, dtype=np.uint8) % 5
    for positions, slots, share in (
        (np.full(500, 4), 1 << 9, 64),
        (np.ones(2000, int), 1 << 14, 512),
    ):
        check_whole_chain(scheme, rows, positions, group[: len(positions)], 5, 1, slots, share)


# all records in memory ---------------------------------------------------------------------


@settings(max_examples=150)
@given(
    seeds,
    st.lists(st.integers(0, 150), max_size=4),
    st.integers(1, 300),
    st.sampled_from(WIDTHS),
    st.integers(1, 7),
    st.integers(0, 8),
    st.sampled_from([2, 16, 1 << 10]),
)
def test_gathered_records_are_counted_by_group_as_by_dictionaries(
    seed, counts, distinct, words, groups, partition_bits, share
) -> None:
    pieces = [
        counting_cases.random_records(
            seed + n, count, distinct, words, bare=n % 3 != 1, groups=groups,
            prefix_bits=partition_bits,
        )
        for n, count in enumerate(counts)
    ]  # fmt: skip
    found = aggregate_groups_gathered(pieces, words, groups, partition_bits, 64, share)
    assert contents(*found) == oracle(*pieces)
    assert len(found[1].ends) == groups


@pytest.mark.parametrize("at_once", [0, 50, 1 << 17])
def test_changes_of_large_states_are_added_up_whenever_they_are_many(at_once, monkeypatch) -> None:
    merges = []

    def spy(parts: list[DeltaEntries]) -> DeltaEntries:
        merges.append(sum(map(len, parts)))
        return add_up(parts)

    add_up = delta_module.add_up_entries
    monkeypatch.setattr(delta_module, "AT_ONCE", at_once)
    for place in (aggregating, delta_module):
        monkeypatch.setattr(place, "add_up_entries", spy)
    # Each of 300 states occurs in some hundred rows of three groups.
    ids = np.random.default_rng(3).integers(0, 300, 40_000)
    group = (np.arange(len(ids)) % 3).astype(np.uint8)
    records = Records(mixed(ids, 1), group=group)
    found = aggregate_groups_gathered([records], 1, 3, 0, 1 << 12, 1 << 10)
    assert contents(*found) == oracle(records)
    assert len(merges) == 1 if at_once > 1 << 16 else len(merges) > 1


@pytest.mark.parametrize("partition_bits", [0, 6])
def test_what_is_alone_is_counted_by_its_group(partition_bits: int) -> None:
    keys = mixed(np.concatenate([np.arange(3000), np.arange(20)]), 2, partition_bits)
    group = (np.arange(3020) % 7).astype(np.uint8)
    found = aggregate_groups_gathered([Records(keys, group=group)], 2, 9, partition_bits, 1 << 10)
    assert contents(*found) == oracle(Records(keys, group=group))


def test_a_state_of_all_groups_in_a_full_share_has_room() -> None:
    group = np.tile(np.arange(255), 16).astype(np.uint8)
    keys = mixed(np.repeat(np.arange(16), 255), 1, 6)
    records = Records(keys, group=group)
    for share in (len(keys) // 2, len(keys), 64):
        found = aggregate_groups_gathered([records], 1, 255, 6, 1 << 12, share)
        assert contents(*found) == oracle(records)


def test_records_of_wrong_groups_are_refused() -> None:
    keys = mixed(np.arange(200), 1)
    beyond = Records(keys, group=np.full(200, 2, np.uint8))
    for records, message in ((Records(keys), "do not tell groups"), (beyond, "group 2 of 2")):
        with pytest.raises(ValueError, match=message):
            aggregate_groups_gathered([records], 1, 2, 0, 64)
        with pytest.raises(ValueError, match=message):
            GroupedTable(1, 2, 1 << 10).add(records)


# the tables --------------------------------------------------------------------------------


@settings(max_examples=150)
@given(seeds, st.integers(0, 300), st.integers(1, 200), st.sampled_from(WIDTHS), st.integers(1, 7))
def test_a_table_counts_by_group_as_dictionaries_do(seed, count, distinct, words, groups) -> None:
    records = random_records(seed, count, distinct, words, groups)
    table = GroupedTable(words, groups, 1 << 20, first_slots=2)
    half = count // 2
    assert table.add(records[:half])
    assert table.add(records[half:])
    assert table_contents(table) == oracle(records)
    assert table.distinct == sum(oracle(records)[0].values())


def test_records_of_one_group_that_follow_each_other_take_one_entry() -> None:
    keys = mixed(np.repeat(np.arange(50), 2), 1)
    records = Records(keys, group=np.repeat(np.arange(50) % 7, 2).astype(np.uint8))
    table = GroupedTable(1, 7, 1 << 10)
    assert table.add(records)
    assert (table.distinct, table.used) == (50, 100)
    assert table_contents(table) == oracle(records)
    changed = Counter({(g, 2, 2): -(8 if g == 0 else 7) for g in range(7)})
    assert table_contents(table)[1] == changed


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
    assert table_contents(table) == oracle(records)
    assert (table.distinct, table.used) == (1, 6)
    assert table_contents(table)[1][3, 16, 8] == 1


def test_counts_go_beyond_32_bits() -> None:
    most = np.full(4, 2**32 - 1, np.uint32)
    records = Records(np.zeros((4, 1), np.uint64), most, most, np.array([0, 1, 1, 1], np.uint8))
    table = GroupedTable(1, 2, 16)
    assert table.add(records)
    assert table.delta().multiplicity.dtype == np.int64
    assert table_contents(table) == oracle(records)


def test_keys_that_differ_in_their_second_word_alone_stay_apart() -> None:
    keys = np.array([[5, 1], [5, 2], [5, 1]], np.uint64)
    records = Records(keys, group=np.array([0, 0, 1], np.uint8))
    table = GroupedTable(2, 2, 16)
    assert table.add(records)
    assert table_contents(table) == oracle(records)


def test_an_empty_table_is_empty() -> None:
    table = GroupedTable(2, 3, 16)
    assert table.add(random_records(1, 0, 1, 2))
    assert table_contents(table) == (Counter(), Counter())
    assert table.delta().ends.tolist() == [0, 0, 0]


@pytest.mark.parametrize("words", WIDTHS)
def test_partitions_leave_nothing_behind_for_the_next_ones(words, monkeypatch) -> None:
    buffers = Buffers()

    def check(seed: int, groups: int, share: int = 100) -> None:
        pieces = [
            counting_cases.random_records(
                seed, 300, 100 * seed, words, bare=True, groups=groups, prefix_bits=6
            ),
            counting_cases.random_records(seed, 50, 200, words, groups=groups, prefix_bits=6),
        ]
        found = aggregate_groups_gathered(pieces, words, groups, 6, 1 << 12, share, buffers)
        assert contents(*found) == oracle(*pieces)

    for seed in (1, 9, 2, 3):
        check(seed, 5)
        check(seed, 3)
    with monkeypatch.context() as patch, np.errstate(over="ignore"):
        # An error in the middle of a share.
        counting_cases.run_as_plain_python(patch, grouped_parts)
        patch.setattr(grouped_parts, "list_by_group", None)
        with pytest.raises(TypeError):
            check(4, 5)
    check(5, 5)
    check(1, 5, 1 << 13)
    worse = Records(crafted(5000, words), group=np.arange(5000, dtype=np.uint8) % 5)
    with pytest.raises(CountingError, match="another seed"):
        aggregate_groups_gathered([worse], words, 5, 6, 1 << 12, 1 << 13, buffers)
    check(9, 5, 1 << 13)


def test_each_share_tells_the_next_one_whether_most_of_its_states_occur_once(monkeypatch) -> None:
    paid = []

    def spy(*arguments):
        paid.append(bool(table._learnt[1]))
        return group_changes.list_by_group(*arguments)

    ids = np.arange(4000)
    ids[1000:2000] //= 2
    # Shares of 1,000 keys, by their number: those of the second occur twice.
    keys = mixed(np.arange(4000), 1, 6)[ids]
    keys[:, 0] >>= np.uint64(2)
    keys[:, 0] |= np.arange(4000, dtype=np.uint64)[:, None][:, 0] // np.uint64(1000) << np.uint64(
        56
    )
    records = Records(keys, group=(np.arange(4000) % 3).astype(np.uint8))
    table, tally, deltas = GroupedParts(1, 3, 0, 1 << 12), Tally(), []
    counting_cases.run_as_plain_python(monkeypatch, grouped_parts)
    monkeypatch.setattr(grouped_parts, "list_by_group", spy)
    with np.errstate(over="ignore"):
        assert list(table.count(*subpartitions([records], 1, 6, 2, 1), tally, deltas)) == []
    assert paid == [True, True, False, True]
    assert contents(tally.spectrum(), delta_module.add_up_entries(deltas)) == oracle(records)


@pytest.mark.parametrize("sets", [0, 2])
def test_shares_that_change_more_than_is_listed_at_once_are_counted_one_by_one(
    sets: int, monkeypatch
) -> None:
    monkeypatch.setattr(grouped_parts, "_MOST_ENDS", 8)
    keys = mixed(np.random.default_rng(1).integers(0, 30, 6000), 2, 6)
    many = np.full(len(keys), 100, np.uint32)
    group = (np.arange(len(keys)) % (3 * (sets + 1))).astype(np.uint8)
    pieces = [Records(keys, group=group), Records(keys, many, many, group)]
    found = aggregate_gathered(pieces, 2, 6, 1 << 12, 1 << 10, groups=3, sets=sets)
    assert as_counter(found[0]) == spectrum_of(pieces)
    assert changes_as_counter(found[1]) == (by_set(pieces, 3, sets) if sets else changes_of(pieces))


def test_a_table_has_as_many_counts_as_states_of_64_bits() -> None:
    records = random_records(1, 400, 90, 2)
    for part in (records, records[:50], records[200:]):
        table = GroupedTable(2, 5, 1 << 12)
        assert (table.distinct, table.used) == (0, 0)
        assert table.add(part)
        multiplicity, incidence = table.counts
        assert multiplicity.dtype == incidence.dtype == np.int64
        assert len(multiplicity) == table.distinct
        assert table_contents(table) == oracle(part)


@pytest.mark.parametrize("words", WIDTHS)
def test_the_index_doubles_up_to_its_maximum_and_no_further(words: int) -> None:
    keys = mixed(np.arange(40), words)
    table = GroupedTable(words, 2, 128, first_slots=4)
    # The index has 64 slots at most: it is half full, and so is the log.
    assert table.add(Records(keys[:32], group=np.zeros(32, np.uint8)))
    assert table.distinct == 32
    assert not table.add(Records(keys[32:], group=np.zeros(8, np.uint8)))


@pytest.mark.parametrize("words", WIDTHS)
def test_a_full_log_is_added_up_and_goes_on_if_that_makes_room(words: int) -> None:
    keys, groups = mixed(np.arange(8), words), np.repeat(np.arange(3, dtype=np.uint8), 8)
    piece = Records(np.tile(keys, (3, 1)), group=groups)
    table = GroupedTable(words, 4, 4 * 48, first_slots=32)
    # Each piece begins 24 entries, of which 24 are left in the end: half of the log.
    for _ in range(7):
        assert table.add(piece)
    assert table_contents(table) == oracle(*[piece] * 7)
    assert table.used == 48
    several = Records(np.tile(keys, (4, 1)), group=np.repeat(np.arange(4, dtype=np.uint8), 8))
    assert not all(table.add(several) for _ in range(3))


def test_groups_that_the_log_is_added_up_within_are_counted_once() -> None:
    # It is full in the middle of a group, of whose states some have come already.
    rng = np.random.default_rng(1)
    for count in range(60, 90):
        ids, group = rng.integers(0, 12, count), rng.integers(0, 2, count).astype(np.uint8)
        records = Records(mixed(ids, 1), group=group)
        table = GroupedTable(1, 2, 4 * 50)
        for first in range(0, count, 23):
            assert table.add(records[first : first + 23])
        assert table_contents(table) == oracle(records)


def test_rows_that_were_never_written_take_no_memory() -> None:
    table = GroupedTable(1, 2, 1 << 24)
    assert table.nbytes == 4 * 1024
    assert table.add(random_records(1, 100, 100, 1, 2))
    assert table.nbytes <= table.used * 24 + 4 * 1024


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


@settings(max_examples=60)
@given(seeds, st.sampled_from(WIDTHS), st.sampled_from([64, 100, 512, 1 << 14]), st.integers(0, 6))
def test_tables_that_outgrow_take_more_passes_to_the_same_counts(
    seed, words, maximum_slots, initial_bits
) -> None:
    records = random_records(seed, 500, 120, words)

    def slices():
        return (records[start : start + 90] for start in range(0, 500, 90))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregating, "FIRST_SLOTS", 4 << initial_bits)
        found = aggregate_groups(slices, words, 5, 0, maximum_slots)
    assert contents(*found) == oracle(records)


@pytest.mark.parametrize("groups", [1, 32, 255])
def test_the_least_slots_are_enough_for_states_of_all_groups(groups: int) -> None:
    group = np.tile(np.arange(groups), 30).astype(np.uint8)
    records = Records(mixed(np.repeat(np.arange(30), groups), 1), group=group)
    found = aggregate_groups(lambda: [records], 1, groups, 0, least_slots(groups))
    assert contents(*found) == oracle(records)


def test_no_records_change_nothing() -> None:
    spectrum, changes = aggregate_groups(list, 2, 3, 5, 64)
    assert len(spectrum[0]) == len(changes) == 0
    assert changes.ends.tolist() == [0, 0, 0]


@pytest.mark.parametrize("words", WIDTHS)
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    records = Records(crafted(5000, words), group=np.zeros(5000, np.uint8))
    with pytest.raises(CountingError, match="another seed"):
        aggregate_groups(lambda: [records], words, 2, 0, 1 << 20)
    with pytest.raises(CountingError, match="another seed"):
        aggregate_groups_gathered([records, records], words, 2, 0, 1 << 20)


def test_keys_that_no_pass_can_divide_are_an_error() -> None:
    keys = np.arange(20, dtype=np.uint64)[:, None]
    records = Records(keys, group=np.zeros(20, np.uint8))
    with pytest.raises(CountingError, match="share the first 48 bits"):
        aggregate_groups(lambda: [records], 1, 2, 0, 16)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("sets", [0, 2])
def test_shares_are_counted_by_plain_python_with_the_same_result(words, sets, monkeypatch) -> None:
    pieces = [
        counting_cases.random_records(n, 150, 80, words, bare=n < 2, groups=2 * (sets + 1),
                                      prefix_bits=6)
        for n in range(3)
    ]  # fmt: skip
    compiled = aggregate_gathered(pieces, words, 6, 1 << 12, 100, groups=2, sets=sets)
    counting_cases.run_as_plain_python(monkeypatch, grouped_parts, group_changes, partition)
    with np.errstate(over="ignore"):
        plain = aggregate_gathered(pieces, words, 6, 1 << 12, 100, groups=2, sets=sets)
    assert all(map(np.array_equal, plain[0], compiled[0]))
    assert changes_as_counter(plain[1]) == changes_as_counter(compiled[1])


@pytest.mark.parametrize("words", WIDTHS)
def test_kernels_run_as_plain_python_with_the_same_result(words: int, monkeypatch) -> None:
    records = random_records(9, 200, 90, words)
    compiled = GroupedTable(words, 5, 1024, first_slots=4)
    assert compiled.add(records)
    expected = table_contents(compiled)
    counting_cases.run_as_plain_python(monkeypatch, module, group_changes, partition, delta_module)
    with np.errstate(over="ignore"):
        plain = GroupedTable(words, 5, 1024, first_slots=4)
        assert plain.add(records)
        assert table_contents(plain) == expected == oracle(records)
        assert np.array_equal(plain.keys, compiled.keys)
        monkeypatch.setattr(module, "PROBE_LIMIT", 3)
        with pytest.raises(CountingError, match="another seed"):
            plain.add(Records(crafted(5, words), group=np.zeros(5, np.uint8)))


# sets --------------------------------------------------------------------------------------


def by_set(pieces: list[Records], groups: int, sets: int) -> Counter:
    """All spectra, as a count of the records of each set alone gives them."""

    def alone(own: int | None) -> list[Records]:
        found = []
        for piece in pieces:
            chosen = slice(None) if own is None else piece.group // groups == own
            keys, *counts, code = (c if c is None else c[chosen] for c in piece.columns)
            found.append(Records(keys, *counts, group=(code % groups).astype(np.uint8)))
        return found

    spectra = dict(changes_of(alone(None)))
    for own in range(sets):
        first = groups + own * (groups + 1)
        changed, shown = changes_of(alone(own)).items(), spectrum_of(alone(own)).items()
        spectra |= {(first + group, k, q): states for (group, k, q), states in changed}
        spectra |= {(first + groups, k, q): states for (k, q), states in shown}
    return Counter(spectra)


def check_sets(seed, distinct: int, words: int, groups: int, sets: int, share: int) -> None:
    # Samples in no set are of one more.
    codes = groups * (sets + 1)
    pieces = [
        counting_cases.random_records(
            seed + n, count, distinct, words, bare=n != 1, groups=codes, prefix_bits=6
        )
        for n, count in enumerate((150, 60, 90))
    ]
    pieces = [replace(piece, group=piece.group.astype(group_dtype(codes))) for piece in pieces]
    found = [
        aggregate_gathered(pieces, words, 6, 64 * codes, share, None, groups, sets),
        aggregate(lambda: pieces, words, 6, 8 * codes, groups, sets),
    ]
    for spectrum, entries in found:
        assert as_counter(spectrum) == spectrum_of(pieces)
        assert len(entries.ends) == count_spectra(groups, sets)
        spectra, expected = changes_as_counter(entries), by_set(pieces, groups, sets)
        if groups == 1:  # Of which none is left out.
            kept = {own for own, _, _ in expected if own > 0 and own % 2 == 0}
            spectra, expected = (
                Counter({cell: n for cell, n in own.items() if cell[0] in kept})
                for own in (spectra, expected)
            )
        assert spectra == expected


@settings(max_examples=40)
@given(
    seeds,
    st.one_of(st.integers(1, 80), st.just(10_000)),
    st.sampled_from([1, 2, 9]),
    st.sampled_from([1, 2, 3, 4, 60]),
    st.integers(1, 5),
    st.sampled_from([2, 16, 1 << 10]),
)
def test_each_set_is_counted_as_if_there_were_no_others(
    seed, distinct, words, groups, sets, share
) -> None:
    check_sets(seed, distinct, words, groups, sets, share)


@settings(max_examples=10)
@given(
    seeds,
    st.sampled_from([20, 10_000]),
    st.sampled_from([1, 2, 9]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([16, 1 << 10]),
)
def test_plain_python_counts_each_set_as_if_there_were_no_others(
    seed, distinct, words, groups, sets, share
) -> None:
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        counting_cases.run_as_plain_python(
            patch, module, grouped_parts, group_changes, partition, delta_module
        )
        check_sets(seed, distinct, words, groups, sets, share)


def test_what_is_added_up_at_once_is_less_of_more_spectra() -> None:
    sides = [small_side(32, sets) for sets in (0, 10, 100, 1000)]
    assert sides == [64, 32, 8, 4]
    assert small_bytes(32, 10) == 8 * 16 * 33 * count_spectra(32, 10)
    assert grouped_slot_bytes(1, 3) > grouped_slot_bytes(1)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("words", [1, 2, 9])
def test_keys_are_found_again_with_what_each_group_has_of_them(monkeypatch, words, plain):
    records = random_records(1, 500, 200, words)
    if plain:
        counting_cases.run_as_plain_python(monkeypatch, module)
    with np.errstate(over="ignore"):
        table = GroupedTable(words, 5, 1 << 12, 1 << 11)
        assert table.add(records)
        numbers = table.find(records.keys)
        unknown = table.find(mixed(np.arange(9), words) + np.uint64(1))
    keys = table.keys
    assert (keys[numbers] == records.keys).all()
    assert unknown.tolist() == [-1] * 9
    found = {
        (*keys[number].tolist(), group): tuple(counts)
        for number, group, *counts in zip(*(own.tolist() for own in table.entries), strict=True)
    }
    assert len(found) == len(table.entries[0])
    assert found == {(*key, group): own for (key, group), own in totals_by_group([records]).items()}
