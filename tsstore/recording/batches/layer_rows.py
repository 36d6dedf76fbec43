"""The rows of one layer in a batch: of the calls that belong together, sample after sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tsstore.errors import CaptureError, OutputError
from tsstore.recording.batches.columns import Mask, Masks
from tsstore.recording.batches.open_batch import Call
from tsstore.recording.packing.packed import Packed
from tsstore.recording.samples.index import ONE_EACH, PACKED_SEQUENCES, Indices
from tsstore.recording.selection.select import Target
from tsstore.recording.settings import Calls, Settings
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.writing.batch import LayerBatch


@dataclass(frozen=True)
class LayerRows:
    """What one batch gave under one public name: the calls that belong together, in order.

    `call` is their number within a forward pass, from 1, where there are several; `forwards` has
    the number of each one's pass.
    """

    target: Target
    call: int | None
    calls: list[Packed]
    forwards: list[int]

    @property
    def name(self) -> str:
        """Public name of the layer."""
        return self.target.name if self.call is None else f"{self.target.name}#{self.call}"

    @property
    def is_joined(self) -> bool:
        """Whether the layer's rows are others than those of one call."""
        return len(self.calls) > 1 or self.calls[0].valid is not None

    @property
    def order(self) -> Indices | None:
        """The call's entries, sample after sample; None where they lie so."""
        owners = self.calls[0].owners or ONE_EACH
        if owners.samples is None:
            return None
        order = np.argsort(owners.samples, kind="stable")
        return order[owners.samples[order] >= 0]

    @property
    def is_alike(self) -> bool:
        """Whether batches with calls of the same form have their rows in the same order."""
        owners = self.calls[0].owners or ONE_EACH
        if owners.samples is None:
            return True
        return owners.reason != PACKED_SEQUENCES and bool((owners.samples >= 0).all())

    def attributes(self, samples: int, settings: Settings) -> LayerAttributes:
        """Return what the batch says of the layer."""
        first = self.calls[0]
        form = first.form
        reason = (first.owners or ONE_EACH).reason
        shape = _position_shape(self.calls, samples)
        return LayerAttributes(
            name=self.name,
            neurons=form.neurons,
            module_class=type(self.target.module).__name__,
            where=self.target.where,
            call=self.call,
            neuron_axis=form.neuron_axis,
            sample_axis=form.sample_axis,
            threshold={"given": settings.threshold, "used": form.threshold},
            dtype=form.dtype,
            position_shape=shape,
            sampling=settings.sampling.attributes(has_positions=shape != ()),
            output=self.target.output,
            decided={**(form.decided or {}), "sample_index": reason},
            parameters=self.target.parameters(form.neurons),
        )

    def batch(self, samples: int, masks: Masks, forwards: Sequence[int]) -> LayerBatch:
        """Return the rows, sample after sample, without padding and what is of no sample."""
        for packed in self.calls:
            self._check_shared(packed, samples)
        arrays = [packed.in_memory() for packed in self.calls]
        valid = [
            self._valid(packed, masks, forwards.index(forward) + 1, samples)
            for packed, forward in zip(self.calls, self.forwards, strict=True)
        ]
        indices = [packed.owners and packed.owners.samples for packed in self.calls]
        if all(mask is None for mask in valid) and all(index is None for index in indices):
            pieces = [array.reshape(samples, -1, array.shape[2]) for array in arrays if samples]
            joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces or arrays, axis=1)
            return LayerBatch(joined.reshape(-1, joined.shape[2]), joined.shape[1])
        rows, owners = [], []
        for packed, array, mask in zip(self.calls, arrays, valid, strict=True):
            owner = np.repeat(_owners_of(packed, samples), array.shape[1])
            kept = owner >= 0 if mask is None else (owner >= 0) & mask.reshape(-1)
            rows.append(array.reshape(-1, array.shape[2])[kept])
            owners.append(owner[kept])
        gathered, joined_owners = np.concatenate(rows), np.concatenate(owners)
        if (np.diff(joined_owners) < 0).any():
            gathered = gathered[np.argsort(joined_owners, kind="stable")]
        counts = [np.bincount(owner, minlength=samples) for owner in owners]
        return LayerBatch(gathered, np.sum(counts, axis=0), _lengths(self.calls, counts))

    def _valid(self, packed: Packed, masks: Masks, forward: int, samples: int) -> Mask | None:
        """Return which positions of each entry of a call count; None for all."""
        if packed.valid is not None or not masks:
            return packed.valid
        layer, positions = self.target.axes.layer, packed.rows.shape[1]
        return masks.of(layer, forward, samples, _owners_of(packed, samples), positions)

    def _check_shared(self, packed: Packed, samples: int) -> None:
        """Refuse entries of which nothing says whose they are."""
        entries = packed.form.samples
        if packed.valid is not None:
            if len(packed.rows) != samples:
                raise OutputError(
                    f"{self.name}: positions were chosen for {len(packed.rows)} samples, but the "
                    f"batch has {samples}; with positions= the number of samples must be known "
                    f"before the forward pass: recorder.batch({samples}, …)"
                )
        elif packed.owners is None and entries != samples:
            raise OutputError(
                f"{self.name}: axis {packed.form.sample_axis} holds {entries} entries of {samples} "
                f"samples, and whose they are is not known; pass sample_axis= or sample_index="
                f"{{{self.target.axes.layer!r}: …}}, or exclude the layer"
            )


