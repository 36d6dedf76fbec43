"""How far states are from the nearest of many others: bits in which they differ, by brute force."""

from __future__ import annotations

import numpy as np

from tsstore.numba_tools.arrays import I64, U64
from tsstore.numba_tools.decorators import kernel
from tsstore.numba_tools.words import count_ones


def nearest(states: U64, others: U64, least: I64) -> None:
    """Lower the distance of each state to that of the nearest of the others, where one is nearer.

    Parameters
    ----------
    states, others
        uint64 (states, words) and (others, words), C-contiguous: rows as words, padded with zeros.
    least
        int64 (states,): distances so far, in bits; changed in place.
    """
    if states.shape[1] == 1:
        # There is nothing to leave early: the loop is one of the processor's vectors.
        _nearest_words(states[:, 0].copy(), others[:, 0].copy(), least)
    else:
        _nearest_rows(states, others, least)


@kernel
def _nearest_words(states: U64, others: U64, least: I64) -> None:
    for state in range(states.size):
        own, best = states[state], least[state]
        for other in range(others.size):
            best = min(best, count_ones(own ^ others[other]))
        least[state] = best


@kernel
def _nearest_rows(states: U64, others: U64, least: I64) -> None:
    """Leave another state as soon as it is not the nearest."""
    for state in range(states.shape[0]):
        best = least[state]
        for other in range(others.shape[0]):
            apart = np.int64(0)
            for word in range(states.shape[1]):
                apart += count_ones(states[state, word] ^ others[other, word])
                if apart >= best:
                    break
            best = min(best, apart)
        least[state] = best
