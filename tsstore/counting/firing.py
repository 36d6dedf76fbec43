"""How often each neuron fires: columns of bits, counted up to 64 rows at a time.

A tile of 64 rows is transposed, 64 by 64 bits, so that a word holds what one neuron did in these
rows: its ones are counted by one instruction, and so are those in the rows of one sample. Where
samples are short, all of a tile are counted at once: the square of the rows in which a neuron is on
in a sample is the number of pairs of such rows, and those of rows that lie apart by 1, 2, … are the
ones that a word and the same word, shifted, have in common.

Equal columns are told by their hashes: two sums modulo 2⁶⁴ over the halves of a column's words, of
32 bits each, times numbers K of 64 bits that are drawn anew for each analysis. Two columns that
differ agree in one sum with a probability of at most 2⁻³³: K of a half in which they differ would
have to be one of 2³¹ numbers, at most, out of 2⁶⁴; so in both of at most 2⁻⁶⁶. The hash is linear:
those of a column and of its complement add up to that of a column of ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.words import GOLDEN, count_ones, splitmix

TILE_ROWS = 64
SHORT = 8
"""Rows of samples, at most, that are counted by pairs: then a tile holds whole samples."""


@dataclass(frozen=True, eq=False)
class Firing:
    """What was counted of each neuron in some samples, or in those of several groups; it adds up.

    Attributes
    ----------
    totals
        int64 (3,): how many samples have rows, how many rows, and the sum of squares of samples'
        rows.
    counts
        int64 (5, neurons): rows in which a neuron is on; over samples, the sum of squares of these
        rows, and of their products with the sample's rows; samples in which it is on at all, and
        in all rows.
    hashes
        uint64 (2, neurons + 1): both sums of each column, and of a column of ones.

    Of several groups there is an axis before these.
    """

    totals: I64
    counts: I64
    hashes: U64

    def of(self, group: int) -> Firing:
        """Return what was counted of one of several groups."""
        return Firing(self.totals[group], self.counts[group], self.hashes[group])

    @property
    def samples(self) -> int:
        """How many samples have rows."""
        return int(self.totals[0])

    @property
    def rows(self) -> int:
        """How many rows they have."""
        return int(self.totals[1])

    @property
    def squared_rows(self) -> int:
        """The sum of squares of samples' rows."""
        return int(self.totals[2])


_Keys = tuple[tuple[np.uint64, np.uint64], tuple[np.uint64, np.uint64]]
_FIELDS = ("totals", "counts", "hashes")


