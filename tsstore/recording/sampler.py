"""Packing some positions of each sample: where there are many others, these are not even read."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from tsstore.recording.batch import OpenBatch
from tsstore.recording.masks import Mask
from tsstore.recording.pack import pack
from tsstore.recording.packed import Packed, form_of
from tsstore.recording.sampling import choose_positions, gather
from tsstore.recording.select import Target

_TOGETHER: Final = 2
_APART: Final = 16
"""Gathering a value against packing one, where a position's neurons are neighbours, or not."""


class Sampler:
    """Packs the positions that are chosen of each sample.

    Parameters
    ----------
    wanted
        How many of each sample, in each call of a layer, or which share of them.
    seed, rank
        Of the run, and of this process.
    """

    def __init__(self, wanted: int | float, seed: int, rank: int) -> None:
        self._wanted = wanted
        self._seed = seed
        self._rank = rank

    def pack(
        self,
        batch: OpenBatch,
        target: Target,
        tensor: torch.Tensor,
        threshold: float,
        neuron_axis: int,
        sample_axis: int,
    ) -> Packed:
        """Pack a tensor's on/off states at some of its positions.

        Parameters
        ----------
        batch
            What the tensor belongs to: it knows how many samples there are, and what is padding.
        target
            Where the tensor was captured.
        tensor, threshold, neuron_axis, sample_axis
            See :func:`tsstore.recording.pack.pack`, and for errors, too.
        """
        samples = batch.samples_so_far(tensor.shape[sample_axis], sample_axis)
        groups = tensor.shape[sample_axis] // max(samples, 1)
        form = form_of(tensor, threshold, neuron_axis, sample_axis)
        positions = groups * math.prod(form.position_shape)
        # A layer without positions gives one row a sample, whatever share there is of others.
        fits = positions <= self._wanted or (groups, form.position_shape) == (1, ())
        if fits or not tensor.numel():
            return pack(tensor, threshold, neuron_axis, sample_axis)
        mask = batch.masks.of(target.axes.layer, samples, positions)
        if mask is None:
            mask = np.ones((samples, positions), dtype=np.bool_)
        counts = mask.sum(axis=1)
        chosen, there = self._choose(batch.first_sample, mask, counts)
        if chosen.shape[1] * _cost(tensor, neuron_axis) <= positions:
            some = gather(tensor, neuron_axis, sample_axis, groups, chosen)
            rows = pack(some, threshold, 2, 0).rows
        else:
            all_rows = pack(tensor, threshold, neuron_axis, sample_axis).rows
            if isinstance(all_rows, np.ndarray):
                all_rows = torch.from_numpy(all_rows)
            rows = gather(all_rows.reshape(samples, positions, -1), 2, 0, 1, chosen)
        return Packed(rows, form, there, lengths=counts)

    def _choose(
        self, first: int, mask: Mask, counts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Mask]:
        """Return indices of positions (samples, most), and which of them count."""
        chosen = choose_positions(self._seed, self._rank, first, counts, self._wanted)
        there = chosen < counts[:, np.newaxis]
        chosen[~there] = 0
        if not mask.all():
            # Those that are there come first, in their order.
            chosen = np.take_along_axis(np.argsort(~mask, axis=1, kind="stable"), chosen, axis=1)
        return chosen, there


def _cost(tensor: torch.Tensor, neuron_axis: int) -> int:
    """Return how many positions are packed in the time in which one is gathered, about."""
    if not tensor.is_cpu:
        return 1
    return _TOGETHER if tensor.stride(neuron_axis) == 1 else _APART
