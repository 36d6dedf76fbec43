from __future__ import annotations

import json
import os
import stat
import tempfile
import threading
import time
from pathlib import Path

import children
import pytest

from tsstore.analysis.execution import scratch
from tsstore.analysis.execution.scratch import (
    OWNER,
    local_parent,
    scratch_folder,
    scratch_parent,
)
from tsstore.errors import AnalysisError, TsstoreWarning


def test_a_scratch_folder_is_made_where_it_should_be_and_goes_with_all_that_is_in_it(tmp_path):
    with scratch_folder(str(tmp_path)) as folder:
        assert Path(folder).parent == tmp_path
        (Path(folder) / "records").write_bytes(b"some")
    assert list(tmp_path.iterdir()) == []
    with scratch_folder(None) as folder:
        assert Path(folder).parent == Path(tempfile.gettempdir())


def test_a_scratch_folder_goes_after_an_error_too(tmp_path):
    def fail() -> None:
        with scratch_folder(str(tmp_path)) as folder:
            (Path(folder) / "records").write_bytes(b"some")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_has_an_absolute_path_because_workers_are_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with scratch_folder(".") as folder:
        assert os.path.isabs(folder)
        assert Path(folder).parent == tmp_path


def test_a_scratch_folder_that_cannot_be_made_is_an_error_with_advice(tmp_path):
    (tmp_path / "file").touch()
    for parent in ("file", "gone"):
        with (
            pytest.raises(AnalysisError, match=f"{parent} cannot be used .*; pass another one as"),
            scratch_folder(str(tmp_path / parent)),
        ):
            pytest.fail("a folder was made")


@pytest.mark.parametrize("scratch", ["s3://", "hdfs://host/x", Path("s3://bucket/x"), "s3://b/?x"])
def test_other_urls_than_of_object_storage_are_refused(scratch):
    with pytest.raises(AnalysisError, match=r"scratch is (s3|hdfs):/.*; expected a folder on a fi"):
        scratch_parent(scratch)


def test_scratch_may_be_any_path_or_object_storage_or_none(tmp_path):
    for url in ("s3://bucket", "s3://bucket/a/b/", "az://container/x", "gs://bucket/x"):
        assert scratch_parent(url) == url
        assert local_parent(url) is None
    assert local_parent(tmp_path) == str(tmp_path)
    assert scratch_parent(tmp_path) == str(tmp_path)
    assert scratch_parent("s3/a:b") == "s3/a:b"
    assert scratch_parent(None) is None


def test_a_file_that_a_late_task_writes_while_the_folder_goes_does_not_keep_it(
    tmp_path, monkeypatch
):
    rmtree = scratch.shutil.rmtree
    late = threading.Event()

    def rmtree_and_a_late_file(folder: str, ignore_errors: bool) -> None:
        if late.is_set():
            rmtree(folder, ignore_errors=ignore_errors)
        late.set()

    monkeypatch.setattr(scratch.shutil, "rmtree", rmtree_and_a_late_file)
    with scratch_folder(str(tmp_path)) as folder:
        (Path(folder) / "records").write_bytes(b"some")
    assert late.is_set()
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from tsstore.analysis.execution.scratch import scratch_folder

with scratch_folder(sys.argv[1]) as folder:
    open(folder + "/1.records", "wb").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_kill(parent: Path) -> Path:
    before = set(parent.iterdir())
    assert children.run(KILLED, parent).returncode == -9
    (folder,) = set(parent.iterdir()) - before
    assert (folder / "1.records").exists()
    return folder


def test_the_next_analysis_removes_what_a_kill_has_left(tmp_path):
    left = left_by_a_kill(tmp_path)
    with scratch_folder(str(tmp_path)) as folder:
        assert not left.exists()
        assert list(tmp_path.iterdir()) == [Path(folder)]


def test_a_folder_in_use_stays_whoever_looks(tmp_path):
    with scratch_folder(str(tmp_path)) as folder:
        look = (
            "import sys; from tsstore.analysis.execution.scratch import *; remove_left(sys.argv[1])"
        )
        assert children.run(look, tmp_path).returncode == 0
        with scratch_folder(str(tmp_path)) as second:
            assert {Path(folder), Path(second)} == set(tmp_path.iterdir())


@pytest.mark.parametrize("owner", [{"host": "elsewhere", "system": "1 2"}, None])
def test_of_another_host_only_a_week_tells(tmp_path, owner):
    left = left_by_a_kill(tmp_path)
    if owner is None:
        (left / OWNER).unlink()
    else:
        (left / OWNER).write_text(json.dumps(owner))
    scratch.remove_left(str(tmp_path))
    assert left.exists()
    old = time.time() - 8.5 * scratch.DAY
    os.utime(left, (old, old))
    host = "elsewhere" if owner else "an unknown host"
    with pytest.warns(TsstoreWarning, match=f"{left.name} is removed: .* on {host}, .* for 8 days"):
        scratch.remove_left(str(tmp_path))
    assert not left.exists()


def test_nothing_else_is_touched(tmp_path):
    kept = tmp_path / "tsstore-scratch-notes"
    kept.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "tsstore-scratch-0123456789ab").symlink_to(target)
    (tmp_path / "tsstore-scratch-0123456789ac").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    for path in before:
        os.utime(path, (0, 0), follow_symlinks=False)
    with scratch_folder(str(tmp_path)):
        pass
    assert sorted(tmp_path.iterdir()) == before


def test_other_users_see_that_it_is_there_and_nothing_in_it(tmp_path):
    before = os.umask(0)
    try:
        with scratch_folder(tmp_path) as folder:
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
            assert stat.S_IMODE(os.stat(Path(folder) / "owner.json").st_mode) == 0o600
    finally:
        os.umask(before)
