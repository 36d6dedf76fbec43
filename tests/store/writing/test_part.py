from __future__ import annotations

import gc
import warnings
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock
from weakref import WeakSet

import numpy as np
import pytest
import xarray
import zarr
from helpers import draw_batch, rows_of, start_part, stored_files, write_run

from tsstore.errors import (
    AccessError,
    ColumnsError,
    DamageError,
    FormatError,
    PartSealedError,
    StoreError,
    StoreExistsError,
    TsstoreError,
)
from tsstore.store.chunked.writer import Compression
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.documents import create_group, read_attributes
from tsstore.store.format.paths import seal_path
from tsstore.store.format.record import CommitRecord, Seal
from tsstore.store.process import this_process
from tsstore.store.reading.store import open_store
from tsstore.store.run import create_run, remove_run
from tsstore.store.writing.batch import LayerWriter
from tsstore.store.writing.part import PartWriter, next_attempt

PART = "part-00000-00000"


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def batches(rng):
    return [
        draw_batch(
            rng,
            5,
            positions={"conv_1": 4, "fc.2": [2, 2, 2, 2, varying]},
            columns={"label": np.arange(5), "name": ["a", "", "ü", "d\0", "e"]},
        )
        for varying in (2, 2, 3, 0)
    ]


def seal_as_another_process(path, record: CommitRecord, why: str = "resumed") -> None:
    seal = Seal(record, why, "another process", "now")
    create_group(LocalFiles(path), seal_path(PART), seal.to_json())


def failing_at(monkeypatch, marker: str) -> None:
    """Let each write of a key that holds `marker` fail."""
    write = LocalFiles.write

    def fail(files: LocalFiles, key: str, data: bytes) -> None:
        if marker in key:
            raise OSError(28, "no space left on device")
        write(files, key, data)

    monkeypatch.setattr(LocalFiles, "write", fail)


def test_every_writer_gets_a_part_of_its_own(tmp_path):
    files = LocalFiles(tmp_path)
    create_run(files)
    with ThreadPoolExecutor(8) as pool:
        same_rank = list(pool.map(lambda _: PartWriter(files, PartAttributes()), range(8)))
    assert {part.attributes.attempt for part in same_rank} == set(range(8))
    other = PartWriter(files, PartAttributes(rank=3, world_size=4, step=100, attempt=77))
    assert other.directory == "part-00003-00000"
    assert other.attributes.attempt == 0
    assert len(open_store(tmp_path).parts) == 9


def test_a_part_that_never_began_does_not_count(tmp_path):
    files = LocalFiles(tmp_path)
    create_run(files)
    (tmp_path / PART).mkdir()
    (tmp_path / PART / "zarr.json.0123.partial").write_bytes(b"")
    assert next_attempt(files, 0) == 0
    assert PartWriter(files, PartAttributes(), attempt=0).directory == PART
    assert next_attempt(files, 0) == 1
    assert next_attempt(files, 1) == 0


def test_a_part_says_which_process_writes_it(tmp_path):
    files = LocalFiles(tmp_path)
    create_run(files)
    given = PartAttributes(process={"host": "elsewhere", "pid": 1, "started": None})
    assert PartWriter(files, given).attributes.process == this_process()
    assert open_store(tmp_path).parts[0].attributes.process == this_process()


def test_a_first_part_has_none_before_it(tmp_path):
    files = LocalFiles(tmp_path)
    create_run(files)
    PartWriter(files, PartAttributes(), attempt=0)
    PartWriter(files, PartAttributes(rank=1), attempt=0)
    with pytest.raises(StoreExistsError, match=rf"{PART} exists already: rank 0 has .*resume=True"):
        PartWriter(files, PartAttributes(), attempt=0)
    assert PartWriter(files, PartAttributes()).directory == "part-00000-00001"
    with pytest.raises(StoreExistsError, match="part-00000-00001 exists already: rank 0"):
        PartWriter(files, PartAttributes(), attempt=0)
    assert len(open_store(tmp_path).parts) == 3


