"""Sealing a part: its last commit is frozen, by its own writer or by another process."""

from __future__ import annotations

from tsstore.errors import DamageError, StoreError
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import create_group, metadata_key
from tsstore.store.format.paths import part_directory, seal_path
from tsstore.store.format.record import CommitRecord, Seal
from tsstore.store.process import now, process_name
from tsstore.store.reading.part import read_record, read_seal


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
        key = metadata_key(seal_path(directory))
        raise DamageError(
            f"{files.location}/{key} has vanished; restore the file from a copy"
        ) from None
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
    directory = part_directory(part.rank, part.attempt)
    try:
        found = PartAttributes.read(files, directory)
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    return (found.started, found.process) == (part.started, part.process)
