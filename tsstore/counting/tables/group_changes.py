"""What leaving groups out changes of a table's states, and what sets show, read off its log.

An entry of the log is a group above the number of a state, and the multiplicity and incidence that
the state has in that group: entries are in the order of groups, one of each state in each.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import Place
from tsstore.counting.tables.spectra import cell_of
from tsstore.numba_tools.arrays import I64
from tsstore.numba_tools.decorators import inlined, kernel

HALF: Final = np.uint64(32)
"""Bits of an entry's first number that are the state's."""
NUMBER: Final = np.uint64(2**32 - 1)


@kernel
def add_up_states(log: I64, counts: I64, ends: I64) -> None:
    """Add up the counts of each state, and write where the entries of each group end."""
    for entry in range(log.shape[0]):
        word = np.uint64(log[entry, 0])
        counts[0, word & NUMBER] += log[entry, 1]
        counts[1, word & NUMBER] += log[entry, 2]
        ends[word >> HALF] = entry + 1


@inlined
def _change(
    small: I64,
    side: np.int64,
    columns: I64,
    count: Place,
    spectrum: Place,
    k: np.int64,
    q: np.int64,
    states: int,
) -> Place:
    """Write what is added to a spectrum's states after so many others; return how many there are.

    At small multiplicities, where most are, it is added up at once.
    """
    if k < side and q <= k:
        small[spectrum, cell_of(k, q)] += states
        return count
    columns[0, count], columns[1, count], columns[2, count] = k, q, states
    return count + 1


@kernel
def list_by_group(
    log: I64,
    ends: I64,
    k: I64,
    q: I64,
    small: I64,
    side: np.int64,
    columns: I64,
    changed: I64,
    listed: Place,
) -> Place:
    """Write what leaving a group out changes: each of its states moves to where it is without it.

    See :func:`_change`; a state of that group alone moves to no rows and no samples. What is
    written of a spectrum, after so many that have been listed, ends where `changed` tells.
    """
    count: Place
    count = np.int64(listed)
    to = small, side, columns
    for group in range(ends.size):
        for entry in range(ends[group - 1] if group else 0, ends[group]):
            state = np.uint64(log[entry, 0]) & NUMBER
            less_k, less_q = k[state] - log[entry, 1], q[state] - log[entry, 2]
            count = _change(*to, count, group, k[state], q[state], -1)
            count = _change(*to, count, group, less_k, less_q, 1)
        changed[group] = count
    return count


@inlined
def _is_alone(log: I64, entry: Place, k: I64, q: I64, few: np.int64) -> bool:
    """Whether an entry has all rows of its state, which are fewer: see :func:`_count_alone`."""
    own, state = log[entry, 1], np.uint64(log[entry, 0]) & NUMBER
    return bool(own < few and own == k[state] and q[state] <= own)


@inlined
def _count_alone(
    log: I64, ends: I64, groups: int, k: I64, q: I64, small: I64, few: np.int64
) -> None:
    """Add up what states of one entry are in all spectra, if they have fewer rows."""
    sets, gone = ends.size // groups - 1, np.int64(groups > 1)
    for code in range(ends.size):
        of = code // groups
        group, spectrum = code - of * groups, groups + of * (groups + 1)
        for entry in range(ends[code - 1] if code else 0, ends[code]):
            if _is_alone(log, entry, k, q, few):
                cell = cell_of(log[entry, 1], log[entry, 2])
                small[group, cell] -= gone
                if of < sets:
                    small[spectrum + group, cell] -= gone
                    small[spectrum + groups, cell] += 1


@inlined
def _add_up(
    log: I64,
    first: Place,
    stop: Place,
    k: I64,
    q: I64,
    few: np.int64,
    own: I64,
    touched: I64,
    many: Place,
) -> Place:
    """Add entries to what their states have so far; return how many states have been touched."""
    for entry in range(first, stop):
        state = np.uint64(log[entry, 0]) & NUMBER
        if _is_alone(log, entry, k, q, few):
            continue
        if own[state, 0] == 0:
            touched[many] = state
            many += 1
        own[state, 0] += log[entry, 1]
        own[state, 1] += log[entry, 2]
    return many


@kernel
def list_by_set(
    log: I64,
    ends: I64,
    groups: int,
    k: I64,
    q: I64,
    own: I64,
    touched: I64,
    small: I64,
    side: np.int64,
    columns: I64,
    changed: I64,
    listed: Place,
) -> Place:
    """Write what is in the spectra of all sets, and what leaving a group out changes in any.

    For the spectra's order see :func:`tsstore.counting.tables.spectra.count_spectra`; for how it is
    written, :func:`list_by_group`. There is room for what a group or a set has of each state,
    `own`, zeros before and after, and for those states. Of one group there are no changes.
    """
    count: Place
    many: Place
    count = np.int64(listed)
    sets = ends.size // groups - 1
    # Where most states have one entry, these are settled first; else nobody could guess which.
    few = side if 4 * log.shape[0] < 5 * k.size else np.int64(0)
    to, of_states = (small, side, columns), (k, q, few, own, touched)
    if few > 0:
        _count_alone(log, ends, groups, k, q, small, few)
    for group in range(groups if groups > 1 else 0):
        many = np.int64(0)
        for code in range(group, ends.size, groups):
            first = ends[code - 1] if code else 0
            many = _add_up(log, first, ends[code], *of_states, many)
        for place in range(many):
            state = np.uint64(touched[place])
            less_k, less_q = k[state] - own[state, 0], q[state] - own[state, 1]
            count = _change(*to, count, group, k[state], q[state], -1)
            count = _change(*to, count, group, less_k, less_q, 1)
            own[state, 0] = own[state, 1] = 0
        changed[group] = count
    for of in range(sets):
        first, spectrum = of * groups, groups + of * (groups + 1)
        start = ends[first - 1] if of else 0
        many = _add_up(log, start, ends[first + groups - 1], *of_states, np.int64(0))
        for group in range(groups if groups > 1 else 0):
            without = spectrum + group
            for entry in range(start, ends[first + group]):
                if _is_alone(log, entry, k, q, few):
                    continue
                state = np.uint64(log[entry, 0]) & NUMBER
                less_k, less_q = own[state, 0] - log[entry, 1], own[state, 1] - log[entry, 2]
                count = _change(*to, count, without, own[state, 0], own[state, 1], -1)
                count = _change(*to, count, without, less_k, less_q, 1)
            start = ends[first + group]
            changed[without] = count
        for place in range(many):
            state = np.uint64(touched[place])
            count = _change(*to, count, spectrum + groups, own[state, 0], own[state, 1], 1)
            own[state, 0] = own[state, 1] = 0
        if groups == 1:
            changed[spectrum] = changed[spectrum - 1]
        changed[spectrum + groups] = count
    return count
