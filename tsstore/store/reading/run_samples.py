"""The samples of a run that are shown, and what was recorded of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy.typing as npt

from tsstore.errors import StoreError
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import RunAttributes
from tsstore.store.reading.conditions import (
    join_pieces,
    kept_pieces,
    sample_index,
    with_mask,
    with_value,
)
from tsstore.store.reading.ids import ID, same_ids
from tsstore.store.reading.part import Part
from tsstore.store.reading.sample_filter import WHOLE, SampleFilter, View
from tsstore.text import printable

if TYPE_CHECKING:
    import pandas as pd


class RunSamples:
    """The samples of a run that a view shows, part after part, with their columns."""

    def __init__(
        self, files: Files, run: RunAttributes, parts: tuple[Part, ...], view: View = WHOLE
    ) -> None:
        self._files = files
        self.view = view
        self.run = run
        self.parts = parts

    @property
    def path(self) -> str:
        """Where the run lies."""
        return self._files.location

    @property
    def samples(self) -> int:
        """Number of committed samples in all parts, of those that are shown."""
        return sum(part.samples for part in self.parts) - self.view.samples.samples

    @property
    def steps(self) -> tuple[int | str | None, ...]:
        """The steps of the parts that hold samples, in order of their first part."""
        held = (part for part in self.parts if self.view.samples.keeps_any(part))
        return tuple(dict.fromkeys(part.step for part in held))

    @cached_property
    def repeated_samples(self) -> int:
        """How many samples repeat another one of their step and id; 0 where there are no ids.

        Raises
        ------
        StoreError
            If ids are neither integers nor text, or some parts have none.
        DamageError
            If ids are not what was committed.
        """
        has_ids = any(ID in part.columns for part in self.parts)
        return same_ids(self.parts, ID, self.view.samples).repeats if has_ids else 0

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the sample columns."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.columns))

    def at_step(self, step: int | str | None) -> Self:
        """Return the same store with the parts of one step only.

        Raises
        ------
        StoreError
            If no part has that step.
        """
        parts = tuple(part for part in self.parts if part.step == step)
        if not parts:
            raise StoreError(
                f"{self.path} has no part of step {step!r}; it has "
                f"{', '.join(repr(own) for own in self.steps if own is not None) or 'no steps'}"
            )
        samples = self.view.samples.of_parts(part.directory for part in parts)
        return self._showing(parts, steps=(step,), samples=samples)

    def filter(self, keep: Any = None, /, **columns: Any) -> Self:
        """Return a view of the samples that meet all conditions; nothing is copied.

        Whatever takes a store takes the view, and sees these samples alone: also to find those
        that repeat others, as by ``unique_by="id"``. Views of views meet the conditions of all.

        Parameters
        ----------
        keep
            A boolean for each sample that is there: a pandas Series indexed as `samples_frame` of
            this store, or of one that holds all its samples, as ``frame["label"].isin([3, 5])``
            is; or an array of them in their order, bool (samples,).
        **columns
            Names of sample columns, and the value that each must have: ``label=3``.

        Raises
        ------
        StoreError
            If a part with samples has no such column; if no sample has the value, or it is of
            another type than the column; if the booleans are not one for each sample.
        """
        samples, told = self.view.samples, list(self.view.told)
        for name, value in columns.items():
            samples = with_value(self.parts, name, value, samples)
            told.append(f"{printable(name)} = {printable(str(value))}")
        if keep is not None:
            samples = with_mask(self.parts, keep, samples)
            told.append("chosen one by one")
        return self.only(samples, told)

    def only(self, samples: SampleFilter, told: Iterable[str]) -> Self:
        """Return a view of the samples that a filter keeps, as `told` tells."""
        return self._showing(self.parts, samples=samples, told=tuple(told))

    def _showing(self, parts: tuple[Part, ...], **changes: Any) -> Self:
        return type(self)(self._files, self.run, parts, replace(self.view, **changes))

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a sample column, one entry a sample, part after part.

        Where parts recorded different types, it is one that holds each value exactly: Python's
        numbers, dtype object, if none of NumPy's does.

        Raises
        ------
        StoreError
            If a part with samples has no such column.
        """
        pieces = list(kept_pieces(self.parts, name, self.view.samples))
        if not pieces:
            raise StoreError(f"{self.path} has no sample column {name!r}: no samples are committed")
        return join_pieces(pieces)

    def samples_frame(self) -> pd.DataFrame:
        """Return all sample columns as a table, one line a sample.

        Its index has the step and the part of each, and its number there from 0, which no later
        commit and no `filter` changes: levels ``step``, ``part`` and ``sample``.
        """
        import pandas as pd

        index = sample_index(self.parts, self.view.samples)
        return pd.DataFrame({name: self.column(name) for name in self.columns}, index=index)
