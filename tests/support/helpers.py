"""What several test files share: small batches and small runs on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tsstore import bits
from tsstore.store.chunked.writer import Compression
from tsstore.store.files.base import Files
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.documents import load, write_group
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

NEURONS = {"conv_1": 6, "fc.2": 13}


def draw_batch(
    rng: np.random.Generator,
    samples: int,
    *,
    neurons: Mapping[str, int] = NEURONS,
    positions: Mapping[str, int | list[int]] | None = None,
    columns: Mapping[str, Any] | None = None,
) -> Batch:
    """Return a batch of random states; `positions` are rows of every sample, or of each."""
    layers = {}
    for name, width in neurons.items():
        counts = np.full(samples, 1, dtype=np.int64)
        counts[:] = (positions or {}).get(name, 1)
        states = rng.random((int(counts.sum()), width)) < 0.5
        layers[name] = LayerBatch(bits.pack(states), counts)
    return Batch(
        samples, layers, {name: column(values) for name, values in (columns or {}).items()}
    )


def column(values: Any) -> np.ndarray:
    """Return values as a sample column: text as objects."""
    array = np.asarray(values)
    return np.array(values, dtype=object) if array.dtype.kind in "UO" else array


def start_part(
    path: str | os.PathLike[str],
    batch: Batch,
    *,
    neurons: Mapping[str, int] = NEURONS,
    chunk_bytes: int | None = 64,
    durable: bool = False,
    part: PartAttributes | None = None,
    codec: str = "lz4",
    threshold: float = 0.0,
) -> PartWriter:
    """Begin a part whose layers and columns are those of a batch; create the run if need be."""
    files = LocalFiles(path, durable)
    if not files.exists("zarr.json"):
        create_run(files)
    compression = Compression(codec)
    part = part or PartAttributes()
    writer = PartWriter(files, part, compression=compression, chunk_bytes=chunk_bytes)
    limit = {"given": threshold, "used": threshold}
    layers = {name: LayerAttributes(name, neurons[name], threshold=limit) for name in batch.layers}
    first = {name: int(layer.positions[:1].sum()) for name, layer in batch.layers.items()}
    dtypes = {
        name: "string" if values.dtype == object else str(values.dtype)
        for name, values in batch.columns.items()
    }
    writer.define(layers, first, dtypes)
    return writer


def write_run(
    path: str | os.PathLike[str], batches: Iterable[Batch], *, close: bool = True, **options: Any
) -> PartWriter:
    """Write a part of a run, with a commit after each batch, and seal it unless told not to."""
    batches = list(batches)
    writer = start_part(path, batches[0], **options)
    for batch in batches:
        writer.append(batch)
        writer.commit()
    if close:
        writer.seal()
    return writer


def rows_of(batches: Iterable[Batch], layer: str) -> np.ndarray:
    """Return the rows that a layer should have."""
    return np.concatenate([batch.layers[layer].rows for batch in batches])


def rewrite_attributes(path: Path, node: str, change: Mapping[str, Any]) -> None:
    """Change tsstore attributes of a group as a forger would: with the right checksum."""
    attributes = load((path / node / "zarr.json").read_bytes(), node)["attributes"]["tsstore"]
    del attributes["checksum"]
    write_group(LocalFiles(path), node, attributes | change)


def stored_files(path: Path) -> list[Path]:
    """Return all files of a store, in order."""
    return sorted(item for item in path.rglob("*") if item.is_file())


def create_at_once(files: Files, key: str) -> None:
    """Let eight threads create the same file at the same time: one must succeed, and be whole."""
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        try:
            files.create(key, b"%d" % number * 1000)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert sum(created) == 1
    assert files.read(key) == b"%d" % created.index(True) * 1000
