from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import create_at_once

from tsstore.errors import AccessError, DamageError
from tsstore.store.files import local
from tsstore.store.files.local import LocalFiles


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
def test_a_missing_directory_is_made(tmp_path, durable):
    files = LocalFiles(tmp_path / "a" / "run.zarr", durable)
    files.write("part/layers/zarr.json", b"old")
    files.create("part/samples/zarr.json", b"new")
    files.sync()
    assert (tmp_path / "a/run.zarr/part/layers/zarr.json").read_bytes() == b"old"
    assert os.stat(tmp_path / "a/run.zarr/part/layers/zarr.json").st_mode & 0o111 == 0
    assert no_leftovers(files)


def test_without_hard_links_one_creator_still_wins(files, monkeypatch):
    monkeypatch.setattr(os, "link", failing(PermissionError("no hard links here")))
    create_at_once(files, "zarr.json")
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


def test_a_leftover_that_cannot_be_removed_hides_no_error(files, monkeypatch):
    files.write("zarr.json", b"old")
    monkeypatch.setattr(os, "replace", failing(OSError(28, "no space left on device")))
    monkeypatch.setattr(os, "unlink", failing(OSError(5, "input/output error")))
    with pytest.raises(OSError, match=r"no space left"):
        files.write("zarr.json", b"new")
    files.create("sealed.json", b"done")
    assert files.read("zarr.json") == b"old"
    assert files.read("sealed.json") == b"done"


def test_a_name_left_by_a_killed_process_stands_in_nobodys_way(files, monkeypatch):
    # Containers give the same process number again and again: it must not be in the name.
    files.write("zarr.json", b"")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    watched = [WatchedFiles(files.root), WatchedFiles(files.root)]
    for _ in range(50):
        for one in watched:
            one.write("zarr.json", b"a")
    seen = [path for one in watched for operation, path in one.steps if operation == "open"]
    assert len(set(seen)) == len(seen) == 100
    assert {path.parent for path in seen} == {files.root}


def test_a_sync_that_failed_is_done_again(tmp_path, monkeypatch):
    files = LocalFiles(tmp_path / "run.zarr", durable=True)
    files.write("part/zarr.json", b"")
    synced: list[Path] = []
    monkeypatch.setattr(local, "sync_directory", failing(OSError(5, "input/output error")))
    with pytest.raises(OSError, match=r"input/output"):
        files.sync()
    monkeypatch.setattr(local, "sync_directory", synced.append)
    files.sync()
    assert set(synced) == {tmp_path, tmp_path / "run.zarr", tmp_path / "run.zarr" / "part"}
    files.sync()
    assert len(synced) == 3


def test_a_directory_is_synced_after_its_file_took_its_name(tmp_path, monkeypatch):
    files = WatchedFiles(tmp_path)
    replace = os.replace

    def sync_and_replace(source: Path, target: Path) -> None:
        files.sync()
        replace(source, target)

    monkeypatch.setattr(os, "replace", sync_and_replace)
    files.write("zarr.json", b"")
    assert files.operations == WRITE
    files.sync()
    assert files.steps[-1] == ("sync_directory", tmp_path)


def test_what_is_removed_is_synced_and_not_missed(tmp_path, monkeypatch):
    files = LocalFiles(tmp_path / "run.zarr", durable=True)
    files.write("part/layers/zarr.json", b"")
    files.write("zarr.json", b"")
    files.sync()
    synced: list[Path] = []
    monkeypatch.setattr(local, "sync_directory", synced.append)
    files.remove("zarr.json")
    files.sync()
    assert synced == [files.root]
    files.write("part/samples/zarr.json", b"")
    files.remove_tree("part")
    files.sync()
    assert synced == [files.root] * 2


def test_a_directory_that_went_away_is_made_again(files):
    for _ in range(2):
        files.write("part/layers/a/c/0/0", b"chunk")
        assert files.read("part/layers/a/c/0/0") == b"chunk"
        LocalFiles(files.root).remove_tree()


def test_reading_ends_whatever_lies_there(files):
    files.write("zarr.json", b"")
    os.mkfifo(files.root / "pipe")
    (files.root / "device").symlink_to("/dev/zero")
    with open(files.root / "huge", "wb") as huge:
        huge.truncate(1 << 40)
    for name in ("pipe", "device", "huge", ""):
        with pytest.raises(DamageError, match=rf"{name} is damaged: (found|\d+ bytes, ex)"):
            files.read(name)
    assert files.read("huge", (1 << 30, 2)) == bytes(2)
    with pytest.raises(DamageError, match=r"1073741824 bytes, expected at most 1048576; restore"):
        files.read("huge", (0, 1 << 30), most=1 << 20)


