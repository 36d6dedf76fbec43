"""A folder of tables of integers with what is said of them: a Zarr v3 group, checked when read.

It is made of what a run is made of: arrays of chunks with checksums, and attributes that vouch for
them. What is read may come from anyone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError, NotAStoreError, StoreError
from tsstore.store import targets
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.chunked.writer import ArrayWriter
from tsstore.store.files.base import Files
from tsstore.store.files.local import LocalFiles
from tsstore.store.files.open import is_url
from tsstore.store.format.arrays import ArraySpec
from tsstore.store.format.documents import ZARR_JSON, mapping, number, read_attributes, write_group
from tsstore.store.format.paths import ArrayPaths, is_directory
from tsstore.store.format.record import ArrayCommit
from tsstore.text import printable

FORMAT = 1
MOST_CHUNK_ROWS = 1 << 16
MOST_COLUMNS = 16

Table = npt.NDArray[np.int64]


def write_tables(
    path: str | os.PathLike[str], about: Mapping[str, Any], tables: Mapping[str, Table]
) -> None:
    """Write tables, int64 (n, columns) each, by name, and what is said of them: all or nothing.

    StoreError if the path is no local one, StoreExistsError if something is there, AccessError if
    it cannot be written.
    """
    check_target(path)
    target = Path(path)
    with targets.new_place(target) as temporary, targets.naming(target):
        files = LocalFiles(temporary)
        os.mkdir(temporary)
        commits = {name: _write_table(files, name, table) for name, table in tables.items()}
        write_group(files, "", {"analysis": FORMAT, "about": dict(about), "tables": commits})
        files.sync()


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise at once what `write_tables` would raise after hours of counting, where it is known."""
    if is_url(path):
        raise StoreError(f"{printable(os.fspath(path))} is no local path; analyses are saved there")
    targets.check_target(path)


def read_tables(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Table]]:
    """Read what `write_tables` wrote: what is said, and the tables, each chunk of them checked.

    NotAStoreError if there is none, FormatError if it is another one's, DamageError if it is not
    what was written.
    """
    files = LocalFiles(path)
    if not files.exists(ZARR_JSON):
        raise NotAStoreError(f"{files.location} holds no saved analysis; check the path")
    attributes = read_attributes(files, "")
    if "run_id" in attributes:
        raise NotAStoreError(
            f"{files.location} is a run, and no saved analysis: tsstore.analyze analyses it"
        )
    if attributes.get("analysis") != FORMAT:
        raise FormatError(
            f"{files.location} is no saved analysis of this version: found "
            f"{attributes.get('analysis')!r:.80}, expected {FORMAT}; analyse the run again"
        )
    about = mapping(attributes.get("about"), "about", files.location)
    commits = mapping(attributes.get("tables"), "tables", files.location)
    return about, {name: _read_table(files, name, commit) for name, commit in commits.items()}


def _write_table(files: Files, name: str, table: Table) -> dict[str, Any]:
    rows, columns = table.shape
    chunk_rows = min(max(rows, 1), MOST_CHUNK_ROWS)
    axes = f"{name}_entry", f"{name}_column"
    spec = ArraySpec("int64", chunk_rows, (columns,), axes, "zstd", 3)
    writer = ArrayWriter(files, _paths(name), spec)
    writer.append(table)
    commit = writer.finish()
    writer.write_shape()
    return {**asdict(commit), "columns": columns}


def _read_table(files: Files, name: str, said: object) -> Table:
    fields = mapping(said, "a table's commit", files.location)
    columns = number(fields.get("columns"), "columns", files.location, 1, MOST_COLUMNS)
    if not is_directory(name):
        raise FormatError(f"{files.location}: {name!r:.80} is no table's name")
    commit = ArrayCommit.from_json(said, "attributes", files.location)
    array = CommittedArray.open(files, _paths(name), commit, "int64", (columns,))
    return array.read(0, commit.rows).astype(np.int64, copy=False)


def _paths(name: str) -> ArrayPaths:
    return ArrayPaths(name, f"{name}_checksums", f"{name}_chunk")
