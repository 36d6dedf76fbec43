"""Rewriting a run of many parts as one part for each step, in few files."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from tsstore.errors import DamageError, StoreError, TsstoreError
from tsstore.store.files.base import Files
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.maintenance.merge_parts import MergedParts, compare
from tsstore.store.maintenance.part_copy import PartCopy
from tsstore.store.reading.status import LIVE
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.run import create_run, read_run
from tsstore.text import printable

SHARD_BYTES = 256 << 20

Progress = Callable[[str, int, int], None]
"""Takes what is done to which part, the number of its arrays for which it is done, and of all."""


def compact(
    source: StorePath | StateStore,
    out: StorePath,
    *,
    shard_bytes: int = SHARD_BYTES,
    durable: bool = True,
    progress: Progress | None = None,
) -> StateStore:
    """Rewrite a run as one part for each of its steps, in few files, and compare the two.

    The source is only read. A new part holds the samples of the old ones in the order of attempts,
    and within one in that of ranks: of repeated samples, the one that counts stays the same. A
    part whose source was cut off says so, and can be resumed like it where its samples have ids.
    What the user said of the old parts is kept of the first one only.

    Parameters
    ----------
    source
        A run all of whose parts are sealed.
    out
        Where to create the new run.
    shard_bytes
        Size of a shard's chunks as decoded; a shard is held in memory until it is written.
    durable
        Whether to wait for the disk.
    progress
        Called after each array.

    Returns
    -------
    StateStore
        The new run.

    Raises
    ------
    StoreError
        If the source has no parts, or one that is not sealed, or parts of a step that do not fit
        together; or if the new run cannot be written, which is not sealed then.
    DamageError
        If the new run does not hold what the source does; it is not sealed then.
    StoreExistsError
        If there is something at `out`.
    NotAStoreError, FormatError, DamageError
        If the source cannot be read.
    """
    store = source.pinned() if isinstance(source, StateStore) else open_store(source)
    _check_sealed(store)
    steps = dict.fromkeys(part.step for part in store.parts)
    # Parts that do not fit together are refused before anything is written.
    sources = [MergedParts(store, step) for step in steps]
    files = open_files(out, durable)
    software = {name: version for name, version in store.run.software.items() if name != "tsstore"}
    run_id, was_there = uuid.uuid4().hex, files.exists("")
    try:
        create_run(files, software, run_id, compacted_from=store.run.run_id)
        try:
            _copy(files, sources, shard_bytes, progress or _report_nothing)
        except (OSError, TsstoreError) as error:
            kind = DamageError if isinstance(error, DamageError) else StoreError
            raise kind(
                f"{store.path} was not compacted: {error}; {files.location} is not complete: "
                "remove it, then compact again"
            ) from error
        return open_store(out)
    except KeyboardInterrupt:
        if not was_there:
            _remove(files, run_id)
        raise


def disk_usage(path: StorePath) -> tuple[int, int]:
    """Return how many files a run has, and how many bytes they hold."""
    files = open_files(path)
    sizes = [files.size(key) for key in files.walk()]
    return len(sizes), sum(sizes)


def _copy(files: Files, sources: list[MergedParts], shard_bytes: int, progress: Progress) -> None:
    done = []
    for source in sources:
        copy = PartCopy(files, source, shard_bytes)
        arrays = len(source.layers) + len(source.columns)
        part = copy.write(partial(_report, progress, f"write {copy.directory}", arrays))
        compare(source, part, partial(_report, progress, f"compare {copy.directory}", arrays))
        done.append((copy, part))
    # Seals come last: a run of which they are missing is not complete.
    for copy, part in done:
        copy.seal(part)


def _remove(files: Files, run_id: str) -> None:
    """Remove a run whose writing was interrupted, unless it is another one than this."""
    with suppress(OSError, TsstoreError):
        if not files.names("") or read_run(files).run_id == run_id:
            files.remove_tree()


def _report(progress: Progress, task: str, total: int, done: int) -> None:
    progress(task, done, total)


def _report_nothing(task: str, done: int, total: int) -> None:
    pass


def _check_sealed(store: StateStore) -> None:
    if not store.parts:
        raise StoreError(f"{store.path} has no parts yet, so there is nothing to compact; wait")
    for part, status in zip(store.parts, store.part_statuses, strict=True):
        if part.seal is None:
            advice = (
                "wait until the job has ended"
                if status.state == LIVE
                else "let the job go on by resume=True, or seal the part by tsstore repair"
            )
            raise StoreError(
                f"{store.path}/{part.directory} is not sealed ({printable(str(status))}); expected "
                f"a run all of whose parts are: {advice}"
            )