def count_firing(rows: U8, positions: I64, neurons: int, seed: Sequence[int]) -> Firing:
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
        of the first one.

    Returns
    -------
    Firing
    """
    if not positions.all():
        positions = positions[positions > 0]
    starts = np.cumsum(positions)
    starts -= positions
    edges = np.array([0, len(positions)])
    return _count(rows, starts, positions, edges, neurons, seed).of(0)


def count_firing_by_group(
    rows: U8,
    positions: I64,
    neurons: int,
    seed: Sequence[int],
    group: npt.NDArray[np.signedinteger[Any]],
    numbers: range,
) -> Firing:
    """Count what each neuron does in the samples of each of some groups.

    Parameters
    ----------
    rows, positions, neurons, seed
        As of :func:`count_firing`.
    group
        Integers (samples,): the number of each sample's group.
    numbers
        Which groups are counted.

    Returns
    -------
    Firing
        With an axis of groups.
    """
    if not positions.all():
        group = np.where(positions > 0, group, group.dtype.type(numbers.stop))
    order = np.argsort(group, kind="stable")
    limits = np.arange(numbers.start, numbers.stop + 1, dtype=group.dtype)
    edges = np.searchsorted(group[order], limits)
    order, edges = order[edges[0] : edges[-1]], edges - edges[0]
    starts = np.cumsum(positions)
    starts -= positions
    return _count(rows, starts[order], positions[order], edges, neurons, seed)


def _count(
    rows: U8, starts: I64, lengths: I64, edges: I64, neurons: int, seed: Sequence[int]
) -> Firing:
    """Count the samples between two edges: of each its first row, and how many, one at least."""
    words, groups = row_words(rows), len(edges) - 1
    columns, longest = TILE_ROWS * words.shape[1], int(lengths.max(initial=0))
    # Where all samples have as many rows, products follow from the rows in which a neuron is on.
    alike = longest == int(lengths.min(initial=longest))
    counts = np.zeros((groups, 5, columns), np.int64)
    hashes = np.zeros((groups, 2, columns + 1), np.uint64)
    at, pending = np.empty(TILE_ROWS, np.int64), np.zeros(columns, np.int64)
    room = np.empty((4, TILE_ROWS), np.uint64)
    samples = starts, lengths, edges, longest, alike
    _count_tiles(words, *samples, hash_seeds(seed), at, room, pending, counts, hashes)
    if longest == 1:
        counts[:, 1:] = counts[:, :1]
    elif alike:
        counts[:, 2] = longest * counts[:, 0]
    hashes[:, :, neurons] = hashes[:, :, columns]
    totals = np.zeros((groups, 3), np.int64)
    for own, first, stop in zip(totals, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        each = lengths[first:stop]
        own[:] = len(each), each.sum(), each @ each
    return Firing(totals, counts[:, :, :neurons], hashes[:, :, : neurons + 1])


def hash_seeds(seed: Sequence[int]) -> U64:
    """Return what the random numbers of hashes are drawn from."""
    return np.frombuffer(blake2b(repr(seed).encode(), digest_size=16).digest(), np.uint64).copy()


def row_words(rows: U8) -> U64:
    """Return rows as words, uint64 (rows, words); what is beyond their bytes is 0."""
    count, row_bytes = rows.shape
    if row_bytes % 8 == 0 and rows.ctypes.data % 8 == 0:
        return rows.view("<u8").astype(np.uint64, copy=False)
    padded = np.zeros((count, -(-row_bytes // 8) * 8), np.uint8)
    padded[:, :row_bytes] = rows
    return padded.view("<u8").astype(np.uint64, copy=False)


@kernel
def _count_tiles(
    words: U64,
    starts: I64,
    lengths: I64,
    edges: I64,
    longest: int,
    alike: bool,
    seeds: U64,
    at: I64,
    room: U64,
    pending: I64,
    counts: I64,
    hashes: U64,
) -> None:
    """Add up all columns of the samples between two edges, which are of one group."""
    tile, mates, last, tiles = room[0], room[3], hashes.shape[2] - 1, 0
    for group in range(len(edges) - 1):
        sample, row = edges[group], np.int64(0)
        while sample < edges[group + 1]:
            first, begun = sample, row
            sample, row, held = _choose_rows(
                starts, lengths, sample, row, edges[group + 1], longest, at, mates
            )
            keys = hash_keys(seeds, tiles)
            tiles += 1
            add_hash(hashes[group, 0], hashes[group, 1], last, keys, ones(held))
            for start in range(0, last, TILE_ROWS):
                end = start + TILE_ROWS
                own, rest = counts[group], pending[start:end]
                on = own[0, start:end]
                sums, others = hashes[group, 0, start:end], hashes[group, 1, start:end]
                for place in range(held):
                    tile[place] = words[at[place], start // TILE_ROWS]
                for place in range(held, TILE_ROWS):
                    tile[place] = np.uint64(0)
                transpose_tile(tile, room[1])
                for neuron in range(TILE_ROWS):
                    add_hash(sums, others, neuron, keys, tile[neuron])
                for neuron in range(TILE_ROWS):
                    on[neuron] += count_ones(tile[neuron])
                if 1 < longest <= SHORT:
                    _add_pairs(room, longest, alike, own, start)
                elif longest > SHORT:
                    _add_samples(tile, lengths, first, begun, held, alike, rest, own, start)


@inlined
def _choose_rows(
    starts: I64,
    lengths: I64,
    sample: np.int64,
    row: np.int64,
    stop: np.int64,
    longest: int,
    at: I64,
    mates: U64,
) -> tuple[np.int64, np.int64, np.int64]:
    """Choose rows of a tile, from one of a sample on; return which comes next, and how many.

    Where samples are short they are whole; `mates` tell which rows are the first of a sample, and
    which have one of their sample so many rows later: bit i of `mates[d]` those of i and i + d.
    """
    held = np.int64(0)
    if longest == 1:
        held = min(np.int64(TILE_ROWS), stop - sample)
        for place in range(held):
            at[place] = starts[sample + place]
        return sample + held, row, held
    mates[:SHORT] = 0
    while sample < stop and held < TILE_ROWS:
        left = lengths[sample] - row
        taken = min(left, TILE_ROWS - held)
        if longest <= SHORT:
            if taken < left:
                break
            mates[0] |= np.uint64(1) << np.uint64(held)
            for apart in range(1, taken):
                mates[apart] |= ones(taken - apart) << np.uint64(held)
        for place in range(taken):
            at[held + place] = starts[sample] + row + place
        held += taken
        row += taken
        if row == lengths[sample]:
            sample, row = sample + 1, np.int64(0)
    return sample, row, held


@inlined
def ones(count: np.int64) -> np.uint64:
    """Return a word whose lowest bits are ones: so many, from 1 to 64."""
    return np.uint64(0xFFFF_FFFF_FFFF_FFFF) >> np.uint64(64 - count)


@inlined
def hash_keys(seeds: U64, tile: int) -> _Keys:
    """Return the random numbers of both halves of a tile's words, for both sums."""
    step = np.uint64(2 * tile)
    one, other = seeds[0] + step * GOLDEN, seeds[1] + step * GOLDEN
    return (splitmix(one), splitmix(one + GOLDEN)), (splitmix(other), splitmix(other + GOLDEN))


