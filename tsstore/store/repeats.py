"""Samples that were recorded more than once: by padding samplers, or by attempts that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsstore.store.ids import ID, id_dtype, id_pieces
from tsstore.store.parts import Part


@dataclass(frozen=True)
class Repeats:
    """Which samples of which parts repeat others.

    Attributes
    ----------
    left_out
        By directory of the part: the sorted indices of the samples that repeat an earlier one,
        int64; none of a part whose samples are all new.
    """

    left_out: Mapping[str, npt.NDArray[np.int64]]

    @property
    def samples(self) -> int:
        """How many samples repeat others, in all parts."""
        return sum(map(len, self.left_out.values()))


def repeated(parts: Iterable[Part], by: str = ID) -> Repeats:
    """Find samples that repeat others: those of the same step and id.

    Of several, that of the earliest attempt counts; then that of the lowest rank; then the first.

    It takes about 24 bytes for each id of the step that has most, and more for text: that of each
    id besides.

    Parameters
    ----------
    parts
        Any parts of a run.
    by
        The sample column that holds the ids.

    Returns
    -------
    Repeats
        With an entry for each of the parts.

    Raises
    ------
    StoreError
        If a part has samples and no such column, or it is of no one type of integers or text.
    DamageError
        If a chunk of ids is not what was committed.
    """
    ordered = sorted(parts, key=lambda part: (part.attributes.attempt, part.attributes.rank))
    left_out: dict[str, npt.NDArray[np.int64]] = {}
    for step in dict.fromkeys(part.step for part in ordered):
        left_out |= _repeated_in_step([part for part in ordered if part.step == step], by)
    return Repeats(left_out)


def _repeated_in_step(parts: Sequence[Part], by: str) -> dict[str, npt.NDArray[np.int64]]:
    pieces = [np.empty(0, id_dtype(parts, by))]
    pieces += [piece for part in parts for piece in id_pieces(part, by)]
    ids = np.concatenate(pieces)
    del pieces
    again = _later_ones(ids)
    bounds = np.cumsum([0, *(part.samples for part in parts)])
    cuts = np.searchsorted(again, bounds)
    return {
        part.directory: again[first:last] - start
        for part, start, first, last in zip(parts, bounds, cuts, cuts[1:], strict=False)
    }


def _later_ones(ids: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Return the sorted indices of all entries that are equal to an earlier one."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    # Equal ones follow each other, in their old order: each but the first has its like before it.
    equal_to_the_last = np.asarray(ascending[1:] == ascending[:-1], dtype=bool)
    return np.sort(order[1:][equal_to_the_last])
