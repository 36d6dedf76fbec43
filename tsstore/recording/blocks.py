"""Where batches wait for the writer: in blocks of memory beside the heap."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.store.batch import Batch, LayerBatch

BLOCK_BYTES = 1 << 20
_ALIGNMENT = 16


class Blocks:
    """Copies batches into blocks of memory of their own.

    Small arrays that stay where they were made, among the model's tensors, keep the memory between
    them from being used again: a queue of 4 MB cost 114 MB. A block goes back to the system with
    the last array in it. Large arrays have their own memory from the start.
    """

    def __init__(self) -> None:
        self._free = np.empty(0, dtype=np.uint8)

    def copy(self, batch: Batch) -> Batch:
        """Return a copy of a batch; large arrays and columns of text stay where they are."""
        layers = {
            name: LayerBatch(self._copy(layer.rows), self._copy(layer.positions))
            for name, layer in batch.layers.items()
        }
        columns = {
            name: column if column.dtype == object else self._copy(column)
            for name, column in batch.columns.items()
        }
        return Batch(batch.samples, layers, columns)

    def _copy(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not 0 < array.nbytes <= BLOCK_BYTES:
            return array
        size = -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        if size > len(self._free):
            # Private also to a process that is forked off.
            block = mmap.mmap(-1, BLOCK_BYTES, access=mmap.ACCESS_COPY)
            self._free = np.frombuffer(block, dtype=np.uint8)
        piece, self._free = self._free[: array.nbytes], self._free[size:]
        copy = piece.view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy
