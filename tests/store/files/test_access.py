"""What cannot be read just now is told as that, never as damage, and tried again where it helps."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import children
import numpy as np
import pytest
from helpers import draw_batch, write_run
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app
from tsstore.errors import AccessError, DamageError, NotAStoreError
from tsstore.store.files import local
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.maintenance.compact import compact
from tsstore.store.maintenance.verify import verify

PART = "part-00000-00000"
LAYER = f"{PART}/layers/0001-fc.2"
FILES = {
    "the root": "zarr.json",
    "a part": f"{PART}/zarr.json",
    "a seal": f"{PART}/sealed/zarr.json",
    "a layer": f"{LAYER}/zarr.json",
    "an array": f"{LAYER}/states/zarr.json",
    "a chunk": f"{LAYER}/states/c/0/0",
    "checksums": f"{LAYER}/checksums/c/0",
    "a column": f"{PART}/samples/label/c/0",
}
CAUSES = [
    errno.EACCES, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT,
    errno.ENOMEM, errno.EREMOTEIO, errno.ECONNREFUSED, errno.ENOTCONN,
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("written") / "run.zarr"
    batches = [
        draw_batch(np.random.default_rng(seed), 5, columns={"label": np.arange(5)})
        for seed in range(3)
    ]
    write_run(path, batches, chunk_bytes=20)
    return path


@pytest.fixture
def path(written, tmp_path) -> Path:
    """Give a copy of one's own."""
    return Path(shutil.copytree(written, tmp_path / "run.zarr"))


@pytest.fixture
def failing(monkeypatch):
    """Give a function that lets the opening of files fail: of which, how, and how often."""
    monkeypatch.setattr(local, "_PAUSES", (0.0, 0.0))
    opening, tries = os.open, []

    def fail(name: str, cause: int, times: int = 1 << 30) -> list[str]:
        def open_or_fail(path, flags, *arguments, **options):
            if str(path).endswith(f"run.zarr/{name}") and not flags & os.O_CREAT:
                tries.append(str(path))
                if len(tries) <= times:
                    raise OSError(cause, os.strerror(cause), str(path))
            return opening(path, flags, *arguments, **options)

        monkeypatch.setattr(os, "open", open_or_fail)
        return tries

    return fail


def use_all(path: Path) -> None:
    """Open a run and read all of it."""
    store = tsstore.open(path)
    store.column("label")
    for layer in store:
        store[layer].decode()


@pytest.mark.parametrize(("file", "cause"), [
    *((file, errno.EACCES) for file in FILES.values()),
    *((FILES[name], cause) for name in ("the root", "a chunk") for cause in CAUSES[1:]),
])  # fmt: skip
def test_what_cannot_be_read_is_no_damage(path, failing, file, cause):
    failing(file, cause)
    with pytest.raises(AccessError) as caught:
        use_all(path)
    place, _, rest = str(caught.value).partition(" cannot be used: ")
    said, _, remedy = rest.partition("; ")
    assert (place, said) == (str(path / file), os.strerror(cause))
    assert "ulimit" in remedy if cause in (errno.EMFILE, errno.ENFILE) else remedy
    assert "permission" in remedy if cause == errno.EACCES else "copy" not in remedy


@pytest.mark.parametrize("file", ["the root", "an array", "a chunk"])
def test_an_analysis_of_what_cannot_be_read_is_no_damage(path, failing, file):
    failing(FILES[file], errno.EACCES)
    with pytest.raises(AccessError, match=r"cannot be used: Permission denied; get"):
        tsstore.analyze(path, scheduler="synchronous")


@pytest.mark.parametrize(("cause", "times"), [
    (errno.EINTR, 2), (errno.ESTALE, 2), (errno.ETIMEDOUT, 1), (errno.EIO, 1),
])  # fmt: skip
@pytest.mark.parametrize("file", [FILES["the root"], FILES["a chunk"]])
def test_what_passes_is_tried_again(path, failing, cause, times, file):
    tries = failing(file, cause, times)
    use_all(path)
    assert len(tries) > times


def test_a_second_input_error_is_one(path, failing):
    tries = failing(f"{PART}/zarr.json", errno.EIO)
    with pytest.raises(AccessError, match=r"Input/output error"):
        tsstore.open(path)
    assert len(tries) == 2


