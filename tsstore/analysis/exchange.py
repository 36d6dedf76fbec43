"""Records on their way from blocks to partitions: in memory, or in scratch files."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsstore.analysis.memory import format_memory
from tsstore.counting.records import Records
from tsstore.errors import AnalysisError, CountingError


@dataclass(frozen=True)
class Receipt:
    """What a block task hands on.

    Attributes
    ----------
    rows
        Rows that the block's records stand for.
    equal_pairs_within_samples
        Pairs of equal rows within one sample.
    pairs_within_samples
        Pairs of rows within one sample.
    offsets
        int64 (partitions + 1,): where each partition's records begin.
    records
        The records, by partition; None if they are in a file.
    file
        The scratch file; None if the records are in memory.
    checksums
        crc32c of each partition's records in the file.
    words
        Words of a key.
    """

    rows: int
    equal_pairs_within_samples: int
    pairs_within_samples: int
    offsets: npt.NDArray[np.int64]
    records: Records | None
    file: str | None = None
    checksums: npt.NDArray[np.uint32] | None = None
    words: int = 1

    def read(self, partition: int) -> Records:
        """Return the records of one partition.

        Raises
        ------
        CountingError
            If the scratch file is gone, short or changed.
        """
        start, stop = (int(offset) for offset in self.offsets[partition : partition + 2])
        if self.records is not None:
            return self.records[start:stop]
        return self._read_file(partition, start, stop)

    def _read_file(self, partition: int, start: int, stop: int) -> Records:
        assert self.file is not None and self.checksums is not None
        total = int(self.offsets[-1])
        parts = []
        try:
            with open(self.file, "rb") as file:
                for begin, width in _sections(total, self.words):
                    file.seek(begin + start * width)
                    parts.append(file.read((stop - start) * width))
        except OSError as error:
            raise CountingError(f"scratch file {self.file} cannot be read: {error}") from error
        if _checksum(parts) != int(self.checksums[partition]):
            raise CountingError(f"scratch file {self.file} has changed while it was in use")
        keys = np.frombuffer(parts[0], dtype=np.uint64).reshape(-1, self.words)
        multiplicity, incidence = (np.frombuffer(part, dtype=np.uint32) for part in parts[1:])
        return Records(keys, multiplicity, incidence)


def spill(records: Records, offsets: npt.NDArray[np.int64], folder: str) -> tuple[str, Any]:
    """Write a block's records to a file of their own; return its name and checksums.

    A task that runs twice writes two files, of which only the one with a receipt is read.

    Raises
    ------
    AnalysisError
        If the file cannot be written.
    """
    path = Path(folder) / f"{uuid.uuid4().hex}.records"
    arrays = (records.keys, records.multiplicity, records.incidence)
    try:
        with open(path, "xb") as file:
            for array in arrays:
                file.write(memoryview(array).cast("B") if array.size else b"")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise AnalysisError(
            f"scratch folder {folder}: {format_memory(records.nbytes)} cannot be written "
            f"({error.strerror}); free some space, or pass another folder as scratch="
        ) from error
    checksums = [
        _checksum([array[start:stop].tobytes() for array in arrays])
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    return str(path), np.array(checksums, dtype=np.uint32)


@contextmanager
def scratch_folder(parent: str | None) -> Iterator[str]:
    """Make a scratch folder, and remove it with all that is in it.

    Raises
    ------
    AnalysisError
        If it cannot be made.
    """
    try:
        folder = tempfile.mkdtemp(prefix="tsstore-", dir=parent)
    except OSError as error:
        raise AnalysisError(
            f"scratch folder {parent or tempfile.gettempdir()} cannot be used ({error.strerror}); "
            "pass another one as scratch="
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sections(total: int, words: int) -> list[tuple[int, int]]:
    """Return where keys, multiplicities and incidences begin, and the bytes of one of each."""
    key_bytes = 8 * words
    return [(0, key_bytes), (total * key_bytes, 4), (total * (key_bytes + 4), 4)]


def _checksum(parts: list[bytes]) -> int:
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, part)
    return value
