"""A run of many parts rewritten as one, in few files."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from helpers import draw_batch, rewrite_attributes, start_part, stored_files, write_run

from tsstore.analysis.analyze import analyze
from tsstore.errors import (
    DamageError,
    FormatError,
    ResumeError,
    StoreError,
    StoreExistsError,
)
from tsstore.store.chunked.writer import ArrayWriter
from tsstore.store.files.local import LocalFiles
from tsstore.store.files.open import open_files
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.maintenance import compact as compacting
from tsstore.store.maintenance import merged_parts
from tsstore.store.maintenance.compact import compact, disk_usage
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.ids import repeated
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter
from tsstore.store.writing.resume import resume_step

PART = "part-00000-00000"


@pytest.fixture(autouse=True, scope="module")
def _small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tsstore.store.format.arrays.COLUMN_CHUNK_ROWS", 16)
        patch.setattr("tsstore.store.format.arrays.CHECKSUM_CHUNK_ROWS", 8)
        yield


def draw(rng: np.random.Generator, samples: int = 20):
    return draw_batch(
        rng,
        samples,
        positions={"conv_1": 4, "fc.2": rng.integers(0, 4, samples).tolist()},
        columns={
            "id": rng.integers(0, 100, samples),
            "loss": np.where(rng.random(samples) < 0.1, np.nan, rng.random(samples)),
            "text ü": ["ü" * count for count in rng.integers(0, 9, samples)],
        },
    )


@pytest.fixture(scope="module")
def written(_small_chunks, tmp_path_factory) -> Path:
    """Two ranks of one step; the first was cut off once, and went on."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("written") / "run.zarr"
    for rank, why in ((0, "killed"), (0, "closed"), (1, "closed")):
        given = PartAttributes(
            rank, 2, step=7, model={"class": "LeNet"}, user={"lr": 0.1}, total=99
        )
        writer = write_run(path, [draw(rng), draw(rng, 7)], part=given, close=False)
        writer.seal(why)
    return path


@pytest.fixture
def path(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "run.zarr")


def contents(path: Path) -> dict[Path, tuple[bytes, int]]:
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in stored_files(path)}


def in_order(store: StateStore) -> StateStore:
    """Return a store with its parts in the order in which they are compacted."""
    parts = sorted(store.parts, key=lambda part: (part.attributes.attempt, part.attributes.rank))
    return StateStore(parts[0].files, store.run, tuple(parts))


def assert_same(new: StateStore, old: StateStore) -> None:
    assert (new.layers, new.columns, new.samples) == (old.layers, old.columns, old.samples)
    for name in old:
        assert new[name].attributes == old[name].attributes
        assert new[name].positions == old[name].positions
        np.testing.assert_array_equal(new[name][:], old[name][:])
        np.testing.assert_array_equal(new[name].read_positions(), old[name].read_positions())
    for name in old.columns:
        assert new.column(name).dtype == old.column(name).dtype
        np.testing.assert_array_equal(new.column(name), old.column(name))


@pytest.mark.parametrize("shard_bytes", [1, 64, 300, 1 << 28])
def test_the_new_run_holds_what_the_old_one_does(path, tmp_path, shard_bytes):
    before, out = contents(path), tmp_path / "out.zarr"
    store = compact(path, out, shard_bytes=shard_bytes, durable=False)
    assert_same(store, in_order(open_store(path)))
    assert contents(path) == before
    assert verify(out).findings == ()
    assert store.status == "finished"
    assert store["conv_1"].positions == 4
    assert store["fc.2"].positions is None


def test_it_says_what_it_was_made_of(path, tmp_path):
    source, store = open_store(path), compact(path, tmp_path / "out.zarr")
    (part,) = store.parts
    assert part.directory == PART
    assert part.attributes.compacted_from == (
        (PART, 27),
        ("part-00001-00000", 27),
        ("part-00000-00001", 27),
    )
    found = part.attributes
    assert (found.rank, found.world_size, found.attempt, found.step) == (0, 1, 0, 7)
    assert (found.model, found.user) == ({"class": "LeNet"}, {"lr": 0.1})
    assert found.total == 99
    assert part.record.batches == 6
    assert store.run.compacted_from == source.run.run_id != store.run.run_id
    assert source.run.compacted_from is None
    assert source.parts[0].attributes.compacted_from == ()
    assert store.run.software["tsstore"]


