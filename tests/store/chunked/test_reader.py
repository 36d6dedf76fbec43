from __future__ import annotations

import itertools
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.errors import DamageError, FormatError
from tsstore.store.chunked.chunk import decode
from tsstore.store.chunked.reader import ChunkWorkspace, CommittedArray
from tsstore.store.chunked.writer import ArrayWriter
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.arrays import ArraySpec
from tsstore.store.format.paths import ArrayPaths
from tsstore.store.format.record import ArrayCommit

PATHS = ArrayPaths("layers/a/states", "layers/a/checksums")
STATES = ArraySpec("uint8", 4, (2,), ("row", "byte"))
TEXT = ArraySpec("string", 4, (), ("sample",))
SHARDS, TEXT_SHARDS = replace(STATES, shard_chunks=2), replace(TEXT, shard_chunks=3)


@pytest.fixture
def files(tmp_path):
    return LocalFiles(tmp_path, durable=False)


@pytest.fixture
def small_checksum_chunks(monkeypatch):
    monkeypatch.setattr("tsstore.store.format.arrays.CHECKSUM_CHUNK_ROWS", 3)


def entries(rows: int, spec: ArraySpec = STATES, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(1, 256, (rows, *spec.row_shape), dtype=np.uint8)
    return np.array([f"ü{value}" for value in values], dtype=object) if spec.is_text else values


def write(files: LocalFiles, rows: int, spec: ArraySpec = STATES) -> CommittedArray:
    writer = ArrayWriter(files, PATHS, spec)
    writer.append(entries(rows, spec))
    commit = writer.flush()
    writer.write_shape()
    return CommittedArray.open(files, PATHS, commit, spec.dtype, spec.row_shape)


@pytest.mark.usefixtures("small_checksum_chunks")
@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(0, 11), max_size=8),
    flushes=st.sets(st.integers(0, 7)),
    spec=st.sampled_from([STATES, TEXT, SHARDS, TEXT_SHARDS]),
)
def test_every_commit_keeps_its_entries_whatever_is_appended_later(
    tmp_path_factory, sizes, flushes, spec
):
    files = LocalFiles(tmp_path_factory.mktemp("store"), durable=False)
    written = entries(sum(sizes), spec)
    writer, rows, commits = ArrayWriter(files, PATHS, spec), 0, []
    for index, size in enumerate(sizes):
        writer.append(written[rows : rows + size])
        rows += size
        if index in flushes:
            commits.append(writer.flush())
    commits.append(writer.flush())
    for commit in commits:
        array = CommittedArray.open(files, PATHS, commit, spec.dtype, spec.row_shape)
        assert len(array) == array.rows == commit.rows <= rows
        np.testing.assert_array_equal(array.read(0, commit.rows), written[: commit.rows])
    assert commits[-1].rows == rows


@pytest.mark.usefixtures("small_checksum_chunks")
@pytest.mark.parametrize("spec", [STATES, TEXT, SHARDS, TEXT_SHARDS])
def test_any_range_may_be_read(files, spec):
    array, written = write(files, 30, spec), entries(30, spec)
    for start in range(0, 31, 3):
        for stop in range(start, 31):
            assert array.read(start, stop).tolist() == written[start:stop].tolist()


