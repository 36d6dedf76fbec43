from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting.keys import KeyScheme

seeds = st.integers(0, 2**64)


def random_rows(seed: int, count: int, row_bytes: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, row_bytes), dtype=np.uint8)


def counting_rows(count: int, row_bytes: int, at: int = 0) -> np.ndarray:
    """The integers 0, 1, … in two bytes of rows that are 0 elsewhere."""
    rows = np.zeros((count, row_bytes), np.uint8)
    rows[:, at : at + 2] = np.arange(count, dtype="<u2").view(np.uint8).reshape(-1, 2)
    return rows


def crafted_rows(row_bytes: int, craft: str) -> np.ndarray:
    """50,000 different rows that a table would hate if it knew how they are hashed."""
    count = 50_000
    if craft == "first bytes":
        return counting_rows(count, row_bytes)
    if craft == "last bytes":
        return counting_rows(count, row_bytes, row_bytes - 2)
    if craft == "equal halves":
        halves = counting_rows(count, row_bytes)
        halves[:, row_bytes // 2 : row_bytes // 2 + 2] = halves[:, :2]
        return halves
    # Keys that another analysis would have: equal in their lower or upper half, or all in word 0.
    other = KeyScheme.create(row_bytes, seed=99, exact=True)
    keys = np.zeros((count, other.words), np.uint64)
    keys[:, 0] = np.arange(count, dtype=np.uint64) << np.uint64(32 if craft == "low bits" else 0)
    if craft == "one hash":
        keys[:, 0], keys[:, 1] = 0, np.arange(count)
    return other.rows(keys)


def chi_square(bits: np.ndarray) -> float:
    """How far 256 equally likely outcomes are from equally frequent, in standard deviations."""
    mean = len(bits) / 256
    histogram = np.bincount(bits.astype(np.uint8), minlength=256)
    # 255 degrees of freedom: mean 255, variance 510.
    return float((((histogram - mean) ** 2 / mean).sum() - 255) / np.sqrt(510))


def expected_exact(row_bytes: int, exact: bool) -> tuple[int, bool]:
    """Words of a key, and whether it is exact."""
    if row_bytes <= 16:
        return (1 if row_bytes <= 8 else 2), True
    return (1 + -(-row_bytes // 8) if exact else 2), exact


@pytest.mark.parametrize("row_bytes", [*range(1, 42), 64, 255, 256, 4095, 4096, 10_001])
@pytest.mark.parametrize("exact", [False, True])
def test_words_of_a_key_follow_from_the_width_of_a_row(row_bytes: int, exact: bool) -> None:
    scheme = KeyScheme.create(row_bytes, 5, exact)
    keys = scheme.keys(random_rows(5, 3, row_bytes))
    assert (scheme.words, scheme.exact) == expected_exact(row_bytes, exact)
    assert keys.dtype == np.uint64
    assert keys.shape == (3, scheme.words)
    assert keys.flags.c_contiguous


@settings(deadline=None, max_examples=200)
@given(seeds, st.integers(1, 70), st.integers(0, 9))
def test_rows_come_back_from_exact_keys(seed, row_bytes, count) -> None:
    scheme = KeyScheme.create(row_bytes, seed, exact=True)
    rows = random_rows(seed, count, row_bytes)
    keys = scheme.keys(rows)
    recovered = scheme.rows(keys)
    assert recovered.dtype == np.uint8
    assert recovered.shape == rows.shape
    assert recovered.flags.c_contiguous
    assert recovered.flags.writeable
    assert not np.shares_memory(recovered, keys)
    assert np.array_equal(recovered, rows)


@pytest.mark.parametrize("row_bytes", range(1, 17))
@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
def test_extreme_rows_come_back_from_their_keys(row_bytes: int, value: int) -> None:
    scheme = KeyScheme.create(row_bytes)
    rows = np.full((3, row_bytes), value, np.uint8)
    rows[1, -1] ^= 255
    assert np.array_equal(scheme.rows(scheme.keys(rows)), rows)


@pytest.mark.parametrize("row_bytes", [3, 8, 13, 16, 30])
def test_rows_come_back_from_keys_of_any_layout(row_bytes: int) -> None:
    scheme, rows = KeyScheme.create(row_bytes, 1, exact=True), random_rows(3, 20, row_bytes)
    keys = scheme.keys(rows)
    keys.flags.writeable = False
    assert np.array_equal(scheme.rows(keys[::3]), rows[::3])
    assert np.array_equal(scheme.rows(np.asfortranarray(keys)), rows)


@pytest.mark.parametrize("row_bytes", [24, 33])
def test_wide_exact_keys_are_a_hash_and_the_padded_row(row_bytes: int) -> None:
    rows = random_rows(8, 10, row_bytes)
    exact, fingerprint = (KeyScheme.create(row_bytes, 8, choice) for choice in (True, False))
    padded = np.zeros((10, 8 * (exact.words - 1)), np.uint8)
    padded[:, :row_bytes] = rows
    assert np.array_equal(exact.keys(rows)[:, 1:], padded.view("<u8"))
    assert np.array_equal(exact.keys(rows)[:, 0], fingerprint.keys(rows)[:, 0])


@settings(deadline=None)
@given(seeds, seeds, st.integers(1, 40), st.booleans())
def test_equal_rows_and_no_others_have_equal_keys_whatever_the_seed(
    seed, other, row_bytes, exact
) -> None:
    distinct = np.unique(random_rows(seed, 30, row_bytes), axis=0)
    choice = np.random.default_rng(other).integers(0, len(distinct), 100)
    are_equal = choice[:, np.newaxis] == choice
    for each in (seed, other):
        keys = KeyScheme.create(row_bytes, each, exact).keys(distinct[choice])
        assert np.array_equal((keys[:, np.newaxis] == keys).all(axis=2), are_equal)


@pytest.mark.parametrize("row_bytes", [3, 8, 11, 16, 19, 24, 32, 57])
def test_every_bit_of_a_row_changes_its_key(row_bytes: int) -> None:
    bits = np.eye(8 * row_bytes, dtype=np.uint8)
    rows = np.vstack([np.packbits(bits, axis=1), np.zeros((1, row_bytes), np.uint8)])
    keys = KeyScheme.create(row_bytes, 1).keys(rows)
    assert len(np.unique(keys, axis=0)) == len(rows)
    assert len(np.unique(keys[:, 0])) == len(rows)


@pytest.mark.parametrize("row_bytes", [1, 5, 8, 13, 16, 32, 33])
@pytest.mark.parametrize("exact", [False, True])
def test_rows_may_begin_anywhere_in_a_buffer_and_be_read_only(row_bytes: int, exact: bool) -> None:
    rows, scheme = random_rows(2, 20, row_bytes), KeyScheme.create(row_bytes, 9, exact)
    keys = scheme.keys(rows)
    for offset in range(16):
        # Memory after the last row is not that of another row.
        buffer = np.full(rows.size + offset, 0xFF, np.uint8)
        buffer[offset:] = rows.ravel()
        buffer.flags.writeable = False
        assert np.array_equal(scheme.keys(buffer[offset:].reshape(rows.shape)), keys)


@pytest.mark.parametrize("row_bytes", [3, 8, 12, 16, 24])
@pytest.mark.parametrize("exact", [False, True])
def test_keys_are_written_where_the_caller_wants_them(row_bytes: int, exact: bool) -> None:
    scheme, rows = KeyScheme.create(row_bytes, 4, exact), random_rows(4, 9, row_bytes)
    buffer = np.full((11, scheme.words), 7, np.uint64)
    out = buffer[1:10]
    assert scheme.keys(rows, out) is out
    assert np.array_equal(out, scheme.keys(rows))
    assert np.all(buffer[[0, 10]] == 7)


def test_a_place_for_keys_that_does_not_fit_is_refused() -> None:
    scheme, rows = KeyScheme.create(12, 0), random_rows(0, 4, 12)
    sealed = np.zeros((4, 2), np.uint64)
    sealed.flags.writeable = False
    unaligned = np.zeros(65, np.uint8)[1:].view(np.uint64).reshape(4, 2)
    for out in (
        sealed,
        unaligned,
        np.zeros((2, 4), np.uint64).T,
        np.zeros((4, 4), np.uint64)[:, ::2],
    ):
        with pytest.raises(ValueError, match=r"out is .* C-contiguous, aligned and writable"):
            scheme.keys(rows, out)
    for shape in ((3, 2), (4, 1), (8,)):
        with pytest.raises(ValueError, match=r"expected uint64 \(4, 2\)"):
            scheme.keys(rows, np.zeros(shape, np.uint64))
    with pytest.raises(ValueError, match="out is int64"):
        scheme.keys(rows, np.zeros((4, 2), np.int64))


@pytest.mark.parametrize("row_bytes", [8, 16, 24])
def test_a_seed_gives_the_same_keys_and_others_give_others(row_bytes: int) -> None:
    rows = random_rows(0, 50, row_bytes)
    keys = KeyScheme.create(row_bytes, 1).keys(rows)
    assert np.array_equal(KeyScheme.create(row_bytes, 1).keys(rows), keys)
    assert not np.array_equal(KeyScheme.create(row_bytes, 2).keys(rows), keys)
    fresh, other = KeyScheme.create(row_bytes), KeyScheme.create(row_bytes)
    assert not np.array_equal(fresh.multipliers, other.multipliers)
    assert not np.array_equal(fresh.factors, other.factors)


@pytest.mark.parametrize(
    ("row_bytes", "addends"), [(1, 0), (16, 0), (17, 10), (24, 10), (32, 10), (33, 12), (256, 38)]
)
def test_multipliers_are_odd_and_addends_as_many_as_a_row_needs(row_bytes, addends) -> None:
    for seed in range(20):
        scheme = KeyScheme.create(row_bytes, seed)
        assert np.all(scheme.multipliers % np.uint64(2) == 1)
        assert scheme.addends.shape == (addends,)
        assert scheme.factors.shape == (2, 2, 5)


@pytest.mark.parametrize("row_bytes", [2, 12, 40])
@pytest.mark.parametrize("exact", [False, True])
def test_a_scheme_can_be_pickled(row_bytes: int, exact: bool) -> None:
    scheme = KeyScheme.create(row_bytes, exact=exact)
    copy = pickle.loads(pickle.dumps(scheme))
    rows = random_rows(1, 10, row_bytes)
    assert (copy.row_bytes, copy.words, copy.exact) == (row_bytes, scheme.words, scheme.exact)
    assert np.array_equal(copy.keys(rows), scheme.keys(rows))


def test_a_scheme_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        KeyScheme.create(8).words = 2  # type: ignore[misc]


def test_collision_bound_is_zero_for_exact_keys_and_counts_pairs_for_fingerprints() -> None:
    assert KeyScheme.create(16, 0).collision_bound(10**18) == 0.0
    assert KeyScheme.create(17, 0, exact=True).collision_bound(10**18) == 0.0
    wide = KeyScheme.create(17, 0)
    assert wide.collision_bound(0) == wide.collision_bound(1) == 0.0
    assert wide.collision_bound(2) == 2.0**-126
    assert wide.collision_bound(10**9) == pytest.approx(10**18 / 2**127, rel=1e-8)
    assert wide.collision_bound(10**30) == 1.0


@pytest.mark.parametrize(
    ("row_bytes", "at"), [(8, 0), (8, 6), (16, 0), (16, 6), (16, 14), (24, 0), (24, 22)]
)
@pytest.mark.parametrize("shift", [0, 28, 56])
def test_hash_bits_of_counting_integers_are_flat(row_bytes: int, at: int, shift: int) -> None:
    rows = counting_rows(2**16, row_bytes, at)
    for seed in range(8):
        hashes = KeyScheme.create(row_bytes, seed).keys(rows)[:, 0]
        assert chi_square(hashes >> np.uint64(shift)) < 6


@pytest.mark.parametrize(
    ("row_bytes", "craft"),
    [
        *product([8, 12, 16, 24, 32, 64], ["first bytes", "last bytes", "equal halves"]),
        *product([8, 12, 16], ["low bits", "top bits"]),
        *product([12, 16], ["one hash"]),
    ],
)
def test_crafted_rows_spread_evenly_over_slots_and_partitions(row_bytes: int, craft: str) -> None:
    rows = crafted_rows(row_bytes, craft)
    for seed in range(3):
        hashes = KeyScheme.create(row_bytes, seed).keys(rows)[:, 0]
        for shift in (0, 8, 16, 40, 48, 56):
            assert chi_square(hashes >> np.uint64(shift)) < 6
        for slots in (hashes & np.uint64(2**17 - 1), hashes >> np.uint64(64 - 17)):
            # A Poisson variable of mean 0.38 is above 11 in 2**17 draws with probability 1e-7.
            assert np.bincount(slots.astype(np.int64)).max() <= 11


def test_a_pair_of_wide_rows_collides_in_a_lane_as_often_as_proven() -> None:
    rows = np.zeros((2, 24), np.uint8)
    rows[1, 20] = 1
    trials = 4000
    keys = np.array([KeyScheme.create(24, seed).keys(rows) for seed in range(trials)])
    top = keys >> np.uint64(60)
    collisions = (top[:, 0] == top[:, 1]).sum(axis=0)
    tolerance = 5 * np.sqrt(trials / 16 * 15 / 16)
    assert np.all(np.abs(collisions - trials / 16) < tolerance)
    both = (top[:, 0] == top[:, 1]).all(axis=1).sum()
    assert abs(both - trials / 256) < 5 * np.sqrt(trials / 256)


def test_wrong_rows_are_refused() -> None:
    scheme = KeyScheme.create(4, 0)
    with pytest.raises(ValueError, match=r"expected uint8 \(n, 4\)"):
        scheme.keys(np.zeros((3, 5), np.uint8))
    with pytest.raises(ValueError, match="rows are int8"):
        scheme.keys(np.zeros((3, 4), np.int8))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        scheme.keys(np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="ascontiguousarray"):
        scheme.keys(np.zeros((3, 8), np.uint8)[:, ::2])
    with pytest.raises(ValueError, match="at least 1"):
        KeyScheme.create(0)


def test_wrong_keys_are_refused() -> None:
    scheme = KeyScheme.create(9, 0)
    for wrong in (np.zeros((3, 1), np.uint64), np.zeros((3, 2), np.int64), np.zeros(2, np.uint64)):
        with pytest.raises(ValueError, match=r"expected uint64 \(n, 2\)"):
            scheme.rows(wrong)
    with pytest.raises(ValueError, match=r"fingerprints of rows of 17 bytes.*exact=True"):
        KeyScheme.create(17, 0).rows(np.zeros((3, 2), np.uint64))
