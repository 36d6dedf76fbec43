from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    as_counter,
    crafted,
    mixed,
    of_each_shape,
    random_records,
    spectrum_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting.partition import most_records, subpartitions
from tsstore.counting.records import Buffers, Records
from tsstore.counting.tables import aggregate as aggregating
from tsstore.counting.tables import packed as module
from tsstore.counting.tables.packed import PackedParts
from tsstore.counting.tables.spectra import Tally
from tsstore.errors import CountingError


def aggregate_gathered(*args, **options) -> tuple:
    return aggregating.aggregate_gathered(*args, **options)[0]


@pytest.fixture
def small_tables(monkeypatch) -> None:
    """Let tables begin with so few slots that they grow, and spill a few keys at a time."""
    monkeypatch.setattr(module, "_LEAST_SLOTS", 64)
    monkeypatch.setattr(module, "_SPILL_RECORDS", 4)


def twice_crafted(words: int) -> Records:
    return Records(np.repeat(crafted(5000, words), 2, axis=0))


def check_gathered(
    pieces: list[Records], words: int, partition_bits: int, slots: int = 64, share: int = 1 << 16
) -> None:
    found = aggregate_gathered(pieces, words, partition_bits, slots, share)
    assert as_counter(found) == spectrum_of(pieces)


@settings(max_examples=150)
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 200), max_size=4),
    st.integers(1, 300),
    st.sampled_from(WIDTHS),
    st.integers(0, 8),
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LEAST_SLOTS", 64)
        patch.setattr(module, "_SPILL_RECORDS", 4)
        check_gathered(pieces, words, partition_bits, share=share)


@of_each_shape
@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("share", [16, 500, 1 << 16])
def test_extreme_data_is_counted_as_any_other(ids, words, share, small_tables) -> None:
    keys = mixed(ids, words)
    check_gathered([Records(keys)], words, 0, share=share)
    twos = np.full(500, 2, np.uint32)
    check_gathered([Records(keys[:1500]), Records(keys[1500:], twos, twos)], words, 0, share=share)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("prefix_bits", [6, 10, 13])
@pytest.mark.parametrize("times", [62, 63, 64, 65, 126, 127, 1022, 1023, 1024, 1025, 2047, 5000])
def test_counts_too_large_for_a_slot_are_counted_exactly(words, prefix_bits, times) -> None:
    ids = np.concatenate([np.zeros(times, np.int64), np.repeat(np.arange(1, 9), 63), [9, 9, 10]])
    keys = mixed(np.random.default_rng(times).permutation(ids), words, prefix_bits)
    check_gathered([Records(keys)], words, prefix_bits)
    few = random_records(1, 5, 3, words, prefix_bits=prefix_bits)
    check_gathered([few, Records(keys)], words, prefix_bits)


@pytest.mark.parametrize("words", WIDTHS)
def test_more_keys_may_spill_than_are_passed_on_at_a_time(words: int, small_tables) -> None:
    keys = mixed(np.tile(np.arange(100), 200), words, 6)
    check_gathered([Records(keys)], words, 6)
    check_gathered([Records(np.sort(keys, axis=0))], words, 6)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("partition_bits", [0, 6, 10, 12])
def test_a_hash_of_zeros_is_one_like_any_other(words: int, partition_bits: int) -> None:
    keys = np.zeros((300, words), np.uint64)
    keys[200:, -1] = 1
    keys[250:, 0] = 2
    check_gathered([Records(keys)], words, partition_bits)
    check_gathered([Records(keys[:1])], words, partition_bits)
    ones = np.ones(300, np.uint32)
    check_gathered([Records(keys), Records(keys, ones, ones)], words, partition_bits)


def test_keys_that_differ_in_a_later_word_alone_stay_apart() -> None:
    for words in (2, 3, 5):
        keys = np.zeros((words, words), np.uint64)
        keys[np.arange(words), np.arange(words)] = 9
        keys[:, 0] = 9
        check_gathered([Records(np.concatenate([keys, keys[1:]]))], words, 6)


def test_counts_are_added_up_of_keys_that_are_bare_and_not() -> None:
    keys = mixed(np.arange(30), 2, 6)
    fives = np.full(10, 5, np.uint32)
    others = Records(keys[:10], fives, fives - np.uint32(2))
    bare = Records(np.concatenate([keys[5:], keys[5:7]]))
    found = aggregate_gathered([others, bare], 2, 6, 1 << 10)
    assert as_counter(found) == {(1, 1): 20, (5, 3): 5, (6, 4): 3, (7, 5): 2}


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


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("slots", [2, 16, 1 << 14])
def test_a_far_too_large_share_is_counted_in_passes(words: int, slots: int) -> None:
    dense = random_records(1, 600, 200, words, bare=True, prefix_bits=9)
    others = random_records(2, 50, 200, words, prefix_bits=9)
    sparse = Records(mixed(np.arange(300), words))
    check_gathered([dense, sparse, others], words, 0, slots, share=64)


