from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import draw_batch, rewrite_attributes, write_run

from tsstore.errors import DamageError, FormatError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.documents import (
    create_group,
    dump,
    node_attributes,
    read_document,
    write_group,
)
from tsstore.store.format.record import ArrayCommit, CommitRecord, LayerCommit, Seal
from tsstore.store.reading import part as parts
from tsstore.store.reading.part import Part, committed_arrays, follows
from tsstore.store.reading.store import open_store

PART = "part-00000-00000"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "run.zarr"
    columns = {"label": np.arange(5), "Name": list("abcde")}
    batches = [draw_batch(np.random.default_rng(seed), 5, columns=columns) for seed in range(3)]
    write_run(path, batches, close=False)
    return path


@pytest.fixture
def path(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run.zarr")


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
    read = parts.read_record

    def be_sealed_and_read(files: LocalFiles, directory: str) -> CommitRecord:
        create_group(files, f"{PART}/sealed", seal.to_json())
        return read(files, directory)

    monkeypatch.setattr(parts, "read_record", be_sealed_and_read)
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
    assert Part.find(files, PART) == Part.open(files, PART)
    assert Part.find(files, "part-00001-00000") is None
    (path / "part-00001-00000").mkdir()
    (path / "part-00001-00000" / "zarr.json.12ab.partial").write_bytes(b"{")
    assert Part.find(files, "part-00001-00000") is None
    with pytest.raises(DamageError, match=r"part-00001-00000/zarr.json is .*missing"):
        Part.open(files, "part-00001-00000")


def test_a_part_that_lost_its_metadata_is_damaged(path):
    (path / PART / "zarr.json").unlink()
    with pytest.raises(DamageError, match=rf"{PART}/zarr.json is .*missing; restore"):
        Part.find(LocalFiles(path), PART)
    with pytest.raises(DamageError, match=rf"{PART}/zarr.json is .*missing"):
        open_store(path)


def test_a_part_that_lost_its_record_is_damaged(path):
    (path / PART / "commit" / "zarr.json").unlink()
    with pytest.raises(DamageError, match=rf"{PART}/commit/zarr.json is .*missing; restore"):
        open_store(path)


@pytest.mark.parametrize("name", ["part-A", "part-a b", "part-\n", "part-ü"])
def test_a_part_has_a_plain_directory(path, name):
    (path / name).mkdir()
    (path / name / "zarr.json").write_bytes((path / PART / "zarr.json").read_bytes())
    with pytest.raises(FormatError, match="is no part's directory"):
        open_store(path)


@pytest.mark.parametrize("ask", [
    lambda store: store.layers, lambda store: store["Conv.1"], lambda store: store.parts[0].layers,
])  # fmt: skip
def test_two_layers_of_one_name_are_refused(tmp_path, ask):
    neurons = {"Conv.1": 6, "conv.1": 6}
    write_run(tmp_path, [draw_batch(np.random.default_rng(0), 2, neurons=neurons)], neurons=neurons)
    assert open_store(tmp_path).layers == ("Conv.1", "conv.1")
    rewrite_attributes(tmp_path, f"{PART}/layers/0001-conv.1", {"name": "Conv.1"})
    with pytest.raises(FormatError, match=r"two layers (or columns )?are called 'Conv.1'"):
        list(ask(open_store(tmp_path)))


def test_a_layer_lies_where_its_name_says(path):
    rewrite_attributes(path, f"{PART}/layers/0001-fc.2", {"name": "conv_1"})
    store = open_store(path)
    assert store["conv_1"].rows == 15
    for ask in (lambda: store.layers, lambda: store["fc.2"], lambda: list(store.parts[0].layers)):
        with pytest.raises(FormatError, match=r"fc\.2: its name is 'conv_1', which its directory"):
            ask()


def test_a_column_lies_where_its_name_says(path):
    files = LocalFiles(path)
    for column, name in (("label", "other"), ("0001-name", "names")):
        at = f"{PART}/samples/{column}"
        attributes = node_attributes(at, {"name": name, "index": 0})
        document = read_document(files, at) | {"attributes": attributes}
        files.write(f"{at}/zarr.json", dump(document))
    store = open_store(path)
    with pytest.raises(FormatError, match="samples/label: its name is 'other', which its"):
        store.column("label")
    with pytest.raises(FormatError, match="samples/0001-name: its name is 'names', which its"):
        _ = store.columns


@pytest.mark.parametrize(("neurons", "row_bytes"), [(17, 3), (8, 1)])
def test_states_of_another_width_than_the_layer_says_are_refused(path, neurons, row_bytes):
    rewrite_attributes(path, f"{PART}/layers/0001-fc.2", {"neurons": neurons})
    with pytest.raises(
        FormatError, match=rf"fc.2/states: entries are .*expected uint8 \({row_bytes},"
    ):
        _ = open_store(path)["fc.2"]


def test_a_column_without_a_name_is_refused(path):
    column = path / PART / "samples" / "label" / "zarr.json"
    checksums = path / PART / "sample_checksums" / "label" / "zarr.json"
    column.write_bytes(
        checksums.read_bytes().replace(b"uint32", b"int64").replace(b"4096", b"16384")
    )
    with pytest.raises(FormatError, match=r"samples/label: name is None; expected text"):
        _ = open_store(path).column("label")


def record(generation: int, rows: int, positions: int | None = None, **columns: int):
    layer = LayerCommit(
        ArrayCommit(rows, tail_rows=rows),
        None if positions is None else ArrayCommit(positions, tail_rows=positions),
    )
    held = {name: ArrayCommit(number, tail_rows=number) for name, number in columns.items()}
    return CommitRecord(generation, generation, 5 * generation, "", {"0000-a": layer}, held)


def test_a_record_follows_itself_and_what_it_may_have_grown_from():
    first = record(1, 5, label=5)
    assert follows(first, first)
    assert follows(first, CommitRecord())
    assert follows(record(2, 10, label=10), first)
    assert follows(record(2, 5, label=10), first)
    assert follows(record(2, 10, 10, label=10), first)
    assert follows(record(3, 10, 10, label=10, text=10), first)


@pytest.mark.parametrize("later", [
    CommitRecord(), record(0, 10, label=10), record(1, 10, label=10), record(2, 4, label=10),
    record(2, 10, label=4), record(2, 10), replace(record(2, 10, label=10), samples=4),
    replace(record(2, 10, label=10), layers={}),
    replace(record(2, 5, label=10), layers={"0000-a": LayerCommit(ArrayCommit(5, 7, 5))}),
])  # fmt: skip
def test_a_record_does_not_follow_one_that_it_contradicts(later):
    assert not follows(later, record(1, 5, label=5))


def test_positions_that_were_there_stay():
    assert not follows(record(2, 10), record(1, 5, 5))
    assert follows(record(2, 10, 10), record(1, 5, 5))


def test_the_committed_arrays_are_those_of_the_record(part):
    arrays = committed_arrays(PART, part.record)
    assert [paths.values.removeprefix(f"{PART}/") for paths in arrays] == [
        "layers/0000-conv_1/states", "layers/0001-fc.2/states", "samples/label",
        "samples/0001-name",
    ]  # fmt: skip
    assert {commit.rows for commit in arrays.values()} == {15}


def test_a_sealed_part_is_not_read_again(part, path):
    create_group(part.files, f"{PART}/sealed", Seal(part.record, "x", "y", "z").to_json())
    sealed = part.refreshed()
    assert sealed.seal.why == "x"
    for file in (path / PART).rglob("zarr.json"):
        file.unlink()
    assert sealed.refreshed() is sealed
    with pytest.raises(DamageError):
        part.refreshed()