def test_an_attempt_that_is_given_is_that_or_none(tmp_path):
    files = LocalFiles(tmp_path)
    create_run(files)
    assert PartWriter(files, PartAttributes(), attempt=0).attributes.attempt == 0
    assert PartWriter(files, PartAttributes(), attempt=1).attributes.attempt == 1
    for taken in (0, 1):
        with pytest.raises(StoreExistsError, match="part-00000-00001 exists already"):
            PartWriter(files, PartAttributes(), attempt=taken)
    assert len(open_store(tmp_path).parts) == 2


def test_of_many_that_want_the_same_attempt_one_gets_it(tmp_path):
    files = LocalFiles(tmp_path)
    create_run(files)

    def begin(_: int) -> bool:
        try:
            PartWriter(files, PartAttributes(), attempt=0)
        except StoreExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, range(8))) == 1
    assert len(open_store(tmp_path).parts) == 1


def test_the_users_attributes_are_stored(tmp_path):
    files = LocalFiles(tmp_path)
    create_run(files)
    PartWriter(files, PartAttributes(step="epoch 3", user={"lr": 1e-05, "note": "ü\ud800"}))
    (part,) = open_store(tmp_path).parts
    assert part.attributes.user == {"lr": 1e-05, "note": "ü\ud800"}
    assert part.step == "epoch 3"


@pytest.mark.parametrize("value", [float("nan"), np.float32(1), {1}])
def test_attributes_that_json_cannot_hold_are_refused_at_once(tmp_path, value):
    files = LocalFiles(tmp_path)
    create_run(files)
    with pytest.raises(FormatError, match="cannot be stored as JSON"):
        PartWriter(files, PartAttributes(user={"lr": value}))
    assert open_store(tmp_path).parts == ()


def test_empty_parts_are_legal(tmp_path):
    files = LocalFiles(tmp_path)
    create_run(files)
    part = PartWriter(files, PartAttributes())
    assert not part.started
    part.seal()
    store = open_store(tmp_path)
    assert (store.samples, store.layers, store.columns) == (0, (), ())
    assert store.finished


def test_what_was_appended_is_there_after_the_commit_and_not_before(tmp_path, batches):
    part = start_part(tmp_path, batches[0])
    for number, batch in enumerate(batches):
        assert open_store(tmp_path).samples == 5 * number
        part.append(batch)
        assert open_store(tmp_path).samples == 5 * number
        assert part.commit().samples == 5 * (number + 1)
    store = open_store(tmp_path)
    for name in ("conv_1", "fc.2"):
        np.testing.assert_array_equal(store[name][:], rows_of(batches, name))
    assert store.column("name").tolist() == ["a", "", "ü", "d\0", "e"] * 4


def test_records_do_not_go_back_where_a_commit_came_before_the_first_batch(tmp_path, batches):
    files = LocalFiles(tmp_path)
    create_run(files)
    part = PartWriter(files, PartAttributes())
    assert part.commit() == part.record == CommitRecord()
    store = open_store(tmp_path)
    part.define({"conv_1": LayerAttributes("conv_1", 6)}, {"conv_1": 4}, {})
    assert store.refresh().parts[0].record == CommitRecord()
    conv_1 = {"conv_1": batches[0].layers["conv_1"]}
    part.append(replace(batches[0], layers=conv_1, columns={}))
    assert part.commit().generation == 1
    assert store.refresh().samples == 5


def test_a_commit_without_news_writes_nothing(tmp_path, batches, monkeypatch):
    part = start_part(tmp_path, batches[0])
    part.append(batches[0])
    record = part.commit()
    monkeypatch.setattr(LocalFiles, "write", None)
    assert part.commit() is record
    assert part.record.generation == 1


