"""Kernels that pack tensors where they lie: neurons as planes, or as neighbours, to rows."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tsstore.numba_tools.decorators import compiled, inlined, kernel
from tsstore.numba_tools.intrinsics import prefetch, words_at
from tsstore.recording.packing.memory import Words

_Bytes = npt.NDArray[np.uint8]
_Word = np.unsignedinteger[Any]

_TILE: Final = 4096
"""Positions whose bytes are joined before they become rows, all in a near cache."""
_LONG: Final = 512
"""So many positions are read plane after plane: memory likes one stream best."""
_AHEAD: Final = 1 << 14
"""Bytes from what is read to what is asked for: past the ends of pages processors do not look."""
_CACHE_LINE: Final = 64
"""Bytes that come from memory together."""
_VECTOR: Final = 16
"""Words that are compared at once, where the processor is good at it."""
_CHUNK: Final = 4096
"""Neurons whose rows are packed together, all in a near cache."""
_FACTOR: Final = np.uint64(0x0102040810204080)
"""Its product with 8 bytes of 0 or 1, byte i, has bit i of them in its byte 7."""


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
    turned = np.empty(((width + 7) // 8 if width > 8 else 0, tile), np.uint64)
    _pack_tiles(source, starts, neurons, rows, joined, turned)


@inlined
def _pack_tiles(
    source: _Source,
    starts: npt.NDArray[np.int64],
    neurons: int,
    rows: _Bytes,
    joined: _Bytes,
    turned: npt.NDArray[np.uint64],
) -> None:
    """Pack planes, as many of their positions at a time as there is room for."""
    width, tile = rows.shape[2], turned.shape[1]
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
                if size < _LONG:
                    _join_short(source, start, planes, size, line)
                else:
                    _join_long(source, start, planes, size, line)
                if width > 8 and (byte % 8 == 7 or byte == width - 1):
                    _turn(joined, size, turned[byte // 8])
            if width > 8:
                _spread(turned, width, size, row)
            elif width > 1:
                _interleave(joined, width, size, row)


@inlined
def _fetch(words: Words, start: int, size: int) -> None:
    """Ask for what comes a while after words that are being read."""
    begin = start + _AHEAD // words.itemsize
    for index in range(begin, min(begin + size, words.size), _CACHE_LINE // words.itemsize):
        prefetch(words, index)


@inlined
def _join_long(source: _Source, start: int, planes: int, size: int, joined: _Bytes) -> None:
    """Join up to 8 planes to bytes, whose bit i is plane i, one plane after the other."""
    words, step, first, following = source
    word = words.dtype.type
    joined[:size] = 0
    for plane in range(planes):
        line = words[start + plane * step :]
        bit = np.uint8(1 << plane)
        _fetch(words, start + plane * step, size)
        for index in range(size):
            # Words before the first one wrap around to the largest.
            on = word(line[index] - first) <= following
            joined[index] |= bit if on else np.uint8(0)


@inlined
def _join_short(source: _Source, start: int, planes: int, size: int, joined: _Bytes) -> None:
    """Join up to 8 planes to bytes, whose bit i is plane i, all at once."""
    rest = size % _VECTOR
    whole = size - rest if rest > 2 and size > _VECTOR else size
    _join(source, start, planes - 1, whole, joined)
    if whole < size:
        # Some once more, for a whole vector.
        last = size - _VECTOR
        _join(source, start + last, planes - 1, _VECTOR, joined[last:])
    if planes < 8:
        valid = np.uint8((1 << planes) - 1)
        for index in range(size):
            joined[index] &= valid


@kernel
def _join(source: _Source, start: int, last: int, size: int, joined: _Bytes) -> None:
    """Join 8 planes to bytes; in place of those after the last one, that one again."""
    step, first, following = source.step, source.first, source.following
    words, word, bit = source.words[start:], source.words.dtype.type, np.uint8
    # Slices with one index in common, and stores one after the other: else LLVM has no vectors.
    plane0, plane1 = words, words[min(1, last) * step :]
    plane2, plane3 = words[min(2, last) * step :], words[min(3, last) * step :]
    plane4, plane5 = words[min(4, last) * step :], words[min(5, last) * step :]
    plane6, plane7 = words[min(6, last) * step :], words[min(7, last) * step :]
    for index in range(size):
        joined[index] = (
            bit(word(plane0[index] - first) <= following)
            | bit(word(plane1[index] - first) <= following) << bit(1)
            | bit(word(plane2[index] - first) <= following) << bit(2)
            | bit(word(plane3[index] - first) <= following) << bit(3)
            | bit(word(plane4[index] - first) <= following) << bit(4)
            | bit(word(plane5[index] - first) <= following) << bit(5)
            | bit(word(plane6[index] - first) <= following) << bit(6)
            | bit(word(plane7[index] - first) <= following) << bit(7)
        )


@kernel
def _interleave(joined: _Bytes, width: int, size: int, rows: _Bytes) -> None:
    """Write up to 8 lines of bytes as rows, byte after byte."""
    # Only for a constant number of lines LLVM has vectors.
    if width == 2:
        _interleave_lines(joined, 2, size, rows)
    elif width == 3:
        _interleave_lines(joined, 3, size, rows)
    elif width == 4:
        _interleave_lines(joined, 4, size, rows)
    elif width == 5:
        _interleave_lines(joined, 5, size, rows)
    elif width == 6:
        _interleave_lines(joined, 6, size, rows)
    elif width == 7:
        _interleave_lines(joined, 7, size, rows)
    else:
        _interleave_lines(joined, 8, size, rows)


@inlined
def _interleave_lines(joined: _Bytes, width: int, size: int, rows: _Bytes) -> None:
    """Write `width` lines as rows."""
    for position in range(size):
        for byte in range(width):
            rows[position * width + byte] = joined[byte, position]


@kernel
def _turn(joined: _Bytes, size: int, turned: npt.NDArray[np.uint64]) -> None:
    """Join 8 lines of bytes to words, whose byte i is line i."""
    word = np.uint64
    line0, line1, line2, line3 = joined[0, :size], joined[1], joined[2], joined[3]
    line4, line5, line6, line7 = joined[4], joined[5], joined[6], joined[7]
    for index in range(size):
        low = word(line0[index]) | word(line1[index]) << word(8)
        low |= word(line2[index]) << word(16) | word(line3[index]) << word(24)
        high = word(line4[index]) << word(32) | word(line5[index]) << word(40)
        high |= word(line6[index]) << word(48) | word(line7[index]) << word(56)
        turned[index] = low | high


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
    # Zeros, where nothing is written: what is gathered behind the last line must not carry over.
    on = np.zeros(max(1, _CHUNK // neurons) * neurons + 8, np.uint8)
    _pack_chunks(source, starts, neurons, rows, on)


@inlined
def _pack_chunks(
    source: _Source, starts: npt.NDArray[np.int64], neurons: int, rows: _Bytes, on: _Bytes
) -> None:
    """Pack lines, as many at a time as there is room for."""
    chunk = (on.size - 8) // neurons
    flat = rows.reshape(-1, rows.shape[2])
    positions = len(flat) // starts.size
    for block in range(starts.size):
        for position in range(0, positions, chunk):
            lines = min(chunk, positions - position)
            start = starts[block] + position * source.step
            _mark_lines(source, start, lines, neurons, on)
            _gather(on, neurons, flat[block * positions + position :][:lines])


@inlined
def _mark_lines(source: _Source, start: int, lines: int, size: int, on: _Bytes) -> None:
    """Write 1 or 0 for each word of lines, without the gaps between them."""
    if source.step == size:
        _mark(source, start, lines * size, on)
        return
    for line in range(lines):
        _mark(source, start + line * source.step, size, on[line * size :])


@inlined
def _mark(source: _Source, start: int, size: int, on: _Bytes) -> None:
    """Write 1 where a word is in the range that `following` words after `first` end, else 0."""
    first, following = source.first, source.following
    words, word = source.words[start : start + size], source.words.dtype.type
    for index in range(words.size):
        # Words before the first one wrap around to the largest.
        on[index] = word(words[index] - first) <= following


@inlined
def _gather(on: _Bytes, neurons: int, rows: _Bytes) -> None:
    """Pack lines of 0 or 1 that follow each other; 8 bytes follow the last one."""
    lines, width = rows.shape
    last = np.uint8((1 << (neurons - 8 * (width - 1))) - 1)
    for line in range(lines):
        for byte in range(width):
            begin = np.uint64(line * neurons + 8 * byte)
            word = np.uint64(0)
            # A constant length, so that the compiler sees one load of 8 bytes.
            for index in range(8):
                word |= np.uint64(on[begin + np.uint64(index)]) << np.uint64(8 * index)
            rows[line, byte] = word * _FACTOR >> np.uint64(56)
        # What follows a line is the next one.
        rows[line, width - 1] &= last
