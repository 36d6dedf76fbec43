"""Tidying up after processes that were stopped."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers import draw_batch, rewrite_attributes, rows_of, start_part, stored_files, write_run

from tsstore.errors import DamageError, NotAStoreError, StoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import read_attributes
from tsstore.store.maintenance.repair import repair
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import open_store
from tsstore.store.writing.part import seal_part

CLOSED, CUT, LATER = "part-00000-00000", "part-00001-00000", "part-00001-00001"
LONG_AGO = "2020-01-01T00:00:00+00:00"
LEFTOVERS = (
    f"{CUT}/layers/0000-conv_1/states/c/9/0.0123456789abcdef.partial",
    f"{CUT}/commit/zarr.json.0123456789abcdef.partial",
    "zarr.json.0123456789abcdef.partial",
    "part-00007-00000/zarr.json.0123456789abcdef.partial",
)


def batches(count: int = 3) -> list:
    columns = {"label": np.arange(5), "text": list("abcde")}
    rng = np.random.default_rng(0)
    positions = {"conv_1": [4, 4, 4, 4, 3]}
    return [draw_batch(rng, 5, positions=positions, columns=columns) for _ in range(count)]


def let_seem_gone(path: Path, part: str, process: dict | None = None) -> None:
    """Let a part seem to have been written long ago, by a process that cannot be asked."""
    rewrite_attributes(path, part, {"process": process or {}, "started": LONG_AGO})
    rewrite_attributes(path, f"{part}/commit", {"time": LONG_AGO})


def set_shape(path: Path, array: str, shape: list) -> None:
    file = path / array / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"shape": shape}))


@pytest.fixture
def path(tmp_path) -> Path:
    """A part that was closed, and one that was cut off, with what its process left."""
    path = tmp_path / "run.zarr"
    write_run(path, batches(), part=PartAttributes(rank=0, world_size=2), chunk_bytes=20)
    part = PartAttributes(rank=1, world_size=2)
    writer = write_run(path, batches(), part=part, chunk_bytes=20, close=False)
    for batch in batches():
        writer.append(batch)
    let_seem_gone(path, CUT)
    set_shape(path, f"{CUT}/layers/0000-conv_1/states", [38, 1])
    set_shape(path, f"{CUT}/layers/0000-conv_1/checksums", [1])
    set_shape(path, f"{CUT}/samples/label", [10])
    for name in LEFTOVERS:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"half")
    return path


def hashes(path: Path) -> dict[str, str]:
    """Return the hash of everything but the metadata of arrays, seals and leftovers."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in stored_files(path)
        if "c" in file.relative_to(path).parts or file.parent.name in ("commit", CLOSED, CUT)
        if not file.name.endswith(".partial")
    }


def test_a_run_that_was_cut_off_is_tidied_up(path):
    before = hashes(path)
    report = repair(path)
    assert report.run == str(path)
    assert report.sealed == (CUT,)
    assert set(report.reshaped) == {
        f"{CUT}/layers/0000-conv_1/states/zarr.json", f"{CUT}/samples/label/zarr.json",
        f"{CUT}/layers/0000-conv_1/checksums/zarr.json",
    }  # fmt: skip
    assert set(report.removed) == set(LEFTOVERS)
    assert hashes(path) == before
    assert not list(path.rglob("*.partial"))


def test_what_was_committed_is_there_afterwards(path):
    samples = open_store(path).samples
    repair(path)
    store = open_store(path)
    assert store.samples == samples == 30
    assert (store.status, store.parts[1].seal.why) == ("cut off", "repaired")
    for name in store:
        np.testing.assert_array_equal(store[name][:15], rows_of(batches(), name)[:15])
    report = verify(path)
    assert report.ok
    assert {finding.file for finding in report.findings} <= {CUT}


def test_a_plain_reader_sees_what_was_committed(path):
    repair(path)
    store = open_store(path)
    for part in store.parts:
        array = zarr.open_array(path / part.directory / "layers" / "0000-conv_1" / "states")
        np.testing.assert_array_equal(array[:], rows_of(batches(), "conv_1"))


def test_a_second_repair_does_nothing(path):
    repair(path)
    files = {file: file.read_bytes() for file in stored_files(path)}
    report = repair(path)
    assert (report.sealed, report.reshaped, report.removed) == ((), (), ())
    assert {file: file.read_bytes() for file in stored_files(path)} == files
    assert str(report) == f"{path}: nothing to repair"


def test_a_sound_run_needs_no_repair(tmp_path):
    write_run(tmp_path, batches())
    files = {file: file.read_bytes() for file in stored_files(tmp_path)}
    report = repair(tmp_path)
    assert (report.sealed, report.reshaped, report.removed) == ((), (), ())
    assert {file: file.read_bytes() for file in stored_files(tmp_path)} == files


