from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import aggregate as module
from tsstore.counting.aggregate import Table, aggregate, slot_bytes, spectrum_counts
from tsstore.counting.keys import KeyScheme
from tsstore.counting.merge import merge_records, merge_samples
from tsstore.counting.partition import scatter
from tsstore.counting.records import Records
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)
KERNELS = ("_find", "_absorb", "_rehash", "_count_pairs")


def mixed(ids: np.ndarray, words: int) -> np.ndarray:
    """Keys of which every distinct id has its own, of bits that look random."""
    keys = np.random.default_rng(7).integers(
        0, 2**64, (int(ids.max(initial=0)) + 1, words), np.uint64
    )
    return keys[ids]


def random_records(seed: int, count: int, distinct: int, words: int) -> Records:
    generator = np.random.default_rng(seed)
    incidence = generator.integers(1, 9, count).astype(np.uint32)
    keys = mixed(generator.integers(0, distinct, count), words)
    return Records(keys, incidence * np.uint32(2), incidence)


def totals(records: Records) -> dict[tuple, tuple[int, int]]:
    """Multiplicity and incidence of each key, by a dictionary."""
    sums: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(2, np.int64))
    counts = np.column_stack([records.multiplicity, records.incidence]).astype(np.int64)
    for key, pair in zip(map(tuple, records.keys.tolist()), counts, strict=True):
        sums[key] += pair
    return {key: (int(k), int(q)) for key, (k, q) in sums.items()}


def table_contents(table: Table) -> dict[tuple, tuple[int, int]]:
    keys, multiplicity, incidence = table.occupied()
    assert keys.dtype == np.uint64
    assert multiplicity.dtype == incidence.dtype == np.int64
    assert len(keys) == table.distinct
    counts = zip(multiplicity.tolist(), incidence.tolist(), strict=True)
    return dict(zip(map(tuple, keys.tolist()), counts, strict=True))


