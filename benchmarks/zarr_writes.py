"""What it would cost to write a part through zarr-python, beside what it costs as it is done.

Both write the same batches of packed rows into arrays of the same chunks and codecs, and make what
was appended visible after every few batches::

    python benchmarks/zarr_writes.py
    python benchmarks/zarr_writes.py --directory . --layers 3 20 --batches 400 --every 20

Contenders:

- ``tsstore``: checksums, commit record, shapes last; ``durable`` with a sync before and after
  the record;
- ``zarr append``: ``zarr.Array.append`` of each batch. An unfinished chunk is read, decoded,
  encoded and written again with each; nothing says which rows of which arrays belong together;
- ``zarr chunks``: whole chunks are gathered by hand and written by ``zarr.Array.append``; a commit
  writes the unfinished ones and shapes. Neither checksums, nor a record, nor a sync.

Printed are the median of the milliseconds of a commit (for ``zarr append`` there is none: each
batch is one), and MiB of rows a second over all, of wall and of CPU time. Rows are random: codecs
find nothing, and are the same for all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr
from versions import print_versions
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import CHUNK_BYTES, Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

NEURONS = 128
SAMPLES = 64
POSITIONS = 49
"""Of a batch: rows of 16 bytes, 49 KiB of them in each layer."""

COLUMNS = ("layers", "writer", "commit ms", "commits/s", "MiB/s", "MiB/s of CPU")
PACKAGES = ("tsstore", "zarr", "numcodecs", "numpy")

Rows = npt.NDArray[np.uint8]


class Ours:
    """A part, as `tsstore.capture` writes it."""

    def __init__(self, folder: Path, layers: int, durable: bool) -> None:
        files = LocalFiles(folder, durable)
        create_run(files)
        self._writer = PartWriter(files, PartAttributes())
        self._names = [f"layer_{index}" for index in range(layers)]
        attributes = {name: LayerAttributes(name, NEURONS) for name in self._names}
        self._writer.define(attributes, dict.fromkeys(self._names, POSITIONS), {"label": "int64"})
        self._positions = np.full(SAMPLES, POSITIONS, dtype=np.int64)
        self._labels = np.zeros(SAMPLES, dtype=np.int64)

    def append(self, rows: Rows) -> None:
        """Append a batch, the same in all layers."""
        layers = {name: LayerBatch(rows, self._positions) for name in self._names}
        self._writer.append(Batch(SAMPLES, layers, {"label": self._labels}))

    def commit(self) -> None:
        """Commit what was appended."""
        self._writer.commit()


class ByZarr:
    """The same arrays, by zarr-python."""

    def __init__(self, folder: Path, layers: int, gather: bool) -> None:
        group = zarr.create_group(folder)
        size = CHUNK_BYTES // (NEURONS // 8)
        self._arrays = [
            group.create_array(
                f"layer_{index}",
                shape=(0, NEURONS // 8),
                chunks=(size, NEURONS // 8),
                dtype="uint8",
                serializer=BytesCodec(),
                compressors=[
                    BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle", typesize=1),
                    Crc32cCodec(),
                ],
            )
            for index in range(layers)
        ]
        self._size, self.gathers = size, gather
        self._written = 0
        self._held: list[Rows] = []

    def append(self, rows: Rows) -> None:
        """Append a batch, the same in all layers."""
        if not self.gathers:
            for array in self._arrays:
                array.append(rows)
            return
        self._held.append(rows)
        while sum(map(len, self._held)) >= self._size:
            held = np.concatenate(self._held)
            self._write(held[: self._size])
            self._written += self._size
            self._held = [held[self._size :]]

    def commit(self) -> None:
        """Write the unfinished chunks, which stay in memory, too."""
        if self._held:
            self._write(np.concatenate(self._held))

    def _write(self, rows: Rows) -> None:
        """Write rows that begin where the last whole chunk ends."""
        end = self._written + len(rows)
        for array in self._arrays:
            array.resize((end, array.shape[1]))
            array[self._written : end] = rows


WRITERS: dict[str, Callable[[Path, int], Ours | ByZarr]] = {
    "tsstore durable": lambda folder, layers: Ours(folder, layers, durable=True),
    "tsstore": lambda folder, layers: Ours(folder, layers, durable=False),
    "zarr chunks": lambda folder, layers: ByZarr(folder, layers, gather=True),
    "zarr append": lambda folder, layers: ByZarr(folder, layers, gather=False),
}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path("."))
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 20])
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--every", type=int, default=10, help="batches from commit to commit")
    arguments = parser.parse_args()
    print_versions(*PACKAGES)
    print(f"load average {os.getloadavg()[0]:.1f}")
    print("".join(f"{column:>17}" for column in COLUMNS))
    for layers in arguments.layers:
        for name, make in WRITERS.items():
            with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
                writer = make(Path(folder) / "run", layers)
                cells = measure(writer, layers, arguments.batches, arguments.every)
                print("".join(f"{cell:>17}" for cell in (f"{layers}", name, *cells)), flush=True)


def measure(writer: Ours | ByZarr, layers: int, batches: int, every: int) -> tuple[str, ...]:
    """Write batches; return the cells of a line."""
    generator = np.random.default_rng(1)
    drawn = [
        generator.integers(0, 256, (SAMPLES * POSITIONS, NEURONS // 8), dtype=np.uint8)
        for _ in range(8)
    ]
    commits = []
    begun, used = time.perf_counter(), time.process_time()
    for index in range(batches):
        writer.append(drawn[index % len(drawn)])
        if index % every == every - 1:
            started = time.perf_counter()
            writer.commit()
            commits.append(time.perf_counter() - started)
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    mib = batches * layers * drawn[0].nbytes / (1 << 20)
    cost = statistics.median(commits)
    shown = f"{1000 * cost:.1f}", f"{1 / cost:,.0f}"
    if isinstance(writer, ByZarr) and not writer.gathers:
        shown = "-", "-"
    return *shown, f"{mib / seconds:,.0f}", f"{mib / used:,.0f}"


if __name__ == "__main__":
    main()
