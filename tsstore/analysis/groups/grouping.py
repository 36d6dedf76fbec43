"""Which group each sample is in: by the values of a column, by step, by windows of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.groups.count import rows_by_set
from tsstore.analysis.request import Bins, Request
from tsstore.analysis.samples import Samples
from tsstore.errors import AnalysisError, EmptyStoreError, StoreError
from tsstore.store.reading.conditions import PIECE_SAMPLES, held_column, kept_pieces
from tsstore.store.reading.part import Part, sample_spans
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.reading.store import StateStore
from tsstore.text import counted, printable

STEP, WINDOW = "step", "window"
MOST_GROUPS = 1000
MOST_PLACES = 1 << 16
"""Between whole numbers that are looked up in a table."""

_Codes = npt.NDArray[np.int16]
_Divided = dict[tuple[str, int], tuple[npt.NDArray[Any], _Codes]]
"""By directory of a part and first sample, the distinct values of a piece, and each one's place."""


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which group each sample is in.

    Attributes
    ----------
    by
        A sample column, `STEP` or `WINDOW`.
    values
        What the samples of each group have in common, in order.
    codes
        By directory of a part, the number of each sample's group, int16 (samples,); -1 where it is
        in none, or is not shown.
    ungrouped
        How many samples that are shown are in no group.
    """

    by: str
    values: tuple[Any, ...]
    codes: Mapping[str, _Codes]
    ungrouped: int = 0

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """How many samples each group has, int64 (groups,)."""
        numbers = np.zeros(len(self.values), np.int64)
        for own in self.codes.values():
            numbers += np.bincount(own[own >= 0], minlength=len(numbers))
        return numbers

    def divided(self, samples: Samples) -> Samples:
        """Return samples of which each group is also counted by itself."""
        return replace(samples, sets=self.codes, set_count=len(self.values))

    def check_rows(self, store: StateStore) -> None:
        """Raise EmptyStoreError if a layer has no rows of a group."""
        samples = self.divided(Samples(store.view.samples))
        for name, states in store.items():
            rows = rows_by_set(states, samples)
            if not rows.all():
                value = self.values[int(np.argmin(rows))]
                raise EmptyStoreError(
                    f"{store.path}: layer {printable(name)} has no rows of samples with "
                    f"{printable(self.by)} = {printable(str(value))}; filter them out"
                )

    def views(self, store: StateStore) -> Iterator[StateStore]:
        """Yield a view of the samples of each group, which holds the numbers of all others."""
        for number, value in enumerate(self.values):
            if self.by == STEP:
                yield store.at_step(value)
                continue
            left_out = {
                part.directory: np.flatnonzero(self.codes[part.directory] != number)
                for part in store.parts
                if part.samples
            }
            told = f"{printable(self.by)} = {printable(str(value))}"
            yield store.only(SampleFilter(left_out), (*store.view.told, told))


def group(store: StateStore, request: Request) -> Grouping:
    """Return the groups that are asked for: AnalysisError if that makes no sense, or too many."""
    by, bins, window = request.by, request.bins, request.window
    if (by is None) == (window is None):
        given = "neither" if by is None else f"by={by!r:.80} and window={window!r}"
        raise AnalysisError(f"found {given}; expected by= or window=, one of the two")
    if bins is not None and by in (None, STEP):
        raise AnalysisError("bins= divide the numbers of a column, and by= names none")
    if window is not None:
        found = _by_window(store, window)
    elif by == STEP:
        found = _by_step(store)
    else:
        found = _by_column(store, str(by), bins)
    if not found.values:
        raise EmptyStoreError(f"{store.path}: no sample is in any group by {printable(found.by)}")
    return found


def _by_step(store: StateStore) -> Grouping:
    steps = store.steps
    _check_number(len(steps), store, STEP, "")

    def codes_of(part: Part, first: int, stop: int) -> _Codes:
        # Of a step of which no sample is shown there are none.
        code = steps.index(part.step) if part.step in steps else -1
        return np.full(stop - first, code, np.int16)

    return Grouping(STEP, steps, _codes(store, codes_of))


def _by_window(store: StateStore, window: int) -> Grouping:
    if isinstance(window, bool) or not isinstance(window, int | np.integer) or window < 1:
        raise AnalysisError(f"window is {window!r:.80}; expected how many samples, 1 at least")
    starts = range(0, store.samples, int(window))
    _check_number(len(starts), store, WINDOW, f"; pass a window of more than {window:,} samples")
    seen = 0

    def codes_of(part: Part, first: int, stop: int) -> _Codes:
        nonlocal seen
        kept = store.view.samples.mask(part.directory, first, stop - first)
        places = seen + np.cumsum(kept) - 1
        seen += int(kept.sum())
        codes: _Codes = (np.maximum(places, 0) // window).astype(np.int16)
        return codes

    return Grouping(WINDOW, tuple(starts), _codes(store, codes_of))


def _by_column(store: StateStore, name: str, bins: Bins) -> Grouping:
    known, divided = _distinct(store, name)
    is_number = known.dtype.kind in "iuf"
    if known.dtype.kind == "f":
        known = known[~np.isnan(known)]
    if bins is not None:
        if not is_number:
            raise AnalysisError(f"{store.path}: bins= divide numbers; {printable(name)} has none")
        return _binned(store, name, known.astype(np.float64), bins, divided)
    advice = "; divide them by bins=" if is_number else ""
    _check_number(len(known), store, printable(name), advice)
    codes = _codes_of_column(store, name, divided, partial(_places, known)) if len(known) else {}
    return Grouping(name, tuple(known.tolist()), codes, _ungrouped(store, codes))


def _binned(
    store: StateStore,
    name: str,
    known: npt.NDArray[np.float64],
    bins: Bins,
    divided: _Divided,
) -> Grouping:
    """Divide numbers at edges: each interval has its upper one, and the first the lower too."""
    import pandas as pd

    if isinstance(bins, int | np.integer):
        _check_number(int(bins), store, printable(name), "")
        finite = known[np.isfinite(known)]
        if bins < 1 or len(finite) < 2:
            raise AnalysisError(
                f"bins is {bins} for {counted(len(finite), 'distinct finite value')} of "
                f"{name!r:.80}; expected 1 at least, for two values at least"
            )
        edges = np.linspace(finite.min(), finite.max(), int(bins) + 1)
    else:
        try:
            edges = np.asarray(bins, np.float64)
        except (TypeError, ValueError):
            edges = np.empty(0)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise AnalysisError(
            f"bins are {bins!r:.80}; expected how many, or two or more ascending edges"
        )
    _check_number(len(edges) - 1, store, printable(name), "")

    def place(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        numbers = np.asarray(values, np.float64)
        places = np.searchsorted(edges, numbers, side="left") - 1
        places[numbers == edges[0]] = 0
        places[(places >= len(edges) - 1) | np.isnan(numbers)] = -1
        return places

    # Of intervals without samples nothing can be said.
    held = np.unique(place(known))
    held = held[held >= 0]
    new = np.full(len(edges), -1, np.int16)
    new[held] = np.arange(len(held))

    intervals = tuple(
        pd.Interval(edges[n], edges[n + 1], "right" if n else "both") for n in held.tolist()
    )
    codes = _codes_of_column(store, name, divided, lambda values: new[place(values)])
    return Grouping(name, intervals, codes, _ungrouped(store, codes))


def _distinct(store: StateStore, name: str) -> tuple[npt.NDArray[Any], _Divided]:
    """Return the distinct values of a column, and its pieces that have few.

    StoreError if its parts' types cannot be compared.
    """
    held_in = [part for part in store.parts if part.samples]
    dtypes = {held_column(part, name).spec.numpy_dtype: part.directory for part in held_in}
    held: list[npt.NDArray[Any]] = [np.empty(0, next(iter(dtypes), np.float64))]
    are_alike = len({dtype.kind == "O" for dtype in dtypes}) < 2
    divided: _Divided = {}
    parts, shown = store.parts if are_alike else (), store.view.samples
    pieces = kept_pieces(parts, name, shown)
    for (part, first, stop), piece in zip(sample_spans(parts, PIECE_SAMPLES), pieces, strict=True):
        own, places = _divide(piece)
        if len(own) <= MOST_GROUPS:
            every = np.full(stop - first, -1, np.int16)
            every[shown.mask(part.directory, first, stop - first)] = places
            divided[part.directory, first] = own, every
        held.append(own)
        if sum(map(len, held)) > 16 * PIECE_SAMPLES:
            held = [np.unique(np.concatenate(held))]
    known = np.unique(np.concatenate(held))
    if len(dtypes) > 1 and known.dtype.kind == "f" and any(own.kind in "iu" for own in dtypes):
        # Beyond, integers are not told apart as floats.
        are_alike = not (np.abs(known[np.isfinite(known)]) >= 2**53).any()
    if not are_alike:
        sides = ", ".join(f"{dtype} in {directory}" for dtype, directory in dtypes.items())
        raise StoreError(
            f"{store.path}: column {printable(name)} cannot be compared from part to part: it is "
            f"{sides}; expected one type"
        )
    return known, divided


def _divide(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Return the distinct ones of some values, in order, and the place of each among them."""
    low, above = _above_least(values)
    if above is None:
        known, places = np.unique(values, return_inverse=True)
        return known, places
    # Of close whole numbers, by a table.
    seen = np.zeros(above.max() + 1, np.bool_)
    seen[above] = True
    known = (np.flatnonzero(seen) + low).astype(values.dtype)
    return known, (np.cumsum(seen) - 1)[above]


