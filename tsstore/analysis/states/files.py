"""Where a table of distinct states goes: a Parquet file or a Zarr group, here or in object storage.

Whatever stops an export, there is nothing under the name that was asked for until all is written.
What goes to an object store is written to a scratch folder first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tsstore import __version__
from tsstore.analysis.execution.scratch import local_parent, scratch_folder
from tsstore.analysis.states.tables import Numbers, ParquetFile, Rows, StatesTable, TableFile
from tsstore.errors import StoreError
from tsstore.store.files.base import Files
from tsstore.store.files.open import is_url, open_files
from tsstore.store.format.documents import ZARR_JSON
from tsstore.store.reading.layer import LayerStates
from tsstore.store.run import read_run
from tsstore.store.targets import check_target, exists_already, naming, new_place
from tsstore.text import printable

Append = Callable[[Rows, Numbers, Numbers], None]
"""Takes states, uint8 (n, row_bytes), their multiplicities and incidences."""


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
    with new_place(path) as temporary:
        with naming(path):
            file = new_file(temporary, table)

        def append(rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
            with naming(path):
                file.append(rows, multiplicity, incidence)

        try:
            yield append
            with naming(path):
                file.finish()
        except BaseException:
            file.discard()
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


def _zarr_group(path: Path, table: StatesTable) -> TableFile:
    """Begin a Zarr group; whoever writes Parquet needs no zarr-python."""
    from tsstore.analysis.states.zarr_store import ZarrGroup

    return ZarrGroup(path, table)


_FILES: dict[str, Callable[[Path, StatesTable], TableFile]] = {
    ".parquet": ParquetFile,
    ".zarr": _zarr_group,
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