def as_counter(spectrum: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Counter:
    k, q, states = spectrum
    assert k.dtype == q.dtype == states.dtype == np.int64
    pairs = list(zip(k.tolist(), q.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    return Counter(dict(zip(pairs, states.tolist(), strict=True)))


def true_spectrum(rows: np.ndarray, positions: list[int]) -> Counter:
    """The spectrum by its definition: a Counter of rows, and a set of rows for each sample."""
    contents = [row.tobytes() for row in rows]
    multiplicity = Counter(contents)
    incidence: Counter = Counter()
    start = 0
    for count in positions:
        incidence.update(set(contents[start : start + count]))
        start += count
    return Counter((multiplicity[state], incidence[state]) for state in multiplicity)


def counted_spectrum(
    rows: np.ndarray, positions: list[int], bits: int, slots: int, seed: int, merge: bool
) -> Counter:
    """The spectrum by the whole chain, in blocks of three samples."""
    scheme = KeyScheme.create(rows.shape[1], seed)
    ends = np.cumsum([0, *positions])
    blocks = []
    for first in range(0, len(positions), 3):
        part = np.array(positions[first : first + 3], np.int64)
        keys = scheme.keys(rows[ends[first] : ends[first + len(part)]])
        records, _ = merge_samples(keys, part)
        records = merge_records(records) if merge else records
        assert records.rows == part.sum()
        blocks.append(scatter(records, bits))
    spectrum: Counter = Counter()
    for partition in range(2**bits):

        def slices(partition: int = partition):
            for records, offsets in blocks:
                yield records[offsets[partition] : offsets[partition + 1]]

        spectrum += as_counter(aggregate(slices, scheme.words, bits, slots))
    return spectrum


def rows_of_states(seed: int, count: int, distinct: int, row_bytes: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    states = generator.integers(0, 256, (distinct, row_bytes), dtype=np.uint8)
    return states[generator.integers(0, distinct, count)]


# the whole chain ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    seeds,
    st.integers(1, 40),
    st.lists(st.integers(0, 12), max_size=10),
    st.integers(1, 60),
    st.integers(0, 3),
    st.sampled_from([8, 16, 64, 1024]),
    st.booleans(),
)
def test_the_whole_chain_counts_as_a_counter_does(
    seed, row_bytes, positions, distinct, bits, slots, merge
) -> None:
    rows = rows_of_states(seed, sum(positions), distinct, row_bytes)
    spectrum = counted_spectrum(rows, positions, bits, slots, seed, merge)
    assert spectrum == true_spectrum(rows, positions)
    assert sum(k * states for (k, _), states in spectrum.items()) == len(rows)


@pytest.mark.parametrize("row_bytes", [3, 8, 16, 24])
@pytest.mark.parametrize("slots", [256, 1 << 20])
@pytest.mark.parametrize(
    "ids",
    [
        np.zeros(4000, np.int64),
        np.arange(4000),
        np.arange(4000) % 2,
        np.sort(np.arange(4000) % 900),
        np.where(np.arange(4000) % 100 == 0, np.arange(4000), 0),
    ],
    ids=["all equal", "all distinct", "two states", "sorted", "one state 99 %"],
)
def test_extreme_data_is_counted_as_any_other(ids, slots, row_bytes) -> None:
    rows = np.zeros((len(ids), row_bytes), np.uint8)
    rows[:, -2:] = ids.astype("<u2").view(np.uint8).reshape(-1, 2)
    positions = [1000, 1, 0, 999, 2000]
    expected = true_spectrum(rows, positions)
    assert counted_spectrum(rows, positions, 2, slots, 1, merge=True) == expected
    assert counted_spectrum(rows, positions, 0, slots, None, merge=False) == expected


# the table ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(seeds, st.integers(0, 300), st.integers(1, 200), st.sampled_from([1, 2]))
def test_a_table_holds_the_totals_of_each_key(seed, count, distinct, words) -> None:
    records = random_records(seed, count, distinct, words)
    table = Table(words, 1 << 20, initial_slots=2)
    half = count // 2
    assert table.add(records[:half])
    assert table.add(records[half:])
    expected = totals(records)
    assert table_contents(table) == expected
    assert as_counter(table.spectrum()) == Counter(expected.values())


@settings(deadline=None)
@given(seeds, st.integers(0, 3), st.integers(0, 4))
def test_the_shares_of_all_passes_make_up_the_whole(seed, partition_bits, pass_bits) -> None:
    records = random_records(seed, 100, 80, 1)
    # All keys of one partition: only their first bits are the same.
    records.keys[:] >>= np.uint64(partition_bits)
    union: dict[tuple, tuple[int, int]] = {}
    for index in range(2**pass_bits):
        table = Table(1, 1024, partition_bits=partition_bits, pass_bits=pass_bits, pass_index=index)
        assert table.add(records)
        share = table_contents(table)
        shift = 64 - partition_bits - pass_bits
        assert all((key >> shift) % 2**pass_bits == index for (key,) in share)
        assert not union.keys() & share.keys()
        union |= share
    assert union == totals(records)


@pytest.mark.parametrize("words", [1, 2])
def test_a_table_doubles_up_to_its_maximum_and_no_further(words: int) -> None:
    table = Table(words, 40, initial_slots=4)
    records = Records.bare(mixed(np.arange(17), words))
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
    assert Table(2, 1 << 20, initial_slots=3).nbytes == 2 * slot_bytes(2)


def test_an_empty_table_is_empty() -> None:
    table = Table(2, 16)
    assert table.add(Records.empty(2))
    assert table.distinct == 0
    assert table_contents(table) == {}
    assert as_counter(table.spectrum()) == Counter()


def test_counts_of_a_table_go_beyond_32_bits() -> None:
    most = np.full(4, 2**32 - 1, np.uint32)
    table = Table(1, 16)
    assert table.add(Records(np.zeros((4, 1), np.uint64), most, most))
    assert table_contents(table) == {(0,): (4 * (2**32 - 1), 4 * (2**32 - 1))}


def test_keys_that_differ_in_their_second_word_alone_stay_apart() -> None:
    keys = np.array([[5, 1], [5, 2], [5, 1]], np.uint64)
    table = Table(2, 16)
    assert table.add(Records.bare(keys))
    assert table_contents(table) == {(5, 1): (2, 2), (5, 2): (1, 1)}


def test_a_table_of_less_than_two_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="a table of 1 slots; expected at least 2"):
        Table(1, 1)
    with pytest.raises(ValueError, match="at least 2"):
        Table(1, 16, initial_slots=0)
    with pytest.raises(ValueError, match="at least 2"):
        aggregate(list, 1, 0, 1)


def test_slot_bytes_are_a_key_and_two_counts() -> None:
    assert slot_bytes(1) == 24
    assert slot_bytes(2) == 32


@pytest.mark.parametrize("words", [1, 2])
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    keys = np.zeros((5000, words), np.uint64)
    keys[:, 0] = np.arange(5000, dtype=np.uint64) << np.uint64(40)
    with pytest.raises(CountingError, match="another seed"):
        Table(words, 1 << 20).add(Records.bare(keys))
    with pytest.raises(CountingError, match="4096 slots"):
        aggregate(lambda: [Records.bare(keys)], words, 0, 1 << 20)


# passes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("maximum_slots", [16, 100, 512, 1 << 14])
def test_a_table_that_outgrows_takes_more_passes_to_the_same_spectrum(maximum_slots, words) -> None:
    records = random_records(1, 2000, 1500, words)
    opened = []

    def slices():
        opened.append(1)
        return (records[start : start + 300] for start in range(0, 2000, 300))

    spectrum = as_counter(aggregate(slices, words, 0, maximum_slots))
    assert spectrum == Counter(totals(records).values())
    least = len(totals(records)) / (maximum_slots // 2)
    assert least <= len(opened) <= 12 * least + 1


def test_no_slices_give_an_empty_spectrum() -> None:
    assert as_counter(aggregate(list, 2, 5, 64)) == Counter()
    assert as_counter(aggregate(lambda: [Records.empty(1)], 1, 0, 2)) == Counter()


@pytest.mark.parametrize("top", [0, 2**30 - 1, 0x2AAAAAAA])
def test_passes_reach_bits_far_below_a_shared_prefix(top: int) -> None:
    keys = np.array([[(top << 34) + (low << 20) + low] for low in range(64)], np.uint64)
    spectrum = aggregate(lambda: [Records.bare(keys)], 1, 10, 32)
    assert as_counter(spectrum) == Counter({(1, 1): 64})


@pytest.mark.parametrize("top", [0, 2**48 - 1])
@pytest.mark.parametrize("partition_bits", [0, 10])
def test_keys_that_no_pass_can_divide_are_an_error(top: int, partition_bits: int) -> None:
    keys = np.array([[(top << 16) + low] for low in range(20)], np.uint64)
    with pytest.raises(CountingError, match="share the first 48 bits"):
        aggregate(lambda: [Records.bare(keys)], 1, partition_bits, 16)


# the spectrum ------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(1, 4), st.integers(250, 260), st.integers(1, 2**62)),
            st.one_of(st.integers(1, 4), st.integers(250, 260), st.integers(1, 2**62)),
        ),
        max_size=60,
    )
)
def test_spectrum_counts_are_a_counter_of_pairs(pairs) -> None:
    k, q = np.array(pairs, np.int64).reshape(-1, 2).T
    assert as_counter(spectrum_counts(k, q)) == Counter(pairs)
    assert as_counter(spectrum_counts(k.copy(), q.copy())) == Counter(pairs)


