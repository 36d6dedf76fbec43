"""What counting the states of drawn samples gives: a spectrum, and what groups change in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsstore.statistics.bounds import entropy_lower_bound_by_groups
from tsstore.statistics.independence import dependent_draws
from tsstore.statistics.intervals import Jackknifed, jackknifed_entropy
from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import Verdict, verdict

GROUPS = 32
SEED = 20


@dataclass
class Counted:
    """Spectrum and group changes of the rows of samples, for a layer of so many neurons."""

    spectrum: Spectrum
    samples: int
    changes: SpectrumDelta
    neurons: int

    @classmethod
    def of(cls, rows, group, neurons, sample=None):
        """Count rows whose samples are in these groups.

        Rows are of shape (samples, positions), or flat, with the sample of each.
        """
        if sample is None:
            sample = np.repeat(np.arange(len(rows)), rows.shape[1])
        samples = len(group)
        _, state = np.unique(rows.ravel(), return_inverse=True)
        keys, often = np.unique(state * samples + sample, return_counts=True)
        state, sample_of_key = np.divmod(keys, samples)
        first = np.flatnonzero(np.diff(state, prepend=-1))
        k, q = np.add.reduceat(often, first), np.diff(first, append=len(state))
        of_key = group[sample_of_key]
        pairs, index = np.unique(state * GROUPS + of_key, return_inverse=True)
        state, left_out = np.divmod(pairs, GROUPS)
        rest_k = k[state] - np.bincount(index, often).astype(np.int64)
        rest_q = q[state] - np.bincount(index)
        left = rest_k > 0
        positions = np.bincount(sample, minlength=samples)
        of_groups = [
            np.bincount(part, weights, minlength=GROUPS).astype(np.int64)
            for part, weights in (
                (group, None),
                (group, positions),
                (of_key, often * (often - 1) // 2),
                (group, positions * (positions - 1) // 2),
            )
        ]
        changes = SpectrumDelta.from_arrays(
            of_groups,
            np.concatenate([left_out, left_out[left]]),
            np.concatenate([k[state], rest_k[left]]),
            np.concatenate([q[state], rest_q[left]]),
            np.repeat([-1, 1], [len(left), left.sum()]),
        )
        return cls(Spectrum.from_counts(k, q), samples, changes, neurons)

    def entropy(self, clusters: int | None = None) -> Jackknifed:
        """Return the default estimate and those without each group."""
        return jackknifed_entropy(
            self.spectrum, self.samples, self.changes, neurons=self.neurons, clusters=clusters
        )

    def verdict(self, entropy: Jackknifed, clusters: int | None = None) -> Verdict:
        """Return the verdict."""
        doubt = self.dependent_draws() if clusters is None else None
        doubts = [] if doubt is None else [doubt]
        return verdict(
            self.spectrum, self.samples, entropy, self.neurons, clusters=clusters, doubts=doubts
        )

    def dependent_draws(self) -> str | None:
        """Return what shows that the samples are no independent draws, if anything does."""
        pairs = int(self.changes.pairs_within_samples.sum())
        return dependent_draws(self.spectrum, self.samples, self.changes, pairs)

    def lower_bound(self, clusters: int | None = None) -> float:
        """Return the lower bound of the entropy, in bits."""
        return entropy_lower_bound_by_groups(
            self.spectrum, self.samples, self.changes, clusters=clusters
        )
