"""Records on their way from blocks to partitions: in memory, or in files of scratch.

These lie in a folder, in object storage, or in the memory of a cluster's workers.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.beside import Results
from tsstore.analysis.execution.scratch_objects import ObjectReader, SpanReader, written_objects
from tsstore.analysis.execution.worker_records import HeldReader, HeldWriter, is_held, this_holder
from tsstore.analysis.planning.cost import ASKING_THREADS, FRAME_BYTES, file_bytes
from tsstore.counting.parts import PartColumns, PartPiece, Parts, gather, subpartitions_of
from tsstore.counting.records import Records, record_bytes
from tsstore.errors import AnalysisError, CountingError
from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.store.files.open import is_url
from tsstore.store.threads import in_threads
from tsstore.text import format_memory

_ENTRY = struct.Struct("<QQQI")
_FRAME = struct.Struct("<QQI")
_WRITE_BUFFER = 1 << 18

Scattered = tuple[Records, npt.NDArray[np.int64]]
"""Records by partition, and where each partition's begin, as :func:`scatter` gives them."""


class Slices(Protocol):
    """A block's records, by partition."""

    @property
    def total(self) -> int:
        """Number of records."""

    def read(self, partition: int) -> Iterable[Records]:
        """Return the records of one partition, in pieces."""


@dataclass(frozen=True)
class Receipt:
    """What a block task hands on: its records, and the rows and pairs that these stand for.

    `groups` are the same numbers by group of samples; None without groups. `beside` is what else
    was made of the rows.
    """

    rows: int
    equal_pairs_within_samples: int
    pairs_within_samples: int
    slices: Slices
    groups: SpectrumDelta | None = None
    beside: Results = ()


@dataclass(frozen=True)
class Receipts:
    """What a task hands on that turned blocks of two layers into records."""

    first: Receipt
    second: Receipt


@dataclass(frozen=True)
class HeldSlices:
    """Records in memory, piece by piece."""

    pieces: Sequence[Scattered]

    @property
    def total(self) -> int:
        """Number of records."""
        return sum(len(records) for records, _ in self.pieces)

    def read(self, partition: int) -> list[Records]:
        """Return the records of one partition, as views."""
        return [
            records[offsets[partition] : offsets[partition + 1]]
            for records, offsets in self.pieces
            if offsets[partition] < offsets[partition + 1]
        ]


@dataclass(frozen=True)
class DividedSlices:
    """Records in memory that are divided into subpartitions, by so many bits more.

    `bits` are those of partitions, and `divided_bits` further ones.
    """

    pieces: Sequence[PartPiece]
    bits: int
    divided_bits: int

    @property
    def total(self) -> int:
        """Number of records."""
        return sum(len(piece.records) for piece in self.pieces)

    def read(self, partition: int) -> Iterator[Records]:
        """Yield the records of one partition."""
        parts = Parts(self.pieces, self.bits + self.divided_bits)
        for part in subpartitions_of(partition, self.divided_bits):
            yield from (records for records in parts.of(part) if len(records))


