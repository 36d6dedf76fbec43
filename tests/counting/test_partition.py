from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from counting_cases import WIDTHS, random_positions, random_records, rows_of, tagged
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting import partition as module
from tsstore.counting.arena import Arena, Empty
from tsstore.counting.hashing import HashRange
from tsstore.counting.partition import (
    MOST_RECORDS,
    SUBPARTITION_RECORDS,
    most_records,
    number_rows,
    order_by_group,
    restore_hashes,
    scatter,
    scatter_rows,
    subpartition_bits,
)
from tsstore.counting.records import LATER, Buffers, Records, SampleKeys

seeds = st.integers(0, 2**32)
some_positions = st.lists(st.integers(0, 9), max_size=30)


def numbered(
    seed: int, count: int, words: int, bare: bool, grouped: bool, prefix_bits: int = 0
) -> Records:
    """Records whose last word, counts and group tell their order; of samples of all sizes."""
    generator = np.random.default_rng(seed)
    keys = generator.integers(0, 2**64, (count, words), np.uint64)
    keys[:, 0] >>= np.uint64(prefix_bits)
    numbers = np.arange(1, count + 1, dtype=np.uint32)
    if words > 1:
        keys[:, -1] = numbers
    group = (numbers % 251).astype(np.uint8) if grouped else None
    if not bare:
        return Records(keys, numbers, numbers[::-1].copy(), group)
    positions = random_positions(seed, count)
    return Records(tagged(keys, positions).keys, group=group)


def random_rows(
    seed: int, positions: list[int] | None, words: int, groups: int = 0, count: int = 0
) -> SampleKeys:
    """Rows of samples of so many, or of so many samples of one, of few keys; some with memory."""
    generator = np.random.default_rng(seed)
    ends = None if positions is None else np.cumsum(np.array(positions, np.int64))
    count = count if positions is None else sum(positions)
    samples = count if positions is None else len(positions)
    keys = generator.integers(0, 2**64, (20, words), np.uint64)[generator.integers(0, 20, count)]
    group = generator.integers(0, groups, samples).astype(np.uint8) if groups else None
    spare = np.ones((count + 3, words), np.uint64) if seed % 2 else None
    return SampleKeys(keys, ends, group, spare)


def samples_of(rows: SampleKeys) -> np.ndarray:
    """The number of each row's sample, of which the first is 1."""
    if rows.ends is None:
        return np.arange(1, len(rows) + 1)
    return np.repeat(np.arange(1, len(rows.ends) + 1), np.diff(rows.ends, prepend=0))


