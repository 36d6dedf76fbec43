"""A table of distinct states as a file: a Parquet file, or a Zarr group.

Whatever stops an export, there is nothing under the name that was asked for until all is written.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tsstore import __version__
from tsstore.analysis.states.formats import (
    Numbers,
    ParquetFile,
    Rows,
    StatesTable,
    TableFile,
    ZarrGroup,
)
from tsstore.errors import AccessError, StoreError, StoreExistsError
from tsstore.store.files.base import partial_name
from tsstore.store.files.local import sync_directory
from tsstore.store.reading.layer import LayerStates
from tsstore.store.run import read_run
from tsstore.text import printable

Append = Callable[[Rows, Numbers, Numbers], None]
"""Takes states, uint8 (n, row_bytes), their multiplicities and incidences."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_FILES: dict[str, Callable[[Path, StatesTable], TableFile]] = {
    ".parquet": ParquetFile,
    ".zarr": ZarrGroup,
}


@contextmanager
def write_states(
    out: str | os.PathLike[str], states: LayerStates, decoded: bool, chunk_bytes: int
) -> Iterator[Append]:
    """Yield what adds distinct states to a new table, which is there when the block has ended.

    Parameters
    ----------
    out
        A local path that ends in ``.parquet`` or ``.zarr``.
    states
        The layer that the states are of.
    decoded
        Whether they are written as booleans, one for each neuron.
    chunk_bytes
        Bytes of a Zarr chunk, or of a row group, about: what is held in memory, some times over.

    Raises
    ------
    StoreError
        If the path is no local one of these kinds, or pyarrow is not there.
    StoreExistsError
        If there is something at the path.
    AccessError
        If it cannot be written.
    """
    path, new_file = _target(out)
    table = StatesTable(states.neurons, states.row_bytes, decoded, chunk_bytes, _attributes(states))
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
            _check_free(path)
            os.rename(temporary, path)
            sync_directory(path.parent)
    except BaseException:
        if file is not None:
            file.discard()
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    """Remove what an interrupt may have left before anybody held it."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def _target(out: str | os.PathLike[str]) -> tuple[Path, Callable[[Path, StatesTable], TableFile]]:
    """Return a path that can be written, and what begins a file of its kind."""
    name = os.fspath(out)
    if _URL.match(name):
        raise StoreError(
            f"{printable(name)} is no local path, and tables of states go to local paths only; "
            "give one, and copy what was written"
        )
    path = Path(name)
    if path.suffix not in _FILES:
        raise StoreError(
            f"{printable(name)}: expected a name that ends in {' or '.join(_FILES)}, which is the "
            "kind of file that is written"
        )
    _check_free(path)
    return path, _FILES[path.suffix]


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise StoreExistsError(
            f"{printable(str(path))} exists already; choose another path, or remove what is there"
        )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name the table, and say what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise AccessError(
            f"{printable(str(path))} cannot be written ({error}); make room or get permission "
            "there, or choose another path"
        ) from error


def _attributes(states: LayerStates) -> dict[str, Any]:
    """Return what readers of a table may want to know."""
    return {
        "run": states.location,
        "run_id": read_run(states.parts[0].states.files).run_id,
        "layer": states.name,
        "neurons": states.neurons,
        "rows": states.rows,
        "samples": states.samples,
        "packing": "neuron i is bit i % 8, least significant first, of byte i // 8",
        "software": f"tsstore {__version__}",
    }
