"""Opening a run: its parts, layers and sample columns, as far as they are committed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from tsstore.errors import StoreError, UnknownLayerError
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.reading.by_name import aliases
from tsstore.store.reading.catalogue import Places, layer_lines, layer_parts, layer_places
from tsstore.store.reading.layer import LAYER_HEADINGS, LayerStates, layer_cells
from tsstore.store.reading.part import open_parts
from tsstore.store.reading.run_samples import RunSamples
from tsstore.store.reading.status import (
    FINISHED,
    PartStatus,
    last_commit,
    part_statuses,
    run_status,
    status_text,
)
from tsstore.store.run import read_run
from tsstore.text import counted, html_table, html_title, printable, text_table

if TYPE_CHECKING:
    import xarray as xr
    import zarr

_OWN = {"_files", "run", "parts", "view"}


def open_store(path: StorePath) -> StateStore:
    """Open a run, finished or running, as of its last commits.

    Parameters
    ----------
    path
        Where ``tsstore.capture`` wrote it.

    Returns
    -------
    StateStore
        The committed states; `StateStore.refresh` moves on to later commits.

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


class StateStore(RunSamples, Mapping[str, LayerStates]):
    """The committed states of a run: a mapping from layer names to their states.

    `tsstore.open` makes it. It shows the run as of its last commits when it was opened or
    refreshed. Layers and columns that it has handed out stay as they were, whatever is committed
    later.
    """

    @property
    def status(self) -> str:
        """Whether the run is ``"live"``, ``"finished"`` or ``"cut off"``, as far as is known here.

        A part that is not sealed is live while its process is. Of a process on another host,
        only commits can be seen: it counts as cut off when it has been silent for five times what
        it usually takes from one to the next, ten minutes at least and a day at most.
        """
        return run_status(self.parts, self.run.created)

    @property
    def part_statuses(self) -> tuple[PartStatus, ...]:
        """The status of each part, and why those that were cut off were."""
        return part_statuses(self.parts)

    @property
    def finished(self) -> bool:
        """Whether, at every step, every rank's newest part was closed by its own writer."""
        return self.status == FINISHED

    @property
    def last_commit(self) -> datetime | None:
        """When there was a commit last; None if there has been none."""
        return last_commit(self.parts)

    @property
    def layers(self) -> tuple[str, ...]:
        """Public names of the layers, in the order of capture, or in which they were selected."""
        return tuple(self._places) if self.view.layers is None else self.view.layers

    def select(self, *layers: str) -> StateStore:
        """Return a view of some layers, in the order in which they are named.

        Parameters
        ----------
        *layers
            Names of layers, or patterns with ``*``, ``?`` or ``[…]``, as ``"fc*"``.

        Raises
        ------
        UnknownLayerError
            If there is no layer of that name, or none that fits a pattern.
        """
        known, names = dict.fromkeys(self.layers), dict[str, None]()
        for layer in layers:
            is_name = any(name in known for name in aliases(layer))
            fitting = [] if is_name else [name for name in known if fnmatchcase(name, layer)]
            names |= dict.fromkeys(fitting or [self.layer_name(layer)])
        return self._showing(self.parts, layers=tuple(names))

    def to_xarray(self) -> xr.Dataset:
        """Return the layers as variables of an xarray Dataset, decoded by Dask when computed.

        Returns
        -------
        xarray.Dataset
            ``dataset["conv_1"]`` is bool (sample, position…, neuron); all axes but ``sample`` are
            named after their layer, as ``conv_1_neuron``. Where samples differ in their rows it is
            (row, neuron), and ``conv_1_rows`` tells how many each sample has. Sample columns are
            coordinates, beside `step`, `part` and `sample_in_part`; one that has the name of
            anything else here is ``"name (recorded)"``.

        Raises
        ------
        StoreError
            If xarray is not installed.
        """
        from tsstore.store.reading.dataset import dataset

        said = {"run": self.path, "run_id": self.run.run_id}
        return dataset(self, self.samples_frame(), said)

    def layer_name(self, name: str) -> str:
        """Return the public name that `name` means; ``conv_1_post_states`` means ``conv_1``.

        Raises
        ------
        UnknownLayerError
            If there is no such layer.
        """
        # Of a whole run, no other layer is looked at.
        shown = (
            [self.view.layers] if self.view.layers is not None else [p.layers for p in self.parts]
        )
        for candidate in aliases(name):
            if any(candidate in layers for layers in shown):
                return candidate
        held = ", ".join(map(printable, self.layers)) or "no layers: nothing has been committed"
        raise UnknownLayerError(f"{self.path} has no layer {name!r}; it has {held}")

    def __getitem__(self, name: str) -> LayerStates:
        public = self.layer_name(name)
        held = tuple(layer_parts(self.path, public, self.parts))
        parts, layers = zip(*held, strict=True)
        return LayerStates(self.path, public, layers, self.view.samples, parts)

    @property
    def zarr_group(self) -> zarr.Group:
        """The run as a read-only group of zarr-python, as it is committed now.

        Parts, layers and columns are where ``docs/reference/format.md`` says; `xarray.open_zarr`
        takes its ``store`` and ``path``. Shapes end where the commit does, whatever is written
        later, and every chunk is checked: what is damaged raises DamageError. Of a view of some
        samples or layers it is a StoreError: arrays are shown whole.
        """
        self.check_whole("zarr_group shows whole arrays")
        from tsstore.store.reading.zarr_view import zarr_group

        return zarr_group(self._files, self.parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @cached_property
    def _places(self) -> Places:
        return layer_places(self.parts)

    def layer_lines(self) -> Iterator[tuple[str, ...]]:
        """Yield the lines of a table of the layers, most of which stay closed for it."""
        if self.view.samples.samples:
            shown = self.values()
            return (layer_cells(layer.attributes, layer.positions, layer.rows) for layer in shown)
        # A step may have other layers than those that were selected before.
        places = {name: self._places[name] for name in self.layers if name in self._places}
        return layer_lines(self.path, self.parts, places)

    def refresh(self) -> StateStore:
        """Move on to the latest commits, new parts included, and return this store.

        Layers, arrays and columns that were handed out before stay as they were. Samples never
        become fewer, but for those that a process committed in the very moment in which another
        one sealed its part: they do not count, and the other process records them again.

        Raises
        ------
        DamageError
            If a part's record went back, or a file is not what was written; the store then
            stays as it was.
        StoreError
            If another run lies at the path by now, or this is a view of some samples: which of
            later ones it were to show, nothing tells.
        """
        if self.view.told:
            raise StoreError(
                f"{self.path} is shown where {', '.join(self.view.told)}: refresh the store that "
                "this is a view of, then filter again"
            )
        run = read_run(self._files)
        if run.run_id != self.run.run_id:
            raise StoreError(
                f"{self.path} is another run now: found run id {run.run_id!r:.80}, expected "
                f"{self.run.run_id!r:.80}; open it again"
            )
        parts = open_parts(self._files, self.parts)
        if self.view.steps is not None:
            parts = tuple(part for part in parts if part.step in self.view.steps)
        for name in vars(self).keys() - _OWN:
            # It was derived from the earlier parts.
            delattr(self, name)
        self.parts = parts
        return self

    def pinned(self) -> StateStore:
        """Return this store as it is now, which no `refresh` of this one moves."""
        return copy.copy(self)

    def check_whole(self, what: str) -> None:
        """Raise StoreError if this shows some samples or layers only."""
        if self.view.told or self.view.layers is not None:
            raise StoreError(f"{self.path}: {what}; found a view of some samples or layers")

    @property
    def summary(self) -> str:
        """One line: samples, parts, steps, columns, whether and when it was written."""
        facts = [f"{self.samples:,} samples", counted(len(self.parts), "part")]
        steps = self.steps if self.steps != (None,) else ()
        for what, names in ("steps", steps), ("columns", self.columns), ("where", self.view.told):
            if names:
                facts.append(f"{what} {', '.join(printable(str(name)) for name in names)}")
        facts.append(status_text(self.status, self.part_statuses, self.last_commit))
        return " · ".join(facts)

    def __repr__(self) -> str:
        lines = [f"<StateStore {printable(self.path)}>", f"  {self.summary}"]
        rows = [LAYER_HEADINGS, *self.layer_lines()]
        return "\n".join(lines + text_table(rows) if len(rows) > 1 else lines)

    def _repr_html_(self) -> str:
        title = html_title("StateStore", self.path, self.summary)
        return title + html_table(LAYER_HEADINGS, self.layer_lines())
