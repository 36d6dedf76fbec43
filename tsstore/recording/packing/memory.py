"""How the values of a tensor lie in the CPU's memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Words = npt.NDArray[np.unsignedinteger[Any]]
"""Bit patterns of a tensor's values."""

_SHORTEST: Final = 16
_SIGNED: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Positions(NamedTuple):
    """Where the positions of all samples are in memory, counted in words.

    Attributes
    ----------
    starts
        int64 (blocks,): the first position of each block.
    size
        Positions in a block.
    step
        From one position of a block to the next.
    """

    starts: npt.NDArray[np.int64]
    size: int
    step: int


def positions_of(tensor: torch.Tensor) -> Positions:
    """Return where the positions of a tensor are, sample after sample, in the fewest blocks.

    Parameters
    ----------
    tensor
        (samples, neurons, …), not empty, with any strides.

    Returns
    -------
    Positions
        The same object for tensors of the same shape and strides: not to be changed.
    """
    return _positions(tensor.shape, tensor.stride())


# A layer gives the same shape batch after batch, and NumPy is slow when a convolution has just
# filled the processor's caches: 70 microseconds instead of 5.
@lru_cache(maxsize=256)
def _positions(shape: tuple[int, ...], strides: tuple[int, ...]) -> Positions:
    axes: list[tuple[int, int]] = []
    for axis, (size, step) in enumerate(zip(shape, strides, strict=True)):
        if axis == 1 or size == 1:
            continue
        if axes and axes[-1][1] == size * step:
            axes[-1] = axes[-1][0] * size, step
        else:
            axes.append((size, step))
    *outer, (size, step) = axes or [(1, 1)]
    starts = np.zeros(1, np.int64)
    for blocks, block_step in outer:
        starts = (starts[:, np.newaxis] + np.arange(blocks) * block_step).reshape(-1)
    return Positions(starts, size, step)


def is_worth_reading(lines: int, size: int, step: int) -> bool:
    """Whether to read lines of `size` words, one every `step` words, where they lie.

    It is faster to copy short ones together first, unless they are together already.
    """
    return size >= _SHORTEST or lines == 1 or step == size


def extent(tensor: torch.Tensor) -> int:
    """Return how many words a tensor, not empty, spans from its first value to its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * step for size, step in steps)


def words_of(tensor: torch.Tensor) -> Words:
    """Return a tensor's memory from its first value to its last, gaps included.

    Nothing is copied.

    Raises
    ------
    RuntimeError
        If the tensor has no memory of its own.
    """
    size = tensor.itemsize
    # torch, too, calls them by other types, but as unsigned ones NumPy alone knows them all.
    words = tensor.as_strided((extent(tensor),), (1,)).view(_SIGNED[size]).numpy()
    return words.view(UNSIGNED[size])
