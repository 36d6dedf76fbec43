from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import keys as module
from tsstore.counting.hashing import width_for

WORD = 2**64
KERNELS = (
    "mix",
    "mix_words",
    "mix_short_rows",
    "mix_pairs",
    "fingerprint_rows",
    "copy_and_hash_rows",
    "_mix_pairs",
    "_last_word",
    "_sum_rows",
    "_join",
    "_multiply",
)
seeds = st.integers(0, 2**64)
words = st.integers(0, WORD - 1)


def mixed(word: int, multipliers: list[int]) -> int:
    for odd in multipliers:
        word = (word ^ (word >> 32)) * odd % WORD
    return word ^ (word >> 32)


def numbers(row: bytes) -> list[int]:
    """A row as little-endian numbers of 8 bytes, the last one padded with zeros."""
    return [int.from_bytes(row[at : at + 8], "little") for at in range(0, len(row), 8)]


def halves(words: list[int]) -> list[int]:
    """The lower and the upper half of each word."""
    return [half for word in words for half in (word % 2**32, word >> 32)]


def fingerprint(row: bytes, addends: list[int], factors: list) -> list[int]:
    """The words of a fingerprint before the first is mixed, by their definition."""
    rest = len(row) % 16
    row_words = halves(numbers(row[: len(row) - rest] + (row[-16:] if rest else b"")))
    sums = []
    for lane in range(4):
        secrets = halves(addends)[4 * lane :]
        pairs = [
            ((row_words[j] + secrets[j]) % 2**32) * ((row_words[j + 1] + secrets[j + 1]) % 2**32)
            for j in range(0, len(row_words), 2)
        ]
        sums.append(sum(pairs) % WORD)
    words = []
    for lane, own in enumerate(factors):
        one, two, three, four = halves([sums[lane], sums[lane + 2]])
        upper, lower = (
            (constant + (f + one) * (g + two) + (h + three) * (i + four)) % WORD >> 32
            for constant, f, g, h, i in own
        )
        words.append((upper << 32) + lower)
    return words


