"""Leaving groups of samples out: what each changes, and how much a number scatters.

A state with multiplicity k and incidence q in all samples, k_g and q_g of them in group g, changes
the spectrum when the group is left out: one state less at (k, q), and one more at
(k - k_g, q - q_g) if the state occurs elsewhere. So one count of all samples that keeps the groups
of each state apart gives the spectrum without each group. Like spectra, changes add up over
disjoint sets of states.

*The delete-a-group jackknife.* The samples are dealt at random into G groups, and the number of
interest is computed G times, each time without one group (Quenouille 1956; Shao and Tu 1995,
section 2.3). With T_g the number without group g and T their mean,

    standard error**2 = (G - 1) / G  sum over g of (T_g - T)**2.

Whole samples are left out, so that rows of one sample may repeat each other as they like. A group
without samples is as if it were not there; one that has more samples than others counts for more,
which makes the standard error a little too large.

*Clusters.* Where samples come in clusters, such as images of one patient, groups hold whole
clusters, and tell how many rows are in states that only one cluster has shown: a state of q samples
that are independent of each other lies in one of G groups with probability G**(1 - q); what lies in
one group beyond that is the clusters' own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tsstore.statistics.special import FloatArray, check_level
from tsstore.statistics.spectrum import COLUMNS, Columns, IntArray, Spectrum, sum_by_keys

FEWEST_GROUPS = 2
"""One group that holds all samples tells nothing of how much they scatter."""

_NUMBERS = ("samples", "rows", "equal_pairs_within_samples", "pairs_within_samples")
_ENTRIES = ("group", "multiplicity", "incidence", "states")
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class SpectrumDelta(Columns):
    """What leaving each group of samples out changes in a spectrum.

    Make one with `from_arrays` or `from_groups`; the constructor checks nothing.

    Attributes
    ----------
    samples, rows, equal_pairs_within_samples, pairs_within_samples
        int64 (groups,): samples and rows of each group; of its pairs of rows of one sample, those
        that are equal, and all.
    group
        int64 (entries,): the group that is left out, ascending.
    multiplicity, incidence
        int64 (entries,): the entry of the spectrum that changes, ascending in each group.
    states
        int64 (entries,): added to the entry's distinct states; not 0, often negative.
    """

    samples: IntArray
    rows: IntArray
    equal_pairs_within_samples: IntArray
    pairs_within_samples: IntArray
    group: IntArray
    multiplicity: IntArray
    incidence: IntArray
    states: IntArray

    @classmethod
    def from_arrays(
        cls,
        numbers: Iterable[npt.ArrayLike],
        group: npt.ArrayLike = _NONE,
        multiplicity: npt.ArrayLike = _NONE,
        incidence: npt.ArrayLike = _NONE,
        states: npt.ArrayLike = _NONE,
    ) -> Self:
        """Make changes from entries in any order; equal ones are added up.

        Numbers are samples, rows, equal pairs and pairs within samples, (groups,) each. ValueError
        if lengths differ, or a group is none of those that the numbers are of.
        """
        totals = [_as_integers(number) for number in numbers]
        entries = [_as_integers(column) for column in (group, multiplicity, incidence, states)]
        _check_lengths(_NUMBERS, totals)
        _check_lengths(_ENTRIES, entries)
        group, k, q, states = entries
        groups = totals[0].size
        if group.size and not 0 <= group.min() <= group.max() < groups:
            raise ValueError(
                f"entries are of groups {group.min()} to {group.max()}; expected 0 to {groups - 1}"
            )
        return cls(*totals, *_changed(*sum_by_keys(states, group, k, q)))

    @classmethod
    def from_groups(
        cls,
        numbers: Iterable[npt.ArrayLike],
        ends: IntArray,
        multiplicity: npt.NDArray[np.signedinteger[Any]],
        incidence: npt.NDArray[np.signedinteger[Any]],
        states: npt.NDArray[np.signedinteger[Any]],
    ) -> Self:
        """Make changes from entries in order, each once and none of them 0: in little memory.

        Numbers are as `from_arrays` takes them; ends, (groups,), tell where the entries of each
        group end, in which they ascend by multiplicity, then by incidence.
        """
        totals = [_as_integers(number) for number in numbers]
        _check_lengths(_NUMBERS, totals)
        group = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        entries = group, multiplicity, incidence, states
        return cls(*totals, *(np.asarray(column, np.int64) for column in entries))

    @property
    def numbers(self) -> tuple[IntArray, ...]:
        """Samples, rows, equal pairs and pairs within samples, as `from_arrays` takes them."""
        return tuple(getattr(self, name) for name in _NUMBERS)

    @property
    def groups(self) -> int:
        """Number of groups, those without samples included."""
        return int(self.samples.size)

    @property
    def rows_left(self) -> IntArray:
        """Rows of each group that its entries do not take away, int64 (groups,): 0 if all do."""
        bounds = np.searchsorted(self.group, np.arange(self.groups + 1)).tolist()
        entries = (slice(*of_group) for of_group in pairwise(bounds))
        gone = [self.states[own] @ self.multiplicity[own] for own in entries]
        return self.rows + np.array(gone, np.int64)

    def by_group(self, amounts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the sum of each group's amounts, one an entry, float64 (groups,)."""
        sums: npt.NDArray[Any] = np.bincount(self.group, amounts, minlength=self.groups)
        return sums

    def entries_of(self, group: int) -> slice:
        """Return which entries are those of a group; ValueError if there is none such."""
        if not 0 <= group < self.groups:
            raise ValueError(f"there is no group {group}; there are {self.groups}, from 0 on")
        start, stop = np.searchsorted(self.group, [group, group + 1]).tolist()
        return slice(start, stop)

    def without(self, spectrum: Spectrum, group: int) -> Spectrum:
        """Return the spectrum of all samples but those of a group.

        ValueError if there is no such group, or the spectrum, which is to be that of all samples,
        has fewer states somewhere than the group takes away.
        """
        part = self.entries_of(group)
        k, q, states = (
            np.concatenate([getattr(spectrum, name), getattr(self, name)[part]]) for name in COLUMNS
        )
        k, q, states = _changed(*sum_by_keys(states, k, q, runs=True))
        if states.size and states.min() < 0:
            raise ValueError(
                f"group {group} takes away states that the spectrum does not have; pass the "
                "spectrum that was counted together with the groups"
            )
        return Spectrum(k, q, states)

    def __repr__(self) -> str:
        samples = self.samples.sum()
        return f"SpectrumDelta({self.groups} groups, {samples} samples, {len(self)} entries)"


