"""Write small stores of format 1, and what they should hold.

Run by hand from the root of the repository, with torch installed:

    python tests/data/format_1/make_stores.py

It replaces all stores beside it, and answers.json, which NumPy computes from what went in. As long
as format 1 is not released the stores may be made anew whenever it changes. **From its release on
they stay as they are for ever**: this script then only says how they were made, and whatever later
versions write goes into a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

import tsstore
from tsstore.errors import PartSealedError
from tsstore.store.chunked.writer import Compression
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.maintenance.compact import compact
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter
from tsstore.store.writing.resume import resume_part

HERE = Path(__file__).parent
NEURONS = {"conv_1": 5, "fc.2": 20}
SMALL = {
    "writing.batch.CHUNK_BYTES": 60,
    "writing.batch.MIN_CHUNK_BYTES": 60,
    "format.arrays.COLUMN_CHUNK_ROWS": 10,
}
"""Sizes of chunks, so that there are several of each kind."""

Parts = dict[str, list[Batch]]
"""The batches that count, by the directory of their part."""


def main() -> None:
    """Write all stores and all answers."""
    answers = {}
    for make in (plain, varying, resumed, late, unsealed, zstd, compacted):
        path = HERE / make.__name__
        shutil.rmtree(path, ignore_errors=True)
        # Whose machine it was is nobody's business.
        with mock.patch("socket.gethostname", return_value="example"):
            answers[make.__name__] = answer(make(path))
    text = json.dumps(answers, indent=1, ensure_ascii=False)
    (HERE / "answers.json").write_text(text + "\n", encoding="utf-8")


@contextmanager
def small_chunks() -> Iterator[None]:
    """Let chunks be small."""
    with ExitStack() as stack:
        for name, size in SMALL.items():
            stack.enter_context(mock.patch(f"tsstore.store.{name}", size))
        yield


def plain(path: Path) -> Parts:
    """Capture two layers of a small network, with chunks of the usual sizes."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Flatten(), nn.Linear(80, 9)).requires_grad_(False)
    inputs, batches = torch.randn(24, 1, 6, 6), []
    for some in inputs.split(8):
        first = model[0](some).permute(0, 2, 3, 1)
        last = model(some)[:, None]
        layers = {"0": packed(first.numpy() > 0.25), "2": packed(last.numpy() > 0.25)}
        batches.append(Batch(8, layers, {"label": np.arange(8) % 3}))
    with tsstore.capture(model, path, layers=["0", "2"], threshold=0.25) as recorder:
        for some, batch in zip(inputs.split(8), batches, strict=True):
            with recorder.batch(**batch.columns):
                model(some)
    return {recorder.part: batches}


@small_chunks()
def varying(path: Path) -> Parts:
    """Write samples with different numbers of rows, and columns of many kinds."""
    generator, batches = np.random.default_rng(2), []
    for start in range(0, 28, 7):
        ids = np.arange(start, start + 7)
        columns = {
            "id": ids - (1 << 62),
            "loss": np.where(ids % 5, ids / 7, np.nan).astype(np.float32),
            "right": ids % 2 == 0,
            "Name €": np.array([f"ü{i}\n" * (i % 3) for i in ids], dtype=object),
        }
        batches.append(draw(generator, columns, positions=(ids * 5) % 4))
    writer = begin(LocalFiles(path), batches[0], PartAttributes(step="epoch 3", user={"a": [1]}))
    record(writer, batches)
    writer.seal()
    return {writer.directory: batches}


@small_chunks()
def resumed(path: Path) -> Parts:
    """Let one of two ranks be resumed in the middle of a commit, with samples that repeat."""
    generator = np.random.default_rng(3)
    old, too_late, new, other = (
        [draw_ids(generator, ids) for ids in id_lists]
        for id_lists in (
            [range(6), range(6, 12)],
            [range(12, 15)],
            [range(12, 20), [0, 12]],
            [range(20, 27), [27, 3, 27]],
        )
    )
    files = HookedFiles(path)
    first = begin(files, old[0], PartAttributes(0, 2, step=7))
    record(first, old)
    writers = []

    def resume() -> None:
        writer, _ = resume_part(LocalFiles(path), PartAttributes(0, 2, step=7))
        writers.append(writer)

    # What it commits while it is being sealed is written, and does not count.
    files.at_sync = resume
    with suppress(PartSealedError):
        record(first, too_late)
    write(writers[0], new)
    second = begin(LocalFiles(path), other[0], PartAttributes(1, 2, step=7))
    write(second, other)
    return {first.directory: old, writers[0].directory: new, second.directory: other}


