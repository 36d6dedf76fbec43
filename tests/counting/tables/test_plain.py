from __future__ import annotations

from collections import Counter

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    as_counter,
    crafted,
    mixed,
    of_each_shape,
    partitions_of,
    random_records,
    rows_of_states,
    sample_few_rows,
    spectrum_counts,
    spectrum_of,
    totals,
    true_spectrum,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting.hashing import HashRange
from tsstore.counting.keys import KeyScheme
from tsstore.counting.records import Records
from tsstore.counting.tables import aggregate as aggregating
from tsstore.counting.tables import plain as module
from tsstore.counting.tables.plain import (
    Table,
    slot_bytes,
)
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)


def aggregate(*args) -> tuple:
    return aggregating.aggregate(*args)[0]


def aggregate_gathered(*args) -> tuple:
    return aggregating.aggregate_gathered(*args)[0]


def table_contents(table: Table) -> dict[tuple, tuple[int, int]]:
    keys, multiplicity, incidence = table.occupied()
    assert keys.dtype == np.uint64
    assert multiplicity.dtype == incidence.dtype == np.int64
    assert len(keys) == table.distinct
    counts = zip(multiplicity.tolist(), incidence.tolist(), strict=True)
    return dict(zip(map(tuple, keys.tolist()), counts, strict=True))


# the whole chain ---------------------------------------------------------------------------


def check_whole_chain(
    scheme: KeyScheme, rows: np.ndarray, positions: np.ndarray, bits: int, slots: int, share: int
) -> None:
    """Compare both ways of counting all partitions with the definition."""
    gathered, streamed = Counter(), Counter()
    for pieces in partitions_of(scheme, rows, positions, bits):
        args = scheme.words, bits, slots
        gathered += as_counter(aggregate_gathered(pieces, *args, share))
        streamed += as_counter(aggregate(lambda pieces=pieces: pieces, *args))
    assert gathered == streamed == true_spectrum(rows, positions.tolist())
    assert sum(k * states for (k, _), states in gathered.items()) == len(rows)


@settings(max_examples=150)
@given(
    seeds,
    st.integers(1, 100),
    st.booleans(),
    st.one_of(st.lists(st.integers(0, 12), max_size=10), st.lists(st.integers(0, 1), max_size=80)),
    st.integers(1, 60),
    st.integers(0, 8),
    st.sampled_from([8, 64, 1024]),
    st.sampled_from([1, 8, 1 << 16]),
)
def test_the_whole_chain_counts_as_a_counter_does(
    seed, row_bytes, exact, positions, distinct, bits, slots, share
) -> None:
    rows = rows_of_states(seed, sum(positions), distinct, row_bytes)
    scheme = KeyScheme.create(row_bytes, seed, exact)
    with pytest.MonkeyPatch.context() as patch:
        sample_few_rows(patch, 8)
        check_whole_chain(scheme, rows, np.array(positions, np.int64), bits, slots, share)


@of_each_shape
@pytest.mark.parametrize("row_bytes", [3, 8, 16, 24])
@pytest.mark.parametrize("share", [64, 1 << 16])
def test_extreme_data_is_counted_as_any_other(ids, share, row_bytes, monkeypatch) -> None:
    sample_few_rows(monkeypatch, 256)
    rows = np.zeros((len(ids), row_bytes), np.uint8)
    rows[:, -2:] = ids.astype("<u2").view(np.uint8).reshape(-1, 2)
    scheme = KeyScheme.create(row_bytes, exact=share == 64)
    check_whole_chain(scheme, rows, np.array([500, 1, 0, 499, 1000]), 2, 256, share)
    check_whole_chain(scheme, rows, np.array([666, 667, 667]), 0, 1 << 20, share)
    check_whole_chain(scheme, rows[:100], np.ones(100, np.int64), 1, 64, share)


def test_exact_keys_of_very_wide_rows_are_counted_as_any_other() -> None:
    rows = rows_of_states(1, 40, 25, 8200)
    rows[::2, :-1] = rows[0, :-1]
    check_whole_chain(KeyScheme.create(8200, exact=True), rows, np.array([30, 10]), 1, 64, 8)


# the table ---------------------------------------------------------------------------------


@given(seeds, st.integers(0, 300), st.integers(1, 200), st.sampled_from(WIDTHS))
def test_a_table_holds_the_totals_of_each_key(seed, count, distinct, words) -> None:
    records = random_records(seed, count, distinct, words)
    table = Table(words, 1 << 20, first_slots=2)
    half = count // 2
    assert table.add(records[:half])
    assert table.add(records[half:])
    expected = totals([records])
    assert table_contents(table) == expected
    multiplicity, incidence = table.counts
    assert multiplicity.dtype == incidence.dtype == np.int64
    assert np.count_nonzero(multiplicity) == np.count_nonzero(incidence) == table.distinct
    assert as_counter(spectrum_counts(*table.counts)) == Counter(expected.values())


