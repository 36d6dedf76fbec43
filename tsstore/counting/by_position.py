"""What each neuron does where samples have the same positions: at each of them, and in all.

A tile holds one position of 64 samples: its word of a neuron has a bit a sample. How many rows of a
sample a neuron is on in is added up in binary, 64 samples at a time: word k of a sum has bit k of
each sample's number. From these words follow the squares, and the samples in which a neuron is on
at all, or in all rows.

References
----------
R. D. Harley and D. Seal: the carry-save adders of H. S. Warren, "Hacker's Delight", 2nd ed., 5-1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tsstore.counting.firing import (
    TILE_ROWS,
    Firing,
    add_hash,
    count_firing,
    hash_keys,
    hash_seeds,
    ones,
    row_words,
    transpose_tile,
)
from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.words import count_ones

COLUMNS = 512
"""Neurons that are counted at a time: a line of the processor's cache of each row."""
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def count_by_position(
    rows: U8, positions: int, neurons: int, seed: Sequence[int], first: int, stop: int
) -> tuple[Firing, I64]:
    """Count what each neuron does in some samples, and those in which it is on at some positions.

    Parameters
    ----------
    rows
        uint8 (samples * positions, row_bytes), C-contiguous: sample after sample.
    positions
        Rows of each sample.
    neurons
        Number of neurons.
    seed
        As of `count_firing`.
    first, stop
        Which positions: from a first one up to another.

    Returns
    -------
    Firing
        As of `count_firing`.
    numpy.ndarray
        int64 (stop - first, neurons).
    """
    samples = len(rows) // positions
    if positions == 1:
        counted = count_firing(rows, np.ones(samples, np.int64), neurons, seed)
        return counted, counted.counts[:1].copy()
    words = row_words(rows)
    columns = TILE_ROWS * words.shape[1]
    at_positions = np.zeros((stop - first, columns), np.int64)
    counts = np.zeros((5, columns), np.int64)
    hashes = np.zeros((2, columns + 1), np.uint64)
    room = np.empty((2, TILE_ROWS), np.uint64)
    sums = np.empty((2, positions.bit_length(), COLUMNS), np.uint64)
    _count_samples(
        words.reshape(samples, positions, words.shape[1]),
        hash_seeds(seed), room, sums, counts, hashes, first, at_positions,
    )  # fmt: skip
    counts[2] = positions * counts[0]
    hashes[:, neurons] = hashes[:, columns]
    totals = np.array([samples, samples * positions, samples * positions**2])
    counted = Firing(totals, counts[:, :neurons], hashes[:, : neurons + 1])
    return counted, np.ascontiguousarray(at_positions[:, :neurons])


@kernel
def _count_samples(
    samples: U64,
    seeds: U64,
    room: U64,
    sums: U64,
    counts: I64,
    hashes: U64,
    first: int,
    at_positions: I64,
) -> None:
    tile, (number, positions, wide) = room[0], samples.shape
    for start in range(0, number, TILE_ROWS):
        held = min(TILE_ROWS, number - start)
        for left in range(0, wide, COLUMNS // TILE_ROWS):
            right = min(left + COLUMNS // TILE_ROWS, wide)
            sums[0] = 0
            for position in range(positions):
                keys = hash_keys(seeds, start // TILE_ROWS * positions + position)
                if left == 0:
                    add_hash(hashes[0], hashes[1], hashes.shape[1] - 1, keys, ones(held))
                is_asked = first <= position < first + len(at_positions)
                for column in range(left, right):
                    for sample in range(held):
                        tile[sample] = samples[start + sample, position, column]
                    for sample in range(held, TILE_ROWS):
                        tile[sample] = np.uint64(0)
                    transpose_tile(tile, room[1])
                    neurons = slice(column * TILE_ROWS, (column + 1) * TILE_ROWS)
                    some, others = hashes[0, neurons], hashes[1, neurons]
                    for neuron in range(TILE_ROWS):
                        add_hash(some, others, neuron, keys, tile[neuron])
                    if is_asked:
                        own = at_positions[position - first, neurons]
                        for neuron in range(TILE_ROWS):
                            own[neuron] += count_ones(tile[neuron])
                    _add_position(sums, (column - left) * TILE_ROWS, position, tile)
            for column in range(left, right):
                own_sums = sums[:, :, (column - left) * TILE_ROWS :]
                _add_sums(own_sums, positions, tile, counts, column * TILE_ROWS)


@inlined
def _add_position(sums: U64, at: int, position: int, tile: U64) -> None:
    """Add a word of each neuron to its sums; every other one waits until there are two to add."""
    bit = 0
    while position >> bit & 1:
        _add_bit(sums[0, bit, at : at + TILE_ROWS], sums[1, bit, at : at + TILE_ROWS], tile)
        bit += 1
    waiting = sums[1, bit, at : at + TILE_ROWS]
    for neuron in range(TILE_ROWS):
        waiting[neuron] = tile[neuron]


@inlined
def _add_bit(total: U64, other: U64, carry: U64) -> None:
    """Add two words to one, bit by bit: the total has the sums' lower bit, the carry the other."""
    for neuron in range(TILE_ROWS):
        differ, both = total[neuron] ^ other[neuron], total[neuron] & other[neuron]
        total[neuron] = differ ^ carry[neuron]
        carry[neuron] = both | (differ & carry[neuron])


@inlined
def _add_sums(sums: U64, positions: int, carry: U64, counts: I64, start: int) -> None:
    """Add up what 64 samples' numbers of rows give, and all that wait to be added to these."""
    bits, stop = sums.shape[1], start + TILE_ROWS
    on, squares = counts[0, start:stop], counts[1, start:stop]
    fired, full = counts[3, start:stop], counts[4, start:stop]
    carry[:] = 0
    for bit in range(bits):
        if not positions >> bit & 1:
            sums[1, bit, :TILE_ROWS] = 0
        _add_bit(sums[0, bit], sums[1, bit], carry)
    for bit in range(bits):
        total = sums[0, bit]
        for neuron in range(TILE_ROWS):
            ones_of = count_ones(total[neuron])
            on[neuron] += ones_of << bit
            squares[neuron] += ones_of << (2 * bit)
        for lower in range(bit):
            other = sums[0, lower]
            for neuron in range(TILE_ROWS):
                squares[neuron] += count_ones(total[neuron] & other[neuron]) << (bit + lower + 1)
    some, every = sums[1, 0], carry
    some[:TILE_ROWS] = 0
    every[:] = _ALL
    for bit in range(bits):
        total, missing = sums[0, bit], np.uint64(0) if positions >> bit & 1 else _ALL
        for neuron in range(TILE_ROWS):
            some[neuron] |= total[neuron]
            every[neuron] &= total[neuron] ^ missing
    for neuron in range(TILE_ROWS):
        fired[neuron] += count_ones(some[neuron])
        full[neuron] += count_ones(every[neuron])
