"""Stores that claim or hold far more than they may: refused soon, in little memory, by everything.

At full size: what matters is what is taken before a limit is looked at. Files are sparse, or of
few bytes that decode to many.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from helpers import column, draw_batch, rewrite_attributes, write_run

from tsstore import cli
from tsstore.store.chunked.chunk import checksum as chunk_checksum
from tsstore.store.chunked.chunk import empty_entries, encode
from tsstore.store.chunked.shard import build_index
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.arrays import read_array
from tsstore.store.format.documents import dump, load
from tsstore.store.format.paths import ArrayPaths, column_paths, states_paths
from tsstore.store.writing.batch import Batch, LayerBatch

MIB = 1 << 20
MOST_BYTES = 48 * MIB
"""What a command may add to a process that has run it before: its usual caches and some files."""
MOST_SECONDS = 10.0
ROWS = 1 << 14
SHARD_CHUNKS = 64
PART = "part-00000-00000"
LAYER = f"{PART}/layers/0000-conv_1"


def command(kind: str, run: Path, out: Path) -> list[str]:
    table = ["--layer", "conv_1"]
    arguments = {
        "info": [], "verify": [], "plan": [], "analyze": ["--scheduler", "synchronous"],
        "states": table, "export": [*table, "--states", str(out / "states.zarr")],
        "compact": [str(out / "compact.zarr")],
    }  # fmt: skip
    return [kind, str(run), *arguments[kind]]


COMMANDS = ("info", "verify", "plan", "analyze", "states", "export", "compact")


def tsstore(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and what it printed."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tsstore", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return end.value.code, out.getvalue(), err.getvalue()


def status(name: str) -> int:
    """Return an amount of memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def measured(call: Callable[[], Any]) -> tuple[Any, int, float]:
    """Return what a call gives, how much memory it took besides, and how long it computed."""
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = status("VmRSS"), time.process_time()
    result = call()
    return result, status("VmHWM") - before, time.process_time() - begun


def write(path: Path, batches: int = 1, **columns: Any) -> Path:
    rng = np.random.default_rng(0)
    write_run(path, [draw_batch(rng, 5, columns=columns) for _ in range(batches)], chunk_bytes=20)
    return path


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory) -> None:
    """Let everything be imported and compiled."""
    path = write(tmp_path_factory.mktemp("warm") / "run.zarr", id=["a", "b", "c", "d", "e"])
    out = tmp_path_factory.mktemp("out")
    for kind in COMMANDS:
        code, _, err = tsstore(*command(kind, path, out))
        assert code == 0, err


def sparse(file: Path, size: int) -> None:
    with open(file, "wb") as huge:
        huge.truncate(size)


def forge(path: Path, samples: int, ids: str, held: bool) -> None:
    """Write a run that claims so many samples, with right checksums wherever it says so.

    If they are `held`, it has all chunks, each a copy of one that decodes to many entries; else
    only the first and the last ones.
    """
    first = ["" for _ in range(ROWS)] if ids == "string" else np.zeros(ROWS, ids)
    rows = np.zeros((ROWS, 1), np.uint8)
    ones = np.ones(ROWS, np.int64)
    batch = Batch(ROWS, {"conv_1": LayerBatch(rows, ones)}, {"id": column(first)})
    write_run(path, [batch], chunk_bytes=ROWS, codec="zstd")
    files = LocalFiles(path, durable=False)
    commits = {
        paths.values: repeat_chunk(files, paths, samples, held)
        for paths in (states_paths(PART, "0000-conv_1"), column_paths(PART, "id"))
    }
    for node in ("commit", "sealed"):
        attributes = load((path / PART / node / "zarr.json").read_bytes(), node)
        attributes = attributes["attributes"]["tsstore"]
        record = attributes["record"] if node == "sealed" else attributes
        record["samples"] = samples
        record["layers"]["0000-conv_1"]["states"], record["columns"]["id"] = commits.values()
        del attributes["checksum"]
        rewrite_attributes(path, f"{PART}/{node}", attributes)


def repeat_chunk(files: LocalFiles, paths: ArrayPaths, rows: int, held: bool) -> dict[str, int]:
    """Let an array be one chunk over and over; return what a record says of it then."""
    spec, attributes = read_array(files, paths.values)
    spec = replace(spec, codec="zstd", level=3, shard_chunks=SHARD_CHUNKS)
    entries = empty_entries(spec, ROWS)
    frame, checksum = encode(spec, entries), chunk_checksum(spec, entries)
    attributes.pop("checksum", None)
    files.remove_tree(f"{paths.values}/c")
    files.write(f"{paths.values}/zarr.json", dump(spec.document(rows, paths.values, attributes)))
    full, tail = divmod(rows, ROWS)
    last, frames = divmod(full, SHARD_CHUNKS)
    for shard in range(last + 1) if held else (0, last):
        lengths = [len(frame)] * (frames + 1 if shard == last else SHARD_CHUNKS)
        data = frame * len(lengths) + build_index(lengths, SHARD_CHUNKS)
        files.write(spec.file_key(paths.values, shard), data)
    checksums = np.full(full if held else 0, checksum, "<u4")
    own, _ = read_array(files, paths.checksums)
    for chunk, start in enumerate(range(0, len(checksums), own.chunk_rows)):
        piece = empty_entries(own, own.chunk_rows)
        given = checksums[start : start + own.chunk_rows]
        piece[: len(given)] = given
        files.write(own.file_key(paths.checksums, chunk), encode(own, piece))
    return {
        "rows": rows,
        "digest": google_crc32c.value(checksums.tobytes()),
        "tail_rows": tail,
        "tail_checksum": chunk_checksum(spec, entries[:tail]),
    }


