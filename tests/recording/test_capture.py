"""How a capture begins: on a new path, on that of an earlier attempt, as one of many ranks."""

from __future__ import annotations

import copy
import os
import traceback

import numpy as np
import pytest
import torch
from torch import nn
from watching import capture, hook_count, stored

import tsstore
from tsstore.errors import (
    CaptureError,
    PartSealedError,
    ResumeError,
    StoreError,
    StoreExistsError,
    WriterError,
)
from tsstore.store.maintenance.verify import verify

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def values(ids):
    """Return one input a sample, which follows from its id."""
    return torch.sin(torch.arange(3) + torch.tensor(list(ids)).reshape(-1, 1) * 1.7)


def evaluate(recorder, model, ids, batch=4):
    for start in range(0, len(ids), batch):
        some = ids[start : start + batch]
        with recorder.batch(id=some):
            model(values(some))


def cut_off(model, path, ids, **options):
    """Record and commit, then leave everything as a killed process would."""
    recorder = capture(model, path, **options)
    evaluate(recorder, model, ids)
    recorder.commit()
    recorder._listener.detach()
    recorder._sink._thread.writer.seal = lambda *_: None
    recorder._sink._thread.close("killed")
    recorder.abandon.detach()
    return recorder


def test_on_a_new_path_resume_simply_starts(model, path):
    with capture(model, path, resume=True) as recorder:
        assert recorder.committed_samples == 0
        assert recorder.missing([3, 1]).tolist() == [3, 1]
        evaluate(recorder, model, range(8))
        assert recorder.committed_samples == 0
    store = tsstore.open(path)
    assert store.samples == 8
    assert store.finished


def test_without_resume_nothing_is_done_already(model, path):
    with capture(model, path) as recorder:
        assert recorder.committed_samples == 0
        assert recorder.missing(["a", "b"]).tolist() == ["a", "b"]
        assert (recorder.rank, recorder.world_size, recorder.error) == (0, 1, None)
        recorder.close("closed: no data")


def test_the_same_command_again_goes_on(model, path):
    ids = list(range(20))
    cut_off(model, path, ids[:8], resume=True)
    with capture(model, path, resume=True) as recorder:
        assert recorder.part == "part-00000-00001"
        assert recorder.committed_samples == 8
        assert recorder.missing(ids).tolist() == ids[8:]
        evaluate(recorder, model, ids[8:])
    with capture(model, path, resume=True) as recorder:
        assert recorder.committed_samples == 20
        assert len(recorder.missing(torch.tensor(ids))) == 0
    with capture(model, path.with_name("whole")) as recorder:
        evaluate(recorder, model, ids)
    np.testing.assert_array_equal(stored(path, "2"), stored(path.with_name("whole"), "2"))
    store = tsstore.open(path)
    assert store.column("id").tolist() == ids
    assert [part.samples for part in store.parts] == [8, 12]
    assert store.parts[0].seal.why == "resumed by rank 0 of 1"


@pytest.mark.parametrize("resume", [True, False])
def test_a_commit_that_comes_due_when_nothing_was_recorded_is_no_error(model, tmp_path, resume):
    for number in range(10):
        path = tmp_path / "run" if resume else tmp_path / f"run-{number}"
        with capture(model, path, resume=resume, commit_every=0.001) as recorder:
            if resume and not number:
                evaluate(recorder, model, range(4))
            else:
                recorder.close("closed: nothing to do")
        assert len(tsstore.open(path).parts) == 1
        assert tsstore.open(path).finished


def in_another_process(job, *arguments):
    child = os.fork()
    if not child:
        try:
            job(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def go_on(model, path):
    with capture(model, path, resume=True) as recorder:
        evaluate(recorder, model, range(4, 8))


def test_a_process_that_still_lives_learns_that_another_went_on(model, path):
    twin = copy.deepcopy(model)
    old = capture(twin, path, resume=True)
    evaluate(old, twin, range(4))
    old.commit()
    assert in_another_process(go_on, model, path) == 0
    evaluate(old, twin, range(8, 12))
    with pytest.raises(WriterError, match="sealed by another process") as raised:
        old.close()
    assert isinstance(raised.value.__cause__, PartSealedError)
    assert hook_count(twin) == 0
    assert tsstore.open(path).column("id").tolist() == list(range(8))


def test_another_step_is_another_matter(model, path):
    with capture(model, path, step=1) as recorder:
        evaluate(recorder, model, range(4))
    with torch.no_grad():
        model[0].weight += 1
    with capture(model, path, step=2, threshold=0.5, resume=True) as recorder:
        assert recorder.committed_samples == 0
        assert recorder.missing([0, 1]).tolist() == [0, 1]
        evaluate(recorder, model, range(4))
    assert [part.step for part in tsstore.open(path).parts] == [1, 2]


def test_a_changed_model_is_refused_and_seals_nothing(model, path):
    cut_off(model, path, range(4))
    before = sorted(path.rglob("*"))
    with torch.no_grad():
        model[0].weight += 1
    with pytest.raises(ResumeError, match=r"model: .*sha256.* in this job, .*sha256.* there"):
        capture(model, path, resume=True)
    assert sorted(path.rglob("*")) == before


def test_a_changed_threshold_is_refused_before_the_first_batch_and_seals_nothing(model, path):
    cut_off(model, path, range(4), threshold=0.25)
    before = sorted(path.rglob("*"))
    with pytest.raises(ResumeError, match=r"part-0.*threshold of layer 0: 0.5 in this job, 0.25 t"):
        capture(model, path, threshold=0.5, resume=True)
    assert sorted(path.rglob("*")) == before
    assert tsstore.open(path).samples == 4


@pytest.mark.parametrize("columns", [
    {}, {"label": [7, 8]}, {"id": ["7", "8"]}, {"id": [7, 8], "more": [1.5, 2.5]},
])  # fmt: skip
def test_other_sample_columns_are_refused_at_the_first_batch(model, path, columns):
    cut_off(model, path, range(4))
    recorder = capture(model, path, resume=True)
    for _ in range(2):
        message = r"sample columns: .* in this job, id \(int64\) there; resume with the same"
        with pytest.raises(ResumeError, match=message), recorder.batch(2, **columns):
            model(values([7, 8]))
    with recorder, recorder.batch(id=[7, 8]):
        model(values([7, 8]))
    assert tsstore.open(path).column("id").tolist() == [0, 1, 2, 3, 7, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "2"}, "layers: "),
        ({"layers": ("0", "1", "2")}, "layers: "),
        ({"where": "before"}, "layers: 0:before, 2:before more in this job"),
    ],
)
def test_other_layers_are_refused_at_the_first_batch(model, path, options, message):
    with capture(model, path) as recorder:
        evaluate(recorder, model, range(3))

    def go_on():
        with capture(model, path, resume=True, **options) as recorder:
            evaluate(recorder, model, range(3, 6))

    with pytest.raises(ResumeError, match=message):
        go_on()
    store = tsstore.open(path)
    assert store.samples == 3
    assert len(store.parts) == 1


