"""What fewer draws would have shown: distinct states, entropy and coverage; and how these scatter.

Numbers of states and entropies grow with the draws, so layers, groups and runs are compared at the
same number of them. Rarefaction is the mean over all ways to keep m of the n draws, without bias
for what m draws show on average (Hurlbert 1971, Ecology 52).

*Fewer counts.* What fewer draws show of a state is a smooth function of its count: a polynomial,
whose shape changes over factors of the count, not over steps. So between a number and its double a
polynomial through some twenty counts gives all others to the last digits, and the sum over all
states is a sum over these counts, with weights that are found once for any such function, so that
further sizes cost little.

*Scatter.* Without a group of samples n' are left, m of which show so many states and such an
entropy; how these differ from group to group gives the standard error (`jackknife`). All spectra
without a group are condensed to the same counts; and what m of n' draws show of each count changes
so smoothly with n' that a few values of n' tell it for all groups.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from numpy.polynomial.chebyshev import chebvander

from tsstore.statistics.estimators import plug_in
from tsstore.statistics.jackknife import (
    FEWEST_GROUPS,
    SpectrumDelta,
    check_changes,
    incidences_without,
    standard_error,
)
from tsstore.statistics.richness import Draws, draws_from_one_to
from tsstore.statistics.special import FloatArray, log_avoidance, log_ratio, taken_marked
from tsstore.statistics.spectrum import IntArray, Spectrum

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

    Nodes ascend, counts, (entries,), lie between the first and the last of them; amounts are of
    shape (entries, ...), and (nodes, ...). Polynomials are of a lower degree than there are nodes.
    """
    middle, half = (nodes[0] + nodes[-1]) / 2, max(nodes[-1] - nodes[0], 1) / 2
    known, at_counts = (chebvander((x - middle) / half, len(nodes) - 1) for x in (nodes, counts))
    solved: FloatArray = np.linalg.solve(known.T, at_counts.T @ np.asarray(amounts, np.float64))
    return solved


