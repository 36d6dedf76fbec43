"""From open batches to what the writer takes: the first one fixes layers and columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tsstore.errors import CaptureError, SelectionError, warn
from tsstore.recording.batches.columns import ColumnSchema, dtype_names
from tsstore.recording.batches.layer_rows import LayerRows, changed_calls, layer_rows
from tsstore.recording.batches.open_batch import OpenBatch
from tsstore.recording.hooks.copies import CALLED_DIRECTLY, COMPILED, Copies, why_nothing_ran
from tsstore.recording.samples.index import Indices, check_names
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
        return {
            name: int(self.batch.layers[name].each(self.batch.samples)[:1].sum())
            for name in self.new_layers
        }


class _Known(NamedTuple):
    """How batches of one form are finished: where a layer's rows are, and what silent ones give."""

    samples: int
    layers: list[tuple[str, int, Indices | None, int | Indices]]
    silent: dict[str, LayerBatch]

    def finished(self, batch: OpenBatch, columns: dict[str, npt.NDArray[Any]]) -> Batch:
        """Return the finished batch, with columns as they are stored."""
        layers = dict(self.silent)
        calls = batch.calls
        for name, place, order, positions in self.layers:
            rows = calls[place].packed.in_memory()
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
        named = {rows.name: rows for rows in layer_rows(batch.calls, self._settings.calls)}
        if samples is None or not (named or batch.columns or self._settings.missing == "error"):
            return None
        names = [rows.target.axes.layer for rows in named.values()]
        batch.masks.check_names(names)
        batch.masks.check_passes(len(batch.forwards))
        check_names(batch.sample_index, names)
        silent = [] if self._begun else self._silent_targets(named)
        calls = Counter(rows.target.name for rows in named.values())
        for name, now in calls.items():
            if now != (before := self._calls.get(name, now)):
                raise changed_calls(name, before, now)
        found = {name: rows.attributes(samples, self._settings) for name, rows in named.items()}
        self._check_layers(found, dict(zip(found, names, strict=True)))
        new = {name: layer for name, layer in found.items() if name not in self._layers}
        if self._earlier is not None and (new or not self._begun):
            self._earlier.check_columns(self._schema.dtypes or dtype_names(batch.columns))
            self._earlier.check_layers(new, self._settings.missing == "error")
        layers = self._layers | found
        batches = {
            name: named[name].batch(samples, batch.masks, batch.forwards)
            if name in named
            else _no_rows(layer)
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

    def _learn(self, batch: OpenBatch, named: Mapping[str, LayerRows], finished: Batch) -> None:
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

    def _silent_targets(self, named: Mapping[str, LayerRows]) -> list[Target]:
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
        warn(
            "selected layers that did not run in the first batch, or whose forward() was called, "
            "or that were compiled and called before (call torch.compiler.reset(), or pass "
            "reset_compiler=True), are left out: "
            f"{', '.join(target.name for target in targets)}",
        )
        self.left_out += targets

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


def _no_rows(attributes: LayerAttributes) -> LayerBatch:
    """Return what a layer gives that did not run: samples without positions."""
    return LayerBatch(np.empty((0, attributes.row_bytes), dtype=np.uint8), 0)


def _same_layer(fixed: LayerAttributes, found: LayerAttributes) -> bool:
    """Whether two batches gave rows of the same layer; what says nothing of them may vary."""
    may_vary = ("position_shape", "sampling", "decided", "parameters")
    return replace(found, **{name: getattr(fixed, name) for name in may_vary}) == fixed
