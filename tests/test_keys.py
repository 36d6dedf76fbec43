from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import keys as module
from tsstore.counting.keys import KeyScheme

WORD = 2**64
seeds = st.integers(0, 2**64)


def random_rows(seed: int, count: int, row_bytes: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, row_bytes), dtype=np.uint8)


def counting_rows(count: int, row_bytes: int, at: int = 0) -> np.ndarray:
    """The integers 0, 1, … in two bytes of rows that are 0 elsewhere."""
    rows = np.zeros((count, row_bytes), np.uint8)
    rows[:, at : at + 2] = np.arange(count, dtype="<u2").view(np.uint8).reshape(-1, 2)
    return rows


def padded_words(rows: np.ndarray) -> np.ndarray:
    padded = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded.view("<u8").astype(np.uint64)


def mix(word: int, first: int, second: int) -> int:
    word = (word ^ (word >> 32)) * first % WORD
    word = (word ^ (word >> 32)) * second % WORD
    return word ^ (word >> 32)


def unmix(word: int, first: int, second: int) -> int:
    word = (word ^ (word >> 32)) * pow(second, -1, WORD) % WORD
    word = (word ^ (word >> 32)) * pow(first, -1, WORD) % WORD
    return word ^ (word >> 32)


def expected_keys(rows: np.ndarray, scheme: KeyScheme) -> list[list[int]]:
    """The definition of a key, in Python's own integers."""
    all_words = padded_words(rows).tolist()
    secrets = scheme.multipliers.tolist()
    if scheme.row_bytes <= 8:
        return [[mix(word, *secrets[:2])] for (word,) in all_words]
    if scheme.row_bytes <= 16:
        return [[mix(low ^ mix(high, *secrets[2:]), *secrets[:2]), high] for low, high in all_words]
    keys = []
    for words in all_words:
        lanes = []
        for lane in scheme.factors.tolist():
            (constant, *factors) = [(high << 64) + low for high, low in lane]
            total = constant + sum(f * word for f, word in zip(factors, words, strict=True))
            lanes.append(total % 2**128 >> 64)
        keys.append([mix(lanes[0], *secrets[:2]), lanes[1]])
    return keys


def multiply_add_in_python(high, low, key_high, key_low, word):
    total = (int(high) << 64) + int(low) + ((int(key_high) << 64) + int(key_low)) * int(word)
    return np.uint64(total % 2**128 >> 64), np.uint64(total % WORD)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 70), st.integers(0, 9))
def test_keys_are_what_their_definition_says(seed, row_bytes, count) -> None:
    scheme = KeyScheme.create(row_bytes, seed)
    rows = random_rows(seed, count, row_bytes)
    keys = scheme.keys(rows)
    assert keys.dtype == np.uint64
    assert keys.shape == (count, scheme.words)
    assert keys.flags.c_contiguous
    assert keys.tolist() == expected_keys(rows, scheme)


@pytest.mark.parametrize("row_bytes", [4095, 4096, 10_001])
def test_rows_may_be_very_wide(row_bytes: int) -> None:
    scheme = KeyScheme.create(row_bytes, 5)
    rows = random_rows(5, 3, row_bytes)
    assert scheme.keys(rows).tolist() == expected_keys(rows, scheme)


@settings(deadline=None)
@given(seeds, st.integers(1, 16), st.binary(min_size=16, max_size=16))
def test_rows_of_up_to_16_bytes_can_be_recovered_from_their_keys(seed, row_bytes, content) -> None:
    scheme = KeyScheme.create(row_bytes, seed)
    row = np.frombuffer(content[:row_bytes], np.uint8).reshape(1, -1)
    secrets = scheme.multipliers.tolist()
    hash_word, *high = scheme.keys(row)[0].tolist()
    low = unmix(hash_word, *secrets[:2])
    if high:
        low ^= mix(high[0], *secrets[2:])
    recovered = b"".join(word.to_bytes(8, "little") for word in [low, *high])
    assert scheme.exact
    assert recovered[:row_bytes] == content[:row_bytes]


@pytest.mark.parametrize("row_bytes", range(1, 41))
def test_equal_rows_and_no_others_have_equal_keys(row_bytes: int) -> None:
    distinct = np.unique(random_rows(row_bytes, 300, row_bytes), axis=0)
    choice = np.random.default_rng(row_bytes).integers(0, len(distinct), 1000)
    keys = KeyScheme.create(row_bytes, 3).keys(distinct[choice])
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    assert np.array_equal(choice[first][inverse.ravel()], choice)


@pytest.mark.parametrize("row_bytes", [3, 8, 11, 16, 19, 24])
def test_every_bit_of_a_row_changes_its_key(row_bytes: int) -> None:
    bits = np.eye(8 * row_bytes, dtype=np.uint8)
    rows = np.vstack([np.packbits(bits, axis=1), np.zeros((1, row_bytes), np.uint8)])
    keys = KeyScheme.create(row_bytes, 1).keys(rows)
    assert len(np.unique(keys, axis=0)) == len(rows)
    assert len(np.unique(keys[:, 0])) == len(rows)


