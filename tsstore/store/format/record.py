"""The commit record: what of a part is on disk for good. Readers believe it and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Self

from tsstore.errors import FormatError
from tsstore.store.format.documents import Check, Stored, mapping, number, real, stored, text
from tsstore.store.format.paths import is_directory


def _lengths(value: object, what: str, where: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected the fewest and the most")
    fewest, most = (number(entry, what, where) for entry in value)
    if fewest > most:
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected the fewest first")
    return fewest, most


def _by_directory(check: Check) -> Check:
    """Return a check of a mapping from directories to what `check` takes."""

    def by_directory(value: object, what: str, where: str) -> dict[str, Any]:
        said = mapping(value, what, where)
        for name in said:
            if not is_directory(name):
                raise FormatError(f"{where}: {name!r:.80} is no directory name of format 1")
        return {name: check(item, name, where) for name, item in said.items()}

    return by_directory


@dataclass(frozen=True)
class ArrayCommit(Stored):
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

    rows: int = stored(number)
    digest: int = stored(number, 0)
    tail_rows: int = stored(number, 0)
    tail_checksum: int = stored(number, 0)


_FIELDS = attrgetter("rows", "digest", "tail_rows", "tail_checksum")


@dataclass(frozen=True)
class LayerCommit(Stored):
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

    states: ArrayCommit = stored(ArrayCommit.from_json)
    positions: ArrayCommit | None = stored(ArrayCommit.from_json, None)
    lengths: tuple[int, int] | None = stored(_lengths, None)

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        positions = None if self.positions is None else dict(vars(self.positions))
        return {"states": dict(vars(self.states)), "positions": positions, "lengths": self.lengths}


@dataclass(frozen=True)
class CommitRecord(Stored):
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
    waited
        Seconds that the job had waited for the part's writer; None where it does not say so.
    """

    generation: int = stored(number, 0)
    batches: int = stored(number, 0)
    samples: int = stored(number, 0)
    time: str = stored(text, "")
    layers: Mapping[str, LayerCommit] = stored(_by_directory(LayerCommit.from_json), dict)
    columns: Mapping[str, ArrayCommit] = stored(_by_directory(ArrayCommit.from_json), dict)
    waited: float | None = stored(real, None)

    def to_json(self) -> dict[str, Any]:
        """Return the record as it is stored; its node's attributes have a checksum."""
        # Not by asdict, which takes as long for the records of a large run as counting a layer.
        layers = {name: layer.to_json() for name, layer in self.layers.items()}
        columns = {name: dict(vars(column)) for name, column in self.columns.items()}
        said = {**vars(self), "layers": layers, "columns": columns}
        if self.waited is None:
            del said["waited"]
        return said

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
    def from_json(cls, value: object, what: str, where: str) -> Self:
        """Check and parse a stored record, whose numbers must go together."""
        record = super().from_json(value, what, where)
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


@dataclass(frozen=True)
class Seal(Stored):
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

    record: CommitRecord = stored(CommitRecord.from_json)
    why: str = stored(text)
    by: str = stored(text)
    time: str = stored(text)
    waited: float | None = stored(real, None)

    def to_json(self) -> dict[str, Any]:
        """Return the seal as it is stored."""
        return {**vars(self), "record": self.record.to_json()}