@given(seeds, st.integers(0, 3), st.integers(0, 4))
def test_the_ranges_of_all_passes_make_up_the_whole(seed, partition_bits, pass_bits) -> None:
    records = random_records(seed, 100, 80, 1, prefix_bits=partition_bits)
    union: dict[tuple, tuple[int, int]] = {}
    for index in range(2**pass_bits):
        table = Table(1, 1024, hashes=HashRange.of(partition_bits, pass_bits, index))
        assert table.add(records)
        share = table_contents(table)
        shift = 64 - partition_bits - pass_bits
        assert all((key >> shift) % 2**pass_bits == index for (key,) in share)
        assert not union.keys() & share.keys()
        union |= share
    assert union == totals([records])


@pytest.mark.parametrize("words", WIDTHS)
def test_a_table_doubles_up_to_its_maximum_and_no_further(words: int) -> None:
    table = Table(words, 40, first_slots=4)
    records = Records(mixed(np.arange(17), words))
    assert table.nbytes == 4 * slot_bytes(words)
    assert table.add(records[:2])
    assert table.nbytes == 4 * slot_bytes(words)
    assert table.add(records[:16])
    assert table.nbytes == 32 * slot_bytes(words)
    assert table.distinct == 16
    assert table.add(records[5:11])
    assert not table.add(records)
    assert table.nbytes == 32 * slot_bytes(words)


def test_a_table_begins_no_larger_than_its_maximum() -> None:
    assert Table(1, 100).nbytes == 64 * slot_bytes(1)
    assert Table(2, 1 << 20).nbytes == 1024 * slot_bytes(2)
    assert Table(2, 1 << 20, first_slots=3).nbytes == 2 * slot_bytes(2)


@given(seeds, st.integers(0, 100), st.integers(0, 100), st.sampled_from(WIDTHS))
def test_bare_records_and_others_count_in_one_table(seed, bare_ones, others, words) -> None:
    pieces = [
        random_records(seed, bare_ones, 60, words, bare=True),
        random_records(seed + 1, others, 60, words),
        random_records(seed + 2, bare_ones, 60, words, bare=True),
    ]
    table = Table(words, 1 << 20, first_slots=2)
    assert all(map(table.add, pieces))
    assert table_contents(table) == totals(pieces)
    assert len(table.slots[table.slots[:, words] != 0]) == table.used == table.distinct


def test_an_empty_table_is_empty() -> None:
    table = Table(2, 16)
    assert table.add(Records.empty(2))
    assert table.distinct == 0
    assert table_contents(table) == {}
    assert as_counter(spectrum_counts(*table.counts)) == Counter()


def test_counts_of_a_table_go_beyond_32_bits() -> None:
    most = np.full(4, 2**32 - 1, np.uint32)
    table = Table(1, 16)
    assert table.add(Records(np.zeros((4, 1), np.uint64), most, most))
    assert table_contents(table) == {(0,): (4 * (2**32 - 1), 4 * (2**32 - 1))}


def test_keys_that_differ_in_a_later_word_alone_stay_apart() -> None:
    keys = np.array([[5, 1, 0], [5, 2, 0], [5, 1, 0], [5, 1, 3]], np.uint64)
    table = Table(3, 16)
    assert table.add(Records(keys))
    assert table_contents(table) == {(5, 1, 0): (2, 2), (5, 2, 0): (1, 1), (5, 1, 3): (1, 1)}


def test_a_table_of_less_than_two_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="a table of 1 slots; expected at least 2"):
        Table(1, 1)
    with pytest.raises(ValueError, match="at least 2"):
        Table(1, 16, first_slots=0)
    with pytest.raises(ValueError, match="at least 2"):
        aggregate(list, 1, 0, 1)


def test_slot_bytes_are_a_key_and_two_counts() -> None:
    assert slot_bytes(1) == 24
    assert slot_bytes(2) == 32
    assert slot_bytes(5) == 56


@pytest.mark.parametrize("words", WIDTHS)
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    keys = crafted(5000, words)
    with pytest.raises(CountingError, match="another seed"):
        Table(words, 1 << 20).add(Records(keys))
    with pytest.raises(CountingError, match="4096 slots"):
        aggregate(lambda: [Records(keys)], words, 0, 1 << 20)