class Secrets:
    """What the kernels take beside rows."""

    def __init__(self, seed: int, row_bytes: int) -> None:
        generator = np.random.default_rng(seed)
        self.multipliers = generator.integers(0, WORD, 6, np.uint64) | np.uint64(1)
        self.addends = generator.integers(0, WORD, 6 + 2 * -(-row_bytes // 16), np.uint64)
        self.factors = generator.integers(0, WORD, (2, 2, 5), np.uint64)


def run(rows: np.ndarray, secrets: Secrets, exact: bool = False, at_once: int = 5) -> np.ndarray:
    """Keys of rows by the kernel for their width."""
    (count, row_bytes), data = rows.shape, rows.reshape(-1)
    multipliers = secrets.multipliers
    key_words = 1 + -(-row_bytes // 8) if exact else 1 + (row_bytes > 8)
    keys = np.full(count * key_words, 0xAA, np.uint64)
    if row_bytes == 8:
        module.mix_words(data, multipliers, keys)
    elif row_bytes < 8:
        module.mix_short_rows(data, row_bytes, multipliers, keys)
    elif row_bytes <= 16:
        module.mix_pairs(data, row_bytes, multipliers, keys)
    else:
        kernel = module.copy_and_hash_rows if exact else module.fingerprint_rows
        pairs, sums = width_for(-(-row_bytes // 16)), np.empty(4 * at_once, np.uint64)
        kernel(data, row_bytes, secrets.addends, secrets.factors, multipliers, keys, pairs, sums)
    return keys.reshape(count, key_words)


def expected(rows: np.ndarray, secrets: Secrets, exact: bool = False) -> list[list[int]]:
    """The same in Python's own integers."""
    own, others = secrets.multipliers[:3].tolist(), secrets.multipliers[3:].tolist()
    keys = []
    for row in map(bytes, rows):
        if len(row) <= 8:
            keys.append([mixed(numbers(row)[0], own)])
        elif len(row) <= 16:
            low, high = numbers(row)
            keys.append([mixed(low ^ mixed(high, others), own), high])
        else:
            word, other = fingerprint(row, secrets.addends.tolist(), secrets.factors.tolist())
            keys.append([mixed(word, own), *(numbers(row) if exact else [other])])
    return keys


def random_rows(seed: int, count: int, row_bytes: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, row_bytes), dtype=np.uint8)


def load_word_in_python(data, at):
    assert 0 <= at <= data.size - 8, "loaded from outside of the rows"
    return np.uint64(int.from_bytes(bytes(data[at : at + 8]), "little"))


@pytest.fixture
def plain_python(monkeypatch):
    """All kernels as plain Python, where each load is checked to stay within the rows."""
    monkeypatch.setattr(module, "sum_products", counting_cases.sum_products)
    monkeypatch.setattr(module, "load_word", load_word_in_python)
    for name in KERNELS:
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    with np.errstate(over="ignore"):  # unsigned sums and products wrap around on purpose
        yield


@settings(deadline=None, max_examples=150)
@given(
    seeds,
    st.one_of(st.integers(1, 70), st.integers(120, 260)),
    st.integers(0, 30),
    st.booleans(),
    st.integers(1, 20),
)
def test_kernels_do_what_their_definition_says(seed, row_bytes, count, exact, at_once) -> None:
    secrets, exact = Secrets(seed, row_bytes), exact and row_bytes > 16
    rows = random_rows(seed, count, row_bytes)
    assert run(rows, secrets, exact, at_once).tolist() == expected(rows, secrets, exact)


def test_mix_of_small_numbers_by_hand() -> None:
    one = np.uint64(1)
    assert module.mix(np.uint64(0), one, one, one) == 0
    assert module.mix(np.uint64(5), one, one, one) == 5
    assert module.mix(np.uint64(5), np.uint64(3), np.uint64(7), one) == 105
    assert module.mix(np.uint64(2**32), one, one, one) == 2**32
    assert module.mix(np.uint64(2**32), one, one, np.uint64(2**32 + 1)) == 2**33 + 3


def test_short_rows_hold_nothing_of_their_neighbours() -> None:
    secrets = Secrets(3, 5)
    rows = random_rows(3, 12, 5)
    keys = run(rows, secrets)
    for row in range(12):
        others = random_rows(100 + row, 12, 5)
        others[row] = rows[row]
        assert run(others, secrets)[row] == keys[row]
        assert not np.any(np.delete(run(others, secrets) == keys, row))


@pytest.mark.parametrize("row_bytes", [17, 24, 31, 32, 48, 100, 128, 129])
def test_wide_exact_keys_are_the_first_word_and_the_row(row_bytes: int) -> None:
    secrets, rows = Secrets(6, row_bytes), random_rows(6, 5, row_bytes)
    fingerprints, exact = run(rows, secrets), run(rows, secrets, True)
    assert np.array_equal(exact[:, 0], fingerprints[:, 0])
    assert exact[:, 1:].tolist() == [numbers(bytes(row)) for row in rows]
    assert not np.any(fingerprints[:, 0] == fingerprints[:, 1])


@pytest.mark.parametrize("row_bytes", [17, 24, 31, 32, 48, 100, 128, 129])
def test_the_largest_numbers_carry_as_they_should(row_bytes: int) -> None:
    secrets = Secrets(0, row_bytes)
    for array in (secrets.multipliers, secrets.addends, secrets.factors):
        array[:] = WORD - 1
    for value in (0, 1, 254, 255):
        rows = np.full((2, row_bytes), value, np.uint8)
        assert run(rows, secrets).tolist() == expected(rows, secrets)
        assert run(rows, secrets, True).tolist() == expected(rows, secrets, True)


@pytest.mark.parametrize("row_bytes", [*range(1, 35), 40, 48, 63, 130])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_plain_python_gives_the_same_and_stays_within_the_rows(
    row_bytes: int, count: int, plain_python
) -> None:
    secrets, rows = Secrets(row_bytes, row_bytes), random_rows(count, count, row_bytes)
    assert run(rows, secrets).tolist() == expected(rows, secrets)
    if row_bytes > 16:
        assert run(rows, secrets, True).tolist() == expected(rows, secrets, True)


@settings(deadline=None)
@given(words, st.tuples(words, words, words))
def test_mix_with_inverses_in_reverse_order_is_its_own_inverse(word, multipliers) -> None:
    odd = [each | 1 for each in multipliers]
    inverses = [pow(each, -1, WORD) for each in reversed(odd)]
    spread = module.mix(*map(np.uint64, (word, *odd)))
    assert spread == mixed(word, odd)
    assert module.mix(*map(np.uint64, (spread, *inverses))) == word


@pytest.mark.parametrize("row_bytes", [17, 32, 33])
def test_each_word_has_a_pair_of_addends_that_the_other_has_not(row_bytes: int) -> None:
    rows = random_rows(1, 1, row_bytes)
    keys = run(rows, Secrets(1, row_bytes))[0]
    for place, changes in ((0, [True, False]), (-1, [False, True])):
        secrets = Secrets(1, row_bytes)
        secrets.addends[place] ^= np.uint64(1)
        assert (run(rows, secrets)[0] != keys).tolist() == changes
