"""One batch: rows of all layers and sample columns, put together or dropped as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tsstore.errors import CaptureError, ColumnsError, OutputError
from tsstore.recording.columns import to_column
from tsstore.recording.pack import Packed
from tsstore.recording.select import Target
from tsstore.store.layout import LayerAttributes
from tsstore.store.writer import LayerBatch

Calls = Literal["separate", "merge"]


@dataclass(frozen=True)
class NamedRows:
    """What one batch gave under one public name: the calls that belong together, in order."""

    target: Target
    call: int | None
    calls: list[Packed]

    @property
    def name(self) -> str:
        """Public name of the layer."""
        return self.target.name if self.call is None else f"{self.target.name}#{self.call}"


@dataclass
class OpenBatch:
    """A batch while it lasts.

    Attributes
    ----------
    explicit_samples
        Number of samples, where the user said it.
    columns
        Sample columns recorded so far.
    forward
        Number of forward passes begun; calls of one pass are told apart, passes add positions.
    input_shape
        Shape of the first tensor that the model was called with.
    input_samples
        Size of that tensor's sample axis.
    """

    explicit_samples: int | None = None
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    forward: int = 0
    input_shape: tuple[int, ...] | None = None
    input_samples: int | None = None
    _rows: dict[str, list[tuple[int, Packed]]] = field(default_factory=dict)
    _targets: dict[str, Target] = field(default_factory=dict)

    def record(self, columns: Mapping[str, Any]) -> None:
        """Add sample columns.

        Raises
        ------
        ColumnsError
            If one is there already, or is not a column.
        """
        for name, values in columns.items():
            if name in self.columns:
                raise ColumnsError(f"column {name!r} was recorded twice in one batch")
            self.columns[name] = to_column(name, values)

    def add(self, target: Target, packed: Packed) -> None:
        """Add the rows of one call."""
        self._targets[target.name] = target
        self._rows.setdefault(target.name, []).append((self.forward, packed))

    @property
    def counts_by_columns(self) -> bool:
        """Whether the number of samples is known from the columns alone."""
        return self.explicit_samples is None and bool(self.columns)

    def samples(self) -> int | None:
        """Return the number of samples, or None for a batch in which nothing happened.

        As the user said; else the columns' length; else the size of the model's input.

        Raises
        ------
        ColumnsError
            If columns disagree with each other, with what the user said, or with the input.
        """
        samples = self.explicit_samples
        for name, column in self.columns.items():
            samples = len(column) if samples is None else samples
            if len(column) != samples:
                raise ColumnsError(
                    f"column {name!r} has {len(column)} entries, but the batch has {samples} samples"
                )
        if samples is not None:
            if self.counts_by_columns:
                self._check_columns_against_input(samples)
            return samples
        if self.input_samples is None and self._rows:
            return next(iter(self._rows.values()))[0][1].rows.shape[0]
        return self.input_samples

    def drop_forward(self) -> None:
        """Forget the rows of the forward pass that has just failed."""
        for name, pairs in list(self._rows.items()):
            self._rows[name] = [pair for pair in pairs if pair[0] != self.forward]
            if not self._rows[name]:
                del self._rows[name]

    def named_rows(self, calls: Calls) -> list[NamedRows]:
        """Return the rows by public name.

        Raises
        ------
        CaptureError
            If a module was called a different number of times in the batch's forward passes.
        """
        named: list[NamedRows] = []
        for name, pairs in self._rows.items():
            target = self._targets[name]
            if calls == "merge":
                named.append(NamedRows(target, None, [packed for _, packed in pairs]))
                continue
            passes: dict[int, list[Packed]] = {}
            for forward, packed in pairs:
                passes.setdefault(forward, []).append(packed)
            counts = {len(group) for group in passes.values()}
            if len(counts) > 1:
                raise changed_calls(name, min(counts), max(counts))
            count = counts.pop()
            for call in range(count):
                group = [group[call] for group in passes.values()]
                named.append(NamedRows(target, call + 1 if count > 1 else None, group))
        return named

    def _check_columns_against_input(self, samples: int) -> None:
        shape = self.input_shape
        if shape and samples not in shape[:2]:
            name = next(iter(self.columns))
            raise ColumnsError(
                f"column {name!r} has {samples} entries, but the model was given a tensor of shape "
                f"{shape}; if several inputs belong to one sample, say so: "
                f"recorder.batch({samples}, …)"
            )


def changed_calls(name: str, before: int, now: int) -> CaptureError:
    """Return the error for a number of calls that changes."""
    return CaptureError(
        f"{name} was called {before} times in one forward pass and {now} times in another; pass "
        "calls='merge' to capture all calls as positions of one layer"
    )


def layer_batch(rows: NamedRows, samples: int, from_columns: bool) -> LayerBatch:
    """Return a layer's rows, sample after sample.

    Raises
    ------
    ColumnsError, OutputError
        If the rows cannot be shared by the samples.
    """
    pieces = []
    for packed in rows.calls:
        array = packed.rows.cpu().numpy()
        size, positions, row_bytes = array.shape
        if (size % samples if samples else size) != 0:
            message = (
                f"{rows.name}: axis {packed.sample_axis} holds {size} entries, which "
                f"{samples} samples cannot share"
            )
            if from_columns:
                raise ColumnsError(f"{message}; record columns of one entry a sample")
            raise OutputError(f"{message}; pass sample_axis={{{rows.name!r}: …}}, or exclude it")
        groups = size // samples if samples else 0
        pieces.append(array.reshape(samples, groups * positions, row_bytes))
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
    counts = np.full(samples, joined.shape[1], dtype=np.int64)
    return LayerBatch(joined.reshape(-1, joined.shape[2]), counts)


def layer_attributes(rows: NamedRows, samples: int, threshold: float) -> LayerAttributes:
    """Return what the first batch says of a layer."""
    packed = rows.calls[0]
    groups = packed.rows.shape[0] // samples if samples else 0
    shape = packed.position_shape if groups <= 1 else (groups, *packed.position_shape)
    if len(rows.calls) > 1:
        shape = (sum(call.rows.shape[0] * call.rows.shape[1] for call in rows.calls) // samples,)
    return LayerAttributes(
        name=rows.name,
        neurons=packed.neurons,
        module_class=type(rows.target.module).__name__,
        where=rows.target.where,
        call=rows.call,
        neuron_axis=packed.neuron_axis,
        sample_axis=packed.sample_axis,
        threshold={"given": threshold, "used": packed.threshold},
        dtype=packed.dtype,
        position_shape=shape,
    )


def same_layer(fixed: LayerAttributes, found: LayerAttributes) -> bool:
    """Whether two batches gave rows of the same layer; positions may vary."""
    return replace(found, position_shape=fixed.position_shape) == fixed