@dataclass(frozen=True)
class FiledSlices:
    """Records in a scratch file.

    Frames follow each other, partition by partition. A frame begins with how many bare records and
    how many others it has and a checksum of all; of either kind follow the keys, then
    multiplicities and incidences unless they are bare, then groups if they are told apart. The file
    ends with an entry for each partition: where its frames begin, their bytes, how many there are,
    and a checksum of that.

    Attributes
    ----------
    file
        Its path, or its URL; or which worker holds it.
    entries
        Where the entries begin.
    """

    file: str
    partitions: int
    total: int
    words: int
    group_bytes: int
    entries: int

    def read(self, partition: int) -> Iterator[Records]:
        """Yield a partition's records, some at a time; CountingError if the file has changed."""
        if self.is_far:
            yield from self.ask(partition, this_holder() if is_held(self.file) else None)
            return
        with _reading(self.file) as file:
            yield from self._read_frames(file, partition, self._go_to(file, partition))

    @property
    def is_far(self) -> bool:
        """Whether the file is objects, or in the memory of a worker: its bytes come late."""
        return is_held(self.file) or is_url(self.file)

    def ask(self, partition: int, holder: Any) -> Iterator[Records]:
        """Return what `read` does, of a far file, with the first bytes there already.

        Those in the memory of workers are fetched by what holds records for this worker.
        """
        file: SpanReader
        file = HeldReader(self.file, holder) if is_held(self.file) else ObjectReader(self.file)
        frames = self._go_to(file, partition)
        file.look_ahead()
        return self._read_frames(file, partition, frames)

    def _go_to(self, file: _Reader, partition: int) -> int:
        """Go to where a partition begins, and return how many frames it has."""
        file.go_to(self.entries + partition * _ENTRY.size, _ENTRY.size)
        data = file.read(_ENTRY.size)
        if len(data) != _ENTRY.size:
            raise self._changed()
        start, size, frames, checksum = _ENTRY.unpack(data)
        if checksum != _checksum(partition, start, size, frames):
            raise self._changed()
        file.go_to(start, size)
        return int(frames)

    def _read_frames(self, file: _Reader, partition: int, frames: int) -> Iterator[Records]:
        for frame in range(frames):
            yield from self._read_frame(file, partition, frame)

    def _read_frame(self, file: _Reader, partition: int, frame: int) -> Iterator[Records]:
        header = file.read(_FRAME.size)
        if len(header) != _FRAME.size:
            raise self._changed()
        bare, others, checksum = _FRAME.unpack(header)
        split = bare * record_bytes(self.words, True, self.group_bytes)
        size = split + others * record_bytes(self.words, False, self.group_bytes)
        if bare + others > self.total:
            raise self._changed()
        data = file.read(size)
        if checksum != _checksum(partition, frame, bare, others, data):
            raise self._changed()
        for kind, count, part in ((True, bare, data[:split]), (False, others, data[split:])):
            if count:
                yield _parse(part, count, self.words, kind, self.group_bytes)

    def _changed(self) -> CountingError:
        return CountingError(
            f"scratch file {self.file} has changed while it was in use; analyse again, with a "
            "place that nothing else writes to as scratch="
        )


def read_slices(every: Sequence[Slices], partition: int) -> Iterator[Records]:
    """Yield all records of a partition, block after block.

    What is in object storage, or held by workers, is asked for before its turn has come.
    """
    filed = [slices for slices in every if isinstance(slices, FiledSlices)]
    # Of the task: threads that ask for it know of no worker.
    holder = this_holder() if any(is_held(slices.file) for slices in filed) else None

    def begin(slices: Slices) -> Iterable[Records]:
        if isinstance(slices, FiledSlices) and slices.is_far:
            return slices.ask(partition, holder)
        return slices.read(partition)

    far = any(slices.is_far for slices in filed)
    for pieces in in_threads(begin, every, ASKING_THREADS if far else 1):
        yield from pieces


def spill(pieces: Sequence[Scattered], folder: str) -> FiledSlices:
    """Write a block's records, of at least one piece, to a file of their own in scratch.

    A task that runs twice writes two files, of which only the one with a receipt is read.
    AnalysisError if the file cannot be written, AccessError if an object store takes none.
    """
    name, partitions = uuid.uuid4().hex, len(pieces[0][1]) - 1
    if is_held(folder):
        held = HeldWriter(folder, name, file_bytes(sum(of.nbytes for of, _ in pieces), partitions))
        end = _write_file(held, pieces, partitions)
        file = held.hold()
    else:
        file = f"{folder}/{name}.records"
        with written_objects(file) if is_url(folder) else _written(file, pieces) as out:
            end = _write_file(out, pieces, partitions)
    first = pieces[0][0]
    total = sum(len(records) for records, _ in pieces)
    return FiledSlices(file, partitions, total, first.words, first.group_bytes, end)


class _Writer(Protocol):
    """A new scratch file."""

    def tell(self) -> int: ...

    def write(self, data: bytes, /) -> int: ...

    def writelines(self, pieces: Iterable[bytes | memoryview], /) -> None: ...


class _Reader(Protocol):
    """A scratch file of which spans are read, each from its beginning."""

    def go_to(self, start: int, size: int) -> None: ...

    def read(self, size: int) -> bytes: ...


