"""One layer in one part: its rows, the rows of each sample, and the blocks they are read by."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError
from tsstore.store.chunked.chunk import taking_memory
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.format.record import ArrayCommit
from tsstore.store.reading.indexing import RowNumbers
from tsstore.text import printable

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


@dataclass(frozen=True)
class LayerPart:
    """One layer's committed states in one part.

    Attributes
    ----------
    directory
        The part's directory.
    attributes
        What the layer says of its rows.
    states
        The rows.
    positions
        Rows of each sample, where they vary.
    samples
        Number of samples.
    lengths
        The fewest and the most positions of a sample, of which some were chosen; None where all
        were kept, or it was not noted.
    """

    directory: str
    attributes: LayerAttributes
    states: CommittedArray
    positions: CommittedArray | None
    samples: int
    lengths: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.states.rows

    @property
    def constant_positions(self) -> int | None:
        """Rows of every sample, or None where they vary."""
        if self.positions is not None:
            return None
        return self.rows // self.samples if self.samples else 0

    def without_rows(self, directory: str, samples: int) -> LayerPart:
        """Return the same layer in a part that does not hold it: its samples have no rows."""
        states = replace(self.states, commit=ArrayCommit(0))
        return LayerPart(directory, self.attributes, states, None, samples)

    def read_positions(self, first_sample: int, samples: int) -> npt.NDArray[np.int64]:
        """Return the rows of each of some samples, int64 (samples,).

        Raises
        ------
        FormatError
            If one of the stored numbers is negative.
        DamageError
            If a chunk is missing, or is not what was committed.
        """
        if self.positions is None:
            self.states.check_extent()
            with taking_memory(self._name, samples * 8):
                return np.full(samples, self.constant_positions, dtype=np.int64)
        positions = self.positions.read(first_sample, first_sample + samples)
        if positions.size and positions.min() < 0:
            raise self._wrong_positions("one of them is negative")
        return positions

    def position_pieces(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the rows of each sample, a bounded number of samples at a time."""
        for first in range(0, self.samples, PIECE_SAMPLES):
            yield self.read_positions(first, min(PIECE_SAMPLES, self.samples - first))

    def blocks(self, part: int, target_rows: int) -> Iterator[Block]:
        """Yield the part's rows as blocks of whole samples, of about `target_rows` rows.

        Raises
        ------
        FormatError
            If the stored numbers of rows by sample do not add up to the rows.
        """
        constant = self.constant_positions
        if not self.rows:
            return
        if constant is not None:
            yield from self._equal_blocks(part, target_rows, constant)
        else:
            yield from self._varying_blocks(part, target_rows)

    def divide(self, block: Block, target_rows: int) -> Iterator[Block]:
        """Yield a block's rows as smaller blocks of whole samples, of `target_rows` rows at most.

        Those of a sample that has more rows are a block all the same.

        Raises
        ------
        FormatError, DamageError
            As :meth:`read_positions`.
        """
        constant = self.constant_positions
        if block.rows <= target_rows:
            yield block
        elif constant is not None:
            samples = max(target_rows // constant, 1)
            for first in range(0, block.samples, samples):
                count = min(samples, block.samples - first)
                yield Block(
                    block.part,
                    block.first_sample + first,
                    count,
                    block.first_row + first * constant,
                    count * constant,
                )
        else:
            yield from self._divide_varying(block, target_rows)

    def _divide_varying(self, block: Block, target_rows: int) -> Iterator[Block]:
        """Yield a block as smaller ones, which also end where the numbers are read anew."""
        first_row, last_sample = block.first_row, block.first_sample + block.samples
        for first in range(block.first_sample, last_sample, PIECE_SAMPLES):
            samples = min(PIECE_SAMPLES, last_sample - first)
            ends = np.cumsum(self.read_positions(first, samples))
            sample = row = 0
            while sample < samples:
                stop = int(np.searchsorted(ends, row + target_rows, side="right"))
                stop = min(max(stop, sample + 1), samples)
                rows = int(ends[stop - 1]) - row
                yield Block(block.part, first + sample, stop - sample, first_row + row, rows)
                sample, row = stop, row + rows
            first_row += row

    def _equal_blocks(self, part: int, target_rows: int, positions: int) -> Iterator[Block]:
        step = max(target_rows // positions, 1)
        chunk_samples, odd = divmod(self.states.spec.chunk_rows, positions)
        if not odd and step >= chunk_samples:
            # Whole chunks: none is decoded by two blocks.
            step -= step % chunk_samples
        for first in range(0, self.samples, step):
            samples = min(step, self.samples - first)
            yield Block(part, first, samples, first * positions, samples * positions)

    def _varying_blocks(self, part: int, target_rows: int) -> Iterator[Block]:
        first = first_row = rows = sample = 0
        for piece in self.position_pieces():
            for positions in piece.tolist():
                if rows and rows + positions > target_rows:
                    yield Block(part, first, sample - first, first_row, rows)
                    first, first_row, rows = sample, first_row + rows, 0
                rows += positions
                sample += 1
                if first_row + rows > self.rows:
                    raise self._wrong_positions("they are more than the rows")
        if first_row + rows != self.rows:
            raise self._wrong_positions("they are fewer than the rows")
        yield Block(part, first, sample - first, first_row, rows)

    def _wrong_positions(self, why: str) -> FormatError:
        return FormatError(f"{self._name} has rows by sample that are not valid: {why}")

    @property
    def _name(self) -> str:
        return f"{self.directory}: layer {printable(self.attributes.name)}"


def read_rows(parts: tuple[LayerPart, ...], rows: RowNumbers, where: str) -> npt.NDArray[np.uint8]:
    """Return rows of a layer, numbered part after part; no chunk is decoded twice, or in vain.

    Raises
    ------
    DamageError
        If a chunk is missing, or is not what was committed.
    StoreError
        If there is not enough memory.
    """
    spans = list(_spans(parts, rows))
    for states, _ in spans:
        states.check_extent()
    width = parts[0].attributes.row_bytes
    with taking_memory(where, len(rows) * width):
        out = np.empty((len(rows), width), dtype=np.uint8)
        numbers = [(states, _numbers(held)) for states, held in spans]
    filled = 0
    for states, held in numbers:
        target = out[filled : filled + len(held)]
        if isinstance(held, range):
            states.read(held.start, held.stop, target)
        else:
            states.take(held, target)
        filled += len(held)
    return out


def _spans(
    parts: tuple[LayerPart, ...], rows: RowNumbers
) -> Iterator[tuple[CommittedArray, RowNumbers]]:
    """Yield the rows of each part that holds some, as it numbers them."""
    first = 0
    for part in parts:
        start, stop = (bisect_left(rows, edge) for edge in (first, first + part.rows))
        if start < stop:
            held = rows[start:stop]
            if isinstance(held, range):
                yield part.states, range(held.start - first, held.stop - first, held.step)
            else:
                yield part.states, held - first
        first += part.rows


def _numbers(rows: RowNumbers) -> RowNumbers:
    """Return rows that do not follow each other as an array."""
    if isinstance(rows, range) and rows.step > 1:
        return np.arange(rows.start, rows.stop, rows.step)
    return rows