def layer_rows(calls: Iterable[Call], several: Calls) -> list[LayerRows]:
    """Return rows by public name; CaptureError if passes called a module more or less often."""
    targets: dict[str, tuple[Target, dict[int, list[Packed]]]] = {}
    for target, forward, packed in calls:
        _, by_forward = targets.setdefault(target.name, (target, {}))
        by_forward.setdefault(forward, []).append(packed)
    named: list[LayerRows] = []
    for target, by_forward in targets.values():
        groups = list(by_forward.values())
        if several == "merge":
            merged = [packed for group in groups for packed in group]
            forwards = [number for number, group in by_forward.items() for _ in group]
            named.append(LayerRows(target, None, merged, forwards))
            continue
        counts = {len(group) for group in groups}
        if len(counts) > 1:
            raise changed_calls(target.name, min(counts), max(counts))
        # The n-th calls of all forward passes belong together.
        for number, group in enumerate(zip(*groups, strict=True), start=1):
            call = number if len(groups[0]) > 1 else None
            named.append(LayerRows(target, call, list(group), list(by_forward)))
    return named


def changed_calls(name: str, before: int, now: int) -> CaptureError:
    """Return the error for a number of calls that changes."""
    return CaptureError(
        f"{name} was called {before} times in one forward pass and {now} times in another; pass "
        "calls='merge' to capture all calls as positions of one layer"
    )


def _lengths(calls: list[Packed], counts: list[Indices]) -> tuple[int, int] | None:
    """Return the fewest and the most positions of a sample, where some were chosen."""
    if all(call.lengths is None for call in calls):
        return None
    each = (
        count if call.lengths is None else call.lengths
        for call, count in zip(calls, counts, strict=True)
    )
    lengths = np.sum(list(each), axis=0)
    return (int(lengths.min()), int(lengths.max())) if len(lengths) else None


def _owners_of(packed: Packed, samples: int) -> Indices:
    """Return the sample of each entry of the first axis of a call's rows."""
    chosen = packed.valid is not None
    owners = ONE_EACH if chosen else packed.owners or ONE_EACH
    return owners.each(len(packed.rows), samples)


def _position_shape(calls: list[Packed], samples: int) -> tuple[int, ...]:
    """Return the shape of a sample's positions, of that with most: a tensor's, if of one call."""
    most = [int(np.bincount(_kept(call, samples), minlength=1).max()) for call in calls]
    if len(calls) > 1:
        shapes = zip(most, calls, strict=True)
        return (sum(entries * math.prod(call.form.position_shape) for entries, call in shapes),)
    shape = calls[0].form.position_shape
    return shape if most[0] <= 1 else (most[0], *shape)


def _kept(packed: Packed, samples: int) -> Indices:
    """Return the sample of each entry that is of one."""
    owners = (packed.owners or ONE_EACH).each(packed.form.samples, samples)
    return owners[owners >= 0]
