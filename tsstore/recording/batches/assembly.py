"""From open batches to what the writer takes: the first one fixes layers and columns."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tsstore.errors import CaptureError, OutputError, SelectionError, TsstoreWarning
from tsstore.recording.batches.columns import ColumnSchema, Mask, Masks, dtype_names
from tsstore.recording.batches.open_batch import NamedRows, OpenBatch, changed_calls, named_rows
from tsstore.recording.hooks.copies import CALLED_DIRECTLY, COMPILED, Copies, why_nothing_ran
from tsstore.recording.packing.packed import Packed
from tsstore.recording.samples.index import AS_MANY, Indices, check_names, even_index
from tsstore.recording.selection.select import Target
from tsstore.recording.settings import Settings
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.resume import Earlier

_MOST_KNOWN: Final = 256
"""Forms of batches that are remembered; then one begins anew."""


@dataclass(frozen=True)
class FinishedBatch:
    """A finished batch, with the layers that none before has had, and dtypes of all columns."""

    batch: Batch
    new_layers: Mapping[str, LayerAttributes]
    columns: Mapping[str, str]

    @property
    def positions(self) -> dict[str, int]:
        """Rows of the first sample in each new layer."""
        return {name: int(self.batch.layers[name].positions[:1].sum()) for name in self.new_layers}


class _Known(NamedTuple):
    """How batches of one form are finished: where a layer's rows are, and what silent ones give."""

    samples: int
    layers: list[tuple[str, int, Indices | None, Indices]]
    silent: dict[str, LayerBatch]

    def finished(self, batch: OpenBatch, columns: dict[str, npt.NDArray[Any]]) -> Batch:
        """Return the finished batch, with columns as they are stored."""
        layers = dict(self.silent)
        packed = batch.packed
        for name, place, order, positions in self.layers:
            rows = packed[place].in_memory()
            if order is not None:
                rows = rows[order]
            layers[name] = LayerBatch(rows.reshape(-1, rows.shape[2]), positions)
        return Batch(self.samples, layers, columns)