def test_few_files_are_left(path, tmp_path):
    out = tmp_path / "out.zarr"
    compact(path, out)
    assert disk_usage(path) == (len(stored_files(path)), sum(map(size, stored_files(path))))
    files, stored_bytes = disk_usage(out)
    assert files < disk_usage(path)[0] / 3
    assert stored_bytes < disk_usage(path)[1]
    states = out / PART / "layers/0000-conv_1/states/c"
    assert [str(file.relative_to(states)) for file in stored_files(states)] == ["0/0"]


def size(file: Path) -> int:
    return file.stat().st_size


def test_an_array_of_one_chunk_needs_no_shard(tmp_path):
    batch = draw_batch(np.random.default_rng(0), 5, columns={"id": np.arange(5)})
    for rank in range(2):
        write_run(tmp_path / "run", [batch], part=PartAttributes(rank, 2))
    store = compact(tmp_path / "run", tmp_path / "out")
    (part,) = store.parts
    assert part.columns["id"].spec.shard_chunks is None
    assert store.column("id").tolist() == [0, 1, 2, 3, 4] * 2


def test_plain_readers_read_the_same_without_a_warning(path, tmp_path):
    out = tmp_path / "out.zarr"
    store = compact(path, out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(out, mode="r", use_consolidated=False)[PART]
        layer = xarray.open_zarr(out / PART / "layers/0001-fc.2", consolidated=False)
        samples = xarray.open_zarr(out / PART / "samples", consolidated=False)
        states = group["layers/0000-conv_1/states"]
        np.testing.assert_array_equal(states[:], store["conv_1"][:])
        np.testing.assert_array_equal(layer["states"].values, store["fc.2"][:])
        np.testing.assert_array_equal(layer["positions"].values, store["fc.2"].read_positions())
        for name, directory in (("id", "id"), ("loss", "loss"), ("text ü", "0002-text_")):
            np.testing.assert_array_equal(samples[directory].values, store.column(name))
            np.testing.assert_array_equal(group["samples"][directory][:], store.column(name))
    assert states.shards == (states.chunks[0] * 6, 1)


def test_counting_gives_the_same(path, tmp_path):
    store = compact(path, tmp_path / "out.zarr", shard_bytes=300)
    source = analyze(path)
    for name, result in analyze(store, memory="64MiB").items():
        assert result.spectrum == source[name].spectrum
        assert result.efficiency() == source[name].efficiency()
        assert result.equal_pairs_within_samples == source[name].equal_pairs_within_samples


def test_slices_blocks_and_dask_arrays_read_shards(path, tmp_path):
    states = compact(path, tmp_path / "out.zarr", shard_bytes=130)["conv_1"]
    rows = states[:]
    assert states.parts[0].states.spec.shard_chunks == 2
    for start in range(0, len(rows), 17):
        np.testing.assert_array_equal(states[start : start + 40], rows[start : start + 40])
    blocks = [states.read_block(block)[0] for block in states.blocks(30)]
    np.testing.assert_array_equal(np.concatenate(blocks), rows)
    lazy = states.to_dask()
    assert lazy.chunks[0] == (64,) * 5 + (4,)
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), rows)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(states))[:], rows)


def test_the_repeated_samples_that_count_stay_the_same(path, tmp_path):
    store, source = compact(path, tmp_path / "out.zarr"), open_store(path)
    assert store.repeated_samples == source.repeated_samples > 0
    (left_out,) = repeated(store.parts).values()
    theirs, offset = [], 0
    for part in in_order(source).parts:
        indices = repeated(source.parts).get(part.directory, np.empty(0, np.int64))
        theirs += (indices + offset).tolist()
        offset += part.samples
    assert left_out.tolist() == theirs


