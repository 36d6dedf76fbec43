from __future__ import annotations

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
    random_records,
    spectrum_of,
    tagged,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting.partition import MOST_RECORDS, scatter
from tsstore.counting.parts import PartPiece, Parts, divide_rows, subpartitions, tag_rows
from tsstore.counting.records import Buffers, Records, SampleKeys
from tsstore.counting.tables import plain_parts
from tsstore.counting.tables.aggregate import aggregate_gathered, aggregate_parts
from tsstore.counting.tables.plain_parts import PlainParts, table_bytes
from tsstore.counting.tables.spectra import Tally
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)


def check_gathered(
    pieces: list[Records],
    words: int,
    partition_bits: int = 1,
    slots: int = 64,
    share: int = 1 << 16,
    buffers: Buffers | None = None,
) -> None:
    """Compare what is counted of the records of a partition with dictionaries."""
    spectrum, pairs, delta = aggregate_gathered(
        pieces, words, partition_bits, slots, share, buffers
    )
    assert as_counter(spectrum) == spectrum_of(pieces)
    assert pairs.dtype == np.int64
    assert pairs.tolist() == equal_pairs_of(pieces)
    assert delta is None


def check_counted(
    table: PlainParts, pieces: list[Records], prefix_bits: int = 1, bits: int = 0
) -> None:
    """Compare what a table counts, of which no subpartition is too large for it."""
    tally, pairs = Tally(), np.zeros(1, np.int64)
    parts = subpartitions(pieces, prefix_bits, bits)
    assert list(table.count(*parts, range(1 << bits), tally, pairs)) == []
    assert as_counter(tally.spectrum()) == spectrum_of(pieces)
    assert pairs.tolist() == equal_pairs_of(pieces)


@settings(max_examples=150)
@given(
    seeds,
    st.lists(st.integers(0, 200), max_size=4),
    st.integers(1, 300),
    st.sampled_from(WIDTHS),
    st.integers(1, 8),
    st.sampled_from([1, 4, 32, 1 << 16]),
)
def test_bare_records_and_others_are_counted_as_by_dictionaries(
    seed, counts, distinct, words, partition_bits, share
) -> None:
    pieces = [
        random_records(
            seed + n, count, distinct, words, bare=n % 3 != 1, prefix_bits=partition_bits
        )
        for n, count in enumerate(counts)
    ]
    check_gathered(pieces, words, partition_bits, share=share)


@of_each_shape
@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("share", [16, 500, 1 << 16])
def test_extreme_data_is_counted_as_any_other(ids, words, share) -> None:
    keys = mixed(ids, words)
    for positions in (None, np.array([2000]), np.array([500, 0, 1, 499, 1000]), np.full(1000, 2)):
        check_gathered([tagged(keys, positions)], words, share=share)
    twos = np.full(500, 2, np.uint32)
    pieces = [tagged(keys[:1500], np.full(500, 3)), Records(keys[1500:], twos, twos)]
    check_gathered(pieces, words, share=share)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("times", [62, 63, 64, 65, 255, 256, 257, 3000])
@pytest.mark.parametrize("sample", [1, 2, 50, 10**6])
def test_states_that_occur_often_are_counted_exactly(words: int, times: int, sample: int) -> None:
    ids = np.concatenate([np.zeros(times, np.int64), np.repeat(np.arange(1, 9), 63), [9, 9, 10]])
    keys = mixed(np.random.default_rng(times).permutation(ids), words, 6)
    positions = np.diff(np.append(np.arange(0, len(ids), sample), len(ids)))
    check_gathered([tagged(keys, positions)], words, 6)
    few = random_records(1, 5, 3, words, prefix_bits=6)
    check_gathered([few, tagged(keys, positions)], words, 6)


@pytest.mark.parametrize("positions", [[60_000], [1, 59_999], [30_000] * 2, [1] * 60_000])
def test_a_state_may_be_all_that_there_is_in_samples(positions: list[int]) -> None:
    keys = mixed(np.zeros(60_000, np.int64), 2)
    check_counted(PlainParts(2, MOST_RECORDS, Buffers()), [tagged(keys, np.array(positions))])


