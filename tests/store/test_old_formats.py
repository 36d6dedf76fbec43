"""Stores that earlier versions wrote, and what they hold, for ever."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import blocks, read

import tsstore
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.maintenance.repair import repair
from tsstore.store.maintenance.verify import verify
from tsstore.store.writing.resume import resume_part, resume_step

DATA = Path(__file__).parents[1] / "data"
FORMATS = [DATA / "format_1"]
STORES = {
    f"{folder.name}/{name}": answer
    for folder in FORMATS
    for name, answer in json.loads((folder / "answers.json").read_text("utf-8")).items()
}
FORMAT_1 = read("reference/format.md")


@pytest.fixture(params=STORES)
def name(request) -> str:
    return request.param


@pytest.fixture
def store(name):
    return tsstore.open(DATA / name)


@pytest.fixture
def answer(name):
    return STORES[name]


@pytest.fixture
def unsealed(tmp_path) -> Path:
    """A copy of what processes left that were killed."""
    return Path(shutil.copytree(DATA / "format_1" / "unsealed", tmp_path / "run"))


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_every_store_has_an_answer_and_all_together_are_small(folder):
    stores = {path.parent.name for path in folder.glob("*/zarr.json")}
    assert {f"{folder.name}/{name}" for name in stores} == {
        name for name in STORES if name.startswith(folder.name)
    }
    assert len(stores) >= 7
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000


def test_parts_and_samples_are_those_that_were_committed(store, answer):
    assert {part.directory: part.samples for part in store.parts} == answer["samples"]
    assert store.samples == sum(answer["samples"].values())
    assert store.repeated_samples == answer["repeated_samples"]


def test_sample_columns_are_what_was_recorded(store, answer):
    assert set(store.columns) == set(answer["columns"])
    for column, values in answer["columns"].items():
        found = store.column(column)
        kinds = {bool: "b", int: "iu", float: "f", str: "O"}
        assert found.dtype.kind in kinds[type(values[0])]
        np.testing.assert_array_equal(found, np.array(values, dtype=found.dtype))


def test_rows_are_those_that_were_recorded(store, answer):
    assert list(store) == list(answer["layers"])
    for layer, expected in answer["layers"].items():
        rows = store[layer][:]
        assert len(rows) == expected["rows"]
        assert hashlib.sha256(rows.tobytes()).hexdigest() == expected["sha256"]
        assert store[layer].read_positions().tolist() == expected["positions"]


def test_an_analysis_counts_what_numpy_counts(store, answer):
    analysis = tsstore.analyze(store, memory="64MiB", scheduler="synchronous", intervals=False)
    for layer, expected in answer["layers"].items():
        spectrum = analysis[layer].spectrum.to_dict()
        assert list(spectrum) == ["multiplicity", "incidence", "states"]
        assert list(spectrum.values()) == expected["multiplicity, incidence, states"]
        assert sum(k * n for k, _, n in zip(*spectrum.values(), strict=True)) == expected["rows"]


def test_all_that_was_committed_is_whole(name, answer):
    report = verify(DATA / name)
    assert report.errors == ()
    assert report.samples == sum(answer["samples"].values())
    assert report.chunks > 0


def test_the_reader_of_the_format_s_page_reads_the_same(name, answer):
    (code,) = blocks(FORMAT_1)
    names: dict = {}
    exec(compile(code, "docs/reference/format.md", "exec"), names)
    parts = list(names["read_run"](DATA / name))
    assert {part: samples for part, samples, *_ in parts if samples} == {
        part: samples for part, samples in answer["samples"].items() if samples
    }
    for layer, expected in answer["layers"].items():
        rows = b"".join(layers[layer][0].tobytes() for *_, layers, _ in parts if layer in layers)
        assert hashlib.sha256(rows).hexdigest() == expected["sha256"]


def test_a_seal_counts_and_what_was_committed_after_it_does_not():
    store = tsstore.open(DATA / "format_1" / "resumed")
    assert [part.seal.why for part in store.parts] == [
        "resumed by rank 0 of 2", "closed", "closed",
    ]  # fmt: skip
    assert store.finished
    assert store.steps == (7,)
    (note,) = verify(store.path).notes
    assert "3 samples were committed after the part was sealed" in note.what


def test_attributes_are_read():
    store = tsstore.open(DATA / "format_1" / "varying")
    assert store.parts[0].attributes.user == {"a": [1]}
    assert store.steps == ("epoch 3",)
    assert tsstore.open(DATA / "format_1" / "plain")["0"].attributes.threshold["given"] == 0.25
    compacted = tsstore.open(DATA / "format_1" / "compacted")
    assert compacted.run.compacted_from is not None
    assert [count for _, count in compacted.parts[0].attributes.compacted_from] == [12, 10, 10]


def test_parts_that_were_cut_off_can_be_resumed(unsealed):
    files = LocalFiles(unsealed)
    ids = STORES["format_1/unsealed"]["columns"]["id"]
    earlier = resume_step(files, PartAttributes(0, 2))
    assert earlier.committed_samples == len(ids) == 18
    assert earlier.missing([*ids, 18, 40]).tolist() == [18, 40]
    writer, _ = resume_part(files, PartAttributes(1, 2))
    assert writer.directory == "part-00001-00001"
    writer.seal()
    assert tsstore.open(unsealed).column("id").tolist() == ids
    assert all(part.seal for part in tsstore.open(unsealed).parts)


def test_parts_that_were_cut_off_can_be_repaired(unsealed, monkeypatch):
    monkeypatch.setattr("tsstore.store.maintenance.repair.LIVE", "none is")
    report = repair(unsealed)
    assert report.sealed == ("part-00000-00000", "part-00001-00000")
    assert [path.partition(".json.")[0] for path in report.removed] == [
        "part-00000-00000/commit/zarr"
    ]
    assert verify(unsealed).ok
    assert tsstore.open(unsealed).samples == 18
    assert repair(unsealed).sealed == ()
