"""In how many rows two neurons of a layer fire together, of all pairs: a pass of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import Piece, Reduction, most_at_once
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.counting.joint import count_joint
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

PIECE_ROWS = 1 << 13
"""Rows of a piece at least: counting its pairs takes much longer than adding up two matrices."""
MOST_BLOCKS = 64
"""Of which each gives a matrix, where parts are not more."""

Joint = npt.NDArray[np.int64]
"""Rows in which two neurons fire, int64 (neurons, neurons)."""


def count_joint_firing(
    states: LayerStates, memory: int, scheduler: Scheduler, report: Report | None, kept: int
) -> Joint:
    """Count the rows in which two neurons of a layer fire, while so many bytes are kept beside.

    Where the memory does not hold the matrices of some blocks, the rows are read several times, for
    some lines of it each.
    """
    count_joint(np.zeros((1, states.row_bytes), np.uint8), states.neurons, 0, 1)
    found = np.zeros((states.neurons, states.neurons), np.int64)
    blocks = _blocks(states)
    for first, stop, some in _passes(states, memory, scheduler, blocks, kept):
        of_piece = partial(_count_piece, neurons=states.neurons, first=first, stop=stop)
        found[first:stop] = replace(some, of_piece=of_piece).run(memory, scheduler, report, blocks)
    for neuron in range(1, states.neurons):
        found[neuron, :neuron] = found[:neuron, neuron]
    return found


def _passes(
    states: LayerStates, memory: int, scheduler: Scheduler, blocks: list[Block], kept: int
) -> Iterator[tuple[int, int, Reduction[Joint]]]:
    """Yield the lines of the matrix that each pass counts, and the pass."""
    line = 8 * states.neurons

    def of(lines: int) -> Reduction[Joint]:
        return Reduction(
            states,
            "count pairs of neurons",
            _count_piece,
            _add,
            # The row as words, and as columns of bits.
            bytes_beside_row=16 * math.ceil(states.row_bytes / 8),
            result_bytes=lines * line,
            kept_bytes=kept + states.neurons * line,
            piece_rows=PIECE_ROWS,
        )

    at_once = most_at_once(of, states.neurons, memory, scheduler, blocks)
    for first in range(0, states.neurons, at_once):
        yield first, min(first + at_once, states.neurons), of(at_once)


def _blocks(states: LayerStates) -> list[Block]:
    """Return the layer in few blocks."""
    return list(states.blocks(max(math.ceil(states.stored_rows / MOST_BLOCKS), PIECE_ROWS)))


def _count_piece(piece: Piece, neurons: int = 0, first: int = 0, stop: int = 0) -> Joint:
    rows, _ = piece.shown()
    return count_joint(rows, neurons, first, stop)


def _add(results: Iterable[Joint]) -> Joint:
    """Return matrices added up; those of other tasks are left as they are."""
    numbers = iter(results)
    total = next(numbers)
    for number, own in enumerate(numbers):
        total = np.add(total, own, out=total if number else None)
    return total
