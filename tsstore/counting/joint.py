"""In how many rows two neurons fire together, of all pairs: columns of bits, 64 rows at a time.

Rows are transposed, 64 by 64 bits, so that a word holds what one neuron did in 64 rows; of two such
columns the ones in both are counted by one instruction a word. A tile of columns stays in the
processor's cache while all pairs of it are counted.
"""

from __future__ import annotations

import numpy as np

from tsstore.counting.firing import TILE_ROWS, row_words, transpose_tile
from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import kernel
from tsstore.numba_tools.words import count_ones

TILE_NEURONS = 32
TILE_WORDS = 64
"""Of a column: two tiles of columns are 32 KiB."""


def count_joint(rows: U8, neurons: int, first: int, stop: int) -> I64:
    """Count the rows in which two neurons are on, of some neurons with all of no lower index.

    Parameters
    ----------
    rows
        uint8 (rows, row_bytes), C-contiguous.
    neurons
        Number of neurons.
    first, stop
        Which neurons: from a first one up to another.

    Returns
    -------
    numpy.ndarray
        int64 (stop - first, neurons); 0 of pairs whose second neuron has the lower index.
    """
    columns = transposed(rows)
    joint = np.zeros((stop - first, neurons), np.int64)
    _count_pairs(columns, first, joint)
    return joint


def transposed(rows: U8) -> U64:
    """Return rows as columns of bits, uint64 (neurons and padding, rows / 64).

    Bit j of word i of a column is row 64 i + j; bits beyond the rows are 0.
    """
    words = row_words(rows)
    tiles = -(-len(words) // TILE_ROWS)
    columns = np.empty((TILE_ROWS * words.shape[1], tiles), np.uint64)
    _transpose_rows(words, np.empty((2, TILE_ROWS), np.uint64), columns)
    return columns


@kernel
def _transpose_rows(words: U64, room: U64, columns: U64) -> None:
    tile, (rows, wide) = room[0], words.shape
    for column in range(wide):
        for number in range(columns.shape[1]):
            held = min(TILE_ROWS, rows - number * TILE_ROWS)
            for row in range(held):
                tile[row] = words[number * TILE_ROWS + row, column]
            for row in range(held, TILE_ROWS):
                tile[row] = np.uint64(0)
            transpose_tile(tile, room[1])
            for neuron in range(TILE_ROWS):
                columns[column * TILE_ROWS + neuron, number] = tile[neuron]


@kernel
def _count_pairs(columns: U64, first: int, joint: I64) -> None:
    """Add up the pairs of neurons from `first` on, tile by tile."""
    some, neurons = joint.shape
    words = columns.shape[1]
    for start in range(0, words, TILE_WORDS):
        end = min(start + TILE_WORDS, words)
        for top in range(0, some, TILE_NEURONS):
            bottom = min(top + TILE_NEURONS, some)
            for left in range((first + top) // TILE_NEURONS * TILE_NEURONS, neurons, TILE_NEURONS):
                right = min(left + TILE_NEURONS, neurons)
                for row in range(top, bottom):
                    own = columns[first + row, start:end]
                    for other in range(max(left, first + row), right):
                        column = columns[other, start:end]
                        both = np.int64(0)
                        for word in range(end - start):
                            both += count_ones(own[word] & column[word])
                        joint[row, other] += both
