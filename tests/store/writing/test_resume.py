from __future__ import annotations

import random
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from helpers import draw_batch, rows_of, start_part, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from interleaving import Actor, SteppedFiles, interleave

from tsstore.errors import DamageError, PartSealedError, ResumeError, StoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.record import CommitRecord
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import open_store
from tsstore.store.run import create_run
from tsstore.store.writing import resume
from tsstore.store.writing.part import PartWriter, create_part
from tsstore.store.writing.resume import Earlier, resume_part, resume_step

ALONE = PartAttributes()


@pytest.fixture
def files(tmp_path):
    return LocalFiles(tmp_path, durable=False)


def batch_of(ids, **columns):
    columns = {"id": ids, **columns} if ids is not None else columns
    return draw_batch(np.random.default_rng(0), 4 if ids is None else len(ids), columns=columns)


def cut_off(path, ids, part: PartAttributes = ALONE, **options) -> PartWriter:
    """Write a part with one commit whose process then does nothing more."""
    return write_run(path, [batch_of(ids)], part=part, close=False, **options)


def rank(number: int, size: int, **more) -> PartAttributes:
    return PartAttributes(rank=number, world_size=size, **more)


def test_a_step_that_is_new_has_nothing_earlier(files):
    create_run(files)
    earlier = resume_step(files, ALONE)
    assert (earlier.parts, earlier.committed_samples, earlier.attempt) == ((), 0, 0)
    assert earlier.missing([3, 1]).tolist() == [3, 1]
    assert earlier.check_layers({"a": LayerAttributes("a", 3)}, complete=True) is None


def test_an_attempt_that_was_cut_off_is_sealed_and_counts(files, tmp_path):
    old = cut_off(tmp_path, [5, 6, 7])
    old.append(batch_of([8]))
    earlier = resume_step(files, ALONE)
    assert (earlier.committed_samples, earlier.attempt) == (3, 1)
    (part,) = earlier.parts
    assert part.seal.why == "resumed by rank 0 of 1"
    assert "process" in part.seal.by
    with pytest.raises(PartSealedError):
        old.commit()
    assert earlier.missing(range(5, 10)).tolist() == [8, 9]
    assert resume_step(files, ALONE).parts == earlier.parts


def test_a_run_that_is_resumed_reads_as_one(files, tmp_path):
    old = cut_off(tmp_path, [1, 2])
    writer, earlier = resume_part(files, ALONE)
    assert (writer.directory, earlier.committed_samples) == ("part-00000-00001", 2)
    again = write_run(tmp_path, [batch_of([3])])
    assert again.directory == "part-00000-00001"
    store = open_store(tmp_path)
    assert store.column("id").tolist() == [1, 2, 3]
    assert old.record == store.parts[0].seal.record
    np.testing.assert_array_equal(store["fc.2"][:2], rows_of([batch_of([1, 2])], "fc.2"))


def test_other_steps_are_left_alone(files, tmp_path):
    for step in (1, "1", None):
        cut_off(tmp_path, [1], PartAttributes(step=step))
    earlier = resume_step(files, PartAttributes(step=1))
    assert [part.step for part in earlier.parts] == [1]
    assert earlier.attempt == 3
    assert [part.seal is None for part in open_store(tmp_path).parts] == [False, True, True]


@pytest.mark.parametrize(("old_size", "new_size"), [(4, 4), (4, 2), (2, 5), (5, 3), (1, 4)])
def test_each_part_has_one_rank_that_goes_on_from_it(files, tmp_path, old_size, new_size):
    for number in range(old_size):
        cut_off(tmp_path, [number, 10 + number], rank(number, old_size))
    sealed: list[str] = []
    for number in range(new_size):
        before = {part.directory for part in open_store(tmp_path).parts if part.seal}
        earlier = resume_step(files, rank(number, new_size))
        own = [part.directory for part in earlier.own_parts]
        assert earlier.committed_samples == 2 * len(own)
        assert {part.directory for part in earlier.parts if part.seal} == before | set(own)
        assert [int(name[5:10]) % new_size for name in own] == [number] * len(own)
        sealed += own
    assert sorted(sealed) == [f"part-{number:05d}-00000" for number in range(old_size)]
    assert earlier.missing(range(20)).tolist() == [
        name for name in range(20) if name % 10 >= old_size
    ]


