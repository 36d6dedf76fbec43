"""Opening a run: its parts, layers and sample columns, as far as they are committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import DamageError, StoreError, UnknownLayerError
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import LayerPart
from tsstore.store.reading.part import Part
from tsstore.store.reading.run_view import RunView, open_parts
from tsstore.store.run import read_run
from tsstore.text import printable

if TYPE_CHECKING:
    import pandas as pd


def open_store(path: StorePath) -> StateStore:
    """Open a run, finished or running, as of its last commits.

    Parameters
    ----------
    path
        Where ``tsstore.capture`` wrote it.

    Returns
    -------
    StateStore
        The committed states; :meth:`StateStore.refresh` moves on to later commits.

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
    return StateStore(files, read_run(files), open_parts(files))


class StateStore(RunView, Mapping[str, LayerStates]):
    """The committed states of a run: a mapping from layer names to their states.

    It shows the run as of its last commits when it was opened or refreshed. Layers and columns
    that it has handed out stay as they were, whatever is committed later.
    """

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
        return StateStore(self._files, self.run, parts, (step,))

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
        return LayerStates(self.path, public, tuple(self._layer_parts(public, self.parts)))

    def _layer_parts(self, layer: str, parts: tuple[Part, ...]) -> Iterator[LayerPart]:
        """Yield the layer in each part that holds it, and in those whose samples gave no rows."""
        self._check_everywhere(layer, parts)
        first = next(part.layers[layer] for part in parts if layer in part.layers)
        for part in parts:
            if layer in part.layers:
                yield part.layers[layer]
            elif part.samples:
                yield first.without_rows(part.directory, part.samples)

    def _check_everywhere(self, layer: str, parts: Iterable[Part]) -> None:
        """Raise where a part holds samples, but not of that layer, and says not why."""
        lacking = [
            part
            for part in parts
            if part.samples and layer not in part.layers and part.attributes.missing == "error"
        ]
        if not lacking:
            return
        names = ", ".join(part.directory for part in lacking)
        what = f"{self.path}: layer {printable(layer)} has no states in {names}, which hold samples"
        if any(part.seal is None for part in lacking):
            raise StoreError(f"{what}; other parts have it already: wait for the next commit")
        raise DamageError(f"{what}; the parts were captured with different layers")

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        from tsstore.store.reading.display import store_text

        return store_text(self)

    def _repr_html_(self) -> str:
        from tsstore.store.reading.display import store_html

        return store_html(self)


def aliases(name: str) -> tuple[str, ...]:
    """Return what a name may mean: the tutorial's names for outputs and inputs included."""
    before = (name.removesuffix("_pre_states") + ":before",) * name.endswith("_pre_states")
    return name, name.removesuffix("_post_states"), *before, name.removesuffix("_states")
