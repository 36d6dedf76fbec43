"""Packing the tensors of one layer: what is found out of one holds for all that are alike."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Final, NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence

from tsstore.recording.axes.layer import LayerAxes
from tsstore.recording.axes.tensor import Axes, Decision
from tsstore.recording.packing.pack import Reading, new_rows, reading_of, rows_of
from tsstore.recording.packing.packed import (
    Form,
    Packed,
    Room,
    check_packable,
    form_of,
    no_values,
    rounded_threshold,
)
from tsstore.recording.samples.index import PACKED_SEQUENCES, Owners
from tsstore.recording.selection.outputs import samples_of_entries

_MOST_PLANS: Final = 256
"""Sequences of many lengths have many shapes; then one begins anew."""


class _Plan(NamedTuple):
    """What is known of a tensor before one looks at its values."""

    form: Form
    reading: Reading | None


class Packer:
    """Packs the tensors of one layer.

    A layer gives the same shape batch after batch. When a convolution has just filled the
    processor's caches, whatever is looked at or called for the first time since takes ten times as
    long as it would in a loop of its own: a plan is looked up, and nothing else.

    Parameters
    ----------
    threshold
        A neuron is on where its value is greater.
    axes
        Of the layer's tensors, or what has been decided of them.
    room
        Gives the rows their memory, on the CPU.
    """

    def __init__(self, threshold: float, axes: Axes | LayerAxes, room: Room = new_rows) -> None:
        self._threshold = threshold
        self._thresholds: dict[torch.dtype, float] = {}
        self._axes = axes
        self._room = room
        self._plans: dict[Hashable, _Plan] = {}

    def pack(self, tensor: torch.Tensor) -> Packed:
        """Pack a tensor's on/off states into rows.

        Raises
        ------
        OutputError
            If the tensor cannot be packed; see :func:`tsstore.recording.packing.pack.pack`.
        """
        kind = _kind_of(tensor)
        plan = None if kind is None else self._plans.get(kind)
        if plan is None:
            return self._pack_first(tensor, kind)
        form, reading = plan
        if reading is not None and reading.fits(address := _address_of(tensor)):
            return Packed(reading.rows_at(address, self._room), form)
        check_packable(tensor)
        return Packed(rows_of(tensor, form, self._room), form)

    def pack_sequences(self, sequences: PackedSequence) -> Packed:
        """Pack the on/off states of packed sequences: they say themselves whose each entry is.

        Raises
        ------
        OutputError
            If their tensor cannot be packed.
        """
        tensor = sequences.data
        decided = dict.fromkeys(("neuron_axis", "sample_axis"), PACKED_SEQUENCES)
        decision = Decision(tensor.ndim - 1, 0, decided)
        packed = self.packed(tensor, self.threshold_for(tensor), decision)
        sizes = sequences.batch_sizes
        silent = sequences.sorted_indices is None and bool((sizes != sizes[0]).any())
        owners = Owners(samples_of_entries(sequences), PACKED_SEQUENCES, is_told=True)
        return replace(packed, owners=owners, may_be_sorted=silent)

    def look_at(self, tensor: torch.Tensor) -> tuple[float, Decision]:
        """Return the threshold for a tensor, and its axes.

        Raises
        ------
        OutputError
            If the tensor cannot be packed, or its axes cannot be told.
        """
        return self.threshold_for(tensor), self._axes.decide(tensor)

    def threshold_for(self, tensor: torch.Tensor) -> float:
        """Return the threshold for a tensor.

        Raises
        ------
        OutputError
            If the tensor cannot be packed.
        """
        check_packable(tensor)
        if tensor.dtype not in self._thresholds:
            self._thresholds[tensor.dtype] = rounded_threshold(self._threshold, tensor.dtype)
        return self._thresholds[tensor.dtype]

    def packed(self, tensor: torch.Tensor, threshold: float, decision: Decision) -> Packed:
        """Pack a tensor whose axes are decided."""
        form = form_of(tensor, threshold, *decision)
        return Packed(rows_of(tensor, form, self._room), form)

    def forget(self) -> None:
        """Look at each tensor anew, as other axes may have been decided."""
        self._plans.clear()

    def _pack_first(self, tensor: torch.Tensor, kind: Hashable | None) -> Packed:
        """Pack a tensor unlike all before, and plan for others of its kind."""
        packed = self.packed(tensor, *self.look_at(tensor))
        if kind is not None and self._axes.are_fixed:
            if len(self._plans) == _MOST_PLANS:
                self._plans.clear()
            self._plans[kind] = _Plan(packed.form, reading_of(tensor, packed.form))
        return packed


def _kind_of(tensor: torch.Tensor) -> Hashable | None:
    """Return what tensors have in common that are packed alike; None where each is looked at."""
    if type(tensor) is not torch.Tensor or torch._C._get_tracing_state() is not None:
        return None
    try:
        strides = tensor.stride()
    except RuntimeError:
        return None
    return tensor.device, tensor.dtype, tensor.shape, strides, tensor.is_neg()


def _address_of(tensor: torch.Tensor) -> int:
    """Return where a tensor's values begin.

    Raises
    ------
    OutputError
        If it stands for others, as within torch.func.vmap.
    """
    try:
        return tensor.data_ptr()
    except RuntimeError:
        raise no_values(tensor) from None
