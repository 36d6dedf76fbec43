"""Ids of samples: a sample column of integers or text, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import StoreError
from tsstore.store.reading.part import Part
from tsstore.text import printable

ID = "id"
"""The column that holds ids, unless another is named."""

PIECE_SAMPLES = 1 << 16
"""Ids that are read at a time: whole chunks."""


def id_dtype(parts: Iterable[Part], name: str = ID) -> np.dtype[Any]:
    """Return the one dtype that holds the ids of all parts: int64, uint64, or object for text.

    Parameters
    ----------
    parts
        Those without samples do not count.
    name
        Of the column.

    Raises
    ------
    StoreError
        If a part has samples and no such column, or columns cannot be compared with each other.
    """
    found = {_dtype(part, name): part for part in parts if part.samples}
    if len(found) > 1:
        sides = ", ".join(f"{dtype} in {part.directory}" for dtype, part in found.items())
        raise StoreError(
            f"column {name!r} cannot be compared from part to part: it is {sides}; expected one "
            "type, int64, uint64 or text"
        )
    return next(iter(found), np.dtype(np.int64))


def id_pieces(part: Part, name: str = ID) -> Iterator[npt.NDArray[Any]]:
    """Yield the ids of a part's samples in their order, some at a time, as :func:`id_dtype` says.

    Raises
    ------
    StoreError
        If the part has samples and no such column, or it is neither of integers nor of text.
    DamageError
        If a chunk is not what was committed.
    """
    if part.samples:
        dtype, column = _dtype(part, name), part.columns[name]
        for start in range(0, part.samples, PIECE_SAMPLES):
            yield column.read(start, min(start + PIECE_SAMPLES, part.samples)).astype(dtype)


def missing_ids(parts: Iterable[Part], ids: npt.ArrayLike, name: str = ID) -> npt.NDArray[Any]:
    """Return those ids that no part holds, in the order given.

    Parameters
    ----------
    parts
        Those without samples hold none.
    ids
        Integers or text, one-dimensional.
    name
        Of the column.

    Raises
    ------
    StoreError
        If ids are neither integers nor text, or a part holds samples without a column of them, or
        ids of another kind.
    DamageError
        If ids are not what was committed.
    """
    given = np.asarray(ids)
    if not given.size:
        return given
    holding = [part for part in parts if part.samples]
    # Also where nothing is held yet: a run whose ids are of no use could not be resumed.
    _check_given(given, id_dtype(holding, name) if holding else None, name)
    if not holding:
        return given
    comparable = given if given.dtype.kind in "iu" else np.array(given.tolist(), dtype=object)
    known, places = np.unique(comparable, return_inverse=True)
    held = np.zeros(len(known), dtype=bool)
    for part in holding:
        for piece in id_pieces(part, name):
            _mark(held, known, piece)
    return given[~held[places.reshape(-1)]]


def _check_given(ids: npt.NDArray[Any], stored: np.dtype[Any] | None, name: str) -> None:
    """Raise StoreError unless ids are like those that are stored, or could be where none are."""
    text = ids.dtype.kind in "UTO" and all(isinstance(value, str) for value in ids.flat)
    kind = "text" if text else "integers" if ids.dtype.kind in "iu" else "neither"
    wanted = "text or integers"
    if stored is not None:
        wanted = "text" if stored.kind == "O" else "integers"
    if ids.ndim != 1 or kind not in wanted:
        raise StoreError(
            f"ids are {ids.dtype} of shape {ids.shape}; expected {wanted} along one axis, as in "
            f"column {name!r}"
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
    where = f"{part.files.location}/{part.directory}"
    if name not in part.columns:
        held = ", ".join(map(printable, part.columns)) or "none"
        raise StoreError(
            f"{where} has no sample column {name!r}; it has {held}: samples can be told from each "
            "other only where each batch records their ids"
        )
    spec = part.columns[name].spec
    if spec.is_text:
        return np.dtype(object)
    if spec.numpy_dtype.kind not in "iu":
        raise StoreError(
            f"{where}: column {name!r} is {spec.dtype}; expected ids, integers or text"
        )
    return np.dtype(np.uint64 if spec.numpy_dtype == np.uint64 else np.int64)