@pytest.mark.parametrize("durable", [True, False])
def test_a_commit_writes_chunks_then_the_record_then_shapes(
    tmp_path, batches, monkeypatch, durable
):
    part = start_part(tmp_path, batches[2], durable=durable)
    part.append(batches[2])
    done: list[str] = []
    write, sync = LocalFiles.write, LocalFiles.sync
    monkeypatch.setattr(
        LocalFiles, "write", lambda self, key, data: (done.append(key), write(self, key, data))
    )
    monkeypatch.setattr(LocalFiles, "sync", lambda self: (done.append("sync"), sync(self)))
    part.commit()
    record = done.index(f"{PART}/commit/zarr.json")
    assert done[record - 1] == done[record + 1] == "sync"
    chunks = {index for index, key in enumerate(done) if "/c/" in key}
    shapes = {index for index, key in enumerate(done) if key.endswith("s/zarr.json")}
    assert chunks
    assert max(chunks) < record < min(shapes)


def test_a_dead_layer_is_written(tmp_path, batches):
    silent = replace(batches[0].layers["conv_1"], rows=np.zeros((20, 1), dtype=np.uint8))
    batch = replace(batches[0], layers={**batches[0].layers, "conv_1": silent})
    write_run(tmp_path, [batch], chunk_bytes=8)
    chunks = tmp_path / PART / "layers" / "0000-conv_1" / "states" / "c"
    assert [file.relative_to(chunks).as_posix() for file in stored_files(chunks)] == [
        "0/0", "1/0", "2/0",
    ]  # fmt: skip
    assert not open_store(tmp_path)["conv_1"].decode().any()


def test_positions_are_stored_where_they_vary_only(tmp_path, batches):
    part = start_part(tmp_path, batches[0])
    part.append(batches[0])
    part.append(batches[1])
    assert part.commit().layers["0001-fc.2"].positions is None
    part.append(batches[2])
    commits = part.commit().layers
    assert commits["0000-conv_1"].positions is None
    assert commits["0001-fc.2"].positions.rows == 15
    states = open_store(tmp_path)["fc.2"]
    assert states.read_positions().tolist() == [2] * 14 + [3]
    assert states.positions is None


def test_a_layer_that_is_defined_late_has_no_rows_before(tmp_path, rng):
    first = draw_batch(rng, 4, neurons={"a": 3})
    later = draw_batch(rng, 2, neurons={"a": 3, "b": 9})
    part = start_part(tmp_path, first, neurons={"a": 3})
    part.append(first)
    part.define({"b": LayerAttributes("b", 9)}, {"b": 1}, {})
    part.append(later)
    part.seal()
    store = open_store(tmp_path)
    assert store.layers == ("a", "b")
    assert store["b"].read_positions().tolist() == [0, 0, 0, 0, 1, 1]
    np.testing.assert_array_equal(store["b"][:], later.layers["b"].rows)


def test_a_batch_without_samples_is_a_batch(tmp_path, rng, batches):
    part = start_part(tmp_path, batches[0])
    part.append(draw_batch(rng, 0, columns={"label": np.arange(0), "name": []}))
    assert part.commit().batches == 1
    part.append(batches[0])
    part.seal()
    np.testing.assert_array_equal(open_store(tmp_path)["fc.2"][:], batches[0].layers["fc.2"].rows)


@pytest.mark.parametrize("change", [
    lambda batch: {"layers": {"conv_1": batch.layers["conv_1"]}},
    lambda batch: {"layers": {**batch.layers, "other": batch.layers["conv_1"]}},
    lambda batch: {"layers": {**batch.layers, "fc.2": batch.layers["conv_1"]}},
    lambda batch: {"samples": 4},
    lambda batch: {"columns": {}},
    lambda batch: {"columns": {**batch.columns, "more": np.arange(5)}},
    lambda batch: {"columns": {**batch.columns, "label": np.arange(4)}},
    lambda batch: {"columns": {**batch.columns, "name": batch.columns["name"] + "\ud800"}},
])  # fmt: skip
def test_a_batch_that_does_not_fit_leaves_nothing_behind(tmp_path, batches, change):
    part = start_part(tmp_path, batches[0])
    part.append(batches[0])
    with pytest.raises((StoreError, ColumnsError)):
        part.append(replace(batches[1], **change(batches[1])))
    part.append(batches[2])
    part.seal()
    store = open_store(tmp_path)
    assert store.samples == 10
    np.testing.assert_array_equal(store["fc.2"][:], rows_of([batches[0], batches[2]], "fc.2"))


