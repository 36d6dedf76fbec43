"""Plain hooks that see what a capture should have seen, and NumPy's own packing of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export.unflatten import InterpreterModule
from torch.nn.modules import module as torch_module

import tsstore
from tsstore.recording.packing.packed import Packed, check_packable, form_of
from tsstore.recording.packing.packer import rows_of

needs_exported_classes = pytest.mark.skipif(
    not hasattr(InterpreterModule, "type_name"),
    reason="what torch 2.6 exports does not say of which class it was",
)


def has_any_global_hook() -> bool:
    """Whether torch knows of a hook on all modules of the process, in any of its tables."""
    tables = {name: held for name, held in vars(torch_module).items() if "_hooks" in name}
    assert "_global_forward_hooks" in tables
    return any(held for held in tables.values() if isinstance(held, dict))


def writers() -> set[threading.Thread]:
    """Return the threads that write: those of other tests may wait for garbage to be collected."""
    return {thread for thread in threading.enumerate() if thread.name == "tsstore writer"}


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what this package has logged: distributed and others, loaded before, may log too."""
    return [record for record in caplog.records if record.name == "tsstore"]


def capture(
    model: nn.Module, path: Path, layers: Any = ("0", "2"), **options: Any
) -> tsstore.Recorder:
    """Begin to record some layers, without waiting for the disk."""
    return tsstore.capture(model, path, layers=layers, durable=False, **options)


@contextmanager
def watched(*modules: nn.Module) -> Iterator[list[list[torch.Tensor]]]:
    """Keep copies of all tensors that some modules give, a list for each module."""
    seen: list[list[torch.Tensor]] = [[] for _ in modules]
    handles = [
        module.register_forward_hook(
            lambda _, arguments, output, kept=kept: kept.append(output.detach().clone())
        )
        for module, kept in zip(modules, seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's values; bfloat16, which NumPy lacks, as float32, which holds them all."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def packed(
    tensor: torch.Tensor, neuron_axis: int = 1, sample_axis: int = 0, threshold: Any = 0
) -> np.ndarray:
    """Return the rows of a tensor, uint8 (samples, positions, row_bytes)."""
    on = np.moveaxis(as_numpy(tensor) > threshold, (sample_axis, neuron_axis), (0, -1))
    on = on.reshape(on.shape[0], -1, on.shape[-1])
    return np.packbits(on, axis=-1, bitorder="little")


def joined(tensors: list[torch.Tensor], *axes: int, threshold: Any = 0) -> np.ndarray:
    """Return the rows of several batches, one after the other."""
    rows = [packed(tensor, *axes, threshold=threshold) for tensor in tensors]
    return np.concatenate([batch.reshape(-1, batch.shape[-1]) for batch in rows])


def pack(
    tensor: torch.Tensor, threshold: float, neuron_axis: int, sample_axis: int, *memory: Any
) -> Packed:
    """Pack a tensor by the package, as a hook does that knows the axes."""
    check_packable(tensor)
    form = form_of(tensor, threshold, neuron_axis, sample_axis)
    return Packed(rows_of(tensor, form, *memory), form)


def stored(path: Path, layer: str) -> np.ndarray:
    """Return all committed rows of a layer."""
    return tsstore.open(path)[layer][:]


def hook_count(model: nn.Module) -> int:
    """Return the number of hooks on a model and all its modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
