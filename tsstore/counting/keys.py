"""Rows to keys: what is counted in a row's place, mixed with secrets of each analysis.

Word 0 of a key is its hash. Rows of up to 16 bytes are mixed by a bijection, so that equal keys
mean equal rows; wider rows are replaced by a fingerprint of 128 bits with a proven bound on the
probability that any two of them collide, or follow a hash of theirs as they are. The secrets keep
crafted states from meeting in one slot of a table; no result depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tsstore.counting.hashing import Width, width_for
from tsstore.numba_tools.arrays import U8, U64
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.intrinsics import load_word, multiply_add

_WORD: Final = 2**64
_WORD_BYTES: Final = 8
_PAIR_BYTES: Final = 16
_LANES: Final = 2
_PAIR_BOUND: Final = 2.0**-126
_NONE: Final = np.uint64(0)
_BYTE: Final = np.uint64(8)
_HALF: Final = np.uint64(32)


@dataclass(frozen=True, eq=False)
class KeyScheme:
    """How the rows of one layer become keys in one analysis; make it with :meth:`create`.

    Attributes
    ----------
    row_bytes
        Bytes of a row.
    words
        uint64 words of a key: 1 for rows of up to 8 bytes; 2 for rows of up to 16 bytes and for
        fingerprints; for exact keys of wider rows one more than the words of a row.
    multipliers
        uint64 (6,), odd: the secrets of two mixes.
    addends
        uint64 (2 + words of a row, made even): the secrets of the sums of a fingerprint. Empty for
        rows of up to 16 bytes.
    factors
        uint64 (lane, 3, high and low half): the secrets of the last step of a fingerprint, in each
        lane a constant and a factor for either half of a sum.
    """

    row_bytes: int
    words: int
    multipliers: U64
    addends: U64
    factors: U64

    @classmethod
    def create(cls, row_bytes: int, seed: int | None = None, exact: bool = False) -> KeyScheme:
        """Draw the secrets of a scheme, the same ones for a seed, else from the system's entropy.

        With `exact`, keys of rows of more than 16 bytes hold the row instead of a fingerprint;
        those of other rows are exact anyway.
        """
        if row_bytes < 1:
            raise ValueError(f"rows have {row_bytes} bytes; expected at least 1")
        generator = np.random.Generator(np.random.PCG64(seed))

        def draw(*shape: int) -> U64:
            return generator.integers(0, _WORD - 1, shape, dtype=np.uint64, endpoint=True)

        is_wide = row_bytes > _PAIR_BYTES
        row_words = -(-row_bytes // _WORD_BYTES)
        words = (1 + row_words if exact else 2) if is_wide else row_words
        addends = 2 + row_words + row_words % 2 if is_wide else 0
        multipliers = draw(6) | np.uint64(1)
        return cls(row_bytes, words, multipliers, draw(addends), draw(_LANES, 3, 2))

    @property
    def exact(self) -> bool:
        """Whether equal keys always mean equal rows."""
        return self.words * _WORD_BYTES >= self.row_bytes

    def keys(self, rows: U8, out: U64 | None = None) -> U64:
        """Return the key of each row, uint64 (n, words), in `out` if given.

        Rows are uint8 (n, row_bytes), C-contiguous, at any address. For x, or low and high word, of
        the zero-padded little-endian row, a key is:

        - up to 8 bytes: mix(x), a bijection (:func:`mix`);
        - 9 to 16 bytes: (mix(low ^ mix'(high)), high);
        - wider: (mix(h(x)), h'(x)), the lanes h and h' of a fingerprint
          (:func:`fingerprint_rows`);
        - wider and exact: (mix(h(x)), x).
        """
        _check("rows", rows, np.uint8, self.row_bytes)
        if not rows.flags.c_contiguous:
            raise ValueError("rows are not C-contiguous; pass np.ascontiguousarray(rows)")
        keys = np.empty((len(rows), self.words), np.uint64) if out is None else out
        _check_out(keys, (len(rows), self.words))
        self._fill(rows.reshape(-1), keys.reshape(-1))
        return keys

    def _fill(self, data: U8, keys: U64) -> None:
        """Write the words of all keys, for the bytes of all rows."""
        if self.row_bytes > _PAIR_BYTES:
            kernel = copy_and_hash_rows if self.exact else fingerprint_rows
            pairs = width_for(-(-self.row_bytes // _PAIR_BYTES))
            kernel(data, self.row_bytes, self.addends, self.factors, self.multipliers, keys, pairs)
        elif self.row_bytes > _WORD_BYTES:
            mix_pairs(data, self.row_bytes, self.multipliers, keys)
        elif self.row_bytes == _WORD_BYTES:
            mix_words(data, self.multipliers, keys)
        else:
            mix_short_rows(data, self.row_bytes, self.multipliers, keys)

    def rows(self, keys: U64) -> U8:
        """Return the row of each key, uint8 (n, row_bytes): the inverse of :meth:`keys`.

        Raises
        ------
        ValueError
            If keys are fingerprints, or have another dtype or shape.
        """
        if not self.exact:
            raise ValueError(
                f"keys are fingerprints of rows of {self.row_bytes} bytes, which do not tell the "
                "rows; create the scheme with exact=True"
            )
        _check("keys", keys, np.uint64, self.words)
        is_wide = self.row_bytes > _PAIR_BYTES
        words = keys[:, 1:].copy() if is_wide else _unmixed(keys, self.multipliers)
        padded_rows = words.astype("<u8", copy=False).view(np.uint8)
        return np.ascontiguousarray(padded_rows[:, : self.row_bytes])

    def collision_bound(self, distinct: int) -> float:
        """Bound the probability that any two of `distinct` states share a key.

        0 for exact keys. Else the number of pairs, d (d - 1) / 2, times 2**-126, the bound for one
        pair that :func:`fingerprint_rows` derives, and at most 1.
        """
        if self.exact:
            return 0.0
        return min(1.0, distinct * (distinct - 1) / 2 * _PAIR_BOUND)


def _check(what: str, table: NDArray[Any], dtype: type[np.generic], columns: int) -> None:
    if table.dtype != dtype or table.ndim != 2 or table.shape[1] != columns:
        raise ValueError(
            f"{what} are {table.dtype} {table.shape}; expected {dtype.__name__} (n, {columns})"
        )


def _check_out(out: U64, shape: tuple[int, int]) -> None:
    if out.dtype != np.uint64 or out.shape != shape or not out.flags.carray:
        raise ValueError(
            f"out is {out.dtype} {out.shape}; expected uint64 {shape}, C-contiguous, aligned and "
            "writable, such as np.empty gives"
        )


def _unmixed(keys: U64, multipliers: U64) -> U64:
    """Return the words of rows of up to 16 bytes from their keys, both uint64 (n, words)."""
    words = keys.copy()
    words[:, 0] = _mixed(keys[:, 0], _inverses(multipliers[:3]))
    if keys.shape[1] == 2:
        words[:, 0] ^= _mixed(keys[:, 1], multipliers[3:])
    return words


def _mixed(words: U64, multipliers: U64) -> U64:
    """Return words, uint64 (n,), mixed."""
    mixed = np.empty(len(words), np.uint64)
    mix_words(words.astype("<u8").view(np.uint8), multipliers, mixed)
    return mixed


def _inverses(multipliers: U64) -> U64:
    """Return the multipliers, all odd, that undo a mix."""
    inverses = [pow(odd, -1, _WORD) for odd in reversed(multipliers.tolist())]
    return np.array(inverses, np.uint64)


# The loops. Each takes the bytes of all rows one after another, uint8 (rows * row_bytes,), at any
# address, and fills the words of all keys one after another, uint64 (rows * words,).


@kernel
def mix(word: np.uint64, first: np.uint64, second: np.uint64, third: np.uint64) -> np.uint64:
    """Spread each bit of a word over all 64; a bijection for any three odd multipliers.

    A product with an odd number modulo 2**64 carries low bits up, an xor with the word's own
    upper half carries high bits down. The latter undoes itself, and multiplication with the
    inverse undoes the former: with the inverses in reverse order this function is its own inverse.
    Two multipliers would not do: words with equal halves, which the first xor cancels, would keep
    to a progression until the last one.
    """
    word = (word ^ (word >> _HALF)) * first
    word = (word ^ (word >> _HALF)) * second
    word = (word ^ (word >> _HALF)) * third
    return word ^ (word >> _HALF)


@kernel
def mix_words(data: U8, multipliers: U64, keys: U64) -> None:
    """Mix rows of 8 bytes."""
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    for row in range(keys.size):
        keys[row] = mix(load_word(data, 8 * row), first, second, third)


@kernel
def mix_short_rows(data: U8, row_bytes: int, multipliers: U64, keys: U64) -> None:
    """Mix rows of fewer than 8 bytes, padded with zeros."""
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    unused = np.uint64(64 - 8 * row_bytes)
    # What is loaded beyond a row belongs to the next ones, but for the last few rows.
    safe = max(0, (data.size - 8) // row_bytes + 1)
    for row in range(safe):
        word = (load_word(data, row * row_bytes) << unused) >> unused
        keys[row] = mix(word, first, second, third)
    for row in range(safe, keys.size):
        word = _NONE
        for byte in range((row + 1) * row_bytes - 1, row * row_bytes - 1, -1):
            word = (word << _BYTE) | np.uint64(data[byte])
        keys[row] = mix(word, first, second, third)


@kernel
def mix_pairs(data: U8, row_bytes: int, multipliers: U64, keys: U64) -> None:
    """Mix rows of 9 to 16 bytes: the hash depends on both words, and one gives back the other."""
    if row_bytes == 16:
        # A width that the compiler knows lets it mix several rows at once, five times as fast.
        _mix_pairs(data, 16, multipliers, keys)
    else:
        _mix_pairs(data, row_bytes, multipliers, keys)


@inlined
def _mix_pairs(data: U8, row_bytes: int, multipliers: U64, keys: U64) -> None:
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    fourth, fifth, sixth = multipliers[3], multipliers[4], multipliers[5]
    for row in range(keys.size // 2):
        low = load_word(data, row * row_bytes)
        high = _last_word(data, row * row_bytes, row_bytes)
        keys[2 * row] = mix(low ^ mix(high, fourth, fifth, sixth), first, second, third)
        keys[2 * row + 1] = high


@kernel
def _last_word(data: U8, start: int, row_bytes: int) -> np.uint64:
    """Load the last word of a row of more than 8 bytes, padded with zeros.

    It is taken from the row's last 8 bytes, some of the word before among them: all 8 bytes from
    where the last word begins may be more than there are.
    """
    return load_word(data, start + row_bytes - 8) >> np.uint64(8 * (-row_bytes % 8))


@kernel
def fingerprint_rows(
    data: U8, row_bytes: int, addends: U64, factors: U64, multipliers: U64, keys: U64, pairs: Width
) -> None:
    """Fingerprint rows of more than 16 bytes in two lanes of 64 bits.

    For a row as words x_1 … x_2m (where its bytes are no multiple of 16 the last two words are its
    last 16 bytes, some of them again) and uniformly random secrets a and f, lane i = 0, 1 is::

        s = sum over j = 1 … m of
            ((x_2j-1 + a_2(i+j)-1) mod 2**64) * ((x_2j + a_2(i+j)) mod 2**64)  mod 2**128
        h = ((f_i0 + f_i1 (s >> 64) + f_i2 (s mod 2**64)) mod 2**128) >> 64

    s is the hash NH: two different rows agree in it with probability at most 2**-64. They agree in
    that of both lanes with at most 2**-128: of the last pair of words in which they differ, lane 1
    adds secrets that lane 0 adds, if at all, to words that are equal in both rows, whose products
    cancel. Where they differ in s they agree in h with probability 2**-64, independently in each
    lane. So each of four cases (s agrees in both lanes, in one, in the other, in none) has at most
    2**-128, and two different rows share a fingerprint with probability at most 2**-126.

    The first lane is mixed afterwards, a bijection that leaves this as it is: being linear, the
    last step alone turns sums in a progression into hashes in a progression, which crowd a table.

    References
    ----------
    J. Black, S. Halevi, H. Krawczyk, T. Krovetz and P. Rogaway, "UMAC: Fast and secure message
    authentication", CRYPTO 1999: NH and, for several lanes, its Toeplitz construction.
    M. Dietzfelbinger, "Universal hashing and k-wise independent random variables via integer
    arithmetic without primes", STACS 1996: h.
    """
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    for row in range(keys.size // 2):
        sums = _sum_products(data, row * row_bytes, row_bytes, addends, pairs)
        keys[2 * row] = mix(_reduce(sums[0], sums[1], factors[0]), first, second, third)
        keys[2 * row + 1] = _reduce(sums[2], sums[3], factors[1])


@kernel
def copy_and_hash_rows(
    data: U8, row_bytes: int, addends: U64, factors: U64, multipliers: U64, keys: U64, pairs: Width
) -> None:
    """Put the first lane of a fingerprint, mixed, before each row of more than 16 bytes."""
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    full_words = (row_bytes - 1) // 8
    place = 0
    for start in range(0, data.size, row_bytes):
        # The other lane is not used, and the compiler leaves it out.
        sums = _sum_products(data, start, row_bytes, addends, pairs)
        keys[place] = mix(_reduce(sums[0], sums[1], factors[0]), first, second, third)
        for word in range(full_words):
            keys[place + 1 + word] = load_word(data, start + 8 * word)
        keys[place + 1 + full_words] = _last_word(data, start, row_bytes)
        place += full_words + 2


@inlined
def _sum_products(
    data: U8, start: int, row_bytes: int, addends: U64, pairs: Width
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Sum the products of pairs of words of a row in two lanes: two sums, high and low word each.

    `pairs` is as long as there are pairs, so that their number may be known to the compiler. A row
    whose bytes are no multiple of 16 ends with its last 16 bytes, some of them again.
    """
    high, low, other_high, other_low = _NONE, _NONE, _NONE, _NONE
    for pair in range(len(pairs)):
        at = start + min(16 * pair, row_bytes - 16)
        even, odd = load_word(data, at), load_word(data, at + 8)
        place = 2 * pair
        high, low = multiply_add(high, low, _NONE, even + addends[place], odd + addends[place + 1])
        other_high, other_low = multiply_add(
            other_high, other_low, _NONE, even + addends[place + 2], odd + addends[place + 3]
        )
    return high, low, other_high, other_low


@kernel
def _reduce(high: np.uint64, low: np.uint64, factors: U64) -> np.uint64:
    """Hash two words to one: the upper half of a constant and two products modulo 2**128."""
    upper, lower = factors[0, 0], factors[0, 1]
    upper, lower = multiply_add(upper, lower, factors[1, 0], factors[1, 1], high)
    upper, lower = multiply_add(upper, lower, factors[2, 0], factors[2, 1], low)
    return upper