@pytest.mark.parametrize("cause", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_directory_that_cannot_be_listed_is_not_empty(path, monkeypatch, cause):
    # Of a part that is sealed, readers need not know what it holds.
    shutil.rmtree(path / PART / "sealed")
    listing = os.listdir

    def fail(directory):
        if str(directory).endswith(PART):
            raise OSError(cause, os.strerror(cause))
        return listing(directory)

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(AccessError, match=rf"{PART} cannot be used: {os.strerror(cause)}; "):
        tsstore.open(path)
    report = verify(path)
    assert not report.ok
    assert not report.errors
    assert report.unreadable


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_verify_goes_on_and_lists_what_cannot_be_read(path, failing, file):
    failing(file, errno.EACCES)
    report = verify(path)
    (finding,) = report.unreadable
    assert (report.errors, report.ok) == ((), False)
    assert (finding.severity, finding.file) == ("unreadable", file)
    assert finding.what == "Permission denied"
    assert finding.advice == "get the permission to read it, for this user"
    assert report.chunks >= 2
    assert "0 errors, 1 unreadable, " in str(report)


@pytest.mark.parametrize(("damage", "code"), [(False, 2), (True, 1)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_exit_code_tells_damage_from_what_cannot_be_read(path, failing, damage, code, options):
    failing(FILES["a chunk"], errno.EIO)
    if damage:
        (path / FILES["a column"]).unlink()
    result = CliRunner().invoke(app, ["verify", str(path), *options])
    assert result.exit_code == code
    if options:
        document = json.loads(result.stdout)
        kinds = sorted(finding["severity"] for finding in document["findings"])
        assert kinds == ["error"] * damage + ["unreadable"]
        assert document["ok"] is False
    else:
        assert f"unreadable: {FILES['a chunk']} (layer fc.2): Input/output error; " in result.stdout


def test_verify_of_a_place_that_cannot_be_read_is_an_error(path, monkeypatch):
    monkeypatch.setattr(os, "listdir", lambda _: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(AccessError, match=r"run\.zarr cannot be used: no; get the permission"):
        verify(path)


def test_compact_of_what_cannot_be_read_is_no_damage(path, failing, tmp_path):
    failing(FILES["a chunk"], errno.EIO)
    with pytest.raises(AccessError, match=r"was not compacted: .*Input/output error") as caught:
        compact(path, tmp_path / "out.zarr")
    assert not isinstance(caught.value, DamageError)


def test_what_is_not_there_is_damage_and_a_whole_store_that_is_not_is_none(path):
    store = tsstore.open(path)
    (path / FILES["a chunk"]).unlink()
    with pytest.raises(DamageError, match=r"c/0/0 is damaged: it is missing"):
        store["fc.2"].decode()
    path.rename(path.with_name("unmounted"))
    with pytest.raises(AccessError, match=r"run\.zarr is not there, as seen from .*; mount"):
        store["conv_1"].decode()
    with pytest.raises(AccessError, match=r"run\.zarr is not there"):
        raise LocalFiles(path).missing("zarr.json")
    with pytest.raises(NotAStoreError, match="found nothing there"):
        tsstore.open(path)


LIMITED = """
import resource, sys
import tsstore
from tsstore.store.files.local import LocalFiles
store = tsstore.open(sys.argv[1])
states = store["fc.2"]
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    states.decode()
except tsstore.AccessError as error:
    print(error)
"""


def test_a_process_with_too_many_open_files_is_told(path):
    child = children.run(LIMITED, path)
    assert child.returncode == 0, child.stderr
    assert "cannot be used: Too many open files; let this process have more" in child.stdout


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_a_part_that_is_a_file_is_noticed(path, content):
    write_run(
        path, [draw_batch(np.random.default_rng(0), 5)], part=PartAttributes(rank=1, world_size=2)
    )
    part = path / "part-00001-00000"
    part.rename(path.parent / "aside")
    part.write_bytes(content)
    with pytest.raises(DamageError, match=r"part-00001-00000 is damaged: found a file"):
        tsstore.open(path)
    with pytest.raises(DamageError, match=r"found a file, expected a directory"):
        tsstore.analyze(path, scheduler="synchronous")
    (finding,) = verify(path).errors
    assert (finding.file, finding.what) == (
        "part-00001-00000", "found a file, expected a directory"
    )  # fmt: skip
