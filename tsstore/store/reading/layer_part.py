"""The committed states of one layer in one part, cut into blocks of whole samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError
from tsstore.store.chunked.chunk import taking_memory
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.format.record import ArrayCommit
from tsstore.text import printable

PIECE_SAMPLES = 1 << 16
"""Samples whose numbers of rows are read at a time."""


@dataclass(frozen=True)
class Block:
    """Whole samples of a part, and their rows: `part` counts those that hold the layer."""

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
    positions
        Rows of each sample, where they vary.
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
    def files(self) -> Files:
        """Where they lie."""
        return self.states.files

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.states.rows

    @cached_property
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
        """Return the rows of each of some samples, int64 (samples,)."""
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
        """Yield the rows as blocks of whole samples, of about `target_rows` rows.

        FormatError where the stored numbers of rows by sample do not add up to the rows.
        """
        constant, whole = self.constant_positions, Block(part, 0, self.samples, 0, self.rows)
        if not self.rows:
            return
        if constant is None:
            yield from self._divide_varying(whole, target_rows)
        else:
            most = max(target_rows // constant, 1)
            chunk_samples, odd = divmod(self.states.spec.chunk_rows, constant)
            # Whole chunks: none is decoded by two blocks.
            unit = chunk_samples if not odd and most >= chunk_samples else 1
            yield from _even_blocks(whole, most, constant, unit)

    def divide(self, block: Block, target_rows: int) -> Iterator[Block]:
        """Yield a block's rows as smaller blocks of whole samples, of `target_rows` rows at most.

        Those of a sample that has more rows are a block all the same.
        """
        constant = self.constant_positions
        if block.rows <= target_rows:
            yield block
        elif constant is not None:
            most = max(target_rows // constant, 1)
            yield from _even_blocks(block, most, constant, unit=most)
        else:
            yield from self._divide_varying(block, target_rows)

    def _divide_varying(self, block: Block, target_rows: int) -> Iterator[Block]:
        """Blocks end where the numbers are read anew, too."""
        first_row, last_sample = block.first_row, block.first_sample + block.samples
        end = first_row + block.rows
        for first in range(block.first_sample, last_sample, PIECE_SAMPLES):
            samples = min(PIECE_SAMPLES, last_sample - first)
            ends = np.cumsum(self.read_positions(first, samples))
            # Where a forged number makes the sum too large for an int64, it is negative there.
            if ends.min() < 0 or first_row + int(ends[-1]) > end:
                raise self._wrong_positions("they are more than the rows")
            sample = row = 0
            while sample < samples:
                stop = int(np.searchsorted(ends, row + target_rows, side="right"))
                stop = min(max(stop, sample + 1), samples)
                rows = int(ends[stop - 1]) - row
                yield Block(block.part, first + sample, stop - sample, first_row + row, rows)
                sample, row = stop, row + rows
            first_row += row
        if first_row != end:
            raise self._wrong_positions("they are fewer than the rows")

    @cached_property
    def _name(self) -> str:
        return f"{self.directory}: layer {printable(self.attributes.name)}"

    def _wrong_positions(self, why: str) -> FormatError:
        return FormatError(f"{self._name} has rows by sample that are not valid: {why}")


def _even_blocks(block: Block, most: int, positions: int, unit: int = 1) -> Iterator[Block]:
    """Yield a block as blocks of about as many samples each, which have `positions` rows.

    None has more than `most` samples, and all but the last one have whole units of them.
    """
    units = -(-block.samples // unit)
    count = -(-units // (most // unit))
    first = 0
    for number in range(1, count + 1):
        end = min(-(-units * number // count) * unit, block.samples)
        yield Block(
            block.part,
            block.first_sample + first,
            end - first,
            block.first_row + first * positions,
            (end - first) * positions,
        )
        first = end
