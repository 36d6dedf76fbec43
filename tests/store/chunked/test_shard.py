from __future__ import annotations

import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.errors import DamageError
from tsstore.store.chunked.shard import (
    ABSENT,
    HELD_INDEXES,
    ChunkReader,
    ShardWriter,
    build_index,
    parse_index,
)
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.arrays import ArraySpec

SPEC = ArraySpec("uint8", 4, (2,), ("row", "byte"), shard_chunks=3)
PLAIN = ArraySpec("uint8", 4, (), ("sample",))
FILE = "a/states/c/0/0"


@pytest.fixture
def files(tmp_path):
    return LocalFiles(tmp_path, durable=False)


@pytest.fixture
def reader(files):
    return ChunkReader(files, "a/states", SPEC)


def write(files: LocalFiles, *encoded: bytes) -> None:
    writer = ShardWriter(files, "a/states", SPEC)
    for chunk, data in enumerate(encoded):
        writer.put(chunk, data)
    writer.flush()


def index_of(*entries: int) -> bytes:
    """Return an index as a forger would make it: with the right crc32c."""
    body = struct.pack(f"<{len(entries)}Q", *entries)
    return body + struct.pack("<I", google_crc32c.value(body))


@given(lengths=st.lists(st.integers(0, 50), max_size=9), room=st.integers(0, 3))
def test_an_index_says_where_each_chunk_begins_and_the_last_one_ends(lengths, room):
    index = build_index(lengths, len(lengths) + room)
    assert len(index) == 16 * (len(lengths) + room) + 4
    places = parse_index(index, sum(lengths) + len(index), "shard")
    assert places.tolist() == [sum(lengths[:place]) for place in range(len(lengths) + 1)]


def test_the_index_is_that_of_zarr():
    assert build_index([5, 7], 3) == index_of(0, 5, 5, 7, ABSENT, ABSENT)


