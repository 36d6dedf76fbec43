"""A run as an xarray Dataset: named layers, decoded as they are asked for, beside their columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import StoreError
from tsstore.store.reading.layer import LayerStates

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

CHUNK_BYTES = 16 << 20
"""Of decoded states in a chunk, about; those of one sample are in one."""


def dataset(
    layers: Mapping[str, LayerStates], samples: pd.DataFrame, attributes: Mapping[str, Any]
) -> xr.Dataset:
    """Return layers as variables, and sample columns as coordinates.

    StoreError without xarray, or if a column has the name of a layer.
    """
    try:
        import xarray
    except ImportError:
        raise StoreError(
            "to_xarray() needs the package xarray, which is not installed; install tsstore[xarray]"
        ) from None
    variables: dict[str, Any] = {}
    for name, states in layers.items():
        own = states.attributes
        said = {
            "neurons": states.neurons,
            "threshold": own.threshold["given"],
            "module": own.module_class,
            "dtype": own.dtype,
        }
        dims, array, counts = _decoded(states)
        variables[name] = dims, array, said
        if counts is not None:
            variables[f"{name}_rows"] = "sample", counts
    return xarray.Dataset(variables, _coordinates(samples, variables), dict(attributes))


def _coordinates(samples: pd.DataFrame, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return step, part and number in the part of each sample, and what was recorded of it."""
    index = samples.index
    coordinates: dict[str, Any] = {
        "step": ("sample", index.get_level_values("step").to_numpy()),
        "part": ("sample", index.get_level_values("part").to_numpy()),
        "sample_in_part": ("sample", index.get_level_values("sample").to_numpy()),
    }
    for column in samples:
        taken = column in coordinates or column in variables or column == "sample"
        shown = f"{column} (recorded)" if taken else str(column)
        coordinates[shown] = "sample", samples[column].to_numpy()
    return coordinates


def _decoded(states: LayerStates) -> tuple[tuple[str, ...], Any, npt.NDArray[np.int64] | None]:
    """Return the axes of a layer and its states as a Dask array, bool.

    Where samples differ in their rows, rows are the first axis, and how many each sample has is
    returned, too.
    """
    import dask.array as da

    name, rows = states.name, states.positions
    counts = None if rows else states.read_positions()
    if rows:
        shape = states.attributes.position_shape
        shape = shape if math.prod(shape) == rows else (rows,)
        shape = () if rows == 1 else shape
        axes = [f"{name}_position_{axis}" for axis in range(len(shape))]
        axes = [f"{name}_position"] if len(axes) == 1 else axes
        dims, first = ("sample", *axes), states.samples
    else:
        shape, dims, first = (), (f"{name}_row",), states.rows
    lazy = _Lazy(states, (first, *shape, states.neurons))
    step = max(1, CHUNK_BYTES // max(1, lazy.entry_bytes))
    array = da.from_array(  # type: ignore[no-untyped-call]
        lazy,
        chunks=(min(step, max(first, 1)), *lazy.shape[1:]),
        meta=np.empty((0,) * len(lazy.shape), np.bool_),
        asarray=False,
    )
    return (*dims, f"{name}_neuron"), array, counts


class _Lazy:
    """A layer's decoded states as an array of some shape, read by its first axis.

    Dask hands on slices with steps, and integers, where that is all that is asked for.
    """

    dtype = np.dtype(np.bool_)

    def __init__(self, states: LayerStates, shape: tuple[int, ...]) -> None:
        self._states = states
        self.shape = shape
        self.ndim = len(shape)

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry along the first axis."""
        return math.prod(self.shape[1:])

    def __getitem__(self, key: tuple[slice | int, ...]) -> Any:
        first, *others = key
        chosen = range(self.shape[0])[first]
        taken: slice | int = 0
        if isinstance(chosen, int):
            chosen = range(chosen, chosen + 1)
        else:
            taken = slice(None, None, chosen.step)
        rows = math.prod(self.shape[1:-1])
        decoded = self._states.decode(slice(chosen.start * rows, chosen.stop * rows))
        return decoded.reshape(-1, *self.shape[1:])[(taken, *others)]

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "tsstore-decoded", self.shape, self._states.__dask_tokenize__()
