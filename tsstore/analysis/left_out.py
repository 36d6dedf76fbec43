"""Samples that an analysis leaves out: those that repeat others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.machine import format_memory
from tsstore.errors import MemoryTooSmallError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import LayerPart
from tsstore.store.reading.repeats import repeated
from tsstore.store.reading.store import StateStore

COMPARED_BYTES = 48
"""Of an id, while all are compared: itself, its place in order, itself there, whether it is equal
to the last, and twice its index if it repeats another; and half a place to sort with."""
TEXT_BYTES = 100
"""Of an id of text, besides: enough for some 50 characters."""

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Samples that an analysis leaves out, in every layer and in the accuracy.

    Attributes
    ----------
    indices
        By directory of a part: which of its samples, int64, sorted. Of parts that are not there
        none is left out.
    most
        How many a plan reckons with, where it was made before it was known how many there are.
    """

    indices: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    most: int = 0

    @property
    def samples(self) -> int:
        """How many samples are left out, in all parts."""
        return sum(map(len, self.indices.values()))

    @property
    def planned(self) -> int:
        """How many are left out at most, as a plan reckons."""
        return max(self.samples, self.most)

    def kept(self, directory: str, first_sample: int, samples: int) -> npt.NDArray[np.bool_] | None:
        """Return which of consecutive samples of a part stay, bool (samples,); None for all."""
        left_out = self._among(directory, first_sample, samples)
        if not len(left_out):
            return None
        kept = np.ones(samples, np.bool_)
        kept[left_out] = False
        return kept

    def select(
        self, values: npt.NDArray[Any], directory: str, first_sample: int
    ) -> npt.NDArray[Any]:
        """Return those of the values of consecutive samples of a part that stay."""
        kept = self.kept(directory, first_sample, len(values))
        return values if kept is None else values[kept]

    def kept_samples(self, states: LayerStates) -> int:
        """Return how many samples of a layer stay."""
        return sum(part.samples - len(self._of(part.directory)) for part in states.parts)

    def kept_rows(self, states: LayerStates) -> int:
        """Return how many rows of a layer stay, from the rows of each sample alone.

        Raises
        ------
        DamageError
            If a chunk of these is not what was committed.
        """
        return states.rows - sum(map(self._rows, states.parts))

    def _rows(self, part: LayerPart) -> int:
        """Return how many rows of a part are left out."""
        left_out = len(self._of(part.directory))
        if not left_out or part.constant_positions is not None:
            return left_out * (part.constant_positions or 0)
        rows = first = 0
        for positions in part.position_pieces():
            rows += int(positions[self._among(part.directory, first, len(positions))].sum())
            first += len(positions)
        return rows

    def _among(self, directory: str, first_sample: int, samples: int) -> npt.NDArray[np.int64]:
        """Return which of consecutive samples are left out, counted from the first of them."""
        indices = self._of(directory)
        start, stop = np.searchsorted(indices, [first_sample, first_sample + samples])
        return indices[start:stop] - first_sample

    def _of(self, directory: str) -> npt.NDArray[np.int64]:
        return self.indices.get(directory, _NONE)


NOTHING = LeftOut()
"""All samples stay."""


def leave_out_repeated(store: StateStore, by: str, memory: int) -> LeftOut:
    """Leave out each sample that repeats another one of its step and id.

    Of several, that of the earliest attempt stays; then that of the lowest rank; then the first.

    Parameters
    ----------
    store
        The run.
    by
        The sample column that holds the ids, integers or text.
    memory
        What comparing them may take, in bytes.

    Raises
    ------
    MemoryTooSmallError
        If the ids are too many.
    StoreError
        If a part has samples and no such column, or it is of no one type of integers or text.
    DamageError
        If a chunk of ids is not what was committed.
    """
    needed = bytes_to_compare(store, by)
    if needed > memory:
        raise MemoryTooSmallError(
            f"{store.path}: memory of {format_memory(memory)} is too small to compare the ids of "
            f"{store.samples:,} samples; give at least memory='{-(-needed // 1024)}KiB'"
        )
    found = repeated(store.parts, by).left_out
    return LeftOut({directory: indices for directory, indices in found.items() if len(indices)})


def bytes_to_compare(store: StateStore, by: str) -> int:
    """Return the most bytes that comparing all ids takes; about so many if they are of text."""
    columns = [part.columns[by] for part in store.parts if by in part.columns]
    of_text = sum(column.rows for column in columns if column.spec.is_text)
    return COMPARED_BYTES * store.samples + TEXT_BYTES * of_text
