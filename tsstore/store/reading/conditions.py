"""Choosing samples by their columns, or by a boolean for each."""

from __future__ import annotations

import numbers
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import StoreError
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.format.arrays import ArraySpec
from tsstore.store.reading.part import Part, readers, sample_spans
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.threads import in_threads_if_slow
from tsstore.text import counted, printable

if TYPE_CHECKING:
    import pandas as pd

PIECE_SAMPLES = 1 << 16
"""Values of a column that are read at a time."""
MOST_NAMED = 12
"""Values of a column that an error names."""
_EXACT = 1 << 53
"""Integers up to here are numbers of their own as float64."""
INDEX = ("step", "part", "sample")
"""Names of what a table of samples is indexed by: no column of the user's is there."""

_Mask = npt.NDArray[np.bool_]


def held_column(part: Part, name: str, why: str = "") -> CommittedArray:
    """Return a part's sample column; else StoreError, and `why` it should have one."""
    if name not in part.columns:
        raise StoreError(
            f"{part.files.location}/{part.directory} has no sample column {name!r:.80}; "
            f"it has {', '.join(map(printable, part.columns)) or 'none'}{why}"
        )
    return part.columns[name]


def with_value(
    parts: Sequence[Part], name: str, value: object, before: SampleFilter
) -> SampleFilter:
    """Leave out samples of another value of a column too; StoreError if it never occurs.

    Nothing is compared that is of another kind: text is no number, and a boolean is none.
    """

    def is_kept(part: Part, first: int, stop: int) -> _Mask:
        column = held_column(part, name)
        _check_kind(part, name, column.spec, value)
        return np.asarray(column.read(first, stop) == value, np.bool_)

    found = _leave_out(parts, is_kept, before)
    if _kept_samples(parts, found):
        return found
    raise StoreError(
        f"{_where(parts)}: no sample has {printable(name)} = {value!r:.80}; "
        f"{_known(parts, name, before)}"
    )


def with_mask(parts: Sequence[Part], mask: object, before: SampleFilter) -> SampleFilter:
    """Leave out samples that a boolean for each says not to keep; StoreError if it cannot tell.

    A pandas Series is aligned by its index, which is that of `samples_frame`; anything else is an
    array of one boolean for each sample that is there, in their order.
    """
    is_series = hasattr(mask, "index") and hasattr(mask, "to_numpy")
    by_part = (_aligned if is_series else _in_order)(parts, mask, before)
    return _leave_out(parts, lambda part, first, stop: by_part[part.directory][first:stop], before)


def parse_value(parts: Sequence[Part], name: str, text: str) -> Any:
    """Return what a text means as a value of a column; StoreError if nothing of its type."""
    held = [part for part in parts if part.samples]
    specs = [held_column(part, name).spec for part in held]
    if not specs or specs[0].is_text:
        return text
    kind = specs[0].numpy_dtype.kind
    try:
        if kind == "b":
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
        return float(text) if kind == "f" else int(text)
    except (ValueError, KeyError):
        raise StoreError(
            f"{_where(parts)}: column {printable(name)} is {specs[0].dtype}; found {text!r:.80}, "
            f"expected {'true or false' if kind == 'b' else 'a number'}"
        ) from None


def kept_pieces(
    parts: Sequence[Part], name: str, sample_filter: SampleFilter
) -> Iterator[npt.NDArray[Any]]:
    """Yield a column's values of the samples that stay, some at a time."""

    def kept(span: tuple[Part, int, int]) -> npt.NDArray[Any]:
        part, first, stop = span
        values = held_column(part, name).read(first, stop)
        return sample_filter.select(values, part.directory, first)

    return in_threads_if_slow(kept, sample_spans(parts, PIECE_SAMPLES), readers(parts))


