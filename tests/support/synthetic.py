"""Layers of made-up states, small runs of them, and what counting them must give."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from helpers import column, write_run

from tsstore.statistics.spectrum import Spectrum
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.writing.batch import Batch, LayerBatch

WIDTHS = (1, 3, 8, 9, 16, 17, 38, 300)


def layer(rows: np.ndarray, positions: int | Sequence[int] | np.ndarray = 1) -> LayerBatch:
    """Return rows as a batch of one layer; `positions` are those of every sample, or of each."""
    if isinstance(positions, int):
        positions = [positions] * (len(rows) // positions)
    return LayerBatch(np.ascontiguousarray(rows), np.array(positions, dtype=np.int64))


def draw_layer(
    seed: int, samples: int, row_bytes: int, distinct: int = 50, largest: int = 7
) -> LayerBatch:
    """Return a layer whose samples have 0 to `largest` rows, of `distinct` states at most."""
    rng = np.random.default_rng(seed)
    positions = rng.integers(0, largest + 1, samples)
    pool = rng.integers(0, 256, (distinct, row_bytes), dtype=np.uint8)
    return layer(pool[rng.integers(0, distinct, positions.sum())], positions)


def numbered_rows(numbers: np.ndarray, row_bytes: int) -> np.ndarray:
    """Return rows that differ where the numbers do; of a byte, those modulo 256."""
    rows = np.zeros((len(numbers), max(row_bytes, 8)), dtype=np.uint8)
    rows[:, :8] = np.asarray(numbers, dtype="<u8")[:, None].view(np.uint8)
    return np.ascontiguousarray(rows[:, :row_bytes])


def write_layers(
    path: str | os.PathLike[str],
    *parts: Mapping[str, LayerBatch],
    columns: Mapping[str, Any] | None = None,
    **options: Any,
) -> StateStore:
    """Write a run, one batch a part, and open it; its chunks have 64 rows unless told otherwise."""
    for layers in parts:
        widest = max(batch.rows.shape[1] for batch in layers.values())
        sizes = {"chunk_bytes": 64 * max(widest, 1)}
        samples = len(next(iter(layers.values())).positions)
        neurons = {name: 8 * batch.rows.shape[1] for name, batch in layers.items()}
        batch = Batch(samples, layers, columns or {})
        write_run(path, [batch], neurons=neurons, **(sizes | options))
    return open_store(path)


@dataclass(frozen=True)
class Expected:
    """What must be counted of a layer."""

    spectrum: Spectrum
    equal_pairs_within_samples: int
    pairs_within_samples: int


def count(*parts: LayerBatch) -> Expected:
    """Count a layer's parts by sorting: slow, and nothing that could go wrong."""
    rows = np.concatenate([part.rows for part in parts])
    positions = np.concatenate([part.positions for part in parts])
    # As one value of so many bytes each, rows are sorted many times faster than as rows of bytes.
    whole = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")
    _, states, multiplicity = np.unique(whole, return_inverse=True, return_counts=True)
    samples = np.repeat(np.arange(len(positions)), positions)
    cells, repeats = np.unique(states.reshape(-1) * len(positions) + samples, return_counts=True)
    incidence = np.bincount(cells // max(len(positions), 1), minlength=len(multiplicity))
    return Expected(
        Spectrum.from_counts(multiplicity, incidence),
        int((repeats * (repeats - 1) // 2).sum()),
        int((positions * (positions - 1) // 2).sum()),
    )


def found(result: Any) -> Expected:
    """Return what was counted: of a layer's result, or of bare counts."""
    return Expected(result.spectrum, result.equal_pairs_within_samples, result.pairs_within_samples)


def write_columns(path: str | os.PathLike[str], *columns: Mapping[str, Any]) -> StateStore:
    """Write a run of one part for each mapping of sample columns, and open it."""
    for values in columns:
        arrays = {name: column(value) for name, value in values.items()}
        samples = len(next(iter(arrays.values())))
        store = write_layers(path, {"a": draw_layer(1, samples, 2)}, columns=arrays)
    return store
