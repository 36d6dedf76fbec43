"""Tensors to rows, on the device where they are.

In the CPU's memory a tensor is read once and where it lies, as bit patterns: in every dtype the
numbers greater than a threshold are one range of patterns, or two. Other devices are left to
:mod:`tsstore.recording.pack_torch`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from tsstore.bits import row_bytes
from tsstore.compiling import compiled
from tsstore.errors import OutputError
from tsstore.recording.pack_torch import pack_by_torch
from tsstore.recording.patterns import Patterns, patterns_on
from tsstore.recording.strides import Words, is_worth_reading, positions_of, words_of

_Bytes = npt.NDArray[np.uint8]
_Word = np.unsignedinteger[Any]

_TILE: Final = 4032
"""Positions whose bytes are joined before they become rows, all in a near cache."""
_CHUNK: Final = 4096
"""Neurons whose rows are packed together, likewise."""

_FACTOR: Final = np.uint64(0x0102040810204080)
"""Its product with 8 bytes of 0 or 1, byte i, has bit i of them in its byte 7."""


@dataclass(frozen=True)
class Packed:
    """The rows of one call of one layer.

    Attributes
    ----------
    rows
        uint8 (samples, positions, ceil(neurons / 8)), on the tensor's device.
    neurons
        Number of neurons.
    position_shape
        Shape of the positions in the tensor: (height, width), (tokens,), or ().
    dtype
        Name of the tensor's dtype.
    threshold
        As it was used.
    neuron_axis, sample_axis
        Axes of the tensor.
    groups
        Entries of the sample axis that `rows` has in one.
    there
        bool (samples, positions): which rows count, where positions were chosen; None for all.
    arrived
        Returns once `rows` are in memory, where they are on their way; else None.
    """

    rows: torch.Tensor
    neurons: int
    position_shape: tuple[int, ...]
    dtype: str
    threshold: float
    neuron_axis: int
    sample_axis: int
    groups: int = 1
    there: npt.NDArray[np.bool_] | None = None
    arrived: Callable[[], object] | None = None

    @property
    def samples(self) -> int:
        """Size of the sample axis."""
        return self.rows.shape[0] * self.groups

    def in_memory(self) -> npt.NDArray[np.uint8]:
        """Return the rows in the CPU's memory, once they are there."""
        if self.arrived is not None:
            self.arrived()
        return self.rows.cpu().numpy()


def rounded_threshold(threshold: float, dtype: torch.dtype) -> float:
    """Return the threshold that a tensor of `dtype` is compared with.

    For floating point it is rounded to `dtype`, as torch and NumPy do. An integer is greater than
    a threshold exactly if it is greater than its floor.

    Raises
    ------
    OutputError
        If the threshold is beyond what `dtype` can hold.
    """
    if not dtype.is_floating_point:
        return float(math.floor(threshold))
    rounded = float(torch.tensor(threshold, dtype=torch.float64, device="cpu").to(dtype))
    if not math.isfinite(rounded):
        raise OutputError(
            f"the threshold {threshold} is beyond what {dtype} can hold; choose a smaller one"
        )
    return rounded


def check_packable(tensor: torch.Tensor) -> None:
    """Raise OutputError unless a tensor is dense, of real numbers, and has values to read."""
    if tensor.is_nested:
        raise OutputError(
            "found a nested tensor, expected a dense one; build the TransformerEncoder with "
            "enable_nested_tensor=False"
        )
    comparable = not (tensor.is_complex() or tensor.is_quantized or tensor.dtype == torch.uint64)
    if tensor.layout is not torch.strided or not comparable:
        raise OutputError(
            f"found a {tensor.layout} tensor of {tensor.dtype}, expected a dense one of numbers "
            "that torch can compare; exclude the layer"
        )
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    if tensor.is_meta or wrapped or torch._C._is_tracing():
        raise _no_values(tensor)


