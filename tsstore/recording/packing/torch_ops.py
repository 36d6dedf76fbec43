"""Tensors to rows by torch operations alone, on any device."""

from __future__ import annotations

import math

import torch

_COMPARABLE = {torch.bool: torch.uint8, torch.uint16: torch.int32, torch.uint32: torch.int64}
"""What to compare integers as that torch does not compare, without a change of any number."""


def pack_by_torch(
    tensor: torch.Tensor, threshold: float, neuron_axis: int, sample_axis: int
) -> torch.Tensor:
    """Pack a tensor's states on its device: uint8 (samples, positions, ceil(neurons / 8)).

    The dtype is one of real numbers that torch compares, `threshold` as `rounded_threshold` gives
    it. Axes are counted from the front; all others are positions, in their order.
    """
    sizes = enumerate(tensor.shape)
    positions = math.prod(size for axis, size in sizes if axis not in (neuron_axis, sample_axis))
    with torch.no_grad():
        on = _is_on(tensor.detach(), threshold).view(torch.uint8)
        if neuron_axis == tensor.ndim - 1:
            return _pack_last(on.movedim(sample_axis, 0), positions)
        return _pack_second(on.movedim((sample_axis, neuron_axis), (0, 1)), positions)


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


def _pack_second(on: torch.Tensor, positions: int) -> torch.Tensor:
    """Pack (samples, neurons, …): whole planes of neurons are shifted and joined at once."""
    samples, neurons, *_ = on.shape
    planes = _padded(on.reshape(samples, neurons, positions), axis=1)
    planes = planes.reshape(samples, planes.shape[1] // 8, 8, positions)
    return _join(planes.unbind(2)).permute(0, 2, 1).contiguous()


def _pack_last(on: torch.Tensor, positions: int) -> torch.Tensor:
    """Pack (samples, …, neurons)."""
    samples, neurons = on.shape[0], on.shape[-1]
    planes = _padded(on.reshape(samples, positions, neurons), axis=2)
    planes = planes.reshape(samples, positions, planes.shape[2] // 8, 8)
    return _join(planes.unbind(3)).contiguous()


def _padded(on: torch.Tensor, axis: int) -> torch.Tensor:
    """Return `on` with its axis filled up to a multiple of 8 by zeros."""
    missing = -on.shape[axis] % 8
    if not missing:
        return on
    shape = list(on.shape)
    shape[axis] = missing
    return torch.cat([on, on.new_zeros(shape)], dim=axis)


def _join(planes: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return bytes whose bit i is plane i."""
    joined = planes[0].clone()
    for bit, plane in enumerate(planes[1:], start=1):
        joined |= plane << bit
    return joined