def condense(counts: IntArray, amounts: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return fewer counts, and amounts of them that give the same sums of smooth functions.

    Counts ascend from 1 on. Up to `KEPT_BELOW`, and where there are but a few, counts and amounts
    are those that were given.
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
    """Counts, ascending, that stand for any from 1 up to the largest."""

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


ENTRIES_AT_ONCE = 64
"""So many counts are rarefied at once: of similar ones arrays are hardly wider than need be."""


class Rarefaction:
    """The draws of a spectrum, of which fewer can be asked for: samples, or rows if these are None.

    ValueError if the spectrum has no rows, or a state occurs in more samples than there were.
    """

    def __init__(self, spectrum: Spectrum, samples: int | None = None) -> None:
        self.draws = Draws.of(spectrum, samples)
        self._counts, self._states = condense(self.draws.counts, self.draws.states)

    def richness(self, draws: int) -> float:
        """Return how many distinct states so many draws show: the sum of 1 - C(n - j, m) / C(n, m).

        ValueError if there are not so many draws.
        """
        size = draws_from_one_to(self.draws.number, draws)
        return math.fsum(self._states * share_seen(self._counts, size, self.draws.number))

    def entropy(self, draws: int) -> float:
        """Return the plug-in entropy that so many draws give, in bits; raises as `richness`.

        By samples it is that of a state's share of all incidences, which is not the entropy of the
        rows unless each sample has one position: the mean of -sum x/u ln(x/u) over hypergeometric
        counts x, u = m U/n being the mean of their total (Chao et al. 2014, Ecological Monographs
        84, tables 1 and 2).
        """
        observed, kept = self.draws, draws_from_one_to(self.draws.number, draws)
        if kept == observed.number:
            return plug_in(Spectrum.from_arrays(observed.counts, observed.counts, observed.states))
        size = kept * observed.total / observed.number
        each = mean_surprisals(self._counts, kept, observed.number, size)
        return math.fsum(self._states * each) / size / math.log(2)

    def coverage(self, draws: int) -> float | None:
        """Return the coverage to expect of so many draws; None if there was a single one.

        The sum over states of j/U [1 - C(n - j, m) / C(n - 1, m)], without bias (Chao and Jost
        2012, Ecology 93; by samples Chao et al. 2014, Ecological Monographs 84). Raises as
        `richness`.
        """
        observed, kept = self.draws, draws_from_one_to(self.draws.number, draws)
        if observed.number == 1:
            return None
        if kept == observed.number:
            return observed.coverage
        seen = share_seen(self._counts - 1, kept, observed.number - 1)
        return math.fsum(self._states * (self._counts * seen)) / observed.total


def share_seen(counts: IntArray, draws: int, number: int) -> FloatArray:
    """Return the probability that so many of all draws show a state of each count, (entries,)."""
    seen: FloatArray = -np.expm1(log_avoidance(counts, draws, number))
    return seen


def mean_surprisals(counts: IntArray, draws: int, number: int, size: float) -> FloatArray:
    """Return the mean of x ln(size / x), x being how often so many of all draws show a state.

    Counts, (entries,), tell in how many of all draws, whose number is larger, states were seen;
    size is what the x add up to, or anything else above 0. In nats.
    """
    means = [np.empty(0)]
    for first in range(0, len(counts), ENTRIES_AT_ONCE):
        drawn, weights = taken_marked(counts[first : first + ENTRIES_AT_ONCE], draws, number)
        # A state that was not drawn adds nothing, but its logarithm is infinite.
        logs = log_ratio(size, np.maximum(drawn, 1).astype(np.float64))
        means.append((weights * drawn * logs).sum(axis=1))
    return np.concatenate(means)


SIZES_LEFT = (3, 5)
"""Numbers of samples left that stand for those without each group: of groups of much the same size,
and of others."""


class Scatter(NamedTuple):
    """Standard errors of how many distinct states so many samples show, and of their entropy.

    The entropy is that of the states' shares of all incidences, in bits.
    """

    distinct: float
    incidence_entropy: float


def scatter_at(
    spectrum: Spectrum, samples: int, changes: SpectrumDelta, sizes: Sequence[int]
) -> list[Scatter]:
    """Return the standard errors of what fewer samples show, of each size, from 1 to all.

    Of more than are left without the largest group, the error of so many is given. ValueError if
    fewer than two groups hold samples, or the changes are those of other samples.
    """
    check_changes(spectrum, samples, changes)
    held = np.flatnonzero(changes.samples)
    if len(held) < FEWEST_GROUPS:
        raise ValueError(f"a jackknife needs at least two groups: found {len(held)}")
    left = samples - changes.samples[held]
    alike = 10 * left.max() < 11 * left.min()
    nodes = nodes_between(int(left.min()), int(left.max()), SIZES_LEFT[0 if alike else 1])
    to_groups = project(nodes, left, np.eye(len(left)))
    parts = _states_without(spectrum, samples, changes, held)
    incidences = incidences_without(spectrum, changes)[held]
    found = []
    for kept in (min(size, int(left.min())) for size in sizes):
        sums = [part.sums(kept, nodes.tolist(), to_groups) for part in parts]
        seen, nats = np.sum(sums, axis=0)
        size = kept * incidences / left
        bits = (nats / size + np.log(size)) / np.log(2)
        found.append(Scatter(standard_error(seen), standard_error(bits)))
    return found


class _States(NamedTuple):
    """How many states have each incidence without each group; or each number of samples lacking it.

    The incidence of a state that nearly every sample shows changes with the samples left, and in
    how many it is lacking does not.
    """

    numbers: IntArray
    states: FloatArray
    lacking: bool

    @classmethod
    def of(cls, nodes: Nodes, states: FloatArray, lacking: bool) -> Self:
        """Take those nodes that have states."""
        held = states.any(axis=1)
        return cls(nodes.counts[held], states[held], lacking)

    def counts(self, left: int) -> IntArray:
        """Return the incidences of states if so many samples are left."""
        counts = left + 1 - self.numbers if self.lacking else self.numbers
        return np.clip(counts, 1, left)

    def sums(self, kept: int, numbers: list[int], to_groups: FloatArray) -> FloatArray:
        """Return states seen, and their sum of x ln(1 / x), without each group, (2, groups).

        So many samples are kept of each of the numbers left; how a value of each group follows from
        those at the numbers, to_groups tells, of shape (numbers, groups).
        """
        shown = np.stack([_shown(self.counts(number), kept, number) for number in numbers])
        sums: FloatArray = np.einsum("ng,nfc,cg->fg", to_groups, shown, self.states, optimize=True)
        return sums


def _states_without(
    spectrum: Spectrum, samples: int, changes: SpectrumDelta, held: IntArray
) -> list[_States]:
    """Return the states that few samples show, and those that most do, without each group."""
    incidence, states = spectrum.incidences()
    few = Nodes.up_to(int(incidence[-1])), Nodes.up_to(samples)
    most = 2 * incidence > samples
    everywhere = few[0].amounts(incidence[~most], states[~most])
    columns = []
    for group in held.tolist():
        part = changes.entries_of(group)
        changed, amounts = changes.incidence[part], changes.states[part]
        many = 2 * changed > samples
        left = samples - int(changes.samples[group])
        lacking = left + 1 - np.concatenate([incidence[most], changed[many]])
        amounts_lacking = np.concatenate([states[most], amounts[many]])
        # What seems to be in more samples than are left is changed by the group.
        valid = lacking > 0
        columns.append(
            (
                everywhere + few[0].amounts(changed[~many], amounts[~many]),
                few[1].amounts(lacking[valid], amounts_lacking[valid]),
            )
        )
    return [
        _States.of(nodes, np.stack(tables, axis=1), is_lacking)
        for nodes, tables, is_lacking in zip(
            few, zip(*columns, strict=True), (False, True), strict=True
        )
    ]


def _shown(counts: IntArray, kept: int, number: int) -> FloatArray:
    """Return the share seen of states of each count, and the mean of x ln(1 / x), (2, counts)."""
    if kept == number:
        return np.stack([np.ones(len(counts)), -counts * np.log(counts)])
    return np.stack([share_seen(counts, kept, number), mean_surprisals(counts, kept, number, 1.0)])
