"""Distinct rows by sorting, in memory: for those who want the states themselves, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sort_rows(rows: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort rows, and say where each distinct one begins.

    Parameters
    ----------
    rows
        uint8 (n, row_bytes).

    Returns
    -------
    edges
        int64 (distinct + 1,): the i-th distinct row is ``rows[order[edges[i]]]``, and there are
        ``edges[i + 1] - edges[i]`` of it.
    order
        int64 (n,): ``rows[order]`` is in byte-lexicographic order; equal rows keep theirs.
    """
    keys = _sort_keys(rows)
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    is_new = np.ones(len(rows), dtype=np.bool_)
    is_new[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    edges = np.append(np.flatnonzero(is_new), len(rows))
    return edges, order


def distinct_rows(rows: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the distinct rows in byte-lexicographic order, and how often each occurs.

    Parameters
    ----------
    rows
        uint8 (n, row_bytes).

    Returns
    -------
    distinct
        uint8 (distinct, row_bytes).
    counts
        int64 (distinct,).
    """
    edges, order = sort_rows(rows)
    return rows[order[edges[:-1]]], np.diff(edges)


def _sort_keys(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return rows as big-endian words, which sort as the bytes do: uint64 (n, words)."""
    words = -(-rows.shape[1] // 8)
    padded = np.zeros((len(rows), 8 * words), dtype=np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded.view(">u8").astype(np.uint64)
