from __future__ import annotations

import numpy as np
import pytest
from helpers import draw_batch, rewrite_attributes, write_run

from tsstore.errors import DamageError, FormatError
from tsstore.store import parts
from tsstore.store.documents import create_group, write_group
from tsstore.store.files import LocalFiles
from tsstore.store.parts import Part, has_begun
from tsstore.store.reader import open_store
from tsstore.store.record import CommitRecord, Seal

PART = "part-00000-00000"


@pytest.fixture
def path(tmp_path):
    columns = {"label": np.arange(5), "Name": list("abcde")}
    batches = [draw_batch(np.random.default_rng(seed), 5, columns=columns) for seed in range(3)]
    write_run(tmp_path / "run.zarr", batches, close=False)
    return tmp_path / "run.zarr"


@pytest.fixture
def part(path):
    return Part.open(LocalFiles(path), PART)


def test_a_part_knows_its_layers_and_columns(part):
    assert part.samples == 15
    assert part.step is None
    assert list(part.layers) == ["conv_1", "fc.2"]
    assert list(part.columns) == ["label", "Name"]
    assert part.layers["fc.2"].attributes.neurons == 13
    assert part.columns["Name"].read(0, 3).tolist() == ["a", "b", "c"]
    assert part.seal is None


def test_a_seal_counts_before_the_record(path, part):
    earlier = Seal(CommitRecord(generation=1), "resumed", "another process", "now")
    create_group(LocalFiles(path), f"{PART}/sealed", earlier.to_json())
    sealed = Part.open(LocalFiles(path), PART)
    assert sealed.record == earlier.record
    assert sealed.seal == earlier
    assert sealed.samples == 0


def test_a_seal_that_comes_while_the_record_is_read_counts(path, part, monkeypatch):
    seal = Seal(CommitRecord(generation=1), "resumed", "another process", "now")
    read = parts._read_record

    def be_sealed_and_read(files: LocalFiles, directory: str) -> CommitRecord:
        create_group(files, f"{PART}/sealed", seal.to_json())
        return read(files, directory)

    monkeypatch.setattr(parts, "_read_record", be_sealed_and_read)
    assert Part.open(LocalFiles(path), PART).record == seal.record


def test_a_part_without_layers_has_an_empty_record(tmp_path):
    files = LocalFiles(tmp_path)
    write_group(files, PART, part_attributes(tmp_path))
    assert Part.open(files, PART).record == CommitRecord()


def part_attributes(tmp_path) -> dict:
    write_run(tmp_path / "other.zarr", [draw_batch(np.random.default_rng(0), 1)])
    return open_store(tmp_path / "other.zarr").parts[0].attributes.to_json()


def test_a_part_that_has_begun_and_one_that_has_not(path):
    files = LocalFiles(path)
    assert has_begun(files, PART)
    assert not has_begun(files, "part-00001-00000")
    (path / "part-00001-00000").mkdir()
    (path / "part-00001-00000" / "zarr.json.12ab.partial").write_bytes(b"{")
    assert not has_begun(files, "part-00001-00000")


def test_a_part_that_lost_its_metadata_is_damaged(path):
    (path / PART / "zarr.json").unlink()
    with pytest.raises(DamageError, match=rf"{PART}/zarr.json is missing; restore"):
        has_begun(LocalFiles(path), PART)
    with pytest.raises(DamageError, match=rf"{PART}/zarr.json is missing"):
        open_store(path)


def test_a_part_that_lost_its_record_is_damaged(path):
    (path / PART / "commit" / "zarr.json").unlink()
    with pytest.raises(DamageError, match=rf"{PART}/commit/zarr.json is missing; restore"):
        open_store(path)


@pytest.mark.parametrize("name", ["part-A", "part-a b", "part-\n", "part-ü"])
def test_a_part_has_a_plain_directory(path, name):
    (path / name).mkdir()
    (path / name / "zarr.json").write_bytes((path / PART / "zarr.json").read_bytes())
    with pytest.raises(FormatError, match="is no part's directory"):
        open_store(path)


def test_two_layers_of_one_name_are_refused(path):
    rewrite_attributes(path, f"{PART}/layers/0001-fc.2", {"name": "conv_1"})
    with pytest.raises(FormatError, match="two layers or columns are called 'conv_1'"):
        _ = open_store(path).layers


@pytest.mark.parametrize(("neurons", "row_bytes"), [(17, 3), (8, 1)])
def test_states_of_another_width_than_the_layer_says_are_refused(path, neurons, row_bytes):
    rewrite_attributes(path, f"{PART}/layers/0001-fc.2", {"neurons": neurons})
    with pytest.raises(
        FormatError, match=rf"fc.2/states: entries are .*expected uint8 \({row_bytes},"
    ):
        _ = open_store(path).layers


def test_a_column_without_a_name_is_refused(path):
    column = path / PART / "samples" / "label" / "zarr.json"
    checksums = path / PART / "sample_checksums" / "label" / "zarr.json"
    column.write_bytes(
        checksums.read_bytes().replace(b"uint32", b"int64").replace(b"4096", b"16384")
    )
    with pytest.raises(FormatError, match=r"samples/label: name is None; expected text"):
        _ = open_store(path).columns