def test_a_file_cut_while_it_is_read_is_no_shorter_range(files, monkeypatch):
    files.write("shard", b"12")
    fstat = os.fstat
    monkeypatch.setattr(
        os, "fstat", lambda file: SimpleNamespace(st_mode=fstat(file).st_mode, st_size=5)
    )
    with pytest.raises(DamageError, match=r"cut short"):
        files.read("shard", (0, 5))


def test_what_cannot_be_asked_is_an_error_of_tsstore(files, monkeypatch):
    files.write("part/zarr.json", b"")
    monkeypatch.setattr(os, "lstat", failing(PermissionError(13, "permission denied")))
    with pytest.raises(AccessError, match=r"run\.zarr/part/zarr\.json cannot be used: .*denied"):
        files.exists("part/zarr.json")
    monkeypatch.undo()
    monkeypatch.setattr(os, "listdir", failing(OSError(5, "input/output error")))
    with pytest.raises(AccessError, match=r"run\.zarr/part cannot be used: .*input/output"):
        files.list("part")


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


@pytest.fixture
def outside(tmp_path):
    """A directory beside the store, to which links in it lead."""
    (tmp_path / "outside" / "part").mkdir(parents=True)
    for name in ("zarr.json", "part/zarr.json"):
        (tmp_path / "outside" / name).write_bytes(b"private")
    return tmp_path / "outside"


@pytest.fixture(params=["outside", "elsewhere in the store", "nowhere"])
def planted(request, files, outside):
    """Links to a directory and to a file, where a store's own should be."""
    files.write("own/part/zarr.json", b"own")
    files.write("own/zarr.json", b"own")
    targets = {"outside": outside, "elsewhere in the store": files.root / "own"}
    target = targets.get(request.param, outside / "nowhere")
    (files.root / "directory").symlink_to(target)
    (files.root / "file").symlink_to(target / "zarr.json")
    return files


@pytest.mark.parametrize("key", ["file", "directory/zarr.json", "directory/part/zarr.json"])
def test_no_link_is_read_through(planted, key):
    for read in (planted.read, planted.size, lambda key: planted.read(key, (0, 1))):
        with pytest.raises(DamageError, match=r"found a symbolic link"):
            read(key)


def test_no_link_is_looked_or_written_through(planted, outside):
    for look in (planted.list, lambda key: planted.exists(f"{key}/part"), planted.read):
        with pytest.raises(DamageError, match=r"found a symbolic link"):
            look("directory")
    for key in ("directory/zarr.json", "directory/part/zarr.json", "directory/new/zarr.json"):
        for write in (planted.write, planted.create):
            with pytest.raises(DamageError, match=r"found a symbolic link"):
                write(key, b"planted")
    assert (outside / "zarr.json").read_bytes() == b"private"
    assert sorted(os.listdir(outside)) == ["part", "zarr.json"]


def test_links_are_walked_past_and_removed_themselves(planted, outside):
    assert list(planted.walk()) == ["directory", "file", "own/part/zarr.json", "own/zarr.json"]
    with pytest.raises(DamageError, match=r"found a symbolic link"):
        list(planted.walk("directory"))
    assert planted.exists("directory")
    planted.write("file", b"in the link's place")
    planted.remove("directory")
    planted.remove_tree()
    assert not planted.root.exists()
    assert (outside / "zarr.json").read_bytes() == b"private"
    assert (outside / "part" / "zarr.json").read_bytes() == b"private"


def test_the_root_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run.zarr").symlink_to(tmp_path / "disk")
    files = LocalFiles(tmp_path / "run.zarr")
    files.write("part/zarr.json", b"here")
    assert files.read("part/zarr.json") == b"here"
    assert (tmp_path / "disk/part/zarr.json").exists()
    files.remove_tree()
    files.sync()
    assert files.root.is_symlink()
    assert files.list("") == []


def test_a_very_deep_directory_is_walked_and_removed(files):
    path = files.root
    path.mkdir()
    for _ in range(1100):
        path = path / "a"
        path.mkdir()
    assert list(files.walk()) == []
    files.remove_tree()
    assert not files.root.exists()


def test_of_a_tree_removed_by_half_the_topmost_files_are_gone(files, monkeypatch):
    for key in ("zarr.json", "part/zarr.json", "part/layers/zarr.json"):
        files.write(key, b"")
    removed = []
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: (removed.append(path), unlink(path)))
    files.remove_tree()
    keys = [str(path.relative_to(files.root)) for path in removed]
    assert keys == ["zarr.json", "part/zarr.json", "part/layers/zarr.json"]


# The steps that change the disk.

WRITE = ["open", "write", "sync", "rename"]
CREATE = ["open", "write", "sync", "link", "unlink"]


class StoppedError(Exception):
    """What a step is stopped with."""


