"""Writing the parts of one step once more, as one part in few files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tsstore.store.chunked.writer import ArrayWriter
from tsstore.store.files.base import Files
from tsstore.store.format.arrays import MAX_SHARD_CHUNKS, ArraySpec, sample_spec
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import write_group
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
from tsstore.store.maintenance.merge_parts import MergedParts, Pieces, array_pieces
from tsstore.store.process import now, process_name
from tsstore.store.reading.part import Part
from tsstore.store.reading.status import FINISHED
from tsstore.store.writing.part import create_groups, create_part
from tsstore.store.writing.seal import create_seal


class PartCopy:
    """One new part, made of all parts of one step; an array at a time.

    Parameters
    ----------
    files
        Where the new run lies; its root exists.
    source
        The parts.
    shard_bytes
        Size of a shard's chunks as decoded.
    """

    def __init__(self, files: Files, source: MergedParts, shard_bytes: int) -> None:
        first = source.parts[0].attributes
        parts = tuple((part.directory, part.samples) for part in source.parts)
        all_say_empty = all(part.attributes.missing == "empty" for part in source.parts)
        given = PartAttributes(
            step=first.step,
            model=first.model,
            user=first.user,
            compacted_from=parts,
            missing="empty" if all_say_empty else "error",
        )
        attributes = create_part(files, given)
        self.directory = part_directory(attributes.rank, attributes.attempt)
        self._files = files
        self._source = source
        self._shard_bytes = shard_bytes
        self._writers: list[ArrayWriter] = []

    def write(self, report: Callable[[int], None]) -> Part:
        """Copy all layers and columns, and commit them; return the part, which is not sealed yet.

        Parameters
        ----------
        report
            Called with the number of layers and columns that have been copied.
        """
        create_groups(self._files, self.directory)
        layers, columns = {}, {}
        for index, name in enumerate(self._source.layers):
            directory = directory_name(index, name)
            layers[directory] = self._copy_layer(name, directory)
            report(index + 1)
        for index, name in enumerate(self._source.columns):
            directory = column_directory(index, name)
            columns[directory] = self._copy_column(name, index, directory)
            report(len(layers) + index + 1)
        batches = sum(part.record.batches for part in self._source.parts)
        samples = self._source.store.samples
        self._commit(CommitRecord(1, batches, samples, now(), layers, columns))
        return Part.open(self._files, self.directory)

    def seal(self, part: Part) -> None:
        """Freeze the part; one whose source was cut off says so, and is no finished one."""
        finished = self._source.store.status == FINISHED
        why = "closed" if finished else "compacted from a run that was cut off"
        create_seal(self._files, self.directory, part.record, why, process_name())
        self._files.sync()

    def _copy_layer(self, name: str, directory: str) -> LayerCommit:
        states, positions = self._source.layers[name], None
        path = layer_path(self.directory, directory)
        write_group(self._files, path, states.attributes.to_json())
        first = states.parts[0].states.spec
        spec = self._sharded(first, states.rows, first.chunk_bytes)
        paths = states_paths(self.directory, directory)
        rows = self._copy(paths, spec, self._source.rows(name))
        if states.samples and states.positions is None:
            spec = sample_spec("int64")
            spec = self._sharded(spec, states.samples, spec.chunk_bytes)
            paths = positions_paths(self.directory, directory)
            positions = self._copy(paths, spec, self._source.positions(name))
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
        spec = self._sharded(spec, rows, chunk_bytes)
        return self._copy(paths, spec, array_pieces(arrays), attributes)

    def _sharded(self, spec: ArraySpec, rows: int, chunk_bytes: int) -> ArraySpec:
        """Return the spec with as many chunks in a shard as fit, and no more than there are."""
        fit = self._shard_bytes // max(chunk_bytes, 1)
        count = min(fit, -(-rows // spec.chunk_rows), MAX_SHARD_CHUNKS)
        return replace(spec, shard_chunks=count if count > 1 else None)

    def _copy(
        self,
        paths: ArrayPaths,
        spec: ArraySpec,
        pieces: Pieces,
        attributes: dict[str, Any] | None = None,
    ) -> ArrayCommit:
        writer = ArrayWriter(self._files, paths, spec, attributes)
        for piece in pieces:
            writer.append(piece)
        self._writers.append(writer)
        return writer.finish()

    def _commit(self, record: CommitRecord) -> None:
        self._files.sync()
        write_group(self._files, commit_path(self.directory), record.to_json())
        self._files.sync()
        for writer in self._writers:
            writer.write_shape()
        self._files.sync()