class _LocalReader:
    """A scratch file in a folder; nothing is read ahead."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.read = file.read

    def go_to(self, start: int, size: int) -> None:
        """Begin a span."""
        self._file.seek(start)


@contextmanager
def _written(path: str, pieces: Sequence[Scattered]) -> Iterator[IO[bytes]]:
    """Yield a new file in a folder, which is removed if it cannot be written."""
    try:
        with open(path, "xb", buffering=_WRITE_BUFFER) as file:
            yield file
    except OSError as error:
        with suppress(OSError):
            os.unlink(path)
        if not os.path.isdir(folder := os.path.dirname(path)):
            raise _folder_unseen(folder) from error
        raise _not_written(folder, pieces, error) from error


@contextmanager
def _reading(path: str) -> Iterator[_Reader]:
    """Yield what reads a scratch file in a folder."""
    try:
        with open(path, "rb", buffering=0) as file:
            yield _LocalReader(file)
    except OSError as error:
        if not os.path.isdir(folder := os.path.dirname(path)):
            raise _folder_unseen(folder) from error
        gone = isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
        raise (CountingError if gone else AnalysisError)(
            f"scratch file {path} cannot be read ({error.strerror}); "
            f"{'was it removed? Analyse again' if gone else 'analyse again'}"
        ) from error


def _write_file(out: _Writer, pieces: Sequence[Scattered], partitions: int) -> int:
    """Write a whole scratch file; return where its entries begin."""
    bits = (partitions - 1).bit_length()
    kinds = [[piece for piece in pieces if piece[0].is_bare == bare] for bare in (True, False)]
    # Their columns are read as long as these are.
    parts = [(own[0][0], Parts([PartPiece(*piece) for piece in own], bits)) for own in kinds if own]
    entries = [_write_slice(out, parts, partition) for partition in range(partitions)]
    end = out.tell()
    out.writelines(entries)
    return end


def _write_slice(file: _Writer, kinds: Sequence[tuple[Records, Parts]], partition: int) -> bytes:
    """Write a partition's records of either kind; return its entry."""
    start, number = file.tell(), 0
    for like, parts in kinds:
        for frame in _frames(like, parts.columns, partition):
            bare, others = (len(frame), 0) if frame.is_bare else (0, len(frame))
            columns = [array.reshape(-1).view(np.uint8) for array in frame.arrays()]
            checksum = _checksum(partition, number, bare, others, *columns)
            file.write(_FRAME.pack(bare, others, checksum))
            file.writelines(column.data for column in columns)
            number += 1
            del frame, columns  # before the next one is gathered
    numbers = start, file.tell() - start, number
    return _ENTRY.pack(*numbers, _checksum(partition, *numbers))


def _frames(like: Records, columns: PartColumns, partition: int) -> Iterator[Records]:
    """Yield a partition's records of a kind, some pieces together: each frame is read at once."""
    ends = np.cumsum(columns.ends[:, partition + 1] - columns.ends[:, partition])
    most = -(-FRAME_BYTES // record_bytes(like.words, like.is_bare, like.group_bytes))
    first = before = 0
    while first < len(ends) and before < ends[-1]:
        stop = min(int(np.searchsorted(ends, before + most)) + 1, len(ends))
        yield gather(columns.of_pieces(first, stop), partition, like)
        first, before = stop, int(ends[stop - 1])


def _folder_unseen(folder: str) -> AnalysisError:
    """Return the error of a process that came later, perhaps, where the folder is not to be had."""
    return AnalysisError(
        f"scratch folder {folder} is not there, as seen from {socket.gethostname()}; pass a folder "
        "on a file system that all workers share as scratch=, and leave what is in it alone; or "
        "pass object storage, such as s3://bucket/scratch"
    )


def _not_written(folder: str, pieces: Sequence[Scattered], error: OSError) -> AnalysisError:
    size = sum(records.nbytes for records, _ in pieces)
    free = ""
    with suppress(OSError):
        free = f", {format_memory(shutil.disk_usage(folder).free)} are free"
    return AnalysisError(
        f"scratch folder {folder}: {format_memory(size)} of a block cannot be written "
        f"({error.strerror}){free}; free some space, or pass another folder as scratch=, or give "
        "more memory"
    )


def _parse(data: bytes, count: int, words: int, bare: bool, group_bytes: int) -> Records:
    keys = np.frombuffer(data, np.uint64, count * words).reshape(-1, words)
    counts = np.frombuffer(data, np.uint32, 0 if bare else 2 * count, keys.nbytes).reshape(2, -1)
    start = keys.nbytes + counts.nbytes
    group = np.frombuffer(data, f"u{group_bytes}", count, start) if group_bytes else None
    return Records(keys, None if bare else counts[0], None if bare else counts[1], group)


def _checksum(*parts: int | bytes | npt.NDArray[np.uint8]) -> int:
    """Return crc32c of numbers and bytes: no entry or frame can stand for another."""
    value = 0
    for part in parts:
        data = part.to_bytes(8, "little") if isinstance(part, int) else part
        value = google_crc32c.extend(value, data)
    return value
