"""Reading one array back: its metadata, its checksums, and each of its chunks against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.store.chunked.chunk import decode
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.chunked.shard import ChunkReader
from tsstore.store.files.base import Files
from tsstore.store.format.arrays import ArraySpec, read_array
from tsstore.store.format.documents import metadata_key, read_document
from tsstore.store.format.paths import ArrayPaths
from tsstore.store.format.record import ArrayCommit
from tsstore.store.maintenance.findings import Findings
from tsstore.store.threads import in_threads

ANY_NUMBER = 1 << 63
"""Of files: where it is not known how many there should be."""


@dataclass
class ArrayCheck:
    """Reads one committed array back, some chunks at a time, and collects what is wrong with it.

    `file_counts` are the numbers of files with committed chunks, by path of the array, once they
    have been looked for. Where `stopped` is set, no further chunk is begun.
    """

    files: Files
    paths: ArrayPaths
    commit: ArrayCommit
    findings: Findings
    threads: int = 1
    stopped: Event = field(default_factory=Event)
    file_counts: dict[str, int] = field(default_factory=dict)

    def read(
        self,
        dtype: str | None = None,
        row_shape: tuple[int, ...] | None = (),
        is_wrong: Callable[[npt.NDArray[Any]], bool] | None = None,
    ) -> int:
        """Read all chunks back; return of how many the entries, right as stored, are wrong.

        Entries must be of that dtype and shape; None stands for any. As many chunks are held in
        memory as there are threads.
        """
        array = self._open(dtype, row_shape)
        checksums = self._checksums(array)
        if array is None:
            return 0
        spec, path = array.spec, self.paths.values
        self._check_shape(path, spec, array.rows)

        def check(place: int | Findings) -> tuple[Findings, bool]:
            if isinstance(place, Findings):
                return place, False
            found, wrong = self.findings.beside(), False
            with found.catching(spec.chunk_key(path, place)):
                data = array.stored.read(place)
                found.count_chunk(data)
                entries = array.decode(place, data, checksums)
                if place == array.full_chunks:
                    entries = entries[: self.commit.tail_rows]
                if is_wrong is not None and (place == array.full_chunks or checksums is not None):
                    wrong = is_wrong(entries)
            return found, wrong

        wrong = 0
        places = self._places(spec, -(-array.rows // spec.chunk_rows), path, array.stored)
        for found, is_one in in_threads(check, places, self.threads):
            self.findings.extend(found)
            wrong += is_one
        return wrong

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
            for place in self._places(own, wanted, path, stored):
                if isinstance(place, Findings):
                    self.findings.extend(place)
                    continue
                with self.findings.catching(own.chunk_key(path, place)):
                    data = stored.read(place)
                    self.findings.count_chunk(data)
                    pieces.append(decode(own, data, stored.where(place)))
            with self.findings.catching(path):
                return array.joined_checksums(pieces) if len(pieces) == wanted else None
        return None

    def _places(
        self, spec: ArraySpec, count: int, path: str, stored: ChunkReader
    ) -> Iterator[int | Findings]:
        """Yield which of the first `count` chunks have a file; files that are missing are damage.

        A hostile record may claim any number of chunks: what counts is what there is. Findings
        come in their places between the chunks.
        """
        files = -(-count // spec.file_chunks)
        self.file_counts[path] = files
        names = self.files.list(f"{path}/c") if files else []
        present = sorted({int(name) for name in names if name.isdecimal() and len(name) < 17})
        expected = 0
        for file in [file for file in present if file < files]:
            yield self._missing(spec, path, expected, file)
            expected = file + 1
            found = self.findings.beside()
            with found.catching(spec.file_key(path, file)):
                stored.check_index(file)
                chunks = range(file * spec.file_chunks, min((file + 1) * spec.file_chunks, count))
                yield from takewhile(lambda _: not self.stopped.is_set(), chunks)
            yield found
        yield self._missing(spec, path, expected, files)

    def _missing(self, spec: ArraySpec, path: str, start: int, stop: int) -> Findings:
        found = self.findings.beside()
        if start < stop:
            and_more = f", and the {stop - start - 1:,} after it" if stop - start > 1 else ""
            found.error(spec.file_key(path, start), f"it is missing{and_more}")
        return found

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