def pack(tensor: torch.Tensor, threshold: float, neuron_axis: int, sample_axis: int) -> Packed:
    """Pack a tensor's on/off states into rows.

    A neuron is on where its value is greater than the threshold; NaN is not.

    Parameters
    ----------
    tensor
        Of any real dtype and at least 2 axes; it is not changed, and no reference to it is kept.
    threshold
        As returned by :func:`rounded_threshold`.
    neuron_axis, sample_axis
        Axes of the tensor, counted from the front; all others are positions, in their order.

    Returns
    -------
    Packed
        The rows, sample after sample.

    Raises
    ------
    OutputError
        If the tensor is complex, sparse, nested or quantized, or has no neurons or no values.
    """
    check_packable(tensor)
    neurons = tensor.shape[neuron_axis]
    if neurons == 0:
        raise OutputError(
            f"found shape {tuple(tensor.shape)}, expected at least one neuron; exclude the layer"
        )
    positions = tuple(
        size for axis, size in enumerate(tensor.shape) if axis not in (neuron_axis, sample_axis)
    )
    pack_rows = _pack_in_memory if tensor.is_cpu else pack_by_torch
    rows = pack_rows(tensor, threshold, neuron_axis, sample_axis)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Packed(rows, neurons, positions, dtype, threshold, neuron_axis, sample_axis)


def _no_values(tensor: torch.Tensor) -> OutputError:
    return OutputError(
        f"found a {type(tensor).__name__} without values of its own, as on the meta device or "
        "within torch.func.vmap or torch.jit.trace, expected one whose values can be read; call "
        "the model outside of that, or exclude the layer"
    )


def _pack_in_memory(
    tensor: torch.Tensor, threshold: float, neuron_axis: int, sample_axis: int
) -> torch.Tensor:
    """Pack a tensor in the CPU's memory, as :func:`pack_by_torch` does."""
    tensor = tensor.detach().resolve_neg().movedim((sample_axis, neuron_axis), (0, 1))
    if tensor.is_floating_point() and tensor.itemsize == 1:
        # There are many such dtypes; a wider one holds the numbers of each.
        tensor = tensor.float()
    samples, neurons, *positions = tensor.shape
    shape = samples, math.prod(positions), row_bytes(neurons)
    ranges = patterns_on(tensor.dtype, threshold) if tensor.numel() else ()
    if not ranges:
        return torch.from_numpy(np.zeros(shape, np.uint8))
    return torch.from_numpy(_pack_ranges(tensor, ranges).reshape(shape))


def _pack_ranges(tensor: torch.Tensor, ranges: tuple[Patterns, ...]) -> _Bytes:
    """Pack (samples, neurons, …), on where its pattern is in one of the ranges."""
    neurons, neuron_step = tensor.shape[1], tensor.stride(1)
    starts, positions, step = positions_of(tensor)
    kernel: Callable[..., None]
    if step == 1 and is_worth_reading(neurons, positions, neuron_step):
        kernel, line_step = _pack_planes, neuron_step
        scratch = _scratch_of_planes(positions, row_bytes(neurons))
    elif neuron_step == 1 and is_worth_reading(positions, neurons, step):
        kernel, line_step = _pack_lines, step
        scratch = _scratch_of_lines(neurons)
    else:
        return _pack_ranges(tensor.contiguous(), ranges)
    try:
        words = words_of(tensor)
    except RuntimeError:
        raise _no_values(tensor) from None
    word = words.dtype.type
    packed = []
    for first, following in ranges:
        rows = np.empty((starts.size, positions, row_bytes(neurons)), np.uint8)
        kernel(words, starts, neurons, line_step, word(first), word(following), rows, *scratch)
        packed.append(rows)
    return functools.reduce(np.bitwise_or, packed)


