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
from tsstore.numba_tools.intrinsics import load_word, sum_products

_WORD: Final = 2**64
_WORD_BYTES: Final = 8
_PAIR_BYTES: Final = 16
_LANES: Final = 4
_PAIR_BOUND: Final = 2.0**-126
_ROWS_AT_ONCE: Final = 64
_NONE: Final = np.uint64(0)
_BYTE: Final = np.uint64(8)
_HALF: Final = np.uint64(32)
_LOWER_HALF: Final = np.uint64(2**32 - 1)


def key_words(row_bytes: int, exact: bool = False) -> int:
    """Return how many words the key of a row has; see :class:`KeyScheme`."""
    row_words = -(-row_bytes // _WORD_BYTES)
    if row_bytes <= _PAIR_BYTES:
        return row_words
    return 1 + row_words if exact else 2


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
        uint64 (6 + words of a row, made even), each of two halves: the secrets of the sums of a
        fingerprint. Empty for rows of up to 16 bytes.
    factors
        uint64 (word, upper and lower half, 5): the secrets of the last step of a fingerprint, for
        each half of a word a constant and a term for either half of two sums.
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
        addends = 2 * (_LANES - 1) + row_words + row_words % 2 if is_wide else 0
        multipliers = draw(6) | np.uint64(1)
        words = key_words(row_bytes, exact)
        return cls(row_bytes, words, multipliers, draw(addends), draw(2, 2, 5))

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
        - wider: (mix(h(x)), h'(x)), the words h and h' of a fingerprint
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
            sums = np.empty(_LANES * _ROWS_AT_ONCE, np.uint64)
            secrets = self.addends, self.factors, self.multipliers
            kernel(data, self.row_bytes, *secrets, keys, pairs, sums)
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
    data: U8,
    row_bytes: int,
    addends: U64,
    factors: U64,
    multipliers: U64,
    keys: U64,
    pairs: Width,
    sums: U64,
) -> None:
    """Fingerprint rows of more than 16 bytes in two words of 64 bits.

    For a row as words x_1 … x_4m of 32 bits (where its bytes are no multiple of 16 the last four
    words are its last 16 bytes, some of them again) and uniformly random secrets a of 32 bits and
    f of 64, lane i = 0 … 3 sums::

        s_i = sum over j = 1 … 2m of
              ((x_2j-1 + a_2j-1+4i) mod 2**32) * ((x_2j + a_2j+4i) mod 2**32)  mod 2**64

    The first word of the fingerprint is made of the sums of lanes 0 and 2, the second one of those
    of lanes 1 and 3. For the four halves y_1 … y_4 of two sums each half of a word is, with secrets
    of its own::

        h = ((f_0 + (f_1 + y_1) (f_2 + y_2) + (f_3 + y_3) (f_4 + y_4)) mod 2**64) >> 32

    s is the hash NH: two different rows agree in it with probability at most 2**-32. They agree in
    that of n lanes with at most 2**-32n: of the last pair of words in which they differ, each lane
    adds secrets that those before it add, if at all, to words that are equal in both rows, whose
    products cancel. h is Multilinear-HM: where two sums differ in any half, so that those of a word
    are not both the same, they agree in h with probability 2**-32, independently in both halves of
    a word, so in the word with 2**-64, independently of the other one. So each of four cases (the
    sums of both words agree, of one, of the other, of none) has at most 2**-128, and two different
    rows share a fingerprint with probability at most 2**-126.

    The first word is mixed afterwards, a bijection that leaves this as it is: the last step alone
    turns sums in a progression into hashes in a progression, which crowd a table.

    References
    ----------
    J. Black, S. Halevi, H. Krawczyk, T. Krovetz and P. Rogaway, "UMAC: Fast and secure message
    authentication", CRYPTO 1999: NH and, for several lanes, its Toeplitz construction.
    D. Lemire and O. Kaser, "Strongly universal string hashing is fast", The Computer Journal 57
    (2014): Multilinear-HM, whose upper K - L + 1 bits of K are strongly universal for words of L
    bits; here K is 64, and L 32.
    """
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    most = sums.size // 4
    for begin in range(0, keys.size // 2, most):
        own = keys[2 * begin : 2 * (begin + most)]
        _sum_rows(data, begin * row_bytes, row_bytes, addends, pairs, sums, own.size // 2)
        # A loop of its own lets the compiler do several rows at once.
        for row in range(own.size // 2):
            hashed = _join(sums[4 * row], sums[4 * row + 1], factors[0])
            own[2 * row] = mix(hashed, first, second, third)
            own[2 * row + 1] = _join(sums[4 * row + 2], sums[4 * row + 3], factors[1])


@kernel
def copy_and_hash_rows(
    data: U8,
    row_bytes: int,
    addends: U64,
    factors: U64,
    multipliers: U64,
    keys: U64,
    pairs: Width,
    sums: U64,
) -> None:
    """Put the first word of a fingerprint, mixed, before each row of more than 16 bytes."""
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    most = sums.size // 4
    full_words = (row_bytes - 1) // 8
    words = full_words + 2
    for begin in range(0, keys.size // words, most):
        own = keys[words * begin : words * (begin + most)]
        rows = own.size // words
        _sum_rows(data, begin * row_bytes, row_bytes, addends, pairs, sums, rows)
        for row in range(rows):
            hashed = _join(sums[4 * row], sums[4 * row + 1], factors[0])
            sums[4 * row] = mix(hashed, first, second, third)
        for row in range(rows):
            place, start = words * row, (begin + row) * row_bytes
            own[place] = sums[4 * row]
            for word in range(full_words):
                own[place + 1 + word] = load_word(data, start + 8 * word)
            own[place + 1 + full_words] = _last_word(data, start, row_bytes)


@inlined
def _sum_rows(
    data: U8, start: int, row_bytes: int, addends: U64, pairs: Width, sums: U64, rows: int
) -> None:
    """Write the sums of lanes 0, 2, 1 and 3 of so many rows.

    `pairs` is as long as a row has pieces of 16 bytes, so that their number may be known to the
    compiler.
    """
    for row in range(rows):
        place, at = 4 * row, start + row * row_bytes
        sums[place], sums[place + 1], sums[place + 2], sums[place + 3] = sum_products(
            data, at, row_bytes, addends, len(pairs)
        )


@inlined
def _join(one: np.uint64, other: np.uint64, factors: U64) -> np.uint64:
    """Hash two sums to a word, each half of it by secrets of its own."""
    upper, lower = _multiply(one, other, factors[0]), _multiply(one, other, factors[1])
    return (upper & ~_LOWER_HALF) | (lower >> _HALF)


@inlined
def _multiply(one: np.uint64, other: np.uint64, factors: U64) -> np.uint64:
    """Return what has half of a word in its upper half, for two sums."""
    return (  # type: ignore[no-any-return]
        factors[0]
        + (factors[1] + (one & _LOWER_HALF)) * (factors[2] + (one >> _HALF))
        + (factors[3] + (other & _LOWER_HALF)) * (factors[4] + (other >> _HALF))
    )
