"""Samples of states drawn from known distributions, and what counting them gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.statistics.spectrum import Spectrum

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


def delta_of_counts(
    multiplicity: npt.ArrayLike,
    incidence: npt.ArrayLike,
    samples: npt.ArrayLike,
    equal_pairs_within_samples: npt.ArrayLike | None = None,
    pairs_within_samples: npt.ArrayLike | None = None,
) -> SpectrumDelta:
    """Return what leaving each group out changes, from tables (distinct states, groups).

    Pairs are 0 unless given, as where every sample has one position.
    """
    k, q = np.asarray(multiplicity), np.asarray(incidence)
    none = np.zeros(k.shape[1], np.int64)
    pairs = (equal_pairs_within_samples, pairs_within_samples)
    numbers = [samples, k.sum(axis=0), *(none if pair is None else pair for pair in pairs)]
    state, group = np.nonzero(k)
    all_k, all_q = k.sum(axis=1)[state], q.sum(axis=1)[state]
    rest_k, rest_q = all_k - k[state, group], all_q - q[state, group]
    left = rest_k > 0
    return SpectrumDelta.from_arrays(
        numbers,
        np.concatenate([group, group[left]]),
        np.concatenate([all_k, rest_k[left]]),
        np.concatenate([all_q, rest_q[left]]),
        np.repeat([-1, 1], [len(group), left.sum()]),
    )


def values_without_groups(
    spectrum: Spectrum,
    samples: int,
    changes: SpectrumDelta,
    statistic: Callable[[Spectrum, int], float],
) -> npt.NDArray[np.float64]:
    """Return any statistic of all samples but those of each group that holds some."""
    held = np.flatnonzero(changes.samples).tolist()
    left = (samples - changes.samples).tolist()
    return np.array([statistic(changes.without(spectrum, g), left[g]) for g in held], np.float64)
