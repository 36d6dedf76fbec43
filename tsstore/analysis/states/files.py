"""A table of distinct states as a file: a Parquet file, or a Zarr group.

Whatever stops an export, there is nothing under the name that was asked for until all is written.
What goes to an object store is written to a scratch folder first.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tsstore import __version__, bits
from tsstore.analysis.execution.scratch import local_parent, scratch_folder
from tsstore.errors import StoreError
from tsstore.store.files.base import Files, partial_name
from tsstore.store.files.local import sync_directory
from tsstore.store.files.open import is_url, open_files
from tsstore.store.format.arrays import CODECS
from tsstore.store.format.documents import ZARR_JSON
from tsstore.store.reading.layer import LayerStates
from tsstore.store.run import read_run
from tsstore.store.targets import check_free, check_target, exists_already, not_writable
from tsstore.text import printable

Rows: TypeAlias = npt.NDArray[np.uint8]
Numbers: TypeAlias = npt.NDArray[np.int64]

Append = Callable[[Rows, Numbers, Numbers], None]
"""Takes states, uint8 (n, row_bytes), their multiplicities and incidences."""

_COUNT_BYTES = 16
_LEVEL_BYTES = 4
"""Of each boolean in a list, while a row group of Parquet is being written."""
_PAGE_BYTES = 1 << 16
"""Of a Parquet page: its writer keeps several of them, in all columns."""
_CODEC = "zstd"
"""Distinct states have few repeats that a faster codec would find."""


@contextmanager
def write_states(
    out: str | os.PathLike[str],
    states: LayerStates,
    decoded: bool,
    chunk_bytes: int,
    is_sorted: bool = False,
    scratch: str | os.PathLike[str] | None = None,
) -> Iterator[Append]:
    """Yield what adds distinct states to a new table, which is there when the block has ended.

    A Zarr chunk, or a row group, has about so many bytes: what is held in memory, some times over.
    Errors are those of `export`.
    """
    table = StatesTable(
        states.neurons, states.row_bytes, decoded, chunk_bytes, _attributes(states, is_sorted)
    )
    if not is_url(out):
        with _written(Path(out), table) as append:
            yield append
        return
    with _uploaded(os.fspath(out), scratch) as path, _written(path, table) as append:
        yield append


@contextmanager
def _written(path: Path, table: StatesTable) -> Iterator[Append]:
    """Yield what adds to a table on a disk, which is there when the block has ended."""
    new_file = _kind(path)
    check_target(path)
    temporary = path.with_name(partial_name(path.name))

    def append(rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        assert file is not None
        with _naming(path):
            file.append(rows, multiplicity, incidence)

    file: TableFile | None = None
    try:
        with _naming(path):
            file = new_file(temporary, table)
        yield append
        with _naming(path):
            file.finish()
            check_free(path)
            os.rename(temporary, path)
            sync_directory(path.parent)
    except BaseException:
        if file is not None:
            file.discard()
        _remove(temporary)
        raise


@contextmanager
def _uploaded(url: str, scratch: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Yield a path; what is there when the block has ended goes to an object store."""
    parent, _, name = url.rstrip("/").rpartition("/")
    _kind(Path(name))
    files = open_files(parent)
    _check_absent(files, name)
    with scratch_folder(local_parent(scratch)) as folder:
        path = Path(folder) / name
        yield path
        _check_absent(files, name)
        try:
            _upload(files, name, path)
        except BaseException:
            files.remove_tree(name)
            raise


def _upload(files: Files, name: str, path: Path) -> None:
    """Send a file, or a group: its root last, so that nobody takes a part of it for the whole."""
    if path.is_file():
        files.upload(name, path)
        return
    root = path / ZARR_JSON
    inner = sorted(file for file in path.rglob("*") if file.is_file() and file != root)
    for file in [*inner, root]:
        files.upload(f"{name}/{file.relative_to(path).as_posix()}", file)


