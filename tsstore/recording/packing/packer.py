"""Tensors to rows, on the device where they are.

In the CPU's memory a tensor is read once and where it lies, as bit patterns: in every dtype the
numbers greater than a threshold are one range of patterns, or two. On other devices torch's own
operations do it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from tsstore.bits import row_bytes
from tsstore.recording.axes.layer import LayerAxes
from tsstore.recording.axes.tensor import Decision
from tsstore.recording.packing.kernels import pack_channels_first, pack_channels_last
from tsstore.recording.packing.memory import (
    UNSIGNED,
    Patterns,
    extent,
    is_worth_reading,
    patterns_on,
    positions_of,
    words_of,
)
from tsstore.recording.packing.packed import (
    Form,
    Packed,
    RowMemory,
    Rows,
    check_packable,
    form_of,
    no_values,
    rounded_threshold,
)
from tsstore.recording.samples.index import PACKED_SEQUENCES, Owners
from tsstore.recording.selection.outputs import samples_of_entries

_MOST_PLANS: Final = 256
"""Sequences of many lengths have many shapes; then one begins anew."""
_HEAP: Final = RowMemory()
_COMPARABLE: Final = {torch.bool: torch.uint8, torch.uint16: torch.int32, torch.uint32: torch.int64}
"""What to compare integers as that torch does not compare, without a change of any number."""


class _Plan(NamedTuple):
    """What is known of a tensor before one looks at its values."""

    form: Form
    reading: Reading | None


class Packer:
    """Packs the tensors of one layer: what is found out of one holds for all that are alike.

    A layer gives the same shape batch after batch. When a convolution has just filled the
    processor's caches, whatever is looked at or called for the first time since takes ten times as
    long as it would in a loop of its own: a plan is looked up, and nothing else.
    """

    def __init__(self, threshold: float, axes: LayerAxes, memory: RowMemory = _HEAP) -> None:
        self._threshold = threshold
        self._thresholds: dict[torch.dtype, float] = {}
        self._axes = axes
        self._memory = memory
        self._plans: dict[Hashable, _Plan] = {}

    def pack(self, tensor: torch.Tensor) -> Packed:
        """Pack a tensor's states into rows: on where a value is greater than the threshold."""
        kind = _kind_of(tensor)
        plan = None if kind is None else self._plans.get(kind)
        if plan is None:
            return self._pack_first(tensor, kind)
        form, reading = plan
        if reading is not None:
            try:
                address = tensor.data_ptr()
            except RuntimeError:
                # It stands for others, as in vmap.
                raise no_values(tensor) from None
            if reading.fits(address):
                return Packed(reading.rows_at(address, self._memory), form)
        check_packable(tensor)
        return self.packed(tensor, form)

    def pack_sequences(self, sequences: PackedSequence) -> Packed:
        """Pack the on/off states of packed sequences: they say themselves whose each entry is."""
        tensor = sequences.data
        decided = dict.fromkeys(("neuron_axis", "sample_axis"), PACKED_SEQUENCES)
        decision = Decision(tensor.ndim - 1, 0, decided)
        packed = self.packed(tensor, self.form_of(tensor, decision))
        sizes = sequences.batch_sizes
        silent = sequences.sorted_indices is None and bool((sizes != sizes[0]).any())
        owners = Owners(samples_of_entries(sequences), PACKED_SEQUENCES, is_told=True)
        return packed._replace(owners=owners, may_be_sorted=silent)

    def form_of(self, tensor: torch.Tensor, decision: Decision | None = None) -> Form:
        """Return a tensor's form, by axes that were decided or are now; OutputError if none."""
        check_packable(tensor)
        if tensor.dtype not in self._thresholds:
            self._thresholds[tensor.dtype] = rounded_threshold(self._threshold, tensor.dtype)
        decision = decision or self._axes.decide(tensor)
        return form_of(tensor, self._thresholds[tensor.dtype], *decision)

    def packed(self, tensor: torch.Tensor, form: Form) -> Packed:
        """Pack a tensor that can be packed, and whose form is known."""
        return Packed(rows_of(tensor, form, self._memory), form)

    def forget(self) -> None:
        """Look at each tensor anew, as other axes may have been decided."""
        self._plans.clear()

    def _pack_first(self, tensor: torch.Tensor, kind: Hashable | None) -> Packed:
        """Pack a tensor unlike all before, and plan for others of its kind."""
        packed = self.packed(tensor, self.form_of(tensor))
        if kind is not None and self._axes.are_fixed:
            if len(self._plans) == _MOST_PLANS:
                self._plans.clear()
            self._plans[kind] = _Plan(packed.form, reading_of(tensor, packed.form))
        return packed


def _kind_of(tensor: torch.Tensor) -> Hashable | None:
    """Return what tensors have in common that are packed alike; None where each is looked at."""
    if type(tensor) is not torch.Tensor:
        return None
    try:
        strides = tensor.stride()
    except RuntimeError:
        return None
    # While torch.jit.trace runs, sizes are tensors, which are like no others.
    return tensor.is_cpu, tensor.dtype, tensor.shape, strides, tensor.is_neg()


