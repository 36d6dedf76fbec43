"""From a GPU to the CPU's memory, beside what the network does.

Nothing here runs where there is no CUDA device. It has not been run on one yet: the tests that need
a GPU are marked ``gpu``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tsstore.recording.packing.packed import Packed


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
        return replace(packed, rows=copy, arrived=arrived.synchronize)

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[device]