def test_parts_of_other_ranks_that_are_written_do_not_count_as_done(files, tmp_path):
    cut_off(tmp_path, [0, 2], rank(0, 2))
    cut_off(tmp_path, [1, 3], rank(1, 2))
    earlier = resume_step(files, rank(0, 2))
    assert len(earlier.parts) == 2
    assert earlier.missing(range(5)).tolist() == [1, 3, 4]
    assert resume_step(files, rank(1, 2)).missing(range(5)).tolist() == [4]


def test_shares_taken_before_asking_leave_nothing_out_and_those_taken_after_may(files, tmp_path):
    ids = np.arange(8)
    cut_off(tmp_path, [0], rank(0, 2))
    cut_off(tmp_path, [1], rank(1, 2))
    ranks = [resume_step(files, rank(number, 2)) for number in (0, 1)]
    before = [earlier.missing(ids[number::2]) for number, earlier in enumerate(ranks)]
    after = [earlier.missing(ids)[number::2] for number, earlier in enumerate(ranks)]
    assert sorted(chain([0, 1], *before)) == ids.tolist()
    assert set(ids) - set(chain([0, 1], *after)) == {2, 4, 6}


@pytest.mark.parametrize("started", ["not at all", "without layers", "without a commit"])
def test_attempts_without_a_commit_hold_nothing(files, tmp_path, started):
    create_run(files)
    if started == "not at all":
        (tmp_path / "part-00000-00000").mkdir()
    elif started == "without layers":
        PartWriter(files, ALONE)
    else:
        start_part(tmp_path, batch_of([1]))
    earlier = resume_step(files, ALONE)
    assert earlier.committed_samples == 0
    assert all(part.seal is not None for part in earlier.parts)
    assert earlier.missing([1]).tolist() == [1]
    assert earlier.attempt == len(earlier.parts) == (started != "not at all")


def test_another_model_at_the_same_step_is_refused_and_nothing_is_sealed(files, tmp_path):
    model = {"class": "LeNet", "sha256": "aa"}
    cut_off(tmp_path, [1], PartAttributes(step=7, model=model))
    for other in ({"class": "LeNet", "sha256": "bb"}, {"class": "LeNet"}):
        with pytest.raises(ResumeError, match=r"part-00000-00000 at step 7: model: .*'aa'.* there"):
            resume_step(files, PartAttributes(step=7, model=other))
    assert open_store(tmp_path).parts[0].seal is None
    assert resume_step(files, PartAttributes(step=8, model=other)).parts == ()
    assert resume_step(files, PartAttributes(step=7, model=model)).committed_samples == 1


@pytest.mark.parametrize(("old", "new"), [({}, {"class": "LeNet"}), ({"class": "LeNet"}, {})])
def test_a_model_that_is_not_known_is_no_other(files, tmp_path, old, new):
    cut_off(tmp_path, [1], PartAttributes(model=old))
    assert resume_step(files, PartAttributes(model=new)).committed_samples == 1


def test_another_model_does_not_matter_where_there_are_no_samples(files, tmp_path):
    start_part(tmp_path, batch_of([1]), part=PartAttributes(model={"class": "wrong"}))
    assert resume_step(files, PartAttributes(model={"class": "right"})).committed_samples == 0


