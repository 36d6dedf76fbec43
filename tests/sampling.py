"""Samples of states drawn from known distributions, and what counting them gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.spectrum import Spectrum

Rows = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """Spectrum and group changes of rows of shape (samples, positions)."""

    spectrum: Spectrum
    samples: int
    equal_pairs: int
    changes: GroupChanges

    @classmethod
    def of(cls, rows: Rows, group: npt.NDArray[np.int64] | None = None, groups: int = 32):
        group = np.arange(len(rows)) % groups if group is None else group
        samples, positions = rows.shape
        states, index = np.unique(rows, return_inverse=True)
        table = np.zeros((samples, len(states)), dtype=np.int64)
        np.add.at(table, (np.arange(samples)[:, None], index.reshape(rows.shape)), 1)
        equal_pairs = (table * (table - 1) // 2).sum(axis=1)
        belongs = (np.arange(groups)[:, None] == group).astype(np.int64)
        changes = GroupChanges.from_counts(
            (belongs @ table).T,
            (belongs @ (table > 0).astype(np.int64)).T,
            belongs.sum(axis=1),
            belongs @ equal_pairs,
            belongs.sum(axis=1) * (positions * (positions - 1) // 2),
        )
        spectrum = Spectrum.from_counts(table.sum(axis=0), (table > 0).sum(axis=0))
        return cls(spectrum, samples, int(equal_pairs.sum()), changes)


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
