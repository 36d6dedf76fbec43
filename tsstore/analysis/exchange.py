"""Records on their way from blocks to partitions: in memory, or in scratch files."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsstore.analysis.memory import format_memory
from tsstore.counting.records import Records
from tsstore.errors import AnalysisError, CountingError
from tsstore.statistics.groups import GroupChanges

_ENTRY = struct.Struct("<QQI")
_WRITE_BUFFER = 1 << 18
_REMOVALS = 20


class Slices(Protocol):
    """A block's records, by partition."""

    @property
    def total(self) -> int:
        """Number of records."""

    def read(self, partition: int) -> Records:
        """Return the records of one partition."""


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
    slices
        The records.
    groups
        The same by group of samples, without changes of the spectrum; None without groups.
    """

    rows: int
    equal_pairs_within_samples: int
    pairs_within_samples: int
    slices: Slices
    groups: GroupChanges | None = None


@dataclass(frozen=True)
class HeldSlices:
    """Records in memory.

    Attributes
    ----------
    records
        Those of partition 0, then of partition 1, and so on.
    offsets
        int64 (partitions + 1,): where each partition's records begin.
    """

    records: Records
    offsets: npt.NDArray[np.int64]

    @property
    def total(self) -> int:
        """Number of records."""
        return len(self.records)

    def read(self, partition: int) -> Records:
        """Return the records of one partition, as views."""
        return self.records[int(self.offsets[partition]) : int(self.offsets[partition + 1])]


@dataclass(frozen=True)
class FiledSlices:
    """Records in a scratch file.

    It begins with an entry for each partition: which records are its own, and their checksum.
    Each partition's keys follow, then its multiplicities, its incidences and, if the records tell
    groups apart, its groups.

    Attributes
    ----------
    file
        Path of the file.
    partitions
        Number of partitions.
    total
        Number of records.
    words
        Words of a key.
    grouped
        Whether the records tell groups apart.
    """

    file: str
    partitions: int
    total: int
    words: int
    grouped: bool = False

    def read(self, partition: int) -> Records:
        """Return the records of one partition.

        Raises
        ------
        CountingError
            If the file is gone, short or changed.
        """
        try:
            with open(self.file, "rb") as file:
                file.seek(partition * _ENTRY.size)
                start, stop, checksum = self._entry(file.read(_ENTRY.size))
                width = 8 * self.words + 8 + self.grouped
                file.seek(self.partitions * _ENTRY.size + start * width)
                data = file.read((stop - start) * width)
        except OSError as error:
            raise CountingError(
                f"scratch file {self.file} cannot be read ({error.strerror}); was it removed? "
                "Analyse again"
            ) from error
        if _checksum(partition, start, stop, [data]) != checksum:
            raise self._changed()
        return _parse(data, stop - start, self.words, self.grouped)

    def _entry(self, data: bytes) -> tuple[int, int, int]:
        if len(data) == _ENTRY.size:
            start, stop, checksum = _ENTRY.unpack(data)
            if start <= stop <= self.total:
                return start, stop, checksum
        raise self._changed()

    def _changed(self) -> CountingError:
        return CountingError(
            f"scratch file {self.file} has changed while it was in use; analyse again, with a "
            "folder that nothing else writes to as scratch="
        )


def spill(records: Records, offsets: npt.NDArray[np.int64], folder: str) -> FiledSlices:
    """Write a block's records to a file of their own.

    A task that runs twice writes two files, of which only the one with a receipt is read.

    Parameters
    ----------
    records, offsets
        As :class:`HeldSlices` has them.
    folder
        Where to write.

    Raises
    ------
    AnalysisError
        If the file cannot be written.
    """
    path = Path(folder) / f"{uuid.uuid4().hex}.records"
    columns, entries = _columns(records), []
    try:
        with open(path, "xb", buffering=_WRITE_BUFFER) as file:
            file.seek((len(offsets) - 1) * _ENTRY.size)
            for partition, (start, stop) in enumerate(pairwise(offsets.tolist())):
                slices = [column[start * width : stop * width] for column, width in columns]
                entries.append(_ENTRY.pack(start, stop, _checksum(partition, start, stop, slices)))
                file.writelines(piece.data for piece in slices)
            file.seek(0)
            file.writelines(entries)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise AnalysisError(
            f"scratch folder {folder}: {format_memory(records.nbytes)} cannot be written "
            f"({error.strerror}); free some space, or pass another folder as scratch="
        ) from error
    grouped = records.group is not None
    return FiledSlices(str(path), len(entries), len(records), records.words, grouped)


@contextmanager
def scratch_folder(parent: str | None) -> Iterator[str]:
    """Make a scratch folder, and remove it with all that is in it.

    Raises
    ------
    AnalysisError
        If it cannot be made.
    """
    parent = os.path.abspath(parent or tempfile.gettempdir())
    try:
        folder = tempfile.mkdtemp(prefix="tsstore-", dir=parent)
    except OSError as error:
        raise AnalysisError(
            f"scratch folder {parent} cannot be used ({error.strerror}); pass another one as "
            "scratch="
        ) from error
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: str) -> None:
    """Remove a folder, although tasks that an error left behind may still be writing to it."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.05)


def _columns(records: Records) -> list[tuple[npt.NDArray[np.uint8], int]]:
    """Return all columns as bytes, with the bytes of a record in each."""
    keys = records.keys.reshape(-1).view(np.uint8)
    multiplicity, incidence = records.multiplicity.view(np.uint8), records.incidence.view(np.uint8)
    columns = [(keys, 8 * records.words), (multiplicity, 4), (incidence, 4)]
    return columns if records.group is None else [*columns, (records.group, 1)]


def _parse(data: bytes, count: int, words: int, grouped: bool) -> Records:
    keys = np.frombuffer(data, np.uint64, count * words).reshape(-1, words)
    counts = np.frombuffer(data, np.uint32, 2 * count, offset=keys.nbytes).reshape(2, -1)
    group = np.frombuffer(data, np.uint8, count, keys.nbytes + counts.nbytes) if grouped else None
    return Records(keys, counts[0], counts[1], group)


def _checksum(partition: int, start: int, stop: int, parts: Sequence[object]) -> int:
    """Return crc32c of a slice and of what its entry says: no entry can stand for another."""
    value: int = google_crc32c.value(_ENTRY.pack(start, stop, partition))
    for part in parts:
        value = google_crc32c.extend(value, part)
    return value