def test_after_a_batch_that_was_written_by_half_nothing_is_committed(
    tmp_path, batches, monkeypatch
):
    part = start_part(tmp_path, batches[0], chunk_bytes=8)
    part.append(batches[0])
    part.commit()
    failing_at(monkeypatch, "0001-fc.2/states/c")
    with pytest.raises(OSError, match="no space left"):
        part.append(batches[1])
    monkeypatch.undo()
    for action in (lambda: part.append(batches[2]), part.commit, part.seal):
        with pytest.raises(StoreError, match=f"{PART}: a batch could not be written whole"):
            action()
    store = open_store(tmp_path)
    assert store.samples == 5
    np.testing.assert_array_equal(store["fc.2"][:], batches[0].layers["fc.2"].rows)


@pytest.mark.parametrize("marker", ["/c/", "commit/", "states/zarr.json", "label/zarr.json"])
def test_a_commit_that_failed_may_be_tried_again(tmp_path, batches, monkeypatch, marker):
    part = start_part(tmp_path, batches[0], chunk_bytes=1024)
    part.append(batches[0])
    part.commit()
    part.append(batches[1])
    failing_at(monkeypatch, marker)
    with pytest.raises(OSError, match="no space left"):
        part.commit()
    assert open_store(tmp_path).samples in (5, 10)
    monkeypatch.undo()
    part.append(batches[2])
    part.seal()
    store = open_store(tmp_path)
    np.testing.assert_array_equal(store["fc.2"][:], rows_of(batches[:3], "fc.2"))
    assert zarr.open_array(tmp_path / PART / "samples" / "label", mode="r").shape == (15,)


def test_a_closed_part_takes_no_more(tmp_path, batches):
    part = write_run(tmp_path, batches[:1])
    part.seal()
    with pytest.raises(PartSealedError, match=f"{PART} is sealed and takes no more batches"):
        part.append(batches[1])
    (read,) = open_store(tmp_path).parts
    assert read.seal.why == "closed"
    assert read.seal.record == part.record


def test_after_a_foreign_seal_no_commit_counts(tmp_path, batches):
    part = write_run(tmp_path, batches[:1], close=False)
    seal_as_another_process(tmp_path, part.record)
    part.append(batches[1])
    with pytest.raises(PartSealedError, match=rf"{PART} was sealed by another process"):
        part.commit()
    assert read_attributes(LocalFiles(tmp_path), f"{PART}/commit")["samples"] == 5
    with pytest.raises(PartSealedError, match="takes no more batches"):
        part.append(batches[2])
    part.seal()
    store = open_store(tmp_path)
    assert store.samples == 5
    assert not store.finished
    assert store.parts[0].seal.why == "resumed"


def test_a_seal_that_comes_during_a_commit_is_noticed_after_it(tmp_path, batches, monkeypatch):
    part = write_run(tmp_path, batches[:1], close=False)
    record, write = part.record, LocalFiles.write

    def write_and_be_sealed(files: LocalFiles, key: str, data: bytes) -> None:
        if key == f"{PART}/commit/zarr.json":
            seal_as_another_process(tmp_path, record)
        write(files, key, data)

    part.append(batches[1])
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "write", write_and_be_sealed)
        with pytest.raises(PartSealedError, match="sealed by another process"):
            part.commit()
    store = open_store(tmp_path)
    assert read_attributes(LocalFiles(tmp_path), f"{PART}/commit")["samples"] == 10
    assert store.samples == 5
    np.testing.assert_array_equal(store["fc.2"][:], batches[0].layers["fc.2"].rows)


