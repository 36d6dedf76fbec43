from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import partition as module
from tsstore.counting.partition import scatter
from tsstore.counting.records import Records


def random_records(seed: int, count: int, words: int, grouped: bool = False) -> Records:
    generator = np.random.default_rng(seed)
    keys = generator.integers(0, 2**64, (count, words), np.uint64)
    # Numbered, so that the order within a partition shows.
    numbers = np.arange(1, count + 1, dtype=np.uint32)
    group = (numbers % 251).astype(np.uint8) if grouped else None
    return Records(keys, numbers, numbers[::-1].copy(), group)


def assert_scattered(records: Records, bits: int) -> None:
    """Compare with a stable sort by the top bits."""
    scattered, offsets = scatter(records, bits)
    partitions = (records.keys[:, 0] >> np.uint64(64 - bits)).astype(np.int64)
    order = np.argsort(partitions, kind="stable")
    assert np.array_equal(scattered.keys, records.keys[order])
    assert np.array_equal(scattered.multiplicity, records.multiplicity[order])
    assert np.array_equal(scattered.incidence, records.incidence[order])
    if records.group is None:
        assert scattered.group is None
    else:
        assert np.array_equal(scattered.group, records.group[order])
    assert offsets.dtype == np.int64
    counts = np.bincount(partitions, minlength=2**bits)
    assert offsets.tolist() == [0, *np.cumsum(counts).tolist()]
    assert scattered.rows == records.rows


@settings(deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(0, 300),
    st.integers(1, 12),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_scatter_is_a_stable_sort_by_the_top_bits(seed, count, bits, words, grouped) -> None:
    assert_scattered(random_records(seed, count, words, grouped), bits)


@pytest.mark.parametrize("hash_word", [0, 2**64 - 1, 2**63])
def test_all_records_may_fall_into_one_partition(hash_word: int) -> None:
    keys = np.full((50, 2), hash_word, np.uint64)
    keys[:, 1] = np.arange(50)
    records = Records.bare(keys)
    assert_scattered(records, 6)
    scattered, offsets = scatter(records, 6)
    assert np.array_equal(scattered.keys, keys)
    assert np.count_nonzero(np.diff(offsets)) == 1


def test_no_bits_return_the_records_themselves() -> None:
    records = random_records(1, 7, 2)
    scattered, offsets = scatter(records, 0)
    assert scattered is records
    assert offsets.tolist() == [0, 7]
    assert offsets.dtype == np.int64


def test_scatter_leaves_its_input_alone() -> None:
    records = random_records(2, 100, 1)
    keys = records.keys.copy()
    scattered, _ = scatter(records, 4)
    assert np.array_equal(records.keys, keys)
    assert not np.shares_memory(scattered.keys, records.keys)


@pytest.mark.parametrize("bits", [-1, 25])
def test_wrong_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"{bits} bits to scatter by; expected 0 to 24"):
        scatter(Records.empty(1), bits)


@pytest.mark.parametrize("words", [1, 2])
def test_kernels_run_as_plain_python_with_the_same_result(words: int, monkeypatch) -> None:
    records = random_records(3, 60, words)
    for name in ("_count", "_move"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    assert_scattered(records, 3)
    assert_scattered(random_records(3, 60, words, grouped=True), 3)
