"""One part of a run: its attributes, the record that counts, its layers and sample columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tsstore.errors import DamageError, FormatError
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import metadata_key
from tsstore.store.format.paths import (
    ArrayPaths,
    column_paths,
    commit_path,
    is_directory,
    positions_paths,
    seal_path,
    states_paths,
)
from tsstore.store.format.record import ArrayCommit, CommitRecord, Seal
from tsstore.store.reading.by_name import PartColumns, PartLayers
from tsstore.store.threads import in_threads_if_slow

CONTAINERS = ("layers", "samples", "sample_checksums")
"""The groups of a part that hold its arrays."""


@dataclass(frozen=True)
class Part:
    """What one writer process has committed.

    `record` is the commit record that this reader believes: that of the seal, where there is one.
    """

    files: Files
    directory: str
    attributes: PartAttributes
    record: CommitRecord
    seal: Seal | None

    @classmethod
    def open(cls, files: Files, directory: str) -> Part:
        """Read and check a part's attributes and record; DamageError where it has none."""
        part = cls.find(files, directory)
        if part is None:
            raise files.missing(metadata_key(directory))
        return part

    @classmethod
    def find(cls, files: Files, directory: str) -> Part | None:
        """Read and check a part's attributes and record; None where it has not begun."""
        if not is_directory(directory) and files.exists(metadata_key(directory)):
            raise FormatError(f"{files.location}: {directory!r:.80} is no part's directory")
        attributes = _read_part(files, directory)
        if attributes is None:
            return None
        return cls(files, directory, attributes, *_read_commit(files, directory))

    def refreshed(self) -> Part:
        """Return the part as of its latest commit, DamageError if that goes back; or itself."""
        if self.seal is not None:
            return self
        record, seal = _read_commit(self.files, self.directory)
        if seal is None and record == self.record:
            return self
        # A seal freezes the commit that its maker saw; the writer may have made one more since.
        sealed_before = seal is not None and follows(self.record, record)
        if not (follows(record, self.record) or sealed_before):
            raise DamageError(
                f"{self._where}: commit {record.generation} does not go on from commit "
                f"{self.record.generation}, which was there before; restore the part from a copy"
            )
        return replace(self, record=record, seal=seal)

    @property
    def samples(self) -> int:
        """Number of committed samples."""
        return self.record.samples

    @property
    def step(self) -> int | str | None:
        """The training step whose weights the states come from."""
        return self.attributes.step

    @cached_property
    def layers(self) -> PartLayers:
        """The part's layers by public name; each is opened when it is asked for."""
        return PartLayers(self.files, self.directory, self.record)

    @cached_property
    def columns(self) -> PartColumns:
        """The part's sample columns by name; each is opened when it is asked for."""
        return PartColumns(self.files, self.directory, self.record)

    @property
    def _where(self) -> str:
        return f"{self.files.location}/{self.directory}"


def open_parts(files: Files, known: Iterable[Part] = ()) -> tuple[Part, ...]:
    """Open the parts of a run; of those that are known, look for later commits only."""
    parts = {part.directory: part for part in known}
    wanted = [name for name in files.list("") if name.startswith("part-") and name not in parts]

    def latest(name: str) -> Part | None:
        return parts[name].refreshed() if name in parts else Part.find(files, name)

    opened = in_threads_if_slow(latest, sorted([*parts, *wanted]), files.readers)
    return tuple(part for part in opened if part is not None)


def sample_spans(parts: Iterable[Part], most: int) -> Iterator[tuple[Part, int, int]]:
    """Yield samples, at most so many of a part at a time: the first, and the one after the last."""
    for part in parts:
        for first in range(0, part.samples, most):
            yield part, first, min(first + most, part.samples)


def readers(parts: Sequence[Part]) -> int:
    """Return how many files of some parts to read at a time."""
    return min(len(parts), parts[0].files.readers) if parts else 1


def committed_arrays(part: str, record: CommitRecord) -> dict[ArrayPaths, ArrayCommit]:
    """Return what is committed of each array of the part in directory `part`."""
    arrays = {}
    for directory, layer in record.layers.items():
        arrays[states_paths(part, directory)] = layer.states
        if layer.positions is not None:
            arrays[positions_paths(part, directory)] = layer.positions
    for directory, column in record.columns.items():
        arrays[column_paths(part, directory)] = column
    return arrays


def follows(later: CommitRecord, earlier: CommitRecord) -> bool:
    """Whether a record is that of the same commit of a part as another, or of a later one."""
    if later.generation <= earlier.generation:
        return later == earlier
    arrays = committed_arrays("", later)
    return later.samples >= earlier.samples and all(
        paths in arrays and (arrays[paths].rows > commit.rows or arrays[paths] == commit)
        for paths, commit in committed_arrays("", earlier).items()
    )


def _read_commit(files: Files, part: str) -> tuple[CommitRecord, Seal | None]:
    """Return the record that counts, and the seal if there is one."""
    record = CommitRecord()
    seal = read_seal(files, part)
    if seal is None:
        record = read_record(files, part)
        # One that came in between may freeze an earlier record than the one just read.
        seal = read_seal(files, part)
    return seal.record if seal else record, seal


def read_seal(files: Files, part: str) -> Seal | None:
    """Return the part's seal, checked; None where there is none."""
    return Seal.find(files, seal_path(part))


def read_record(files: Files, part: str) -> CommitRecord:
    """Return the part's own record, checked; an empty one where no layers are defined yet."""
    has_layers = "layers" in files.list(part)
    path = commit_path(part)
    record = CommitRecord.find(files, path)
    if record is None and has_layers:
        raise files.missing(metadata_key(path))
    return record or CommitRecord()


def _read_part(files: Files, part: str) -> PartAttributes | None:
    """Return what a part says of its process; None where it has not begun.

    A process may have been stopped before it wrote that.
    """
    found = PartAttributes.find(files, part)
    if found is None:
        # A process that begins just now writes the metadata before all else: so first what it
        # holds, and then once more whether there are any.
        held = files.names(part)
        found = PartAttributes.find(files, part)
        if found is None and held:
            raise files.missing(metadata_key(part))
    return found