def test_of_two_that_seal_one_does(tmp_path, batches, monkeypatch):
    part = write_run(tmp_path, batches[:1], close=False)
    seal_as_another_process(tmp_path, part.record)
    with pytest.raises(PartSealedError, match="sealed by another process"):
        part.seal()
    assert part.sealed
    assert open_store(tmp_path).parts[0].seal.by == "another process"


def test_a_seal_that_was_never_written_is_none(tmp_path, batches):
    part = write_run(tmp_path, batches[:1], close=False)
    (tmp_path / PART / "sealed").mkdir()
    part.append(batches[1])
    assert part.commit().samples == 10
    part.seal()
    assert open_store(tmp_path).finished


def test_after_a_failure_the_part_is_sealed_at_its_last_commit(tmp_path, batches, monkeypatch):
    part = start_part(tmp_path, batches[0], chunk_bytes=8)
    part.append(batches[0])
    part.commit()
    failing_at(monkeypatch, "0001-fc.2/states/c")
    with pytest.raises(OSError, match="no space left"):
        part.append(batches[1])
    part.fail("the writer failed: no space left")
    (read,) = open_store(tmp_path).parts
    assert read.seal.why == "the writer failed: no space left"
    assert read.seal.record == part.record
    assert read.samples == 5
    with pytest.raises(PartSealedError, match="takes no more batches"):
        part.append(batches[2])


@pytest.mark.parametrize("begun_anew", [True, False])
@pytest.mark.parametrize("end", ["commit", "close", "fail", "close without news"])
def test_a_run_that_was_deleted_is_not_written_any_more(tmp_path, batches, begun_anew, end):
    writer = write_run(tmp_path, batches[:1], close=False)
    remove_run(LocalFiles(tmp_path))
    if begun_anew:
        write_run(tmp_path, batches[1:2], close=False)
    there = snapshot(tmp_path)
    if end != "close without news":
        writer.append(batches[0])
    if end == "fail":
        writer.fail("a disk that is full")
    else:
        with pytest.raises(StoreError, match="was deleted, or begun anew by another process"):
            writer.commit() if end == "commit" else writer.seal()
    assert snapshot(tmp_path) == there
    assert writer.sealed


def test_where_it_cannot_be_known_whose_a_part_is_nothing_is_committed(tmp_path, batches):
    writer = write_run(tmp_path, batches[:1], close=False)
    (tmp_path / PART / "zarr.json").write_bytes(b"{")
    writer.append(batches[1])
    with pytest.raises(DamageError, match="not valid JSON"):
        writer.commit()


def snapshot(path) -> dict:
    return {file: file.read_bytes() for file in stored_files(path)}


def test_where_not_even_the_seal_can_be_written_the_part_stays_as_it_is(
    tmp_path, batches, monkeypatch
):
    part = write_run(tmp_path, batches[:1], close=False)
    for error in (OSError(28, "no space left on device"), AccessError("no such bucket")):
        part.sealed = False
        with monkeypatch.context() as patch:
            patch.setattr(LocalFiles, "create", Mock(side_effect=error))
            part.fail("the writer failed")
        assert part.sealed
    part.seal()
    (read,) = open_store(tmp_path).parts
    assert (read.seal, read.samples) == (None, 5)


@pytest.fixture
def layer_writers(monkeypatch) -> Collection[LayerWriter]:
    """The writers of layers that are made from now on, and are still held by anybody."""
    made: WeakSet[LayerWriter] = WeakSet()
    begin = LayerWriter.__init__

    def note(self, *arguments, **keywords):
        made.add(self)
        begin(self, *arguments, **keywords)

    monkeypatch.setattr(LayerWriter, "__init__", note)
    return made


