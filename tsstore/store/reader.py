"""Opening a run: its parts, layers and sample columns, as far as they are committed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import (
    DamageError,
    FormatError,
    NotAStoreError,
    StoreError,
    UnknownLayerError,
)
from tsstore.store import layout
from tsstore.store.arrays import CommittedArray
from tsstore.store.files import Files, open_files
from tsstore.store.layers import LayerPart, LayerStates
from tsstore.store.layout import LayerAttributes, PartAttributes, RunAttributes
from tsstore.store.metadata import load, metadata_key, read_document, tsstore_attributes
from tsstore.store.record import CommitRecord, Seal

if TYPE_CHECKING:
    import pandas as pd


def open_store(path: str | os.PathLike[str]) -> StateStore:
    """Open a run, finished or running, as of its last commits.

    Parameters
    ----------
    path
        Where ``tsstore.capture`` wrote it.

    Returns
    -------
    StateStore
        The committed states; open again to see later commits.

    Raises
    ------
    NotAStoreError
        If there is no run at `path`.
    FormatError
        If the run has a newer format, or its metadata is not valid.
    DamageError
        If metadata or a commit record is damaged.
    """
    files = open_files(path)
    run = _read_run(files)
    names = [name for name in files.list("") if name.startswith("part-")]
    parts = [Part.open(files, name) for name in names if files.exists(metadata_key(name))]
    return StateStore(files, run, tuple(parts))


def _read_run(files: Files) -> RunAttributes:
    where = f"{files.location}/{metadata_key('')}"
    try:
        data = files.read(metadata_key(""))
    except OSError:
        found = "found something else" if files.exists("") else "found nothing there"
        raise NotAStoreError(
            f"{files.location} is no tsstore run: {found}, expected a directory with zarr.json; "
            "check the path"
        ) from None
    attributes = load(data, where).get("attributes")
    if not isinstance(attributes, dict) or "tsstore" not in attributes:
        raise NotAStoreError(
            f"{files.location} is a Zarr hierarchy but no tsstore run: expected "
            "attributes.tsstore; check the path"
        )
    return RunAttributes.from_json(tsstore_attributes({"attributes": attributes}, where), where)


@dataclass(frozen=True)
class Part:
    """What one writer process has committed.

    Attributes
    ----------
    files
        Where the run lies.
    directory
        The part's directory in it.
    attributes
        What the part says of the process.
    record
        The commit record that this reader believes: the seal's, where there is one.
    seal
        The seal, if the part is sealed.
    """

    files: Files
    directory: str
    attributes: PartAttributes
    record: CommitRecord
    seal: Seal | None

    @classmethod
    def open(cls, files: Files, directory: str) -> Part:
        """Read and check a part's attributes and record."""
        if not layout.is_directory(directory):
            raise FormatError(f"{files.location}: {directory!r:.80} is no part's directory")
        where = f"{files.location}/{directory}"
        attributes = tsstore_attributes(read_document(files, directory), where)
        part = PartAttributes.from_json(attributes, where)
        seal, record = None, CommitRecord()
        if files.exists(metadata_key(layout.seal_path(directory))):
            seal = Seal.from_json(*_attributes(files, layout.seal_path(directory)))
            record = seal.record
        elif files.exists(metadata_key(layout.commit_path(directory))):
            record = CommitRecord.from_json(*_attributes(files, layout.commit_path(directory)))
        return cls(files, directory, part, record, seal)

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
        opened = [self._open_layer(directory) for directory in self.record.layers]
        return {layer.attributes.name: layer for layer in opened}

    @cached_property
    def columns(self) -> dict[str, CommittedArray]:
        """The part's sample columns by name."""
        columns = {}
        for directory, commit in self.record.columns.items():
            paths = layout.column_paths(self.directory, directory)
            column = CommittedArray.open(self.files, paths, commit)
            columns[str(column.attributes.get("name", directory))] = column
        return columns

    def _open_layer(self, directory: str) -> LayerPart:
        path = layout.layer_path(self.directory, directory)
        attributes = LayerAttributes.from_json(*_attributes(self.files, path))
        commit = self.record.layers[directory]
        states = CommittedArray.open(
            self.files, layout.states_paths(self.directory, directory), commit.states
        )
        if states.spec.dtype != "uint8" or states.spec.row_shape != (attributes.row_bytes,):
            raise FormatError(
                f"{self.files.location}/{path}: states of {states.spec.row_shape} "
                f"{states.spec.dtype} cannot hold {attributes.neurons} neurons"
            )
        positions = None
        if commit.positions is not None:
            paths = layout.positions_paths(self.directory, directory)
            positions = CommittedArray.open(self.files, paths, commit.positions)
        return LayerPart(self.directory, attributes, states, positions, self.samples)