def _places(known: npt.NDArray[Any], values: npt.NDArray[Any]) -> _Codes:
    """Return the place of each value among known ones, which ascend; -1 of others."""
    codes = np.minimum(np.searchsorted(known, values), len(known) - 1).astype(np.int16)
    codes[np.asarray(known[codes] != values, np.bool_)] = -1
    return codes


def _above_least(
    values: npt.NDArray[Any],
) -> tuple[np.int64, npt.NDArray[np.int64] | None]:
    """Return the least of whole numbers and how far others lie above, if all are close; or None."""
    if values.dtype.kind in "iu" and len(values):
        least, most = values.min(), values.max()
        if int(most) - int(least) < MOST_PLACES:
            low = least.astype(np.int64)
            return low, values.astype(np.int64) - low
    return np.int64(0), None


def _codes_of_column(
    store: StateStore,
    name: str,
    divided: _Divided,
    place: Callable[[npt.NDArray[Any]], _Codes],
) -> dict[str, _Codes]:
    """Return the codes of a column's values; pieces of many distinct ones are read again."""

    def codes_of(part: Part, first: int, stop: int) -> _Codes:
        if (part.directory, first) not in divided:
            return place(held_column(part, name).read(first, stop))
        known, places = divided.pop((part.directory, first))
        codes: _Codes = np.append(place(known), np.int16(-1))[places]
        return codes

    return _codes(store, codes_of)


def _codes(store: StateStore, codes_of: Callable[[Part, int, int], _Codes]) -> dict[str, _Codes]:
    """Return the codes of all parts, -1 for samples that are not shown."""
    codes = {part.directory: np.full(part.samples, -1, np.int16) for part in store.parts}
    for part, first, stop in sample_spans(store.parts, PIECE_SAMPLES):
        found = codes_of(part, first, stop)
        kept = store.view.samples.kept(part.directory, first, stop - first)
        codes[part.directory][first:stop] = found if kept is None else np.where(kept, found, -1)
    return codes


def _ungrouped(store: StateStore, codes: Mapping[str, _Codes]) -> int:
    return store.samples - sum(int((own >= 0).sum()) for own in codes.values())


def _check_number(groups: int, store: StateStore, name: str, advice: str) -> None:
    if groups > MOST_GROUPS:
        raise AnalysisError(
            f"{store.path}: {counted(groups, 'group')} by {name}; expected {MOST_GROUPS:,} at "
            f"most{advice}"
        )