def sealed_at_the_end(path, part, batch):
    part.seal()


def sealed_after_an_error(path, part, batch):
    part.fail("the writer failed")


def sealed_by_another(path, part, batch):
    seal_as_another_process(path, part.record)
    part.append(batch)
    with pytest.raises(PartSealedError, match="sealed by another process"):
        part.commit()


@pytest.mark.parametrize("end", [sealed_at_the_end, sealed_after_an_error, sealed_by_another])
def test_a_part_that_takes_no_more_holds_no_more(tmp_path, batches, layer_writers, end):
    part = write_run(tmp_path, batches[:1], close=False)
    record = part.record
    assert len(layer_writers) == len(batches[0].layers)
    end(tmp_path, part, batches[1])
    gc.collect()
    assert not layer_writers
    assert part.record is record
    assert part.fail("too late") is part.seal() is None
    with pytest.raises(PartSealedError, match="takes no more batches"):
        part.append(batches[2])
    assert open_store(tmp_path).samples == 5


def test_what_failed_commits_nothing_more_even_if_it_could_not_be_sealed(
    tmp_path, batches, monkeypatch
):
    part = write_run(tmp_path, batches[:1], close=False)
    part.append(batches[1])
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "create", Mock(side_effect=OSError(28, "no space left")))
        part.fail("the writer failed")
    with pytest.raises(PartSealedError, match="takes no more batches"):
        part.commit()
    assert open_store(tmp_path).samples == 5


def test_a_part_that_is_closed_does_not_fail(tmp_path, batches):
    part = write_run(tmp_path, batches[:1])
    part.fail("too late")
    assert open_store(tmp_path).parts[0].seal.why == "closed"


def test_zarr_and_xarray_see_what_was_committed_without_a_warning(tmp_path, batches):
    part = start_part(tmp_path, batches[0], chunk_bytes=8)
    part.append(batches[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert zarr.open_group(tmp_path, mode="r")[f"{PART}/samples/label"].shape == (0,)
        part.append(batches[2])
        part.commit()
        part.append(batches[3])
        group = zarr.open_group(tmp_path, mode="r", use_consolidated=False)
        members = dict(group.members(max_depth=None))
        tree = xarray.open_datatree(tmp_path, engine="zarr", consolidated=False)
    expected = rows_of([batches[0], batches[2]], "fc.2")
    np.testing.assert_array_equal(members[f"{PART}/layers/0001-fc.2/states"][:], expected)
    np.testing.assert_array_equal(tree[f"{PART}/layers/0001-fc.2/states"], expected)
    assert tree[f"{PART}/layers/0001-fc.2/states"].dims == ("row", "byte")
    assert members[f"{PART}/layers/0001-fc.2/positions"][:].tolist() == [2] * 9 + [3]
    assert members[f"{PART}/samples/name"][:].tolist() == ["a", "", "ü", "d\0", "e"] * 2
    assert tree[f"{PART}/samples"]["label"].to_numpy().tolist() == list(range(5)) * 2
    assert members[f"{PART}/layers/0001-fc.2"].attrs["tsstore"]["name"] == "fc.2"
    tree.close()


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_both_codecs_are_read_by_both(tmp_path, batches, codec):
    write_run(tmp_path, batches, codec=codec)
    array = zarr.open_array(tmp_path / PART / "layers" / "0000-conv_1" / "states", mode="r")
    np.testing.assert_array_equal(array[:], open_store(tmp_path)["conv_1"][:])
    assert array.compressors[0].cname.value == codec


@pytest.mark.parametrize(("codec", "level"), [("gzip", None), ("", 1), ("lz4", 0), ("zstd", 77)])
def test_codecs_that_the_format_lacks_are_refused(codec, level):
    with pytest.raises(TsstoreError, match="expected"):
        Compression(codec, level)
    assert Compression("zstd", 9).level == 9
