"""In how many samples each neuron fires at each position: of one position, 64 samples at a time."""

from __future__ import annotations

import numpy as np

from tsstore.counting.firing import TILE_ROWS, row_words, transpose_tile
from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import kernel
from tsstore.numba_tools.words import count_ones


def count_by_position(rows: U8, positions: int, neurons: int, first: int, stop: int) -> I64:
    """Count the samples in which each neuron is on, at each of some positions.

    Parameters
    ----------
    rows
        uint8 (samples * positions, row_bytes), C-contiguous: sample after sample.
    positions
        Rows of each sample.
    neurons
        Number of neurons.
    first, stop
        Which positions: from a first one up to another.

    Returns
    -------
    numpy.ndarray
        int64 (stop - first, neurons).
    """
    words = row_words(rows)
    counts = np.zeros((stop - first, TILE_ROWS * words.shape[1]), np.int64)
    samples = words.reshape(-1, positions, words.shape[1])
    _count_positions(samples, first, np.empty((2, TILE_ROWS), np.uint64), counts)
    return np.ascontiguousarray(counts[:, :neurons])


@kernel
def _count_positions(samples: U64, first: int, room: U64, counts: I64) -> None:
    tile = room[0]
    for start in range(0, samples.shape[0], TILE_ROWS):
        held = min(TILE_ROWS, samples.shape[0] - start)
        for position in range(counts.shape[0]):
            for column in range(samples.shape[2]):
                for sample in range(held):
                    tile[sample] = samples[start + sample, first + position, column]
                for sample in range(held, TILE_ROWS):
                    tile[sample] = np.uint64(0)
                transpose_tile(tile, room[1])
                for neuron in range(TILE_ROWS):
                    counts[position, column * TILE_ROWS + neuron] += count_ones(tile[neuron])