@pytest.mark.parametrize("columns", [None, {"label": np.arange(4)}])
def test_another_world_size_is_refused_where_samples_have_no_ids(files, tmp_path, columns):
    batch = batch_of(None, **(columns or {}))
    write_run(tmp_path, [batch], part=rank(1, 2), close=False)
    with pytest.raises(ResumeError, match=r"no column 'id' .*world size: 3 in this job, 2 there"):
        resume_step(files, rank(0, 3))
    assert open_store(tmp_path).parts[0].seal is None
    assert resume_step(files, rank(1, 2)).committed_samples == 4
    with pytest.raises(StoreError, match="has no sample column 'id'"):
        resume_step(files, rank(1, 2)).missing([1])


def test_a_job_that_fits_no_longer_once_all_is_sealed_is_refused(files, tmp_path, monkeypatch):
    writer = start_part(tmp_path, batch_of(None), part=rank(0, 2))
    seal = resume.seal_part

    def commit_and_be_sealed(*arguments):
        writer.append(batch_of(None))
        writer.commit()
        return seal(*arguments)

    monkeypatch.setattr(resume, "seal_part", commit_and_be_sealed)
    with pytest.raises(ResumeError, match="world size: 1 in this job, 2 there"):
        resume_step(files, ALONE)


@pytest.mark.parametrize(("change", "shown"), [
    ({"neurons": 7}, "neurons: 7 in this job, 6 there"),
    ({"threshold": {"given": 0.5, "used": 0.5}}, "threshold: .*0.5.* in this job, .*0.0.* there"),
    ({"dtype": "float16"}, "dtype: float16 in this job, float32 there"),
    ({"where": "before"}, "where: before in this job, after there"),
    ({"neuron_axis": 2}, "neuron_axis: 2 in this job, 1 there"),
    ({"sample_axis": 3}, "sample_axis: 3 in this job, 0 there"),
    ({"sampling": {"every": 2}}, "sampling: .*every.* in this job, None there"),
    ({"output": "1.0"}, "output: 1.0 in this job, None there"),
])  # fmt: skip
def test_a_layer_that_is_captured_otherwise_is_refused(files, tmp_path, change, shown):
    cut_off(tmp_path, [1])
    earlier = resume_step(files, ALONE)
    layer = LayerAttributes("conv_1", 6)
    for complete in (True, False):
        with pytest.raises(ResumeError, match=f"part-00000-00000 .*layer conv_1: {shown}"):
            earlier.check_layers({"conv_1": replace(layer, **change)}, complete)
    same = replace(layer, position_shape=(3,), module_class="Conv2d")
    assert earlier.check_layers({"conv_1": same}, complete=False) is None


def test_another_threshold_is_refused_and_nothing_is_sealed(files, tmp_path):
    cut_off(tmp_path, [1], threshold=0.25)
    shown = r"part-00000-00000 .*threshold of layer conv_1: 0\.5 in this job, 0\.25 there"
    for go_on in (resume_step, resume_part):
        with pytest.raises(ResumeError, match=shown):
            go_on(files, ALONE, threshold=0.5)
    (part,) = open_store(tmp_path).parts
    assert part.seal is None
    assert resume_step(files, ALONE, threshold=0.25).committed_samples == 1
    assert resume_step(files, ALONE).committed_samples == 1


def test_another_threshold_does_not_matter_where_there_are_no_samples(files, tmp_path):
    start_part(tmp_path, batch_of([1]), threshold=0.25)
    assert resume_step(files, ALONE, threshold=0.5).committed_samples == 0


@pytest.mark.parametrize(("columns", "shown"), [
    ({"id": "int64"}, r"id \(int64\) in this job, id \(int64\), label \(string\) there"),
    ({}, r"none in this job, id \(int64\), label \(string\) there"),
    ({"id": "int32", "label": "string"}, r"id \(int32\), label \(string\) in this job"),
    ({"id": "int64", "label": "string", "a\nb": "bool"}, r"a\\nb \(bool\), id \(int64\), label"),
])  # fmt: skip
def test_other_sample_columns_are_refused(files, tmp_path, columns, shown):
    cut_off(tmp_path, [1, 2])
    write_run(tmp_path, [batch_of([1], label=["a"])], part=PartAttributes(step=1), close=False)
    earlier = resume_step(files, PartAttributes(step=1))
    with pytest.raises(ResumeError, match=f"part-00000-00001 at step 1: sample columns: .*{shown}"):
        earlier.check_columns(columns)
    assert earlier.check_columns({"label": "string", "id": "int64"}) is None


