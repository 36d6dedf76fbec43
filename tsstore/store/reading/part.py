"""One part of a run: its attributes, the record that counts, its layers and sample columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tsstore.errors import DamageError, FormatError
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.documents import metadata_key, read_attributes, text
from tsstore.store.format.paths import (
    ArrayPaths,
    column_paths,
    commit_path,
    is_directory,
    layer_path,
    positions_paths,
    seal_path,
    states_paths,
)
from tsstore.store.format.record import ArrayCommit, CommitRecord, Seal
from tsstore.store.reading.layer_part import LayerPart

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
        """Read and check a part's attributes and record."""
        if not is_directory(directory):
            raise FormatError(f"{files.location}: {directory!r:.80} is no part's directory")
        part = PartAttributes.from_json(*_attributes(files, directory))
        return cls(files, directory, part, *_read_commit(files, directory))

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
    def layers(self) -> dict[str, LayerPart]:
        """The part's layers by public name."""
        layers: dict[str, LayerPart] = {}
        for directory in self.record.layers:
            layer = self._open_layer(directory)
            self._check_new(layer.attributes.name, layers)
            layers[layer.attributes.name] = layer
        return layers

    @cached_property
    def columns(self) -> dict[str, CommittedArray]:
        """The part's sample columns by name."""
        columns: dict[str, CommittedArray] = {}
        for directory, commit in self.record.columns.items():
            paths = column_paths(self.directory, directory)
            column = CommittedArray.open(self.files, paths, commit)
            name = text(column.attributes.get("name"), "name", f"{self._where}/{paths.values}")
            self._check_new(name, columns)
            columns[name] = column
        return columns

    @property
    def _where(self) -> str:
        return f"{self.files.location}/{self.directory}"

    def _check_new(self, name: str, known: Mapping[str, object]) -> None:
        if name in known:
            raise FormatError(f"{self._where}: two layers or columns are called {name!r:.80}")

    def _open_layer(self, directory: str) -> LayerPart:
        path = layer_path(self.directory, directory)
        attributes = LayerAttributes.from_json(*_attributes(self.files, path))
        commit = self.record.layers[directory]
        paths = states_paths(self.directory, directory)
        states = CommittedArray.open(
            self.files, paths, commit.states, "uint8", (attributes.row_bytes,)
        )
        positions = None
        if commit.positions is not None:
            paths = positions_paths(self.directory, directory)
            positions = CommittedArray.open(self.files, paths, commit.positions, "int64")
        return LayerPart(
            self.directory, attributes, states, positions, self.samples, commit.lengths
        )


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


def _attributes(files: Files, path: str) -> tuple[dict[str, Any], str]:
    return read_attributes(files, path), f"{files.location}/{path}"


def read_seal(files: Files, part: str) -> Seal | None:
    """Return the part's seal, checked; None where there is none."""
    path = seal_path(part)
    if not files.exists(metadata_key(path)):
        return None
    return Seal.from_json(*_attributes(files, path))


def read_record(files: Files, part: str) -> CommitRecord:
    """Return the part's own record, checked; an empty one where no layers are defined yet."""
    has_layers = "layers" in files.list(part)
    path = commit_path(part)
    if files.exists(metadata_key(path)):
        return CommitRecord.from_json(*_attributes(files, path))
    if has_layers:
        raise files.missing(metadata_key(path))
    return CommitRecord()


def has_begun(files: Files, part: str) -> bool:
    """Whether a part has its metadata; a process may have been stopped before it wrote them."""
    # First what it holds: a process that begins just now writes the metadata before all else.
    held = files.names(part)
    if files.exists(metadata_key(part)):
        return True
    if held:
        raise files.missing(metadata_key(part))
    return False