def test_what_a_process_showed_after_its_part_was_sealed_is_taken_back(path):
    files = LocalFiles(path)
    seal_part(files, CUT, "resumed", "another process")
    sealed = read_attributes(files, f"{CUT}/sealed")["record"]
    later = {**sealed, "generation": sealed["generation"] + 1}
    rewrite_attributes(path, f"{CUT}/commit", later)
    for layer, shape in (("0000-conv_1", [4000, 1]), ("0001-fc.2", [5000, 2])):
        set_shape(path, f"{CUT}/layers/{layer}/states", shape)
        set_shape(path, f"{CUT}/layers/{layer}/checksums", [77])
    before = hashes(path)
    report = repair(path)
    assert report.sealed == ()
    assert len(report.reshaped) == 5
    assert hashes(path) == before
    states = zarr.open_array(path / CUT / "layers" / "0001-fc.2" / "states")
    assert states.shape == (15, 2)
    np.testing.assert_array_equal(states[:], rows_of(batches(), "fc.2"))
    assert repair(path).reshaped == ()


def test_a_layer_that_no_commit_names_shows_nothing(path):
    drawn = draw_batch(np.random.default_rng(0), 5, neurons={"late": 9})
    writer = start_part(path, drawn, neurons={"late": 9}, part=PartAttributes(rank=1))
    writer.append(drawn)
    let_seem_gone(path, LATER)
    set_shape(path, f"{LATER}/layers/0000-late/states", [5, 2])
    assert f"{LATER}/layers/0000-late/states/zarr.json" in repair(path).reshaped
    assert zarr.open_array(path / LATER / "layers" / "0000-late" / "states").shape == (0, 2)


def test_attributes_of_the_users_own_stay(path):
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group[f"{CUT}/samples/label"].attrs["unit"] = "1"
    assert f"{CUT}/samples/label/zarr.json" in repair(path).reshaped
    array = zarr.open_array(path / CUT / "samples" / "label")
    assert array.attrs["unit"] == "1"
    assert array.shape == (15,)
    assert open_store(path).column("label").tolist() == [*range(5)] * 6


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_live_part_is_refused_and_nothing_is_done(path, where):
    writer = write_run(path, batches(1), part=PartAttributes(rank=1), close=False)
    if where == "elsewhere":
        process = {"host": "node-\x1b7", "pid": 123, "started": None}
        rewrite_attributes(path, writer.directory, {"process": process})
    files = {file: file.read_bytes() for file in stored_files(path)}
    process = f"{os.getpid()} on" if where == "here" else r"123 on node-\\x1b7"
    with pytest.raises(StoreError, match=rf"{LATER} is being written by process {process}"):
        repair(path)
    with pytest.raises(StoreError, match=r"last commit \d+ s ago; nothing was repaired: stop the"):
        repair(path)
    assert {file: file.read_bytes() for file in stored_files(path)} == files
    let_seem_gone(path, LATER)
    assert repair(path).sealed == (CUT, LATER)


def test_files_that_are_not_of_the_store_stay(path):
    for name in ("mine.txt", f"{CUT}/mine.txt"):
        (path / name).write_bytes(b"mine")
    (path / "downloads").mkdir()
    (path / "downloads" / "x.partial").write_bytes(b"mine")
    assert not any("mine" in name or "downloads" in name for name in repair(path).removed)
    assert (path / CUT / "mine.txt").read_bytes() == b"mine"
    assert (path / "downloads" / "x.partial").read_bytes() == b"mine"


def test_a_damaged_run_is_not_repaired(path):
    (path / CUT / "commit" / "zarr.json").write_bytes(b"{")
    with pytest.raises(DamageError, match="restore the file from a copy"):
        repair(path)
    assert all((path / name).exists() for name in LEFTOVERS)


def test_a_place_that_cannot_be_written_to_is_an_error_of_the_store(path, monkeypatch):
    def refuse(files, key, data):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFiles, "write", refuse)
    with pytest.raises(StoreError, match=r"cannot be repaired \(.*denied\); what was committed is"):
        repair(path)


def test_what_is_no_run_is_not_repaired(tmp_path):
    with pytest.raises(NotAStoreError):
        repair(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_the_report_says_what_was_done(path):
    report = repair(path)
    lines = str(report).splitlines()
    assert lines[0] == f"sealed {CUT}"
    assert lines[-1] == f"{path}: 1 part sealed, 3 arrays reshaped, 4 files removed"
    assert json.loads(report.to_json())["removed"] == list(report.removed)
