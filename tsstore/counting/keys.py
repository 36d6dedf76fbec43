"""Rows to keys: what is counted in a row's place, mixed with secrets of each analysis.

Word 0 of a key is its hash. Rows of up to 16 bytes are mixed by a bijection, so that equal keys
mean equal rows; wider rows are replaced by a fingerprint of 128 bits with a proven bound on the
probability that any two of them collide, or follow a hash of theirs as they are. The secrets keep
crafted states from meeting in one slot of a table; no result depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tsstore.counting.hashing import width_for
from tsstore.counting.key_kernels import (
    copy_and_hash_rows,
    fingerprint_rows,
    mix_pairs,
    mix_short_rows,
    mix_words,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD: Final = 2**64
_WORD_BYTES: Final = 8
_PAIR_BYTES: Final = 16
_LANES: Final = 2
_PAIR_BOUND: Final = 2.0**-126


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
    multipliers: NDArray[np.uint64]
    addends: NDArray[np.uint64]
    factors: NDArray[np.uint64]

    @classmethod
    def create(cls, row_bytes: int, seed: int | None = None, exact: bool = False) -> KeyScheme:
        """Draw the secrets of a scheme.

        Parameters
        ----------
        row_bytes
            Bytes of a row, at least 1.
        seed
            Gives the same secrets each time; None draws them from the system's entropy.
        exact
            Whether keys of rows of more than 16 bytes hold the row instead of a fingerprint.
            Those of other rows are exact anyway.

        Raises
        ------
        ValueError
            If `row_bytes` is less than 1.
        """
        if row_bytes < 1:
            raise ValueError(f"rows have {row_bytes} bytes; expected at least 1")
        generator = np.random.Generator(np.random.PCG64(seed))

        def draw(*shape: int) -> NDArray[np.uint64]:
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

    def keys(
        self, rows: NDArray[np.uint8], out: NDArray[np.uint64] | None = None
    ) -> NDArray[np.uint64]:
        """Return the key of each row.

        Parameters
        ----------
        rows
            uint8 (n, row_bytes), C-contiguous, at any address.
        out
            uint64 (n, words), C-contiguous: where to write the keys. None takes new memory.

        Returns
        -------
        uint64 (n, words), `out` if given. For x, or low and high word, of the zero-padded
        little-endian row:

        - up to 8 bytes: mix(x), a bijection (:func:`tsstore.counting.key_kernels.mix`);
        - 9 to 16 bytes: (mix(low ^ mix'(high)), high);
        - wider: (mix(h(x)), h'(x)), the lanes h and h' of a fingerprint
          (:func:`tsstore.counting.key_kernels.fingerprint_rows`);
        - wider and exact: (mix(h(x)), x).

        Raises
        ------
        ValueError
            If the rows or `out` have another dtype, shape or memory layout.
        """
        _check("rows", rows, np.uint8, self.row_bytes)
        if not rows.flags.c_contiguous:
            raise ValueError("rows are not C-contiguous; pass np.ascontiguousarray(rows)")
        keys = np.empty((len(rows), self.words), np.uint64) if out is None else out
        _check_out(keys, (len(rows), self.words))
        self._fill(rows.reshape(-1), keys.reshape(-1))
        return keys

    def _fill(self, data: NDArray[np.uint8], keys: NDArray[np.uint64]) -> None:
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

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Return the row of each key: the inverse of :meth:`keys`.

        Parameters
        ----------
        keys
            uint64 (n, words), as :meth:`keys` returns them.

        Returns
        -------
        uint8 (n, row_bytes), C-contiguous, in memory of its own.

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
        pair that :func:`tsstore.counting.key_kernels.fingerprint_rows` derives, and at most 1.
        """
        if self.exact:
            return 0.0
        return min(1.0, distinct * (distinct - 1) / 2 * _PAIR_BOUND)


def _check(what: str, table: NDArray[Any], dtype: type[np.generic], columns: int) -> None:
    if table.dtype != dtype or table.ndim != 2 or table.shape[1] != columns:
        raise ValueError(
            f"{what} are {table.dtype} {table.shape}; expected {dtype.__name__} (n, {columns})"
        )


def _check_out(out: NDArray[np.uint64], shape: tuple[int, int]) -> None:
    if out.dtype != np.uint64 or out.shape != shape or not out.flags.carray:
        raise ValueError(
            f"out is {out.dtype} {out.shape}; expected uint64 {shape}, C-contiguous, aligned and "
            "writable, such as np.empty gives"
        )


def _unmixed(keys: NDArray[np.uint64], multipliers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the words of rows of up to 16 bytes from their keys, both uint64 (n, words)."""
    words = keys.copy()
    words[:, 0] = _mixed(keys[:, 0], _inverses(multipliers[:3]))
    if keys.shape[1] == 2:
        words[:, 0] ^= _mixed(keys[:, 1], multipliers[3:])
    return words


def _mixed(words: NDArray[np.uint64], multipliers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return words, uint64 (n,), mixed."""
    mixed = np.empty(len(words), np.uint64)
    mix_words(words.astype("<u8").view(np.uint8), multipliers, mixed)
    return mixed


def _inverses(multipliers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the multipliers, all odd, that undo a mix."""
    inverses = [pow(odd, -1, _WORD) for odd in reversed(multipliers.tolist())]
    return np.array(inverses, np.uint64)
