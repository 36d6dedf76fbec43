"""Cutting the rows of a layer of one part into blocks of whole samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError

PIECE_SAMPLES = 1 << 16
"""Samples whose numbers of rows are read at a time."""


@dataclass(frozen=True)
class Block:
    """A range of whole samples' rows that one task reads.

    Attributes
    ----------
    part
        Index of the part among those that hold the layer.
    first_sample, samples
        Which samples of the part.
    first_row, rows
        Which rows of the part.
    """

    part: int
    first_sample: int
    samples: int
    first_row: int
    rows: int


def equal_blocks(
    part: int, samples: int, positions: int, target_rows: int, chunk_rows: int
) -> Iterator[Block]:
    """Yield blocks of about `target_rows` rows, of samples that have `positions` rows each."""
    step = max(target_rows // positions, 1)
    chunk_samples, odd = divmod(chunk_rows, positions)
    if not odd and step >= chunk_samples:
        # Whole chunks: none is decoded by two blocks.
        step -= step % chunk_samples
    yield from _equal(Block(part, 0, samples, 0, samples * positions), step, positions)


def varying_blocks(
    part: int,
    rows: int,
    pieces: Iterable[npt.NDArray[np.int64]],
    target_rows: int,
    where: str,
) -> Iterator[Block]:
    """Yield blocks of about `target_rows` of `rows` rows, of samples that have each its own number.

    Raises
    ------
    FormatError
        If the numbers of rows by sample do not add up to the rows.
    """
    first = first_row = held = sample = 0
    for piece in pieces:
        for positions in piece.tolist():
            if held and held + positions > target_rows:
                yield Block(part, first, sample - first, first_row, held)
                first, first_row, held = sample, first_row + held, 0
            held += positions
            sample += 1
            if first_row + held > rows:
                raise wrong_positions(where, "they are more than the rows")
    if first_row + held != rows:
        raise wrong_positions(where, "they are fewer than the rows")
    yield Block(part, first, sample - first, first_row, held)


def divide_equal(block: Block, positions: int, target_rows: int) -> Iterator[Block]:
    """Yield a block as blocks of `target_rows` rows at most, or of one sample."""
    yield from _equal(block, max(target_rows // positions, 1), positions)


def divide_varying(
    block: Block, read_positions: Callable[[int, int], npt.NDArray[np.int64]], target_rows: int
) -> Iterator[Block]:
    """Yield the same as `divide_equal`; blocks end where the numbers are read anew, too."""
    first_row, last_sample = block.first_row, block.first_sample + block.samples
    for first in range(block.first_sample, last_sample, PIECE_SAMPLES):
        samples = min(PIECE_SAMPLES, last_sample - first)
        ends = np.cumsum(read_positions(first, samples))
        sample = row = 0
        while sample < samples:
            stop = int(np.searchsorted(ends, row + target_rows, side="right"))
            stop = min(max(stop, sample + 1), samples)
            rows = int(ends[stop - 1]) - row
            yield Block(block.part, first + sample, stop - sample, first_row + row, rows)
            sample, row = stop, row + rows
        first_row += row


def wrong_positions(where: str, why: str) -> FormatError:
    """Return the error that the numbers of rows by sample cannot be those of a layer's rows."""
    return FormatError(f"{where} has rows by sample that are not valid: {why}")


def _equal(block: Block, step: int, positions: int) -> Iterator[Block]:
    for first in range(0, block.samples, step):
        samples = min(step, block.samples - first)
        yield Block(
            block.part,
            block.first_sample + first,
            samples,
            block.first_row + first * positions,
            samples * positions,
        )
