"""Reading one part back: its attributes, record and seal, its layers and columns, its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from tsstore.store.files.base import Files
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.documents import metadata_key, read_attributes, read_document
from tsstore.store.format.paths import (
    ArrayPaths,
    column_paths,
    commit_path,
    layer_path,
    positions_paths,
    seal_path,
    states_paths,
)
from tsstore.store.format.record import ArrayCommit, CommitRecord, LayerCommit, Seal
from tsstore.store.maintenance.findings import Findings
from tsstore.store.maintenance.stray_files import note_other_files
from tsstore.store.maintenance.verify_array import ArrayCheck, Tally
from tsstore.store.reading.part import Part, committed_arrays, follows, read_record, read_seal

_GROUPS = ("layers", "samples", "sample_checksums")


class PartCheck:
    """Reads one part back and collects what is wrong with it.

    Parameters
    ----------
    files
        Where the run lies.
    directory
        The part, which has begun.
    findings, tally
        Where to put what is found and read.
    progress
        Called as ``progress(directory, arrays read, all arrays)``.
    """

    def __init__(
        self,
        files: Files,
        directory: str,
        findings: Findings,
        tally: Tally,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._files = files
        self._directory = directory
        self._findings = findings
        self._tally = tally
        self._progress = progress
        self._nodes = {directory: 0}
        self._arrays = (0, 0)

    def read(self) -> Part | None:
        """Read the part back; return it as far as its attributes and record can be read."""
        attributes = self._read_attributes()
        seal, trusted = self._read_seal()
        record = self._read_record()
        if seal is None and trusted:
            # One that came in between may freeze an earlier record than the one just read, or,
            # where the writer committed once more and closed, a later one.
            seal, trusted = self._read_seal()
            record = self._read_record() if seal else record
        if seal and record:
            self._compare(record, seal.record)
        record = seal.record if seal else record
        if record is None:
            return None
        self._read_arrays(record)
        note_other_files(self._files, self._directory, self._nodes, self._findings)
        if attributes is None or not trusted:
            return None
        return Part(self._files, self._directory, attributes, record, seal)

    def _read_attributes(self) -> PartAttributes | None:
        key = metadata_key(self._directory)
        with self._findings.catching(key):
            found = read_attributes(self._files, self._directory)
            return PartAttributes.from_json(found, self._where(key))
        return None

    def _read_seal(self) -> tuple[Seal | None, bool]:
        """Return the seal, and whether it is known that this is the seal, or that there is none."""
        path = seal_path(self._directory)
        self._nodes[path] = 0
        with self._findings.catching(metadata_key(path)):
            return read_seal(self._files, self._directory), True
        return None, False

    def _read_record(self) -> CommitRecord | None:
        path = commit_path(self._directory)
        self._nodes[path] = 0
        with self._findings.catching(metadata_key(path)):
            return read_record(self._files, self._directory)
        return None

    def _compare(self, record: CommitRecord, sealed: CommitRecord) -> None:
        """Compare the part's own record with the one that its seal froze."""
        key = metadata_key(commit_path(self._directory))
        if not follows(record, sealed):
            self._findings.error(
                key,
                f"it holds commit {record.generation}, which does not go on from commit "
                f"{sealed.generation}, the one that the seal froze",
            )
        elif record.generation > sealed.generation:
            self._findings.note(
                key,
                f"{record.samples - sealed.samples:,} samples were committed after the part was "
                "sealed, and do not count",
                "nothing needs to be done",
            )

    def _read_arrays(self, record: CommitRecord) -> None:
        self._arrays = 0, len(committed_arrays(self._directory, record))
        for name in _GROUPS if record.layers or record.columns else ():
            self._read_group(f"{self._directory}/{name}")
        for directory, layer in record.layers.items():
            self._read_layer(directory, layer)
        for directory, column in record.columns.items():
            for _ in self._read_array(column_paths(self._directory, directory), column):
                pass

    def _read_group(self, path: str) -> None:
        self._nodes[path] = 0
        with self._findings.catching(metadata_key(path)):
            kind = read_document(self._files, path).get("node_type")
            if kind != "group":
                self._findings.error(metadata_key(path), f"node_type is {kind!r:.80}, not 'group'")

    def _read_layer(self, directory: str, commit: LayerCommit) -> None:
        path = layer_path(self._directory, directory)
        row_shape, pad = None, 0
        self._nodes[path] = 0
        with self._findings.catching(metadata_key(path)):
            found = read_attributes(self._files, path)
            attributes = LayerAttributes.from_json(found, self._where(metadata_key(path)))
            self._findings.layers[path] = attributes.name
            row_shape, pad = (attributes.row_bytes,), -attributes.neurons % 8
        paths = states_paths(self._directory, directory)
        padded = 0
        for rows in self._read_array(paths, commit.states, "uint8", row_shape):
            padded += int((rows[:, -1] >> (8 - pad)).any()) if pad else 0
        if padded:
            self._findings.error(
                paths.values,
                f"{padded:,} chunks have bits that are on after the last neuron",
                "record the run again: it was not written by tsstore",
            )
        if commit.positions is not None:
            paths = positions_paths(self._directory, directory)
            for _ in self._read_array(paths, commit.positions, "int64", ()):
                pass

    def _read_array(
        self,
        paths: ArrayPaths,
        commit: ArrayCommit,
        dtype: str | None = None,
        row_shape: tuple[int, ...] | None = (),
    ) -> Iterator[npt.NDArray[Any]]:
        check = ArrayCheck(self._files, paths, commit, self._findings, self._tally)
        yield from check.entries(dtype, row_shape)
        self._nodes |= check.file_counts
        done, total = self._arrays
        self._arrays = done + 1, total
        self._progress(self._directory, *self._arrays)

    def _where(self, key: str) -> str:
        return f"{self._files.location}/{key}"