def test_sample_columns_do_not_matter_where_there_are_no_samples(files, tmp_path):
    start_part(tmp_path, batch_of([1], label=["a"]))
    assert resume_step(files, ALONE).check_columns({}) is None


def test_other_layers_are_refused_once_all_are_known(files, tmp_path):
    cut_off(tmp_path, [1])
    earlier = resume_step(files, ALONE)
    layers = {"conv_1": LayerAttributes("conv_1", 6), "new": LayerAttributes("new", 2)}
    with pytest.raises(ResumeError, match=r"layers: new more in this job, fc\.2 more there"):
        earlier.check_layers(layers, complete=True)
    with pytest.raises(ResumeError, match=r"layers: new more in this job, none more there"):
        earlier.check_layers(layers, complete=False)
    assert earlier.check_layers({}, complete=False) is None


def test_other_layers_are_taken_where_the_one_that_lacks_them_says_so(files, tmp_path):
    cut_off(tmp_path, [1], PartAttributes(missing="empty"))
    earlier = resume_step(files, ALONE)
    layers = {name: LayerAttributes(name, 6) for name in ("conv_1", "new")}
    assert earlier.check_layers(layers, complete=False) is None
    with pytest.raises(ResumeError, match=r"layers: none more in this job, fc\.2 more there"):
        earlier.check_layers(layers, complete=True)
    layers["fc.2"] = LayerAttributes("fc.2", 13)
    assert earlier.check_layers(layers, complete=True) is None


@pytest.mark.parametrize(("stored", "given", "missing"), [
    ([1, 2, 3], [9, 2, 9, 3, 8], [9, 9, 8]),
    ([1, 2, 3], np.array([2, 200], dtype=np.uint8), [200]),
    ([-1, 2], np.array([(1 << 64) - 1, 2], dtype=np.uint64), [(1 << 64) - 1]),
    (np.array([(1 << 64) - 1, 2], dtype=np.uint64), [-1, 2], [-1]),
    (np.array([(1 << 53) + 1], dtype=np.uint64), [1 << 53, (1 << 53) + 1], [1 << 53]),
    ([300, 1], np.array([44, 1], dtype=np.int8), [44]),
    ([1, 2], [], []),
    (["a", "b"], ["c", "a", "", "\ud800"], ["c", "", "\ud800"]),
    (["a", "b"], np.array(["b", "ü"], dtype=object), ["ü"]),
])  # fmt: skip
def test_ids_that_are_missing_come_in_the_order_given(files, tmp_path, stored, given, missing):
    cut_off(tmp_path, stored)
    found = resume_step(files, ALONE).missing(given)
    assert found.tolist() == missing
    assert found.dtype == np.asarray(given).dtype


@pytest.mark.parametrize(("stored", "given"), [
    ([1], ["1"]), ([1], [1.0]), (["1"], [1]), (["1"], np.array(["1", 1], dtype=object)),
    ([1], [[1]]), ([1], [True]),
])  # fmt: skip
def test_ids_of_another_kind_are_refused(files, tmp_path, stored, given):
    cut_off(tmp_path, stored)
    with pytest.raises(StoreError, match=r"ids are .*; expected (text|integers) along one axis"):
        resume_step(files, ALONE).missing(given)


@pytest.mark.parametrize("ids", [[1.0], [[1]], [True], [None], np.array(["1", 1], dtype=object)])
def test_ids_that_could_not_be_told_later_are_refused_at_once(files, ids):
    create_run(files)
    with pytest.raises(StoreError, match=r"ids are .*; expected text or integers along one axis"):
        resume_step(files, ALONE).missing(ids)


