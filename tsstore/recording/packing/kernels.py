"""Kernels that pack tensors where they lie: neurons as planes, or as neighbours, to rows."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tsstore.numba_tools.compares import LANES, add_plane, on_byte, on_word, turn_lines
from tsstore.numba_tools.decorators import compiled, inlined, kernel
from tsstore.numba_tools.intrinsics import words_at
from tsstore.recording.packing.memory import Words

_Bytes = npt.NDArray[np.uint8]
_Word = np.unsignedinteger[Any]

_TILE: Final = 4096
"""Positions whose bytes are joined before they become rows, all in a near cache."""
_AHEAD: Final = 4096
"""Words that are fetched before they are read, in whole planes."""
_FEW: Final = 4
"""Bytes of a row up to which it is written byte by byte, by vectors."""
_LINE: Final = 1 << 17
"""Neurons that are packed as one line of bits before it is cut into rows, in a near cache."""


class _Source(NamedTuple):
    """Words to read, `step` from one plane or line to the next, and which of them are on."""

    words: Words
    step: int
    first: _Word
    following: _Word


@compiled(nogil=True)
def pack_channels_first(
    address: int,
    extent: int,
    starts: npt.NDArray[np.int64],
    neurons: int,
    step: int,
    first: _Word,
    following: _Word,
    rows: _Bytes,
) -> None:
    """Pack a tensor whose positions are neighbours in memory: a plane for each neuron.

    Parameters
    ----------
    address
        Of the tensor's first value.
    extent
        Words from there to the end of its last value.
    starts
        int64 (blocks,): the first position of each block of neighbours.
    neurons
        Number of neurons.
    step
        Words from one neuron to the next.
    first, following
        A neuron is on where its word is `first` or one of so many that follow it, and wrap around.
    rows
        uint8 (samples, positions, ceil(neurons / 8)), to be filled.
    """
    source = _Source(words_at(address, extent, first), step, first, following)
    width = rows.shape[2]
    tile = min(rows.size // (width * starts.size), _TILE)
    # An odd number of cache lines: else the bytes of one position compete for a few places.
    joined = np.empty((8, 64 * (tile // 64 + 1 | 1)), np.uint8)
    turned = np.empty(((width + 7) // 8, joined.shape[1]), np.uint64)
    _pack_tiles(source, starts, neurons, tile, rows, joined, turned)


@inlined
def _pack_tiles(
    source: _Source,
    starts: npt.NDArray[np.int64],
    neurons: int,
    tile: int,
    rows: _Bytes,
    joined: _Bytes,
    turned: npt.NDArray[np.uint64],
) -> None:
    """Pack planes, as many of their positions at a time as there is room for."""
    width = rows.shape[2]
    flat = rows.reshape(rows.size)
    positions = rows.size // (width * starts.size)
    for block in range(starts.size):
        for position in range(0, positions, tile):
            size = min(tile, positions - position)
            row = flat[(block * positions + position) * width :]
            for byte in range(width):
                start = starts[block] + 8 * byte * source.step + position
                planes = min(8, neurons - 8 * byte)
                line = row if width == 1 else joined[byte % 8]
                _join(source, start, planes, size, line)
                if width > _FEW and (byte % 8 == 7 or byte == width - 1):
                    for index in range(0, size, LANES):
                        turn_lines(joined, index, turned[byte // 8])
            if width > _FEW:
                _spread(turned, width, size, row)
            elif width > 1:
                _interleave(joined, width, size, row)


@inlined
def _join(source: _Source, start: int, planes: int, size: int, joined: _Bytes) -> None:
    """Join up to 8 planes to bytes, whose bit i is plane i; what is behind them may change.

    Planes are read one after the other, as they lie: what the processor fetches from memory of its
    own accord is what comes next, several times faster than of 8 planes at once.
    """
    words, step, first, following = source
    whole = size + -size % LANES
    if whole > joined.size or start + (planes - 1) * step + whole > words.size:
        whole = size - size % LANES
    ahead = max(_AHEAD // max(step, 1), 1) * step
    for plane in range(planes):
        line = start + plane * step
        for index in range(0, whole, LANES):
            add_plane(joined, index, words, line + index, plane, first, following, ahead)
        for index in range(whole, size):
            on = words.dtype.type(words[line + index] - first) <= following
            before = joined[index] if plane else np.uint8(0)
            joined[index] = before | np.uint8(on) << np.uint8(plane)


@kernel
def _interleave(joined: _Bytes, width: int, size: int, rows: _Bytes) -> None:
    """Write a few lines of bytes as rows, byte after byte."""
    # Only for a constant number of lines LLVM has vectors.
    if width == 2:
        _interleave_lines(joined, 2, size, rows)
    elif width == 3:
        _interleave_lines(joined, 3, size, rows)
    else:
        _interleave_lines(joined, 4, size, rows)


@inlined
def _interleave_lines(joined: _Bytes, width: int, size: int, rows: _Bytes) -> None:
    """Write `width` lines as rows."""
    for position in range(size):
        for byte in range(width):
            rows[position * width + byte] = joined[byte, position]


@kernel
def _spread(turned: npt.NDArray[np.uint64], width: int, size: int, rows: _Bytes) -> None:
    """Write lines of words as rows, 8 bytes after 8 bytes."""
    for position in range(size - 1):
        for group in range(turned.shape[0]):
            begin, word = np.uint64(position * width + 8 * group), turned[group, position]
            # A constant length, so that the compiler sees one store of 8 bytes. What it writes
            # behind a row is overwritten by the next one.
            for index in range(8):
                rows[begin + np.uint64(index)] = np.uint8(word >> np.uint64(8 * index))
    for index in range(width):
        word = turned[index // 8, size - 1]
        rows[(size - 1) * width + index] = np.uint8(word >> np.uint64(8 * (index % 8)))


@compiled(nogil=True)
def pack_channels_last(
    address: int,
    extent: int,
    starts: npt.NDArray[np.int64],
    neurons: int,
    step: int,
    first: _Word,
    following: _Word,
    rows: _Bytes,
) -> None:
    """Pack a tensor whose neurons are neighbours in memory: a line for each position.

    Arguments are those of :func:`pack_channels_first`, but for `step`: words from one position to
    the next, in blocks of positions at the same distances.
    """
    source = _Source(words_at(address, extent, first), step, first, following)
    flat, width = rows.reshape(rows.size), rows.shape[2]
    positions = flat.size // (width * starts.size)
    if step == neurons and neurons % 8 and positions > 1:
        tile = min(positions, max(_LINE // neurons, 1))
        # One word more: a row is cut out of two.
        _pack_cut(
            source, starts, positions, tile, flat, np.empty(tile * neurons // 64 + 2, np.uint64)
        )
        return
    # Lines without gaps, between them or in the last bytes of their rows, are one long line.
    lines = positions if step == neurons else 1
    for block in range(starts.size):
        for position in range(0, positions, lines):
            row = flat[(block * positions + position) * width :][: lines * width]
            _pack_line(source, starts[block] + position * step, lines * neurons, row)


@inlined
def _pack_line(source: _Source, start: int, neurons: int, row: _Bytes) -> None:
    """Pack neighbours to a row: 64 at a time, then 8, then what is left."""
    words, _, first, following = source
    whole = neurons - neurons % 64
    for neuron in range(0, whole, 64):
        bits = on_word(words, start + neuron, first, following)
        begin = np.uint64(neuron // 8)
        # A constant length, so that the compiler sees one store of 8 bytes.
        for index in range(8):
            row[begin + np.uint64(index)] = np.uint8(bits >> np.uint64(8 * index))
    for neuron in range(whole, neurons, 8):
        at = start + neuron
        if at + 8 <= words.size:
            row[neuron // 8] = on_byte(words, at, first, following)
            continue
        row[neuron // 8] = 0
        for index in range(words.size - at):
            on = words.dtype.type(words[at + index] - first) <= following
            row[neuron // 8] |= np.uint8(on) << np.uint8(index)
    # What follows a line is the next one.
    row[row.size - 1] &= np.uint8((1 << (neurons - 8 * (row.size - 1))) - 1)


@inlined
def _pack_cut(
    source: _Source,
    starts: npt.NDArray[np.int64],
    positions: int,
    tile: int,
    flat: _Bytes,
    bits: npt.NDArray[np.uint64],
) -> None:
    """Pack lines that follow each other without a gap, to rows whose last bytes have one."""
    neurons, width = source.step, flat.size // (positions * starts.size)
    for block in range(starts.size):
        for position in range(0, positions, tile):
            size = min(tile, positions - position)
            _line_up(source, starts[block] + position * neurons, size * neurons, bits)
            row = flat[(block * positions + position) * width :][: size * width]
            _cut(bits, neurons, width, size, row)


@inlined
def _line_up(source: _Source, start: int, count: int, bits: npt.NDArray[np.uint64]) -> None:
    """Pack neighbours to words of 64 bits; what is behind the last one may be anything."""
    words, _, first, following = source
    for index in range(0, count, 64):
        at = start + index
        if at + 64 <= words.size:
            bits[index // 64] = on_word(words, at, first, following)
            continue
        bits[index // 64] = 0
        for bit in range(min(64, words.size - at)):
            on = words.dtype.type(words[at + bit] - first) <= following
            bits[index // 64] |= np.uint64(on) << np.uint64(bit)


@kernel
def _cut(bits: npt.NDArray[np.uint64], neurons: int, width: int, size: int, rows: _Bytes) -> None:
    """Write bits that follow each other as rows, 8 bytes after 8 bytes."""
    # What is written behind a row is overwritten by the next ones, but at the end.
    whole = max(size - 8, 0)
    for position in range(whole):
        for byte in range(0, width, 8):
            word = _word_of(bits, position * neurons + 8 * byte, neurons - 8 * byte)
            begin = np.uint64(position * width + byte)
            for index in range(8):
                rows[begin + np.uint64(index)] = np.uint8(word >> np.uint64(8 * index))
    for position in range(whole, size):
        for byte in range(width):
            word = _word_of(bits, position * neurons + 8 * byte, neurons - 8 * byte)
            rows[position * width + byte] = np.uint8(word & np.uint64(0xFF))


@inlined
def _word_of(bits: npt.NDArray[np.uint64], at: int, left: int) -> np.uint64:
    """Return the 64 bits from anywhere on, or as many as are left."""
    begin, one = np.uint64(at), np.uint64(1)
    index, shift = begin >> np.uint64(6), begin & np.uint64(63)
    word = bits[index] >> shift | bits[index + one] << one << (np.uint64(63) - shift)
    kept = np.uint64(0xFFFF_FFFF_FFFF_FFFF) >> np.uint64(max(64 - left, 0))
    return np.uint64(word & kept)
