"""Some positions of each sample, drawn at random."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import numpy.typing as npt
import torch

from tsstore.numba_tools.decorators import compiled
from tsstore.numba_tools.words import GOLDEN, splitmix

_Indices = npt.NDArray[np.int64]


def is_share(positions: object) -> bool:
    """Whether so many positions are a share of them: a number between 0 and 1."""
    whole = isinstance(positions, Integral)
    return isinstance(positions, Real) and not whole and 0 < float(positions) < 1


def choose_positions(
    seed: int, rank: int, first: int, counts: _Indices, positions: int | float
) -> _Indices:
    """Return random positions of each sample, without replacement: int64 (samples, most), sorted.

    They follow from the seed, the rank and the sample's running number, `first` that of the first:
    whatever batches there are, a sample has the same ones; and so have two layers with as many
    positions. `counts`, int64 (samples,), is how many each sample has; where fewer than `most` are
    chosen, what is at the end is not below it.

    Of a share of the positions, which may be no whole number, a sample gives the whole number
    below or above, by chance: so many on average. Each row then stands for as many rows, however
    many positions its sample has.
    """
    # Mixed in between, so that seed 1 of rank 0 is not seed 0 of rank 1.
    key = np.uint64(splitmix(np.uint64(splitmix(np.uint64(seed)) ^ rank)))
    if is_share(positions):
        numbers = _round(key, np.uint64(first), counts.astype(np.float64) * float(positions))
        most = int(numbers.max(initial=0))
    else:
        most = int(positions)
        numbers = np.minimum(counts, most)
    chosen = np.full((counts.size, most), np.iinfo(np.int64).max)
    _draw(key, np.uint64(first), counts, numbers, chosen)
    chosen.sort(axis=1)
    return chosen


def gather(
    tensor: torch.Tensor, neuron_axis: int, sample_axis: int, numbers: _Indices
) -> torch.Tensor:
    """Return some positions of each sample, (samples, positions, neurons), on the tensor's device.

    `numbers`, int64 (samples, positions), are counted entry of the sample axis after entry, and in
    an entry as its other axes lie.
    """
    entries = tensor.detach().movedim((sample_axis, neuron_axis), (0, -1))
    where = np.stack(np.unravel_index(numbers, tuple(entries.shape[:-1])))
    return entries[torch.from_numpy(where).to(tensor.device).unbind(0)]


@compiled(nogil=True)
def _round(key: np.uint64, first: np.uint64, expected: npt.NDArray[np.float64]) -> _Indices:
    """Round each sample's number up or down by chance: it is what was expected, on average."""
    numbers = np.empty(expected.size, np.int64)
    for sample in range(expected.size):
        state = splitmix(key ^ (first + np.uint64(sample)) * GOLDEN)
        # The upper 53 bits: a number from 0 to below 1. `_draw` goes on with the next words.
        chance = np.int64(splitmix(state) >> np.uint64(11)) * 2.0**-53
        numbers[sample] = np.int64(np.floor(expected[sample] + chance))
    return numbers


@compiled(nogil=True)
def _draw(
    key: np.uint64, first: np.uint64, counts: _Indices, numbers: _Indices, chosen: _Indices
) -> None:
    """Draw for each sample by the first steps of a shuffle (Fisher and Yates), then undo them."""
    pool = np.arange(counts.max() if counts.size else 0)
    swapped = np.empty(chosen.shape[1], np.int64)
    for sample in range(counts.size):
        state = splitmix(key ^ (first + np.uint64(sample)) * GOLDEN)
        taken = numbers[sample]
        for step in range(taken):
            state += GOLDEN
            left = np.uint64(counts[sample] - step)
            # The upper half of a random word times `left`, above 2^32, is below it.
            other = step + np.int64((splitmix(state) >> np.uint64(32)) * left >> np.uint64(32))
            pool[step], pool[other] = pool[other], pool[step]
            swapped[step] = other
            chosen[sample, step] = pool[step]
        for step in range(taken - 1, -1, -1):
            other = swapped[step]
            pool[step], pool[other] = pool[other], pool[step]