def retagged(
    keys: np.ndarray, sample: np.ndarray, partition: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keys in a stable order of partitions, with the tags they have there; and their order."""
    order = np.argsort(partition, kind="stable")
    keys, sample, partition = keys[order], sample[order], partition[order]
    is_later = np.ones(len(keys), np.bool_)
    is_later[1:] = (sample[1:] != sample[:-1]) | (partition[1:] != partition[:-1])
    keys[:, 0] = (keys[:, 0] & ~LATER) | (is_later.astype(np.uint64) << np.uint64(63))
    return keys, order


def bits_of(keys: np.ndarray, bits: int, skipped_bits: int = 0) -> np.ndarray:
    """The number in so many bits of a hash, after so many others."""
    words = [(word << skipped_bits) % 2**64 >> 64 - bits for word in keys[:, 0].tolist()]
    return np.array(words, np.int64)


def offsets_of(partition: np.ndarray, bits: int) -> list[int]:
    return [0, *np.cumsum(np.bincount(partition, minlength=2**bits)).tolist()]


def assert_scattered(
    pieces: list[Records], bits: int, skipped_bits: int = 1, buffers: Buffers | None = None
) -> Records:
    """Compare with a stable sort by the bits; return the records."""
    scattered, offsets = scatter(pieces, bits, skipped_bits, buffers)
    keys = np.concatenate([piece.keys for piece in pieces])
    partition = bits_of(keys, bits, skipped_bits)
    if pieces[0].is_bare:
        sample = np.cumsum(keys[:, 0] >> np.uint64(63))
        expected, order = retagged(keys, sample, partition)
    else:
        order = np.argsort(partition, kind="stable")
        expected = keys[order]
    assert np.array_equal(scattered.keys, expected)
    for column, *parts in zip(
        scattered.columns[1:], *(piece.columns[1:] for piece in pieces), strict=True
    ):
        assert (column is None) == (parts[0] is None)
        if column is not None:
            assert column.tolist() == np.concatenate(parts)[order].tolist()
    assert offsets.dtype == np.int64
    assert offsets.tolist() == offsets_of(partition, bits)
    return scattered


# rows --------------------------------------------------------------------------------------


def check_rows(rows: SampleKeys, bits: int, empty: Empty = np.empty) -> Records:
    """Compare rows that become records with a stable sort by the bits; return the records."""
    keys = rows.keys.copy()
    records, offsets = scatter_rows(rows, bits, empty)
    partition = bits_of(keys, bits)
    expected, order = retagged(keys, samples_of(rows), partition)
    assert np.array_equal(records.keys, expected)
    assert records.is_bare
    assert offsets.dtype == np.int64
    assert offsets.tolist() == offsets_of(partition, bits)
    assert (records.group is None) == (rows.group is None)
    if records.group is not None and rows.group is not None:
        assert records.group.dtype == rows.group.dtype
        assert records.group.tolist() == rows.group[samples_of(rows)[order] - 1].tolist()
    assert np.array_equal(rows.keys, keys)
    for number in range(1 << bits):
        restored = restore_hashes(expected[offsets[number] : offsets[number + 1]], number, bits)
        assert np.array_equal(restored, keys[np.flatnonzero(partition == number)])
    return records


@given(
    seeds,
    st.one_of(some_positions, st.none()),
    st.integers(1, 8),
    st.sampled_from(WIDTHS),
    st.integers(0, 3),
)
def test_rows_become_records_that_tell_samples_apart(seed, positions, bits, words, groups) -> None:
    check_rows(random_rows(seed, positions, words, groups, count=100), bits)


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("groups", [0, 3])
@pytest.mark.parametrize("bits", [1, 12, 24])
def test_rows_are_scattered_by_few_bits_and_by_many(words: int, groups: int, bits: int) -> None:
    rows = random_rows(1, [5, 0, 900, 1, 1], words, groups)
    records, offsets = scatter_rows(rows, bits)
    assert len(offsets) == (1 << bits) + 1
    expected, _ = retagged(rows.keys, samples_of(rows), bits_of(rows.keys, bits))
    assert np.array_equal(records.keys, expected)


def test_groups_may_be_numbers_of_two_bytes() -> None:
    rows = random_rows(1, [3, 0, 4, 900], 2, 3)
    wide = SampleKeys(rows.keys, rows.ends, rows.group.astype(np.uint16) * np.uint16(300))
    assert set(check_rows(wide, 3).group.tolist()) <= {0, 300, 600}


@pytest.mark.parametrize("ends", [None, [0, 0, 0], []])
def test_no_rows_are_no_records(ends) -> None:
    ends = None if ends is None else np.array(ends, np.int64)
    records = check_rows(SampleKeys(np.empty((0, 2), np.uint64), ends), 3)
    assert len(records) == 0


def test_a_sample_that_shows_one_state_often_has_one_tag() -> None:
    rows = SampleKeys(np.full((70_000, 1), 2**64 - 1, np.uint64), np.array([5, 60_005, 70_000]))
    records = check_rows(rows, 4)
    assert np.flatnonzero(records.keys[:, 0] >> np.uint64(63)).tolist() == [0, 5, 60_005]


@given(
    seeds,
    st.lists(some_positions, min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from(WIDTHS),
    st.integers(0, 3),
)
def test_scattering_again_gives_what_scattering_all_blocks_at_once_does(
    seed, blocks, bits, more_bits, words, groups
) -> None:
    rows = [random_rows(seed + n, block, words, groups) for n, block in enumerate(blocks)]
    lengths = np.cumsum([0, *map(len, rows)])
    whole = SampleKeys(
        np.concatenate([block.keys for block in rows]),
        np.concatenate([block.ends + start for block, start in zip(rows, lengths, strict=False)]),
        np.concatenate([block.group for block in rows]) if groups else None,
    )
    expected, expected_offsets = scatter_rows(whole, bits + more_bits)
    scattered = [scatter_rows(block, bits) for block in rows]
    found = []
    for number in range(1 << bits):
        pieces = [records[ends[number] : ends[number + 1]] for records, ends in scattered]
        records, offsets = scatter(pieces, more_bits, bits)
        found.append(records)
        first = number << more_bits
        own = expected_offsets[first : first + (1 << more_bits) + 1]
        assert offsets.tolist() == (own - own[0]).tolist()
    assert np.array_equal(np.concatenate([records.keys for records in found]), expected.keys)
    if groups:
        own_groups = np.concatenate([records.group for records in found])
        assert np.array_equal(own_groups, expected.group)


@given(seeds, some_positions, st.integers(1, 8), st.sampled_from(WIDTHS))
def test_numbers_of_samples_take_the_place_of_the_bits_that_order(
    seed, positions, bits, words
) -> None:
    positions = positions[: 1 << bits]
    rows = random_rows(seed, positions, words)
    keys, ends = number_rows(rows, bits)
    partition = bits_of(rows.keys, bits)
    order = np.argsort(partition, kind="stable")
    expected = rows.keys[order]
    shift = np.uint64(64 - bits)
    sample = (samples_of(rows)[order] - 1).astype(np.uint64)
    expected[:, 0] = (expected[:, 0] & ((np.uint64(1) << shift) - np.uint64(1))) | (sample << shift)
    assert np.array_equal(keys, expected)
    assert ends.tolist() == offsets_of(partition, bits)


@pytest.mark.parametrize("bits", [1, 3, 10])
def test_there_are_no_more_numbers_than_the_bits_can_tell(bits: int) -> None:
    most = random_rows(1, [1] * (1 << bits), 2)
    keys, _ = number_rows(most, bits)
    assert set((keys[:, 0] >> np.uint64(64 - bits)).tolist()) == set(range(1 << bits))
    more = random_rows(1, [1] * ((1 << bits) + 1), 2)
    with pytest.raises(ValueError, match=f"expected {1 << bits} samples at most"):
        number_rows(more, bits)
    with pytest.raises(ValueError, match="and where they end"):
        number_rows(random_rows(1, None, 2, count=2), bits)


@pytest.mark.parametrize("bits", [0, -1, 25])
def test_rows_are_scattered_by_one_bit_at_least(bits: int) -> None:
    rows = random_rows(1, [1], 1)
    for order in (scatter_rows, number_rows):
        with pytest.raises(ValueError, match=f"{bits} bits to scatter by after 0; expected 1 to"):
            order(rows, bits)


def test_records_lie_in_the_memory_of_an_arena() -> None:
    arena = Arena()
    rows = random_rows(1, [2000, 0, 60_000], 2, 3)
    records = check_rows(rows, 6, arena.empty)
    keys, _ = number_rows(rows, 6, arena.empty)
    expected = keys.copy()
    taken = records.nbytes + keys.nbytes
    assert arena.free_bytes == 0
    del records, keys
    # Groups of one byte are too few to be kept.
    assert 0.9 * taken < arena.free_bytes <= taken
    check_rows(rows, 6, arena.empty)
    assert np.array_equal(number_rows(rows, 6, arena.empty)[0], expected)


@given(seeds, st.integers(1, 9), st.integers(0, 511))
def test_hashes_get_their_first_bit_again(seed, bits, number) -> None:
    number %= 1 << bits
    keys = np.random.default_rng(seed).integers(0, 2**64, (9, 2), np.uint64)
    expected = keys.copy()
    expected[:, 0] &= ~LATER
    expected[:, 0] |= np.uint64(2**63 if number >= 1 << (bits - 1) else 0)
    given_keys = keys.copy()
    assert np.array_equal(restore_hashes(keys, number, bits), expected)
    assert np.array_equal(keys, given_keys)


# records -----------------------------------------------------------------------------------


@given(
    seeds,
    st.lists(st.integers(0, 80), min_size=1, max_size=4),
    st.integers(0, 12),
    st.sampled_from([1, 8, 40]),
    st.sampled_from(WIDTHS),
    st.booleans(),
    st.booleans(),
)
def test_scatter_is_a_stable_sort_of_all_pieces(
    seed, counts, bits, skipped_bits, words, bare, grouped
) -> None:
    pieces = [numbered(seed + n, count, words, bare, grouped) for n, count in enumerate(counts)]
    assert_scattered(pieces, bits, skipped_bits)


@given(seeds, st.lists(st.integers(0, 80), min_size=1, max_size=4), st.integers(0, 12))
def test_records_with_counts_are_scattered_by_the_first_bits_too(seed, counts, bits) -> None:
    pieces = [numbered(seed + n, count, 2, False, True) for n, count in enumerate(counts)]
    assert_scattered(pieces, bits, 0)


@pytest.mark.parametrize("hash_word", [0, 2**63 - 1, 2**62])
@pytest.mark.parametrize("words", WIDTHS)
def test_all_records_may_fall_into_one_partition(hash_word: int, words: int) -> None:
    keys = np.full((50, words), hash_word, np.uint64)
    keys[:, 1:] = np.arange(50)[:, None]
    records = tagged(keys, np.array([20, 0, 30]))
    assert_scattered([records], 6)
    scattered, offsets = scatter([records], 6, 1)
    assert np.array_equal(scattered.keys, records.keys)
    assert np.count_nonzero(np.diff(offsets)) == 1


@pytest.mark.parametrize("skipped_bits", [0, 1, 40, 64])
def test_no_bits_copy_a_single_piece_and_join_several(skipped_bits: int) -> None:
    for bare in {False, skipped_bits > 0}:
        one, other = (numbered(seed, 7, 2, bare, grouped=True) for seed in (1, 2))
        scattered, offsets = scatter([one], 0, skipped_bits)
        assert np.array_equal(scattered.keys, one.keys)
        assert rows_of(scattered) == rows_of(one)
        assert not np.shares_memory(scattered.keys, one.keys)
        assert offsets.tolist() == [0, 7]
        assert offsets.dtype == np.int64
        joined, offsets = scatter([one, other], 0, skipped_bits)
        assert np.array_equal(joined.keys, np.concatenate([one.keys, other.keys]))
        assert rows_of(joined) == rows_of(one) + rows_of(other)
        assert offsets.tolist() == [0, 14]


def test_the_last_bits_of_a_hash_can_be_ordered_by() -> None:
    keys = np.array([[3], [2], [1], [0], [3]], np.uint64)
    records = tagged(keys)
    scattered, offsets = scatter([records], 2, 62)
    assert (scattered.keys.ravel() & ~LATER).tolist() == [0, 1, 2, 3, 3]
    assert offsets.tolist() == [0, 1, 2, 3, 5]


def test_scatter_leaves_its_input_alone() -> None:
    records = numbered(2, 100, 1, bare=True, grouped=False)
    keys = records.keys.copy()
    records.keys.setflags(write=False)
    scattered, _ = scatter([records], 4, 1)
    assert np.array_equal(records.keys, keys)
    assert not np.shares_memory(scattered.keys, records.keys)


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.booleans(), st.booleans(), st.sampled_from(WIDTHS)),
        max_size=6,
    )
)
def test_what_buffers_held_before_changes_nothing(kinds) -> None:
    buffers = Buffers()
    for seed, (count, bare, grouped, words) in enumerate(kinds):
        assert_scattered([numbered(seed, count, words, bare, grouped)] * 2, 4, 1, buffers)


def test_records_lie_in_buffers_until_the_next_ones_of_their_kind() -> None:
    buffers = Buffers()
    bare, counted = (numbered(1, 50, 2, kind, grouped=True) for kind in (True, False))
    first, others = (assert_scattered([kind], 3, 1, buffers) for kind in (bare, counted))
    rows = rows_of(others)
    again = assert_scattered([bare[:40]], 3, 1, buffers)
    assert np.shares_memory(first.keys, again.keys)
    assert np.shares_memory(first.group, again.group)
    assert rows_of(others) == rows


@pytest.mark.parametrize(("bits", "skipped_bits"), [(-1, 0), (25, 0), (5, 60), (1, 64)])
def test_wrong_bits_are_refused(bits: int, skipped_bits: int) -> None:
    message = f"{bits} bits to scatter by after {skipped_bits}; expected 0 to 24, within the hash"
    with pytest.raises(ValueError, match=message):
        scatter([Records.empty(1)], bits, skipped_bits)


def test_bare_records_are_not_scattered_by_their_tags() -> None:
    with pytest.raises(ValueError, match="a tag in the first bit"):
        scatter([Records.empty(1)], 3)
    assert_scattered([Records.empty(1)], 3)


# groups ------------------------------------------------------------------------------------


def check_ordered(
    records: Records, groups: int, hashes: HashRange, buffers: Buffers | None = None
) -> None:
    """Compare records in the order of groups with a stable sort of those in the range."""
    places = np.full((2, groups), 7, np.int64)
    ordered = order_by_group(records, groups, hashes, buffers or Buffers(), places)
    is_in = (records.keys[:, 0] >> hashes.shift) & hashes.mask == hashes.number
    group = records.group[is_in].astype(np.int64)
    expected, order = retagged(
        records.keys[is_in], np.cumsum(records.keys[:, 0] >> np.uint64(63))[is_in], group
    )
    if not records.is_bare:
        expected = records.keys[is_in][order]
        assert ordered.multiplicity[: len(group)].tolist() == (
            records.multiplicity[is_in][order].tolist()
        )
        assert ordered.incidence[: len(group)].tolist() == records.incidence[is_in][order].tolist()
    assert np.array_equal(ordered.keys[: len(group)], expected)
    ends = np.cumsum(np.bincount(group, minlength=groups))
    assert places.tolist() == [[0, *ends[:-1].tolist()], ends.tolist()]


@given(
    seeds,
    st.integers(0, 200),
    st.sampled_from(WIDTHS),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 7),
)
def test_records_are_brought_into_the_order_of_groups(
    seed, count, words, groups, bare, pass_bits, number
) -> None:
    records = random_records(seed, count, 40, words, bare=bare, groups=groups, prefix_bits=3)
    buffers = Buffers()
    for hashes in (HashRange.of(3, pass_bits, number % (1 << pass_bits)), HashRange.of(3)):
        check_ordered(records, groups, hashes, buffers)


def test_groups_that_are_not_there_are_refused() -> None:
    places = np.zeros((2, 2), np.int64)
    with pytest.raises(ValueError, match="group 2 of 2"):
        order_by_group(
            tagged(np.zeros((3, 1), np.uint64), group=np.arange(3, dtype=np.uint8)),
            2, HashRange.of(), Buffers(), places,
        )  # fmt: skip
    with pytest.raises(ValueError, match="do not tell groups apart"):
        order_by_group(tagged(np.zeros((3, 1), np.uint64)), 2, HashRange.of(), Buffers(), places)


# kernels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("bare", [False, True])
def test_kernels_run_as_plain_python_with_the_same_result(words, bare, monkeypatch) -> None:
    counting_cases.run_as_plain_python(monkeypatch, module)
    for grouped in (False, True):
        pieces = [numbered(seed, 30, words, bare, grouped) for seed in (3, 4)]
        assert_scattered(pieces, 3)
        assert_scattered(pieces, 2, 62)
        check_rows(random_rows(1, [3, 0, 40, 1], words, 3 * grouped), 3)
        check_rows(random_rows(1, None, words, 3 * grouped, count=30), 3)
    records = random_records(3, 40, 20, words, bare=bare, groups=3, prefix_bits=1)
    for hashes in (HashRange.of(1, 1, 0), HashRange.of()):
        check_ordered(records, 3, hashes)


@pytest.mark.parametrize("words", WIDTHS)
def test_plain_python_numbers_samples_with_the_same_result(words, monkeypatch) -> None:
    rows = random_rows(1, [3, 0, 40, 1], words)
    compiled = number_rows(rows, 2)
    counting_cases.run_as_plain_python(monkeypatch, module)
    assert all(map(np.array_equal, number_rows(rows, 2), compiled))


# sizes -------------------------------------------------------------------------------------


def test_a_share_has_about_as_many_records_as_wished() -> None:
    for records in (0, 1, 1000, 10**5, 10**7):
        bits = subpartition_bits(records, 1000)
        assert records <= 1000 * 2**bits or bits == 12
        assert bits == 0 or records > 1000 * 2 ** (bits - 1)
    assert subpartition_bits(2**40) == 12


def test_bits_grow_when_shares_are_full() -> None:
    bits = [subpartition_bits(records, 8) for records in (8, 9, 16, 17, 32, 33)]
    assert bits == [0, 1, 1, 2, 2, 3]
    assert subpartition_bits(SUBPARTITION_RECORDS) == 0
    assert subpartition_bits(SUBPARTITION_RECORDS + 1) == 1


def test_a_share_is_large_beyond_twice_what_it_is_to_have_or_16_bits_can_number() -> None:
    assert most_records(8) == 16
    assert most_records(SUBPARTITION_RECORDS) == most_records(1 << 20) == MOST_RECORDS == 2**16 - 1
