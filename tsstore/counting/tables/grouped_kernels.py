"""The loops of counting by state and group; what the tables hold is told where they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.counting.hashing import LONG_PROBE, PROBE_LIMIT, Place, Width, copy_key, is_same
from tsstore.errors import CountingError
from tsstore.numba_tools.decorators import inlined, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANY: Final = 255
"""Stands for the group of a state that has several."""
INCIDENCE: Final = np.uint64(2**56 - 1)
"""The bits of a state's last column that are not its group."""

_ONE: Final = np.uint64(1)
_MANY: Final = np.uint64(MANY)
_GROUP_BITS: Final = np.uint64(8)
_GROUP_MASK: Final = np.uint64(255)
_TAG_SHIFT: Final = np.uint64(56)
_HALF: Final = np.uint64(32)
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)


@inlined
def _find_state(
    states: NDArray[np.uint64],
    index: NDArray[np.uint32],
    keys: NDArray[np.uint64],
    row: int,
    width: Width,
) -> np.uint64:
    """Return the place in the index of a key, or else the empty one that is due to it."""
    mask = np.uint64(index.size - 1)
    slot: np.uint64 = keys[row, 0] & mask
    for _ in range(PROBE_LIMIT):
        state = index[slot]
        if state == 0 or is_same(keys, row, states, np.uint64(state) - _ONE, width):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@inlined
def _find_pair(pairs: NDArray[np.uint64], index: NDArray[np.uint32], pair: np.uint64) -> np.uint64:
    """Return the place in the index of a pair, or else the empty one that is due to it."""
    mask = np.uint64(index.size - 1)
    word = pair * _FACTOR
    slot = ((word ^ (word >> _HALF)) * _FACTOR >> _HALF) & mask
    for _ in range(PROBE_LIMIT):
        held = index[slot]
        if held == 0 or pairs[np.uint64(held) - _ONE, 0] == pair:
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@inlined
def _add_pair(
    pairs: NDArray[np.uint64],
    index: NDArray[np.uint32],
    held: int,
    pair: np.uint64,
    multiplicity: np.uint64,
    incidence: np.uint64,
) -> int:
    """Count in the second table, which must have room; return the number of pairs it holds."""
    slot = _find_pair(pairs, index, pair)
    row = np.uint64(index[slot]) - _ONE
    if index[slot] == 0:
        row = np.uint64(held)
        held += 1
        index[slot] = held
        pairs[row, 0] = pair
        pairs[row, 1] = pairs[row, 2] = 0
    pairs[row, 1] += multiplicity
    pairs[row, 2] += incidence
    return held


@kernel
def absorb(
    states: NDArray[np.uint64],
    state_index: NDArray[np.uint32],
    pairs: NDArray[np.uint64],
    pair_index: NDArray[np.uint32],
    distinct: int,
    held: int,
    keys: NDArray[np.uint64],
    multiplicity: NDArray[np.uint32] | None,
    incidence: NDArray[np.uint32] | None,
    group: NDArray[np.uint8],
    row: Place,
    pass_shift: np.uint64,
    pass_mask: np.uint64,
    pass_index: np.uint64,
    width: Width,
) -> tuple[Place, int, int]:
    """Add records from `row` on; return the first that finds no room, distinct keys and pairs."""
    words = len(width)
    k = q = _ONE
    # Unsigned: whether rows count from an array's end need not be asked.
    for record in range(np.uint64(row), np.uint64(keys.shape[0])):
        if (keys[record, 0] >> pass_shift) & pass_mask != pass_index:
            continue
        slot = _find_state(states, state_index, keys, record, width)
        state = np.uint64(state_index[slot]) - _ONE
        own = np.uint64(group[record])
        if state_index[slot] == 0:
            if 2 * distinct == state_index.size:
                return np.int64(record), distinct, held
            state = np.uint64(distinct)
            distinct += 1
            state_index[slot] = distinct
            copy_key(keys, record, states, state, width)
            states[state, words], states[state, words + 1] = 0, own << _TAG_SHIFT
        if multiplicity is not None and incidence is not None:
            k, q = np.uint64(multiplicity[record]), np.uint64(incidence[record])
        tag = states[state, words + 1] >> _TAG_SHIFT
        if tag != own:
            if 2 * (held + 2) > pair_index.size:
                return np.int64(record), distinct, held
            pair = state << _GROUP_BITS
            if tag != _MANY:
                so_far = states[state, words + 1] & INCIDENCE
                held = _add_pair(pairs, pair_index, held, pair | tag, states[state, words], so_far)
                states[state, words + 1] = so_far | (_MANY << _TAG_SHIFT)
            held = _add_pair(pairs, pair_index, held, pair | own, k, q)
        states[state, words] += k
        states[state, words + 1] += q
    return np.int64(keys.shape[0]), distinct, held


@kernel
def index_states(
    states: NDArray[np.uint64], used: int, index: NDArray[np.uint32], width: Width
) -> None:
    """Enter so many states into an index, which is empty."""
    for state in range(used):
        index[_find_state(states, index, states, state, width)] = state + 1


@kernel
def index_pairs(pairs: NDArray[np.uint64], used: int, index: NDArray[np.uint32]) -> None:
    """Enter so many pairs into an index, which is empty."""
    for pair in range(used):
        index[_find_pair(pairs, index, pairs[pair, 0])] = pair + 1


@kernel
def count_changes(
    states: NDArray[np.uint64],
    pairs: NDArray[np.uint64],
    small: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Add to the count of each group how many changes :func:`list_changes` may give it."""
    state: Place
    words = states.shape[1] - 2
    for state in range(states.shape[0]):
        tag = states[state, words + 1] >> _TAG_SHIFT
        if tag != _MANY and states[state, words] >= np.uint64(small.shape[1]):
            counts[tag] += 1
    for pair in range(pairs.shape[0]):
        state = np.int64(pairs[pair, 0] >> _GROUP_BITS)
        if states[state, words] >= np.uint64(small.shape[1]):
            counts[pairs[pair, 0] & _GROUP_MASK] += 2


@kernel
def list_changes(
    states: NDArray[np.uint64],
    pairs: NDArray[np.uint64],
    small: NDArray[np.int64],
    cursors: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Write what leaving a group out changes where its cursor is, and advance that.

    A state of one group is gone without it; one of many moves to where it is without each. Changes
    at small multiplicities, of which there are most, are added up at once, in an array by group,
    multiplicity and incidence.
    """
    words = states.shape[1] - 2
    state: Place
    least = np.uint64(small.shape[1])
    for state in range(states.shape[0]):
        tag = states[state, words + 1] >> _TAG_SHIFT
        if tag != _MANY:
            k, q = states[state, words], states[state, words + 1] & INCIDENCE
            if k < least:
                small[tag, k, q] -= 1
            else:
                place = cursors[tag]
                cursors[tag] = place + 1
                rows[place, 0], rows[place, 1], rows[place, 2] = k, q, -1
    for pair in range(pairs.shape[0]):
        group = pairs[pair, 0] & _GROUP_MASK
        state = np.int64(pairs[pair, 0] >> _GROUP_BITS)
        k, q = states[state, words], states[state, words + 1] & INCIDENCE
        if k < least:
            small[group, k, q] -= 1
            small[group, k - pairs[pair, 1], q - pairs[pair, 2]] += 1
        else:
            place = cursors[group]
            cursors[group] = place + 2
            rows[place, 0], rows[place, 1], rows[place, 2] = k, q, -1
            rows[place + 1, 0], rows[place + 1, 1] = k - pairs[pair, 1], q - pairs[pair, 2]
            rows[place + 1, 2] = 1
