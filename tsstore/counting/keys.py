"""Rows to keys: what is counted in a row's place, mixed with secrets of each analysis.

Word 0 of a key is its hash. Rows of up to 16 bytes are mixed by a bijection, so that equal keys
mean equal rows; wider rows are replaced by a fingerprint of 128 bits with a proven bound on the
probability that any two of them collide. The secrets keep crafted states from meeting in one
slot of a table; no result depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.compiling import compiled
from tsstore.counting.int128 import multiply_add

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD_BYTES: Final = 8
_EXACT_BYTES: Final = 16
_LANES: Final = 2

_HALF: Final = np.uint64(32)
_BYTE: Final = np.uint64(8)


@dataclass(frozen=True, eq=False)
class KeyScheme:
    """How the rows of one layer become keys in one analysis; make it with :meth:`create`.

    Attributes
    ----------
    row_bytes
        Bytes of a row.
    words
        uint64 words of a key: 1 for rows of up to 8 bytes, else 2.
    multipliers
        uint64 (4,), odd: the secrets of two mixes.
    factors
        uint64 (lane, 1 + words of a row, high and low half): the secrets of a fingerprint, a
        constant and a factor for each word. Empty for exact keys.
    """

    row_bytes: int
    words: int
    multipliers: NDArray[np.uint64]
    factors: NDArray[np.uint64]

    @classmethod
    def create(cls, row_bytes: int, seed: int | None = None) -> KeyScheme:
        """Draw the secrets of a scheme.

        Parameters
        ----------
        row_bytes
            Bytes of a row, at least 1.
        seed
            Gives the same secrets each time; None draws them from the system's entropy.

        Raises
        ------
        ValueError
            If `row_bytes` is less than 1.
        """
        if row_bytes < 1:
            raise ValueError(f"rows have {row_bytes} bytes; expected at least 1")
        generator = np.random.Generator(np.random.PCG64(seed))

        def draw(*shape: int) -> NDArray[np.uint64]:
            return generator.integers(0, 2**64 - 1, shape, dtype=np.uint64, endpoint=True)

        words = 1 if row_bytes <= _WORD_BYTES else 2
        factors = 0 if row_bytes <= _EXACT_BYTES else 1 + _words_of(row_bytes)
        return cls(row_bytes, words, draw(4) | np.uint64(1), draw(_LANES, factors, 2))

    @property
    def exact(self) -> bool:
        """Whether equal keys always mean equal rows."""
        return self.row_bytes <= _EXACT_BYTES

    def keys(self, rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Return the key of each row.

        Parameters
        ----------
        rows
            uint8 (n, row_bytes), C-contiguous, at any address.

        Returns
        -------
        uint64 (n, words). For x, or low and high word, of the zero-padded little-endian row:

        - up to 8 bytes: mix(x), see :func:`_mix`;
        - 9 to 16 bytes: (mix(low ^ mix'(high)), high);
        - wider: (mix(h(x)), h'(x)), see :func:`_fingerprint_rows`.

        Raises
        ------
        ValueError
            If the rows have another dtype, shape or memory layout.
        """
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self.row_bytes:
            raise ValueError(
                f"rows are {rows.dtype} {rows.shape}; expected uint8 (n, {self.row_bytes})"
            )
        if not rows.flags.c_contiguous:
            raise ValueError("rows are not C-contiguous; pass np.ascontiguousarray(rows)")
        words = _row_words(rows)
        if not self.exact:
            return _fingerprint_rows(words, self.factors, self.multipliers)
        kernel = _mix_single if self.words == 1 else _mix_pairs
        return kernel(words, self.multipliers)

    def collision_bound(self, distinct: int) -> float:
        """Bound the probability that any two of `distinct` states share a key.

        0 for exact keys. Else the number of pairs, d (d - 1) / 2, times 2**-128, the probability
        for one pair (union bound), and at most 1.
        """
        if self.exact:
            return 0.0
        return min(1.0, distinct * (distinct - 1) / 2 * 2.0**-128)


