"""Reading one array back: its metadata, its checksums, and each of its chunks against them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.store.chunked.chunk import decode
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.chunked.shard import ChunkReader
from tsstore.store.files.base import Bytes, Files
from tsstore.store.format.arrays import ArraySpec, read_array
from tsstore.store.format.documents import metadata_key, read_document
from tsstore.store.format.paths import ArrayPaths
from tsstore.store.format.record import ArrayCommit
from tsstore.store.maintenance.findings import Findings

ANY_NUMBER = 1 << 63
"""Of files: where it is not known how many there should be."""


@dataclass
class ArrayCheck:
    """Reads one committed array back, a chunk at a time, and collects what is wrong with it.

    `file_counts` are the numbers of files with committed chunks, by path of the array, once they
    have been looked for.
    """

    files: Files
    paths: ArrayPaths
    commit: ArrayCommit
    findings: Findings
    file_counts: dict[str, int] = field(default_factory=dict)

    def entries(
        self, dtype: str | None = None, row_shape: tuple[int, ...] | None = ()
    ) -> Iterator[npt.NDArray[Any]]:
        """Yield the committed entries of each chunk that is right; None stands for any type."""
        array = self._open(dtype, row_shape)
        checksums = self._checksums(array)
        if array is None:
            return
        spec = array.spec
        self._check_shape(self.paths.values, spec, array.rows)
        count = -(-array.rows // spec.chunk_rows)
        for index in self._present(spec, count, self.paths.values, array.stored):
            with self.findings.catching(spec.chunk_key(self.paths.values, index)):
                data = self._read(array.stored, index)
                entries = array.decode(index, data, checksums)
                if index == array.full_chunks:
                    yield entries[: self.commit.tail_rows]
                elif checksums is not None:
                    yield entries

    def _open(self, dtype: str | None, row_shape: tuple[int, ...] | None) -> CommittedArray | None:
        """Open the array; None where its metadata is damaged."""
        path = self.paths.values
        self.file_counts[path] = self.file_counts[self.paths.checksums] = ANY_NUMBER
        with self.findings.catching(metadata_key(path)):
            if row_shape is None:
                row_shape = read_array(self.files, path)[0].row_shape
            return CommittedArray.open(self.files, self.paths, self.commit, dtype, row_shape)
        return None

    def _checksums(self, array: CommittedArray | None) -> npt.NDArray[np.uint32] | None:
        """Return the checksums of all full chunks; None where they are damaged."""
        path = self.paths.checksums
        with self.findings.catching(metadata_key(path)):
            own, _ = read_array(self.files, path)
            if array is None:
                return None
            if (own.dtype, own.row_shape) != ("uint32", ()):
                self.findings.error(
                    metadata_key(path), f"it holds {own.dtype} {own.row_shape}, not checksums"
                )
                return None
            self._check_shape(path, own, array.full_chunks)
            stored = ChunkReader(self.files, path, own)
            wanted = -(-array.full_chunks // own.chunk_rows)
            pieces = []
            for index in self._present(own, wanted, path, stored):
                with self.findings.catching(own.chunk_key(path, index)):
                    pieces.append(decode(own, self._read(stored, index), stored.where(index)))
            with self.findings.catching(path):
                return array.joined_checksums(pieces) if len(pieces) == wanted else None
        return None

    def _present(
        self, spec: ArraySpec, count: int, path: str, stored: ChunkReader
    ) -> Iterator[int]:
        """Yield which of the first `count` chunks have a file; files that are missing are damage.

        A hostile record may claim any number of chunks: what counts is what there is.
        """
        files = -(-count // spec.file_chunks)
        self.file_counts[path] = files
        names = self.files.list(f"{path}/c") if files else []
        present = sorted({int(name) for name in names if name.isdecimal() and len(name) < 17})
        expected = 0
        for file in [file for file in present if file < files]:
            self._report_missing(spec, path, expected, file)
            expected = file + 1
            yield from self._chunks_of(spec, file, path, stored)[: count - file * spec.file_chunks]
        self._report_missing(spec, path, expected, files)

    def _names(self, directory: str) -> list[str] | None:
        """Return the names in a directory; None where it cannot be read."""
        with self.findings.catching(directory):
            return self.files.list(directory)
        return None

    def _chunks_of(self, spec: ArraySpec, file: int, path: str, stored: ChunkReader) -> range:
        """Return the chunks of a file; none where it is a shard whose index is damaged."""
        with self.findings.catching(spec.file_key(path, file)):
            stored.check_index(file)
            return range(file * spec.file_chunks, (file + 1) * spec.file_chunks)
        return range(0)

    def _report_missing(self, spec: ArraySpec, path: str, start: int, stop: int) -> None:
        if start < stop:
            and_more = f", and the {stop - start - 1:,} after it" if stop - start > 1 else ""
            self.findings.error(spec.file_key(path, start), f"it is missing{and_more}")

    def _read(self, stored: ChunkReader, index: int) -> Bytes:
        data = stored.read(index)
        self.findings.count_chunk(data)
        return data

    def _check_shape(self, path: str, spec: ArraySpec, rows: int) -> None:
        """Note where plain Zarr readers see another number of entries than is committed."""
        with self.findings.catching(metadata_key(path)):
            shape = read_document(self.files, path).get("shape")
            if shape != [rows, *spec.row_shape]:
                seen = f"plain Zarr readers see shape {shape!r:.80}"
                self.findings.note(
                    metadata_key(path),
                    f"{seen}, but {rows:,} entries are committed",
                    "tsstore repair puts it right",
                )
