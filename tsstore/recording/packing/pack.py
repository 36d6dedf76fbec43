"""Tensors to rows, on the device where they are.

In the CPU's memory a tensor is read once and where it lies, as bit patterns: in every dtype the
numbers greater than a threshold are one range of patterns, or two. Other devices are left to
:mod:`tsstore.recording.packing.torch_ops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tsstore.bits import row_bytes
from tsstore.recording.packing.channels_first import pack_planes
from tsstore.recording.packing.channels_last import pack_lines
from tsstore.recording.packing.memory import (
    UNSIGNED,
    extent,
    is_worth_reading,
    positions_of,
    words_of,
)
from tsstore.recording.packing.packed import (
    Form,
    Packed,
    Room,
    Rows,
    check_packable,
    form_of,
    no_values,
)
from tsstore.recording.packing.patterns import Patterns, patterns_on
from tsstore.recording.packing.torch_ops import pack_by_torch


def new_rows(shape: tuple[int, ...]) -> Rows:
    """Give rows memory of their own."""
    return np.empty(shape, np.uint8)


def pack(
    tensor: torch.Tensor,
    threshold: float,
    neuron_axis: int,
    sample_axis: int,
    room: Room = new_rows,
) -> Packed:
    """Pack a tensor's on/off states into rows.

    A neuron is on where its value is greater than the threshold; NaN is not.

    Parameters
    ----------
    tensor
        Of any real dtype and at least 2 axes; it is not changed, and no reference to it is kept.
    threshold
        As returned by :func:`tsstore.recording.packing.packed.rounded_threshold`.
    neuron_axis, sample_axis
        Axes of the tensor, counted from the front; all others are positions, in their order.
    room
        Gives the rows their memory, on the CPU.

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
    form = form_of(tensor, threshold, neuron_axis, sample_axis)
    return Packed(rows_of(tensor, form, room), form)


def rows_of(tensor: torch.Tensor, form: Form, room: Room) -> Rows | torch.Tensor:
    """Return the rows of a tensor that can be packed."""
    if not tensor.is_cpu:
        return pack_by_torch(tensor, form.threshold, form.neuron_axis, form.sample_axis)
    ordered = _ordered(tensor, form)
    ranges = patterns_on(ordered.dtype, form.threshold) if ordered.numel() else ()
    if not ranges:
        rows = room(_shape_of_rows(ordered))
        rows.fill(0)
        return rows
    return _pack_ranges(ordered, ranges, room)


def _pack_ranges(ordered: torch.Tensor, ranges: tuple[Patterns, ...], room: Room) -> Rows:
    """Pack (samples, neurons, …), on where its pattern is in one of the ranges."""
    readings = [reading for patterns in ranges if (reading := _reading(ordered, patterns))]
    if not readings:
        return _pack_ranges(ordered.contiguous(), ranges, room)
    try:
        words = words_of(ordered)
    except RuntimeError:
        raise no_values(ordered) from None
    if not readings[0].fits(words.ctypes.data):
        words = words.copy()
    rows, *others = (reading.rows_at(words.ctypes.data, room) for reading in readings)
    for other in others:
        rows |= other
    return rows


def _ordered(tensor: torch.Tensor, form: Form) -> torch.Tensor:
    """Return a tensor in the CPU's memory as (samples, neurons, …)."""
    tensor = tensor.detach().resolve_neg()
    if tensor.is_floating_point() and tensor.itemsize == 1:
        # There are many such dtypes; a wider one holds the numbers of each.
        tensor = tensor.float()
    return tensor.movedim((form.sample_axis, form.neuron_axis), (0, 1))


def _shape_of_rows(ordered: torch.Tensor) -> tuple[int, ...]:
    samples, neurons, *positions = ordered.shape
    return samples, math.prod(positions), row_bytes(neurons)


@dataclass(frozen=True)
class Reading:
    """How a kernel reads a tensor, and all others of its shape, strides and dtype, where they lie.

    Attributes
    ----------
    kernel
        Takes the address of a tensor, `arguments`, and an array for the rows.
    arguments
        All else that it must know.
    shape
        Of the rows.
    itemsize
        Bytes of a value.
    """

    kernel: Callable[..., None]
    arguments: tuple[Any, ...]
    shape: tuple[int, ...]
    itemsize: int

    def fits(self, address: int) -> bool:
        """Whether a tensor's values can begin there."""
        return address != 0 and address % self.itemsize == 0

    def rows_at(self, address: int, room: Room) -> Rows:
        """Return the rows of the tensor at an address."""
        rows = room(self.shape)
        self.kernel(address, *self.arguments, rows)
        return rows


def reading_of(tensor: torch.Tensor, form: Form) -> Reading | None:
    """Return how to read a tensor that can be packed; None where more is to be done than that."""
    if not tensor.is_cpu or not tensor.numel() or tensor.is_neg():
        return None
    ordered = _ordered(tensor, form)
    ranges = patterns_on(ordered.dtype, form.threshold)
    if len(ranges) != 1 or ordered.dtype != tensor.dtype:
        return None
    return _reading(ordered, ranges[0])


def _reading(ordered: torch.Tensor, patterns: Patterns) -> Reading | None:
    """Return how to read (samples, neurons, …), not empty; None if it is better copied first."""
    neurons, neuron_step = ordered.shape[1], ordered.stride(1)
    starts, positions, step = positions_of(ordered)
    if step == 1 and is_worth_reading(neurons, positions, neuron_step):
        kernel, line_step = pack_planes, neuron_step
    elif neuron_step == 1 and is_worth_reading(positions, neurons, step):
        kernel, line_step = pack_lines, step
    else:
        return None
    word = UNSIGNED[ordered.itemsize]
    arguments = extent(ordered), starts, neurons, line_step, word(patterns[0]), word(patterns[1])
    return Reading(kernel, arguments, _shape_of_rows(ordered), ordered.itemsize)
