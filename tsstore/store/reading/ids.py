"""Ids of samples: a sample column of integers or text, and the samples that repeat others.

Samples are recorded more than once by samplers that pad, and by attempts that overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import StoreError
from tsstore.store.reading.conditions import held_column, kept_pieces
from tsstore.store.reading.part import Part, readers, sample_spans
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.store.threads import in_threads_if_slow

ID = "id"
"""The column that holds ids, unless another is named."""

_WHY_IDS = ": samples can be told from each other only where each batch records their ids"

PIECE_SAMPLES = 1 << 16
"""Ids that are read at a time: whole chunks."""


def id_dtype(parts: Iterable[Part], name: str = ID) -> np.dtype[Any]:
    """Return the one dtype that holds all parts' ids: int64, uint64, or object for text.

    It is object, too, where some are int64 and others uint64: as Python's integers they are told
    apart, in float64, their common type, not all are.
    """
    held = [part for part in parts if part.samples]
    dtypes = in_threads_if_slow(lambda part: _dtype(part, name), held, readers(held))
    found = dict(zip(dtypes, held, strict=True))
    if len(found) > 1 and np.dtype(object) not in found:
        return np.dtype(object)
    if len(found) > 1:
        sides = ", ".join(f"{dtype} in {part.directory}" for dtype, part in found.items())
        raise StoreError(
            f"column {name!r} cannot be compared from part to part: it is {sides}; expected "
            "integers, or text"
        )
    return next(iter(found), np.dtype(np.int64))


def id_pieces(part: Part, name: str = ID) -> Iterator[npt.NDArray[Any]]:
    """Yield the ids of a part's samples in their order, in pieces, as `id_dtype` says of it."""
    for span in sample_spans([part], PIECE_SAMPLES):
        yield _id_piece(*span, name)


def _id_piece(part: Part, first: int, stop: int, name: str) -> npt.NDArray[Any]:
    dtype = _dtype(part, name)
    return part.columns[name].read(first, stop).astype(dtype)


def missing_ids(parts: Iterable[Part], ids: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return those ids, integers or text, that no part holds, in the order given.

    StoreError where a part holds samples without such a column, or ids of another kind.
    """
    given = np.asarray(ids)
    if not given.size:
        return given
    holding = [part for part in parts if part.samples]
    # Also where nothing is held yet: a run whose ids are of no use could not be resumed.
    id_dtype(holding, ID)
    _check_given(given, _dtype(holding[0], ID) if holding else None)
    if not holding:
        return given
    comparable = given if given.dtype.kind in "iu" else np.array(given.tolist(), dtype=object)
    known, places = np.unique(comparable, return_inverse=True)
    held = np.zeros(len(known), dtype=bool)
    spans = sample_spans(holding, PIECE_SAMPLES)
    for piece in in_threads_if_slow(lambda span: _id_piece(*span, ID), spans, readers(holding)):
        _mark(held, known, piece)
    return given[~held[places.reshape(-1)]]


def _check_given(ids: npt.NDArray[Any], stored: np.dtype[Any] | None) -> None:
    """Raise StoreError unless ids are like those that are stored, or could be where none are."""
    text = ids.dtype.kind in "UTO" and all(isinstance(value, str) for value in ids.flat)
    kind = "text" if text else "integers" if ids.dtype.kind in "iu" else "neither"
    wanted = "text or integers"
    if stored is not None:
        wanted = "text" if stored.kind == "O" else "integers"
    if ids.ndim != 1 or kind not in wanted:
        raise StoreError(
            f"ids are {ids.dtype} of shape {ids.shape}; expected {wanted} along one axis, as in "
            f"column {ID!r}"
        )


def _mark(held: npt.NDArray[np.bool_], known: npt.NDArray[Any], piece: npt.NDArray[Any]) -> None:
    """Set `held` where an entry of `known`, which is sorted, is in `piece`."""
    if known.dtype.kind != "O":
        # Without a common type of its own: that of int64 and uint64 would be float64.
        limits = np.iinfo(known.dtype)
        fits = (piece >= limits.min) & (piece <= limits.max)
        piece = piece[fits].astype(known.dtype)
    places = np.searchsorted(known, piece)
    places[places == len(known)] = 0
    held[places[known[places] == piece]] = True


def _dtype(part: Part, name: str) -> np.dtype[Any]:
    spec = held_column(part, name, _WHY_IDS).spec
    if spec.is_text:
        return np.dtype(object)
    if spec.numpy_dtype.kind not in "iu":
        where = f"{part.files.location}/{part.directory}: column {name!r}"
        raise StoreError(f"{where} is {spec.dtype}; expected ids, integers or text")
    return np.dtype(np.uint64 if spec.numpy_dtype == np.uint64 else np.int64)


@dataclass(frozen=True)
class SameIds:
    """Samples whose id occurs more than once in their step, the ones that count first leading.

    `parts` holds their sorted indices, int64, by directory of the part, in the order in which parts
    count; empty ones are not there. `number` is that of the id of each of them, part after part:
    int64 (samples,).
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


def same_ids(
    parts: Iterable[Part], by: str = ID, sample_filter: SampleFilter = ALL_SAMPLES
) -> SameIds:
    """Find all samples that stay whose id occurs more than once; errors as `repeated`.

    It takes about 32 bytes for each id of the step that has most, and more for text.
    """
    found, numbers, known = {}, [np.empty(0, np.int64)], 0
    for step_parts in _by_step(parts):
        dtype = id_dtype(step_parts, by)
        kept = kept_pieces(step_parts, by, sample_filter)
        pieces = [np.empty(0, dtype), *(piece.astype(dtype, copy=False) for piece in kept)]
        number = _numbers_of_repeated(np.concatenate(pieces))
        del pieces
        first = 0
        for part in step_parts:
            indices = sample_filter.indices(part)
            own = number[first : first + len(indices)]
            first += len(indices)
            if own.any():
                found[part.directory] = indices[own > 0]
                numbers.append(own[own > 0] + known)
        known += int(number.max(initial=0))
    return SameIds(found, np.concatenate(numbers))


def repeated(
    parts: Iterable[Part], by: str = ID, sample_filter: SampleFilter = ALL_SAMPLES
) -> dict[str, npt.NDArray[np.int64]]:
    """Find samples that repeat others, those of the same step and id: sorted indices by directory.

    Only those are compared that stay.

    Of several, that of the earliest attempt counts; then that of the lowest rank; then the first.
    StoreError where parts with samples have no ids of one type.
    """
    same = same_ids(parts, by, sample_filter)
    again = np.ones(same.samples, dtype=bool)
    again[np.unique(same.number, return_index=True)[1]] = False
    held = {part: same.parts[part][later] for part, later in same.of_parts(again).items()}
    return {part: indices for part, indices in held.items() if len(indices)}


def _by_step(parts: Iterable[Part]) -> list[list[Part]]:
    """Return the parts of each step in the order in which they count."""
    ordered = sorted(parts, key=lambda part: (part.attributes.attempt, part.attributes.rank))
    steps = dict.fromkeys(part.step for part in ordered)
    return [[part for part in ordered if part.step == step] for step in steps]


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
