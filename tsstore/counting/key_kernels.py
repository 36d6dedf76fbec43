"""The loops that make keys from rows; :mod:`tsstore.counting.keys` says what they are made for.

Each takes the bytes of all rows one after another, uint8 (rows * row_bytes,), at any address, and
fills the words of all keys one after another, uint64 (rows * words,). Nothing is allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.counting.hashing import Width
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.intrinsics import load_word, multiply_add

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NONE: Final = np.uint64(0)
_BYTE: Final = np.uint64(8)
_HALF: Final = np.uint64(32)


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
def mix_words(
    data: NDArray[np.uint8], multipliers: NDArray[np.uint64], keys: NDArray[np.uint64]
) -> None:
    """Mix rows of 8 bytes."""
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    for row in range(keys.size):
        keys[row] = mix(load_word(data, 8 * row), first, second, third)


@kernel
def mix_short_rows(
    data: NDArray[np.uint8],
    row_bytes: int,
    multipliers: NDArray[np.uint64],
    keys: NDArray[np.uint64],
) -> None:
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
def mix_pairs(
    data: NDArray[np.uint8],
    row_bytes: int,
    multipliers: NDArray[np.uint64],
    keys: NDArray[np.uint64],
) -> None:
    """Mix rows of 9 to 16 bytes: the hash depends on both words, and one gives back the other."""
    if row_bytes == 16:
        # A width that the compiler knows lets it mix several rows at once, five times as fast.
        _mix_pairs(data, 16, multipliers, keys)
    else:
        _mix_pairs(data, row_bytes, multipliers, keys)


@inlined
def _mix_pairs(
    data: NDArray[np.uint8],
    row_bytes: int,
    multipliers: NDArray[np.uint64],
    keys: NDArray[np.uint64],
) -> None:
    first, second, third = multipliers[0], multipliers[1], multipliers[2]
    fourth, fifth, sixth = multipliers[3], multipliers[4], multipliers[5]
    for row in range(keys.size // 2):
        low = load_word(data, row * row_bytes)
        high = _last_word(data, row * row_bytes, row_bytes)
        keys[2 * row] = mix(low ^ mix(high, fourth, fifth, sixth), first, second, third)
        keys[2 * row + 1] = high


@kernel
def _last_word(data: NDArray[np.uint8], start: int, row_bytes: int) -> np.uint64:
    """Load the last word of a row of more than 8 bytes, padded with zeros.

    It is taken from the row's last 8 bytes, some of the word before among them: all 8 bytes from
    where the last word begins may be more than there are.
    """
    return load_word(data, start + row_bytes - 8) >> np.uint64(8 * (-row_bytes % 8))


@kernel
def fingerprint_rows(
    data: NDArray[np.uint8],
    row_bytes: int,
    addends: NDArray[np.uint64],
    factors: NDArray[np.uint64],
    multipliers: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    pairs: Width,
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
    data: NDArray[np.uint8],
    row_bytes: int,
    addends: NDArray[np.uint64],
    factors: NDArray[np.uint64],
    multipliers: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    pairs: Width,
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
    data: NDArray[np.uint8],
    start: int,
    row_bytes: int,
    addends: NDArray[np.uint64],
    pairs: Width,
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
def _reduce(high: np.uint64, low: np.uint64, factors: NDArray[np.uint64]) -> np.uint64:
    """Hash two words to one: the upper half of a constant and two products modulo 2**128."""
    upper, lower = factors[0, 0], factors[0, 1]
    upper, lower = multiply_add(upper, lower, factors[1, 0], factors[1, 1], high)
    upper, lower = multiply_add(upper, lower, factors[2, 0], factors[2, 1], low)
    return upper
