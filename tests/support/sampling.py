"""Samples of states drawn from known distributions, and what counting them gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.spectrum_delta import SpectrumDelta

Rows = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """Spectrum and group changes of rows (samples, positions), or of some rows each."""

    spectrum: Spectrum
    samples: int
    equal_pairs: int
    changes: SpectrumDelta

    @classmethod
    def of(cls, rows: Rows, group: npt.NDArray[np.int64] | None = None, groups: int = 32):
        samples, positions = rows.shape
        group = np.arange(samples) % groups if group is None else group
        return cls.of_each(rows.ravel(), np.repeat(np.arange(samples), positions), group, groups)

    @classmethod
    def of_each(
        cls,
        rows: npt.NDArray[np.int64],
        owner: npt.NDArray[np.int64],
        group: npt.NDArray[np.int64],
        groups: int = 32,
    ):
        """Count rows, each of which belongs to a sample; there is a group for each sample."""
        samples = len(group)
        _, state = np.unique(rows, return_inverse=True)
        keys = state.ravel() * samples + owner
        (state, sample), often = _pairs(keys, samples)
        k, q = np.bincount(state, often).astype(np.int64), np.bincount(state)
        (of, left_out), index = _pairs(state * groups + group[sample], groups, inverse=True)
        rest_k = k[of] - np.bincount(index, often).astype(np.int64)
        rest_q = q[of] - np.bincount(index)
        left = rest_k > 0
        length = np.bincount(owner, minlength=samples)
        size = np.bincount(group, minlength=groups)
        equal = np.bincount(group[sample], often * (often - 1) // 2, groups).astype(np.int64)

        def of_groups(numbers):
            return np.bincount(group, numbers, groups).astype(np.int64)

        changes = SpectrumDelta.from_arrays(
            [size, of_groups(length), equal, of_groups(length * (length - 1) // 2)],
            np.concatenate([left_out, left_out[left]]),
            np.concatenate([k[of], rest_k[left]]),
            np.concatenate([q[of], rest_q[left]]),
            np.repeat([-1, 1], [len(left), left.sum()]),
        )
        return cls(Spectrum.from_counts(k, q), samples, int(equal.sum()), changes)


def _pairs(keys: npt.NDArray[np.int64], base: int, inverse: bool = False):
    """Return distinct keys taken apart by a base, and how often, or where, each occurs."""
    found = np.unique(keys, return_inverse=inverse, return_counts=not inverse)
    return np.divmod(found[0], base), found[1].ravel()


def uniform(states: int) -> Shares:
    return np.full(states, 1 / states)


def zipf(states: int, exponent: float = 1.0) -> Shares:
    weights = np.arange(1, states + 1) ** -exponent
    return weights / weights.sum()


def shannon_entropy(shares: Shares) -> float:
    return -math.fsum(shares * np.log2(shares))


def independent_rows(
    rng: np.random.Generator, shares: Shares, samples: int, positions: int = 1
) -> Rows:
    return rng.choice(shares.size, size=(samples, positions), p=shares)


def clumped_rows(
    rng: np.random.Generator, shares: Shares, samples: int, positions: int = 64, stay: float = 0.8
) -> Rows:
    """Each row repeats the one before it in its sample with this chance."""
    rows = independent_rows(rng, shares, samples, positions)
    for position in range(1, positions):
        repeats = rng.random(samples) < stay
        rows[repeats, position] = rows[repeats, position - 1]
    return rows