def test_spectrum_counts_ignore_what_never_occurred() -> None:
    k, q = np.array([0, 3, 0, 1000]), np.array([0, 2, 0, 1])
    assert as_counter(spectrum_counts(k, q)) == Counter({(3, 2): 1, (1000, 1): 1})


def test_spectrum_counts_of_many_states() -> None:
    generator = np.random.default_rng(0)
    k = generator.zipf(1.3, 50_000) % 10_000 + 1
    q = (k + 1) // 2
    expected = Counter(zip(k.tolist(), q.tolist(), strict=True))
    assert as_counter(spectrum_counts(k, q)) == expected


# kernels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [1, 2])
def test_kernels_run_as_plain_python_with_the_same_result(words: int, monkeypatch) -> None:
    records = random_records(9, 200, 90, words)
    compiled = Table(words, 1024, initial_slots=4)
    assert compiled.add(records)
    spectrum = aggregate(lambda: [records], words, 0, 32)
    for name in KERNELS:
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    plain = Table(words, 1024, initial_slots=4)
    assert plain.add(records)
    assert np.array_equal(plain._slots, compiled._slots)
    plain_spectrum = aggregate(lambda: [records], words, 0, 32)
    assert all(map(np.array_equal, plain_spectrum, spectrum))
    assert as_counter(spectrum_counts(*np.array([[0, 2, 300], [0, 1, 1]]))) == {
        (2, 1): 1,
        (300, 1): 1,
    }
    monkeypatch.setattr(module, "PROBE_LIMIT", 3)
    with pytest.raises(CountingError, match="another seed"):
        plain.add(
            Records.bare(
                np.full((5, words), 3, np.uint64) << np.arange(10, 60, 10, np.uint64)[:, None]
            )
        )