def _words_of(row_bytes: int) -> int:
    return -(-row_bytes // _WORD_BYTES)


def _row_words(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Rows as uint64 (n, words): little-endian, padded with zeros; without a copy if possible."""
    row_count, row_bytes = rows.shape
    if row_bytes % _WORD_BYTES == 0:
        # Rows may begin at any byte of a buffer, and kernels take aligned arrays alone.
        return np.require(rows.view("<u8"), np.uint64, ["C_CONTIGUOUS", "ALIGNED"])
    words = np.empty((row_count, _words_of(row_bytes)), np.uint64)
    _assemble(rows, words)
    return words


@compiled(nogil=True)
def _assemble(rows: NDArray[np.uint8], words: NDArray[np.uint64]) -> None:
    """Fill words from rows of a width that is no multiple of 8 bytes."""
    row_bytes = rows.shape[1]
    full_words = row_bytes // 8
    for row in range(rows.shape[0]):
        for index in range(full_words):
            word = np.uint64(0)
            # A constant length, so that the compiler sees one load of 8 bytes.
            for byte in range(8):
                word |= np.uint64(rows[row, 8 * index + byte]) << np.uint64(8 * byte)
            words[row, index] = word
        word = np.uint64(0)
        for byte in range(row_bytes - 1, 8 * full_words - 1, -1):
            word = (word << _BYTE) | np.uint64(rows[row, byte])
        words[row, full_words] = word


@compiled(nogil=True)
def _mix(word: np.uint64, first: np.uint64, second: np.uint64) -> np.uint64:
    """Spread each bit of a word over all 64; a bijection for any two odd multipliers.

    A product with an odd number modulo 2**64 carries low bits up, an xor with the word's own
    upper half carries high bits down, and either can be undone.
    """
    word = (word ^ (word >> _HALF)) * first
    word = (word ^ (word >> _HALF)) * second
    return word ^ (word >> _HALF)


@compiled(nogil=True)
def _mix_single(words: NDArray[np.uint64], multipliers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys of rows of one word."""
    keys = np.empty((words.shape[0], 1), np.uint64)
    first, second = multipliers[0], multipliers[1]
    for row in range(words.shape[0]):
        keys[row, 0] = _mix(words[row, 0], first, second)
    return keys


@compiled(nogil=True)
def _mix_pairs(words: NDArray[np.uint64], multipliers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys of rows of two words: the hash depends on both, and with the high one gives the low."""
    keys = np.empty((words.shape[0], 2), np.uint64)
    first, second, third, fourth = multipliers[0], multipliers[1], multipliers[2], multipliers[3]
    for row in range(words.shape[0]):
        high = words[row, 1]
        keys[row, 0] = _mix(words[row, 0] ^ _mix(high, third, fourth), first, second)
        keys[row, 1] = high
    return keys


@compiled(nogil=True)
def _fingerprint_rows(
    words: NDArray[np.uint64], factors: NDArray[np.uint64], multipliers: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Fingerprints of rows: two independent lanes of multilinear hashing, 64 bits each.

    For words x_1 … x_m of a row and uniformly random secrets s_0 … s_m below 2**128, a lane is::

        h(x) = ((s_0 + s_1 x_1 + … + s_m x_m) mod 2**128) >> 64

    It is strongly universal on rows of one length: two different rows agree in a lane with
    probability 2**-64, and in both, whose secrets are independent, with 2**-128. The first lane
    is mixed afterwards, a bijection that leaves this as it is: being linear, the lane alone turns
    rows in a progression into hashes in a progression, which crowd a table.

    References
    ----------
    M. Dietzfelbinger, "Universal hashing and k-wise independent random variables via integer
    arithmetic without primes", STACS 1996. D. Lemire and O. Kaser, "Strongly universal string
    hashing is fast", The Computer Journal 57 (2014), MULTILINEAR.
    """
    keys = np.empty((words.shape[0], 2), np.uint64)
    first, second = multipliers[0], multipliers[1]
    for row in range(words.shape[0]):
        high, low = factors[0, 0, 0], factors[0, 0, 1]
        other_high, other_low = factors[1, 0, 0], factors[1, 0, 1]
        for index in range(words.shape[1]):
            word = words[row, index]
            factor, other = factors[0, index + 1], factors[1, index + 1]
            high, low = multiply_add(high, low, factor[0], factor[1], word)
            other_high, other_low = multiply_add(other_high, other_low, other[0], other[1], word)
        keys[row, 0] = _mix(high, first, second)
        keys[row, 1] = other_high
    return keys