def test_layers_that_may_be_missing_may_be_others(path):
    experts = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(3, 4)})
    for name in "ab":
        recorder = capture(experts, path, nn.Linear, missing="empty", resume=True)
        with recorder, recorder.batch(id=[0, 1]):
            experts[name](torch.ones(2, 3))
    store = tsstore.open(path)
    assert {name: states.read_positions().tolist() for name, states in store.items()} == {
        "a": [1, 1, 0, 0], "b": [0, 0, 1, 1],
    }  # fmt: skip
    assert {part.attributes.missing for part in store.parts} == {"empty"}
    assert verify(path).ok


def test_ids_that_were_not_recorded(model, path):
    with capture(model, path):
        model(values(range(4)))
    with capture(model, path, resume=True) as recorder:
        assert recorder.committed_samples == 4
        with pytest.raises(StoreError, match="'id'"):
            recorder.missing([1, 2])


def test_an_existing_run_is_an_error_without_resume(model, path):
    with capture(model, path, run_id="mine") as recorder:
        evaluate(recorder, model, range(4))
    with pytest.raises(StoreExistsError, match=r"resume=True goes on.*overwrite=True deletes"):
        capture(model, path, run_id="another")
    with pytest.raises(StoreExistsError, match=r"part-00000-00000 exists already.*resume=True"):
        capture(model, path, run_id="mine")
    assert len(tsstore.open(path).parts) == 1
    assert tsstore.open(path).run.run_id == "mine"


def test_nothing_is_recorded_within_another_run(model, path):
    with capture(model, path) as recorder:
        evaluate(recorder, model, range(4))
    before = sorted(path.rglob("*"))
    for inner in (path / "inner.zarr", path / "part-00000-00000" / "deeper" / "inner.zarr"):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(StoreError, match="lies within the run"):
                capture(model, inner, **options)
    assert sorted(path.rglob("*")) == before


def test_overwrite_deletes_what_is_there(model, path):
    for ids in (range(8), range(4)):
        with capture(model, path, overwrite=True) as recorder:
            evaluate(recorder, model, ids)
    store = tsstore.open(path)
    assert store.samples == 4
    assert len(store.parts) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True, "overwrite": True}, "expected one of them"),
        ({"overwrite": True, "rank": 0, "world_size": 2, "run_id": "r"}, "remove the path before"),
        ({"rank": 2, "world_size": 2, "run_id": "r"}, "rank is 2"),
        ({"rank": 0, "world_size": 2}, "pass run_id="),
        ({"on_error": "ignore"}, "on_error is 'ignore'; expected 'raise' or 'detach'"),
    ],
)
def test_what_makes_no_sense_changes_nothing(model, path, options, message):
    with pytest.raises(CaptureError, match=message):
        capture(model, path, **options)
    assert not path.exists()


def test_ranks_write_one_run_each_a_part(model, path):
    for rank in (1, 0):
        with capture(model, path, rank=rank, world_size=2, run_id="job") as recorder:
            assert (recorder.rank, recorder.world_size) == (rank, 2)
            assert recorder.part == f"part-{rank:05d}-00000"
            evaluate(recorder, model, range(rank, 8, 2))
    store = tsstore.open(path)
    assert sorted(store.column("id").tolist()) == list(range(8))
    assert store.run.run_id == "job"
    with pytest.raises(StoreExistsError, match="rank 1 has a part of another attempt"):
        capture(model, path, rank=1, world_size=2, run_id="job")


def test_a_world_of_another_size_goes_on_where_there_are_ids(model, path):
    ids = list(range(12))
    for rank in (0, 1, 2):
        options = {"rank": rank, "world_size": 3, "run_id": "job"}
        cut_off(model, path, ids[rank::3][:2], **options)
    recorders = [
        capture(model, path, rank=rank, world_size=2, run_id="again", resume=True)
        for rank in (0, 1)
    ]
    assert [recorder.committed_samples for recorder in recorders] == [4, 2]
    for rank, recorder in enumerate(recorders):
        with recorder:
            for other in recorders:
                other._listener.detach()
            recorder.attach()
            evaluate(recorder, model, recorder.missing(ids[rank::2]))
    assert sorted(set(tsstore.open(path).column("id").tolist())) == ids


def test_a_world_of_another_size_is_refused_without_ids(model, path):
    with capture(model, path):
        model(values(range(4)))
    with pytest.raises(ResumeError, match="world size"):
        capture(model, path, rank=0, world_size=2, run_id="job", resume=True)
