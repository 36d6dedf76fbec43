"""New states that are drawn: their rows, and how far they are from those of another run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import Piece, Reduction
from tsstore.analysis.request import Request
from tsstore.analysis.schedulers import Scheduler
from tsstore.counting.firing import row_words
from tsstore.counting.keys import KeyScheme
from tsstore.counting.nearest import nearest
from tsstore.errors import CountingError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import LayerPart
from tsstore.text import printable

DRAWN = 200
"""New states whose distances are told, at most."""

_Numbers = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """New states drawn so far: their order, key, and the first sample that shows each."""

    order: _Words
    keys: _Words
    samples: _Numbers

    @classmethod
    def together(cls, parts: Sequence[Drawn]) -> Drawn:
        """Return those of the lowest order."""
        order = np.concatenate([part.order for part in parts])
        first = np.argsort(order)[:DRAWN]
        keys = np.concatenate([part.keys for part in parts])
        return cls(order[first], keys[first], np.concatenate([p.samples for p in parts])[first])


def read_states(
    states: LayerStates, firsts: Sequence[int], scheme: KeyScheme, drawn: Drawn
) -> npt.NDArray[np.uint8]:
    """Return the rows of the states drawn, uint8 (drawn, row_bytes), from the samples they are of.

    `firsts` numbers the first samples of parts.
    """
    rows = np.empty((len(drawn.samples), states.row_bytes), np.uint8)
    samples = drawn.samples + firsts[0]
    for number, part in enumerate(states.parts):
        here = np.flatnonzero((samples >= firsts[number]) & (samples < firsts[number + 1]))
        if not len(here):
            continue
        spans = _spans(part, set((samples[here] - firsts[number]).tolist()))
        for state in here.tolist():
            sample = int(samples[state]) - firsts[number]
            own = part.states.read(*spans[sample])
            same = (scheme.keys(own) == drawn.keys[state]).all(axis=1)
            if not same.any():
                raise CountingError(
                    f"{states.location}: layer {printable(states.name)}: a state was counted that "
                    f"sample {sample} of {part.directory} does not show; compare again"
                )
            rows[state] = own[np.argmax(same)]
    return rows


def _spans(part: LayerPart, samples: set[int]) -> dict[int, tuple[int, int]]:
    """Return where the rows of some samples of a part begin and end."""
    spans, first, row = {}, 0, 0
    for positions in part.position_pieces():
        ends = row + np.cumsum(positions)
        for sample in samples & set(range(first, first + len(positions))):
            stop = int(ends[sample - first])
            spans[sample] = stop - int(positions[sample - first]), stop
        first, row = first + len(positions), int(ends[-1])
    return spans


def nearest_distances(
    states: LayerStates,
    rows: npt.NDArray[np.uint8],
    memory: int,
    scheduler: Scheduler,
    request: Request,
) -> _Numbers:
    """Return in how many bits each row differs from the nearest state of a layer, int64 (rows,)."""
    if not len(rows):
        return np.empty(0, np.int64)
    found: _Numbers = nearest_pass(states, rows).run(memory, scheduler, request.report(states.name))
    return found


def nearest_pass(states: LayerStates, rows: npt.NDArray[np.uint8]) -> Reduction[_Numbers]:
    """Return the pass that finds how far some rows are from the nearest of a layer."""
    words = row_words(rows)
    return Reduction(
        states,
        "find the nearest states",
        partial(_nearest_in_piece, words=words, most=states.neurons + 1),
        _lowest,
        bytes_beside_row=2 * 8 * words.shape[1],
        result_bytes=words.nbytes + 8 * len(words),
    )


def _nearest_in_piece(piece: Piece, words: _Words, most: int) -> _Numbers:
    """Return the distances to the nearest of a piece's rows; `most` where there are none."""
    least = np.full(len(words), most)
    nearest(words, row_words(piece.shown()[0]), least)
    return least


def _lowest(results: Iterable[_Numbers]) -> _Numbers:
    lowest: _Numbers = np.minimum.reduce(list(results))
    return lowest
