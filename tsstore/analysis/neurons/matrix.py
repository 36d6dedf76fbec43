"""Matrices of a layer's neurons: which fire together, and where; a pass of its own for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import Piece, Reduction, most_at_once
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.counting.by_position import count_by_position
from tsstore.counting.joint import count_joint
from tsstore.errors import AnalysisError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block
from tsstore.text import counted, listed, printable

PIECE_ROWS = 1 << 13
"""Rows of a piece of which pairs are counted: adding up two matrices is quick beside it."""
PIECE_SAMPLES = 1 << 10
"""Of a piece of which positions are counted, where they are small enough: a matrix takes as long as
64 of them."""
MOST_PIECE_BYTES = 1 << 24
MOST_BLOCKS, LEAST_BLOCK_ROWS = 64, 1 << 13
"""Each block gives a matrix: few, where parts are not more, and not of few rows, nor of less than a
chunk, which both would decode."""

Matrix = npt.NDArray[np.int64]
_Count = Callable[..., Matrix]
"""Takes a piece's rows, and counts lines of the matrix from a first one up to another."""


def count_joint_firing(
    states: LayerStates, memory: int, scheduler: Scheduler, report: Report | None, kept: int
) -> Matrix:
    """Count the rows in which two neurons of a layer fire, int64 (neurons, neurons).

    So many bytes are kept beside.
    """
    count = partial(count_joint, neurons=states.neurons)
    one = _pass_of_pairs(states, count, memory, scheduler, kept)
    found = _lines(one, count, states.neurons, memory, scheduler, report)
    for neuron in range(1, states.neurons):
        found[neuron, :neuron] = found[:neuron, neuron]
    return found


@dataclass(frozen=True)
class PlannedPairs:
    """What counting the pairs of a layer's neurons takes.

    Attributes
    ----------
    matrix_bytes
        Of the result.
    passes
        How often the rows are read.
    projected_peak
        Most bytes that one process adds to its baseline.
    words
        Words that are compared, of 64 rows of two neurons each.
    """

    matrix_bytes: int
    passes: int
    projected_peak: int
    words: int


def plan_pairs(states: LayerStates, memory: int, scheduler: Scheduler, kept: int) -> PlannedPairs:
    """Say what `count_joint_firing` would take; no state is read."""
    neurons = states.neurons
    count = partial(count_joint, neurons=neurons)
    one = _pass_of_pairs(states, count, memory, scheduler, kept)
    blocks = _blocks(one)
    at_once = _at_once(one, neurons, blocks, memory, scheduler)
    peak = _of_lines(one, at_once, neurons).needed(scheduler, blocks)
    words = neurons * (neurons + 1) // 2 * math.ceil(states.stored_rows / 64)
    return PlannedPairs(8 * neurons**2, math.ceil(neurons / at_once), peak, words)


def _pass_of_pairs(
    states: LayerStates, count: _Count, memory: int, scheduler: Scheduler, kept: int
) -> Reduction[Matrix]:
    one = _pass(states, "count pairs of neurons", count, kept)
    return one.in_pieces_of(PIECE_ROWS, memory, scheduler)


