"""Rewriting a run of many parts as one part for each step, in few files."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from tsstore.errors import AccessError, DamageError, StoreError, TsstoreError
from tsstore.store.chunked.chunk import payload
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.chunked.writer import ArrayWriter, Encoder
from tsstore.store.files.base import Files
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.format.arrays import MAX_SHARD_CHUNKS, ArraySpec, sample_spec
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import now, write_group
from tsstore.store.format.paths import (
    ArrayPaths,
    column_directory,
    column_paths,
    commit_path,
    directory_name,
    layer_path,
    part_directory,
    positions_paths,
    states_paths,
)
from tsstore.store.format.record import ArrayCommit, CommitRecord, LayerCommit
from tsstore.store.maintenance.merged_parts import MOST_THREADS, MergedParts, array_pieces
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import LayerPart
from tsstore.store.reading.part import Part
from tsstore.store.reading.status import FINISHED, LIVE
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.run import create_run, read_run
from tsstore.store.targets import check_outside
from tsstore.store.threads import in_threads, processors
from tsstore.store.writing.part import create_groups, create_part, create_seal
from tsstore.text import Progress, printable, silent

SHARD_BYTES = 256 << 20

_Pieces = Iterable[npt.NDArray[Any]]


def compact(
    source: StorePath | StateStore,
    out: StorePath,
    *,
    shard_bytes: int = SHARD_BYTES,
    durable: bool = True,
    progress: Progress | None = None,
) -> StateStore:
    """Rewrite a run as one part for each of its steps, in few files, and compare the two.

    The source is only read. A new part holds the samples of the old ones in the order of attempts,
    and within one in that of ranks: of repeated samples, the one that counts stays the same. A
    part whose source was cut off says so, and can be resumed like it where its samples have ids.
    What the user said of the old parts is kept of the first one only.

    Parameters
    ----------
    source
        A run all of whose parts are sealed.
    out
        Where to create the new run.
    shard_bytes
        Size of a shard's chunks as decoded; a shard is held in memory until it is written, and up
        to 256 MiB of what is read ahead of it. All processors read, decode and encode.
    durable
        Whether to wait for the disk.
    progress
        Called after each array.

    Returns
    -------
    StateStore
        The new run.

    Raises
    ------
    StoreError
        If the source has no parts, or one that is not sealed, or parts of a step that do not fit
        together; if `out` lies within a run; or if the new run cannot be written, of which nothing
        is left then, or nothing that is sealed.
    DamageError
        If the new run does not hold what the source does; it is removed then.
    StoreExistsError
        If there is something at `out`.
    NotAStoreError, FormatError, DamageError
        If the source cannot be read.
    """
    store = source.pinned() if isinstance(source, StateStore) else open_store(source)
    store.check_whole("a run is compacted whole")
    _check_sealed(store)
    steps = dict.fromkeys(part.step for part in store.parts)
    # Parts that do not fit together are refused before anything is written.
    sources = [MergedParts(store, step) for step in steps]
    check_outside(out)
    files = open_files(out, durable)
    software = {name: version for name, version in store.run.software.items() if name != "tsstore"}
    run_id, was_there = uuid.uuid4().hex, files.exists("")
    try:
        create_run(files, software, run_id, compacted_from=store.run.run_id)
        try:
            _copy(files, sources, shard_bytes, progress or silent)
        except (OSError, TsstoreError) as error:
            kind = DamageError if isinstance(error, DamageError) else StoreError
            kind = AccessError if isinstance(error, OSError) else kind
            gone = not was_there and _remove(files, run_id)
            state = "removed again" if gone else "not complete: remove it"
            raise kind(
                f"{store.path} was not compacted: {error}; {files.location} is {state}, then "
                "compact again"
            ) from error
        return open_store(out)
    except KeyboardInterrupt:
        if not was_there:
            _remove(files, run_id)
        raise


def disk_usage(path: StorePath) -> tuple[int, int]:
    """Return how many files a run has, and how many bytes they hold."""
    files = open_files(path)
    sizes = list(in_threads(files.size, files.walk(), files.readers))
    return len(sizes), sum(sizes)


def _copy(files: Files, sources: list[MergedParts], shard_bytes: int, progress: Progress) -> None:
    done = []
    for source in sources:
        copy = _PartCopy(files, source, shard_bytes, progress)
        part = copy.write()
        copy.compare(part)
        done.append((copy, part))
    # Seals come last: a run of which they are missing is not complete.
    for copy, part in done:
        copy.seal(part)


def _remove(files: Files, run_id: str) -> bool:
    """Remove a run that is not complete, unless it is another one than this; say if it is gone."""
    with suppress(OSError, TsstoreError):
        if not files.names("") or read_run(files).run_id == run_id:
            files.remove_tree()
        return not files.exists("")
    return False


def _check_sealed(store: StateStore) -> None:
    if not store.parts:
        raise StoreError(f"{store.path} has no parts yet, so there is nothing to compact; wait")
    for part, status in zip(store.parts, store.part_statuses, strict=True):
        if part.seal is None:
            advice = (
                "wait until the job has ended"
                if status.state == LIVE
                else "let the job go on by resume=True, or seal the part by tsstore repair"
            )
            raise StoreError(
                f"{store.path}/{part.directory} is not sealed ({printable(str(status))}); expected "
                f"a run all of whose parts are: {advice}"
            )


def _hashed(spec: ArraySpec, pieces: _Pieces, digest: hashlib.blake2b) -> Iterator[Any]:
    """Yield entries, and note what they are to the bit: NaN is itself, and -0.0 is not 0.0."""
    for piece in pieces:
        digest.update(payload(spec, piece))
        yield piece


class _PartCopy:
    """One new part in `files`, made of all parts of one step; an array at a time."""

    def __init__(
        self, files: Files, source: MergedParts, shard_bytes: int, progress: Progress
    ) -> None:
        first = source.store.parts[0].attributes
        parts = tuple((part.directory, part.samples) for part in source.store.parts)
        all_say_empty = all(part.attributes.missing == "empty" for part in source.store.parts)
        given = PartAttributes(
            step=first.step,
            model=first.model,
            user=first.user,
            total=first.total,
            compacted_from=parts,
            missing="empty" if all_say_empty else "error",
        )
        attributes = create_part(files, given)
        self.directory = part_directory(attributes.rank, attributes.attempt)
        self._files = files
        self._source = source
        self._shard_bytes = shard_bytes
        self._progress = progress
        self._writers: list[ArrayWriter] = []
        self._read: dict[str, bytes] = {}

    def write(self) -> Part:
        """Copy all layers and columns, and commit them; return the part, not sealed yet."""
        create_groups(self._files, self.directory)
        layers, columns = {}, {}
        for index, name in self._reported("write", self._source.layers):
            directory = directory_name(index, name)
            layers[directory] = self._copy_layer(name, directory)
        for index, name in self._reported("write", self._source.columns, len(layers)):
            directory = column_directory(index, name)
            columns[directory] = self._copy_column(name, index, directory)
        batches = sum(part.record.batches for part in self._source.store.parts)
        samples = self._source.store.samples
        self._commit(CommitRecord(1, batches, samples, now(), layers, columns))
        return Part.open(self._files, self.directory)

    def compare(self, part: Part) -> None:
        """Read the part back, checksums and all; DamageError where it is not what was copied."""
        source = self._source
        self._check("its layers", list(part.layers) == list(source.layers))
        self._check("its columns", list(part.columns) == list(source.columns))
        for _, name in self._reported("compare", part.layers):
            self._compare_layer(f"layer {printable(name)}", part.layers[name], source.layers[name])
        for _, name in self._reported("compare", part.columns, len(part.layers)):
            column = part.columns[name]
            is_same = column.spec.dtype == source.columns[name][0].spec.dtype
            what = f"entries of column {printable(name)}"
            self._check(what, is_same and self._is_as_read(column))

    def _reported(
        self, task: str, names: Iterable[str], done: int = 0
    ) -> Iterator[tuple[int, str]]:
        """Yield names with their numbers from 0, and report each when the next one is wanted."""
        arrays = len(self._source.layers) + len(self._source.columns)
        for index, name in enumerate(names):
            yield index, name
            self._progress(f"{task} {self.directory}", done + index + 1, arrays)

    def _compare_layer(self, what: str, copy: LayerPart, source: LayerStates) -> None:
        self._check(f"attributes of {what}", copy.attributes == source.attributes)
        self._check(f"rows of {what}", self._is_as_read(copy.states))
        if copy.positions is not None:
            is_same = self._is_as_read(copy.positions)
        else:
            is_same = not source.samples or copy.constant_positions == source.positions
        is_same &= copy.samples == source.samples
        self._check(f"rows by sample of {what}", is_same)

    def _is_as_read(self, array: CommittedArray) -> bool:
        """Whether an array's entries, read back, are those that were read of the source."""
        digest = hashlib.blake2b()
        for _ in _hashed(array.spec, array_pieces([array]), digest):
            pass
        return digest.digest() == self._read.get(array.paths.values)

    def _check(self, what: str, is_same: bool) -> None:
        if not is_same:
            raise DamageError(
                f"{self._files.location}/{self.directory}: {what} are not those of "
                f"{self._source.store.path}; look after the disk"
            )

    def seal(self, part: Part) -> None:
        """Freeze the part; one whose source was cut off says so, and is no finished one."""
        finished = self._source.store.status == FINISHED
        why = "closed" if finished else "compacted from a run that was cut off"
        create_seal(self._files, self.directory, part.record, why)
        self._files.sync()

    def _copy_layer(self, name: str, directory: str) -> LayerCommit:
        states, positions = self._source.layers[name], None
        path = layer_path(self.directory, directory)
        write_group(self._files, path, states.attributes.to_json())
        paths, arrays = states_paths(self.directory, directory), [p.states for p in states.parts]
        rows = self._copy(paths, arrays[0].spec, states.rows, array_pieces(arrays))
        if states.samples and states.positions is None:
            paths = positions_paths(self.directory, directory)
            pieces = (piece for part in states.parts for piece in part.position_pieces())
            positions = self._copy(paths, sample_spec("int64"), states.samples, pieces)
        return LayerCommit(rows, positions, states.lengths)

    def _copy_column(self, name: str, index: int, directory: str) -> ArrayCommit:
        arrays = self._source.columns[name]
        spec, rows = arrays[0].spec, sum(array.rows for array in arrays)
        chunk_bytes = spec.chunk_bytes
        if spec.is_text and rows:
            # Text is of no size that is known before: take what it has been until now.
            keys = ((a.files, key) for a in arrays for key in a.files.walk(a.paths.values))
            chunk_bytes = sum(files.size(key) for files, key in keys) * spec.chunk_rows // rows
        paths = column_paths(self.directory, directory)
        attributes = {"name": name, "index": index}
        return self._copy(paths, spec, rows, array_pieces(arrays), attributes, chunk_bytes)

    def _copy(
        self,
        paths: ArrayPaths,
        spec: ArraySpec,
        rows: int,
        pieces: _Pieces,
        attributes: dict[str, Any] | None = None,
        chunk_bytes: int = 0,
    ) -> ArrayCommit:
        """Write an array, with as many chunks in a shard as fit, and no more than there are."""
        fit = self._shard_bytes // max(chunk_bytes, spec.chunk_bytes, 1)
        count = min(fit, -(-rows // spec.chunk_rows), MAX_SHARD_CHUNKS)
        spec = replace(spec, shard_chunks=count if count > 1 else None)
        # Text is encoded where it is: its entries are no bytes that could be copied.
        encoder = Encoder(1 if spec.is_text else min(processors(), MOST_THREADS))
        writer = ArrayWriter(self._files, paths, spec, attributes, encoder)
        digest = hashlib.blake2b()
        try:
            for piece in _hashed(spec, pieces, digest):
                writer.append(piece)
            commit = writer.finish()
            encoder.drain()
        finally:
            encoder.close()
        self._read[paths.values] = digest.digest()
        self._writers.append(writer)
        return commit

    def _commit(self, record: CommitRecord) -> None:
        self._files.sync()
        write_group(self._files, commit_path(self.directory), record.to_json())
        self._files.sync()
        for writer in self._writers:
            writer.write_shape()
        self._files.sync()
