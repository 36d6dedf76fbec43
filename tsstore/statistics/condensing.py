"""Sums over many counts as sums over few: how a spectrum is rarefied at many sizes quickly.

What fewer draws show of a state is a smooth function of its count: a polynomial, whose shape
changes over factors of the count, not over steps. So between a number and its double a polynomial
through some twenty counts gives all others to the last digits, and the sum over all states is a sum
over these counts, with weights that are found once for any such function.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from numpy.polynomial.chebyshev import chebvander

from tsstore.statistics.numerics import FloatArray
from tsstore.statistics.spectrum import IntArray

KEPT_BELOW = 128
"""Counts that stay as they are: of larger ones, polynomials of factors of two are all alike."""

NODES = 19
"""Counts that stand for all between a number and its double: errors are about 5.8**-19."""


def nodes_between(least: int, most: int, number: int) -> IntArray:
    """Return whole numbers near the extrema of a Chebyshev polynomial, each once, ascending."""
    angles = np.arange(number) * (np.pi / (number - 1))
    return np.unique(np.rint(least + (most - least) * (1 - np.cos(angles)) / 2).astype(np.int64))


def project(nodes: IntArray, counts: IntArray, amounts: npt.ArrayLike) -> FloatArray:
    """Return the amounts of nodes that give the same sums of polynomials as those of counts.

    Parameters
    ----------
    nodes
        int64 of shape (nodes,), ascending; polynomials of a lower degree than their number.
    counts
        int64 of shape (entries,), between the first and the last of them.
    amounts
        Of shape (entries, ...).

    Returns
    -------
    float64 of shape (nodes, ...)
    """
    middle, half = (nodes[0] + nodes[-1]) / 2, max(nodes[-1] - nodes[0], 1) / 2
    known, there = (chebvander((x - middle) / half, len(nodes) - 1) for x in (nodes, counts))
    solved: FloatArray = np.linalg.solve(known.T, there.T @ np.asarray(amounts, np.float64))
    return solved


def condense(counts: IntArray, amounts: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return fewer counts, and amounts of them that give the same sums of smooth functions.

    Parameters
    ----------
    counts
        int64 of shape (entries,), ascending, at least 1.
    amounts
        How many there are of each, of shape (entries,).

    Returns
    -------
    nodes, amounts
        int64 and float64 of shape (nodes,). Up to `KEPT_BELOW`, and where there are but a few,
        counts and amounts are those that were given.
    """
    amounts = np.asarray(amounts, dtype=np.float64)
    parts = []
    for first, last in dyadic_ranges(int(counts.max(initial=1))):
        here = slice(*np.searchsorted(counts, [first, last + 1]))
        if last < KEPT_BELOW or len(counts[here]) <= NODES:
            parts.append((counts[here], amounts[here]))
        else:
            nodes = nodes_between(int(counts[here][0]), int(counts[here][-1]), NODES)
            parts.append((nodes, project(nodes, counts[here], amounts[here])))
    return np.concatenate([nodes for nodes, _ in parts]), np.concatenate([a for _, a in parts])


def dyadic_ranges(largest: int) -> list[tuple[int, int]]:
    """Return the first and last of the counts that are kept, and of each range up to a double."""
    limits = [1, *(KEPT_BELOW << j for j in range(largest.bit_length()))]
    limits = [*(limit for limit in limits if limit <= largest), largest + 1]
    return [(first, stop - 1) for first, stop in itertools.pairwise(limits)]


@dataclass(frozen=True, eq=False)
class Nodes:
    """Counts that stand for any from 1 up to the largest.

    Attributes
    ----------
    counts
        int64 of shape (nodes,), ascending.
    """

    counts: IntArray
    _ranges: tuple[IntArray, ...]

    @classmethod
    def up_to(cls, largest: int) -> Self:
        """Return those for counts up to so large a one, at least 1."""
        ranges = tuple(
            np.arange(first, last + 1) if last < KEPT_BELOW else nodes_between(first, last, NODES)
            for first, last in dyadic_ranges(largest)
        )
        return cls(np.concatenate(ranges), ranges)

    def amounts(self, counts: IntArray, amounts: IntArray) -> FloatArray:
        """Return the amounts of the nodes, float64 (nodes,), for counts in any order."""
        starts = np.array([nodes[0] for nodes in self._ranges])
        place = (np.searchsorted(starts, counts, side="right") - 1).astype(np.int8)
        order = np.argsort(place, kind="stable")
        ends = np.searchsorted(place[order], np.arange(len(starts)), side="right")
        parts = np.split(order, ends[:-1])
        return np.concatenate(
            [
                np.bincount(counts[part] - 1, amounts[part], len(nodes))
                if nodes[-1] < KEPT_BELOW
                else project(nodes, counts[part], amounts[part])
                for nodes, part in zip(self._ranges, parts, strict=True)
            ]
        )
