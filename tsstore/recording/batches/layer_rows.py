"""From the calls of one layer in a batch to its rows, sample after sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tsstore.errors import OutputError
from tsstore.recording.batches.captured import NamedRows
from tsstore.recording.batches.masks import Mask, Masks
from tsstore.recording.packing.packed import Packed
from tsstore.recording.samples.index import AS_MANY, Indices, even_index
from tsstore.recording.settings import Settings
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.writing.batch import LayerBatch


def layer_batch(rows: NamedRows, samples: int, masks: Masks, forwards: Sequence[int]) -> LayerBatch:
    """Return a layer's rows, sample after sample, without padding and what is of no sample.

    Parameters
    ----------
    rows
        What the batch gave in the layer.
    samples
        Number of samples.
    masks
        Which positions are padding.
    forwards
        Numbers of the batch's forward passes.

    Raises
    ------
    OutputError
        If the rows cannot be shared by the samples, or a mask has other positions.
    ColumnsError
        If a mask has other samples.
    """
    for packed in rows.calls:
        _check_shared(rows, packed, samples)
    arrays = [packed.in_memory() for packed in rows.calls]
    there = [
        _there(rows, packed, masks, forwards.index(forward) + 1, samples)
        for packed, forward in zip(rows.calls, rows.forwards, strict=True)
    ]
    indices = [packed.owners and packed.owners.samples for packed in rows.calls]
    if all(mask is None for mask in there) and all(index is None for index in indices):
        pieces = [array.reshape(samples, -1, array.shape[2]) for array in arrays if samples]
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces or arrays, axis=1)
        return LayerBatch(joined.reshape(-1, joined.shape[2]), _alike(samples, joined.shape[1]))
    owners = [
        np.repeat(_owners_of(packed, samples), array.shape[1])
        for packed, array in zip(rows.calls, arrays, strict=True)
    ]
    kept = [
        (owner >= 0) if mask is None else (owner >= 0) & mask.reshape(-1)
        for owner, mask in zip(owners, there, strict=True)
    ]
    chosen = [owner[some] for owner, some in zip(owners, kept, strict=True)]
    flat = [array.reshape(-1, array.shape[2]) for array in arrays]
    gathered = np.concatenate([array[some] for array, some in zip(flat, kept, strict=True)])
    joined_owners = np.concatenate(chosen)
    if (np.diff(joined_owners) < 0).any():
        gathered = gathered[np.argsort(joined_owners, kind="stable")]
    counts = [np.bincount(owner, minlength=samples) for owner in chosen]
    return LayerBatch(gathered, np.sum(counts, axis=0), _lengths(rows.calls, counts))


def _lengths(calls: list[Packed], counts: list[Indices]) -> tuple[int, int] | None:
    """Return the fewest and the most positions of a sample, where some were chosen."""
    if all(call.lengths is None for call in calls):
        return None
    lengths = np.sum(
        [
            count if call.lengths is None else call.lengths
            for call, count in zip(calls, counts, strict=True)
        ],
        axis=0,
    )
    return (int(lengths.min()), int(lengths.max())) if len(lengths) else None


def no_rows(attributes: LayerAttributes, samples: int) -> LayerBatch:
    """Return what a layer gives that did not run: samples without positions."""
    rows = np.empty((0, attributes.row_bytes), dtype=np.uint8)
    return LayerBatch(rows, _alike(samples, 0))


def layer_attributes(rows: NamedRows, samples: int, settings: Settings) -> LayerAttributes:
    """Return what a batch says of a layer."""
    first = rows.calls[0]
    form = first.form
    reason = first.owners.reason if first.owners is not None else AS_MANY
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
        decided={**(form.decided or {}), "sample_index": reason},
    )


def same_layer(fixed: LayerAttributes, found: LayerAttributes) -> bool:
    """Whether two batches gave rows of the same layer; positions and reasons may vary."""
    may_vary = ("position_shape", "sampling", "decided")
    return replace(found, **{name: getattr(fixed, name) for name in may_vary}) == fixed


def _alike(samples: int, positions: int) -> npt.NDArray[np.int64]:
    """Return the same number for each sample, for as many batches as there may be."""
    counts = np.full(samples, positions, dtype=np.int64)
    counts.flags.writeable = False
    return counts


def _owners_of(packed: Packed, samples: int) -> Indices:
    """Return the sample of each entry of the first axis of a call's rows."""
    chosen = packed.there is not None
    if packed.owners is not None and packed.owners.samples is not None and not chosen:
        return packed.owners.samples
    return even_index("contiguous", len(packed.rows), samples)


def _there(
    rows: NamedRows, packed: Packed, masks: Masks, forward: int, samples: int
) -> Mask | None:
    """Return which positions of each entry of a call count; None for all."""
    if packed.there is not None or not masks:
        return packed.there
    layer, positions = rows.target.axes.layer, packed.rows.shape[1]
    return masks.of(layer, forward, samples, _owners_of(packed, samples), positions)


def _check_shared(rows: NamedRows, packed: Packed, samples: int) -> None:
    """Refuse entries of which nothing says whose they are."""
    entries = packed.form.samples
    if packed.there is not None:
        if len(packed.rows) != samples:
            raise OutputError(
                f"{rows.name}: positions were chosen for {len(packed.rows)} samples, but the batch "
                f"has {samples}; with positions= the number of samples must be known before the "
                f"forward pass: recorder.batch({samples}, …)"
            )
    elif packed.owners is None and entries != samples:
        raise OutputError(
            f"{rows.name}: axis {packed.form.sample_axis} holds {entries} entries of {samples} "
            f"samples, and whose they are is not known; pass sample_axis= or sample_index="
            f"{{{rows.target.axes.layer!r}: …}}, or exclude the layer"
        )


def _position_shape(calls: list[Packed], samples: int) -> tuple[int, ...]:
    """Return the shape of a sample's positions: in the tensor, if one call gave them all.

    Where samples have different numbers of entries, that of the one with most.
    """
    most = [int(np.bincount(_kept(call, samples), minlength=1).max()) for call in calls]
    if len(calls) > 1:
        shapes = zip(most, calls, strict=True)
        return (sum(entries * math.prod(call.form.position_shape) for entries, call in shapes),)
    shape = calls[0].form.position_shape
    return shape if most[0] <= 1 else (most[0], *shape)


def _kept(packed: Packed, samples: int) -> Indices:
    """Return the sample of each entry that is of one."""
    owners = packed.owners.samples if packed.owners is not None else None
    if owners is None:
        owners = even_index("contiguous", packed.form.samples, samples)
    return owners[owners >= 0]