@pytest.mark.parametrize("ids", [np.zeros, np.arange, lambda n: np.arange(n) // 2])
@pytest.mark.parametrize("sample", [1, 7, 1 << 16])
def test_as_many_records_as_16_bits_can_number_are_not_too_large_and_one_more_is(
    ids, sample: int
) -> None:
    words = 2
    keys = mixed(ids(MOST_RECORDS + 1).astype(np.int64), words)
    positions = np.diff(np.append(np.arange(0, MOST_RECORDS, sample), MOST_RECORDS))
    table = PlainParts(words, MOST_RECORDS, Buffers())
    most = tagged(keys[:-1], positions)
    check_counted(table, [most])
    one = np.ones(1, np.uint32)
    for more in (tagged(keys[-1:]), Records(keys[-1:], one, one)):
        tally, pairs = Tally(), np.zeros(1, np.int64)
        parts = subpartitions([most, more], 1, 0)
        assert list(table.count(*parts, range(1), tally, pairs)) == [0]
        assert as_counter(tally.spectrum()) == {}
        assert pairs.tolist() == [0]
        # It is counted in another table.
        check_gathered([most, more], words, slots=1 << 20)
    check_counted(table, [most])


@pytest.mark.parametrize("words", WIDTHS)
def test_tables_grow_for_more_states_and_shrink_again(words: int) -> None:
    table = PlainParts(words, MOST_RECORDS, Buffers())
    for count in (1280, 1281, 40_000, 3, 2560, 2561, 20_000, 0, 6000):
        ids = np.random.default_rng(count).permutation(np.arange(count) * 4 // 5)
        positions = np.diff(np.append(np.arange(0, count, 700), count))
        check_counted(table, [tagged(mixed(ids, words), positions)])


@pytest.mark.parametrize("words", [2, 3, 5, 9])
@pytest.mark.parametrize("count", [2, 8, 9, 100, 1300])
def test_keys_with_the_same_first_word_stay_apart(words: int, count: int) -> None:
    for place in {1, words - 1}:
        keys = np.full((count, words), 9, np.uint64)
        keys[:, place] = np.arange(count)
        ids = np.concatenate([np.arange(count), np.arange(count // 2), np.arange(count)])
        records = tagged(keys[ids], np.array([len(ids) - 3, 0, 3]))
        check_gathered([records], words)
        twos = np.full(count, 2, np.uint32)
        check_gathered([Records(keys, twos, twos), records], words)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("partition_bits", [1, 6, 10, 12])
def test_a_hash_of_zeros_is_one_like_any_other(words: int, partition_bits: int) -> None:
    keys = np.zeros((300, words), np.uint64)
    keys[200:, -1] = 1
    keys[250:, 0] = 2
    check_gathered([tagged(keys)], words, partition_bits)
    check_gathered([tagged(keys, np.array([150, 140, 10]))], words, partition_bits)
    check_gathered([tagged(keys[:1])], words, partition_bits)
    ones = np.ones(300, np.uint32)
    check_gathered([tagged(keys), Records(keys, ones, ones)], words, partition_bits)


def test_counts_are_added_up_of_keys_that_are_bare_and_not() -> None:
    keys = mixed(np.arange(30), 2, 6)
    fives = np.full(10, 5, np.uint32)
    others = Records(keys[:10], fives, fives - np.uint32(2))
    bare = tagged(np.concatenate([keys[5:], keys[5:7]]))
    spectrum, pairs, _ = aggregate_gathered([others, bare], 2, 6, 1 << 10)
    assert as_counter(spectrum) == {(1, 1): 20, (5, 3): 5, (6, 4): 3, (7, 5): 2}
    assert pairs.tolist() == [0]
    bare = tagged(np.concatenate([keys[5:], keys[5:7]]), np.array([27]))
    spectrum, pairs, _ = aggregate_gathered([others, bare], 2, 6, 1 << 10)
    assert as_counter(spectrum) == {(1, 1): 20, (5, 3): 5, (6, 4): 3, (7, 4): 2}
    assert pairs.tolist() == [2]


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("bare_rows", [0, 3000])
def test_others_that_outgrow_their_table_are_counted_exactly(words: int, bare_rows: int) -> None:
    pieces = [
        random_records(1, 3000, 2500, words, prefix_bits=6),
        random_records(2, bare_rows, 2500, words, bare=True, prefix_bits=6),
    ]
    check_gathered(pieces, words, 6)
    # What is beyond the square of small counts does not fit at once.
    many = np.full(3000, 100, np.uint32)
    check_gathered([*pieces, Records(pieces[0].keys, many, many)], words, 6, share=100)


def test_counts_of_others_go_beyond_32_bits() -> None:
    most = np.full(4, 2**32 - 1, np.uint32)
    keys = np.zeros((4, 1), np.uint64)
    check_gathered([Records(keys, most, most), tagged(keys, np.array([4]))], 1)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("slots", [2, 16, 1 << 14])
def test_a_far_too_large_share_is_counted_in_passes(words: int, slots: int) -> None:
    dense = random_records(1, 600, 200, words, bare=True, prefix_bits=9)
    others = random_records(2, 50, 200, words, prefix_bits=9)
    sparse = random_records(3, 300, 300, words, bare=True)
    check_gathered([dense, sparse, others], words, 1, slots, share=64)


@settings(max_examples=40)
@given(
    seeds,
    st.lists(
        st.tuples(
            st.sampled_from(["numbers", "tags", "a sample each"]),
            st.integers(0, 80),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 5),
    st.sampled_from(WIDTHS),
    st.sampled_from([4, 1 << 10]),
    st.sampled_from([25, 1000]),
)
def test_pieces_of_all_kinds_are_counted_together(
    seed, blocks, bits, words, share, distinct
) -> None:
    bare, expected = [], []
    for n, (way, count, samples) in enumerate(blocks):
        generator = np.random.default_rng(seed + n)
        keys = mixed(np.arange(distinct), words, 0)[generator.integers(0, distinct, count)]
        ends = np.append(np.sort(generator.integers(0, count + 1, samples)), count)
        positions = np.diff(ends, prepend=0)
        if way == "a sample each":
            ends, positions = None, np.ones(count, np.int64)
        bare.append((tag_rows if way == "tags" else divide_rows)(SampleKeys(keys, ends), bits))
        expected.append(tagged(keys, positions))
    counted = random_records(seed, 30, distinct, words, prefix_bits=0)
    parts = Parts(bare, bits), Parts([PartPiece(*scatter([counted], bits))], bits)
    spectrum, pairs, _ = aggregate_parts(parts, range(1 << bits), words, bits, 64, share)
    counted.keys[:, 0] &= np.uint64(2**63 - 1)
    assert as_counter(spectrum) == spectrum_of([*expected, counted])
    assert pairs.tolist() == equal_pairs_of(expected)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("sample", [1, 2, 300])
def test_where_most_states_occur_once_the_others_are_counted_exactly(words, sample) -> None:
    table, keys = PlainParts(words, 1 << 12, Buffers()), mixed(np.arange(9000), words, 6)
    for seed in range(3):
        generator = np.random.default_rng(seed)
        ids = np.append(generator.permutation(8000), generator.integers(7000, 9000, 1000))
        positions = np.diff(np.append(np.arange(0, 9000, sample), 9000))
        rows = tagged(keys[ids], positions), tagged(keys[:50], np.full(25, 2))
        twos = np.full(2000, 2, np.uint32)
        check_counted(table, list(rows), 6, 2)
        check_counted(table, [*rows, Records(keys[6000:8000], twos, twos)], 6, 3)


def test_each_subpartition_tells_the_next_one_whether_most_of_its_states_occur_once(
    monkeypatch,
) -> None:
    settling = []

    def spy(bare, part, *arguments) -> tuple[int, int, int]:
        settling.append(int(part))
        return settled(bare, part, *arguments)

    ids = np.arange(4000)
    ids[1000:2000] = 1000 + ids[1000:2000] % 500
    # Subpartitions of 1,000 keys, by their number: those of the second occur twice.
    keys = mixed(np.arange(4000), 1, 8)
    keys[:, 0] |= np.arange(4000, dtype=np.uint64) // np.uint64(1000) << np.uint64(56)
    counting_cases.run_counting_as_plain_python(monkeypatch)
    settled = plain_parts._count_settled
    monkeypatch.setattr(plain_parts, "_count_settled", spy)
    table = PlainParts(1, 1 << 12, Buffers())
    with np.errstate(over="ignore"):
        check_counted(table, [tagged(keys[ids])], 6, 2)
        check_counted(table, [tagged(keys[ids], np.full(1000, 4))], 6, 2)
    assert settling == [1, 3, 0, 1, 3]


@pytest.mark.parametrize("partition_bits", [1, 5, 12])
def test_no_records_give_an_empty_spectrum(partition_bits: int) -> None:
    for pieces in ([], [Records.empty(2)], [Records.empty(2, bare=False), Records.empty(2)]):
        check_gathered(pieces, 2, partition_bits)


def twice_crafted(words: int) -> Records:
    return tagged(np.repeat(crafted(5000, words), 2, axis=0), np.full(100, 100))


@pytest.mark.parametrize("words", WIDTHS)
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    for buffers in (None, Buffers()):
        with pytest.raises(CountingError, match=r"4096 slots.*another seed"):
            aggregate_gathered([twice_crafted(words)], words, 1, 1 << 20, buffers=buffers)
    ones = np.ones(5000, np.uint32)
    with pytest.raises(CountingError, match="another seed"):
        aggregate_gathered([Records(crafted(5000, words), ones, ones)], words, 1, 1 << 20)


def test_keys_of_a_large_share_that_no_pass_can_divide_are_an_error() -> None:
    keys = np.arange(40, dtype=np.uint64)[:, None]
    with pytest.raises(CountingError, match="share the first 48 bits"):
        aggregate_gathered([tagged(keys)], 1, 1, 4, subpartition_records=4)


@pytest.mark.parametrize("words", WIDTHS)
def test_partitions_leave_nothing_behind_for_the_next_ones(words: int) -> None:
    buffers = Buffers()

    def check(seed: int, partition_bits: int, share: int = 100) -> None:
        pieces = [
            random_records(seed, 300, 200 * seed, words, bare=True, prefix_bits=partition_bits),
            random_records(seed, 50, 200, words, prefix_bits=partition_bits),
        ]
        check_gathered(pieces, words, partition_bits, 64, share, buffers)

    for seed in (1, 9, 2, 3):
        check(seed, 6)
        check(seed, 3)
    check(5, 6, 1 << 16)
    worse = [random_records(1, 900, 900, words, bare=True, prefix_bits=6), twice_crafted(words)]
    with pytest.raises(CountingError, match="another seed"):
        aggregate_gathered(worse, words, 6, 64, 1 << 16, buffers)
    for seed in (9, 1):
        check(seed, 6, 1 << 16)


def test_too_large_subpartitions_are_told_and_the_others_counted() -> None:
    keys = mixed(np.arange(400), 2, 3)
    keys[:, 0] |= np.repeat([0, 1, 2, 3], [20, 200, 30, 150]).astype(np.uint64) << np.uint64(61)
    # The first bit of the partition is that of all its records: 0.
    records = tagged(keys, np.full(100, 4))
    parts = subpartitions([records], 1, 2)
    table, tally, pairs = PlainParts(2, 100, Buffers()), Tally(), np.zeros(1, np.int64)
    assert list(table.count(*parts, range(4), tally, pairs)) == [1, 3]
    assert as_counter(tally.spectrum()) == {(1, 1): 50}
    assert list(table.count(*parts, range(2, 3), tally, pairs)) == []
    assert as_counter(tally.spectrum()) == {(1, 1): 80}


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("most", [100, 22_222, MOST_RECORDS])
def test_the_tables_take_as_many_bytes_as_said(words: int, most: int) -> None:
    held = PlainParts(words, most, Buffers()).nbytes
    assert 0 <= held - table_bytes(words, most) <= 8 * (1 + 16)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("partition_bits", [1, 6])
def test_kernels_run_as_plain_python_with_the_same_result(
    words, partition_bits, monkeypatch
) -> None:
    pieces = [
        tagged(mixed(np.arange(400) % 90 // 2, words, partition_bits), np.full(100, 4)),
        random_records(3, 20, 120, words, prefix_bits=partition_bits),
        tagged(mixed(np.arange(1500) % 1400, words, partition_bits), np.full(3, 500)),
    ]
    compiled = aggregate_gathered(pieces, words, partition_bits, 64)
    counting_cases.run_counting_as_plain_python(monkeypatch)
    with np.errstate(over="ignore"):
        plain = aggregate_gathered(pieces, words, partition_bits, 64)
        assert all(map(np.array_equal, plain[0], compiled[0]))
        assert plain[1].tolist() == compiled[1].tolist()
        check_gathered(pieces, words, partition_bits)


@pytest.mark.parametrize("words", WIDTHS)
def test_plain_python_finds_crafted_keys_and_others_of_their_bucket(words, monkeypatch) -> None:
    counting_cases.run_counting_as_plain_python(monkeypatch, PROBE_LIMIT=16)
    with np.errstate(over="ignore"):
        check_gathered([tagged(np.repeat(crafted(16, words), 2, axis=0))], words)
        with pytest.raises(CountingError, match="another seed"):
            check_gathered([tagged(crafted(17, words))], words)