def _remove(path: Path) -> None:
    """Remove what an interrupt may have left before anybody held it."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


@dataclass(frozen=True)
class StatesTable:
    """What a table is of, and how it is laid out.

    Decoded, states are written as booleans, one for each neuron. About so many bytes of states, as
    they are written, and of their counts make a chunk. Attributes are what readers may want to
    know.
    """

    neurons: int
    row_bytes: int
    decoded: bool
    chunk_bytes: int
    attributes: dict[str, Any]

    @property
    def entry_bytes(self) -> int:
        """Bytes of a state as it is written, and of its counts."""
        return (self.neurons if self.decoded else self.row_bytes) + _COUNT_BYTES

    def written(self, rows: Rows) -> Rows | npt.NDArray[np.bool_]:
        """Return states as they are written."""
        return bits.unpack(rows, self.neurons) if self.decoded else rows


class _Held:
    """States that wait until there are enough of them for a chunk."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Rows, Numbers, Numbers]] = []
        self.count = 0

    def add(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        """Hold states."""
        self._pieces.append((rows, multiplicity, incidence))
        self.count += len(rows)

    def take(self, count: int) -> list[Any]:
        """Return the first of them, and hold these no more."""
        taken, left = [], count
        while left:
            piece = self._pieces.pop(0)
            if len(piece[0]) > left:
                self._pieces.insert(0, tuple(entries[left:] for entries in piece))  # type: ignore[arg-type]
                piece = tuple(entries[:left] for entries in piece)  # type: ignore[assignment]
            taken.append(piece)
            left -= len(piece[0])
        self.count -= count
        return [np.concatenate(entries) for entries in zip(*taken, strict=True)]


class TableFile(ABC):
    """A table that is being written: so many states at a time, a Zarr chunk or a row group."""

    def __init__(self, table: StatesTable, chunk_rows: int) -> None:
        self._table = table
        self._chunk_rows = chunk_rows
        self._held = _Held()

    def append(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        """Add states; full chunks are written."""
        self._held.add(rows, multiplicity, incidence)
        while self._held.count >= self._chunk_rows:
            self._write(*self._held.take(self._chunk_rows))

    def finish(self) -> None:
        """Write what is left, so that it survives a loss of power."""
        if self._held.count:
            self._write(*self._held.take(self._held.count))

    @abstractmethod
    def discard(self) -> None:
        """Remove all that was written, and let nothing be written any more."""

    @abstractmethod
    def _write(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        """Write states as the chunk that follows."""


class ZarrGroup(TableFile):
    """A Zarr v3 group of three arrays, written by zarr-python in whole chunks."""

    def __init__(self, path: Path, table: StatesTable) -> None:
        import zarr

        from tsstore.analysis.states.zarr_store import DurableStore

        super().__init__(table, max(1, table.chunk_bytes // table.entry_bytes))
        self._arrays: dict[str, Any] = {}
        os.mkdir(path)
        self._store = DurableStore(path)
        try:
            self._group = zarr.create_group(self._store, zarr_format=3, attributes=table.attributes)
            axis = ("neuron", table.neurons) if table.decoded else ("byte", table.row_bytes)
            self._create("state", "bool" if table.decoded else "uint8", axis)
            self._create("multiplicity", "int64")
            self._create("incidence", "int64")
        except BaseException:
            self.discard()
            raise

    def finish(self) -> None:
        """Write the last chunks, and sync all."""
        super().finish()
        self._store.files.sync()

    def discard(self) -> None:
        """Remove the group; Zarr's threads write nothing any more."""
        self._store.remove()

    def _write(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        self._arrays["state"].append(self._table.written(rows))
        self._arrays["multiplicity"].append(multiplicity)
        self._arrays["incidence"].append(incidence)

    def _create(self, name: str, dtype: str, *axes: tuple[str, int]) -> None:
        from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

        sizes = tuple(size for _, size in axes)
        self._arrays[name] = self._group.create_array(
            name,
            shape=(0, *sizes),
            chunks=(self._chunk_rows, *sizes),
            dtype=dtype,
            serializer=BytesCodec(),
            compressors=[
                BloscCodec(cname="zstd", clevel=CODECS[_CODEC], shuffle="noshuffle", typesize=1),
                Crc32cCodec(),
            ],
            dimension_names=("distinct_state", *(axis for axis, _ in axes)),
        )


class ParquetFile(TableFile):
    """A Parquet file of three columns, in row groups of a chunk.

    A decoded state is a list of booleans of fixed size: an array in polars and pyarrow, and one
    ``numpy.stack`` away from a matrix in pandas. A column for each neuron would make the metadata
    of each row group, all of which are held until the end, as large as a wide layer's states.
    """

    def __init__(self, path: Path, table: StatesTable) -> None:
        self._arrow, parquet = _import_pyarrow()
        self._path = path
        levels = _LEVEL_BYTES * table.neurons if table.decoded else 0
        super().__init__(table, max(1, table.chunk_bytes // (table.entry_bytes + levels)))
        self._file = open(path, "xb")  # noqa: SIM115 - closed when finished or discarded
        counts = ["multiplicity", "incidence"]
        self._writer = parquet.ParquetWriter(
            self._file,
            self._schema(),
            compression=_CODEC,
            data_page_size=_PAGE_BYTES,
            # Dictionaries and bounds of states would be as large as these, and of no use.
            use_dictionary=counts,
            write_statistics=counts,
        )

    def finish(self) -> None:
        """Write the last row group and the metadata."""
        super().finish()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Remove the file."""
        # Its writer would complain later if it were not closed; and to close it is to write.
        for close in (self._writer.close, self._file.close):
            with suppress(Exception):
                close()
        self._path.unlink(missing_ok=True)

    def _write(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        columns = [self._states(rows), multiplicity, incidence]
        self._writer.write_batch(self._arrow.record_batch(columns, schema=self._writer.schema))

    def _states(self, rows: Rows) -> Any:
        written = self._table.written(rows).reshape(-1)
        if self._table.decoded:
            values = self._arrow.array(written)
            return self._arrow.FixedSizeListArray.from_arrays(values, self._table.neurons)
        buffers = [None, self._arrow.py_buffer(written)]
        return self._arrow.FixedSizeBinaryArray.from_buffers(self._type(), len(rows), buffers)

    def _type(self) -> Any:
        if self._table.decoded:
            return self._arrow.list_(self._arrow.bool_(), self._table.neurons)
        return self._arrow.binary(self._table.row_bytes)

    def _schema(self) -> Any:
        count = self._arrow.int64()
        return self._arrow.schema(
            [("state", self._type()), ("multiplicity", count), ("incidence", count)],
            metadata={"tsstore": json.dumps(self._table.attributes)},
        )


def _import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow, which not everyone has, and its module for Parquet."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise StoreError(
            "a Parquet file needs the package pyarrow, which is not installed; "
            "pip install tsstore[parquet], or write to a name that ends in .zarr"
        ) from None


_FILES: dict[str, Callable[[Path, StatesTable], TableFile]] = {
    ".parquet": ParquetFile,
    ".zarr": ZarrGroup,
}


def _kind(path: Path) -> Callable[[Path, StatesTable], TableFile]:
    """Return what begins a file of the kind that a path's name asks for."""
    if path.suffix not in _FILES:
        raise StoreError(
            f"{printable(str(path))}: expected a name that ends in {' or '.join(_FILES)}, which is "
            "the kind of file that is written"
        )
    return _FILES[path.suffix]


def _check_absent(files: Files, name: str) -> None:
    if files.exists(name):
        raise exists_already(files.where(name))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name the table, and say what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise not_writable(path, error) from error


def _attributes(states: LayerStates, is_sorted: bool) -> dict[str, Any]:
    """Return what readers of a table may want to know."""
    return {
        "run": states.location,
        "run_id": read_run(states.parts[0].states.files).run_id,
        "layer": states.name,
        "neurons": states.neurons,
        "rows": states.rows,
        "samples": states.samples,
        "order": "multiplicity, descending, then state" if is_sorted else "none",
        "packing": "neuron i is bit i % 8, least significant first, of byte i // 8",
        "software": f"tsstore {__version__}",
    }
