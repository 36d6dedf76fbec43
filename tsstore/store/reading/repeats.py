"""Samples that were recorded more than once: by padding samplers, or by attempts that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.store.reading.ids import ID, id_dtype, id_pieces
from tsstore.store.reading.part import Part


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


@dataclass(frozen=True)
class SameIds:
    """Samples whose id occurs more than once in their step, the ones that count first leading.

    Attributes
    ----------
    parts
        By directory of the part: the sorted indices of these samples, int64; in the order in which
        parts count. Empty ones are not there.
    number
        int64 (samples,): the number of the id of each of them, part after part.
    """

    parts: Mapping[str, npt.NDArray[np.int64]]
    number: npt.NDArray[np.int64]

    @property
    def samples(self) -> int:
        """How many samples there are, the first ones of each id included."""
        return len(self.number)

    @property
    def repeats(self) -> int:
        """How many of them repeat another one."""
        return len(self.number) - len(np.unique(self.number))

    def of_parts(self, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Return one value of each sample by directory of its part."""
        ends = np.cumsum([len(indices) for indices in self.parts.values()])
        return dict(zip(self.parts, np.split(values, ends[:-1]), strict=True)) if len(ends) else {}


def same_ids(parts: Iterable[Part], by: str = ID) -> SameIds:
    """Find all samples whose id occurs more than once; arguments and errors as `repeated`.

    It takes about 32 bytes for each id of the step that has most, and more for text.
    """
    found, numbers, known = {}, [np.empty(0, np.int64)], 0
    for step_parts in _by_step(parts):
        number = _numbers_of_repeated(_read_ids(step_parts, by))
        first = 0
        for part in step_parts:
            own = number[first : first + part.samples]
            first += part.samples
            indices = np.flatnonzero(own)
            if len(indices):
                found[part.directory] = indices
                numbers.append(own[indices] + known)
        known += int(number.max(initial=0))
    return SameIds(found, np.concatenate(numbers))


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
    left_out: dict[str, npt.NDArray[np.int64]] = {}
    for step_parts in _by_step(parts):
        left_out |= _repeated_in_step(step_parts, by)
    return Repeats(left_out)


def _by_step(parts: Iterable[Part]) -> list[list[Part]]:
    """Return the parts of each step in the order in which they count."""
    ordered = sorted(parts, key=lambda part: (part.attributes.attempt, part.attributes.rank))
    steps = dict.fromkeys(part.step for part in ordered)
    return [[part for part in ordered if part.step == step] for step in steps]


def _read_ids(parts: Sequence[Part], by: str) -> npt.NDArray[Any]:
    pieces = [np.empty(0, id_dtype(parts, by))]
    pieces += [piece for part in parts for piece in id_pieces(part, by)]
    return np.concatenate(pieces)


def _repeated_in_step(parts: Sequence[Part], by: str) -> dict[str, npt.NDArray[np.int64]]:
    again = _later_ones(_read_ids(parts, by))
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


def _numbers_of_repeated(ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return a number from 1 for each id that occurs more than once, 0 for the others."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    like_the_last = np.zeros(len(ids) + 1, dtype=bool)
    like_the_last[1:-1] = np.asarray(ascending[1:] == ascending[:-1], dtype=bool)
    del ascending
    begins = ~like_the_last[:-1] & like_the_last[1:]
    numbers = np.cumsum(begins, dtype=np.int64)
    numbers[~(like_the_last[:-1] | like_the_last[1:])] = 0
    of_ids: npt.NDArray[np.int64] = np.empty_like(numbers)
    of_ids[order] = numbers
    return of_ids
