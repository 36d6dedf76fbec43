"""Where batches wait for the writer: in blocks of memory beside the heap."""

from __future__ import annotations

import mmap
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.store.batch import Batch, LayerBatch

BLOCK_BYTES = 1 << 20
SPARE_BLOCKS = 8
"""So many blocks are kept for later when nothing in them is used any more."""
_ALIGNMENT = 16


class Blocks:
    """Copies batches into blocks of memory of their own.

    Small arrays that stay where they were made, among the model's tensors, keep the memory between
    them from being used again: a queue of 4 MB cost 114 MB. A block is free with the last array in
    it; a few are filled again, as the system takes 70 times longer to give a new one than a batch
    takes to be copied, and the others go back to it. Large arrays have their own memory from the
    start.
    """

    def __init__(self) -> None:
        self._free = np.empty(0, dtype=np.uint8)
        self._spare: list[mmap.mmap] = []

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
            self._free = self._next_block()
        piece, self._free = self._free[: array.nbytes], self._free[size:]
        copy = piece.view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def _next_block(self) -> npt.NDArray[np.uint8]:
        try:
            block = self._spare.pop()
        except IndexError:
            # Private also to a process that is forked off.
            block = mmap.mmap(-1, BLOCK_BYTES, access=mmap.ACCESS_COPY)
        memory = np.frombuffer(block, dtype=np.uint8)
        # All arrays in a block are views of this one, which ends with the last of them.
        weakref.finalize(memory, _set_aside, block, self._spare).atexit = False
        return memory


def _set_aside(block: mmap.mmap, spare: list[mmap.mmap]) -> None:
    """Keep a block that is free, on whatever thread it became so."""
    if len(spare) < SPARE_BLOCKS:
        spare.append(block)
