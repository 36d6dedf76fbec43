"""From the calls of one layer in a batch to its rows, sample after sample."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tsstore.errors import OutputError
from tsstore.recording.captured import NamedRows
from tsstore.recording.masks import Mask, Masks
from tsstore.recording.packed import Packed
from tsstore.recording.settings import Settings
from tsstore.store.batch import LayerBatch
from tsstore.store.layout import LayerAttributes


def layer_batch(rows: NamedRows, samples: int, masks: Masks) -> LayerBatch:
    """Return a layer's rows, sample after sample, without padding.

    Raises
    ------
    OutputError
        If the rows cannot be shared by the samples, or a mask has other positions.
    ColumnsError
        If a mask has other samples.
    """
    pieces = [_shared(rows, packed, samples) for packed in rows.calls]
    there = [
        masks.of(rows.target.axes.layer, samples, piece.shape[1])
        if packed.there is None
        else packed.there
        for packed, piece in zip(rows.calls, pieces, strict=True)
    ]
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
    if all(mask is None for mask in there):
        return LayerBatch(joined.reshape(-1, joined.shape[2]), _alike(samples, joined.shape[1]))
    masks_of_all = [
        np.ones(piece.shape[:2], dtype=np.bool_) if mask is None else mask
        for piece, mask in zip(pieces, there, strict=True)
    ]
    kept = np.concatenate(masks_of_all, axis=1)
    return LayerBatch(
        joined[kept], kept.sum(axis=1, dtype=np.int64), _lengths(rows.calls, masks_of_all)
    )


def _lengths(calls: list[Packed], there: list[Mask]) -> tuple[int, int] | None:
    """Return the fewest and the most positions of a sample, where some were chosen."""
    if all(call.lengths is None for call in calls):
        return None
    lengths = np.zeros(len(there[0]), np.int64)
    for call, mask in zip(calls, there, strict=True):
        lengths += mask.sum(axis=1) if call.lengths is None else call.lengths
    return (int(lengths.min()), int(lengths.max())) if len(lengths) else None


def no_rows(attributes: LayerAttributes, samples: int) -> LayerBatch:
    """Return what a layer gives that did not run: samples without positions."""
    rows = np.empty((0, attributes.row_bytes), dtype=np.uint8)
    return LayerBatch(rows, _alike(samples, 0))


def layer_attributes(rows: NamedRows, samples: int, settings: Settings) -> LayerAttributes:
    """Return what a batch says of a layer."""
    form = rows.calls[0].form
    shape = _position_shape(rows.calls, samples)
    return LayerAttributes(
        name=rows.name,
        neurons=form.neurons,
        module_class=type(rows.target.module).__name__,
        where=rows.target.where,
        call=rows.call,
        neuron_axis=form.neuron_axis,
        sample_axis=form.sample_axis,
        threshold={"given": settings.threshold, "used": form.threshold},
        dtype=form.dtype,
        position_shape=shape,
        sampling=settings.sampling.attributes(has_positions=shape != ()),
        output=rows.target.output,
    )


def same_layer(fixed: LayerAttributes, found: LayerAttributes) -> bool:
    """Whether two batches gave rows of the same layer; positions may vary."""
    varied = replace(found, position_shape=fixed.position_shape, sampling=fixed.sampling)
    return varied == fixed


def _alike(samples: int, positions: int) -> npt.NDArray[np.int64]:
    """Return the same number for each sample, for as many batches as there may be."""
    counts = np.full(samples, positions, dtype=np.int64)
    counts.flags.writeable = False
    return counts


def _shared(rows: NamedRows, packed: Packed, samples: int) -> npt.NDArray[np.uint8]:
    """Return the rows of one call, (samples, positions, row_bytes)."""
    array = packed.in_memory()
    size = packed.form.samples
    if size % samples if samples else size:
        raise OutputError(
            f"{rows.name}: axis {packed.form.sample_axis} holds {size} entries, which {samples} "
            "samples cannot share; pass sample_axis="
            f"{{{rows.target.axes.layer!r}: …}}, say how many samples there are, "
            "recorder.batch(…), or exclude the layer"
        )
    if packed.there is not None and len(array) != samples:
        raise OutputError(
            f"{rows.name}: positions were chosen for {len(array)} samples, but the batch has "
            f"{samples}; with positions= the number of samples must be known before the forward "
            f"pass: recorder.batch({samples}, …)"
        )
    groups = size // samples if samples else 0
    positions = array.shape[1] if packed.there is not None else groups * array.shape[1]
    return array.reshape(samples, positions, array.shape[2])


def _position_shape(calls: list[Packed], samples: int) -> tuple[int, ...]:
    """Return the shape of a sample's positions: in the tensor, if one call gave them all."""
    first = calls[0].form
    if len(calls) > 1:
        entries = sum(call.form.samples * math.prod(call.form.position_shape) for call in calls)
        return (entries // max(samples, 1),)
    groups = first.samples // max(samples, 1)
    return first.position_shape if groups <= 1 else (groups, *first.position_shape)