def test_each_step_has_a_part(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "run"
    for step in (7, None, "last"):
        for rank in range(2):
            write_run(path, [draw(rng)], part=PartAttributes(rank, 2, step=step))
    source, store = open_store(path), compact(path, tmp_path / "out")
    assert store.steps == source.steps == (7, None, "last")
    assert [part.directory for part in store.parts] == [f"part-00000-0000{i}" for i in range(3)]
    for step in store.steps:
        assert_same(store.at_step(step), source.at_step(step))
    assert store.status == "finished"
    assert verify(tmp_path / "out").findings == ()


def test_a_compacted_run_can_be_compacted(path, tmp_path):
    first = compact(path, tmp_path / "first", shard_bytes=200)
    second = compact(first, tmp_path / "second")
    assert_same(second, first)
    assert second.parts[0].attributes.compacted_from == ((PART, 81),)
    assert second.run.compacted_from == first.run.run_id


def test_a_layer_that_began_late_has_no_rows_before(tmp_path):
    path, rng = tmp_path / "run", np.random.default_rng(0)
    neurons = {"a": 8, "late": 9}
    for rank in range(2):
        early = draw_batch(rng, 20, neurons={"a": 8})
        part = PartAttributes(rank, 2)
        writer = start_part(path, early, neurons={"a": 8}, part=part)
        writer.append(early)
        writer.define({"late": LayerAttributes("late", 9)}, {"late": 1}, {})
        writer.append(draw_batch(rng, 30, neurons=neurons))
        writer.seal()
    store = compact(path, tmp_path / "out")
    assert_same(store, open_store(path))
    assert store["late"].read_positions().tolist() == ([0] * 20 + [1] * 30) * 2


@pytest.mark.parametrize("defined", [True, False])
def test_parts_without_samples_are_no_obstacle(tmp_path, defined):
    path, rng = tmp_path / "run", np.random.default_rng(0)
    batch = draw(rng)
    if defined:
        start_part(path, batch, part=PartAttributes(0, 2)).seal()
    else:
        compacting.create_run(LocalFiles(path))
        PartWriter(LocalFiles(path), PartAttributes(0, 2)).seal()
    write_run(path, [batch], part=PartAttributes(1, 2))
    store, source = compact(path, tmp_path / "out"), open_store(path)
    assert store.parts[0].attributes.compacted_from == ((PART, 0), ("part-00001-00000", 20))
    assert (store.layers, store.columns) == (source.layers, source.columns)
    np.testing.assert_array_equal(store["conv_1"][:], batch.layers["conv_1"].rows)
    assert verify(tmp_path / "out").findings == ()


def test_a_run_without_samples_stays_one(tmp_path):
    start_part(tmp_path / "run", draw(np.random.default_rng(0), 0)).seal()
    store = compact(tmp_path / "run", tmp_path / "out")
    assert (store.samples, store["conv_1"].shape) == (0, (0, 1))
    assert store.columns == ("id", "loss", "text ü")
    assert store.status == "finished"
    assert verify(tmp_path / "out").findings == ()


def test_a_run_that_was_cut_off_is_no_finished_one_now(tmp_path):
    write_run(tmp_path / "run", [draw(np.random.default_rng(0))], close=False).seal("killed")
    store = compact(tmp_path / "run", tmp_path / "out", durable=False)
    assert store.status == "cut off"
    assert store.parts[0].seal.why == "compacted from a run that was cut off"
    files = LocalFiles(tmp_path / "out")
    assert resume_step(files, PartAttributes(0, 4)).committed_samples == 20


def test_without_ids_nobody_goes_on_from_the_samples_of_several_ranks(tmp_path):
    for rank, samples in ((0, 6), (1, 4)):
        batch = draw_batch(np.random.default_rng(rank), samples)
        part = PartAttributes(rank, 2)
        write_run(tmp_path / "run", [batch], part=part, close=False).seal("killed")
    compact(tmp_path / "run", tmp_path / "out", durable=False)
    assert resume_step(LocalFiles(tmp_path / "run"), PartAttributes(0, 2)).committed_samples == 6
    with pytest.raises(ResumeError, match=r"no column 'id' .* order: .*that of 2 compacted parts"):
        resume_step(LocalFiles(tmp_path / "out"), PartAttributes())


@pytest.mark.parametrize("live", [True, False])
def test_a_part_that_is_not_sealed_is_refused(path, tmp_path, live):
    part = PartAttributes(rank=3, world_size=4, step=7)
    write_run(path, [draw(np.random.default_rng(0))], part=part, close=False)
    if not live:
        gone = {"process": {}, "started": "2020-01-01T00:00:00+00:00"}
        rewrite_attributes(path, "part-00003-00000", gone)
        rewrite_attributes(path, "part-00003-00000/commit", {"time": gone["started"]})
    advice = "wait until the job has ended" if live else "resume=True, .* tsstore repair"
    with pytest.raises(StoreError, match=rf"part-00003-00000 is not sealed \(.*\); .*{advice}"):
        compact(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_parts_is_refused(tmp_path):
    compacting.create_run(LocalFiles(tmp_path / "run"))
    with pytest.raises(StoreError, match="has no parts yet"):
        compact(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("second", "error", "why"),
    [
        ({"columns": {"label": np.arange(5.0)}}, FormatError, "label is int64 and float64"),
        ({"columns": {}}, StoreError, r"label is missing in part-00001-00000"),
        ({"threshold": 0.5}, FormatError, "threshold"),
        ({"neurons": {"conv_1": 6}}, DamageError, "fc.2 has no states in part-00001-00000"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused_before_anything_is_written(
    tmp_path, second, error, why
):
    rng = np.random.default_rng(0)
    for rank, changed in enumerate(({}, second)):
        given = {"neurons": {"conv_1": 6, "fc.2": 13}, "columns": {"label": np.arange(5)}}
        given |= {key: value for key, value in changed.items() if key in given}
        options = {key: value for key, value in changed.items() if key == "threshold"}
        batch = draw_batch(rng, 5, **given)
        write_run(tmp_path / "run", [batch], part=PartAttributes(rank, 2), **options)
    with pytest.raises(error, match=why):
        compact(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("taken", ["out.zarr", "run.zarr"])
def test_what_lies_there_already_is_left_alone(path, tmp_path, taken):
    (tmp_path / "out.zarr").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(StoreExistsError, match="exists already"):
        compact(path, tmp_path / taken)
    assert contents(tmp_path) == before


def assert_gone(out: Path) -> None:
    """Nothing is left of a run that was not compacted, and it can be compacted again."""
    assert not out.exists()
    assert os.listdir(out.parent) == ["run.zarr"]


@pytest.mark.parametrize("kept", range(0, 40, 3))
def test_a_disk_that_fills_up_leaves_nothing(path, tmp_path, monkeypatch, kept):
    before, left = contents(path), [kept]
    step = LocalFiles._write_new

    def write_new(self, file, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return step(self, file, data)

    monkeypatch.setattr(LocalFiles, "_write_new", write_new)
    if not kept:
        with pytest.raises(OSError, match="No space left"):
            compact(path, tmp_path / "out.zarr")
        return
    with pytest.raises(StoreError, match=r"not compacted: .*No space left.* is removed again"):
        compact(path, tmp_path / "out.zarr")
    monkeypatch.undo()
    assert contents(path) == before
    assert_gone(tmp_path / "out.zarr")


def test_what_cannot_be_removed_is_said_to_be_left(path, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(LocalFiles, "remove_tree", fail)
    monkeypatch.setattr(compacting, "_copy", fail)
    with pytest.raises(StoreError, match=r"out\.zarr is not complete: remove it, then compact"):
        compact(path, tmp_path / "out.zarr")
    assert [part.seal for part in open_store(tmp_path / "out.zarr").parts] == []


def test_damage_to_the_source_is_named(path, tmp_path):
    file = path / "part-00001-00000/samples/0002-text_/c/1"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamageError, match=r"not compacted: .*text_/c/1 is damaged: .* removed"):
        compact(path, tmp_path / "out.zarr")
    assert_gone(tmp_path / "out.zarr")


WRONG = {
    "0000-conv_1/states": "rows of layer conv_1",
    "0001-fc.2/states": "rows of layer fc.2",
    "0001-fc.2/positions": "rows by sample of layer fc.2",
    "samples/id": "entries of column id",
    "samples/loss": "entries of column loss",
    "samples/0002-text_": "entries of column text ü",
}


@pytest.mark.parametrize(("array", "what"), WRONG.items())
@pytest.mark.parametrize("entry", [0, -1])
def test_entries_that_change_on_the_way_are_noticed(
    path, tmp_path, monkeypatch, array, what, entry
):
    append = ArrayWriter.append

    def change(self, entries):
        if self._path.endswith(array):
            entries = entries.copy()
            entries[entry] = "other" if entries.dtype == object else entries[entry] + 1
        append(self, entries)

    monkeypatch.setattr(ArrayWriter, "append", change)
    with pytest.raises(DamageError, match=rf"{what} are not those of .*run\.zarr; .* removed"):
        compact(path, tmp_path / "out.zarr")
    assert_gone(tmp_path / "out.zarr")


@pytest.mark.parametrize("what", ["layers", "columns"])
def test_what_is_left_out_on_the_way_is_noticed(path, tmp_path, monkeypatch, what):
    class Forgetful(compacting.CommitRecord):
        def to_json(self):
            record = super().to_json()
            record[what] = dict(list(record[what].items())[1:])
            return record

    monkeypatch.setattr(compacting, "CommitRecord", Forgetful)
    with pytest.raises(DamageError, match=f"its {what} are not those of"):
        compact(path, tmp_path / "out.zarr")
    assert_gone(tmp_path / "out.zarr")


def test_numbers_are_compared_bit_by_bit(tmp_path, monkeypatch):
    columns = {"loss": np.array([np.nan, 0.0, 1.0])}
    write_run(tmp_path / "run.zarr", [draw_batch(np.random.default_rng(0), 3, columns=columns)])
    copied = compact(tmp_path / "run.zarr", tmp_path / "out.zarr")
    np.testing.assert_array_equal(copied.column("loss"), columns["loss"])
    append = ArrayWriter.append

    def change(self, entries):
        append(self, np.where(entries == 0, -entries, entries) if entries.ndim == 1 else entries)

    monkeypatch.setattr(ArrayWriter, "append", change)
    with pytest.raises(DamageError, match="entries of column loss are not those of"):
        compact(tmp_path / "run.zarr", tmp_path / "changed.zarr")


def test_the_source_is_read_once(path, tmp_path, monkeypatch):
    read, keys = LocalFiles.read, []

    def note(self, key, *arguments, **limits):
        if self.location == str(path) and "/c/" in key:
            keys.append(key)
        return read(self, key, *arguments, **limits)

    monkeypatch.setattr(LocalFiles, "read", note)
    compact(path, tmp_path / "out.zarr")
    assert set(keys) == {
        str(file.relative_to(path)) for file in stored_files(path) if "/c/" in str(file)
    }
    assert len(keys) == len(set(keys))


def test_verify_finds_what_is_wrong_in_shards(path, tmp_path):
    out = tmp_path / "out.zarr"
    compact(path, out, shard_bytes=130)
    states = out / PART / "layers/0000-conv_1/states/c"
    files = stored_files(states)
    assert len(files) == 3
    data = bytearray(files[0].read_bytes())
    data[20] ^= 1
    files[0].write_bytes(data)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    files[2].unlink()
    (states / "3").mkdir()
    (states / "3/0").write_bytes(b"later")
    report = verify(out)
    where = f"{PART}/layers/0000-conv_1/states/c"
    assert {(finding.file, finding.layer, finding.what) for finding in report.errors} == {
        (f"{where}/0/0", "conv_1", "chunk 0 is damaged: its bytes do not match their crc32c"),
        (f"{where}/1/0", "conv_1", "its index does not match its crc32c"),
        (f"{where}/2/0", "conv_1", "it is missing"),
    }
    (note,) = report.notes
    assert f"such as {where}/3/0" in note.what


def test_progress_is_told_array_by_array(path, tmp_path):
    told = []
    compact(path, tmp_path / "out", progress=lambda *progress: told.append(progress))
    assert told == [
        (f"{verb} {PART}", done, 5) for verb in ("write", "compare") for done in range(1, 6)
    ]


def test_memory_holds_a_shard_and_not_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(merged_parts, "_PIECE_BYTES", 1 << 18)
    rng, rows = np.random.default_rng(0), 1 << 17
    for rank in range(4):
        states = rng.integers(0, 256, (rows, 64), dtype=np.uint8)
        batch = Batch(rows, {"a": LayerBatch(states, np.ones(rows, np.int64))})
        part = PartAttributes(rank, 4)
        write_run(tmp_path / "run", [batch], neurons={"a": 512}, chunk_bytes=1 << 16, part=part)
    del batch, states
    gc.collect()
    tracemalloc.start()
    try:
        compact(tmp_path / "run", tmp_path / "out", shard_bytes=1 << 20, durable=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert disk_usage(tmp_path / "out")[1] > 32 << 20


@pytest.mark.parametrize("from_memory", [True, False])
def test_object_stores_hold_shards_too(path, tmp_path, from_memory):
    obstore = pytest.importorskip("obstore")
    source, out = path, obstore.store.MemoryStore()
    if from_memory:
        source = obstore.store.MemoryStore()
        files = open_files(source)
        for file in stored_files(path):
            files.write(file.relative_to(path).as_posix(), file.read_bytes())
    store = compact(source, out, shard_bytes=300)
    assert_same(store, in_order(open_store(path)))
    assert verify(out).findings == ()
    assert analyze(store, "fc.2")["fc.2"].spectrum == analyze(path, "fc.2")["fc.2"].spectrum
    with pytest.raises(StoreExistsError, match="exists already"):
        compact(source, out)


@pytest.mark.parametrize("second", ["empty", "error"])
def test_a_layer_that_a_part_never_met_has_no_rows_of_its_samples(tmp_path, second):
    rng = np.random.default_rng(0)
    for rank, neurons in enumerate(({"a": 3}, {"a": 3, "b": 5})):
        part = PartAttributes(rank, 2, missing="empty" if rank == 0 else second)
        batch = draw_batch(rng, 4, neurons=neurons, columns={"id": np.arange(4) + rank})
        write_run(tmp_path / "run", [batch], neurons=neurons, part=part)
    source, new = open_store(tmp_path / "run"), compact(tmp_path / "run", tmp_path / "out")
    assert new["b"].read_positions().tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(new["b"][:], source["b"][:])
    assert new.parts[0].attributes.missing == second
    assert verify(tmp_path / "out").findings == ()
