"""Reading a whole run back: every checksum, and every promise that can be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from threading import Event
from typing import Any

from tsstore.errors import AccessError, DamageError, FormatError, StoreError
from tsstore.store.files.base import PARTIAL, Files
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.format.attributes import LayerAttributes, PartAttributes, RunAttributes
from tsstore.store.format.documents import metadata_key, read_document
from tsstore.store.format.paths import (
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
    follows,
    read_record,
    read_seal,
    readers,
)
from tsstore.store.reading.status import LIVE, last_commit, part_statuses
from tsstore.store.reading.store import StateStore
from tsstore.store.run import read_run
from tsstore.store.threads import in_threads, processors
from tsstore.text import Progress, silent


def verify(path: StorePath, progress: Progress | None = None) -> VerifyReport:
    """Read a run back, and collect all that is not as it was written, or cannot be read just now.

    It is read in as many threads as there are processors, or more where storage is far away; each
    holds one chunk in memory. Findings are in the order of the files, whoever comes first. Of a run
    that is being written, what had been committed by then is read.

    Parameters
    ----------
    path
        Where the run lies.
    progress
        Called after each layer and column.

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
    stopped = Event()
    try:
        parts = _read_parts(files, findings, progress or silent, stopped)
    finally:
        # Threads that nobody waits for, as after Ctrl-C, end with the chunk at hand.
        stopped.set()
    live = [part.directory for part in parts if _is_live(part, findings)]
    for directory in live:
        # Its files change while they are looked at; what was committed does not.
        findings.drop_notes(directory)
    sound = [part for part in parts if not findings.troubles(part.directory)]
    for found in in_threads(_as_readers_do, sound, readers(sound)):
        findings.extend(found)
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


