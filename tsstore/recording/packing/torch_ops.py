"""Tensors to rows by torch operations alone, on any device."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from tsstore.bits import row_bytes

_COMPARABLE = {torch.bool: torch.uint8, torch.uint16: torch.int32, torch.uint32: torch.int64}
"""What to compare integers as that torch does not compare, without a change of any number."""


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