class Assembly:
    """Turns open batches into finished ones, and holds later ones to the first, and to `earlier`.

    `left_out` are targets that did not run in the first batch, and are captured no longer.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        settings: Settings,
        earlier: Earlier | None = None,
        copies: Copies | None = None,
    ) -> None:
        self.left_out: list[Target] = []
        self._begun = False
        self._targets = list(targets)
        self._settings = settings
        self._earlier = earlier
        self._copies = copies
        self._schema = ColumnSchema()
        self._layers: dict[str, LayerAttributes] = {}
        self._calls: dict[str, int] = {}
        self._known: dict[Hashable, _Known] = {}

    def as_before(self, batch: OpenBatch) -> FinishedBatch | None:
        """Return the finished batch where one like it was finished before, else None."""
        known = self._known.get(batch.form)
        if known is None:
            return None
        columns = self._schema.conform(batch.columns)
        return FinishedBatch(known.finished(batch, columns), {}, self._schema.dtypes or {})

    def assemble(self, batch: OpenBatch) -> FinishedBatch | None:
        """Return the finished batch, or None for one in which nothing happened."""
        if known := self.as_before(batch):
            return known
        samples = batch.samples()
        named = {rows.name: rows for rows in named_rows(batch.calls, self._settings.calls)}
        if samples is None or not (named or batch.columns or self._settings.missing == "error"):
            return None
        names = [rows.target.axes.layer for rows in named.values()]
        batch.masks.check_names(names)
        batch.masks.check_passes(len(batch.forwards))
        check_names(batch.sample_index, names)
        silent = [] if self._begun else self._silent_targets(named)
        calls = Counter(rows.target.name for rows in named.values())
        self._check_calls(calls)
        found = {
            name: _layer_attributes(rows, samples, self._settings) for name, rows in named.items()
        }
        self._check_layers(found, dict(zip(found, names, strict=True)))
        new = {name: layer for name, layer in found.items() if name not in self._layers}
        if self._earlier is not None and (new or not self._begun):
            self._earlier.check_columns(self._schema.dtypes or dtype_names(batch.columns))
            self._earlier.check_layers(new, self._settings.missing == "error")
        layers = self._layers | found
        batches = {
            name: _layer_batch(named[name], samples, batch.masks, batch.forwards)
            if name in named
            else _no_rows(layer, samples)
            for name, layer in layers.items()
        }
        finished = Batch(samples, batches, self._schema.conform(batch.columns))
        if silent:
            self._leave_out(silent)
        # A batch that is refused fixes nothing: from here on nothing can fail.
        self._begun = True
        self._layers |= new
        self._calls |= calls
        if new:
            # What gives no rows now is a layer as well in batches like those before.
            self._known.clear()
        self._learn(batch, named, finished)
        return FinishedBatch(finished, new, self._schema.dtypes or {})

    def _learn(self, batch: OpenBatch, named: Mapping[str, NamedRows], finished: Batch) -> None:
        """Note how batches like this one are finished, where that takes no more than their rows."""
        if batch.masks or batch.sample_index is not None:
            return
        if any(rows.is_joined or not rows.is_alike for rows in named.values()):
            return
        if len(self._known) == _MOST_KNOWN:
            self._known.clear()
        places = {id(packed): place for place, packed in enumerate(batch.packed)}
        layers = [
            (name, places[id(rows.calls[0])], rows.order, finished.layers[name].positions)
            for name, rows in named.items()
        ]
        silent = {name: layer for name, layer in finished.layers.items() if name not in named}
        self._known[batch.form] = _Known(finished.samples, layers, silent)

    def _silent_targets(self, named: Mapping[str, NamedRows]) -> list[Target]:
        """Return what did not run; an error where the user named it, none where it may be empty."""
        ran = {rows.target.name for rows in named.values()}
        silent = [target for target in self._targets if target.name not in ran]
        if not silent or self._settings.missing == "empty":
            return []
        if not ran:
            raise SelectionError(
                "none of the selected layers ran in the first batch: "
                f"{why_nothing_ran(self._copies)}"
            )
        for target in silent:
            if target.named:
                raise SelectionError(
                    f"{target.name} was named but did not run in the first batch: the model does "
                    "not call it (leave it out, or capture what runs in its place), or "
                    f"{COMPILED}, or its {CALLED_DIRECTLY}"
                )
        return silent

    def _leave_out(self, targets: list[Target]) -> None:
        warnings.warn(
            "selected layers that did not run in the first batch, or whose forward() was called, "
            "or that were compiled and called before (call torch.compiler.reset(), or pass "
            "reset_compiler=True), are left out: "
            f"{', '.join(target.name for target in targets)}",
            TsstoreWarning,
            stacklevel=5,
        )
        self.left_out += targets

    def _check_calls(self, calls: Mapping[str, int]) -> None:
        for name, now in calls.items():
            if now != (before := self._calls.get(name, now)):
                raise changed_calls(name, before, now)

    def _check_layers(self, found: Mapping[str, LayerAttributes], names: Mapping[str, str]) -> None:
        for name, layer in found.items():
            first = self._layers.get(name, layer)
            if not _same_layer(first, layer):
                said = f"sample_axis={{{names[name]!r}: {layer.sample_axis}}}"
                alone = _same_layer(replace(first, sample_axis=layer.sample_axis), layer)
                raise CaptureError(
                    f"{name}: {_description(layer)} in this batch, but "
                    f"{_description(first)} in the first one; expected the same in every batch: "
                    + (f"say it, as in {said}" if alone else "capture them in runs of their own")
                )
        silent = [name for name in self._layers if name not in found]
        if silent and self._settings.missing == "error":
            raise CaptureError(
                f"{', '.join(silent)} gave no states in this batch but did in the first one; pass "
                "missing='empty' if that is meant"
            )


def _description(layer: LayerAttributes) -> str:
    return (
        f"{layer.neurons} neurons of {layer.dtype} along axis {layer.neuron_axis}, samples along "
        f"axis {layer.sample_axis}"
    )


def _layer_batch(
    rows: NamedRows, samples: int, masks: Masks, forwards: Sequence[int]
) -> LayerBatch:
    """Return a layer's rows, sample after sample, without padding and what is of no sample."""
    for packed in rows.calls:
        _check_shared(rows, packed, samples)
    arrays = [packed.in_memory() for packed in rows.calls]
    valid = [
        _valid(rows, packed, masks, forwards.index(forward) + 1, samples)
        for packed, forward in zip(rows.calls, rows.forwards, strict=True)
    ]
    indices = [packed.owners and packed.owners.samples for packed in rows.calls]
    if all(mask is None for mask in valid) and all(index is None for index in indices):
        pieces = [array.reshape(samples, -1, array.shape[2]) for array in arrays if samples]
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces or arrays, axis=1)
        return LayerBatch(joined.reshape(-1, joined.shape[2]), _alike(samples, joined.shape[1]))
    owners = [
        np.repeat(_owners_of(packed, samples), array.shape[1])
        for packed, array in zip(rows.calls, arrays, strict=True)
    ]
    kept = [
        (owner >= 0) if mask is None else (owner >= 0) & mask.reshape(-1)
        for owner, mask in zip(owners, valid, strict=True)
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


def _no_rows(attributes: LayerAttributes, samples: int) -> LayerBatch:
    """Return what a layer gives that did not run: samples without positions."""
    rows = np.empty((0, attributes.row_bytes), dtype=np.uint8)
    return LayerBatch(rows, _alike(samples, 0))


def _layer_attributes(rows: NamedRows, samples: int, settings: Settings) -> LayerAttributes:
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


def _same_layer(fixed: LayerAttributes, found: LayerAttributes) -> bool:
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
    chosen = packed.valid is not None
    if packed.owners is not None and packed.owners.samples is not None and not chosen:
        return packed.owners.samples
    return even_index("contiguous", len(packed.rows), samples)


def _valid(
    rows: NamedRows, packed: Packed, masks: Masks, forward: int, samples: int
) -> Mask | None:
    """Return which positions of each entry of a call count; None for all."""
    if packed.valid is not None or not masks:
        return packed.valid
    layer, positions = rows.target.axes.layer, packed.rows.shape[1]
    return masks.of(layer, forward, samples, _owners_of(packed, samples), positions)


def _check_shared(rows: NamedRows, packed: Packed, samples: int) -> None:
    """Refuse entries of which nothing says whose they are."""
    entries = packed.form.samples
    if packed.valid is not None:
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
    """Return the shape of a sample's positions, of that with most: a tensor's, if of one call."""
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