class WatchedFiles(LocalFiles):
    """Notes each step; stops before step number `stop`, or halfway through its bytes."""

    def __init__(self, root: Path, stop: int = -1, halfway: bool = False) -> None:
        super().__init__(root, durable=True)
        self.steps: list[tuple[str, Path]] = []
        self.stop = stop
        self.halfway = halfway

    def _step(self, operation, path, call, *arguments):
        self.steps.append((operation, path))
        if len(self.steps) - 1 == self.stop:
            if self.halfway and operation == "write":
                file, data = arguments
                call(file, data[: len(data) // 2])
            raise StoppedError
        return super()._step(operation, path, call, *arguments)

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _ in self.steps]


def test_each_step_of_a_write_is_seen_in_its_order(tmp_path):
    files = WatchedFiles(tmp_path)
    files.write("zarr.json", b"data")
    assert files.operations == WRITE
    assert files.steps[-1] == ("rename", tmp_path / "zarr.json")
    temporary = {path for operation, path in files.steps if operation != "rename"}
    assert len(temporary) == 1
    files.sync()
    assert files.steps[-1] == ("sync_directory", tmp_path)


def test_each_step_of_a_creation_is_seen_in_its_order(tmp_path):
    files = WatchedFiles(tmp_path / "run.zarr")
    files.create("part/zarr.json", b"data")
    assert files.operations == ["make_directory"] * 2 + CREATE
    assert files.steps[-2] == ("link", tmp_path / "run.zarr/part/zarr.json")
    files.sync()
    assert files.operations[-3:] == ["sync_directory"] * 3


def test_what_others_made_is_synced_with_a_creation(tmp_path):
    (tmp_path / "run.zarr/part").mkdir(parents=True)
    files = WatchedFiles(tmp_path / "run.zarr")
    files.create("part/zarr.json", b"data")
    files.sync()
    synced = {path for operation, path in files.steps if operation == "sync_directory"}
    assert synced == {tmp_path, tmp_path / "run.zarr", tmp_path / "run.zarr/part"}


def test_a_file_of_another_process_is_settled(tmp_path):
    LocalFiles(tmp_path, durable=False).write("part/zarr.json", b"data")
    files = WatchedFiles(tmp_path)
    files.settle("part/zarr.json")
    assert files.steps == [("sync", tmp_path / "part/zarr.json")]
    files.sync()
    assert {path for _, path in files.steps[1:]} == {tmp_path.parent, tmp_path, tmp_path / "part"}
    careless = LocalFiles(tmp_path, durable=False)
    careless.settle("part/zarr.json")
    assert careless.read("part/zarr.json") == b"data"


def test_each_step_of_a_removal_is_seen(tmp_path):
    files = WatchedFiles(tmp_path / "run.zarr")
    files.write("part/zarr.json", b"data")
    files.steps.clear()
    files.remove_tree()
    assert files.operations == ["unlink", "remove_directory", "remove_directory"]


def test_nothing_is_synced_where_it_was_not_asked_for(tmp_path):
    files = WatchedFiles(tmp_path / "run.zarr")
    files.durable = False
    files.write("part/zarr.json", b"data")
    files.create("part/sealed", b"data")
    files.sync()
    assert not {"sync", "sync_directory"} & set(files.operations)


@pytest.mark.parametrize("halfway", [False, True])
@pytest.mark.parametrize("stop", range(len(WRITE)))
def test_a_write_stopped_at_any_step_leaves_the_old_file(tmp_path, stop, halfway):
    LocalFiles(tmp_path).write("zarr.json", b"old")
    with pytest.raises(StoppedError):
        WatchedFiles(tmp_path, stop, halfway).write("zarr.json", b"new")
    files = LocalFiles(tmp_path)
    assert files.read("zarr.json") == b"old"
    assert files.list("") == ["zarr.json"]


@pytest.mark.parametrize("stop", range(len(CREATE)))
def test_a_creation_stopped_at_any_step_is_whole_or_not_there(tmp_path, stop):
    with pytest.raises(StoppedError):
        WatchedFiles(tmp_path, stop, halfway=True).create("zarr.json", b"new")
    files = LocalFiles(tmp_path)
    assert files.exists("zarr.json") == (CREATE[stop] == "unlink")
    assert not files.exists("zarr.json") or files.read("zarr.json") == b"new"


def test_what_the_system_writes_by_halves_is_written_whole(tmp_path):
    class SlowFiles(LocalFiles):
        def _step(self, operation, path, call, *arguments):
            if operation == "write":
                file, data = arguments
                arguments = (_Bytewise(file), data)
            return super()._step(operation, path, call, *arguments)

    files = SlowFiles(tmp_path)
    files.write("zarr.json", b"one after the other")
    files.write("empty", b"")
    assert files.read("zarr.json") == b"one after the other"
    assert files.read("empty") == b""


class _Bytewise:
    def __init__(self, file):
        self._file = file

    def write(self, data):
        return self._file.write(data[:1])