def test_settling_what_is_alone_stops_and_begins_again(monkeypatch) -> None:
    paid = []
    of_part = module._move_counts

    def spy(*arguments) -> None:
        paid.append(bool(tables[0]._learnt[1]))
        of_part(*arguments)

    generator = np.random.default_rng(1)
    keys = generator.integers(0, 2**64, (64 * 60, 2), np.uint64)
    share = np.repeat(np.arange(64, dtype=np.uint64), 60)
    keys[:, 0] = keys[:, 0] >> np.uint64(6) | share << np.uint64(58)
    repeated = (share // 16 % 2 == 1) & (np.arange(len(share)) % 2 == 1)
    keys[repeated] = keys[np.flatnonzero(repeated) - 1]
    check_gathered([Records(keys)], 2, 0)
    tables = [PackedParts(2, 6, most_records(1 << 16))]
    counting_cases.run_as_plain_python(monkeypatch, module)
    monkeypatch.setattr(module, "_move_counts", spy)
    with np.errstate(over="ignore"):
        list(tables[0].count(*subpartitions([Records(keys)], 2, 0, 6), Tally()))
    # Each part tells the next one.
    assert paid == [True, *(share[::60] // 16 % 2 == 0).tolist()[:-1]]


@pytest.mark.parametrize("partition_bits", [0, 5, 12])
def test_no_records_give_an_empty_spectrum(partition_bits: int) -> None:
    for pieces in ([], [Records.empty(2)], [Records.empty(2, bare=False), Records.empty(2)]):
        check_gathered(pieces, 2, partition_bits)


@pytest.mark.parametrize("words", WIDTHS)
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    with pytest.raises(CountingError, match="another seed"):
        aggregate_gathered([twice_crafted(words)], words, 0, 1 << 20)


def test_keys_of_a_large_share_that_no_pass_can_divide_are_an_error() -> None:
    keys = np.arange(40, dtype=np.uint64)[:, None]
    with pytest.raises(CountingError, match="share the first 48 bits"):
        aggregate_gathered([Records(keys)], 1, 0, 4, subpartition_records=4)


@pytest.mark.parametrize("words", WIDTHS)
def test_partitions_leave_nothing_behind_for_the_next_ones(words, small_tables, monkeypatch):
    buffers = Buffers()

    def check(seed: int, partition_bits: int) -> None:
        pieces = [
            random_records(seed, 300, 200 * seed, words, bare=True, prefix_bits=partition_bits),
            random_records(seed, 50, 200, words, prefix_bits=partition_bits),
        ]
        found = aggregate_gathered(pieces, words, partition_bits, 64, 100, buffers)
        assert as_counter(found) == spectrum_of(pieces)

    for seed in (1, 9, 2, 3):
        check(seed, 6)
        check(seed, 3)
    check(5, 6)
    worse = [random_records(1, 900, 900, words, bare=True, prefix_bits=6), twice_crafted(words)]
    with pytest.raises(CountingError, match="another seed"):
        aggregate_gathered(worse, words, 6, 64, 1 << 16, buffers)
    for seed in (9, 1):
        check(seed, 6)


@pytest.mark.parametrize("words", WIDTHS)
def test_what_shares_have_in_common_may_differ_between_partitions(words: int) -> None:
    buffers = Buffers()
    alike = np.zeros((8, words), np.uint64)
    alike[:, 0] = np.arange(8, dtype=np.uint64) // 2 << np.uint64(56) | np.uint64(5)
    for prefix_bits in (10, 6, 8, 6):
        keys = alike[:2] if prefix_bits > 6 else alike
        found = aggregate_gathered([Records(keys)], words, prefix_bits, 64, 1 << 16, buffers)
        assert as_counter(found) == {(2, 2): len(keys) // 2}


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("partition_bits", [6, 10])
def test_kernels_run_as_plain_python_with_the_same_result(
    words, partition_bits, small_tables, monkeypatch
) -> None:
    pieces = [
        Records(mixed(np.arange(400) % 90 // 2, words, partition_bits)),
        random_records(3, 20, 120, words, prefix_bits=partition_bits),
        Records(mixed(np.zeros(1100, np.int64), words, partition_bits)),
    ]
    compiled = aggregate_gathered(pieces, words, partition_bits, 64)
    counting_cases.run_as_plain_python(monkeypatch, module)
    plain = aggregate_gathered(pieces, words, partition_bits, 64)
    assert all(map(np.array_equal, plain, compiled))
    check_gathered(pieces, words, partition_bits)
    monkeypatch.setattr(module, "PROBE_LIMIT", 3)
    with pytest.raises(CountingError, match="another seed"):
        aggregate_gathered([Records(np.repeat(crafted(5, words), 2, axis=0))], words, 6, 64)