def join_pieces(pieces: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return pieces of one column as one array that holds each value exactly.

    Where one part recorded signed integers, and another one unsigned ones or floats, NumPy would
    make floats of all, and of large integers others than they were. Where no type of numbers holds
    all, they are Python's.
    """
    joined = np.concatenate(pieces)
    whole = [piece for piece in pieces if piece.dtype.kind in "iu" and len(piece)]
    if joined.dtype.kind != "f" or not whole:
        return joined
    low, high = min(int(p.min()) for p in whole), max(int(p.max()) for p in whole)
    if any(piece.dtype.kind == "f" for piece in pieces):
        wanted = np.float64 if low >= -_EXACT and high <= _EXACT else object
    else:
        fitting = (own for own in (np.int64, np.uint64) if low >= np.iinfo(own).min)
        wanted = next((own for own in fitting if high <= np.iinfo(own).max), object)
    return np.concatenate([piece.astype(wanted) for piece in pieces])


def sample_index(parts: Sequence[Part], sample_filter: SampleFilter) -> pd.MultiIndex:
    """Return what tells each sample that stays: its step, its part, its place in the part.

    It stays the same whatever is committed later, and whatever else is left out.
    """
    import pandas as pd

    # No step has no place among levels.
    steps = list(dict.fromkeys(part.step for part in parts if part.step is not None))
    codes: list[list[npt.NDArray[np.int64]]] = [[np.empty(0, np.int64)] * 3]
    for number, part in enumerate(parts):
        own = sample_filter.indices(part)
        step = -1 if part.step is None else steps.index(part.step)
        codes.append([np.full(len(own), step), np.full(len(own), number), own])
    most = max((part.samples for part in parts), default=0)
    levels: list[Any] = [
        pd.Index(steps, dtype=None if steps else object),
        pd.Index([part.directory for part in parts], dtype=object),
        pd.RangeIndex(most),
    ]
    joined: list[Any] = [np.concatenate(column) for column in zip(*codes, strict=True)]
    return pd.MultiIndex(levels=levels, codes=joined, names=INDEX)


def _leave_out(
    parts: Sequence[Part], is_kept: Callable[[Part, int, int], _Mask], before: SampleFilter
) -> SampleFilter:
    left_out = defaultdict(list)
    for part, first, stop in sample_spans(parts, PIECE_SAMPLES):
        own = first + np.flatnonzero(~is_kept(part, first, stop))
        if len(own):
            left_out[part.directory].append(own)
    joined = {directory: np.concatenate(own) for directory, own in left_out.items()}
    return before.joined(SampleFilter(joined))


def _check_kind(part: Part, name: str, spec: ArraySpec, value: object) -> None:
    kind = "O" if spec.is_text else spec.numpy_dtype.kind
    is_bool = isinstance(value, bool | np.bool_)
    fits = {
        "O": isinstance(value, str),
        "b": is_bool,
        "f": isinstance(value, numbers.Real) and not is_bool,
    }.get(kind, isinstance(value, numbers.Integral) and not is_bool)
    if not fits:
        raise StoreError(
            f"{part.files.location}/{part.directory}: column {name!r:.80} is {spec.dtype}; found "
            f"{value!r:.80}, which it never is; expected a value of that type"
        )


def _known(parts: Sequence[Part], name: str, before: SampleFilter) -> str:
    """Say which values a column has."""
    known: set[Any] = set()
    for values in kept_pieces(parts, name, before):
        known.update(np.unique(values).tolist())
        if len(known) > 100 * MOST_NAMED:
            return f"it has more than {len(known) - 1:,} others"
    shown = ", ".join(f"{value!r:.40}" for value in sorted(known)[:MOST_NAMED])
    if len(known) <= MOST_NAMED:
        return f"it has {shown or 'none'}"
    return f"it has {len(known):,} others, such as {shown}"


def _in_order(parts: Sequence[Part], mask: Any, before: SampleFilter) -> dict[str, _Mask]:
    values = np.asarray(mask)
    samples = _kept_samples(parts, before)
    if values.dtype != np.bool_ or values.shape != (samples,):
        raise StoreError(
            f"{_where(parts)}: found {values.dtype} of shape {values.shape}; expected a boolean "
            f"for each of the {counted(samples, 'sample')}, in their order"
        )
    found, place = {}, 0
    for part in parts:
        kept = before.mask(part.directory, 0, part.samples)
        own = int(kept.sum())
        kept[kept] = values[place : place + own]
        found[part.directory] = kept
        place += own
    return found


def _aligned(parts: Sequence[Part], mask: Any, before: SampleFilter) -> dict[str, _Mask]:
    values, index = mask.to_numpy(), mask.index
    if tuple(index.names) != INDEX or values.dtype != np.bool_ or values.ndim != 1:
        kind = type(mask).__name__
        raise StoreError(
            f"{_where(parts)}: found a {kind} of {values.dtype} indexed by {list(index.names)}; "
            f"expected a Series of booleans with the index of samples_frame(), {list(INDEX)}; an "
            "array of one boolean a sample goes by their order: pass series.to_numpy()"
        )
    directory, sample = (index.get_level_values(level) for level in INDEX[1:])
    places, found = np.asarray(sample), {}
    for part in parts:
        own = np.asarray(directory == part.directory) & (places < part.samples)
        said = np.full(part.samples, -1, np.int8)
        said[places[own]] = values[own]
        untold = before.select(said, part.directory, 0) < 0
        if untold.any() or len(np.unique(places[own])) != own.sum():
            raise StoreError(
                f"{_where(parts)}: in the Series, {counted(int(untold.sum()), 'sample')} of "
                f"{part.directory} are missing, or some come twice; expected each sample once, "
                "indexed as samples_frame() of this view, or of one that holds it"
            )
        found[part.directory] = said == 1
    return found


def _kept_samples(parts: Sequence[Part], sample_filter: SampleFilter) -> int:
    left_out = sample_filter.of_parts(part.directory for part in parts)
    return sum(part.samples for part in parts) - left_out.samples


def _where(parts: Sequence[Part]) -> str:
    return parts[0].files.location if parts else "a run without parts"
