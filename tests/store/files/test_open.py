from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import create_at_once
from object_stores import fresh_url, s3_environment, s3_server

from tsstore.errors import AccessError, DamageError, NotAStoreError, StoreError
from tsstore.store.files.base import Files
from tsstore.store.files.local import LocalFiles
from tsstore.store.files.open import is_url, open_files

PLACES = ("local", "s3", "memory")


@pytest.fixture(scope="module")
def server():
    with s3_server() as url, s3_environment(url):
        yield url


@pytest.fixture(params=PLACES)
def files(request, tmp_path) -> Files:
    """Files of an empty store, in each kind of place."""
    if request.param == "local":
        return open_files(tmp_path / "run.zarr", durable=False)
    obstore = pytest.importorskip("obstore")
    if request.param == "memory":
        return open_files(obstore.store.MemoryStore())
    request.getfixturevalue("server")
    return open_files(fresh_url())


KEYS = ["a/b/c/0/0", "a/b/c/1/0", "a/b/zarr.json", "a-b/zarr.json", "a.b", "b", "zarr.json"]


@pytest.fixture
def filled(files) -> Files:
    for key in KEYS:
        files.write(key, key.encode())
    return files


def test_what_is_written_is_read(files):
    files.write("part/layers/zarr.json", b"old")
    files.write("part/layers/zarr.json", memoryview(b"new"))
    files.write("part/layers/empty", bytearray())
    files.sync()
    assert files.read("part/layers/zarr.json") == b"new"
    assert files.read("part/layers/empty") == b""
    assert files.size("part/layers/zarr.json") == 3
    assert files.size("part/layers/empty") == 0
    assert files.list("part/layers") == ["empty", "zarr.json"]


@pytest.mark.parametrize(("start", "length"), [(0, 10), (0, 3), (7, 3), (4, 0), (10, 0), (9, 1)])
def test_a_range_is_a_slice(files, start, length):
    files.write("shard", b"0123456789")
    assert files.read("shard", (start, length)) == b"0123456789"[start : start + length]


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 11), (9, 2), (10, 1), (11, 0), (50, 1), (-1, 2), (5, -1), (0, 1 << 40)],
)
def test_a_range_is_whole_or_an_error(files, start, length):
    files.write("shard", b"0123456789")
    with pytest.raises(DamageError, match=r"run\.zarr/shard is damaged|memory:///shard"):
        files.read("shard", (start, length))


@pytest.mark.parametrize("there", [[], ["part/zarr.json.more", "part/zarr.json-/c"]])
def test_what_is_not_there_is_not_found(files, there):
    for key in there:
        files.write(key, b"the beginning of a name is no name")
    for use in (files.read, files.size, files.remove):
        with pytest.raises(FileNotFoundError):
            use("part/zarr.json")
    for length in (0, 1):
        with pytest.raises(FileNotFoundError):
            files.read("part/zarr.json", (0, length))
    assert not files.exists("part/zarr.json")


def test_an_empty_place_has_nothing(files):
    assert not files.exists("")
    assert files.list("") == []
    assert list(files.walk()) == []
    files.remove_tree()
    files.remove_tree("part")
    assert not files.exists("part")


def test_what_is_there_is_listed(filled):
    assert filled.list("") == ["a", "a-b", "a.b", "b", "zarr.json"]
    assert filled.list("a/b") == ["c", "zarr.json"]
    assert filled.list("a/b/c") == ["0", "1"]
    with pytest.raises(DamageError, match=r"/b is damaged: found a file, expected a directory"):
        filled.list("b")
    assert filled.list("nothing/here") == []
    assert all(filled.exists(key) for key in ["", "a", "a/b/c", *KEYS])
    assert not any(filled.exists(key) for key in ["c", "a/z", "a/b/c/0/1", "zarr"])


def test_walking_meets_each_file_once_and_in_order(filled):
    assert list(filled.walk()) == sorted(KEYS)
    assert list(filled.walk("a")) == sorted(key for key in KEYS if key.startswith("a/"))
    assert list(filled.walk("b")) == []
    assert list(filled.walk("nothing")) == []


def test_one_file_is_removed(filled):
    filled.remove("a/b/zarr.json")
    assert not filled.exists("a/b/zarr.json")
    assert list(filled.walk()) == sorted(set(KEYS) - {"a/b/zarr.json"})
    with pytest.raises(FileNotFoundError):
        filled.remove("a/b/zarr.json")


def test_a_tree_is_removed_and_nothing_beside_it(filled):
    filled.remove_tree("a")
    filled.remove_tree("b")
    filled.sync()
    assert not filled.exists("a")
    assert list(filled.walk()) == ["a-b/zarr.json", "a.b", "zarr.json"]
    filled.write("a/zarr.json", b"anew")
    assert filled.read("a/zarr.json") == b"anew"


def test_all_is_removed(filled):
    filled.remove_tree()
    assert not filled.exists("")
    assert list(filled.walk()) == []
    filled.create("zarr.json", b"anew")
    assert filled.list("") == ["zarr.json"]


def test_creating_never_replaces(files):
    files.create("sealed/zarr.json", b"first")
    with pytest.raises(FileExistsError):
        files.create("sealed/zarr.json", b"second")
    assert files.read("sealed/zarr.json") == b"first"
    files.write("sealed/zarr.json", b"third")
    assert files.read("sealed/zarr.json") == b"third"
    assert files.list("sealed") == ["zarr.json"]


def test_of_many_that_create_the_same_file_one_succeeds(files):
    create_at_once(files, "part/zarr.json")
    assert files.list("part") == ["zarr.json"]


def test_many_threads_may_write_one_file(files):
    def write(number: int) -> None:
        files.write("zarr.json", b"%d" % number * 10_000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))
    assert files.read("zarr.json") in [b"%d" % number * 10_000 for number in range(40)]
    assert files.list("") == ["zarr.json"]


@pytest.mark.parametrize("key", ["/etc/passwd", "../zarr.json", "a/../../b", "a//b", "a/", "."])
def test_no_key_leads_out_of_the_store(files, key):
    for use in (files.read, files.size, files.remove, files.remove_tree, files.exists, files.list):
        with pytest.raises(AccessError, match=r"is no key"):
            use(key)
    for write in (files.write, files.create):
        with pytest.raises(AccessError, match=r"is no key"):
            write(key, b"")
    with pytest.raises(AccessError, match=r"is no key"):
        list(files.walk(key))


def test_a_refusal_is_an_error_of_tsstore_and_of_the_system():
    assert issubclass(AccessError, StoreError)
    assert issubclass(AccessError, OSError)


def test_a_path_is_a_directory(tmp_path):
    assert isinstance(open_files(tmp_path), LocalFiles)
    assert open_files(str(tmp_path)).location == str(tmp_path)
    assert open_files("s3/a:b").location == "s3/a:b"


def test_urls_are_told_from_paths():
    assert all(map(is_url, ["s3://bucket/run", "http://host/run", Path("s3://bucket/run")]))
    assert not any(map(is_url, ["run", "/data/run", "s3/a:b", Path("C:/run")]))


@pytest.mark.parametrize("path", ["http://host/run", "file:///run", Path("s3://bucket/run"), 3])
def test_what_is_neither_path_nor_object_store_is_refused(path):
    pytest.importorskip("obstore")
    with pytest.raises(NotAStoreError, match=r"expected a (local )?path"):
        open_files(path)


def test_without_obstore_a_url_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "tsstore.store.files.objects", raising=False)
    with pytest.raises(StoreError, match=r"needs the package obstore.*install tsstore\[s3\]"):
        open_files("s3://bucket/run.zarr")
