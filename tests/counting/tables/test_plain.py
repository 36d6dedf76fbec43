from __future__ import annotations

from collections import Counter

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    as_counter,
    crafted,
    equal_pairs_of,
    mixed,
    of_each_shape,
    random_positions,
    random_records,
    spectrum_counts,
    spectrum_of,
    tagged,
    totals,
)
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.hashing import HashRange
from tsstore.counting.partition import restore_hashes, scatter_rows
from tsstore.counting.records import LATER, Records, SampleKeys
from tsstore.counting.tables import plain as module
from tsstore.counting.tables.plain import Table, slot_bytes
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)


def table_contents(table: Table) -> dict[tuple, tuple[int, int]]:
    keys, multiplicity, incidence = table.occupied()
    assert keys.dtype == np.uint64
    assert multiplicity.dtype == incidence.dtype == np.int64
    assert len(keys) == table.distinct
    assert (keys[:, 0] >= LATER).all()
    keys[:, 0] &= ~LATER
    counts = zip(multiplicity.tolist(), incidence.tolist(), strict=True)
    return dict(zip(map(tuple, keys.tolist()), counts, strict=True))


def check(pieces: list[Records], words: int, first_slots: int = 2) -> Table:
    """Compare a table of all records with dictionaries; return it."""
    table = Table(words, 1 << 20, first_slots)
    assert all(map(table.add, pieces))
    assert table_contents(table) == totals(pieces)
    assert table.equal_pairs == equal_pairs_of(pieces)[0]
    assert as_counter(spectrum_counts(*table.counts)) == spectrum_of(pieces)
    assert len(table.slots[table.slots[:, words] != 0]) == table.used == table.distinct
    return table


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


@given(seeds, st.booleans(), st.integers(1, 3), st.integers(0, 4))
def test_the_ranges_of_all_passes_make_up_the_whole(seed, bare, partition_bits, pass_bits) -> None:
    records = random_records(seed, 100, 80, 1, bare=bare, prefix_bits=partition_bits)
    union: dict[tuple, tuple[int, int]] = {}
    pairs = 0
    for index in range(2**pass_bits):
        table = Table(1, 1024, hashes=HashRange.of(partition_bits, pass_bits, index))
        assert table.add(records)
        share = table_contents(table)
        pairs += table.equal_pairs
        shift = 64 - partition_bits - pass_bits
        assert all((key >> shift) % 2**pass_bits == index for (key,) in share)
        assert not union.keys() & share.keys()
        union |= share
    assert union == totals([records])
    assert pairs == equal_pairs_of([records])[0]


@pytest.mark.parametrize("words", WIDTHS)
def test_a_table_doubles_up_to_its_maximum_and_no_further(words: int) -> None:
    table = Table(words, 40, first_slots=4)
    records = tagged(mixed(np.arange(17), words))
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
    check(pieces, words)


@given(
    seeds,
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=5),
    st.sampled_from(WIDTHS),
)
def test_samples_of_all_sizes_count_once_for_each_state(seed, pieces, words) -> None:
    check(
        [
            random_records(seed + n, count, distinct, words, bare=True)
            for n, (count, distinct) in enumerate(pieces)
        ],
        words,
    )


@of_each_shape
@pytest.mark.parametrize("positions", [[2000], [500, 1, 0, 499, 1000], [2] * 1000, None])
def test_extreme_samples_are_counted_as_any_others(ids, positions) -> None:
    positions = None if positions is None else np.array(positions)
    check([tagged(mixed(ids, 2), positions)], 2)


@pytest.mark.parametrize("times", [3000, 60_000, 70_000])
def test_a_sample_may_show_a_state_often(times: int) -> None:
    ids = np.concatenate([np.full(times, 5), np.arange(20), np.full(times, 3), [5, 5]])
    records = tagged(mixed(ids, 1), np.array([times + 3, 0, 17, 1, times - 1, 2]))
    table = check([records, records], 1)
    assert table.equal_pairs > 2 * (times * (times - 1) // 2 + 1)


def test_a_table_grows_in_the_middle_of_a_sample() -> None:
    ids = np.concatenate([np.arange(100), np.arange(100), np.arange(50)])
    for positions in ([250], [150, 100], [1, 249]):
        table = check([tagged(mixed(ids, 2), np.array(positions))], 2)
        assert len(table.slots) == 256


@pytest.mark.parametrize("bits", [1, 3])
def test_keys_of_a_partition_get_their_hashes_again(bits: int) -> None:
    positions = random_positions(1, 300)
    keys = mixed(np.arange(300) % 40, 2, 0)
    records, offsets = scatter_rows(SampleKeys(keys, np.cumsum(positions)), bits)
    found = set()
    for partition in range(1 << bits):
        table = Table(2, 1024)
        assert table.add(records[offsets[partition] : offsets[partition + 1]])
        own = restore_hashes(table.occupied()[0], partition, bits)
        assert set((own[:, 0] >> np.uint64(64 - bits)).tolist()) <= {partition}
        found |= set(map(tuple, own.tolist()))
    assert found == set(map(tuple, keys.tolist()))


def test_the_occupied_slots_of_spans_are_those_of_all() -> None:
    table = check([random_records(1, 100, 80, 2, bare=True)], 2)
    spans = [table.occupied(slice(start, start + 64)) for start in range(0, len(table.slots), 64)]
    for columns, whole in zip(zip(*spans, strict=True), table.occupied(), strict=True):
        assert np.array_equal(np.concatenate(columns), whole)


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
    assert table.equal_pairs == 0


def test_keys_that_differ_in_a_later_word_alone_stay_apart() -> None:
    keys = np.array([[5, 1, 0], [5, 2, 0], [5, 1, 0], [5, 1, 3]], np.uint64)
    table = Table(3, 16)
    assert table.add(tagged(keys))
    assert table_contents(table) == {(5, 1, 0): (2, 2), (5, 2, 0): (1, 1), (5, 1, 3): (1, 1)}


def test_a_table_of_less_than_two_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="a table of 1 slots; expected at least 2"):
        Table(1, 1)
    with pytest.raises(ValueError, match="at least 2"):
        Table(1, 16, first_slots=0)


def test_slot_bytes_are_a_key_two_counts_and_a_sample() -> None:
    assert slot_bytes(1) == 32
    assert slot_bytes(2) == 40
    assert slot_bytes(5) == 64


@pytest.mark.parametrize("words", WIDTHS)
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    records = tagged(crafted(5000, words))
    with pytest.raises(CountingError, match="another seed"):
        Table(words, 1 << 20).add(records)


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
    assert plain.equal_pairs == compiled.equal_pairs == equal_pairs_of(pieces)[0] > 0
    assert as_counter(spectrum_counts(*plain.counts)) == spectrum_of(pieces)
    check([tagged(mixed(np.full(300, 1), words), np.array([100, 200])), *pieces], words)
    monkeypatch.setattr(module, "PROBE_LIMIT", 3)
    with pytest.raises(CountingError, match="another seed"):
        plain.add(tagged(crafted(5, words)))