def _read_parts(files: Files, findings: Findings, progress: Progress, stopped: Event) -> list[Part]:
    """Read each part back; return those whose attributes and records can be read."""
    names = files.list("")
    threads = max(processors(), files.readers)
    begin = partial(_PartCheck, files)
    checks = list(in_threads(begin, [n for n in names if n.startswith("part-")], threads))
    units = [(check, unit) for check in checks for unit in check.units()]
    outer = max(min(threads, len(units)), 1)
    done = in_threads(lambda pair: pair[1](max(threads // outer, 1), stopped), units, outer)

    def with_its_arrays() -> Iterator[_PartCheck]:
        for check in checks:
            total = len(check.units())
            for number, (found, nodes) in enumerate(islice(done, total), start=1):
                check.take(found, nodes)
                progress(check.directory, number, total)
            yield check

    parts = []
    for check in in_threads(_PartCheck.finished, with_its_arrays(), threads):
        findings.extend(check.findings)
        parts.append(check.part)
    others = [name for name in names if not name.startswith("part-") and name != metadata_key("")]
    leftover = [name for name in others if name.endswith(PARTIAL)]
    note_files(findings, leftover, [name for name in others if name not in leftover])
    return [part for part in parts if part is not None]


def _is_live(part: Part, findings: Findings) -> bool:
    with findings.catching(metadata_key(part.directory)):
        last_commit([part])
        return part_statuses([part])[0].state == LIVE
    return False


def _as_readers_do(part: Part) -> Findings:
    """Open the layers and columns of a part whose files are sound, and add up its positions."""
    findings = Findings(part.files.location)
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
    return findings


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


_Nodes = dict[str, int]
"""Numbers of files that hold chunks, by path of groups and arrays."""
_Unit = Callable[[int, Event], tuple[Findings, _Nodes]]
"""Reads a layer or a column back: in so many threads, until no further chunk is to be begun."""


class _PartCheck:
    """Reads one part back: what it says of itself at once, then its layers and columns.

    `part` is known as far as its attributes and record can be read.
    """

    def __init__(self, files: Files, directory: str) -> None:
        self.directory = directory
        self.findings = Findings(files.location)
        self.part: Part | None = None
        self._files = files
        self._record: CommitRecord | None = None
        self._nodes: _Nodes = dict.fromkeys(
            (directory, seal_path(directory), commit_path(directory)), 0
        )
        with self.findings.catching(directory):
            if not is_directory(directory):
                raise FormatError(
                    f"{files.location}/{directory}: it is no part's directory; remove it"
                )
            if not files.names(directory):
                note_files(self.findings, list(files.walk(directory)), [])
                return
            self._begin()

    def units(self) -> list[_Unit]:
        """Return what reads its layers, then its columns."""
        if self._record is None:
            return []
        return [
            *(partial(self._read_layer, *layer) for layer in self._record.layers.items()),
            *(partial(self._read_column, *column) for column in self._record.columns.items()),
        ]

    def take(self, findings: Findings, nodes: _Nodes) -> None:
        """Add what a unit has found."""
        self.findings.extend(findings)
        self._nodes |= nodes

    def finished(self) -> _PartCheck:
        """Look at the files that are none of the record's, and return this check."""
        if self._record is not None:
            with self.findings.catching(self.directory):
                note_other_files(self._files, self.directory, self._nodes, self.findings)
        return self

    def _begin(self) -> None:
        attributes = None
        with self.findings.catching(metadata_key(self.directory)):
            attributes = PartAttributes.read(self._files, self.directory)
        seal, trusted = self._read_seal()
        record = self._read_record()
        if seal is None and trusted:
            # One that came in between may freeze an earlier record than the one just read, or,
            # where the writer committed once more and closed, a later one.
            seal, trusted = self._read_seal()
            record = self._read_record() if seal else record
        if seal and record:
            self._compare(record, seal.record)
        self._record = record = seal.record if seal else record
        if record is None:
            return
        if attributes is not None and trusted:
            self.part = Part(self._files, self.directory, attributes, record, seal)
        for name in CONTAINERS if record.layers or record.columns else ():
            path = f"{self.directory}/{name}"
            key = metadata_key(path)
            self._nodes[path] = 0
            with self.findings.catching(key):
                kind = read_document(self._files, path).get("node_type")
                if kind != "group":
                    self.findings.error(key, f"node_type is {kind!r:.80}, not 'group'")

    def _read_seal(self) -> tuple[Seal | None, bool]:
        """Return the seal, and whether it is known that this is the seal, or that there is none."""
        with self.findings.catching(metadata_key(seal_path(self.directory))):
            return read_seal(self._files, self.directory), True
        return None, False

    def _read_record(self) -> CommitRecord | None:
        with self.findings.catching(metadata_key(commit_path(self.directory))):
            return read_record(self._files, self.directory)
        return None

    def _compare(self, record: CommitRecord, sealed: CommitRecord) -> None:
        """Compare the part's own record with the one that its seal froze."""
        key = metadata_key(commit_path(self.directory))
        if not follows(record, sealed):
            self.findings.error(
                key,
                f"it holds commit {record.generation}, which does not go on from commit "
                f"{sealed.generation}, the one that the seal froze",
            )
        elif record.generation > sealed.generation:
            self.findings.note(
                key,
                f"{record.samples - sealed.samples:,} samples were committed after the part was "
                "sealed, and do not count",
                "nothing needs to be done",
            )

    def _read_layer(
        self, directory: str, commit: LayerCommit, *reading: Any
    ) -> tuple[Findings, _Nodes]:
        path = layer_path(self.directory, directory)
        findings, nodes = Findings(self._files.location), {path: 0}
        row_shape, pad = None, 0
        with findings.catching(metadata_key(path)):
            attributes = LayerAttributes.read(self._files, path)
            findings.layers[path] = attributes.name
            row_shape, pad = (attributes.row_bytes,), -attributes.neurons % 8
        paths = states_paths(self.directory, directory)
        check = ArrayCheck(self._files, paths, commit.states, findings, *reading)
        with findings.catching(paths.values):
            padded = check.read(
                "uint8", row_shape, lambda rows: bool(pad and (rows[:, -1] >> (8 - pad)).any())
            )
            if padded:
                findings.error(
                    paths.values,
                    f"{padded:,} chunks have bits that are on after the last neuron",
                    "record the run again: it was not written by tsstore",
                )
        nodes |= check.file_counts
        if commit.positions is not None:
            paths = positions_paths(self.directory, directory)
            check = ArrayCheck(self._files, paths, commit.positions, findings, *reading)
            with findings.catching(paths.values):
                check.read("int64")
            nodes |= check.file_counts
        return findings, nodes

    def _read_column(
        self, directory: str, commit: ArrayCommit, *reading: Any
    ) -> tuple[Findings, _Nodes]:
        paths, findings = column_paths(self.directory, directory), Findings(self._files.location)
        check = ArrayCheck(self._files, paths, commit, findings, *reading)
        with findings.catching(paths.values):
            check.read()
        return findings, check.file_counts