def merge_deltas(parts: Iterable[SpectrumDelta]) -> SpectrumDelta:
    """Add up the changes of disjoint sets of states, and the numbers of each group.

    Nothing can check that no state or sample was counted in two parts. ValueError if there are
    none, or their numbers of groups differ.
    """
    parts = list(parts)
    groups = {part.groups for part in parts}
    if len(groups) != 1:
        raise ValueError(
            f"{len(parts)} parts with {sorted(groups)} groups; expected at least one part and one "
            "number of groups"
        )
    return SpectrumDelta.from_arrays(
        [np.sum([getattr(part, name) for part in parts], axis=0) for name in _NUMBERS],
        *(np.concatenate([getattr(part, name) for part in parts]) for name in _ENTRIES),
    )


def _as_integers(values: npt.ArrayLike) -> IntArray:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"groups are counted in whole numbers: found dtype {array.dtype}")
    # A copy, because what is made of it becomes read-only.
    return array.astype(np.int64)


def _check_lengths(names: Iterable[str], columns: list[IntArray]) -> None:
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        shapes = [column.shape for column in columns]
        raise ValueError(f"{', '.join(names)} must be of one length each: found shapes {shapes}")


def _changed(*columns: IntArray) -> tuple[IntArray, ...]:
    """Return the columns of entries whose last one, the states, is not 0."""
    kept = np.flatnonzero(columns[-1])
    return tuple(column[kept] for column in columns)


def standard_error(values: npt.ArrayLike) -> float:
    """Return the standard error of an estimate, from those without each group of samples.

    One value for each group that holds samples; ValueError if there are fewer than two.
    """
    without = np.asarray(values, dtype=np.float64)
    if without.size < FEWEST_GROUPS:
        raise ValueError(f"a jackknife needs at least two groups: found {without.size}")
    squares = math.fsum((without - without.mean()) ** 2)
    return math.sqrt(squares * (without.size - 1) / without.size)


def shares_seen_once(spectrum: Spectrum, changes: SpectrumDelta) -> FloatArray:
    """Return the share of incidences in states of one sample, without each group with samples."""
    once = changes.states * (changes.incidence == 1)
    seen_once = int(spectrum.states[spectrum.incidence == 1].sum())
    single = seen_once + changes.by_group(once)
    held = changes.samples > 0
    shares: FloatArray = single[held] / incidences_without(spectrum, changes)[held]
    return shares


def incidences_without(spectrum: Spectrum, changes: SpectrumDelta) -> FloatArray:
    """Return the sum of all states' incidences without each group, float64 (groups,)."""
    changed = changes.by_group(changes.states * changes.incidence)
    return int(spectrum.incidence @ spectrum.states) + changed


def student_quantile(level: float, degrees: float) -> float:
    """Return how many standard errors an interval of a level, from 0 to 1, reaches to each side."""
    from scipy.special import stdtrit

    check_level(level)
    return float(stdtrit(degrees, (1 + level) / 2))


def check_changes(spectrum: Spectrum, samples: int, changes: SpectrumDelta) -> None:
    """Raise ValueError if the changes are not those of the samples that were counted."""
    found = int(changes.samples.sum()), int(changes.rows.sum())
    if found != (samples, spectrum.rows):
        raise ValueError(
            f"the groups hold {found[0]} samples and {found[1]} rows, but {samples} samples and "
            f"{spectrum.rows} rows were counted; pass the changes that were counted with them"
        )


def rows_in_single_clusters(spectrum: Spectrum, changes: SpectrumDelta) -> int:
    """Return how many rows, at least about, are in states seen in one cluster only.

    Those in states of one sample, and in as many more states as lie in one group only, beyond what
    independent samples would do. Which states these are is not known: the ones seen in the fewest
    samples count.
    """
    groups = int(np.count_nonzero(changes.rows))
    several = spectrum.incidence > 1
    incidence, states = spectrum.incidence[several], spectrum.states[several]
    # Without its only group a state is gone; without one of several it is another entry.
    in_one_group = -int(changes.states.sum()) - int(spectrum.states[~several].sum())
    by_chance = float(states @ float(max(groups, 1)) ** (1.0 - incidence))
    own = max(0, round(in_one_group - by_chance))
    order = np.lexsort((spectrum.multiplicity[several], incidence))
    before = np.cumsum(states[order]) - states[order]
    taken = np.clip(own - before, 0, states[order])
    return spectrum.rows_in_single_samples + int(taken @ spectrum.multiplicity[several][order])
