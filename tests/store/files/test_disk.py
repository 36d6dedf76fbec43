from __future__ import annotations

from pathlib import Path

import pytest

from tsstore.store.files.local import LocalFiles

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
