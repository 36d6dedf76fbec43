"""Tables of distinct states: what they must hold, and what was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

import tsstore
from tsstore import bits
from tsstore.store.reading.layer import LayerStates
from tsstore.store.writing.batch import LayerBatch

WIDTHS = [1, 3, 8, 9, 16, 17, 40]
SUFFIXES = [".parquet", ".zarr"]

Found = dict[bytes, tuple[int, int]]


def expected(*parts: LayerBatch) -> Found:
    """Return the states of parts with their multiplicities and incidences, by sorting."""
    rows = np.concatenate([part.rows for part in parts])
    positions = np.concatenate([part.positions for part in parts])
    distinct, inverse, multiplicity = np.unique(
        rows, axis=0, return_inverse=True, return_counts=True
    )
    samples = np.repeat(np.arange(len(positions)), positions)
    cells = np.unique(np.stack([inverse.reshape(-1), samples]), axis=1)
    incidence = np.bincount(cells[0])
    return table(distinct, multiplicity, incidence)


def table(rows: Iterable[Any], multiplicity: Iterable[int], incidence: Iterable[int]) -> Found:
    counts = zip(map(int, multiplicity), map(int, incidence), strict=True)
    states = [bytes(row) for row in rows]
    assert len(set(states)) == len(states)
    return dict(zip(states, counts, strict=True))


def read(path: Path, neurons: int | None = None) -> Found:
    """Return an exported table; of so many neurons where it was decoded."""
    if path.suffix == ".zarr":
        group = zarr.open_group(path, mode="r")
        names = ("state", "multiplicity", "incidence")
        rows, multiplicity, incidence = (np.asarray(group[name]) for name in names)
    else:
        frame = pd.read_parquet(path)
        rows, multiplicity, incidence = (frame[name].to_numpy() for name in frame)
        if neurons:
            rows = np.stack(rows)
    if neurons:
        assert rows.dtype == bool
        assert rows.shape[1] == neurons
        rows = bits.pack(rows)
    return table(rows, multiplicity, incidence)


def export_states(states: LayerStates, out: str | Path, **options: Any) -> int:
    """Export a layer of a store on disk; return how many states it has."""
    return tsstore.export(states.location, states.name, out, **options)


def most_frequent(states: LayerStates, most: int = 20, **options: Any) -> pd.DataFrame:
    """Return the most frequent states of a layer of a store on disk."""
    return tsstore.states(states.location, states.name, most, **options).to_frame()