def late(path: Path) -> Parts:
    """Capture a layer that is used in some batches only, and not in the first one."""
    torch.manual_seed(4)
    model = Branching().requires_grad_(False)
    inputs, batches = torch.randn(16, 3), []
    with small_chunks(), tsstore.capture(model, path, layers="Linear", missing="empty") as recorder:
        for number, some in enumerate(inputs.split(4)):
            rare = number in (1, 3)
            with recorder.batch():
                model(some, rare)
            batches.append((some, rare))
    return {recorder.part: [model.expected(some, rare) for some, rare in batches]}


@small_chunks()
def unsealed(path: Path) -> Parts:
    """Stop a process in the middle of its third commit, and another before it has layers."""
    generator = np.random.default_rng(5)
    batches = [draw_ids(generator, range(start, start + 9)) for start in (0, 9, 18)]
    files = HookedFiles(path)
    writer = begin(files, batches[0], PartAttributes(0, 2))
    record(writer, batches[:2])
    files.at_sync = stop
    with suppress(StoppedError):
        record(writer, batches[2:])
    (path / writer.directory / "commit" / "zarr.json.0123456789abcdef.partial").write_bytes(b"{")
    empty = PartWriter(LocalFiles(path), PartAttributes(1, 2))
    return {writer.directory: batches[:2], empty.directory: []}


@small_chunks()
def zstd(path: Path) -> Parts:
    """Write rows that are too wide to be counted as they are, through another compressor."""
    generator = np.random.default_rng(6)
    batches = [draw(generator, {}, samples=4, neurons={"wide": 130}) for _ in range(3)]
    writer = begin(
        LocalFiles(path), batches[0], PartAttributes(), compression=Compression("zstd", 7)
    )
    write(writer, batches)
    return {writer.directory: batches}


def compacted(path: Path) -> Parts:
    """Make one part of those of a run that was resumed, in shards."""
    source = path.with_name("source")
    shutil.rmtree(source, ignore_errors=True)
    parts = resumed(source)
    compact(source, path, shard_bytes=180)
    shutil.rmtree(source)
    by_attempt = sorted(parts, key=lambda directory: (directory[-5:], directory))
    return {"part-00000-00000": [batch for part in by_attempt for batch in parts[part]]}


class Branching(nn.Module):
    """A network with a layer that is not always used."""

    def __init__(self) -> None:
        super().__init__()
        self.always = nn.Linear(3, 7)
        self.rarely = nn.Linear(3, 4)

    def forward(self, inputs: torch.Tensor, rare: bool) -> torch.Tensor:
        """Use one layer, or both."""
        outputs = self.always(inputs)
        return outputs.sum() + self.rarely(inputs).sum() if rare else outputs

    def expected(self, inputs: torch.Tensor, rare: bool) -> Batch:
        """Return what should be recorded."""
        layers = {"always": packed(self.always(inputs)[:, None].numpy() > 0)}
        if rare:
            layers["rarely"] = packed(self.rarely(inputs)[:, None].numpy() > 0)
        return Batch(len(inputs), layers)


class StoppedError(Exception):
    """The process has come to its end."""


class HookedFiles(LocalFiles):
    """Calls something, once, when a commit has written its chunks and not yet its record."""

    at_sync: Callable[[], None] | None = None

    def sync(self) -> None:
        """Sync, and call it."""
        super().sync()
        if self.at_sync is not None:
            call, self.at_sync = self.at_sync, None
            call()


def stop() -> None:
    """Come to an end."""
    raise StoppedError


