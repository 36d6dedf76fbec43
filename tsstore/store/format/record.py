"""The commit record: what of a part is on disk for good. Readers believe it and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from tsstore.errors import FormatError
from tsstore.store.format.documents import mapping, number, real, text
from tsstore.store.format.paths import is_directory


@dataclass(frozen=True)
class ArrayCommit:
    """What is committed of one array.

    Attributes
    ----------
    rows
        Entries along the first axis.
    digest
        crc32c of the little-endian uint32 checksums of all full chunks.
    tail_rows
        Entries in the unfinished last chunk.
    tail_checksum
        crc32c of those entries as decoded.
    """

    rows: int
    digest: int = 0
    tail_rows: int = 0
    tail_checksum: int = 0

    @classmethod
    def from_json(cls, value: object, where: str) -> ArrayCommit:
        """Check and parse; FormatError where a number is not valid."""
        fields = mapping(value, "an array's commit", where)
        return cls(
            number(fields.get("rows"), "rows", where),
            number(fields.get("digest"), "digest", where),
            number(fields.get("tail_rows"), "tail_rows", where),
            number(fields.get("tail_checksum"), "tail_checksum", where),
        )


_FIELDS = attrgetter("rows", "digest", "tail_rows", "tail_checksum")


@dataclass(frozen=True)
class LayerCommit:
    """What is committed of one layer.

    Attributes
    ----------
    states
        Its rows.
    positions
        Rows of each sample, only where they vary from sample to sample.
    lengths
        The fewest and the most positions of a sample, of which some were chosen; None where all
        were kept.
    """

    states: ArrayCommit
    positions: ArrayCommit | None = None
    lengths: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        positions = None if self.positions is None else dict(vars(self.positions))
        return {"states": dict(vars(self.states)), "positions": positions, "lengths": self.lengths}


@dataclass(frozen=True)
class CommitRecord:
    """What is committed of a part.

    Attributes
    ----------
    generation
        How many commits there were; 0 before the first.
    batches, samples
        How many are committed, the same in every layer and column.
    time
        ISO 8601 time of the commit.
    layers, columns
        By directory.
    """

    generation: int = 0
    batches: int = 0
    samples: int = 0
    time: str = ""
    layers: Mapping[str, LayerCommit] = field(default_factory=dict)
    columns: Mapping[str, ArrayCommit] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as it is stored; its node's attributes have a checksum."""
        # Not by asdict, which takes as long for the records of a large run as counting a layer.
        layers = {name: layer.to_json() for name, layer in self.layers.items()}
        columns = {name: dict(vars(column)) for name, column in self.columns.items()}
        return {**vars(self), "layers": layers, "columns": columns}

    @property
    def digest(self) -> str:
        """A digest of all that is committed, hexadecimal: equal records have equal ones."""
        # Not of the JSON: 500 parts of 50 layers would take as long as counting one of them.
        layers = [
            (name, *[at and _FIELDS(at) for at in (layer.states, layer.positions)], layer.lengths)
            for name, layer in sorted(self.layers.items())
        ]
        columns = [(name, _FIELDS(column)) for name, column in sorted(self.columns.items())]
        own = self.generation, self.batches, self.samples, self.time
        return hashlib.sha256(repr((own, layers, columns)).encode()).hexdigest()

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> CommitRecord:
        """Check and parse a stored record; FormatError where something in it is not valid."""
        record = cls(
            number(value.get("generation"), "generation", where),
            number(value.get("batches"), "batches", where),
            number(value.get("samples"), "samples", where),
            text(value.get("time"), "time", where),
            {
                _directory(key, where): _layer_commit(item, where)
                for key, item in mapping(value.get("layers"), "layers", where).items()
            },
            {
                _directory(key, where): ArrayCommit.from_json(item, where)
                for key, item in mapping(value.get("columns"), "columns", where).items()
            },
        )
        record._check_samples(where)
        return record

    def _check_samples(self, where: str) -> None:
        per_sample = {name: column.rows for name, column in self.columns.items()}
        for name, layer in self.layers.items():
            if layer.positions is not None:
                per_sample[name] = layer.positions.rows
            elif layer.states.rows % max(self.samples, 1) or layer.states.rows > 0 == self.samples:
                raise FormatError(
                    f"{where}: {layer.states.rows} rows of {name} cannot be shared equally "
                    f"by {self.samples} samples"
                )
        for name, rows in per_sample.items():
            if rows != self.samples:
                raise FormatError(f"{where}: {name} has {rows} samples, the part {self.samples}")


def _directory(name: str, where: str) -> str:
    if not is_directory(name):
        raise FormatError(f"{where}: {name!r:.80} is no directory name of format 1")
    return name


def _layer_commit(value: object, where: str) -> LayerCommit:
    fields = mapping(value, "a layer's commit", where)
    positions = fields.get("positions")
    return LayerCommit(
        ArrayCommit.from_json(fields.get("states"), where),
        None if positions is None else ArrayCommit.from_json(positions, where),
        None if fields.get("lengths") is None else _lengths(fields["lengths"], where),
    )


def _lengths(value: object, where: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise FormatError(f"{where}: lengths is {value!r:.80}; expected the fewest and the most")
    fewest, most = (number(entry, "lengths", where) for entry in value)
    if fewest > most:
        raise FormatError(f"{where}: lengths is {value!r:.80}; expected the fewest first")
    return fewest, most


@dataclass(frozen=True)
class Seal:
    """The frozen last commit of a part; nothing counts after it.

    Attributes
    ----------
    record
        A copy of the commit record.
    why
        ``"closed"`` by its own writer, or the reason another process gave.
    by
        Who sealed it.
    time
        ISO 8601 time.
    waited
        Seconds that the job waited for the part's writer; None where another process sealed it.
    """

    record: CommitRecord
    why: str
    by: str
    time: str
    waited: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the seal as it is stored."""
        return {**vars(self), "record": self.record.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Seal:
        """Check and parse a stored seal."""
        waited = value.get("waited")
        return cls(
            CommitRecord.from_json(mapping(value.get("record"), "record", where), where),
            text(value.get("why"), "why", where),
            text(value.get("by"), "by", where),
            text(value.get("time"), "time", where),
            None if waited is None else real(waited, "waited", where),
        )