def test_a_range_is_read_into_the_array_that_is_given(files):
    array = write(files, 10)
    out = np.full((8, 2), 99, dtype=np.uint8)
    assert array.read(1, 9, out) is out
    np.testing.assert_array_equal(out, entries(10)[1:9])
    assert array.read(3, 3).shape == (0, 2)
    assert array.read(3, 3, out) is out


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Where the chunks lie that are decoded, one after the other."""
    places = []

    def spy(spec, data, where, out=None, **how):
        places.append(where)
        return decode(spec, data, where, out, **how)

    monkeypatch.setattr("tsstore.store.chunked.reader.decode", spy)
    return places


@pytest.mark.parametrize("spec", [STATES, TEXT])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_who_reads_on_decodes_each_chunk_once(files, spec, step, decoded):
    array, written, room = write(files, 30, spec), entries(30, spec), ChunkWorkspace()
    assert array.spec.chunk_rows == 4
    array.read(0, 1)  # and the checksums
    decoded.clear()
    for start in range(0, 30, step):
        own = slice(start, min(start + step, 30))
        assert array.read(own.start, own.stop, None, room).tolist() == written[own].tolist()
    assert len(decoded) == len(set(decoded)) == 8


def test_a_chunk_that_is_held_stands_for_no_other(files):
    array, written, room = write(files, 30), entries(30), ChunkWorkspace()
    again = CommittedArray.open(files, PATHS, array.commit, "uint8", (2,))
    np.testing.assert_array_equal(array.read(1, 2, None, room), written[1:2])
    np.testing.assert_array_equal(array.read(5, 6, None, room), written[5:6])
    chunk = Path(files.location) / "layers/a/states/c/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    with pytest.raises(DamageError):
        array.read(2, 3, None, room)
    # What was held is gone, although it was valid: its memory is that of the damaged chunk.
    np.testing.assert_array_equal(array.read(6, 7, None, room), written[6:7])
    np.testing.assert_array_equal(again.read(6, 7, None, room), written[6:7])


def test_entries_that_are_checked_once_are_right_or_an_error(files):
    array, written = write(files, 30), entries(30)
    chunk = Path(files.location) / "layers/a/states/c/1/0"
    data, errors = chunk.read_bytes(), 0
    for place, bit in itertools.product(range(len(data)), (0, 7)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        chunk.write_bytes(flipped)
        for first, stop in ((4, 8), (5, 6)):
            try:
                found = array.read(first, stop, None, ChunkWorkspace(once=True))
            except DamageError as error:
                found, message = None, str(error)
            if found is None:
                errors += "c/1/0" in message
            else:
                np.testing.assert_array_equal(found, written[first:stop])
        with pytest.raises(DamageError):
            array.read(4, 8, None, ChunkWorkspace())
    assert errors > 2 * len(data)
    for cut in range(len(data)):
        chunk.write_bytes(data[:cut])
        with pytest.raises(DamageError):
            array.read(4, 8, None, ChunkWorkspace(once=True))


def test_one_room_serves_arrays_of_any_kind(tmp_path):
    room = ChunkWorkspace()
    for number, spec in enumerate((STATES, TEXT, STATES)):
        files = LocalFiles(tmp_path / str(number), durable=False)
        array, written = write(files, 30, spec), entries(30, spec)
        for start in (1, 5, 2):
            assert array.read(start, start + 2, None, room).tolist() == (
                written[start : start + 2].tolist()
            )


def test_chunks_that_hold_nothing_but_zeros_are_written(files):
    writer = ArrayWriter(files, PATHS, STATES)
    writer.append(np.zeros((10, 2), dtype=np.uint8))
    commit = writer.flush()
    assert files.list("layers/a/states/c") == ["0", "1", "2"]
    assert files.exists("layers/a/states/c/2/0")
    assert not CommittedArray.open(files, PATHS, commit, "uint8", (2,)).read(0, 10).any()


def test_a_flush_without_new_entries_writes_no_chunk(files, monkeypatch):
    writer = ArrayWriter(files, PATHS, STATES)
    writer.append(entries(6))
    commit = writer.flush()
    monkeypatch.setattr(files, "write", None)
    assert writer.flush() == commit


def test_full_chunks_are_written_once(files):
    writer = ArrayWriter(files, PATHS, STATES)
    writer.append(entries(6))
    writer.flush()
    first = (files.root / "layers/a/states/c/0/0").stat().st_mtime_ns
    writer.append(entries(6))
    writer.flush()
    assert (files.root / "layers/a/states/c/0/0").stat().st_mtime_ns == first


def test_plain_readers_see_what_was_flushed_before_the_shape_was_written(files):
    writer = ArrayWriter(files, PATHS, STATES)
    writer.append(entries(6))
    writer.flush()
    assert b'"shape": [\n    0,' in files.read("layers/a/states/zarr.json")
    writer.append(entries(6))
    writer.write_shape()
    assert b'"shape": [\n    6,' in files.read("layers/a/states/zarr.json")


def damage(path: Path, how: str, other: Path) -> None:
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a directory":
        path.unlink()
        path.mkdir()
    elif how == "flipped":
        path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    else:
        path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("how", ["deleted", "empty", "a directory", "flipped", "another chunk"])
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_damage_names_the_chunk_and_leaves_the_others_readable(files, chunk, how):
    array = write(files, 10)
    folder = files.root / "layers/a/states/c"
    damage(folder / f"{chunk}/0", how, folder / f"{(chunk + 1) % 3}/0")
    with pytest.raises(DamageError, match=rf"layers/a/states/c/{chunk}/0 is damaged: .*restore"):
        array.read(0, 10)
    if (chunk, how) != (2, "deleted"):
        other = (chunk + 1) % 3
        expected = entries(10)[other * 4 : other * 4 + 2]
        np.testing.assert_array_equal(array.read(other * 4, other * 4 + 2), expected)


@pytest.mark.usefixtures("small_checksum_chunks")
@pytest.mark.parametrize("how", ["deleted", "empty", "a directory", "flipped", "another chunk"])
def test_damage_to_the_checksums_names_them(files, how):
    array = write(files, 30)
    folder = files.root / "layers/a/checksums/c"
    damage(folder / "1", how, folder / "0")
    with pytest.raises(DamageError, match=r"layers/a/checksums.* is damaged"):
        array.read(0, 1)


def test_a_stale_tail_is_damage(files):
    writer = ArrayWriter(files, PATHS, STATES)
    writer.append(entries(2))
    writer.flush()
    tail = files.root / "layers/a/states/c/0/0"
    stale = tail.read_bytes()
    writer.append(entries(1))
    commit = writer.flush()
    tail.write_bytes(stale)
    with pytest.raises(DamageError, match=r"c/0/0 is damaged: its entries are not those"):
        CommittedArray.open(files, PATHS, commit, "uint8", (2,)).read(0, 1)


@pytest.mark.parametrize("spec", [STATES, SHARDS])
@pytest.mark.parametrize("rows", [10**15, 10**9, 12])
def test_a_record_that_claims_more_than_there_is_takes_no_memory(files, rows, spec):
    commit = write(files, 10, spec).commit
    claim = ArrayCommit(rows - rows % 4 + 2, commit.digest, 2, commit.tail_checksum)
    array = CommittedArray.open(files, PATHS, claim, "uint8", (2,))
    where = r"layers/a/states/c/\d+/0(: chunk [01])?"
    with pytest.raises(DamageError, match=rf"{where} is damaged: it is missing"):
        array.read(0, claim.rows)
    with pytest.raises(DamageError, match="is missing"):
        array.check_extent()


def test_the_last_chunk_is_looked_for_until_it_was_there(files, monkeypatch):
    array, looked_for = write(files, 10), []
    exists = type(files).exists
    monkeypatch.setattr(
        type(files), "exists", lambda self, key: looked_for.append(key) or exists(self, key)
    )
    array.check_extent()
    array.check_extent()
    assert looked_for == ["layers/a/states/c/2/0"]


def test_a_record_that_claims_fewer_is_damage(files):
    commit = write(files, 10).commit
    claim = ArrayCommit(6, commit.digest, 2, commit.tail_checksum)
    with pytest.raises(DamageError, match="is damaged"):
        CommittedArray.open(files, PATHS, claim, "uint8", (2,)).read(0, 6)


def test_a_tail_that_chunks_cannot_leave_is_damage(files):
    commit = write(files, 10).commit
    with pytest.raises(DamageError, match="chunks of 4 leave no tail of the record's length"):
        CommittedArray.open(files, PATHS, ArrayCommit(10, commit.digest, 3), "uint8", (2,))


@pytest.mark.parametrize(("dtype", "row_shape"), [("int64", (2,)), ("uint8", (3,)), ("uint8", ())])
def test_entries_of_another_kind_are_refused(files, dtype, row_shape):
    commit = write(files, 10).commit
    with pytest.raises(FormatError, match=r"layers/a/states: entries are uint8 \(2,\); expected"):
        CommittedArray.open(files, PATHS, commit, dtype, row_shape)


@pytest.mark.parametrize("spec", [STATES, SHARDS])
def test_a_committed_array_reads_on_in_another_process(files, spec):
    array = write(files, 10, spec)
    array.read(0, 5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array)).read(0, 10), entries(10))


def test_no_entries_need_no_chunk(files):
    array = write(files, 0)
    assert len(array) == 0
    assert array.read(0, 0).shape == (0, 2)
    assert files.list("layers/a/states") == ["zarr.json"]
    array.check_extent()


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_damage_in_a_shard_names_the_chunk_and_leaves_the_others_readable(files, chunk):
    array = write(files, 10, SHARDS)
    shard, place = divmod(chunk, 2)
    file = files.root / f"layers/a/states/c/{shard}/0"
    data = bytearray(file.read_bytes())
    # Chunks of so few rows are of one size, which is that of a shard without its index.
    data[place * (len(data) - 36) // (2 - shard) + 20] ^= 1
    file.write_bytes(data)
    where = rf"layers/a/states/c/{shard}/0: chunk {place} is damaged: its bytes do not match"
    with pytest.raises(DamageError, match=rf"{where} their crc32c; restore"):
        array.read(0, 10)
    other = (chunk + 1) % 3
    np.testing.assert_array_equal(
        array.read(other * 4, other * 4 + 2), entries(10)[other * 4 : other * 4 + 2]
    )


def test_shards_that_have_changed_places_are_damage(files):
    array = write(files, 16, SHARDS)
    first, second = (files.root / f"layers/a/states/c/{shard}/0" for shard in (0, 1))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    with pytest.raises(DamageError, match=r"c/0/0: chunk 0 is damaged: its entries are not those"):
        array.read(0, 1)


def test_an_array_that_is_finished_keeps_no_entries(files):
    large = replace(SHARDS, chunk_rows=1 << 20)
    tracemalloc.start()
    try:
        writer = ArrayWriter(files, PATHS, large)
        assert tracemalloc.get_traced_memory()[0] > 2 << 20
        writer.append(entries(10))
        writer.finish()
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
    writer = ArrayWriter(files, PATHS, SHARDS)
    writer.append(entries(10))
    commit = writer.finish()
    writer.write_shape()
    assert b'"shape": [\n    10,' in files.read("layers/a/states/zarr.json")
    array = CommittedArray.open(files, PATHS, commit, "uint8", (2,))
    np.testing.assert_array_equal(array.read(0, 10), entries(10))