def begin(files: LocalFiles, batch: Batch, part: PartAttributes, **options: Any) -> PartWriter:
    """Begin a part; create the run if need be."""
    if not files.exists("zarr.json"):
        create_run(files)
    writer = PartWriter(files, part, **options)
    define(writer, batch)
    return writer


def define(writer: PartWriter, batch: Batch) -> None:
    """Define the layers and columns that a batch has."""
    neurons = NEURONS | {"wide": 130}
    layers = {name: LayerAttributes(name, neurons[name]) for name in batch.layers}
    positions = {name: int(layer.positions[0]) for name, layer in batch.layers.items()}
    dtypes = {
        name: "string" if values.dtype == object else str(values.dtype)
        for name, values in batch.columns.items()
    }
    writer.define(layers, positions, dtypes)


def record(writer: PartWriter, batches: Iterable[Batch]) -> None:
    """Append batches, and commit after each."""
    for batch in batches:
        writer.append(batch)
        writer.commit()


def write(writer: PartWriter, batches: Sequence[Batch]) -> None:
    """Write a part to its end."""
    if not writer.started:
        define(writer, batches[0])
    record(writer, batches)
    writer.seal()


def draw_ids(generator: np.random.Generator, ids: Iterable[int]) -> Batch:
    """Return a batch of samples with ids."""
    return draw(generator, {"id": np.array(list(ids))})


def draw(
    generator: np.random.Generator,
    columns: Mapping[str, Any],
    samples: int | None = None,
    positions: Any = 2,
    neurons: Mapping[str, int] = NEURONS,
) -> Batch:
    """Return a batch of random states; the first layer's samples have several rows."""
    samples = len(next(iter(columns.values()))) if samples is None else samples
    layers = {}
    for index, (name, width) in enumerate(neurons.items()):
        counts = np.ones(samples, dtype=np.int64)
        counts[:] = 1 if index else positions
        states = generator.random((int(counts.sum()), width)) < 0.3
        layers[name] = LayerBatch(np.packbits(states, axis=1, bitorder="little"), counts)
    return Batch(samples, layers, columns)


def packed(states: Any) -> LayerBatch:
    """Return the rows of states whose axes are samples, positions, if any two, and neurons."""
    rows = np.packbits(states.reshape(-1, states.shape[-1]), axis=1, bitorder="little")
    return LayerBatch(rows, np.full(len(states), len(rows) // len(states), dtype=np.int64))


def answer(parts: Parts) -> dict[str, Any]:
    """Return what a reader should find in a store."""
    ordered = [batch for part in sorted(parts) for batch in parts[part]]
    columns = {name for batch in ordered for name in batch.columns}
    layers = dict.fromkeys(name for batch in ordered for name in batch.layers)
    ids = [int(id) for batch in ordered for id in batch.columns.get("id", ())]
    return {
        "samples": {part: sum(b.samples for b in parts[part]) for part in sorted(parts)},
        "repeated_samples": len(ids) - len(set(ids)),
        "columns": {
            name: np.concatenate([batch.columns[name] for batch in ordered]).tolist()
            for name in sorted(columns)
        },
        "layers": {name: layer_answer(name, ordered) for name in layers},
    }


def layer_answer(name: str, batches: Sequence[Batch]) -> dict[str, Any]:
    """Return what a reader should find in a layer; batches that lack it have no rows of it."""
    rows = np.concatenate([b.layers[name].rows for b in batches if name in b.layers])
    empty = {batch.samples: LayerBatch(rows[:0], np.zeros(batch.samples, int)) for batch in batches}
    positions = np.concatenate(
        [batch.layers.get(name, empty[batch.samples]).positions for batch in batches]
    )
    sample = np.repeat(np.arange(len(positions)), positions)
    _, state, k = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    pairs = np.unique(np.stack([state.reshape(-1), sample]), axis=1)
    entries = np.stack([k, np.bincount(pairs[0])])
    spectrum, states = np.unique(entries, axis=1, return_counts=True)
    return {
        "rows": len(rows),
        "sha256": hashlib.sha256(rows.tobytes()).hexdigest(),
        "positions": positions.tolist(),
        "multiplicity, incidence, states": [*spectrum.tolist(), states.tolist()],
    }


if __name__ == "__main__":
    main()
