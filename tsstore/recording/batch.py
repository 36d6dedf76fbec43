"""A batch while it lasts: rows of all layers and sample columns, dropped as a whole or finished."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import ColumnsError
from tsstore.recording.captured import Captured, NamedRows
from tsstore.recording.columns import to_column
from tsstore.recording.layer_axes import Waiting
from tsstore.recording.masks import Masks
from tsstore.recording.packed import Form, Packed
from tsstore.recording.select import Target
from tsstore.recording.settings import Calls


class OpenBatch:
    """A batch while it lasts.

    Calls of one forward pass are told apart; further forward passes add positions.

    Parameters
    ----------
    samples
        Number of samples, where the user said it.
    first_sample
        Running number of the first sample.
    wanted
        Whether it is recorded, or let through.

    Attributes
    ----------
    columns
        Sample columns recorded so far.
    masks
        Which positions are padding.

    Raises
    ------
    ColumnsError
        If `samples` is not a number.
    """

    def __init__(
        self, samples: int | None = None, first_sample: int = 0, wanted: bool = True
    ) -> None:
        self.explicit_samples = None if samples is None else _checked_samples(samples)
        self.first_sample = first_sample
        self.wanted = wanted
        self.masks = Masks()
        self.columns: dict[str, npt.NDArray[Any]] = {}
        self._forward = 0
        self._input: tuple[int, tuple[int, ...], int] | None = None
        self._captured = Captured()

    def record(self, columns: Mapping[str, Any], mask: Any = None) -> None:
        """Add sample columns, and a mask.

        Raises
        ------
        ColumnsError
            If one is there already, or is not a column or a mask; if a mask comes when positions
            were chosen without it.
        """
        if mask is not None:
            if any(packed.there is not None for packed in self.packed):
                raise ColumnsError(
                    "the mask came when positions had been chosen, padding among them; with "
                    "positions= give it before the forward pass: recorder.batch(mask=…)"
                )
            self.masks.record(mask)
        for name, values in columns.items():
            if name in self.columns:
                raise ColumnsError(
                    f"column {name!r} was recorded twice in one batch; record it once"
                )
            self.columns[name] = to_column(name, values)

    @property
    def packed(self) -> list[Packed]:
        """The rows of all calls, in order."""
        return self._captured.packed

    @property
    def form(self) -> Hashable:
        """What there is but for states and values: the same in batches that are alike."""
        columns = tuple((name, len(column)) for name, column in self.columns.items())
        masked = bool(self.masks)
        return self.explicit_samples, self._input, columns, masked, self._captured.form

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

    def add(self, target: Target, packed: Packed | Waiting) -> None:
        """Add one call: its rows, or what they are to be made of when the batch is over."""
        self._captured.add(target, self._forward, packed)

    def wait_no_longer(self, pack: Callable[[Target, Waiting], Packed | None]) -> None:
        """Let the rows be made that had to wait for the batch's end; None leaves them out."""
        self._captured.wait_no_longer(pack)

    def drop_forward(self) -> None:
        """Forget the forward pass that was begun last: it has failed."""
        self._captured.drop(self._forward)
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

    def samples_so_far(self, size: int, sample_axis: int) -> int:
        """Return how many samples a tensor holds, as far as is known while the batch lasts.

        Parameters
        ----------
        size
            Size of its sample axis.
        sample_axis
            Its sample axis.
        """
        known = self.explicit_samples
        if known is None and self.columns:
            known = len(next(iter(self.columns.values())))
        if known is None and sample_axis == 0 and self._input is not None:
            known = self._input[1][self._input[2]]
        return known if known and size % known == 0 else size

    @property
    def by_target(self) -> list[tuple[Target, Form]]:
        """What was called, and the form of its rows, in order."""
        return [(call.target, call.packed.form) for call in self._captured.calls]

    def named_rows(self, calls: Calls) -> list[NamedRows]:
        """Return the rows by public name.

        Raises
        ------
        CaptureError
            If a module was called a different number of times in the batch's forward passes.
        """
        return self._captured.named(calls)

    def _input_samples(self) -> int | None:
        # A sample axis that is not the first one is known: by the layer's class, or from the user.
        forms = [packed.form for packed in self.packed]
        known = {form.samples for form in forms if form.sample_axis > 0}
        if len(known) == 1:
            return known.pop()
        if self._input is not None:
            _, shape, axis = self._input
            return shape[axis]
        return next((form.samples for form in forms), None)

    def _check_columns_against_input(self, samples: int) -> None:
        """Refuse columns that would only fit if several inputs were taken for one sample."""
        fits = self._input is not None and self._input_samples() == samples
        if fits or all(packed.form.samples == samples for packed in self.packed):
            return
        raise self._several_inputs(samples)

    def _several_inputs(self, samples: int) -> ColumnsError:
        shape = f" of shape {self._input[1]}" if self._input else ""
        return ColumnsError(
            f"column {next(iter(self.columns))!r} has {samples} entries, but the input{shape} has "
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

    def record(self, *, mask: Any = None, **columns: Any) -> None:
        """Add sample columns: arrays, tensors or lists of one entry a sample.

        Parameters
        ----------
        mask
            Which positions are there, and which are padding: see :meth:`tsstore.Recorder.batch`.
        **columns
            Sample columns.

        Raises
        ------
        ColumnsError
            If one is there already, or is not a column or a mask.
        """
        self._batch.record(columns, mask)


class IgnoredColumns(BatchColumns):
    """What ``with recorder.batch()`` gives where nothing is recorded: it takes anything."""

    def __init__(self) -> None:
        super().__init__(OpenBatch())

    def record(self, *, mask: Any = None, **columns: Any) -> None:
        """Do nothing."""


def _checked_samples(samples: object) -> int:
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 0:
        raise ColumnsError(
            f"recorder.batch({samples!r:.80}): found a {type(samples).__name__}, expected the "
            "number of samples; pass columns by name, as in recorder.batch(label=labels)"
        )
    return int(samples)
