"""What reading a run back finds, and what it does not complain of."""

from __future__ import annotations

import json
import shutil
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_batch, rewrite_attributes, start_part, stored_files, write_run

from tsstore.errors import FormatError, NotAStoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import read_attributes
from tsstore.store.maintenance import verify as verifying
from tsstore.store.maintenance.findings import Finding
from tsstore.store.maintenance.verify import verify
from tsstore.store.writing.part import create_seal, seal_part

ZEROTH, FIRST = "part-00000-00000", "part-00001-00000"
NOBODY = {"process": {}, "started": "2020-01-01T00:00:00+00:00"}


def batches(count: int = 3) -> list:
    columns = {"label": np.arange(5), "text": list("abcde")}
    positions = {"conv_1": [4, 4, 4, 4, 3]}
    rng = np.random.default_rng(0)
    return [draw_batch(rng, 5, positions=positions, columns=columns) for _ in range(count)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Two ranks, both closed."""
    path = tmp_path_factory.mktemp("written") / "run.zarr"
    for rank in range(2):
        part = PartAttributes(rank=rank, world_size=2)
        write_run(path, batches(), part=part, chunk_bytes=20)
    return path


@pytest.fixture
def path(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "run.zarr")


def cut_off(path: Path, part: str) -> None:
    """Let a part seem to have been written by a process that is gone, of which nothing is known."""
    (path / part / "sealed" / "zarr.json").unlink(missing_ok=True)
    rewrite_attributes(path, part, NOBODY)
    rewrite_attributes(path, f"{part}/commit", {"time": NOBODY["started"]})


def only(findings: tuple[Finding, ...]) -> Finding:
    (finding,) = findings
    return finding


def test_a_sound_run_has_no_findings(path):
    report = verify(path)
    files = [file for file in stored_files(path) if "c" in file.relative_to(path).parts]
    assert report.ok
    assert report.findings == ()
    assert (report.run, report.parts, report.layers, report.samples) == (str(path), 2, 4, 30)
    assert report.chunks == len(files) == 20
    assert report.bytes_read == sum(file.stat().st_size for file in files)
    assert str(report).endswith("30 samples: 0 errors, 0 notes")


@pytest.mark.parametrize("close", [True, False])
def test_an_empty_run_and_an_empty_part_are_sound(tmp_path, close):
    batch = draw_batch(np.random.default_rng(0), 0)
    writer = start_part(tmp_path, batch)
    assert verify(tmp_path).findings == ()
    if close:
        writer.seal()
    assert verify(tmp_path).ok
    assert verify(tmp_path).samples == 0


def test_progress_is_told_layer_by_layer(path):
    told = []
    verify(path, lambda *progress: told.append(progress))
    assert told == [(part, done, 4) for part in (ZEROTH, FIRST) for done in range(1, 5)]


def test_findings_come_in_the_same_order_however_many_threads_read(path, monkeypatch):
    for number, file in enumerate(sorted(path.glob("part-*/[ls]*/**/[z0-9]*"))):
        if file.is_file() and number % 3 == 0:
            file.write_bytes(file.read_bytes()[:-2])
        elif file.is_file() and number % 7 == 5:
            file.unlink()
    reports = []
    for count in (1, 2, 30):
        monkeypatch.setattr(LocalFiles, "readers", count)
        monkeypatch.setattr(verifying, "processors", lambda: 1)
        reports.append(verify(path))
    assert len(reports[0].errors) > 10
    assert reports[0] == reports[1] == reports[2]


def test_all_processors_read_one_large_array(tmp_path, monkeypatch):
    batch = draw_batch(np.random.default_rng(0), 4000, neurons={"a": 8})
    write_run(tmp_path, [batch], neurons={"a": 8}, chunk_bytes=40)
    monkeypatch.setattr(LocalFiles, "readers", 4)
    read, readers = LocalFiles.read, set()

    def note(files, key, *arguments, **keywords):
        if "/states/c/" in key:
            readers.add(threading.get_ident())
            time.sleep(0.001)
        return read(files, key, *arguments, **keywords)

    monkeypatch.setattr(LocalFiles, "read", note)
    assert verify(tmp_path).chunks > 100
    assert len(readers) == 4


def test_nothing_more_is_read_after_ctrl_c(tmp_path, monkeypatch):
    batch = draw_batch(np.random.default_rng(0), 4000, neurons={"a": 8, "b": 8})
    write_run(tmp_path, [batch], neurons={"a": 8, "b": 8}, chunk_bytes=8)
    read, reads = LocalFiles.read, []

    def note(files, key, *arguments, **keywords):
        reads.append(key)
        time.sleep(0.001)
        return read(files, key, *arguments, **keywords)

    def interrupt(*progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFiles, "read", note)
    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, interrupt)
    time.sleep(0.1)
    ended = len(reads)
    time.sleep(0.1)
    assert len(reads) == ended


@pytest.mark.parametrize(("file", "layer", "what"), [
    (f"{FIRST}/layers/0000-conv_1/states/c/0/0", "conv_1", "its bytes do not match their crc32c"),
    (f"{FIRST}/layers/0000-conv_1/positions/c/0", "conv_1", "its bytes do not match"),
    (f"{FIRST}/layers/0001-fc.2/checksums/c/0", "fc.2", "its bytes do not match"),
    (f"{FIRST}/layers/0001-fc.2/zarr.json", "", "not valid JSON"),
    (f"{FIRST}/layers/0001-fc.2/states/zarr.json", "fc.2", "not valid JSON"),
    (f"{FIRST}/layers/zarr.json", "", "not valid JSON"),
    (f"{FIRST}/samples/label/c/0", "", "its bytes do not match"),
    (f"{FIRST}/samples/text/zarr.json", "", "not valid JSON"),
    (f"{FIRST}/commit/zarr.json", "", "not valid JSON"),
    (f"{FIRST}/sealed/zarr.json", "", "not valid JSON"),
    (f"{FIRST}/zarr.json", "", "not valid JSON"),
])  # fmt: skip
@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_file_is_named(path, file, layer, what, missing):
    data = (path / file).read_bytes()
    if missing:
        (path / file).unlink()
    else:
        (path / file).write_bytes(data[:-9] + bytes([data[-9] ^ 16]) + data[-8:-1] + b"\xff")
    errors = verify(path).errors
    if missing and file.endswith("sealed/zarr.json"):
        assert errors == ()
        return
    finding = only(errors)
    assert (finding.severity, finding.file, finding.layer) == ("error", file, layer)
    assert finding.part == FIRST
    assert ("missing" if missing else what) in finding.what or "No such file" in finding.what
    assert finding.advice.startswith("restore")
    assert str(path) not in finding.what or "cannot be read" in finding.what


def test_all_that_is_wrong_is_found(path):
    files = [
        f"{ZEROTH}/layers/0000-conv_1/states/c/1/0", f"{ZEROTH}/layers/0000-conv_1/states/c/0/0",
        f"{ZEROTH}/layers/0001-fc.2/states/c/0/0", f"{ZEROTH}/samples/text/c/0",
        f"{FIRST}/commit/zarr.json", f"{FIRST}/layers/0000-conv_1/checksums/c/0",
        f"{FIRST}/layers/0000-conv_1/states/c/2/0", f"{FIRST}/samples/zarr.json",
    ]  # fmt: skip
    for file in files:
        (path / file).write_bytes(b"{}")
    found = [finding.file for finding in verify(path).errors]
    assert sorted(found) == sorted(files)


def test_a_chunk_of_another_place_is_found(path):
    states = path / ZEROTH / "layers" / "0000-conv_1" / "states" / "c"
    (states / "0" / "0").write_bytes((states / "1" / "0").read_bytes())
    finding = only(verify(path).errors)
    assert finding.file == f"{ZEROTH}/layers/0000-conv_1/states/c/0/0"
    assert finding.what == "its entries are not those that were committed"


def test_missing_chunks_are_counted_together(path):
    states = path / ZEROTH / "layers" / "0000-conv_1" / "states" / "c"
    for index in ("0", "1", "2"):
        (states / index / "0").unlink()
        (states / index).rmdir()
    assert only(verify(path).errors).what == "it is missing, and the 2 after it"


def test_a_record_that_claims_any_number_of_rows_is_soon_read(path):
    record = read_attributes(LocalFiles(path), f"{ZEROTH}/sealed")["record"]
    rows = 1 << 52
    record["samples"] = record["layers"]["0001-fc.2"]["states"]["rows"] = rows
    record["layers"]["0001-fc.2"]["states"]["tail_rows"] = rows % 10
    record["layers"] = {"0001-fc.2": record["layers"]["0001-fc.2"]}
    record["columns"] = {}
    rewrite_attributes(path, f"{ZEROTH}/sealed", {"record": record})
    found = {finding.file: finding.what for finding in verify(path).errors}
    assert "and the" in found[f"{ZEROTH}/layers/0001-fc.2/states/c/2/0"]
    assert found[f"{ZEROTH}/commit/zarr.json"].startswith("it holds commit 3, which does not go")
    assert len(found) < 6


def test_a_commit_after_the_seal_is_a_note(path):
    cut_off(path, FIRST)
    files = LocalFiles(path)
    seal_part(files, FIRST, "resumed", "another process")
    later = read_attributes(files, f"{FIRST}/commit")
    later["generation"] += 1
    rewrite_attributes(path, f"{FIRST}/commit", later)
    report = verify(path)
    assert report.ok
    assert only(report.notes).what == "0 samples were committed after the part was sealed, and " + (
        "do not count"
    )


@pytest.mark.parametrize("change", [{"generation": 1}, {"time": "another"}, {"layers": {}}])
def test_a_record_that_does_not_go_on_from_the_seal_is_an_error(path, change):
    rewrite_attributes(path, f"{FIRST}/commit", change)
    finding = only(verify(path).errors)
    assert finding.file == f"{FIRST}/commit/zarr.json"
    assert "does not go on from commit 3, the one that the seal froze" in finding.what


def test_a_seal_without_a_record_is_an_error_unless_it_is_empty(path):
    files = LocalFiles(path)
    batch = draw_batch(np.random.default_rng(0), 1)
    start_part(path, batch, part=PartAttributes(rank=2))
    part = path / "part-00002-00000"
    for folder in ("layers", "samples", "sample_checksums", "commit"):
        for file in stored_files(part / folder):
            file.unlink()
        for directory in sorted((part / folder).rglob("*"), reverse=True):
            directory.rmdir()
        (part / folder).rmdir()
    seal_part(files, part.name, "resumed", "another process")
    assert verify(path).findings == ()
    (path / FIRST / "commit" / "zarr.json").unlink()
    assert only(verify(path).errors).file == f"{FIRST}/commit/zarr.json"


@pytest.mark.parametrize("shape", [[0, 1], [1 << 60, 1], None, "x", [-1]])
def test_a_shape_that_is_not_what_was_committed_is_a_note(path, shape):
    file = path / FIRST / "layers" / "0000-conv_1" / "states" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"shape": shape}))
    report = verify(path)
    assert report.ok
    note = only(report.notes)
    assert note.file == f"{FIRST}/layers/0000-conv_1/states/zarr.json"
    assert note.advice == "tsstore repair puts it right"


def test_files_that_do_not_count_are_notes(path):
    leftover = f"{FIRST}/samples/label/zarr.json.0123456789abcdef.partial"
    foreign = [".DS_Store", f"{FIRST}/notes.txt", f"{FIRST}/layers/0000-conv_1/states/c/x"]
    for name in (leftover, "zarr.json.12.partial", *foreign):
        (path / name).write_bytes(b"?")
    (path / "part-00009-00000").mkdir()
    (path / "part-00009-00000" / "zarr.json.12.partial").write_bytes(b"{")
    report = verify(path)
    assert report.ok
    notes = {note.file: note.what for note in report.notes}
    assert all(notes.pop(name) == "it is not of the store" for name in foreign)
    assert set(notes) == {
        leftover, "zarr.json.12.partial", "part-00009-00000/zarr.json.12.partial",
    }  # fmt: skip


def test_many_foreign_files_are_counted(path):
    for number in range(25):
        (path / FIRST / f"{number:02d}.txt").write_bytes(b"")
    notes = verify(path).notes
    assert len(notes) == 11
    assert notes[-1].what == "it is not of the store; there are 14 more of this kind"


def test_what_came_after_the_last_commit_is_one_note(path):
    part = write_run(path, batches(1), part=PartAttributes(rank=2), close=False, chunk_bytes=20)
    for batch in batches(2):
        part.append(batch)
    cut_off(path, part.directory)
    note = only(verify(path).notes)
    assert note.file == part.directory
    assert "files are from after the last commit, such as" in note.what


def test_of_a_live_part_nothing_is_noted(path):
    part = write_run(path, batches(1), part=PartAttributes(rank=2), close=False, chunk_bytes=20)
    part.append(batches(1)[0])
    (path / part.directory / "x.partial").write_bytes(b"")
    assert verify(path).findings == ()


def test_states_with_bits_behind_the_last_neuron_are_an_error(tmp_path):
    batch = draw_batch(np.random.default_rng(0), 4)
    batch.layers["conv_1"].rows[2, 0] |= 64
    write_run(tmp_path, [batch])
    finding = only(verify(tmp_path).errors)
    assert (finding.layer, finding.what) == (
        "conv_1", "1 chunks have bits that are on after the last neuron",
    )  # fmt: skip


@pytest.mark.parametrize("wrong", [[4, 4, 4, 4, 4], [8, -1, 4, 4, 4], [0, 0, 0, 0, 0]])
def test_positions_that_are_not_those_of_the_rows_are_an_error(tmp_path, monkeypatch, wrong):
    batch = batches(1)[0]
    monkeypatch.setattr("tsstore.store.writing.batch.LayerBatch.check", lambda *arguments: None)
    batch.layers["conv_1"].positions[:] = wrong
    write_run(tmp_path, [batch], chunk_bytes=20)
    errors = verify(tmp_path).errors
    if len(set(wrong)) == 1:
        # As if all samples had the same number of rows.
        assert errors
        return
    assert only(errors).file == f"{ZEROTH}/layers/0000-conv_1"


def test_parts_of_one_step_have_the_same_layers_and_columns(path):
    batch = draw_batch(np.random.default_rng(0), 2, neurons={"fc.2": 13})
    write_run(path, [batch], part=PartAttributes(rank=2))
    what = {finding.what for finding in verify(path).errors}
    assert len(what) == 2
    assert any("layer conv_1 has no states in part-00002-00000" in text for text in what)
    assert any("no sample columns label, text" in text for text in what)


def test_parts_of_other_steps_may_have_others(path):
    batch = draw_batch(np.random.default_rng(0), 2, neurons={"fc.2": 13})
    write_run(path, [batch], part=PartAttributes(rank=2, step=1))
    assert verify(path).findings == ()


def test_a_part_may_never_have_met_a_layer_where_it_says_so(path):
    columns = {"label": [1, 2], "text": ["a", "b"]}
    batch = draw_batch(np.random.default_rng(0), 2, neurons={"fc.2": 13}, columns=columns)
    write_run(path, [batch], part=PartAttributes(rank=2, missing="empty"))
    assert verify(path).findings == ()
    rewrite_attributes(path, "part-00002-00000", {"missing": "zero"})
    assert only(verify(path).errors).what.startswith("missing is 'zero'")


def test_a_layer_of_a_name_that_its_directory_contradicts_is_an_error(path):
    rewrite_attributes(path, f"{FIRST}/layers/0001-fc.2", {"name": "conv_1"})
    assert "its name is 'conv_1', which its directory" in only(verify(path).errors).what


@pytest.mark.parametrize("column", ["label", "text"])
def test_a_column_without_its_name_is_an_error(path, column):
    file = path / FIRST / "samples" / column / "zarr.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"attributes": {}}))
    assert only(verify(path).errors).what.endswith(f"samples/{column}: name is None")


def test_a_damaged_root_is_found_and_the_parts_are_read(path):
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace("created", "createc"))
    report = verify(path)
    assert only(report.errors).file == "zarr.json"
    assert report.samples == 30


def test_what_is_no_run_is_no_report(path, tmp_path):
    with pytest.raises(NotAStoreError, match="is no tsstore run"):
        verify(tmp_path / "nowhere")
    document = json.loads((path / "zarr.json").read_bytes())
    document["attributes"]["tsstore"]["format"] = 2
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="upgrade tsstore"):
        verify(path)


def test_names_cannot_write_to_the_terminal(path):
    (path / "part-\x1b[2J").mkdir()
    (path / "part-\x1b[2J" / "zarr.json").write_bytes(b"{}")
    (path / "a\nerror: b").write_bytes(b"")
    report = verify(path)
    assert all(line.isprintable() for line in str(report).split("\n"))
    assert len(str(report).split("\n")) == 3
    assert json.loads(report.to_json())["findings"][0]["part"] == "part-\x1b[2J"


def test_the_report_is_a_json_document(path):
    (path / FIRST / "samples" / "label" / "c" / "0").unlink()
    report = verify(path)
    document = json.loads(report.to_json())
    assert document["ok"] is False
    assert (document["parts"], document["samples"]) == (2, 30)
    assert document["findings"] == [
        {
            "severity": "error", "part": FIRST, "layer": "", "what": "it is missing",
            "file": f"{FIRST}/samples/label/c/0", "advice": "restore the file from a copy",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
def test_one_chunk_is_held_by_each_thread(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(LocalFiles, "readers", threads)
    monkeypatch.setattr(verifying, "processors", lambda: 1)
    neurons = {"a": 800}
    rng = np.random.default_rng(0)
    drawn = [draw_batch(rng, 20_000, neurons=neurons) for _ in range(8)]
    write_run(tmp_path, drawn, neurons=neurons, chunk_bytes=1 << 20)
    del drawn
    tracemalloc.start()
    try:
        report = verify(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.bytes_read > 15 << 20
    assert peak < threads * 5 << 20


def test_a_seal_that_came_while_the_part_was_read_counts(path, monkeypatch):
    from tsstore.store.maintenance import verify as part_check

    cut_off(path, FIRST)
    files = LocalFiles(path)
    read = part_check.read_record

    def be_sealed_and_read(files, directory):
        if directory == FIRST and not files.exists(f"{FIRST}/sealed/zarr.json"):
            sealed = read(files, directory)
            create_seal(files, directory, sealed, "resumed", "another process")
        return read(files, directory)

    monkeypatch.setattr(part_check, "read_record", be_sealed_and_read)
    assert verify(path).findings == ()
    assert files.exists(f"{FIRST}/sealed/zarr.json")


def test_a_part_that_is_closed_while_it_is_read_is_sound(tmp_path, monkeypatch):
    from tsstore.store.maintenance import verify as part_check

    first, second = batches(2)
    writer = write_run(tmp_path, [first], close=False)
    read, ended = part_check.read_record, []

    def read_and_close(files, directory):
        record = read(files, directory)
        if not ended:
            writer.append(second)
            writer.seal()
            ended.append(directory)
        return record

    monkeypatch.setattr(part_check, "read_record", read_and_close)
    report = verify(tmp_path)
    assert report.findings == ()
    assert report.samples == 10
