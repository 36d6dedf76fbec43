"""Where batches wait for the writer: in blocks of memory beside the heap."""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from collections import defaultdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tsstore.recording.packing.packed import RowMemory, Rows
from tsstore.store.writing.batch import Batch, LayerBatch

BLOCK_BYTES: Final = 1 << 20
SPARE_BYTES: Final = 8 << 20
"""So many bytes of blocks are kept for later when nothing in them is used any more."""
_ALIGNMENT: Final = 64


class Arena(RowMemory):
    """Gives arrays their memory, in blocks.

    Small arrays that stay where they were made, among the model's tensors, keep the memory between
    them from being used again: a queue of 4 MB cost 114 MB. A block is free with the last array in
    it; a few are filled again, as the system takes 70 times longer to give a new one than a batch
    takes to be copied, and the others go back to it. What is larger than a block has one of its
    own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memory = np.empty(0, np.uint8)
        self._filled = 0
        self._spare: dict[int, list[mmap.mmap]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...]) -> Rows:
        """Return an array of bytes in a block, filled with anything."""
        size = math.prod(shape)
        with self._lock:
            if size > BLOCK_BYTES:
                memory, begin = self._block(-(-size // BLOCK_BYTES) * BLOCK_BYTES), 0
            else:
                if self._filled + size > len(self._memory):
                    self._memory, self._filled = self._block(BLOCK_BYTES), 0
                memory, begin = self._memory, self._filled
                self._filled += size + -size % _ALIGNMENT
        return np.ndarray(shape, np.uint8, memory, begin)

    def copy(self, batch: Batch) -> Batch:
        """Return a batch whose arrays are in blocks, but for large ones and text."""
        layers = {name: self._copied_layer(layer) for name, layer in batch.layers.items()}
        columns = {
            name: column if column.dtype == object else self.copied(column)
            for name, column in batch.columns.items()
        }
        return Batch(batch.samples, layers, columns)

    def copied(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an array that is in a block, or else need not be."""
        is_inside = isinstance(array.base, np.ndarray) and isinstance(array.base.base, mmap.mmap)
        if not 0 < array.nbytes <= BLOCK_BYTES or is_inside:
            return array
        copy = self.empty((array.nbytes,)).view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def _copied_layer(self, layer: LayerBatch) -> LayerBatch:
        rows, positions = self.copied(layer.rows), layer.positions
        counts = positions if isinstance(positions, int) else self.copied(positions)
        if rows is layer.rows and counts is positions:
            return layer
        return LayerBatch(rows, counts, layer.lengths)

    def _block(self, size: int) -> Rows:
        try:
            block = self._spare[size].pop()
        except IndexError:
            # Private also to a process that is forked off.
            block = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
        memory = np.ndarray(size, np.uint8, block)
        # All arrays in a block are views of this one, which ends with the last of them.
        weakref.finalize(memory, _set_aside, block, self._spare).atexit = False
        return memory


def _set_aside(block: mmap.mmap, spare: dict[int, list[mmap.mmap]]) -> None:
    """Keep a block that is free, on whatever thread it became so."""
    kept = sum(size * len(blocks) for size, blocks in list(spare.items()))
    if kept + len(block) <= SPARE_BYTES:
        spare[len(block)].append(block)