def rows_of(tensor: torch.Tensor, form: Form, memory: RowMemory = _HEAP) -> Rows | torch.Tensor:
    """Return the rows of a tensor that can be packed."""
    if not tensor.is_cpu:
        return pack_by_torch(tensor, form.threshold, form.neuron_axis, form.sample_axis)
    ordered = _ordered(tensor, form)
    ranges = patterns_on(ordered.dtype, form.threshold) if ordered.numel() else ()
    if not ranges:
        rows = memory.empty(_shape_of_rows(ordered))
        rows.fill(0)
        return rows
    return _pack_ranges(ordered, ranges, memory)


def _pack_ranges(ordered: torch.Tensor, ranges: tuple[Patterns, ...], memory: RowMemory) -> Rows:
    """Pack (samples, neurons, …), on where its pattern is in one of the ranges."""
    readings = [reading for patterns in ranges if (reading := _reading(ordered, patterns))]
    if not readings:
        return _pack_ranges(ordered.contiguous(), ranges, memory)
    try:
        words = words_of(ordered)
    except RuntimeError:
        raise no_values(ordered) from None
    if not readings[0].fits(words.ctypes.data):
        words = words.copy()
    rows, *others = (reading.rows_at(words.ctypes.data, memory) for reading in readings)
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
    """How a kernel reads a tensor, and all of its shape, strides and dtype, where they lie."""

    kernel: Callable[..., None]
    arguments: tuple[Any, ...]
    shape: tuple[int, ...]
    itemsize: int

    def fits(self, address: int) -> bool:
        """Whether a tensor's values can begin there."""
        return address != 0 and address % self.itemsize == 0

    def rows_at(self, address: int, memory: RowMemory) -> Rows:
        """Return the rows of the tensor at an address."""
        rows = memory.empty(self.shape)
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
    starts, positions, step = positions_of(ordered.shape, ordered.stride())
    if step == 1 and is_worth_reading(neurons, positions, neuron_step):
        kernel, line_step = pack_channels_first, neuron_step
    elif neuron_step == 1 and is_worth_reading(positions, neurons, step):
        kernel, line_step = pack_channels_last, step
    else:
        return None
    word = UNSIGNED[ordered.itemsize]
    arguments = extent(ordered), starts, neurons, line_step, word(patterns[0]), word(patterns[1])
    return Reading(kernel, arguments, _shape_of_rows(ordered), ordered.itemsize)


def pack_by_torch(
    tensor: torch.Tensor, threshold: float, neuron_axis: int, sample_axis: int
) -> torch.Tensor:
    """Pack a tensor's states on its device: uint8 (samples, positions, ceil(neurons / 8)).

    The dtype is one of real numbers that torch compares, `threshold` as `rounded_threshold` gives
    it. Axes are counted from the front; all others are positions, in their order.
    """
    samples, neurons = tensor.shape[sample_axis], tensor.shape[neuron_axis]
    sizes = enumerate(tensor.shape)
    positions = math.prod(size for axis, size in sizes if axis not in (neuron_axis, sample_axis))
    if not samples * positions:
        # torch 2.6 pads no axis that is empty.
        empty = (samples, positions, row_bytes(neurons))
        return torch.empty(empty, dtype=torch.uint8, device=tensor.device)
    # Neurons that are neighbours stay so; else whole planes of them are shifted and joined.
    axis = 2 if neuron_axis == tensor.ndim - 1 else 1
    with torch.no_grad():
        on = _is_on(tensor.detach(), threshold).view(torch.uint8)
        on = on.movedim((sample_axis, neuron_axis), (0, -1 if axis == 2 else 1))
        shape = (samples, positions, neurons) if axis == 2 else (samples, neurons, positions)
        padded = functional.pad(on.reshape(shape), (*[0, 0] * (2 - axis), 0, -neurons % 8))
        octets = (*shape[:axis], row_bytes(neurons), 8, *shape[axis + 1 :])
        planes = padded.reshape(octets).unbind(axis + 1)
        joined = planes[0].clone()
        for bit, plane in enumerate(planes[1:], start=1):
            joined |= plane << bit
        return joined.movedim(axis, 2).contiguous()


def _is_on(tensor: torch.Tensor, threshold: float) -> torch.Tensor:
    """Compare exactly: torch rounds large integers, and wraps thresholds beyond their dtype."""
    dtype = tensor.dtype
    if dtype.is_floating_point:
        # torch compares no numbers of 8 bits; a wider type holds them all.
        return (tensor.float() if dtype.itemsize == 1 else tensor) > threshold
    # True is 1, whatever its byte is.
    limits = torch.iinfo(torch.uint8 if dtype == torch.bool else dtype)
    highest = 1 if dtype == torch.bool else limits.max
    if not limits.min <= threshold < highest:
        return torch.full_like(tensor, threshold < limits.min, dtype=torch.bool)
    return tensor.to(_COMPARABLE.get(dtype, dtype)) > int(threshold)
