"""Opening a run: its parts, layers and sample columns, as far as they are committed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import DamageError, NotAStoreError, StoreError, UnknownLayerError
from tsstore.store import layout
from tsstore.store.display import printable
from tsstore.store.documents import check_attributes, load, metadata_key, tsstore_attributes
from tsstore.store.files import Files, open_files
from tsstore.store.layers import LayerStates
from tsstore.store.layout import RunAttributes
from tsstore.store.parts import Part, has_begun

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
    parts = [Part.open(files, name) for name in names if has_begun(files, name)]
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
    run = tsstore_attributes({"attributes": attributes}, where)
    # A newer format may have another rule for the checksum: its version comes first.
    layout.check_format(run, where)
    return RunAttributes.from_json(check_attributes(run, "", files.location), where)


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
        closed = [part.seal is not None and part.seal.why == "closed" for part in self.parts]
        return bool(closed) and all(closed)

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
                f"{self.path} has no part of step {step!r}; "
                f"it has {', '.join(map(repr, self.steps)) or 'no samples'}"
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
                    f"it has {', '.join(map(printable, part.columns)) or 'none'}"
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
        for candidate in aliases(name):
            if candidate in self.layers:
                return candidate
        held = ", ".join(map(printable, self.layers)) or "no layers: nothing has been committed"
        raise UnknownLayerError(f"{self.path} has no layer {name!r}; it has {held}")

    def __getitem__(self, name: str) -> LayerStates:
        public = self.layer_name(name)
        parts = [part.layers[public] for part in self.parts if public in part.layers]
        lacking = [p.directory for p in self.parts if p.samples and public not in p.layers]
        if lacking:
            raise DamageError(
                f"{self.path}: layer {printable(public)} has no states in {', '.join(lacking)}, "
                "which hold samples; the parts were captured with different layers"
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


def aliases(name: str) -> tuple[str, ...]:
    """Return what a name may mean: the tutorial's names for outputs and inputs included."""
    before = (name.removesuffix("_pre_states") + ":before",) * name.endswith("_pre_states")
    return name, name.removesuffix("_post_states"), *before, name.removesuffix("_states")