def text_ids(path: Path) -> None:
    forge(path, 200_000_001, "string", held=False)


def held_text_ids(path: Path) -> None:
    forge(path, 2_000_001, "string", held=True)


def number_ids(path: Path) -> None:
    forge(path, (1 << 45) + 1, "int64", held=False)


def held_number_ids(path: Path) -> None:
    forge(path, 9_000_001, "int64", held=True)


def huge_root(path: Path) -> None:
    sparse(write(path, id=[1, 2, 3, 4, 5]) / "zarr.json", 500 * MIB)


def huge_record(path: Path) -> None:
    sparse(write(path, id=[1, 2, 3, 4, 5]) / PART / "sealed" / "zarr.json", 500 * MIB)


def full_document(path: Path) -> None:
    file = write(path, id=[1, 2, 3, 4, 5]) / LAYER / "zarr.json"
    file.write_bytes(b" " * (16 * MIB) + file.read_bytes())


def huge_checksums(path: Path) -> None:
    sparse(write(path, batches=6, id=[1, 2, 3, 4, 5]) / LAYER / "checksums" / "c" / "0", 300 * MIB)


def huge_chunk(path: Path) -> None:
    sparse(write(path, id=[1, 2, 3, 4, 5]) / LAYER / "states" / "c" / "0" / "0", 300 * MIB)


def huge_column(path: Path) -> None:
    sparse(write(path, id=[1, 2, 3, 4, 5]) / PART / "samples" / "id" / "c" / "0", 300 * MIB)


def part_is_a_file(path: Path) -> None:
    write(path, id=[1, 2, 3, 4, 5])
    (path / "part-00001-00000").write_bytes(b"")


def layers_are_a_file(path: Path) -> None:
    write(path, id=[1, 2, 3, 4, 5])
    os.rename(path / PART / "layers", path / PART / "were")
    (path / PART / "layers").write_bytes(b"")


def part_is_a_pipe(path: Path) -> None:
    os.mkfifo(write(path, id=[1, 2, 3, 4, 5]) / "part-00001-00000")


CLAIMS = [text_ids, number_ids]
HELD = [held_text_ids, held_number_ids]
FILES = [
    huge_root, huge_record, full_document, huge_checksums, huge_chunk, huge_column,
    part_is_a_file, layers_are_a_file, part_is_a_pipe,
]  # fmt: skip
"""What makes them, and which commands need not look at what is wrong."""
NEED_NOT = {
    text_ids: ["info", "plan"], number_ids: ["info"],
    huge_checksums: ["info", "plan"], huge_chunk: ["info", "plan"],
    huge_column: ["states", "export"],
}  # fmt: skip


def name(store: Callable[[Path], None]) -> str:
    return store.__name__


@pytest.mark.parametrize("store", [*CLAIMS, *FILES], ids=name)
def test_what_is_too_large_is_refused_soon_and_in_little_memory(tmp_path, store):
    path = tmp_path / "run.zarr"
    store(path)
    for kind in COMMANDS:
        arguments = command(kind, path, tmp_path)
        (code, _, err), added, seconds = measured(lambda given=arguments: tsstore(*given))
        expected = 1 if kind == "verify" else 0 if kind in NEED_NOT.get(store, []) else 2
        assert code == expected, (kind, err)
        assert code != 2 or (err.startswith("tsstore: ") and err.count("\n") == 1), err
        assert added < MOST_BYTES, kind
        assert seconds < MOST_SECONDS, kind


@pytest.mark.parametrize("store", HELD, ids=name)
def test_what_is_held_many_times_over_takes_no_more_memory_than_is_given(tmp_path, store):
    path = tmp_path / "run.zarr"
    store(path)
    for kind in ("info", "plan", "analyze"):
        given = [] if kind == "info" else ["--memory", "64MiB"]
        arguments = [*command(kind, path, tmp_path), *given]
        (code, out, err), added, seconds = measured(lambda given=arguments: tsstore(*given))
        assert code == 0, (kind, err)
        assert "are too many to look here" in out or kind != "info"
        assert added < 64 * MIB + MOST_BYTES, kind
        assert seconds < MOST_SECONDS, kind
