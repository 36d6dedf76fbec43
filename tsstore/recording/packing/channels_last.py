"""Tensors whose neurons are neighbours in memory, as dense layers give them, to rows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tsstore.numba_tools.decorators import compiled, inlined
from tsstore.numba_tools.intrinsics import words_at
from tsstore.recording.packing.memory import Words

_Bytes = npt.NDArray[np.uint8]
_Word = np.unsignedinteger[Any]

_CHUNK: Final = 4096
"""Neurons whose rows are packed together, all in a near cache."""
_FACTOR: Final = np.uint64(0x0102040810204080)
"""Its product with 8 bytes of 0 or 1, byte i, has bit i of them in its byte 7."""


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

    Parameters
    ----------
    address
        Of the tensor's first value.
    extent
        Words from there to the end of its last value.
    starts
        int64 (blocks,): the first position of each block of positions at the same distances.
    neurons
        Number of neurons.
    step
        Words from one position to the next.
    first, following
        A neuron is on where its word is `first` or one of so many that follow it, and wrap around.
    rows
        uint8 (samples, positions, ceil(neurons / 8)), to be filled.
    """
    words = words_at(address, extent, first)
    # Zeros, where nothing is written: what is gathered behind the last line must not carry over.
    on = np.zeros(max(1, _CHUNK // neurons) * neurons + 8, np.uint8)
    _pack_chunks(words, starts, neurons, step, first, following, rows, on)


@inlined
def _pack_chunks(
    words: Words,
    starts: npt.NDArray[np.int64],
    neurons: int,
    step: int,
    first: _Word,
    following: _Word,
    rows: _Bytes,
    on: _Bytes,
) -> None:
    """Pack lines, as many at a time as there is room for."""
    chunk = (on.size - 8) // neurons
    flat = rows.reshape(-1, rows.shape[2])
    positions = len(flat) // starts.size
    for block in range(starts.size):
        for position in range(0, positions, chunk):
            lines = min(chunk, positions - position)
            start = starts[block] + position * step
            _mark_lines(words, start, step, lines, neurons, first, following, on)
            _gather(on, neurons, flat[block * positions + position :][:lines])


@inlined
def _mark_lines(
    words: Words,
    start: int,
    step: int,
    lines: int,
    size: int,
    first: _Word,
    following: _Word,
    on: _Bytes,
) -> None:
    """Write 1 or 0 for each word of lines that begin every `step` words, without their gaps."""
    if step == size:
        _mark(words[start : start + lines * size], first, following, on)
        return
    for line in range(lines):
        begin = start + line * step
        _mark(words[begin : begin + size], first, following, on[line * size :])


@inlined
def _mark(words: Words, first: _Word, following: _Word, on: _Bytes) -> None:
    """Write 1 where a word is in the range that `following` words after `first` end, else 0."""
    word = words.dtype.type
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
