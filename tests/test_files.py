from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tsstore.errors import NotAStoreError
from tsstore.store import files as files_module
from tsstore.store.files import LocalFiles, open_files


@pytest.fixture
def files(tmp_path):
    return LocalFiles(tmp_path / "run.zarr", durable=False)


def failing(error):
    def fail(*arguments, **keywords):
        raise error

    return fail


def no_leftovers(files: LocalFiles) -> bool:
    return not list(files.root.rglob("*.partial"))


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_written_is_read(tmp_path, durable):
    files = LocalFiles(tmp_path / "a" / "run.zarr", durable)
    files.write("part/layers/zarr.json", b"old")
    files.write("part/layers/zarr.json", memoryview(b"new"))
    files.sync()
    assert files.read("part/layers/zarr.json") == b"new"
    assert files.exists("part/layers")
    assert files.list("part/layers") == ["zarr.json"]
    assert no_leftovers(files)


def test_names_are_sorted_and_absent_directories_are_empty(files):
    for name in ("b", "a", "c"):
        files.write(name, b"")
    assert files.list("") == ["a", "b", "c"]
    assert files.list("nothing") == []
    assert files.list("a") == []
    assert not files.exists("nothing")


def test_a_missing_file_is_not_found(files):
    with pytest.raises(FileNotFoundError):
        files.read("zarr.json")


def test_create_never_replaces(files):
    files.create("sealed/zarr.json", b"first")
    with pytest.raises(FileExistsError):
        files.create("sealed/zarr.json", b"second")
    assert files.read("sealed/zarr.json") == b"first"
    assert no_leftovers(files)


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_many_that_create_the_same_file_one_succeeds(files, monkeypatch, hard_links):
    if not hard_links:
        monkeypatch.setattr(os, "link", failing(PermissionError("no hard links here")))
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        try:
            files.create("zarr.json", b"%d" % number * 1000)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert sum(created) == 1
    assert files.read("zarr.json") == b"%d" % created.index(True) * 1000
    assert no_leftovers(files)


def test_without_hard_links_creation_is_still_exclusive(files, monkeypatch):
    monkeypatch.setattr(os, "link", failing(OSError(95, "operation not supported")))
    files.create("zarr.json", b"first")
    with pytest.raises(FileExistsError):
        files.create("zarr.json", b"second")
    assert files.read("zarr.json") == b"first"
    assert no_leftovers(files)


def test_a_link_whose_reply_was_lost_is_ones_own(files, monkeypatch):
    link = os.link

    def link_twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    files.create("zarr.json", b"mine")
    assert files.read("zarr.json") == b"mine"


@pytest.mark.parametrize("call", ["replace", "fsync", "link"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    files = LocalFiles(tmp_path, durable=True)
    files.write("zarr.json", b"old")
    monkeypatch.setattr(os, call, failing(OSError(28, "no space left on device")))
    if call != "link":
        with pytest.raises(OSError, match=r"no space"):
            files.write("zarr.json", b"new")
    with pytest.raises(OSError, match=r"no space|exists"):
        files.create("new.json" if call == "fsync" else "zarr.json", b"new")
    assert files.read("zarr.json") == b"old"
    assert files.list("") == ["zarr.json"]


def test_many_threads_may_write_one_file(files):
    def write(number: int) -> None:
        files.write("zarr.json", b"%d" % number * 10_000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))
    assert files.read("zarr.json") in [b"%d" % number * 10_000 for number in range(40)]
    assert no_leftovers(files)


def test_a_name_left_by_a_killed_process_stands_in_nobodys_way(files, monkeypatch):
    # Containers give the same process number again and again: it must not be in the name.
    files.write("zarr.json", b"")
    seen = []
    write_new = LocalFiles._write_new

    def look_and_write(self: LocalFiles, path: Path, data: bytes) -> None:
        seen.append(path)
        write_new(self, path, data)

    monkeypatch.setattr(LocalFiles, "_write_new", look_and_write)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    other = LocalFiles(files.root, durable=False)
    for _ in range(50):
        files.write("zarr.json", b"a")
        other.write("zarr.json", b"b")
    assert len(set(seen)) == 100
    assert {path.parent for path in seen} == {files.root}


def test_a_sync_that_failed_is_done_again(tmp_path, monkeypatch):
    files = LocalFiles(tmp_path / "run.zarr", durable=True)
    files.write("part/zarr.json", b"")
    synced: list[Path] = []
    monkeypatch.setattr(files_module, "_sync_directory", failing(OSError(5, "input/output error")))
    with pytest.raises(OSError, match=r"input/output"):
        files.sync()
    monkeypatch.setattr(files_module, "_sync_directory", synced.append)
    files.sync()
    assert set(synced) == {tmp_path, tmp_path / "run.zarr", tmp_path / "run.zarr" / "part"}
    files.sync()
    assert len(synced) == 3


def test_a_directory_is_synced_after_its_file_took_its_name(tmp_path, monkeypatch):
    files = LocalFiles(tmp_path, durable=True)
    replace = os.replace

    def replace_and_look(source: Path, target: Path) -> None:
        assert tmp_path not in files._dirty_directories
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_and_look)
    files.write("zarr.json", b"")
    assert files._dirty_directories == {tmp_path}


def test_reading_ends_whatever_lies_there(files):
    files.write("zarr.json", b"")
    os.mkfifo(files.root / "pipe")
    (files.root / "device").symlink_to("/dev/zero")
    with open(files.root / "huge", "wb") as huge:
        huge.truncate(1 << 40)
    for name in ("pipe", "device", "huge", ""):
        with pytest.raises(OSError, match=r"regular file"):
            files.read(name)


def test_a_relative_path_stays_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = LocalFiles("run.zarr")
    files.write("zarr.json", b"here")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert files.read("zarr.json") == b"here"
    assert pickle.loads(pickle.dumps(files)).read("zarr.json") == b"here"
    assert files.location == "run.zarr"


def test_urls_are_refused(tmp_path):
    with pytest.raises(NotAStoreError, match=r"s3://bucket/run.zarr: found a URL"):
        open_files("s3://bucket/run.zarr")
    assert open_files(tmp_path).location == str(tmp_path)