@inlined
def add_hash(sums: U64, others: U64, at: int, keys: _Keys, word: np.uint64) -> None:
    """Add a word, times random numbers, to both sums of a column."""
    low, high = word & np.uint64(0xFFFF_FFFF), word >> np.uint64(32)
    sums[at] += keys[0][0] * low + keys[0][1] * high
    others[at] += keys[1][0] * low + keys[1][1] * high


@inlined
def _add_pairs(room: U64, longest: int, alike: bool, counts: I64, start: int) -> None:
    """Add up a tile of short samples, which are whole; its other room is what rows were like."""
    tile, some, every, mates = room[0], room[1], room[2], room[3]
    squares, products = counts[1, start : start + 64], counts[2, start : start + 64]
    fired, full = counts[3, start : start + 64], counts[4, start : start + 64]
    for neuron in range(TILE_ROWS):
        some[neuron] = every[neuron] = tile[neuron]
        squares[neuron] += count_ones(tile[neuron])
    if not alike:
        for neuron in range(TILE_ROWS):
            products[neuron] += count_ones(tile[neuron])
    for apart in range(1, longest):
        mate, shift = mates[apart], np.uint64(apart)
        for neuron in range(TILE_ROWS):
            later = (tile[neuron] >> shift) & mate
            squares[neuron] += count_ones(tile[neuron] & later) << 1
            some[neuron] |= later
            every[neuron] &= later | ~mate
        if not alike:
            for neuron in range(TILE_ROWS):
                products[neuron] += count_ones(tile[neuron] & mate)
                products[neuron] += count_ones((tile[neuron] >> shift) & mate)
    for neuron in range(TILE_ROWS):
        fired[neuron] += count_ones(some[neuron] & mates[0])
        full[neuron] += count_ones(every[neuron] & mates[0])


@inlined
def _add_samples(
    tile: U64,
    lengths: I64,
    sample: np.int64,
    row: np.int64,
    held: np.int64,
    alike: bool,
    pending: I64,
    counts: I64,
    start: int,
) -> None:
    """Add up a tile's samples, from a row of the first one on; of what goes on rows are pending."""
    squares, products = counts[1, start : start + 64], counts[2, start : start + 64]
    fired, full = counts[3, start : start + 64], counts[4, start : start + 64]
    done = np.int64(0)
    while done < held:
        length = lengths[sample]
        taken = min(length - row, held - done)
        mask = ones(taken) << np.uint64(done)
        done += taken
        row += taken
        if row < length:
            for neuron in range(TILE_ROWS):
                pending[neuron] += count_ones(tile[neuron] & mask)
            continue
        if not alike:
            for neuron in range(TILE_ROWS):
                products[neuron] += length * (pending[neuron] + count_ones(tile[neuron] & mask))
        for neuron in range(TILE_ROWS):
            own = pending[neuron] + count_ones(tile[neuron] & mask)
            pending[neuron] = 0
            squares[neuron] += own * own
            fired[neuron] += own > 0
            full[neuron] += own == length
        sample, row = sample + 1, np.int64(0)


@inlined
def transpose_tile(tile: U64, other: U64) -> None:
    """Exchange rows and bits of 64 words: bit j of word i becomes bit i of word j.

    Each step exchanges bits of words of both halves, and shuffles the halves like cards, so that
    the next one does as well: six of them bring all words back to their places. `other` is room.
    """
    _shuffle(tile, other, 32, np.uint64(0x0000_0000_FFFF_FFFF))
    _shuffle(other, tile, 16, np.uint64(0x0000_FFFF_0000_FFFF))
    _shuffle(tile, other, 8, np.uint64(0x00FF_00FF_00FF_00FF))
    _shuffle(other, tile, 4, np.uint64(0x0F0F_0F0F_0F0F_0F0F))
    _shuffle(tile, other, 2, np.uint64(0x3333_3333_3333_3333))
    _shuffle(other, tile, 1, np.uint64(0x5555_5555_5555_5555))


@inlined
def _shuffle(words: U64, into: U64, distance: int, low: np.uint64) -> None:
    """Exchange upper bits of the first half with lower ones of the other; shuffle the halves."""
    shift = np.uint64(distance)
    for place in range(32):
        one, other = words[place], words[place + 32]
        differ = ((one >> shift) ^ other) & low
        into[2 * place] = one ^ (differ << shift)
        into[2 * place + 1] = other ^ differ


def add_firing(counted: Iterable[Firing]) -> Firing:
    """Return what was counted of some samples together; two counts are held at a time."""
    parts = iter(counted)
    total = next(parts)
    for number, own in enumerate(parts):
        pairs = ((getattr(total, name), getattr(own, name)) for name in _FIELDS)
        # What was given is left as it is.
        total = Firing(*(np.add(one, other, out=one if number else None) for one, other in pairs))
    return total


def complements(counted: Firing) -> U64:
    """Return the hashes that the complement of each neuron's column would have."""
    opposites: U64 = counted.hashes[:, -1:] - counted.hashes[:, :-1]
    return opposites
