"""Packing some positions of each sample: where there are many others, these are not even read."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import torch

from tsstore.recording.batches.columns import Mask
from tsstore.recording.batches.open_batch import Call, OpenBatch
from tsstore.recording.packing.packed import Form, Packed, Rows
from tsstore.recording.packing.packer import rows_of
from tsstore.recording.packing.positions import choose_positions, gather
from tsstore.recording.samples.belonging import Belonging
from tsstore.recording.samples.index import Indices, Owners
from tsstore.recording.selection.select import Target

_TOGETHER: Final = 2
_APART: Final = 16
"""Gathering a value against packing one, where a position's neurons are neighbours, or not."""


class _Chosen(NamedTuple):
    """Which rows were chosen, which count, (samples, most), and of how many of each sample."""

    numbers: Indices
    valid: Mask
    lengths: Indices


class Sampler:
    """Packs some positions of each sample; whose an entry is, is known from the second batch on."""

    def __init__(self, wanted: int | float, seed: int, rank: int, belonging: Belonging) -> None:
        self._wanted = wanted
        self._seed = seed
        self._rank = rank
        self._belonging = belonging

    def pack(self, batch: OpenBatch, target: Target, tensor: torch.Tensor, form: Form) -> Packed:
        """Pack some of a tensor's positions, or, where it is not known yet whose they are, all."""
        batch.is_sampled = True
        samples = batch.samples_so_far(form.samples, form.sample_axis)
        owners = self._belonging.so_far(target, form, batch, samples)
        chosen = None
        if owners is not None and tensor.numel():
            forward = max(len(batch.forwards), 1)
            chosen = self._choose(batch, target, form, forward, samples, owners)
        if chosen is None:
            return Packed(rows_of(tensor, form), form)
        positions = form.samples * math.prod(form.position_shape) // samples
        if chosen.numbers.shape[1] * _cost(tensor, form.neuron_axis) <= positions:
            some = gather(tensor, form.neuron_axis, form.sample_axis, chosen.numbers)
            rows = rows_of(some, replace(form, neuron_axis=2, sample_axis=0))
        else:
            rows = _taken(rows_of(tensor, form), chosen.numbers)
        return Packed(rows, form, chosen.valid, owners, lengths=chosen.lengths)

    def choose_late(self, batch: OpenBatch, samples: int, call: Call) -> Call:
        """Return a call with some of its positions, if all of them were packed."""
        packed = call.packed
        if packed.valid is not None or packed.owners is None or not packed.rows.shape[0]:
            return call
        forward = batch.forwards.index(call.forward) + 1
        chosen = self._choose(batch, call.target, packed.form, forward, samples, packed.owners)
        if chosen is None:
            return call
        some = _taken(packed.in_memory(), chosen.numbers)
        made = packed._replace(rows=some, valid=chosen.valid, lengths=chosen.lengths, arrived=None)
        return call._replace(packed=made)

    def _choose(
        self,
        batch: OpenBatch,
        target: Target,
        form: Form,
        forward: int,
        samples: int,
        owners: Owners,
    ) -> _Chosen | None:
        """Return which rows are chosen; None for all of them."""
        positions = math.prod(form.position_shape)
        each = owners.each(form.samples, samples)
        counts = np.bincount(each[each >= 0], minlength=samples) * positions
        # A layer without positions gives one row a sample, whatever share there is of others.
        single = form.position_shape == () and counts.max(initial=0) <= 1
        if single or counts.max(initial=0) <= self._wanted:
            return None
        mask = batch.masks.of(target.axes.layer, forward, samples, each, positions)
        rows = None
        if mask is not None or owners.samples is not None:
            rows = _rows_by_sample(each, positions, mask)
            kept = np.repeat(each, positions)[rows]
            counts = np.bincount(kept, minlength=samples)
        chosen = choose_positions(self._seed, self._rank, batch.first_sample, counts, self._wanted)
        valid = chosen < counts[:, np.newaxis]
        chosen[~valid] = 0
        numbers = chosen + (np.cumsum(counts) - counts)[:, np.newaxis]
        if rows is not None:
            # Samples without a position point anywhere: what they take does not count.
            numbers = rows[np.minimum(numbers, max(len(rows) - 1, 0))] if len(rows) else chosen
        return _Chosen(numbers, valid, counts)


def _rows_by_sample(owners: Indices, positions: int, mask: Mask | None) -> Indices:
    """Return the rows that there are, sample after sample."""
    valid = np.repeat(owners, positions) >= 0
    if mask is not None:
        valid &= mask.reshape(-1)
    rows = np.flatnonzero(valid)
    return rows[np.argsort(np.repeat(owners, positions)[rows], kind="stable")]


def _taken(rows: Rows | torch.Tensor, numbers: Indices) -> Rows | torch.Tensor:
    """Return some of a call's rows, (samples, most, row_bytes)."""
    flat = rows.reshape(-1, rows.shape[2])
    if isinstance(flat, np.ndarray):
        return flat[numbers]
    return flat[torch.from_numpy(numbers).to(flat.device)]


def _cost(tensor: torch.Tensor, neuron_axis: int) -> int:
    """Return how many positions are packed in the time in which one is gathered, about."""
    if not tensor.is_cpu:
        return 1
    return _TOGETHER if tensor.stride(neuron_axis) == 1 else _APART
