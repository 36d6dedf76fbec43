"""Tidying a run up after its processes were stopped; what was committed is never touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from tsstore.errors import AccessError, StoreError
from tsstore.store.files.base import PARTIAL, Files
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.format.arrays import parse_spec, read_array
from tsstore.store.format.documents import ZARR_JSON, dump, read_document
from tsstore.store.maintenance.findings import Report, is_array
from tsstore.store.reading.part import Part, committed_arrays
from tsstore.store.reading.status import LIVE, last_commit, part_statuses
from tsstore.store.reading.store import open_store
from tsstore.store.writing.part import seal_part
from tsstore.text import ago, counted, printable


@dataclass(frozen=True)
class RepairReport(Report):
    """What was done to a run.

    Attributes
    ----------
    run
        Where it lies.
    sealed
        Directories of parts that were sealed.
    reshaped
        Metadata files of arrays that now show plain Zarr readers what is committed.
    removed
        Files that were removed: what stopped processes had not finished writing.
    """

    run: str
    sealed: tuple[str, ...]
    reshaped: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        done = {
            "sealed": ("part", self.sealed),
            "reshaped": ("array", self.reshaped),
            "removed": ("file", self.removed),
        }
        lines = [f"{what} {printable(name)}" for what, (_, names) in done.items() for name in names]
        counts = [f"{counted(len(names), thing)} {what}" for what, (thing, names) in done.items()]
        told = ", ".join(counts) if lines else "nothing to repair"
        return "\n".join([*lines, f"{printable(self.run)}: {told}"])


def repair(path: StorePath) -> RepairReport:
    """Seal the parts of a run that was cut off, put shapes right, remove half-written files.

    Nothing that was committed is changed, and a second call does nothing. No job may be about to
    start in the run: the file that it writes just then may be taken for a leftover.

    Parameters
    ----------
    path
        Where the run lies.

    Returns
    -------
    RepairReport
        What was done.

    Raises
    ------
    NotAStoreError, FormatError, DamageError
        If there is no run, or it cannot be read.
    StoreError
        If a part is being written, or the place cannot be written to.
    """
    files = open_files(path)
    parts = open_store(path).parts
    _refuse_live_parts(files, parts)
    try:
        sealed = tuple(part.directory for part in parts if part.seal is None)
        for directory in sealed:
            seal_part(files, directory, "repaired")
        reshaped = tuple(key for part in open_store(path).parts for key in _reshape(files, part))
        removed = tuple(_sweep(files))
        files.sync()
    except OSError as error:
        raise AccessError(
            f"{files.location} cannot be repaired ({error}); what was committed is as it was"
        ) from error
    return RepairReport(files.location, sealed, reshaped, removed)


def _refuse_live_parts(files: Files, parts: tuple[Part, ...]) -> None:
    now = datetime.now(UTC)
    for part, status in zip(parts, part_statuses(parts, now), strict=True):
        if status.state == LIVE:
            process, time = part.attributes.process, last_commit([part])
            host = printable(str(process.get("host", "an unknown host")))
            raise StoreError(
                f"{files.location}/{part.directory} is being written by process "
                f"{process.get('pid', 'unknown')} on {host:.80}, last commit "
                f"{'none' if time is None else ago(now - time)}; nothing was repaired: stop the "
                "job first, or wait until it has ended"
            )


def _reshape(files: Files, part: Part) -> Iterator[str]:
    """Write the committed number of entries into the metadata of each of a part's arrays."""
    rows: dict[str, int] = {}
    for paths, commit in committed_arrays(part.directory, part.record).items():
        spec, _ = read_array(files, paths.values)
        rows |= {paths.values: commit.rows, paths.checksums: commit.rows // spec.chunk_rows}
    for key in files.walk(part.directory):
        path = key.removesuffix(f"/{ZARR_JSON}")
        if path == key or not is_array(path.removeprefix(f"{part.directory}/")):
            continue
        document = read_document(files, path)
        spec = parse_spec(document, f"{files.location}/{path}")
        shape = [rows.get(path, 0), *spec.row_shape]
        if document.get("shape") != shape:
            files.write(key, dump(document | {"shape": shape}))
            yield key


def _sweep(files: Files) -> Iterator[str]:
    """Remove what stopped processes had not finished writing."""
    for name in files.list(""):
        keys = files.walk(name) if name.startswith("part-") else iter([name])
        for key in [key for key in keys if key.endswith(PARTIAL)]:
            files.remove(key)
            yield key
