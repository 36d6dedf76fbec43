from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from helpers import draw_batch, rewrite_attributes, stored_files, write_run

from tsstore.errors import (
    AccessError,
    DamageError,
    FormatError,
    NotAStoreError,
    StoreExistsError,
)
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import read_attributes
from tsstore.store.reading.store import open_store
from tsstore.store.run import begin_run, create_run, read_run, remove_run


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.zarr"


@pytest.fixture
def files(path):
    return LocalFiles(path)


@pytest.fixture
def run(path):
    """Write a run of three ranks."""
    for rank in range(3):
        batch = draw_batch(np.random.default_rng(rank), 5)
        write_run(path, [batch], part=PartAttributes(rank=rank, world_size=3))
    return open_store(path).run


def occupy(path, content: str) -> None:
    if content == "a file":
        path.write_text("mine")
    elif content == "a hierarchy":
        zarr.create_group(path, attributes={"mine": 1})
    else:
        path.mkdir()
        (path / "notes.txt").write_text("mine")


def contents(path) -> dict:
    return {file: file.read_bytes() for file in stored_files(path.parent)}


def test_a_run_says_who_made_it(files, path):
    run = create_run(files, {"torch": "2.4"})
    assert open_store(path).run == run
    assert set(run.software) == {"tsstore", "torch"}
    assert len(run.run_id) == 32


def test_a_run_s_root_is_read_without_its_parts(files):
    run = create_run(files, {"torch": "2.4"})
    assert read_run(files) == run
    script = "import sys, tsstore.store.run as run; assert run.read_run; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert not {b"tsstore.store.reading.store", b"tsstore.store.reading.part"} & set(
        imported.stdout.split()
    )


def test_a_run_has_the_id_of_its_job(files, path):
    assert create_run(files, run_id="slurm 4711").run_id == "slurm 4711"
    assert open_store(path).run.run_id == "slurm 4711"


def test_the_root_tells_itself_from_that_of_another_process(tmp_path):
    nonces = set()
    for name in "ab":
        create_run(LocalFiles(tmp_path / name), run_id="same")
        nonces.add(read_attributes(LocalFiles(tmp_path / name), "")["nonce"])
    assert len(nonces) == 2


@pytest.mark.parametrize("content", ["a run", "a file", "a hierarchy", "another directory"])
def test_a_path_that_is_taken_is_left_alone(files, path, content):
    if content == "a run":
        create_run(files)
    else:
        occupy(path, content)
    before = contents(path)
    with pytest.raises(StoreExistsError, match=r"run\.zarr exists already; .* choose another"):
        create_run(files)
    assert contents(path) == before


@pytest.mark.parametrize("create", [create_run, begin_run])
def test_what_a_killed_process_left_of_creating_does_not_matter(files, path, create):
    path.mkdir()
    (path / "zarr.json.00ff.partial").write_bytes(b"{")
    create(files)
    assert open_store(path).parts == ()


def test_below_a_file_there_is_no_run(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        AccessError, match=r"/file/run\.zarr cannot be created .*/file'.* another path"
    ):
        create_run(LocalFiles(tmp_path / "file" / "run.zarr"))


def test_of_many_processes_one_creates_the_run(files):
    def create(_: int) -> bool:
        try:
            create_run(files)
        except StoreExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


@pytest.mark.parametrize("resume", [False, True])
def test_many_ranks_begin_one_run(path, resume):
    def begin(_: int) -> object:
        return begin_run(LocalFiles(path), run_id="job 7", resume=resume, many=True)

    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(begin, range(8)))
    assert runs == [open_store(path).run] * 8
    assert runs[0].run_id == "job 7"


def test_a_job_that_resumes_joins_whatever_run_is_there(files, run):
    assert begin_run(files, resume=True) == run
    assert begin_run(files, run_id="another job", resume=True) == run


def test_a_job_that_resumes_may_find_nothing(files, path):
    assert begin_run(files, {"torch": "2.4"}, resume=True) == open_store(path).run
    assert "torch" in open_store(path).run.software


@pytest.mark.parametrize(("run_id", "ours"), [(None, "has no run_id"), ("job 8", "is run 'job 8'")])
def test_a_run_of_another_job_is_refused_with_both_ids(files, path, run_id, ours):
    create_run(files, run_id="job 7")
    before = contents(path)
    with pytest.raises(StoreExistsError, match=rf"exists already: it holds run 'job 7', .*{ours}"):
        begin_run(files, run_id=run_id)
    with pytest.raises(StoreExistsError, match=r"resume=True .*overwrite=True .* another path"):
        begin_run(files, run_id=run_id)
    with pytest.raises(StoreExistsError, match="all ranks of a job need the same run_id"):
        begin_run(files, run_id=run_id, many=True)
    assert contents(path) == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("content", ["a file", "a hierarchy", "another directory"])
def test_what_is_no_run_is_never_joined(files, path, content, resume):
    occupy(path, content)
    before = contents(path)
    with pytest.raises(StoreExistsError, match=r"exists already, but .* is .*no tsstore run"):
        begin_run(files, run_id="job", resume=resume)
    assert contents(path) == before


def test_a_root_is_checked_before_it_is_joined(files, path):
    create_run(files)
    rewrite_attributes(path, "", {"format": 2})
    with pytest.raises(FormatError, match="upgrade"):
        begin_run(files, resume=True)
    (path / "zarr.json").write_bytes(b"{")
    with pytest.raises(DamageError, match="not valid JSON"):
        begin_run(files, resume=True)


def test_a_run_is_removed_whole(files, path, run):
    (path / "zarr.json.00ff.partial").write_bytes(b"")
    remove_run(files)
    assert stored_files(path.parent) == []
    assert begin_run(files).run_id != run.run_id


def test_nothing_may_be_removed_too(files, path):
    remove_run(files)
    path.mkdir()
    remove_run(files)
    create_run(files)


@pytest.mark.parametrize("content", ["a hierarchy", "another directory", "a file of the user's"])
def test_only_runs_are_removed(files, path, content):
    if content == "a file of the user's":
        create_run(files)
        (path / "part-of-my-thesis\n").write_text("mine")
    else:
        occupy(path, content)
    before = contents(path)
    with pytest.raises(NotAStoreError) as caught:
        remove_run(files)
    assert caught.value.args[0].isprintable()
    assert contents(path) == before


def test_a_file_is_not_removed(files, path):
    occupy(path, "a file")
    remove_run(files)
    assert path.read_text() == "mine"
    with pytest.raises(StoreExistsError):
        create_run(files)


def test_a_run_that_cannot_be_read_is_not_removed(files, path, run):
    rewrite_attributes(path, "", {"format": 2})
    before = contents(path)
    with pytest.raises(FormatError, match="upgrade"):
        remove_run(files)
    assert contents(path) == before


@pytest.mark.parametrize("kept", range(1, 40, 4))
def test_a_run_that_is_removed_by_half_is_none_and_can_be_removed(
    files, path, run, monkeypatch, kept
):
    remove, removed = LocalFiles.remove, []

    def be_killed(self: LocalFiles, key: str) -> None:
        if len(removed) == kept:
            raise KeyboardInterrupt
        removed.append(key)
        remove(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "remove", be_killed)
        with pytest.raises(KeyboardInterrupt):
            remove_run(files)
    assert removed[0] == "zarr.json"
    with pytest.raises(NotAStoreError):
        open_store(path)
    with pytest.raises(StoreExistsError):
        begin_run(files, resume=True)
    remove_run(files)
    assert stored_files(path.parent) == []
