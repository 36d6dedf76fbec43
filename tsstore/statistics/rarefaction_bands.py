"""How much what fewer samples show scatters: the jackknife by groups, at many sizes at once.

Without a group of samples (`groups`) n' are left, m of which show so many states and such an
entropy; how these differ from group to group gives the standard error (`jackknife`). All spectra
without a group are condensed to the same counts (`condensing`); and what m of n' draws show of
each count changes so smoothly with n' that a few values of n' tell it for all groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from tsstore.statistics.condensing import Nodes, nodes_between, project
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.jackknife import (
    FEWEST_GROUPS,
    check_changes,
    incidences_without,
    standard_error,
)
from tsstore.statistics.numerics import FloatArray
from tsstore.statistics.rarefaction import mean_surprisals, share_seen
from tsstore.statistics.spectrum import IntArray, Spectrum

SIZES_LEFT = (3, 5)
"""Numbers of samples left that stand for those without each group: of groups of much the same size,
and of others."""


class Scatter(NamedTuple):
    """Standard errors of what so many samples show.

    Attributes
    ----------
    distinct
        Of the number of distinct states.
    incidence_entropy
        Of the entropy of the states' shares of all incidences, in bits.
    """

    distinct: float
    incidence_entropy: float


def scatter_at(
    spectrum: Spectrum, samples: int, changes: GroupChanges, sizes: Sequence[int]
) -> list[Scatter]:
    """Return the standard errors of what fewer samples show, of each size.

    Parameters
    ----------
    spectrum, samples, changes
        What was counted, of how many samples, and what leaving each group of them out changes.
    sizes
        Numbers of samples, from 1 to all. Of more than are left without the largest group, the
        error of so many is given.

    Raises
    ------
    ValueError
        If fewer than two groups hold samples, or the changes are those of other samples.
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
        there = states.any(axis=1)
        return cls(nodes.counts[there], states[there], lacking)

    def counts(self, left: int) -> IntArray:
        """Return the incidences of states if so many samples are left."""
        counts = left + 1 - self.numbers if self.lacking else self.numbers
        return np.clip(counts, 1, left)

    def sums(self, kept: int, numbers: list[int], to_groups: FloatArray) -> FloatArray:
        """Return states seen, and their sum of x ln(1 / x), without each group, (2, groups).

        Parameters
        ----------
        kept
            How many samples are kept.
        numbers
            Of how many that are left.
        to_groups
            Of shape (numbers, groups): how a value of each group follows from those at the numbers.
        """
        shown = np.stack([_shown(self.counts(number), kept, number) for number in numbers])
        sums: FloatArray = np.einsum("ng,nfc,cg->fg", to_groups, shown, self.states, optimize=True)
        return sums


def _states_without(
    spectrum: Spectrum, samples: int, changes: GroupChanges, held: IntArray
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
        there = lacking > 0
        columns.append(
            (
                everywhere + few[0].amounts(changed[~many], amounts[~many]),
                few[1].amounts(lacking[there], amounts_lacking[there]),
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
