"""The rows of one call of a layer, their way to the CPU, and what can be packed into rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tsstore.errors import OutputError
from tsstore.recording.samples.index import Owners

Rows = npt.NDArray[np.uint8]


class RowMemory:
    """Where rows lie in the CPU's memory: each array of them in memory of its own."""

    def empty(self, shape: tuple[int, ...]) -> Rows:
        """Return an array of bytes, filled with anything."""
        return np.empty(shape, np.uint8)


@dataclass(frozen=True, eq=False)
class Form:
    """What calls of one layer with tensors alike have in common: all but the states.

    Two are equal if they are the same object. `samples` is the size of the sample axis, and
    `position_shape` has those of the others: (height, width), (tokens,), or (). `decided` says by
    what the axes were decided, by name of the attribute, where that is known.
    """

    neurons: int
    samples: int
    position_shape: tuple[int, ...]
    dtype: str
    threshold: float
    neuron_axis: int
    sample_axis: int
    decided: Mapping[str, str] | None = None


class Packed(NamedTuple):
    """The rows of one call of one layer.

    `rows`, uint8 (samples, positions, ceil(neurons / 8)), are an array in the CPU's memory, or a
    tensor on its device; `arrived` returns once they are in memory, where they are on their way.
    `owners` says whose each entry of the sample axis is, once that is known. Where positions were
    chosen, entries that belong to one sample are in one, `valid`, bool (samples, positions), says
    which rows count, and `lengths`, int64 (samples,), of how many they were chosen. Sequences that
    `may_be_sorted` have different lengths, and do not say if they were.
    """

    rows: Rows | torch.Tensor
    form: Form
    valid: npt.NDArray[np.bool_] | None = None
    owners: Owners | None = None
    arrived: Callable[[], object] | None = None
    lengths: npt.NDArray[np.int64] | None = None
    may_be_sorted: bool = False

    def in_memory(self) -> Rows:
        """Return the rows in the CPU's memory, once they are there."""
        if isinstance(self.rows, np.ndarray):
            return self.rows
        if self.arrived is not None:
            self.arrived()
        return self.rows.cpu().numpy()


class Transfer:
    """Copies rows from CUDA devices on a stream of its own, into pinned memory.

    The rows are packed on the stream of the network, before anything that follows there can change
    the tensor. An event says when; then the side stream copies, while the network goes on. torch
    keeps pinned memory and hands it out again once nobody uses it and its copy is over, so that
    there is a ring of buffers after a few batches. Nothing here runs where there is no CUDA device,
    and none has run it yet: the tests that need one are marked ``gpu``.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def start(self, packed: Packed) -> Packed:
        """Begin to copy rows, and return without waiting."""
        rows = packed.rows
        if isinstance(rows, np.ndarray) or not rows.is_cuda:
            return packed
        ready = torch.cuda.current_stream(rows.device).record_event()
        stream = self._stream(rows.device)
        with torch.cuda.stream(stream):
            stream.wait_event(ready)
            copy = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            copy.copy_(rows, non_blocking=True)
            # Else their memory is free for the network as soon as this function is over.
            rows.record_stream(stream)
            arrived = stream.record_event()
        return packed._replace(rows=copy, arrived=arrived.synchronize)

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[device]


def form_of(
    tensor: torch.Tensor,
    threshold: float,
    neuron_axis: int,
    sample_axis: int,
    decided: Mapping[str, str] | None = None,
) -> Form:
    """Return the form of a call that gave a tensor; OutputError where it has no neurons."""
    neurons = tensor.shape[neuron_axis]
    if neurons == 0:
        raise OutputError(
            f"found shape {tuple(tensor.shape)}, expected at least one neuron; exclude the layer"
        )
    positions = tuple(
        size for axis, size in enumerate(tensor.shape) if axis not in (neuron_axis, sample_axis)
    )
    dtype = str(tensor.dtype).removeprefix("torch.")
    samples = tensor.shape[sample_axis]
    return Form(neurons, samples, positions, dtype, threshold, neuron_axis, sample_axis, decided)


def rounded_threshold(threshold: float, dtype: torch.dtype) -> float:
    """Return the threshold that a tensor is compared with: rounded to its dtype, as torch does.

    An integer is greater than a threshold exactly if it is greater than its floor.
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
        raise no_values(tensor)


def no_values(tensor: torch.Tensor) -> OutputError:
    """Return the error for a tensor that stands for others, or for none."""
    return OutputError(
        f"found a {type(tensor).__name__} without values of its own, as on the meta device or "
        "within torch.func.vmap or torch.jit.trace, expected one whose values can be read; call "
        "the model outside of that, or exclude the layer"
    )
