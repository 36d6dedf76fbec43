"""What was drawn how often: rows of a state, or samples that it occurs in.

Good's, Chao's and Hurlbert's formulas are about draws that do not depend on each other. Rows are
such draws where each sample has one position. Rows of one sample repeat each other, so a layer
with several positions is counted by samples: a draw is a sample then, and a state was drawn as
often as its incidence says. Ecologists call the two abundance and incidence data; the formulas
are the same but for the total of the counts.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Self

import numpy as np

from tsstore.statistics.numerics import FloatArray
from tsstore.statistics.spectrum import IntArray, Spectrum
from tsstore.statistics.unseen import Unseen, unseen


@dataclass(frozen=True, eq=False)
class Draws:
    """How many distinct states were seen in how many draws.

    Attributes
    ----------
    counts
        int64 of shape (entries,), ascending: in how many draws each of these states was seen.
    states
        int64 of shape (entries,): how many distinct states have this count.
    number
        How many draws there were: rows, or samples.
    total
        Sum of the counts over all states: the rows; by samples, the incidences, which are more
        than the samples where a sample has several states.
    """

    counts: IntArray
    states: IntArray
    number: int
    total: int

    @classmethod
    def of(cls, spectrum: Spectrum, samples: int | None = None) -> Self:
        """Take a spectrum as draws.

        Parameters
        ----------
        spectrum
            What was counted.
        samples
            How many samples there were, to count by samples; None to count by rows.

        Raises
        ------
        ValueError
            If the spectrum has no rows, or a state occurs in more samples than there were.
        """
        if spectrum.rows == 0:
            raise ValueError("draws need at least one row: there are no rows")
        if samples is None:
            counts, states = spectrum.multiplicities()
            return cls(counts, states, spectrum.rows, spectrum.rows)
        counts, states = spectrum.incidences()
        if counts[-1] > samples:
            raise ValueError(
                f"a state was seen in {counts[-1]} samples, so there were at least as many: "
                f"found samples={samples}"
            )
        return cls(counts, states, operator.index(samples), int(counts @ states))

    @property
    def distinct(self) -> int:
        """Number of distinct states."""
        return int(self.states.sum())

    @property
    def once(self) -> int:
        """f1, the number of distinct states that were seen in one draw."""
        return self._seen_in(1)

    @property
    def twice(self) -> int:
        """f2, the number of distinct states that were seen in two draws."""
        return self._seen_in(2)

    @property
    def weights(self) -> FloatArray:
        """Counts times states: float64 of shape (entries,), adding up to the total."""
        return self.counts.astype(np.float64) * self.states

    @property
    def coverage(self) -> float:
        """Share of the next draw, if there were one, in states seen (Chao and Jost 2012)."""
        found_again = 0.0 if self.unseen is None else self.unseen.share
        return ((self.total - self.once) + self.once * found_again) / self.total

    @property
    def unseen(self) -> Unseen | None:
        """What the states seen once and twice say of the unseen ones."""
        return unseen(self.number, self.once, self.twice)

    def _seen_in(self, draws: int) -> int:
        return int(self.states[self.counts == draws].sum())


def draws_from_one_to(number: int, draws: int) -> int:
    """Check a number of draws that something is asked for, of so many there are.

    Raises
    ------
    ValueError
        If it is below one, or there are fewer.
    TypeError
        If it is not a whole number.
    """
    if not 1 <= (kept := operator.index(draws)) <= number:
        raise ValueError(f"draws must be from 1 to the {number} that there are: found {draws}")
    return kept
