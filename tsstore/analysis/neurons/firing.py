"""One pass over a layer's rows that counts how often each neuron fires, by group of samples."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import Piece, Reduction, most_at_once
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.counting.firing import Firing, add_firing, count_firing, count_firing_by_group
from tsstore.errors import MemoryTooSmallError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

NEURON_BYTES = 56
"""Of a neuron in what is counted: five numbers and a hash."""
SLICE_BYTES = 1 << 16
"""Of a group's rows in a piece, where the memory allows: of fewer most of the time is overhead."""
MOST_PIECE_BYTES, MOST_PIECE_ROWS = 1 << 24, 1 << 18
NO_GROUP = -1
"""Number of the samples that are in no group."""

Codes = Mapping[str, npt.NDArray[np.int16]]
"""By directory of a part, the number of each sample's group."""

_Result = TypeVar("_Result")


def firing_pass(
    states: LayerStates,
    purpose: str,
    of_piece: Callable[[Piece], _Result],
    add: Callable[[Iterable[_Result]], _Result],
    bytes_beside_row: int = 0,
) -> Reduction[_Result]:
    """Return a pass over a layer whose pieces are counted by `count_firing`."""
    # Loops are compiled, or loaded, once in this process, not by all threads at the same time.
    one = np.zeros((1, states.row_bytes), np.uint8)
    count_firing(one, np.ones(1, np.int64), states.neurons, [0])
    # The row as words; where its sample begins, and its length; its part of a tile's numbers.
    counting = 8 * math.ceil(states.row_bytes / 8) + 17
    return Reduction(
        states,
        purpose,
        of_piece,
        add,
        bytes_beside_row=bytes_beside_row + counting,
        result_bytes=firing_bytes(states.neurons),
    )


def layer_pass(states: LayerStates, kept: int = 0) -> Reduction[Firing]:
    """Return the pass over a layer that counts all its samples together; so much is kept beside."""
    count = partial(_count_piece, neurons=states.neurons, secret=_secret())
    one = firing_pass(states, "count neurons", count, add_firing)
    return replace(one, kept_bytes=kept)


def _secret() -> int:
    """Return what all pieces of a layer are hashed with, so that their hashes add up."""
    return int.from_bytes(os.urandom(16), "little")


def firing_bytes(neurons: int) -> int:
    """Return what is held of the neurons of a layer in some samples, in bytes."""
    return NEURON_BYTES * (neurons + 64)


def count_by_group(
    states: LayerStates,
    memory: int,
    scheduler: Scheduler,
    report: Report | None,
    kept: int,
    codes: Codes,
    groups: int,
) -> dict[int, Firing]:
    """Count each of so many groups of a layer's samples, and those that are in none.

    The rows are read once where the memory holds what is counted of all groups; else of as many
    groups at a time as it does. So many bytes are kept beside.
    """
    found: dict[int, Firing] = {}
    count = partial(_count_groups, neurons=states.neurons, secret=_secret(), codes=codes)
    for numbers, several in plan_by_group(states, memory, scheduler, kept, codes, groups):
        own = partial(count, numbers=numbers)
        blocks = [block for block in several.blocks() if _holds(block, states, codes, numbers)]
        if blocks:
            counted = replace(several, of_piece=own).run(memory, scheduler, report, blocks)
            found |= {number: counted.of(place) for place, number in enumerate(numbers)}
    return found


def plan_by_group(
    states: LayerStates, memory: int, scheduler: Scheduler, kept: int, codes: Codes, groups: int
) -> list[tuple[range, Reduction[Firing]]]:
    """Return the numbers of the groups of each pass, and the pass.

    It is a MemoryTooSmallError where the memory does not hold what is counted of one group.
    """
    one = layer_pass(states, kept + sum(own.nbytes for own in codes.values()))
    # The sample's group, and the order of groups, in which samples are looked at.
    one = replace(one, bytes_beside_row=one.bytes_beside_row + 32)
    rows = min(groups * SLICE_BYTES, MOST_PIECE_BYTES) // states.row_bytes
    try:
        larger = one.in_pieces_of(min(rows, MOST_PIECE_ROWS), memory, scheduler)
        return _passes_of(larger, groups, memory, scheduler)
    except MemoryTooSmallError:
        return _passes_of(one, groups, memory, scheduler)


def _passes_of(
    one: Reduction[Firing], groups: int, memory: int, scheduler: Scheduler
) -> list[tuple[range, Reduction[Firing]]]:
    """Return the passes, given that of one group."""
    size, blocks = one.result_bytes, one.blocks()

    def of(number: int) -> Reduction[Firing]:
        # Where there are several passes, what one gives is held in the next.
        kept = 0 if number > groups else size * (groups + 1)
        return replace(one, result_bytes=number * size, kept_bytes=one.kept_bytes + kept)

    at_once = most_at_once(of, groups + 1, memory, scheduler, blocks)
    firsts = range(NO_GROUP, groups, at_once)
    return [(range(first, min(first + at_once, groups)), of(at_once)) for first in firsts]


def _holds(block: Block, states: LayerStates, codes: Codes, numbers: range) -> bool:
    """Whether a block has a sample of some groups."""
    directory = states.parts[block.part].directory
    own = codes[directory][block.first_sample : block.first_sample + block.samples]
    return bool(((own >= numbers.start) & (own < numbers.stop)).any())


def _count_piece(piece: Piece, neurons: int, secret: int) -> Firing:
    """Count a piece's samples."""
    seed = secret, piece.block.part, 0, piece.block.first_row
    return count_firing(*piece.shown(), neurons, seed)


def _count_groups(piece: Piece, neurons: int, secret: int, codes: Codes, numbers: range) -> Firing:
    """Count a piece's samples of each of some groups."""
    # Groups of several passes are added up as well: no tile has the numbers of another pass's one.
    seed = secret, piece.block.part, numbers.start - NO_GROUP, piece.block.first_row
    groups = piece.of_shown(codes)
    return count_firing_by_group(*piece.shown(), neurons, seed, groups, numbers)
