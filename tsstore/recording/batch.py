"""A batch while it lasts: rows of all layers and sample columns, dropped as a whole or finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import CaptureError, ColumnsError
from tsstore.recording.columns import to_column
from tsstore.recording.pack import Packed
from tsstore.recording.select import Target
from tsstore.recording.settings import Calls


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
class _Captured:
    """The rows of one target by the number of the forward pass that they come from."""

    target: Target
    by_forward: dict[int, list[Packed]] = field(default_factory=dict)

    @property
    def calls(self) -> list[Packed]:
        return [packed for group in self.by_forward.values() for packed in group]


class OpenBatch:
    """A batch while it lasts.

    Calls of one forward pass are told apart; further forward passes add positions.

    Parameters
    ----------
    samples
        Number of samples, where the user said it.

    Attributes
    ----------
    columns
        Sample columns recorded so far.

    Raises
    ------
    ColumnsError
        If `samples` is not a number.
    """

    def __init__(self, samples: int | None = None) -> None:
        self.explicit_samples = None if samples is None else _checked_samples(samples)
        self.columns: dict[str, npt.NDArray[Any]] = {}
        self._forward = 0
        self._input: tuple[int, tuple[int, ...], int] | None = None
        self._captured: dict[str, _Captured] = {}

    def record(self, columns: Mapping[str, Any]) -> None:
        """Add sample columns.

        Raises
        ------
        ColumnsError
            If one is there already, or is not a column.
        """
        for name, values in columns.items():
            if name in self.columns:
                raise ColumnsError(
                    f"column {name!r} was recorded twice in one batch; record it once"
                )
            self.columns[name] = to_column(name, values)

    def begin_forward(self, input_shape: tuple[int, ...] = (), sample_axis: int = 0) -> None:
        """Note that a forward pass begins.

        Parameters
        ----------
        input_shape
            Shape of the first tensor that the model was called with; empty if there is none.
        sample_axis
            Its sample axis.
        """
        self._forward += 1
        if self._input is None and input_shape:
            self._input = self._forward, input_shape, sample_axis

    def add(self, target: Target, packed: Packed) -> None:
        """Add the rows of one call."""
        captured = self._captured.setdefault(target.name, _Captured(target))
        captured.by_forward.setdefault(self._forward, []).append(packed)

    def drop_forward(self) -> None:
        """Forget the forward pass that was begun last: it has failed."""
        for name, captured in list(self._captured.items()):
            captured.by_forward.pop(self._forward, None)
            if not captured.by_forward:
                del self._captured[name]
        if self._input is not None and self._input[0] == self._forward:
            self._input = None

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
                    f"column {name!r} has {len(column)} entries, but the batch has {samples} "
                    "samples; record one entry a sample"
                )
        if samples is None:
            return self._input_samples()
        if self.explicit_samples is None:
            self._check_columns_against_input(samples)
        return samples

    def named_rows(self, calls: Calls) -> list[NamedRows]:
        """Return the rows by public name.

        Raises
        ------
        CaptureError
            If a module was called a different number of times in the batch's forward passes.
        """
        named: list[NamedRows] = []
        for name, captured in self._captured.items():
            if calls == "merge":
                named.append(NamedRows(captured.target, None, captured.calls))
                continue
            counts = {len(group) for group in captured.by_forward.values()}
            if len(counts) > 1:
                raise changed_calls(name, min(counts), max(counts))
            # The n-th calls of all forward passes belong together.
            groups = list(zip(*captured.by_forward.values(), strict=True))
            for number, group in enumerate(groups, start=1):
                call = number if len(groups) > 1 else None
                named.append(NamedRows(captured.target, call, list(group)))
        return named

    def _packed(self) -> list[Packed]:
        return [packed for captured in self._captured.values() for packed in captured.calls]

    def _input_samples(self) -> int | None:
        # A sample axis that is not the first one is known: by the layer's class, or from the user.
        known = {packed.samples for packed in self._packed() if packed.sample_axis > 0}
        if len(known) == 1:
            return known.pop()
        if self._input is not None:
            _, shape, axis = self._input
            return shape[axis]
        return next((packed.samples for packed in self._packed()), None)

    def _check_columns_against_input(self, samples: int) -> None:
        """Refuse columns that would only fit if several inputs were taken for one sample."""
        fits = self._input is not None and self._input_samples() == samples
        if fits or all(packed.samples == samples for packed in self._packed()):
            return
        name = next(iter(self.columns))
        shape = f" of shape {self._input[1]}" if self._input else ""
        raise ColumnsError(
            f"column {name!r} has {samples} entries, but the input{shape} has "
            f"{self._input_samples()}; record one entry a sample, or, if several inputs belong to "
            f"one sample, say so: recorder.batch({samples}, …)"
        )


class BatchColumns:
    """What ``with recorder.batch()`` gives: takes columns that are known only afterwards.

    Parameters
    ----------
    batch
        The batch while it lasts.
    """

    def __init__(self, batch: OpenBatch) -> None:
        self._batch = batch

    def record(self, **columns: Any) -> None:
        """Add sample columns: arrays, tensors or lists of one entry a sample.

        Raises
        ------
        ColumnsError
            If one is there already, or is not a column.
        """
        self._batch.record(columns)


class IgnoredColumns(BatchColumns):
    """What ``with recorder.batch()`` gives once nothing is recorded any more: it takes anything."""

    def __init__(self) -> None:
        super().__init__(OpenBatch())

    def record(self, **columns: Any) -> None:
        """Do nothing."""


def changed_calls(name: str, before: int, now: int) -> CaptureError:
    """Return the error for a number of calls that changes."""
    return CaptureError(
        f"{name} was called {before} times in one forward pass and {now} times in another; pass "
        "calls='merge' to capture all calls as positions of one layer"
    )


def _checked_samples(samples: object) -> int:
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 0:
        raise ColumnsError(
            f"recorder.batch({samples!r:.80}): found a {type(samples).__name__}, expected the "
            "number of samples; pass columns by name, as in recorder.batch(label=labels)"
        )
    return int(samples)
