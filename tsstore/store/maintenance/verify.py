"""Reading a whole run back: every checksum, and every promise that can be checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

from tsstore.errors import AccessError, DamageError, FormatError, StoreError
from tsstore.store.files.base import PARTIAL, Files
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.format.attributes import LayerAttributes, PartAttributes, RunAttributes
from tsstore.store.format.documents import metadata_key, read_attributes, read_document
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
from tsstore.store.format.record import ArrayCommit, CommitRecord, LayerCommit, Seal
from tsstore.store.maintenance.findings import (
    Findings,
    VerifyReport,
    note_files,
    note_other_files,
)
from tsstore.store.maintenance.verify_array import ArrayCheck
from tsstore.store.reading.part import (
    CONTAINERS,
    Part,
    committed_arrays,
    follows,
    read_record,
    read_seal,
)
from tsstore.store.reading.status import LIVE, last_commit, part_statuses
from tsstore.store.reading.store import StateStore
from tsstore.store.run import read_run
from tsstore.text import Progress, silent


def verify(path: StorePath, progress: Progress | None = None) -> VerifyReport:
    """Read a run back, and collect all that is not as it was written, or cannot be read just now.

    One chunk is held in memory at a time. Of a run that is being written, what had been committed
    by then is read.

    Parameters
    ----------
    path
        Where the run lies.
    progress
        Called after each array.

    Returns
    -------
    VerifyReport
        What was found, and how much was read.

    Raises
    ------
    NotAStoreError
        If there is no run at `path`.
    FormatError
        If its format is newer than this version reads, or its root is not valid.
    AccessError
        If not even its directory can be read.
    """
    files = open_files(path)
    findings = Findings(files.location)
    run = RunAttributes("", "")
    try:
        run = read_run(files)
    except (AccessError, DamageError):
        with findings.catching(metadata_key("")):
            raise
    parts = _read_parts(files, findings, progress or silent)
    live = [part.directory for part in parts if _is_live(part, findings)]
    for directory in live:
        # Its files change while they are looked at; what was committed does not.
        findings.drop_notes(directory)
    for part in parts:
        if not findings.troubles(part.directory):
            _read_as_readers_do(part, findings)
    sound = [part for part in parts if not findings.troubles(part.directory)]
    _compare_parts(files, run, sound, findings, bool(live))
    return VerifyReport(
        files.location,
        len(parts),
        sum(len(part.record.layers) for part in parts),
        findings.chunks,
        findings.bytes_read,
        sum(part.samples for part in parts),
        tuple(findings.found),
    )


def _read_parts(files: Files, findings: Findings, progress: Progress) -> list[Part]:
    """Read each part back; return those whose attributes and records can be read."""
    leftover, foreign, parts = [], [], []
    for name in files.list(""):
        if name.startswith("part-"):
            with findings.catching(name):
                parts.append(_read_part(files, name, findings, progress))
        elif name.endswith(PARTIAL):
            leftover.append(name)
        elif name != metadata_key(""):
            foreign.append(name)
    note_files(findings, leftover, foreign)
    return [part for part in parts if part is not None]


def _read_part(files: Files, directory: str, findings: Findings, progress: Progress) -> Part | None:
    if not is_directory(directory):
        raise FormatError(f"{files.location}/{directory}: it is no part's directory; remove it")
    if not files.names(directory):
        note_files(findings, list(files.walk(directory)), [])
        return None
    return _PartCheck(files, directory, findings, progress).read()


def _is_live(part: Part, findings: Findings) -> bool:
    with findings.catching(metadata_key(part.directory)):
        last_commit([part])
        return part_statuses([part])[0].state == LIVE
    return False


def _read_as_readers_do(part: Part, findings: Findings) -> None:
    """Open the layers and columns of a part whose files are sound, and add up its positions."""
    with findings.catching(part.directory):
        for directory, layer in zip(part.record.layers, part.layers.values(), strict=True):
            with findings.catching(layer_path(part.directory, directory)):
                total = sum(sum(piece.tolist()) for piece in layer.position_pieces())
                if total != layer.rows:
                    raise FormatError(
                        f"the rows by sample add up to {total:,}, but there are {layer.rows:,} "
                        "rows; record the run again: it was not written by tsstore"
                    )
        for _ in part.columns.values():
            pass  # each is opened, and checked by that


def _compare_parts(
    files: Files, run: RunAttributes, parts: list[Part], findings: Findings, live: bool
) -> None:
    """Check that the parts of each step have the same layers and columns."""
    for step in dict.fromkeys(part.step for part in parts):
        of_step = tuple(part for part in parts if part.step == step)
        store = StateStore(files, run, of_step)
        for name in store.layers:
            with findings.catching(of_step[-1].directory):
                try:
                    _ = store[name]
                except (DamageError, FormatError):
                    raise
                except StoreError:
                    # A part that is being written may meet the layer later.
                    if not live:
                        raise
        for part in of_step:
            lacking = [name for name in store.columns if name not in part.columns]
            if part.samples and lacking:
                findings.error(
                    part.directory,
                    f"it has no sample columns {', '.join(lacking)}, which other parts have",
                    "read one part at a time, or record the run again",
                )


class _PartCheck:
    """Reads one part back and collects what is wrong with it."""

    def __init__(
        self, files: Files, directory: str, findings: Findings, progress: Progress
    ) -> None:
        self._files = files
        self._directory = directory
        self._findings = findings
        self._progress = progress
        # Numbers of files that hold chunks, by path of all groups and arrays.
        self._nodes = dict.fromkeys((directory, seal_path(directory), commit_path(directory)), 0)
        self._done = self._total = 0

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
        with self._findings.catching(self._directory):
            note_other_files(self._files, self._directory, self._nodes, self._findings)
        if attributes is None or not trusted:
            return None
        return Part(self._files, self._directory, attributes, record, seal)

    def _read_attributes(self) -> PartAttributes | None:
        with self._findings.catching(metadata_key(self._directory)):
            found = read_attributes(self._files, self._directory)
            return PartAttributes.from_json(found, self._where(self._directory))
        return None

    def _read_seal(self) -> tuple[Seal | None, bool]:
        """Return the seal, and whether it is known that this is the seal, or that there is none."""
        with self._findings.catching(metadata_key(seal_path(self._directory))):
            return read_seal(self._files, self._directory), True
        return None, False

    def _read_record(self) -> CommitRecord | None:
        with self._findings.catching(metadata_key(commit_path(self._directory))):
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
        self._total = len(committed_arrays(self._directory, record))
        for name in CONTAINERS if record.layers or record.columns else ():
            path = f"{self._directory}/{name}"
            key = metadata_key(path)
            self._nodes[path] = 0
            with self._findings.catching(key):
                kind = read_document(self._files, path).get("node_type")
                if kind != "group":
                    self._findings.error(key, f"node_type is {kind!r:.80}, not 'group'")
        for directory, layer in record.layers.items():
            self._read_layer(directory, layer)
        for directory, column in record.columns.items():
            for _ in self._read_array(column_paths(self._directory, directory), column):
                pass

    def _read_layer(self, directory: str, commit: LayerCommit) -> None:
        path = layer_path(self._directory, directory)
        row_shape, pad = None, 0
        self._nodes[path] = 0
        with self._findings.catching(metadata_key(path)):
            found = read_attributes(self._files, path)
            attributes = LayerAttributes.from_json(found, self._where(path))
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
        check = ArrayCheck(self._files, paths, commit, self._findings)
        yield from check.entries(dtype, row_shape)
        self._nodes |= check.file_counts
        self._done += 1
        self._progress(self._directory, self._done, self._total)

    def _where(self, path: str) -> str:
        return f"{self._files.location}/{metadata_key(path)}"