# passes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("maximum_slots", [16, 100, 512, 1 << 14])
def test_a_table_that_outgrows_takes_more_passes_to_the_same_spectrum(maximum_slots, words) -> None:
    records = random_records(1, 2000, 1500, words)
    opened = []

    def slices():
        opened.append(1)
        return (records[start : start + 300] for start in range(0, 2000, 300))

    spectrum = as_counter(aggregate(slices, words, 0, maximum_slots))
    assert spectrum == Counter(totals([records]).values())
    least = len(totals([records])) / (maximum_slots // 2)
    assert least <= len(opened) <= 12 * least + 1


def test_no_slices_give_an_empty_spectrum() -> None:
    assert as_counter(aggregate(list, 2, 5, 64)) == Counter()
    assert as_counter(aggregate(lambda: [Records.empty(1)], 1, 0, 2)) == Counter()


@pytest.mark.parametrize("top", [0, 2**30 - 1, 0x2AAAAAAA])
def test_passes_reach_bits_far_below_a_shared_prefix(top: int) -> None:
    keys = np.array([[(top << 34) + (low << 20) + low] for low in range(64)], np.uint64)
    spectrum = aggregate(lambda: [Records(keys)], 1, 10, 32)
    assert as_counter(spectrum) == Counter({(1, 1): 64})


@pytest.mark.parametrize("top", [0, 2**48 - 1])
@pytest.mark.parametrize("partition_bits", [0, 10])
def test_keys_that_no_pass_can_divide_are_an_error(top: int, partition_bits: int) -> None:
    keys = np.array([[(top << 16) + low] for low in range(20)], np.uint64)
    with pytest.raises(CountingError, match="share the first 48 bits"):
        aggregate(lambda: [Records(keys)], 1, partition_bits, 16)


# kernels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", WIDTHS)
def test_kernels_run_as_plain_python_with_the_same_result(words: int, monkeypatch) -> None:
    pieces = [random_records(9, 200, 90, words), random_records(3, 50, 90, words, bare=True)]
    compiled = Table(words, 1024, first_slots=4)
    assert all(map(compiled.add, pieces))
    counting_cases.run_as_plain_python(monkeypatch, module)
    plain = Table(words, 1024, first_slots=4)
    assert all(map(plain.add, pieces))
    assert np.array_equal(plain.slots, compiled.slots)
    assert as_counter(spectrum_counts(*plain.counts)) == spectrum_of(pieces)
    assert as_counter(aggregate(lambda: pieces, words, 0, 32)) == spectrum_of(pieces)
    monkeypatch.setattr(module, "PROBE_LIMIT", 3)
    with pytest.raises(CountingError, match="another seed"):
        plain.add(Records(crafted(5, words)))


class Slots:
    """A table that holds so many records of its range, and nothing else."""

    def __init__(self, hashes: HashRange, most: int) -> None:
        self.bits, self.index, self.most = int(hashes.mask).bit_length(), int(hashes.number), most
        self.held: list[int] = []

    def add(self, records: Records) -> bool:
        words = records.keys[:, 0].tolist()
        self.held += [word for word in words if word >> (64 - self.bits) == self.index]
        return len(self.held) <= self.most

    @property
    def used(self) -> int:
        return len(self.held)

    distinct = used


def slots_of(slices, most: int, maximum_slots: int) -> list[Slots]:
    """The tables that it takes for all records of a partition."""
    tables = aggregating.count_in_passes(
        lambda hashes: Slots(hashes, most), slices, 0, maximum_slots
    )
    return list(tables)


@given(st.lists(st.integers(0, 2**16 - 1), max_size=40), st.integers(1, 20))
def test_every_record_is_counted_in_one_table_that_holds_it(tops, most) -> None:
    words = sorted({top << 48 for top in tops})
    records = Records(np.array(words, np.uint64)[:, None])

    def slices():
        return [records[:7], records[7:]]

    tables = list(
        aggregating.count_in_passes(lambda hashes: Slots(hashes, most), slices, 0, 8 * most)
    )
    assert [word for table in tables for word in table.held] == words
    assert all(table.used <= most for table in tables)


def test_steps_become_larger_again_after_a_dense_spot() -> None:
    dense = [number << 40 for number in range(16)]
    words = np.array([*dense, 2**63, 2**63 + 2**62], np.uint64)
    records = Records(words[:, None])
    tables = list(
        aggregating.count_in_passes(lambda hashes: Slots(hashes, 4), lambda: [records], 0, 32)
    )
    assert max(table.bits for table in tables) == 22
    assert tables[-1].bits <= 2
    assert [word for table in tables for word in table.held] == words.tolist()
    assert len(tables) < 3 * 22


def test_keys_that_share_too_many_bits_are_an_error() -> None:
    records = Records(np.arange(5, dtype=np.uint64)[:, None])
    with pytest.raises(CountingError, match=r"more than 5 distinct keys.*first 48 bits"):
        slots_of(lambda: [records], 4, 32)