@settings(max_examples=25)
@given(
    held=st.lists(st.lists(st.integers(-5, 20), min_size=1, max_size=12), min_size=1, max_size=3),
    ids=st.lists(st.integers(-8, 25), max_size=30),
    as_text=st.booleans(),
    piece=st.integers(1, 5),
)
def test_what_is_missing_is_what_is_found_one_by_one(tmp_path_factory, held, ids, as_text, piece):
    if as_text:
        held, ids = [list(map(str, part)) for part in held], list(map(str, ids))
    path = tmp_path_factory.mktemp("run")
    for part in held:
        cut_off(path, part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tsstore.store.reading.ids.PIECE_SAMPLES", piece)
        found = resume_step(LocalFiles(path, durable=False), ALONE).missing(ids)
    done = set(chain(*held))
    assert found.tolist() == [name for name in ids if name not in done]


def test_damaged_parts_are_not_resumed_but_may_be_deleted(files, tmp_path):
    cut_off(tmp_path, [1])
    (tmp_path / "part-00000-00000" / "commit" / "zarr.json").write_bytes(b"{")
    with pytest.raises(DamageError, match="not valid JSON"):
        resume_part(files, ALONE)
    files.remove_tree("part-00000-00000")
    _, earlier = resume_part(files, ALONE)
    assert earlier.missing([1, 2]).tolist() == [1, 2]


def test_a_part_that_begins_meanwhile_is_sealed_too(files, tmp_path, monkeypatch):
    cut_off(tmp_path, [1])
    begun: list[PartWriter] = []

    def look_and_be_late(files: LocalFiles, part: PartAttributes, **options) -> Earlier:
        earlier = resume_step(files, part, **options)
        if not begun:
            begun.append(cut_off(tmp_path, [2]))
        return earlier

    monkeypatch.setattr(resume, "resume_step", look_and_be_late)
    writer, _ = resume_part(files, ALONE)
    with pytest.raises(ResumeError, match=r"has begun part-00000-00001 since this job started; "):
        define(writer)
    writer, earlier = resume_part(files, ALONE)
    assert writer.directory == "part-00000-00002"
    assert earlier.missing([1, 2, 3]).tolist() == [3]
    begun[0].append(batch_of([3]))
    with pytest.raises(PartSealedError):
        begun[0].commit()


def define(writer: PartWriter) -> None:
    """Begin a part, as its first batch does."""
    layers = {name: LayerAttributes(name, n) for name, n in (("conv_1", 6), ("fc.2", 13))}
    writer.define(layers, dict.fromkeys(layers, 1), {"id": "int64"})


def directories(path) -> list[str]:
    return [part.directory for part in open_store(path).parts]


@pytest.mark.parametrize("why", ["closed", "closed: no data", "stopped by ValueError", "killed"])
def test_jobs_that_record_nothing_after_the_end_add_no_part(files, tmp_path, why):
    write_run(tmp_path, [batch_of([1, 2])])
    for _ in range(10):
        writer, earlier = resume_part(files, ALONE)
        assert earlier.committed_samples == 2
        assert writer.commit() == CommitRecord()
        if why == "stopped by ValueError":
            writer.fail(why)
        elif why != "killed":
            writer.seal(why)
            assert writer.commit() == CommitRecord()
    assert sorted(path.name for path in tmp_path.glob("part-*")) == ["part-00000-00000"]
    assert open_store(tmp_path).status == "finished"
    assert verify(tmp_path).findings == ()


@pytest.mark.parametrize("make", [
    lambda path: cut_off(path, [1, 2]), lambda path: cut_off(path, []),
    lambda path: write_run(path, [batch_of([1])], part=rank(0, 4)),
    lambda path: create_part(LocalFiles(path, durable=False), ALONE),
])  # fmt: skip
def test_the_first_job_that_finds_all_done_says_so_and_no_later_one_does(files, tmp_path, make):
    create_run(files)
    make(tmp_path)
    for _ in range(10):
        writer, _ = resume_part(files, ALONE)
        writer.fail("stopped before the first batch")
    assert directories(tmp_path) == ["part-00000-00000"]
    for _ in range(10):
        writer, _ = resume_part(files, ALONE)
        writer.seal()
    store = open_store(tmp_path)
    assert directories(tmp_path) == ["part-00000-00000", "part-00000-00001"]
    assert (store.status, store.parts[1].samples) == ("finished", 0)
    if store.parts[0].seal.why != "closed":
        assert str(store.part_statuses[0]) == "continued by part-00000-00001"


def test_a_commit_that_comes_due_after_the_seal_is_none(files, tmp_path):
    create_run(files)
    writer = PartWriter(files, ALONE)
    writer.seal()
    assert writer.commit() == writer.record == CommitRecord()
    again = write_run(tmp_path, [batch_of([1])])
    record = again.record
    assert again.commit() == record
    other = cut_off(tmp_path, [2])
    other.append(batch_of([3]))
    resume_step(files, ALONE)
    for _ in range(2):
        with pytest.raises(PartSealedError):
            other.commit()


@pytest.mark.parametrize(("mine", "theirs", "fits"), [
    (rank(0, 1), rank(0, 1), False), (rank(1, 2), rank(0, 1), False),
    (rank(0, 1), rank(1, 2), False), (rank(0, 2), rank(1, 2), True),
    (rank(1, 4), rank(1, 2), False), (rank(1, 4), rank(0, 2), True),
    (rank(0, 1), rank(0, 1, step=3), True),
])  # fmt: skip
def test_of_two_jobs_that_go_on_from_the_same_parts_one_begins(files, tmp_path, mine, theirs, fits):
    for number in range(4):
        cut_off(tmp_path, [number], rank(number, 4))
    writer, _ = resume_part(files, mine)
    create_part(files, theirs)
    if fits:
        define(writer)
        writer.seal()
        assert {writer.directory} < set(directories(tmp_path))
        return
    with pytest.raises(ResumeError, match="goes on from the same parts, and has begun part-0"):
        define(writer)
    idle, _ = resume_part(files, mine)
    write_run(tmp_path, [batch_of([7])], part=theirs)
    idle.seal()
    assert not idle.begun


def test_a_job_whose_run_was_replaced_meanwhile_begins_nothing(files, tmp_path):
    cut_off(tmp_path, [1])
    writer, _ = resume_part(files, ALONE)
    files.remove_tree()
    cut_off(tmp_path, [5])
    with pytest.raises(ResumeError, match="is another run by now"):
        define(writer)
    assert directories(tmp_path) == ["part-00000-00000"]


@pytest.mark.parametrize("seed", range(25))
def test_of_processes_that_resume_at_the_same_time_one_goes_on(tmp_path, seed):
    drawn = random.Random(seed)
    cut_off(tmp_path, list(range(drawn.randrange(1, 6))))
    ended: list[str] = []

    def go_on() -> None:
        files = SteppedFiles(tmp_path, durable=False)
        writer, earlier = resume_part(files, ALONE)
        ids = earlier.missing(range(12)).tolist()
        try:
            if ids:
                define(writer)
            for name in ids:
                writer.append(batch_of([name]))
                writer.commit()
            writer.seal()
            ended.append("closed")
        except PartSealedError:
            ended.append("sealed")
        except ResumeError:
            ended.append("overtaken")

    interleave(drawn, [Actor(go_on) for _ in range(3)])
    parts = open_store(tmp_path).parts
    held = [part.columns["id"].read(0, part.samples).tolist() for part in parts if part.samples]
    assert sorted(chain(*held)) == list(range(12))
    assert "closed" in ended
    assert all(part.seal is not None for part in parts)