@settings(max_examples=25)
@given(
    encoded=st.lists(st.binary(max_size=5), min_size=1, max_size=10),
    flushes=st.lists(st.booleans(), min_size=10, max_size=10),
)
def test_chunks_come_back_whenever_the_last_one_was_written(tmp_path_factory, encoded, flushes):
    files = LocalFiles(tmp_path_factory.mktemp("store"), durable=False)
    writer = ShardWriter(files, "a/states", SPEC)
    for chunk, data in enumerate(encoded):
        if flushes[chunk]:
            writer.put(chunk, b"unfinished")
            writer.flush()
            assert ChunkReader(files, "a/states", SPEC).read(chunk) == b"unfinished"
        writer.put(chunk, data)
    writer.flush()
    reader = ChunkReader(files, "a/states", SPEC)
    assert [reader.read(chunk) for chunk in range(len(encoded))] == encoded
    assert [reader.exists(chunk) for chunk in range(12)] == [
        chunk < len(encoded) for chunk in range(12)
    ]
    assert files.list("a/states/c") == [str(file) for file in range(-(-len(encoded) // 3))]


def test_a_shard_is_written_once_and_only_when_it_is_finished(files, monkeypatch):
    written, write_file = [], files.write
    monkeypatch.setattr(
        files, "write", lambda key, data: [written.append(key), write_file(key, data)]
    )
    writer = ShardWriter(files, "a/states", SPEC)
    for chunk in range(7):
        writer.put(chunk, b"data")
    assert written == ["a/states/c/0/0", "a/states/c/1/0"]
    writer.flush()
    writer.flush()
    assert written == ["a/states/c/0/0", "a/states/c/1/0", "a/states/c/2/0"]


def test_a_shard_that_could_not_be_written_is_written_later(files, reader, monkeypatch):
    writer = ShardWriter(files, "a/states", SPEC)
    writer.put(0, b"0123")
    monkeypatch.setattr(files, "_write_new", None)
    with pytest.raises(TypeError):
        writer.flush()
    monkeypatch.undo()
    writer.flush()
    assert len(files.read(FILE)) == 4 + 52
    assert reader.read(0) == b"0123"


def test_nothing_is_written_of_no_chunks(files):
    write(files)
    assert list(files.walk()) == []


def test_chunks_in_files_of_their_own(files):
    reader = ChunkReader(files, "samples/a", PLAIN)
    files.write("samples/a/c/7", b"data")
    assert reader.read(7) == b"data"
    assert [reader.exists(chunk) for chunk in (6, 7)] == [False, True]
    assert reader.where(7) == f"{files.location}/samples/a/c/7"
    with pytest.raises(DamageError, match=r"samples/a/c/6 is damaged: it is missing"):
        reader.read(6)
    reader.check_index(6)


def test_a_chunk_that_is_missing_is_named_with_its_shard(files, reader):
    write(files, b"0", b"1", b"2", b"3")
    for chunk, name in ((4, r"c/1/0: chunk 1"), (6, r"c/2/0: chunk 0")):
        assert not reader.exists(chunk)
        with pytest.raises(DamageError, match=rf"a/states/{name} is damaged: it is missing"):
            reader.read(chunk)
    reader.check_index(1)
    with pytest.raises(FileNotFoundError):
        reader.check_index(2)


def test_an_index_is_read_once_and_few_are_kept(files, monkeypatch):
    write(files, *([b"data"] * 3 * (HELD_INDEXES + 1)))
    asked, size = [], files.size
    monkeypatch.setattr(files, "size", lambda key: [asked.append(key), size(key)][1])
    reader = ChunkReader(files, "a/states", SPEC)
    for chunk in range(3 * HELD_INDEXES):
        assert reader.read(chunk) == b"data"
    assert len(asked) == HELD_INDEXES
    assert reader.read(3 * HELD_INDEXES) == reader.read(0) == b"data"
    assert len(asked) == HELD_INDEXES + 2


def test_a_reader_goes_to_other_threads_and_processes(files, reader):
    encoded = [bytes([chunk]) * chunk for chunk in range(60)]
    write(files, *encoded)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reader.read, range(60))) == encoded
    sent = pickle.loads(pickle.dumps(reader))
    assert [sent.read(chunk) for chunk in range(60)] == encoded


HUGE = ABSENT - 1
HOSTILE = {
    "an offset beyond the file": (1 << 40, 4, 4, 4, ABSENT, ABSENT),
    "a length beyond the file": (0, 1 << 40, 4, 4, ABSENT, ABSENT),
    "lengths that go round to the right sum": (0, HUGE, HUGE, 10, ABSENT, ABSENT),
    "a chunk in the index": (0, 4, 4, 8, ABSENT, ABSENT),
    "chunks that overlap": (0, 5, 3, 5, ABSENT, ABSENT),
    "two chunks in one place": (0, 8, 0, 8, ABSENT, ABSENT),
    "chunks in another order": (4, 4, 0, 4, ABSENT, ABSENT),
    "a hole": (0, 3, 4, 4, ABSENT, ABSENT),
    "bytes that are no chunk's": (0, 4, ABSENT, ABSENT, ABSENT, ABSENT),
    "a chunk after one that is missing": (0, 4, ABSENT, ABSENT, 4, 4),
    "an offset and no length": (0, 4, 4, ABSENT, ABSENT, ABSENT),
    "a length and no offset": (0, 4, ABSENT, 4, ABSENT, ABSENT),
    "no chunks": (ABSENT,) * 6,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_index_of_another_kind_is_refused_before_anything_is_read(
    files, reader, monkeypatch, name
):
    files.write(FILE, b"01234567" + index_of(*HOSTILE[name]))
    read, asked = files.read, []
    monkeypatch.setattr(files, "read", lambda key, span: asked.append(span) or read(key, span))
    for refused in (reader.read, reader.exists, reader.check_index):
        with pytest.raises(DamageError, match=r"a/states/c/0/0 is damaged: its (index|chunks) "):
            refused(0)
    # The index itself, and nothing that it says.
    assert set(asked) == {(8, 52)}


@pytest.mark.parametrize("cut", range(1, 61))
def test_a_shard_that_was_cut_is_damage(files, reader, cut):
    write(files, b"0123", b"4567")
    data = files.read(FILE)
    assert len(data) == 60
    files.write(FILE, data[:-cut])
    with pytest.raises(DamageError, match=r"c/0/0 is damaged: its (\d+ bytes are too few|index)"):
        reader.read(0)


@given(position=st.integers(0, 51), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_index_is_damage(position, bit):
    index = bytearray(build_index([4, 4], 3))
    index[position] ^= 1 << bit
    with pytest.raises(DamageError, match=r"^shard is damaged: its index does not match"):
        parse_index(bytes(index), 60, "shard")


def test_a_directory_in_place_of_a_shard_is_damage(files, reader):
    (files.root / FILE).mkdir(parents=True)
    for refused in (reader.read, reader.exists, reader.check_index):
        with pytest.raises(DamageError, match=r"c/0/0 is damaged: found something else"):
            refused(0)


def test_a_shard_that_is_cut_after_its_index_was_read_is_damage(files, reader):
    write(files, b"0123", b"4567")
    assert reader.read(0) == b"0123"
    files.write(FILE, b"0123")
    with pytest.raises(DamageError, match=r"c/0/0 is damaged: bytes 4\+4 were asked for"):
        reader.read(1)


def test_offsets_are_no_numpy_scalars(files, reader, monkeypatch):
    write(files, b"0123", b"4567")
    assert reader.exists(1)
    read, asked = files.read, []
    monkeypatch.setattr(files, "read", lambda key, span, *_: asked.append(span) or read(key, span))
    reader.read(1)
    assert asked[-1] == (4, 4)
    assert all(type(number) is int for number in asked[-1])
    assert parse_index(build_index([4], 3), 56, "shard").dtype == np.int64
