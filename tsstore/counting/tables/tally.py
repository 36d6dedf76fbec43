"""Spectra: how many distinct states there are of each multiplicity and incidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.numba_tools.decorators import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Spectrum = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    """k, q, states, int64 (pairs,) each, sorted by k, then by q: so many distinct states occur in
    k rows and q samples."""

_DENSE_SIDE: Final = 64
_MOST_WAITING: Final = 1 << 14


class Tally:
    """Counts pairs of multiplicity and incidence: small ones in a square, others in a list."""

    def __init__(self) -> None:
        self._dense = np.zeros((_DENSE_SIDE, _DENSE_SIDE), np.int64)
        self._large: list[Spectrum] = []
        self._waiting = 0
        self._added_up = 0

    @property
    def once(self) -> int:
        """How many states occur in one row."""
        return int(self._dense[1, 1])

    def add(self, multiplicity: NDArray[np.int64], incidence: NDArray[np.int64]) -> None:
        """Count distinct states, int64 (n,) each; a multiplicity of 0 is none."""
        if _count_pairs(multiplicity, incidence, self._dense):
            large = (multiplicity >= _DENSE_SIDE) | (incidence >= _DENSE_SIDE)
            k, q = multiplicity[large], incidence[large]
            self.add_spectrum((k, q, np.ones_like(k)))

    def add_once(self, states: int) -> None:
        """Count so many states that occur in one row."""
        self._dense[1, 1] += states

    def add_spectrum(self, spectrum: Spectrum) -> None:
        """Add what has been counted elsewhere, of other states."""
        self._large.append(spectrum)
        self._waiting += len(spectrum[0])
        if self._waiting > max(_MOST_WAITING, self._added_up):
            self._large = [add_up_spectra(self._large)]
            self._waiting, self._added_up = 0, len(self._large[0][0])

    def spectrum(self) -> Spectrum:
        """Return how many distinct states have each pair of multiplicity and incidence."""
        k, q = np.nonzero(self._dense)
        return add_up_spectra([(k, q, self._dense[k, q]), *self._large])


def spectrum_counts(multiplicity: NDArray[np.int64], incidence: NDArray[np.int64]) -> Spectrum:
    """Return the spectrum of distinct states; the parameters are those of :meth:`Tally.add`."""
    tally = Tally()
    tally.add(multiplicity, incidence)
    return tally.spectrum()


def add_up_spectra(spectra: Sequence[Spectrum]) -> Spectrum:
    """Add up the spectra, at least one, of disjoint sets of states."""
    k, q, states = (np.concatenate(columns) for columns in zip(*spectra, strict=True))
    order = np.lexsort((q, k))
    k, q, states = k[order], q[order], states[order]
    is_new = np.ones(len(k), np.bool_)
    is_new[1:] = (k[1:] != k[:-1]) | (q[1:] != q[:-1])
    starts = np.flatnonzero(is_new)
    return k[starts], q[starts], np.add.reduceat(states, starts)


@kernel
def _count_pairs(
    multiplicity: NDArray[np.int64], incidence: NDArray[np.int64], dense: NDArray[np.int64]
) -> int:
    """Count pairs in a square histogram; return the number of those that are beyond it."""
    beyond = 0
    for state in range(multiplicity.size):
        k, q = multiplicity[state], incidence[state]
        if k >= dense.shape[0] or q >= dense.shape[1]:
            beyond += 1
        elif k > 0:
            dense[k, q] += 1
    return beyond