def _scratch_of_planes(positions: int, width: int) -> tuple[_Bytes, ...]:
    """Return room for 8 planes of 0 or 1, and for the bytes of all neurons."""
    tile = min(positions, _TILE)
    # An odd number of cache lines: else the bytes of one position compete for a few places.
    cache_lines = -(-tile // 64) | 1
    return np.empty(8 * tile, np.uint8), np.empty((width, 64 * cache_lines), np.uint8)


def _scratch_of_lines(neurons: int) -> tuple[_Bytes, ...]:
    """Return room for lines of 0 or 1, and for 8 bytes more, never filled."""
    return (np.zeros(max(1, _CHUNK // neurons) * neurons + 8, np.uint8),)


# Without allocations there are no references to count, an atomic instruction for each slice.
_kernel = compiled(nogil=True, forceinline=True, _nrt=False)


@_kernel
def _pack_planes(
    words: Words,
    starts: npt.NDArray[np.int64],
    neurons: int,
    step: int,
    first: _Word,
    following: _Word,
    rows: _Bytes,
    on: _Bytes,
    joined: _Bytes,
) -> None:
    """Pack blocks whose positions are neighbours in memory: a plane for each neuron."""
    _, positions, width = rows.shape
    tile = on.size // 8
    for block in range(starts.size):
        for position in range(0, positions, tile):
            size = min(tile, positions - position)
            for byte in range(width):
                start = starts[block] + 8 * byte * step + position
                planes = min(8, neurons - 8 * byte)
                _mark_lines(words, start, step, planes, size, first, following, on)
                on[planes * size :] = 0
                _join(on, size, joined[byte])
            _turn(joined, rows[block, position : position + size])


@_kernel
def _pack_lines(
    words: Words,
    starts: npt.NDArray[np.int64],
    neurons: int,
    step: int,
    first: _Word,
    following: _Word,
    rows: _Bytes,
    on: _Bytes,
) -> None:
    """Pack blocks whose neurons are neighbours in memory: a line for each position."""
    tile = (on.size - 8) // neurons
    for block in range(starts.size):
        for position in range(0, rows.shape[1], tile):
            lines = min(tile, rows.shape[1] - position)
            start = starts[block] + position * step
            _mark_lines(words, start, step, lines, neurons, first, following, on)
            _gather(on, neurons, rows[block, position : position + lines])


@_kernel
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


@_kernel
def _mark(words: Words, first: _Word, following: _Word, on: _Bytes) -> None:
    """Write 1 where a word is in the range that `following` words after `first` end, else 0."""
    word = words.dtype.type
    for index in range(words.size):
        # Words before the first one wrap around to the largest.
        on[index] = word(words[index] - first) <= following


@_kernel
def _join(on: _Bytes, size: int, joined: _Bytes) -> None:
    """Join 8 planes of 0 or 1 to bytes, whose bit i is plane i."""
    # Slices with one index in common, and stores one after the other: else LLVM has no vectors.
    plane0, plane1, plane2, plane3 = on[:size], on[size:], on[2 * size :], on[3 * size :]
    plane4, plane5 = on[4 * size :], on[5 * size :]
    plane6, plane7 = on[6 * size :], on[7 * size :]
    for index in range(size):
        low = plane0[index] | plane1[index] << 1 | plane2[index] << 2 | plane3[index] << 3
        high = plane4[index] | plane5[index] << 1 | plane6[index] << 2 | plane7[index] << 3
        joined[index] = low | high << 4


@_kernel
def _turn(joined: _Bytes, rows: _Bytes) -> None:
    """Write bytes (byte, position) as rows (position, byte)."""
    positions, width = rows.shape
    if width == 1:
        bytes_in_a_row = rows.reshape(positions)
        for position in range(positions):
            bytes_in_a_row[position] = joined[0, position]
    elif width < 8:
        for byte in range(width):
            for position in range(positions):
                rows[position, byte] = joined[byte, position]
    else:
        for position in range(positions):
            for byte in range(width):
                rows[position, byte] = joined[byte, position]


@_kernel
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