def count_positions(
    states: LayerStates, memory: int, scheduler: Scheduler, report: Report | None, kept: int
) -> Matrix:
    """Count the samples in which each neuron fires at each position, int64 (positions, neurons).

    So many bytes are kept beside. AnalysisError where rows are not of the same positions.
    """
    positions = check_positions(states)
    count = partial(count_by_position, positions=positions, neurons=states.neurons)
    rows = min(PIECE_SAMPLES * positions, MOST_PIECE_BYTES // states.row_bytes)
    one = _pass(states, "count neurons by position", count, kept)
    one = one.in_pieces_of(rows, memory, scheduler)
    return _lines(one, count, positions, memory, scheduler, report)


def check_positions(states: LayerStates) -> int:
    """Return the positions of a sample; AnalysisError where rows are not of the same ones."""
    name, shape = printable(states.name), states.attributes.position_shape
    positions, parts = states.positions, [part.attributes for part in states.parts if part.rows]
    why = ""
    if positions is None:
        why = "samples have other numbers of positions"
    elif any("positions" in (own.sampling or {}) for own in parts):
        why = "some positions of each sample were recorded, drawn at random"
    elif any(own.position_shape != shape for own in parts):
        shapes = sorted({str(own.position_shape) for own in parts})
        why = f"positions have the shapes {listed(shapes)}"
    elif shape and math.prod(shape) != positions:
        why = f"{positions:,} of {counted(math.prod(shape), 'position')} of each sample were kept"
    if why or positions is None:
        raise AnalysisError(
            f"{states.location}: layer {name} has no rates by position: {why}; expected the same "
            "positions of all samples: ask for other layers, or leave out maps="
        )
    return positions


def _pass(states: LayerStates, purpose: str, count: _Count, kept: int) -> Reduction[Matrix]:
    """Return the pass that counts one line of a matrix."""
    words = math.ceil(states.row_bytes / 8)
    return Reduction(
        states,
        purpose,
        partial(_count_piece, count=count),
        _add,
        # The row as words, and as columns of bits.
        bytes_beside_row=16 * words,
        result_bytes=8 * 64 * words,
        kept_bytes=kept,
    )


def _lines(
    one: Reduction[Matrix],
    count: _Count,
    lines: int,
    memory: int,
    scheduler: Scheduler,
    report: Report | None,
) -> Matrix:
    """Count all lines of a matrix, as many at a time as the memory holds, given a pass of one.

    Where it does not hold all lines of some blocks, the rows are read several times.
    """
    # Loops are compiled, or loaded, once in this process, not by all threads at the same time.
    count(np.zeros((0, one.states.row_bytes), np.uint8), first=0, stop=1)
    blocks = _blocks(one)
    at_once = _at_once(one, lines, blocks, memory, scheduler)
    some = _of_lines(one, at_once, lines)
    found = np.empty((lines, 0), np.int64)
    for first in range(0, lines, at_once):
        stop = min(first + at_once, lines)
        of_piece = partial(_count_piece, count=count, first=first, stop=stop)
        own = replace(some, of_piece=of_piece).run(memory, scheduler, report, blocks)
        if at_once == lines:
            return own
        found = found if first else np.empty((lines, own.shape[1]), np.int64)
        found[first:stop] = own
    return found


def _blocks(one: Reduction[Matrix]) -> list[Block]:
    """Return the layer in few blocks."""
    rows = math.ceil(one.states.stored_rows / MOST_BLOCKS)
    chunk = max(part.states.spec.chunk_rows for part in one.states.parts)
    return list(one.states.blocks(max(rows, one.piece_rows, chunk, LEAST_BLOCK_ROWS)))


def _of_lines(one: Reduction[Matrix], number: int, lines: int) -> Reduction[Matrix]:
    """Return the pass of so many lines of a matrix, which is held beside if there are several."""
    kept = one.kept_bytes + (lines * one.result_bytes if number < lines else 0)
    return replace(one, result_bytes=number * one.result_bytes, kept_bytes=kept)


def _at_once(
    one: Reduction[Matrix], lines: int, blocks: list[Block], memory: int, scheduler: Scheduler
) -> int:
    """Return how many lines of a matrix one pass counts."""
    of = partial(_of_lines, one, lines=lines)
    return most_at_once(of, lines, memory, scheduler, blocks)


def _count_piece(piece: Piece, count: _Count, first: int = 0, stop: int = 1) -> Matrix:
    rows, _ = piece.shown()
    return count(rows, first=first, stop=stop)


def _add(results: Iterable[Matrix]) -> Matrix:
    """Return matrices added up; those of other tasks are left as they are."""
    matrices = iter(results)
    total = next(matrices)
    for number, own in enumerate(matrices):
        total = np.add(total, own, out=total if number else None)
    return total
