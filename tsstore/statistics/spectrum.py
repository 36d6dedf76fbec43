"""The spectrum: how many distinct states were seen in k rows of q samples.

It adds up over disjoint sets of states, and every number that does not ask *which* states were
seen follows from it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

IntArray = npt.NDArray[np.int64]

COLUMNS = ("multiplicity", "incidence", "states")

INTEGER_BITS = 63
MAX_ROWS = 2**INTEGER_BITS - 1
"""The most rows that a spectrum can hold; no sum over its entries overflows an int64."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Arrays by name, which become read-only; `states` is one of them, a number an entry."""

    def __post_init__(self) -> None:
        for column in self.columns().values():
            column.setflags(write=False)

    def columns(self) -> dict[str, IntArray]:
        """Return all arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __len__(self) -> int:
        return len(self.columns()["states"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        pairs = zip(self.columns().values(), other.columns().values(), strict=True)
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)

    # Arrays do not hash, and a key made of their content would cost a pass over them.
    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Columns):
    """Number of distinct states with each multiplicity and incidence.

    Make one with `from_arrays`, `from_counts`, `from_dict` or `empty`; these check what they
    are given, the constructor does not.

    Attributes
    ----------
    multiplicity
        int64 of shape (entries,): in how many rows each of these states was seen.
    incidence
        int64 of shape (entries,): in how many samples each was seen, from 1 to the multiplicity.
    states
        int64 of shape (entries,): how many distinct states have this multiplicity and incidence.
        Entries are sorted, and no pair of the others occurs twice. Arrays are read-only.
    """

    multiplicity: IntArray
    incidence: IntArray
    states: IntArray

    @classmethod
    def from_arrays(
        cls, multiplicity: npt.ArrayLike, incidence: npt.ArrayLike, states: npt.ArrayLike
    ) -> Self:
        """Make a spectrum from entries in any order; equal (k, q) are added up.

        Parameters
        ----------
        multiplicity, incidence, states
            Whole numbers, one of each an entry; 1 <= incidence <= multiplicity, states >= 1.

        Raises
        ------
        ValueError
            If the three do not have the same length, a number is out of range, or the rows
            add up to 2**63 or more.
        """
        k = _positive("multiplicity", multiplicity)
        q = _positive("incidence", incidence)
        f = _positive("states", states)
        if not k.size == q.size == f.size:
            raise ValueError(
                "multiplicity, incidence and states must have one number an entry each: "
                f"found {k.size}, {q.size} and {f.size} numbers"
            )
        _check_incidence(k, q)
        if (rows := exact_total(k, f)) > MAX_ROWS:
            raise ValueError(f"a spectrum holds at most {MAX_ROWS} rows: found {rows}")
        return cls(*sum_by_keys(f, k, q))

    @classmethod
    def from_counts(
        cls, multiplicity_per_state: npt.ArrayLike, incidence_per_state: npt.ArrayLike | None = None
    ) -> Self:
        """Make a spectrum from one multiplicity, and one incidence, for each distinct state.

        Parameters
        ----------
        multiplicity_per_state
            Whole numbers >= 1 of shape (distinct states,).
        incidence_per_state
            Likewise; None where every sample has one position, so that incidence is multiplicity.

        Raises
        ------
        ValueError
            As `from_arrays`.
        """
        k = _positive("multiplicity", multiplicity_per_state)
        if incidence_per_state is None:
            levels, states = np.unique(k, return_counts=True)
            return cls.from_arrays(levels, levels, states)
        return cls.from_arrays(k, incidence_per_state, np.ones_like(k))

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[int]]) -> Self:
        """Make a spectrum from what `to_dict` gave; ValueError if something of it is missing."""
        if missing := [name for name in COLUMNS if name not in data]:
            needed, missed = ", ".join(COLUMNS), ", ".join(missing)
            raise ValueError(f"a spectrum needs {needed}: {missed} not found")
        return cls.from_arrays(*(data[name] for name in COLUMNS))

    @classmethod
    def empty(cls) -> Self:
        """Make the spectrum of no rows."""
        return cls.from_arrays([], [], [])

    @cached_property
    def rows(self) -> int:
        """Number of rows, repeats included."""
        return int(self.multiplicity @ self.states)

    @cached_property
    def distinct(self) -> int:
        """Number of distinct states."""
        return int(self.states.sum())

    @cached_property
    def rows_in_single_samples(self) -> int:
        """Number of rows whose state was seen in one sample only."""
        single = self.incidence == 1
        return int(self.multiplicity[single] @ self.states[single])

    def multiplicities(self) -> tuple[IntArray, IntArray]:
        """Return the multiplicities k, ascending, and how many distinct states have each."""
        return self._by_multiplicity

    def incidences(self) -> tuple[IntArray, IntArray]:
        """Return the incidences q, ascending, and how many distinct states have each."""
        return self._by_incidence

    def to_dict(self) -> dict[str, list[int]]:
        """Return the three arrays as lists by name, ready for JSON."""
        return {name: array.tolist() for name, array in self.columns().items()}

    def to_frame(self) -> pd.DataFrame:
        """Return a table with columns multiplicity, incidence and states, one row an entry."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    # Nearly every number asks for one of these, and sorting a million entries takes a while.
    @cached_property
    def _by_multiplicity(self) -> tuple[IntArray, IntArray]:
        return _added_up(self.multiplicity, self.states)

    @cached_property
    def _by_incidence(self) -> tuple[IntArray, IntArray]:
        return _added_up(self.incidence, self.states)

    def __repr__(self) -> str:
        return f"Spectrum({self.rows} rows, {self.distinct} distinct states, {len(self)} entries)"


