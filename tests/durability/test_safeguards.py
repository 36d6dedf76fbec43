"""Without any one of the safeguards, the checks of crashes and of losses of power fail."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from crashing import (
    SAMPLES,
    InterruptedFiles,
    check_run,
    quick_folder,
    run_job,
    steps_of_job,
)
from power import Step, Trials, kill_everywhere, log_job, lose_power

from tsstore.errors import DamageError, PartSealedError, StoreExistsError, TsstoreError
from tsstore.store.chunked.chunk import decode, encode
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.chunked.writer import ArrayWriter
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.arrays import read_array
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import metadata_key, read_attributes, read_document, write_group
from tsstore.store.format.paths import (
    column_paths,
    commit_path,
    part_directory,
    positions_paths,
    states_paths,
)
from tsstore.store.format.record import ArrayCommit, CommitRecord, LayerCommit, Seal
from tsstore.store.reading import part as parts
from tsstore.store.reading.part import committed_arrays
from tsstore.store.run import create_run
from tsstore.store.writing import part as writer
from tsstore.store.writing.part import create_part, create_seal

Mutation = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture
def trials() -> Iterator[Trials]:
    """Trials of a run in a folder of its own, up to the first violation."""
    with quick_folder() as folder:
        (folder / "base").mkdir()
        yield Trials(folder / "base" / "run.zarr", folder, check_run, enough=1)


# What a loss of power shows: see durability/test_power_loss.py.


@pytest.mark.parametrize("skipped", ["sync", "sync_directory"])
def test_both_files_and_directories_must_be_synced(trials, skipped):
    log: list[Step] = []
    log_job(trials.run, log, skip=[skipped])
    lose_power(log, trials, random.Random(0), 2)
    assert trials.violations


CALLS = (
    "create_part", "create_groups", "chunks 1", "record 1", "chunks 2", "record 2", "chunks 3",
    "record 3",
)  # fmt: skip
"""The calls of sync that a job makes, in their order: after that of create_run, which has nothing
to lose yet, and before that of the seal, which freezes what is there already."""


@pytest.mark.parametrize("call", CALLS)
def test_each_call_of_sync_is_needed(trials, call):
    log: list[Step] = []
    log_job(trials.run, log)
    series = [list(steps) for _, steps in groupby(log, lambda step: step.operation)]
    calls = [n for n, steps in enumerate(series) if steps[0].operation == "sync_directory"]
    assert len(calls) == 1 + len(CALLS) + 1
    missing = calls[1 + CALLS.index(call)]
    before, after = (list(chain(*some)) for some in (series[:missing], series[missing + 1 :]))
    lose_power(before + after, trials, random.Random(0), 6, len(before))
    assert trials.violations


# What a kill shows: see durability/test_crash_points.py.


def record_before_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[tuple[LocalFiles, str, bytes]] = []

    def hold_back(array: ArrayWriter, index: int) -> None:
        key = array.spec.chunk_key(array._path, index)
        waiting.append((array._files, key, encode(array.spec, array._buffer)))

    def write_record(files: LocalFiles, path: str, attributes: Any = None) -> None:
        write_group(files, path, attributes)
        for place, key, data in waiting:
            place.write(key, data)
        waiting.clear()

    monkeypatch.setattr(ArrayWriter, "_write_chunk", hold_back)
    monkeypatch.setattr(writer, "write_group", write_record)


def tails_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    write_unless(monkeypatch, lambda array: array._filled < array.spec.chunk_rows)


def empty_chunks_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    write_unless(monkeypatch, lambda array: not array.spec.is_text and not array._buffer.any())


def write_unless(monkeypatch: pytest.MonkeyPatch, skip: Callable[[ArrayWriter], bool]) -> None:
    write = ArrayWriter._write_chunk
    monkeypatch.setattr(
        ArrayWriter, "_write_chunk", lambda self, index: None if skip(self) else write(self, index)
    )


def files_written_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(files: LocalFiles, key: str, data: bytes) -> None:
        path = files._path_to_write(key)
        if path.exists():
            files.remove(key)
        files._write_new(path, data)

    monkeypatch.setattr(LocalFiles, "write", write)


def no_record_before_the_first_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_groups(files: LocalFiles, part: str) -> None:
        for group in ("layers", "samples", "sample_checksums"):
            write_group(files, f"{part}/{group}")

    monkeypatch.setattr(writer, "create_groups", create_groups)


def checksum_of_the_encoded_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    flush, read_chunk = ArrayWriter.flush, CommittedArray._chunk

    def flush_and_encode(array: ArrayWriter) -> ArrayCommit:
        commit = flush(array)
        encoded = encode(array.spec, array._buffer)
        return replace(commit, tail_checksum=google_crc32c.value(encoded[:-4]))

    def read_encoded(array: CommittedArray, index: int, out: Any, room: Any) -> Any:
        if index < array.rows // array.spec.chunk_rows:
            return read_chunk(array, index, out, room)
        data = array.files.read(array.spec.chunk_key(array.paths.values, index))
        if google_crc32c.value(data[:-4]) != array.commit.tail_checksum:
            raise DamageError("the tail is not what was committed")
        return decode(array.spec, data, "")

    monkeypatch.setattr(ArrayWriter, "flush", flush_and_encode)
    monkeypatch.setattr(CommittedArray, "_chunk", read_encoded)


def shapes_instead_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    read_commit = parts._read_commit

    def shown(files: LocalFiles, path: str) -> ArrayCommit:
        spec, _ = read_array(files, path)
        rows = read_document(files, path)["shape"][0]
        return ArrayCommit(rows, 0, rows % spec.chunk_rows)

    def believe_shapes(files: LocalFiles, part: str) -> tuple[CommitRecord, Seal | None]:
        record, seal = read_commit(files, part)
        arrays = {path.values: shown(files, path.values) for path in committed_arrays(part, record)}
        layers = {
            name: LayerCommit(
                arrays[states_paths(part, name).values],
                arrays.get(positions_paths(part, name).values),
            )
            for name in record.layers
        }
        columns = {name: arrays[column_paths(part, name).values] for name in record.columns}
        samples = columns["id"].rows if columns else 0
        return replace(
            record, samples=samples, batches=samples // 2, layers=layers, columns=columns
        ), seal

    def read_unchecked(array: CommittedArray, index: int, out: Any, room: Any) -> Any:
        data = array.files.read(array.spec.chunk_key(array.paths.values, index))
        return decode(array.spec, data, "", out)

    monkeypatch.setattr(parts, "_read_commit", believe_shapes)
    monkeypatch.setattr(CommittedArray, "_chunk", read_unchecked)


@pytest.mark.parametrize(
    "mutation",
    [
        record_before_chunks,
        tails_not_written,
        empty_chunks_not_written,
        files_written_in_place,
        no_record_before_the_first_commit,
        checksum_of_the_encoded_tail,
        shapes_instead_of_the_record,
    ],
)
def test_a_kill_shows_that_a_safeguard_is_missing(trials, monkeypatch, mutation: Mutation):
    mutation(monkeypatch)
    log: list[Step] = []
    log_job(trials.run, log)
    kill_everywhere(log, trials)
    assert trials.violations


# What a process that lives too long shows: see durability/test_zombie.py, too.


def resume_during(path: Path, step: int) -> None:
    """Let one job do all its work when another is at a step, and check the run after both."""
    files = InterruptedFiles(path, step, lambda: run_job(LocalFiles(path, durable=False)))
    try:
        run_job(files)
    except (PartSealedError, StoreExistsError):
        assert files.interrupted
    assert check_run(path, SAMPLES) == SAMPLES


def seal_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_seal(
        files: LocalFiles, part: str, record: CommitRecord, why: str, by: str = "", **_: object
    ) -> Seal:
        seal = Seal(record, why, by, "2026-01-01T00:00:00+00:00")
        sealed = record.to_json() | {"sealed": seal.to_json()}
        write_group(files, commit_path(part), sealed)
        return seal

    def read_seal(files: LocalFiles, part: str) -> Seal | None:
        path = commit_path(part)
        if not files.exists(metadata_key(path)):
            return None
        found = read_attributes(files, path).get("sealed")
        return None if found is None else Seal.from_json(found, "attributes", path)

    def check_seal(job: writer.PartWriter) -> None:
        if read_seal(job._files, job.directory):
            raise PartSealedError("sealed")

    monkeypatch.setattr(writer, "create_seal", create_seal)
    for module in (writer, parts):
        monkeypatch.setattr(module, "read_seal", read_seal)
    monkeypatch.setattr(writer.PartWriter, "_check_seal", check_seal)


def record_that_counts_after_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_commit(files: LocalFiles, part: str) -> tuple[CommitRecord, Seal | None]:
        return parts.read_record(files, part), parts.read_seal(files, part)

    monkeypatch.setattr(parts, "_read_commit", read_commit)


def steps_of_the_second_commit() -> range:
    """Return some of the steps at which a job makes its second commit."""
    with quick_folder() as folder:
        _, done = steps_of_job(folder / "run.zarr")
    return range(done[1] + 1, done[2] + 1, 3)


def test_a_job_that_lives_too_long_changes_nothing():
    for step in steps_of_the_second_commit():
        with quick_folder() as folder:
            resume_during(folder / "run.zarr", step)


@pytest.mark.parametrize("mutation", [seal_in_the_record, record_that_counts_after_the_seal])
def test_a_job_that_lives_too_long_shows_that_a_safeguard_is_missing(
    monkeypatch, mutation: Mutation
):
    steps = steps_of_the_second_commit()
    mutation(monkeypatch)
    assert any(is_violated_during(step) for step in steps)


def is_violated_during(step: int) -> bool:
    with quick_folder() as folder:
        try:
            resume_during(folder / "run.zarr", step)
        except (AssertionError, TsstoreError):
            return True
    return False


# What two that create the same thing at the same time show.


def create_two_runs(path: Path) -> bool:
    return one_refuses(path, lambda files: create_run(files))


def create_two_parts(path: Path) -> bool:
    create_run(LocalFiles(path))
    return one_refuses(path, lambda files: create_part(files, PartAttributes(), attempt=0))


def create_two_seals(path: Path) -> bool:
    create_run(LocalFiles(path))
    part = part_directory(0, create_part(LocalFiles(path), PartAttributes()).attempt)
    record = CommitRecord()
    return one_refuses(path, lambda files: create_seal(files, part, record, "resumed", "me"))


def one_refuses(path: Path, create: Callable[[LocalFiles], object]) -> bool:
    """Create something while another process creates it; return whether that is refused."""
    files = InterruptedFiles(path, 2, lambda: create(LocalFiles(path)))
    try:
        create(files)
    except (StoreExistsError, FileExistsError):
        return files.interrupted
    return False


@pytest.mark.parametrize("create", [create_two_runs, create_two_parts, create_two_seals])
def test_what_is_created_exclusively_is_created_once(tmp_path, monkeypatch, create):
    assert create(tmp_path / "run.zarr")
    monkeypatch.setattr(LocalFiles, "create", LocalFiles.write)
    assert not create(tmp_path / "replaced.zarr")
