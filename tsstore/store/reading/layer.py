"""The committed states of one layer, over all parts of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore import bits
from tsstore.errors import FormatError, RowIndexError, StoreError
from tsstore.store.chunked.chunk import taking_memory
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.reading.indexing import PackedRows, RowNumbers
from tsstore.store.reading.layer_part import Block, LayerPart
from tsstore.store.reading.part import Part
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.store.reading.sample_frame import find_rows, frame_of_samples, parse_state
from tsstore.text import counted, html_table, printable

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd

LAYER_HEADINGS = ("layer", "neurons", "positions", "rows", "threshold", "dtype")
_SAME_IN_ALL_PARTS = ("neurons", "threshold", "dtype")


class LayerStates(PackedRows):
    """The committed states of one layer, part after part.

    An index gives packed rows, as it would of a NumPy array: ``states[10:20]`` is uint8
    (10, row_bytes); so do ``numpy.asarray`` and iteration. Each chunk that holds some of them is
    decoded once, and no other.

    Parameters
    ----------
    location
        Where the run lies, for messages.
    name
        Public name of the layer.
    parts
        The layer in each part that holds it, or whose samples have no rows in it.
    sample_filter
        Which of their samples are shown. Parts and blocks are of all; rows and samples that are
        counted, indexed and iterated over, of those that stay.
    sample_parts
        The same parts, with what was recorded of their samples; none in another process, to which
        rows alone are sent.

    Raises
    ------
    FormatError
        If the parts disagree about neurons, threshold or dtype.
    """

    def __init__(
        self,
        location: str,
        name: str,
        parts: tuple[LayerPart, ...],
        sample_filter: SampleFilter = ALL_SAMPLES,
        sample_parts: tuple[Part, ...] = (),
    ) -> None:
        where = f"{location}: layer {printable(name)}"
        super().__init__([part.states for part in parts], where)
        self.location = location
        self.name = name
        self.parts = parts
        self.sample_filter = sample_filter
        self.sample_parts = sample_parts
        first = self.attributes
        for part in parts[1:]:
            other = part.attributes
            if any(getattr(first, name) != getattr(other, name) for name in _SAME_IN_ALL_PARTS):
                raise FormatError(
                    f"{self._where} has {other.neurons} neurons, threshold {other.threshold}, "
                    f"dtype {other.dtype} in {part.directory}, but {first.neurons}, "
                    f"{first.threshold}, {first.dtype} in {parts[0].directory}; analyse one part "
                    "or step at a time"
                )
        # Of samples that may have several positions: how many were chosen, or which share.
        kept = {
            (part.attributes.sampling or {}).get("positions"): part.directory
            for part in parts
            if part.rows and (part.attributes.position_shape or part.attributes.sampling)
        }
        if len(kept) > 1:
            # Rows of samples would weigh differently from part to part.
            said = " and ".join(f"positions={value} in {part}" for value, part in kept.items())
            raise FormatError(
                f"{self._where} was captured with {said}; expected one choice of positions in all "
                "parts; analyse one part or step at a time"
            )

    def __getstate__(self) -> dict[str, Any]:
        # A part knows all of its layers, and tasks on a cluster need this one.
        return self.__dict__ | {"sample_parts": ()}

    @property
    def attributes(self) -> LayerAttributes:
        """What the layer says of its rows, in its first part."""
        return self.parts[0].attributes

    @property
    def neurons(self) -> int:
        """Number of neurons: bits of a state."""
        return self.attributes.neurons

    @cached_property
    def samples(self) -> int:
        """Number of committed samples, of those that are shown."""
        return self.sample_filter.kept_samples(self)

    @cached_property
    def rows(self) -> int:
        """Number of committed rows, of the samples that are shown."""
        return self.sample_filter.kept_rows(self)

    @property
    def stored_rows(self) -> int:
        """Number of rows in all blocks, those of samples that are not shown as well."""
        return sum(part.rows for part in self.parts)

    @property
    def positions(self) -> int | None:
        """Rows of every sample, or None where they vary."""
        counts = {part.constant_positions for part in self.parts if part.samples}
        return counts.pop() if len(counts) == 1 else None

    @cached_property
    def largest_sample(self) -> int:
        """Rows of the sample that has most; they are read where they vary."""
        if self.positions is not None:
            return self.positions
        return max(int(piece.max()) for part in self.parts for piece in part.position_pieces())

    @property
    def lengths(self) -> tuple[int, int] | None:
        """The fewest and the most positions of a sample, of which some were chosen; None if all."""
        known = [part.lengths for part in self.parts if part.lengths is not None]
        return (min(known)[0], max(most for _, most in known)) if known else None

    def decode(self, key: Any = slice(None)) -> npt.NDArray[np.bool_]:
        """Return states as booleans, (n, neurons), or (neurons,) for one row.

        Parameters
        ----------
        key
            Which rows: an integer, a slice, or a list or an array of integers or of booleans.

        Raises
        ------
        RowIndexError
            If that means no rows, or some bytes of them.
        DamageError
            If a chunk is missing, or is not what was committed.
        StoreError
            If there is not enough memory.
        """
        rows, taken = self._select(key)
        if taken[1:]:
            raise RowIndexError(f"{self._where}: {key!r:.80} means bytes; decode whole rows")
        packed = self._read(rows)[taken]
        with taking_memory(self._where, packed.size // self.row_bytes * self.neurons):
            return bits.unpack(packed, self.neurons)

    def read_positions(self) -> npt.NDArray[np.int64]:
        """Return the rows of each sample, int64 (samples,)."""
        pieces = [
            self.sample_filter.select(part.read_positions(0, part.samples), part.directory, 0)
            for part in self.parts
        ]
        return np.concatenate(pieces)

    def blocks(self, target_rows: int) -> Iterator[Block]:
        """Yield all rows as blocks of whole samples, of about `target_rows` rows each.

        Blocks of which no sample is shown are not among them.
        """
        for index, part in enumerate(self.parts):
            for block in part.blocks(index, target_rows):
                if self.sample_filter.has_any(part.directory, block):
                    yield block

    def divide(self, block: Block, target_rows: int) -> Iterator[Block]:
        """Yield a block as smaller ones of whole samples, of `target_rows` rows at most."""
        yield from self.parts[block.part].divide(block, target_rows)

    def read_block(self, block: Block) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return a block's rows, uint8 (rows, row_bytes), and the rows of each of its samples.

        Those of samples that are not shown are left out.
        """
        part = self.parts[block.part]
        rows = part.states.read(block.first_row, block.first_row + block.rows)
        positions = part.read_positions(block.first_sample, block.samples)
        kept = self.sample_filter.kept(part.directory, block.first_sample, block.samples)
        if kept is None:
            return rows, positions
        return rows[np.repeat(kept, positions)], positions[kept]

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        if not self.sample_filter.samples:
            yield from super().__iter__()
            return
        step = self.parts[0].states.spec.chunk_rows
        for first in range(0, self.rows, step):
            yield from self._read(range(first, min(first + step, self.rows)))

    def _read(self, rows: RowNumbers) -> npt.NDArray[np.uint8]:
        """Return rows, numbered through the samples that are shown."""
        if not self.sample_filter.samples:
            return super()._read(rows)
        numbers = np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, range) else rows
        ends, left_out = self._left_out_before
        return super()._read(numbers + left_out[np.searchsorted(ends, numbers, side="right")])

    @cached_property
    def _left_out_before(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each sample shown: the rows shown up to its end, and those left out before it."""
        shown, left_out, before = [], [], 0
        for part in self.parts:
            positions = part.read_positions(0, part.samples)
            kept = self.sample_filter.mask(part.directory, 0, part.samples)
            skipped = before + np.cumsum(np.where(kept, 0, positions))
            shown.append(positions[kept])
            left_out.append(skipped[kept])
            before = int(skipped[-1]) if len(skipped) else before
        return np.cumsum(np.concatenate(shown)), np.concatenate(left_out)

    def samples_of(self, state: object) -> pd.DataFrame:
        """Return the samples that show a state, a line for each row of it.

        Parameters
        ----------
        state
            Its bytes as stored, as `tsstore.states` returns them, their hexadecimal digits, a
            boolean for each neuron, or a drawing of ■ and □.

        Returns
        -------
        pandas.DataFrame
            Indexed as `StateStore.samples_frame`: `position`, the number of the row in its sample,
            from 0; then the sample columns, in the order of the rows. A column that is called
            position itself, or as the index is, is ``"position (recorded)"``.

        Raises
        ------
        StoreError
            If it is no state of so many neurons, some parts lack a sample column, or the layer was
            sent to this process without its samples.
        DamageError
            If a chunk is missing, or is not what was committed.
        """
        if not self.sample_parts:
            raise StoreError(f"{self._where} is here without its samples; open the run here")
        row = parse_state(state, self.neurons, self._where)
        samples, position = find_rows(self.parts, row, self.sample_filter)
        return frame_of_samples(self.sample_parts, samples, {"position": position})

    def to_dask(self) -> da.Array:
        """Return the packed rows as a Dask array, uint8 (rows, row_bytes), chunked as stored."""
        import dask.array as da

        sizes: list[int] = []
        for part in self.parts:
            part.states.check_extent()
            rows = part.rows - self.sample_filter.rows_left_out(part)
            full, tail = divmod(rows, part.states.spec.chunk_rows)
            sizes += [part.states.spec.chunk_rows] * full + [tail] * (tail > 0)
        chunks = (tuple(sizes) or (0,), (self.row_bytes,))
        meta = np.empty((0, 0), np.uint8)
        array: da.Array = da.from_array(  # type: ignore[no-untyped-call]
            self, chunks=chunks, meta=meta, asarray=False
        )
        return array

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        commits = tuple((part.directory, part.states.commit) for part in self.parts)
        left_out = tuple(
            (directory, hashlib.sha256(own.tobytes()).hexdigest())
            for directory, own in self.sample_filter.left_out.items()
        )
        return type(self).__name__, self.location, self.name, commits, left_out

    def __repr__(self) -> str:
        known = self.positions
        positions = "varying positions" if known is None else counted(known, "position")
        return (
            f"<LayerStates {printable(self.name)}: {self.rows:,} rows of {self.neurons} neurons, "
            f"{self.samples:,} samples × {positions}>"
        )

    def _repr_html_(self) -> str:
        cells = layer_cells(self.attributes, self.positions, self.rows)
        return html_table(LAYER_HEADINGS, [cells])


def layer_cells(attributes: LayerAttributes, positions: int | None, rows: int) -> tuple[str, ...]:
    """Return a layer's line of the table of a store; its samples' `positions` vary if None."""
    return (
        printable(attributes.name),
        f"{attributes.neurons:,}",
        "varying" if positions is None else f"{positions:,}",
        f"{rows:,}",
        f"{attributes.threshold['given']:g}",
        printable(attributes.dtype),
    )
