"""Writing one layer of a part: its states, and its numbers of rows by sample where they vary."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tsstore.store.chunked.encoders import Encoder
from tsstore.store.chunked.reader import ArrayWriter
from tsstore.store.files.base import Files
from tsstore.store.format.arrays import MAX_CHUNK_BYTES, ArraySpec, sample_spec
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.format.documents import write_group
from tsstore.store.format.paths import layer_path, positions_paths, states_paths
from tsstore.store.format.record import LayerCommit
from tsstore.store.writing.batch import LayerBatch


class LayerWriter:
    """The arrays of one layer; `positions` begins when a sample first has more or fewer rows."""

    def __init__(
        self,
        files: Files,
        part: str,
        directory: str,
        attributes: LayerAttributes,
        spec: ArraySpec,
        samples_before: int = 0,
        encoder: Encoder | None = None,
    ) -> None:
        self.directory = directory
        self.row_bytes = attributes.row_bytes
        self._files = files
        self._part = part
        write_group(files, layer_path(part, directory), attributes.to_json())
        paths = states_paths(part, directory)
        self._states = ArrayWriter(files, paths, spec, encoder=encoder)
        self._positions: ArrayWriter | None = None
        self._constant = 0 if samples_before else None
        self._chooses = "positions" in (attributes.sampling or {})
        self._lengths: tuple[int, int] | None = None
        self._has_chosen = False

    def append(self, batch: LayerBatch, samples_before: int) -> None:
        """Append a batch's rows, after so many samples."""
        self._states.append(batch.rows)
        if self._chooses and len(batch.positions):
            self._has_chosen |= batch.lengths is not None
            self._lengths = merge_lengths([self._lengths, batch.lengths or _ends(batch.positions)])
        if self._positions is None and not self._is_constant(batch.positions):
            self._begin_positions(samples_before)
        if self._positions is not None:
            self._positions.append(batch.positions)

    def flush(self) -> LayerCommit:
        """Write unfinished chunks and return what to commit."""
        positions = None if self._positions is None else self._positions.flush()
        lengths = self._lengths if self._has_chosen else None
        return LayerCommit(self._states.flush(), positions, lengths)

    def write_shapes(self) -> None:
        """Let plain Zarr readers see the committed rows."""
        self._states.write_shape()
        if self._positions is not None:
            self._positions.write_shape()

    def _is_constant(self, positions: npt.NDArray[np.int64]) -> bool:
        if self._constant is None and len(positions):
            self._constant = int(positions[0])
        return bool(np.all(positions == self._constant))

    def _begin_positions(self, samples_before: int) -> None:
        paths = positions_paths(self._part, self.directory)
        spec = sample_spec("int64")
        self._positions = ArrayWriter(self._files, paths, spec)
        # Piece by piece: the samples so far may be many, and all had the same number of rows.
        piece = np.full(spec.chunk_rows, self._constant or 0, dtype=np.int64)
        for start in range(0, samples_before, len(piece)):
            self._positions.append(piece[: samples_before - start])


def merge_lengths(lengths: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    """Return the fewest and the most of all that are known; None if none are."""
    known = [ends for ends in lengths if ends is not None]
    return (min(ends[0] for ends in known), max(ends[1] for ends in known)) if known else None


def _ends(positions: npt.NDArray[np.int64]) -> tuple[int, int]:
    return int(positions.min()), int(positions.max())


def chunk_rows(row_bytes: int, positions: int, chunk_bytes: int) -> int:
    """Return rows of a chunk: of whole samples where one fits."""
    rows = max(min(chunk_bytes, MAX_CHUNK_BYTES) // row_bytes, 1)
    return rows - rows % positions if 0 < positions <= rows else rows