def merge(spectra: Iterable[Spectrum]) -> Spectrum:
    """Add up spectra of disjoint sets of states; the empty one if there are none.

    Nothing can check that no state was counted in two of them: a spectrum no longer knows which
    states it counted. ValueError if the rows add up to 2**63 or more.
    """
    parts = [Spectrum.empty(), *spectra]
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS)
    return Spectrum.from_arrays(*columns)


def exact_total(*factors: IntArray) -> int:
    """Return the sum over entries of the product of positive int64 factors, (entries,), exactly."""
    estimate = float(functools.reduce(np.multiply, [f.astype(np.float64) for f in factors]).sum())
    if estimate < 2.0**62:
        return int(functools.reduce(np.multiply, factors).sum())
    entries = zip(*(factor.tolist() for factor in factors), strict=True)
    return sum(math.prod(entry) for entry in entries)


def sum_by_keys(states: IntArray, *keys: IntArray, runs: bool = False) -> tuple[IntArray, ...]:
    """Return keys in order, the first one leading, each once, and the sums of their states.

    Where keys come in sorted `runs`, it takes little more than one pass over them.
    """
    if not states.size:
        return (*keys, states)
    order = sorting(*keys, runs=runs)
    keys = tuple(key[order] for key in keys)
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = np.any([np.diff(key) != 0 for key in keys], axis=0)
    starts = np.flatnonzero(is_new)
    sums = np.add.reduceat(states[order], starts)
    return (*(key[starts] for key in keys), sums)


def sorting(*keys: IntArray, runs: bool = False) -> IntArray:
    """Return the order by the keys, none of which is negative, the first one leading.

    Keys that fit into one integer together are sorted as such, which is several times as fast.
    """
    bits = [int(key.max(initial=0)).bit_length() for key in keys]
    if sum(bits) > INTEGER_BITS:
        return np.lexsort(keys[::-1])
    packed = np.zeros(len(keys[0]), np.int64)
    for key, width in zip(keys, bits, strict=True):
        packed = (packed << width) | key
    return np.argsort(packed, kind="stable" if runs else "quicksort")


def _added_up(key: IntArray, states: IntArray) -> tuple[IntArray, IntArray]:
    """Return the values of a key, ascending, and the sums of their states; read-only."""
    values, sums = sum_by_keys(states, key)
    values.setflags(write=False)
    sums.setflags(write=False)
    return values, sums


def _positive(name: str, values: npt.ArrayLike) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional: found shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers: found dtype {array.dtype}")
    if array.min() < 1 or array.max() > MAX_ROWS:
        raise ValueError(
            f"{name} must be from 1 to {MAX_ROWS}: found {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def _check_incidence(k: IntArray, q: IntArray) -> None:
    wrong = np.flatnonzero(q > k)
    if wrong.size:
        first = wrong[0]
        raise ValueError(
            f"a state seen in {k[first]} rows cannot have been seen in {q[first]} samples: "
            "incidence must not exceed multiplicity"
        )