@pytest.mark.parametrize("row_bytes", [5, 8, 13, 16, 32, 33])
@pytest.mark.parametrize("offset", [0, 1, 7])
def test_rows_may_begin_anywhere_in_a_buffer_and_be_read_only(row_bytes: int, offset: int) -> None:
    rows = random_rows(2, 20, row_bytes)
    buffer = np.zeros(rows.size + offset, np.uint8)
    buffer[offset:] = rows.ravel()
    buffer.flags.writeable = False
    scheme = KeyScheme.create(row_bytes, 9)
    assert np.array_equal(scheme.keys(buffer[offset:].reshape(rows.shape)), scheme.keys(rows))


def test_rows_of_whole_words_are_not_copied() -> None:
    rows = np.zeros(10, np.uint64).view(np.uint8).reshape(5, 16)
    assert np.shares_memory(module._row_words(rows), rows)


@pytest.mark.parametrize("row_bytes", [8, 16, 24])
def test_a_seed_gives_the_same_keys_and_others_give_others(row_bytes: int) -> None:
    rows = random_rows(0, 50, row_bytes)
    keys = KeyScheme.create(row_bytes, 1).keys(rows)
    assert np.array_equal(KeyScheme.create(row_bytes, 1).keys(rows), keys)
    assert not np.array_equal(KeyScheme.create(row_bytes, 2).keys(rows), keys)
    fresh, other = KeyScheme.create(row_bytes), KeyScheme.create(row_bytes)
    assert not np.array_equal(fresh.multipliers, other.multipliers)


@pytest.mark.parametrize(("row_bytes", "constants"), [(1, 0), (16, 0), (17, 4), (24, 4), (256, 33)])
def test_multipliers_are_odd_and_factors_as_many_as_a_row_needs(row_bytes, constants) -> None:
    for seed in range(20):
        scheme = KeyScheme.create(row_bytes, seed)
        assert np.all(scheme.multipliers % np.uint64(2) == 1)
        assert scheme.factors.shape == (2, constants, 2)


@pytest.mark.parametrize("row_bytes", [2, 12, 40])
def test_a_scheme_can_be_pickled(row_bytes: int) -> None:
    scheme = KeyScheme.create(row_bytes)
    copy = pickle.loads(pickle.dumps(scheme))
    rows = random_rows(1, 10, row_bytes)
    assert (copy.row_bytes, copy.words, copy.exact) == (row_bytes, scheme.words, scheme.exact)
    assert np.array_equal(copy.keys(rows), scheme.keys(rows))


def test_collision_bound_is_zero_for_exact_keys_and_counts_pairs_for_fingerprints() -> None:
    assert KeyScheme.create(16, 0).collision_bound(10**18) == 0.0
    wide = KeyScheme.create(17, 0)
    assert not wide.exact
    assert wide.collision_bound(0) == wide.collision_bound(1) == 0.0
    assert wide.collision_bound(2) == 2.0**-128
    assert wide.collision_bound(10**9) == pytest.approx(10**18 / 2 / 2**128, rel=1e-8)
    assert wide.collision_bound(10**30) == 1.0


@pytest.mark.parametrize(
    ("row_bytes", "at"), [(8, 0), (8, 6), (16, 0), (16, 6), (16, 14), (24, 0), (24, 22)]
)
@pytest.mark.parametrize("shift", [0, 28, 56])
def test_hash_bits_of_counting_integers_are_flat(row_bytes: int, at: int, shift: int) -> None:
    rows = counting_rows(2**16, row_bytes, at)
    for seed in range(8):
        hashes = KeyScheme.create(row_bytes, seed).keys(rows)[:, 0]
        histogram = np.bincount((hashes >> np.uint64(shift)).astype(np.uint8), minlength=256)
        chi_square = ((histogram - 256.0) ** 2 / 256).sum()
        # 255 degrees of freedom; a bound six standard deviations above their mean.
        assert chi_square < 255 + 6 * np.sqrt(2 * 255)


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


@pytest.mark.parametrize("row_bytes", [1, 3, 8, 9, 15, 16, 17, 24, 31])
def test_kernels_run_as_plain_python_with_the_same_result(row_bytes: int, monkeypatch) -> None:
    scheme = KeyScheme.create(row_bytes, 4)
    rows = random_rows(4, 6, row_bytes)
    compiled = scheme.keys(rows)
    monkeypatch.setattr(module, "multiply_add", multiply_add_in_python)
    for name in ("_assemble", "_mix", "_mix_single", "_mix_pairs", "_fingerprint_rows"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    with np.errstate(over="ignore"):  # unsigned products wrap around on purpose
        assert np.array_equal(scheme.keys(rows), compiled)
    assert np.array_equal(module._row_words(rows), padded_words(rows))
