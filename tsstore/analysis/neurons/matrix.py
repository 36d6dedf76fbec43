"""Matrices of a layer's neurons: which fire together, and so do nearly the same; and which where.

Pairs are counted by a pass of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import Piece, Reduction, most_at_once
from tsstore.analysis.neurons.firing import firing_pass
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.counting.by_position import count_by_position
from tsstore.counting.firing import Firing, add_firing
from tsstore.counting.joint import count_joint
from tsstore.errors import AnalysisError, MemoryTooSmallError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block
from tsstore.text import counted, listed, printable

if TYPE_CHECKING:
    import pandas as pd

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
_FiringAndMap = tuple[Firing, Matrix]
_Result = TypeVar("_Result")

MOST_PAIRS = 1_000_000

_Numbers = npt.NDArray[np.int64]


def count_joint_firing(
    states: LayerStates, memory: int, scheduler: Scheduler, report: Report | None, kept: int
) -> Matrix:
    """Count the rows in which two neurons of a layer fire, int64 (neurons, neurons).

    So many bytes are kept beside.
    """
    plan = _plan(_pass_of_pairs(states, kept), PIECE_ROWS, states.neurons, memory, scheduler)
    found = np.empty((states.neurons, states.neurons), np.int64)
    for first, own in plan.run(memory, scheduler, report):
        found[first : first + len(own)] = own
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
    plan = _plan(_pass_of_pairs(states, kept), PIECE_ROWS, neurons, memory, scheduler)
    peak = plan.some.needed(scheduler, plan.blocks)
    words = neurons * (neurons + 1) // 2 * math.ceil(states.stored_rows / 64)
    return PlannedPairs(8 * neurons**2, math.ceil(neurons / plan.at_once), peak, words)


def _pass_of_pairs(states: LayerStates, kept: int) -> Reduction[Matrix]:
    # Loops are compiled, or loaded, once in this process, not by all threads at the same time.
    count_joint(np.zeros((0, states.row_bytes), np.uint8), states.neurons, 0, 1)
    count = partial(_pairs_of_piece, neurons=states.neurons)
    # The row as words, and as columns of bits.
    beside = 16 * math.ceil(states.row_bytes / 8)
    return Reduction(states, "count pairs of neurons", count, _add, beside, kept_bytes=kept)


def _pairs_of_piece(piece: Piece, neurons: int, first: int, stop: int) -> Matrix:
    return count_joint(piece.shown()[0], neurons, first, stop)


def count_with_positions(
    states: LayerStates, memory: int, scheduler: Scheduler, report: Report | None, kept: int
) -> _FiringAndMap:
    """Count a layer as `count_layer` does, and the samples in which neurons fire at each position.

    These are int64 (positions, neurons). So many bytes are kept beside. AnalysisError where rows
    are not of the same positions.
    """
    plan = plan_positions(states, memory, scheduler, kept)
    found = np.empty((plan.lines, states.neurons), np.int64)
    for first, both in plan.run(memory, scheduler, report):
        firing, own = both
        found[first : first + len(own)] = own
    return firing, found


def plan_positions(
    states: LayerStates, memory: int, scheduler: Scheduler, kept: int
) -> PlannedLines[_FiringAndMap]:
    """Plan the passes of :func:`count_with_positions`."""
    positions, neurons = check_positions(states), states.neurons
    secret = int.from_bytes(os.urandom(16), "little")
    count = partial(_positions_of_piece, positions=positions, neurons=neurons, secret=secret)
    count_by_position(np.zeros((0, states.row_bytes), np.uint8), positions, neurons, [], 0, 1)
    one = firing_pass(states, "count neurons by position", count, _add_both)
    rows = min(PIECE_SAMPLES * positions, MOST_PIECE_BYTES // states.row_bytes)
    return _plan(replace(one, kept_bytes=kept), rows, positions, memory, scheduler)


def _positions_of_piece(
    piece: Piece, positions: int, neurons: int, secret: int, first: int, stop: int
) -> _FiringAndMap:
    seed = secret, piece.block.part, piece.block.first_row
    return count_by_position(piece.shown()[0], positions, neurons, seed, first, stop)


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


@dataclass(frozen=True, eq=False)
class PlannedLines(Generic[_Result]):
    """Passes that count the lines of a matrix, as many at a time as the memory holds.

    They are given the pass of none. Where it does not hold all lines of some blocks, the rows are
    read several times.
    """

    one: Reduction[_Result]
    lines: int
    blocks: list[Block]
    at_once: int

    @property
    def some(self) -> Reduction[_Result]:
        """The pass of as many lines as are counted at a time."""
        return _of_lines(self.one, self.at_once, self.lines)

    def run(
        self, memory: int, scheduler: Scheduler, report: Report | None
    ) -> Iterator[tuple[int, _Result]]:
        """Yield which line is the first that a pass counts, and what it gives."""
        count: Callable[..., _Result] = self.one.of_piece
        for first in range(0, self.lines, self.at_once):
            stop = min(first + self.at_once, self.lines)
            own = replace(self.some, of_piece=partial(count, first=first, stop=stop))
            yield first, own.run(memory, scheduler, report, self.blocks)


def _plan(
    one: Reduction[_Result], rows: int, lines: int, memory: int, scheduler: Scheduler
) -> PlannedLines[_Result]:
    """Plan the passes for so many lines, in pieces of so many rows if the memory holds them."""

    def plan(own: Reduction[_Result]) -> PlannedLines[_Result]:
        blocks, of = _blocks(own), partial(_of_lines, own, lines=lines)
        at_once = most_at_once(of, lines, memory, scheduler, blocks)
        return PlannedLines(own, lines, blocks, at_once)

    try:
        return plan(one.in_pieces_of(rows, memory, scheduler))
    except MemoryTooSmallError:
        return plan(one)


def _blocks(one: Reduction[Any]) -> list[Block]:
    """Return the layer in few blocks."""
    rows = math.ceil(one.states.stored_rows / MOST_BLOCKS)
    chunk = max(part.states.spec.chunk_rows for part in one.states.parts)
    return list(one.states.blocks(max(rows, one.piece_rows, chunk, LEAST_BLOCK_ROWS)))


def _of_lines(one: Reduction[Any], number: int, lines: int) -> Reduction[Any]:
    """Return the pass of so many lines of a matrix, which is held beside if there are several."""
    line = 8 * 64 * math.ceil(one.states.row_bytes / 8)
    kept = one.kept_bytes + (lines * line + one.result_bytes if number < lines else 0)
    return replace(one, result_bytes=one.result_bytes + number * line, kept_bytes=kept)


def _add(results: Iterable[Matrix]) -> Matrix:
    """Return matrices added up; those of other tasks are left as they are."""
    matrices = iter(results)
    total = next(matrices)
    for number, own in enumerate(matrices):
        total = np.add(total, own, out=total if number else None)
    return total


def _add_both(results: Iterable[_FiringAndMap]) -> _FiringAndMap:
    """Return both added up; as of matrices, two are held at a time."""
    pairs = iter(results)
    firing, matrix = next(pairs)
    for number, (own, other) in enumerate(pairs):
        firing = add_firing([firing, own])
        matrix = np.add(matrix, other, out=matrix if number else None)
    return firing, matrix


def near_pairs(joint: _Numbers, rows: int, share: float, opposite: bool) -> pd.DataFrame:
    """Return pairs that do the same in such a share of the rows, as `LayerNeurons.near_identical`.

    Of `opposite` ones, one neuron does what the other does not. `joint` are the rows in which two
    neurons fire, int64 (neurons, neurons), symmetric.
    """
    import pandas as pd

    if not (isinstance(share, int | float | np.number) and 0 <= share <= 1):
        raise AnalysisError(f"share is {share!r:.80}; expected one of the rows, from 0 to 1")
    found: list[_Numbers] = []
    held = 0
    for own in _agreeing(joint, rows, share, opposite):
        held += own.shape[1]
        found.append(own)
        if held > MOST_PAIRS:
            raise AnalysisError(
                f"more than {MOST_PAIRS:,} pairs of neurons do the same in {share:g} of the rows: "
                "they fire rarely, or nearly always; ask for a larger share"
            )
    first, other, same = np.concatenate([np.empty((3, 0), np.int64), *found], axis=1)
    rate = np.diagonal(joint) / rows
    one, two = rate[first], rate[other]
    two = 1 - two if opposite else two
    by_chance = one * two + (1 - one) * (1 - two)
    frame = pd.DataFrame(
        {
            "neuron": first,
            "other": other,
            "rows": same,
            "share": same / rows,
            "by_chance": by_chance,
            "kappa": (same / rows - by_chance) / (1 - by_chance),
        }
    )
    return frame.sort_values("kappa", ascending=False, kind="stable", ignore_index=True)


def _agreeing(joint: _Numbers, rows: int, share: float, opposite: bool) -> Iterator[_Numbers]:
    """Yield for each neuron those of higher index that agree: int64 (3, pairs), the rows last."""
    on = np.diagonal(joint)
    live = np.flatnonzero((on > 0) & (on < rows))
    for place, neuron in enumerate(live[:-1].tolist()):
        others = live[place + 1 :]
        differ = on[neuron] + on[others] - 2 * joint[neuron, others]
        same = differ if opposite else rows - differ
        chosen = same / rows >= share
        number = int(chosen.sum())
        if number:
            yield np.stack([np.full(number, neuron), others[chosen], same[chosen]])
