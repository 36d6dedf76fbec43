"""How often each neuron fires: columns of bits, counted 64 rows at a time.

A tile of 64 rows is transposed, 64 by 64 bits, so that a word holds what one neuron did in these
rows: its ones are counted by one instruction, and so are those in the rows of one sample.

Equal columns are told by their hashes, sums of K·word modulo 2¹²⁸ over a column's words, with
numbers K of 128 bits that are drawn anew for each analysis, one for each tile. Two columns that
differ agree with a probability of at most 2⁻⁶⁵: K of a tile in which they differ would have to be
one of 2⁶³ numbers, at most, out of 2¹²⁸. The hash is linear, so those of a column and of its
complement add up to that of a column of ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.intrinsics import multiply_add
from tsstore.numba_tools.ones import count_ones

TILE_ROWS = 64


@dataclass(frozen=True, eq=False)
class Firing:
    """What was counted of each neuron in some samples; it adds up.

    Attributes
    ----------
    samples, rows, squared_rows
        How many samples have rows, how many rows, and the sum of squares of samples' rows.
    counts
        int64 (5, neurons): rows in which a neuron is on; over samples, the sum of squares of these
        rows, and of their products with the sample's rows; samples in which it is on at all, and
        in all rows.
    hashes
        uint64 (neurons + 1, 2): of each column, the high word first; and of a column of ones.
    """

    samples: int
    rows: int
    squared_rows: int
    counts: I64
    hashes: U64


def count_firing(
    rows: U8, positions: I64, neurons: int, seed: Sequence[int] | np.random.Generator
) -> Firing:
    """Count what each neuron does in some samples.

    Parameters
    ----------
    rows
        uint8 (rows, row_bytes), C-contiguous.
    positions
        int64 (samples,): rows of each sample; they add up to the rows.
    neurons
        Number of neurons.
    seed
        Of the hashes: the secret of the analysis, and what no other rows have, such as the number
        of the first one; or a generator of such a seed.

    Returns
    -------
    Firing
    """
    words = row_words(rows)
    positions = positions[positions > 0]
    tiles = -(-len(words) // TILE_ROWS)
    keys = np.random.default_rng(seed).integers(0, 2**64, (tiles, 2), np.uint64)
    columns = 64 * words.shape[1]
    counts = np.zeros((5, columns), np.int64)
    hashes = np.zeros((columns + 1, 2), np.uint64)
    single = len(positions) == len(words)
    # Where all samples have as many rows, products follow from the rows in which a neuron is on.
    alike = single or bool((positions == positions[0]).all())
    tile, pending = np.empty(TILE_ROWS, np.uint64), np.zeros(64, np.int64)
    _count_columns(words, positions, single, alike, keys, tile, pending, counts, hashes)
    if single:
        counts[1:] = counts[0]
    elif alike:
        counts[2] = counts[0] * positions[0]
    hashes = np.concatenate([hashes[:neurons], hashes[columns:]])
    squared_rows = len(words) if single else int((positions**2).sum())
    return Firing(len(positions), len(rows), squared_rows, counts[:, :neurons], hashes)


def row_words(rows: U8) -> U64:
    """Return rows as words, uint64 (rows, words); what is beyond their bytes is 0."""
    count, row_bytes = rows.shape
    if row_bytes % 8 == 0 and rows.ctypes.data % 8 == 0:
        return rows.view("<u8").astype(np.uint64, copy=False)
    padded = np.zeros((count, -(-row_bytes // 8) * 8), np.uint8)
    padded[:, :row_bytes] = rows
    return padded.view("<u8").astype(np.uint64, copy=False)


@kernel
def _count_columns(
    words: U64,
    positions: I64,
    single: bool,
    alike: bool,
    keys: U64,
    tile: U64,
    pending: I64,
    counts: I64,
    hashes: U64,
) -> None:
    """Add up all columns, 64 at a time.

    `single` is whether each row is a sample, `alike` whether all samples have as many rows.
    """
    rows, columns = words.shape
    zero, full_word = np.uint64(0), np.uint64(0xFFFF_FFFF_FFFF_FFFF)
    for column in range(columns):
        on, squares, products, fired, full = counts[:, 64 * column : 64 * column + 64]
        sums = hashes[64 * column : 64 * column + 64]
        sample, left = 0, np.int64(0)
        for number in range(len(keys)):
            first = number * 64
            held = min(64, rows - first)
            for row in range(held):
                tile[row] = words[first + row, column]
            for row in range(held, 64):
                tile[row] = zero
            transpose_tile(tile)
            high, low = keys[number, 0], keys[number, 1]
            for neuron in range(64):
                sums[neuron, 0], sums[neuron, 1] = multiply_add(
                    sums[neuron, 0], sums[neuron, 1], high, low, tile[neuron]
                )
            if column == 0:
                last = len(hashes) - 1
                ones = full_word >> np.uint64(64 - held)
                hashes[last, 0], hashes[last, 1] = multiply_add(
                    hashes[last, 0], hashes[last, 1], high, low, ones
                )
            for neuron in range(64):
                on[neuron] += count_ones(tile[neuron])
            if single:
                continue
            row = 0
            while row < held:
                if left == 0:
                    left = positions[sample]
                taken = min(left, np.int64(held - row))
                mask = (full_word >> np.uint64(64 - taken)) << np.uint64(row)
                for neuron in range(64):
                    pending[neuron] += count_ones(tile[neuron] & mask)
                row += int(taken)
                left -= taken
                if left == 0:
                    length = positions[sample]
                    for neuron in range(64):
                        own = pending[neuron]
                        squares[neuron] += own * own
                        fired[neuron] += own > 0
                        full[neuron] += own == length
                    if not alike:
                        for neuron in range(64):
                            products[neuron] += pending[neuron] * length
                    for neuron in range(64):
                        pending[neuron] = 0
                    sample += 1


@inlined
def transpose_tile(tile: U64) -> None:
    """Exchange rows and bits of 64 words: bit j of word i becomes bit i of word j."""
    _exchange(tile, 32, np.uint64(0x0000_0000_FFFF_FFFF))
    _exchange(tile, 16, np.uint64(0x0000_FFFF_0000_FFFF))
    _exchange(tile, 8, np.uint64(0x00FF_00FF_00FF_00FF))
    _exchange(tile, 4, np.uint64(0x0F0F_0F0F_0F0F_0F0F))
    _exchange(tile, 2, np.uint64(0x3333_3333_3333_3333))
    _exchange(tile, 1, np.uint64(0x5555_5555_5555_5555))


@inlined
def _exchange(tile: U64, distance: int, low: np.uint64) -> None:
    """Exchange the upper bits of each word with the lower ones of that `distance` words on."""
    shift = np.uint64(distance)
    for first in range(0, 64, 2 * distance):
        for row in range(first, first + distance):
            differ = ((tile[row] >> shift) ^ tile[row + distance]) & low
            tile[row] ^= differ << shift
            tile[row + distance] ^= differ


def add_firing(counted: Iterable[Firing]) -> Firing:
    """Return what was counted of some samples together; two counts are held at a time."""
    return reduce(_add, counted)


def _add(a: Firing, b: Firing) -> Firing:
    """Return two counts together; their hashes modulo 2¹²⁸."""
    return Firing(
        a.samples + b.samples,
        a.rows + b.rows,
        a.squared_rows + b.squared_rows,
        a.counts + b.counts,
        _add_pairs(a.hashes, b.hashes),
    )


def complements(counted: Firing) -> U64:
    """Return the hashes that the complement of each neuron's column would have."""
    return _subtract_pairs(counted.hashes[-1], counted.hashes[:-1])


def _add_pairs(a: U64, b: U64) -> U64:
    """Return sums modulo 2¹²⁸ of numbers of two words, the high one first."""
    low = a[..., 1] + b[..., 1]
    return np.stack([a[..., 0] + b[..., 0] + (low < b[..., 1]), low], axis=-1)


def _subtract_pairs(a: U64, b: U64) -> U64:
    low = a[..., 1] - b[..., 1]
    return np.stack([a[..., 0] - b[..., 0] - (a[..., 1] < b[..., 1]), low], axis=-1)
