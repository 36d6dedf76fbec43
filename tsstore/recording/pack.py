"""Tensors to rows, on the device where they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tsstore.errors import OutputError

_COMPARABLE = {torch.bool: torch.uint8, torch.uint16: torch.int32, torch.uint32: torch.int64}
"""What to compare integers as that torch does not compare, without a change of any number."""


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
    """

    rows: torch.Tensor
    neurons: int
    position_shape: tuple[int, ...]
    dtype: str
    threshold: float
    neuron_axis: int
    sample_axis: int

    @property
    def samples(self) -> int:
        """Size of the sample axis."""
        return self.rows.shape[0]


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
    rounded = float(torch.tensor(threshold, dtype=torch.float64).to(dtype))
    if not math.isfinite(rounded):
        raise OutputError(
            f"the threshold {threshold} is beyond what {dtype} can hold; choose a smaller one"
        )
    return rounded


def check_packable(tensor: torch.Tensor) -> None:
    """Raise OutputError unless a tensor is dense and of real numbers."""
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
        If the tensor is complex, sparse, nested or quantized, or has no neurons.
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
    with torch.no_grad():
        on = _is_on(tensor.detach(), threshold).view(torch.uint8)
        if neuron_axis == tensor.ndim - 1:
            rows = _pack_last(on.movedim(sample_axis, 0), math.prod(positions))
        else:
            on = on.movedim((sample_axis, neuron_axis), (0, 1))
            rows = _pack_second(on, math.prod(positions))
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Packed(rows, neurons, positions, dtype, threshold, neuron_axis, sample_axis)


def _is_on(tensor: torch.Tensor, threshold: float) -> torch.Tensor:
    """Compare exactly: torch rounds large integers, and wraps thresholds beyond their dtype."""
    dtype = tensor.dtype
    if dtype.is_floating_point:
        # torch compares no numbers of 8 bits; a wider type holds them all.
        return (tensor.float() if dtype.itemsize == 1 else tensor) > threshold
    low, high = (0, 1) if dtype == torch.bool else _limits(dtype)
    if not low <= threshold < high:
        return torch.full_like(tensor, threshold < low, dtype=torch.bool)
    return tensor.to(_COMPARABLE.get(dtype, dtype)) > int(threshold)


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    limits = torch.iinfo(dtype)
    return limits.min, limits.max


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
