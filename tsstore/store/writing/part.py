"""Writing one part of a run: append batches, commit, seal; and sealing one of another process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from tsstore.errors import (
    DamageError,
    PartSealedError,
    StoreError,
    StoreExistsError,
    TsstoreError,
)
from tsstore.store.chunked.writer import Compression
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.documents import (
    create_group,
    find_attributes,
    metadata_key,
    now,
    write_group,
)
from tsstore.store.format.paths import commit_path, part_directory, seal_path
from tsstore.store.format.record import CommitRecord, Seal
from tsstore.store.process import process_name, this_process
from tsstore.store.reading.part import CONTAINERS, read_record, read_seal
from tsstore.store.writing.batch import Batch, PartArrays


class PartWriter:
    """Writes one part: one process, for ever.

    A batch is appended to every layer and column; :meth:`commit` puts all appended batches on disk
    for good, or none.

    Parameters
    ----------
    files
        Where the run lies; its root exists.
    part
        What to say of this process; attempt, start and process are filled in here.
    chunk_bytes
        Size of a decoded chunk of states; chosen by the number of layers unless given.
    attempt
        Which attempt the part must be, 0 for the first of its rank, or StoreExistsError is raised;
        the first that is free unless given.
    begin
        Whether to create the part now, rather than with its first batch.

    Attributes
    ----------
    begun
        Whether the part has been created.
    sealed
        Whether it takes no more batches.
    closed
        Whether that is because it was sealed by this writer.
    waited
        Seconds that the job has waited for this writer, where somebody keeps that; commits say it.
    """

    def __init__(
        self,
        files: Files,
        part: PartAttributes,
        *,
        compression: Compression | None = None,
        chunk_bytes: int | None = None,
        attempt: int | None = None,
        begin: bool = True,
    ) -> None:
        self._files = files
        self.record = CommitRecord()
        self.begun = self.sealed = self.closed = False
        self.waited: float | None = None
        self.attributes = part
        self.choose_attempt(attempt)
        self._arrays = PartArrays(files, self.directory, compression or Compression(), chunk_bytes)
        if begin:
            self.begin()

    @property
    def directory(self) -> str:
        """The part's directory in the run."""
        return part_directory(self.attributes.rank, self.attributes.attempt)

    @property
    def started(self) -> bool:
        """Whether layers and columns have been defined."""
        return bool(self._arrays)

    def choose_attempt(self, attempt: int | None) -> None:
        """Say which attempt the part must be that has not begun; the first that is free if None."""
        self._attempt = attempt
        self.attributes = replace(self.attributes, attempt=attempt or 0)

    def begin(self) -> None:
        """Create the part, exclusively, unless that has been done."""
        if not self.begun:
            self.attributes = create_part(self._files, self.attributes, self._attempt)
            self._arrays.part = self.directory
            self.begun = True

    def define(
        self,
        layers: Mapping[str, LayerAttributes],
        positions: Mapping[str, int],
        columns: Mapping[str, str],
    ) -> None:
        """Create the arrays of layers, and, the first time, of sample columns.

        Samples appended before have no positions in a layer that is defined later. `positions` are
        the rows of a sample in the first batch: chunks hold whole samples where they can. `columns`
        are dtype names.
        """
        self.begin()
        if not self._arrays.defined:
            create_groups(self._files, self.directory)
        self._arrays.define(layers, positions, columns)

    def append(self, batch: Batch) -> None:
        """Append a batch, or refuse it whole; it counts from the next commit on."""
        self._check_open()
        self._arrays.append(batch)

    def commit(self) -> CommitRecord:
        """Put all appended batches on disk for good: chunks, then the record, then shapes.

        After the end, and before the beginning, there is nothing to do. PartSealedError where the
        part has been sealed by another process; StoreError where a batch could not be appended
        whole, or the part has been deleted.
        """
        if self.closed or not self.begun:
            return self.record
        self._arrays.check_whole()
        if self.record.generation and self.record.batches == self._arrays.batches:
            return self.record
        self._check_open()
        self._check_seal()
        if not self._arrays.defined:
            # The empty record that comes with the first layers must be the first one.
            return self.record
        record = CommitRecord(
            generation=self.record.generation + 1,
            batches=self._arrays.batches,
            samples=self._arrays.samples,
            time=now(),
            layers=self._arrays.flush_layers(),
            columns=self._arrays.flush_columns(),
            waited=self.waited,
        )
        self._files.sync()
        write_group(self._files, commit_path(self.directory), record.to_json())
        self._files.sync()
        self._check_seal()
        self.record = record
        self._arrays.write_shapes()
        return record

    def seal(self, why: str = "closed") -> None:
        """Commit, then freeze the part for ever."""
        if self.sealed:
            return
        self.begin()
        record = self.commit()
        self._check_seal()
        try:
            create_seal(self._files, self.directory, record, why, waited=self.waited)
        except FileExistsError:
            self._check_seal()
        self._files.sync()
        self._end()
        self.closed = True

    def fail(self, why: str) -> None:
        """Freeze the part at its last commit after an error, if that can still be done.

        Where it cannot, the part stays as it is: as if the process had been killed.
        """
        if not self.sealed:
            self._end()
            with suppress(OSError, TsstoreError):
                if self.begun and is_own(self._files, self.attributes):
                    seal_part(self._files, self.directory, why)

    def _end(self) -> None:
        """Take no more batches, and hold no more memory."""
        self.sealed = True
        self._arrays.release()

    def _check_open(self) -> None:
        if self.sealed:
            raise PartSealedError(f"{self.directory} is sealed and takes no more batches")

    def _check_seal(self) -> None:
        """Raise where the part is no longer this process's to write."""
        if not is_own(self._files, self.attributes):
            self._end()
            raise StoreError(
                f"{self._files.location}/{self.directory} was deleted, or begun anew by another "
                "process, while this one wrote it; stop this job"
            )
        if self._files.exists(metadata_key(seal_path(self.directory))):
            self._end()
            raise PartSealedError(
                f"{self._files.location}/{self.directory} was sealed by another process: "
                "what this one recorded since its last commit does not count; stop this job"
            )


