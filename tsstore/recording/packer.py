"""Packing the tensors of one layer: what is found out of one holds for all that are alike."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Final, NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence

from tsstore.recording.axes import Axes
from tsstore.recording.outputs import samples_of_entries
from tsstore.recording.pack import Reading, new_rows, reading_of, rows_of
from tsstore.recording.packed import (
    Form,
    Packed,
    Room,
    check_packable,
    form_of,
    no_values,
    rounded_threshold,
)
from tsstore.recording.sample_index import PACKED_SEQUENCES, Owners

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
        Of the layer's tensors.
    room
        Gives the rows their memory, on the CPU.
    """

    def __init__(self, threshold: float, axes: Axes, room: Room = new_rows) -> None:
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
            If the tensor cannot be packed; see :func:`tsstore.recording.pack.pack`.
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
        check_packable(tensor)
        decided = dict.fromkeys(("neuron_axis", "sample_axis"), PACKED_SEQUENCES)
        form = form_of(tensor, self._threshold_of(tensor.dtype), tensor.ndim - 1, 0)
        rows = rows_of(tensor, form, self._room)
        owners = Owners(samples_of_entries(sequences), PACKED_SEQUENCES, is_told=True)
        return Packed(rows, replace(form, decided=decided), owners=owners)

    def look_at(self, tensor: torch.Tensor) -> tuple[float, int, int]:
        """Return the threshold for a tensor, its neuron axis and its sample axis.

        Raises
        ------
        OutputError
            If the tensor cannot be packed, or its axes cannot be told.
        """
        check_packable(tensor)
        return self._threshold_of(tensor.dtype), *self._axes.of(tensor)

    def _threshold_of(self, dtype: torch.dtype) -> float:
        if dtype not in self._thresholds:
            self._thresholds[dtype] = rounded_threshold(self._threshold, dtype)
        return self._thresholds[dtype]

    def _pack_first(self, tensor: torch.Tensor, kind: Hashable | None) -> Packed:
        """Pack a tensor unlike all before, and plan for others of its kind."""
        form = form_of(tensor, *self.look_at(tensor))
        packed = Packed(rows_of(tensor, form, self._room), form)
        if kind is not None:
            if len(self._plans) == _MOST_PLANS:
                self._plans.clear()
            self._plans[kind] = _Plan(form, reading_of(tensor, form))
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