def _attributes(files: Files, path: str) -> tuple[dict[str, Any], str]:
    where = f"{files.location}/{path}"
    return tsstore_attributes(read_document(files, path), where), where


class StateStore(Mapping[str, LayerStates]):
    """The committed states of a run: a mapping from layer names to their states.

    Parameters
    ----------
    files
        Where the run lies.
    run
        What its root says.
    parts
        Its parts, with the records that this reader believes.
    """

    def __init__(self, files: Files, run: RunAttributes, parts: tuple[Part, ...]) -> None:
        self._files = files
        self.run = run
        self.parts = parts

    @property
    def path(self) -> str:
        """Where the run lies."""
        return self._files.location

    @property
    def samples(self) -> int:
        """Number of committed samples in all parts."""
        return sum(part.samples for part in self.parts)

    @property
    def steps(self) -> tuple[int | str | None, ...]:
        """The steps of the parts that hold samples, in order of their first part."""
        return tuple(dict.fromkeys(part.step for part in self.parts if part.samples))

    @property
    def finished(self) -> bool:
        """Whether every part was closed by its own writer."""
        return all(part.seal is not None and part.seal.why == "closed" for part in self.parts)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Public names of the layers, in the order of capture."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.layers))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the sample columns."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.columns))

    def at_step(self, step: int | str | None) -> StateStore:
        """Return the same store with the parts of one step only.

        Raises
        ------
        StoreError
            If no part has that step.
        """
        parts = tuple(part for part in self.parts if part.step == step)
        if not parts:
            raise StoreError(
                f"{self.path} has no part of step {step!r}; it has {', '.join(map(repr, self.steps))}"
            )
        return StateStore(self._files, self.run, parts)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a sample column, one entry a sample, part after part.

        Raises
        ------
        StoreError
            If a part with samples has no such column.
        """
        pieces = []
        for part in self.parts:
            if not part.samples:
                continue
            if name not in part.columns:
                raise StoreError(
                    f"{self.path}/{part.directory} has no sample column {name!r}; "
                    f"it has {', '.join(part.columns) or 'none'}"
                )
            pieces.append(part.columns[name].read(0, part.samples))
        if not pieces:
            raise StoreError(f"{self.path} has no sample column {name!r}: no samples are committed")
        return np.concatenate(pieces)

    def samples_frame(self) -> pd.DataFrame:
        """Return all sample columns as a table, one line a sample."""
        import pandas as pd

        return pd.DataFrame({name: self.column(name) for name in self.columns})

    def layer_name(self, name: str) -> str:
        """Return the public name that `name` means; ``conv_1_post_states`` means ``conv_1``.

        Raises
        ------
        UnknownLayerError
            If there is no such layer.
        """
        for candidate in _aliases(name):
            if candidate in self.layers:
                return candidate
        held = ", ".join(self.layers) or "no layers: nothing has been committed"
        raise UnknownLayerError(f"{self.path} has no layer {name!r}; it has {held}")

    def __getitem__(self, name: str) -> LayerStates:
        public = self.layer_name(name)
        parts = [part.layers[public] for part in self.parts if public in part.layers]
        lacking = [p.directory for p in self.parts if p.samples and public not in p.layers]
        if lacking:
            raise DamageError(
                f"{self.path}: layer {public} has no states in {', '.join(lacking)}, which hold "
                "samples; the parts were captured with different layers"
            )
        return LayerStates(self.path, public, tuple(parts))

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        from tsstore.store.display import store_text

        return store_text(self)

    def _repr_html_(self) -> str:
        from tsstore.store.display import store_html

        return store_html(self)


def _aliases(name: str) -> tuple[str, ...]:
    """Return what a name may mean: the tutorial's names for outputs and inputs included."""
    return (
        name,
        name.removesuffix("_post_states"),
        name.removesuffix("_states"),
        name.removesuffix("_pre_states") + ":before",
    )
