"""A data set in every form that a contender reads, written once.

A set is a folder with a run of tsstore for each codec, and Parquet files, compressed by LZ4, with
columns ``state``, ``sample`` (uint32) and ``label`` (uint8): ``plain`` without dictionaries,
``default`` as PyArrow writes it, and, for rows of 8 bytes, ``u64`` with states as numbers.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from counting_data import batches, most_rows, positions_of

LAYER = "conv_1"
ROW_GROUP_ROWS = 1 << 17
"""About what DuckDB writes and advises: its threads share a file by row groups."""
ABOUT = "about.json"
READ_BYTES = 1 << 24


@dataclass(frozen=True)
class DataSet:
    """What a set holds.

    Attributes
    ----------
    kind
        Of the states; see `counting_data.KINDS`.
    width
        Bytes of a row.
    rows
        Number of rows.
    positions
        Rows of a sample.
    codecs
        Of the runs of tsstore.
    """

    kind: str
    width: int
    rows: int
    positions: int
    codecs: tuple[str, ...]

    @classmethod
    def of(
        cls, kind: str, width: int, rows: int, positions: int, codecs: tuple[str, ...]
    ) -> DataSet:
        """Return a set of at most so many rows: whole samples, and no more than there can be."""
        positions = positions_of(kind, positions)
        rows = min(rows, most_rows(kind, width) or rows)
        return cls(kind, width, max(rows - rows % positions, positions), positions, codecs)

    @property
    def files(self) -> list[str]:
        """Names of its files and runs."""
        runs = [f"{codec}.run" for codec in self.codecs]
        return [*runs, "plain.parquet", "default.parquet", *["u64.parquet"] * (self.width == 8)]

    @property
    def name(self) -> str:
        """Name of its folder."""
        codecs = "-".join(self.codecs)
        return f"{self.kind}-{self.width}-{self.rows}-{self.positions}-{codecs}"


def prepare(data: DataSet, directory: Path) -> tuple[Path, float]:
    """Return the folder of a set, and the share of rows that equal the one before.

    It is written unless it is there; either way its files are then in the system's cache.
    """
    folder = directory / data.name
    about = folder / ABOUT
    if not about.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        repeats = write(data, folder)
        about.write_text(json.dumps({**asdict(data), "repeats": repeats}))
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb", buffering=0) as opened:
                while opened.read(READ_BYTES):
                    pass
    return folder, float(json.loads(about.read_text())["repeats"])


def write(data: DataSet, folder: Path) -> float:
    """Write a set in all forms; return the share of rows that equal the one before."""
    repeats = sample = 0
    with ExitStack() as stack:
        forms = [stack.enter_context(closing(form)) for form in all_forms(data, folder)]
        for rows, labels in batches(data.kind, data.width, data.rows, data.positions):
            repeats += int((rows[1:] == rows[:-1]).all(axis=1).sum())
            for form in forms:
                form.append(rows, labels, sample)
            sample += len(labels)
    return repeats / data.rows


class Form(Protocol):
    """What a set is written as."""

    def append(self, rows: Any, labels: Any, first_sample: int) -> None:
        """Write rows, uint8 (n, width), of whole samples with a label each."""

    def close(self) -> None:
        """Finish."""


def all_forms(data: DataSet, folder: Path) -> list[Form]:
    """Return all forms of a set."""
    return [(Run if file.endswith(".run") else Parquet)(folder / file, data) for file in data.files]


class Run:
    """A run of tsstore, of one layer."""

    def __init__(self, path: Path, data: DataSet) -> None:
        from tsstore.store.chunked.writer import Compression
        from tsstore.store.files.local import LocalFiles
        from tsstore.store.format.attributes import LayerAttributes, PartAttributes
        from tsstore.store.run import create_run
        from tsstore.store.writing.part import PartWriter

        files = LocalFiles(path, durable=False)
        create_run(files)
        compression = Compression(path.stem, threads=os.cpu_count() or 1)
        self._writer = PartWriter(files, PartAttributes(), compression=compression)
        layer = LayerAttributes(LAYER, 8 * data.width)
        self._writer.define({LAYER: layer}, {LAYER: data.positions}, {"label": "uint8"})

    def append(self, rows: Any, labels: Any, first_sample: int) -> None:
        """Write rows of whole samples with a label each."""
        from tsstore.store.writing.batch import Batch, LayerBatch

        positions = np.full(len(labels), len(rows) // len(labels), dtype=np.int64)
        layers = {LAYER: LayerBatch(rows, positions)}
        self._writer.append(Batch(len(labels), layers, {"label": labels}))

    def close(self) -> None:
        """Seal the run."""
        self._writer.seal()


class Parquet:
    """A Parquet file, compressed by LZ4; its name says how states are written."""

    def __init__(self, path: Path, data: DataSet) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._numbers = path.stem == "u64"
        state = pa.uint64() if self._numbers else pa.binary()
        self._schema = pa.schema({"state": state, "sample": pa.uint32(), "label": pa.uint8()})
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="lz4", use_dictionary=path.stem == "default"
        )

    def append(self, rows: Any, labels: Any, first_sample: int) -> None:
        """Write rows of whole samples with a label each."""
        import pyarrow as pa

        positions = len(rows) // len(labels)
        samples = np.arange(first_sample, first_sample + len(labels), dtype=np.uint32)
        columns = [
            pa.array(rows.reshape(-1).view("<u8")) if self._numbers else binary(rows),
            pa.array(np.repeat(samples, positions)),
            pa.array(np.repeat(labels, positions)),
        ]
        table = pa.Table.from_arrays(columns, schema=self._schema)
        self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def binary(rows: Any) -> Any:
    """Return rows as an Arrow array of bytes, without a Python object for each."""
    import pyarrow as pa

    count, width = rows.shape
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.Array.from_buffers(pa.binary(), count, buffers)