def create_part(files: Files, part: PartAttributes, attempt: int | None = None) -> PartAttributes:
    """Create the group of a part, exclusively; return what it says of this process.

    StoreExistsError where the given attempt, or a later one of the same rank, is there already.
    """
    free = next_attempt(files, part.rank)
    chosen = free if attempt is None else attempt
    if free > chosen:
        raise _taken(files, part.rank, free - 1)
    while True:
        part = replace(part, attempt=chosen, started=now(), process=this_process())
        try:
            create_group(files, part_directory(part.rank, chosen), part.to_json())
        except FileExistsError:
            if attempt is not None:
                raise _taken(files, part.rank, chosen) from None
            chosen += 1
        else:
            # What a part holds may otherwise outlive its metadata, which would count as damage.
            files.sync()
            return part


def next_attempt(files: Files, rank: int) -> int:
    """Return the number after that of the latest part of a rank that has begun.

    Parts that never began do not count: two processes that start at the same time must mean the
    same number, which one of them gets.
    """
    prefix = part_directory(rank, 0)[:-5]
    attempts = {
        int(name.removeprefix(prefix)): name
        for name in files.list("")
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    }
    latest_first = sorted(attempts, reverse=True)
    begun = (number for number in latest_first if files.exists(metadata_key(attempts[number])))
    return next(begun, -1) + 1


def create_groups(files: Files, part: str) -> None:
    """Create what holds the layers and columns of a part, and an empty commit record."""
    # A part that has layers has a record, so that a lost record is noticed.
    write_group(files, commit_path(part), CommitRecord().to_json())
    files.sync()
    for group in CONTAINERS:
        write_group(files, f"{part}/{group}")


def _taken(files: Files, rank: int, attempt: int) -> StoreExistsError:
    directory = part_directory(rank, attempt)
    return StoreExistsError(
        f"{files.location}/{directory} exists already: rank {rank} has a part of another attempt, "
        "expected none; resume=True goes on from it, overwrite=True deletes the run"
    )


def seal_part(files: Files, directory: str, why: str, by: str = "") -> Seal:
    """Freeze the last commit of a part as it is on disk; of several processes the first decides.

    Whatever was committed before the call is in the seal. A commit that the part's writer makes
    during the call is in it whole or not at all, and no later one counts; the writer learns it
    then. A part that has no layers yet is sealed empty. Returned is the seal that counts.
    """
    if seal := read_seal(files, directory):
        return seal
    record = read_record(files, directory)
    try:
        seal = create_seal(files, directory, record, why, by)
    except FileExistsError:
        if seal := read_seal(files, directory):
            return seal
        where = files.where(metadata_key(seal_path(directory)))
        raise DamageError(f"{where} has vanished; restore the file from a copy") from None
    files.sync()
    return seal


def create_seal(
    files: Files,
    directory: str,
    record: CommitRecord,
    why: str,
    by: str = "",
    waited: float | None = None,
) -> Seal:
    """Create the seal of a part, by this process unless said; FileExistsError if there is one."""
    seal = Seal(record, why, by or process_name(), now(), waited)
    create_group(files, seal_path(directory), seal.to_json())
    return seal


def is_own(files: Files, part: PartAttributes) -> bool:
    """Whether a part is still the one that a process began: not deleted, nor begun anew."""
    found = find_attributes(files, part_directory(part.rank, part.attempt)) or {}
    return (found.get("started"), found.get("process")) == (part.started, part.process)
