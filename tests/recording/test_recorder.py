"""The life of a recorder: columns, commits, errors, and how it ends."""

from __future__ import annotations

import gc
import time
import warnings

import children
import numpy as np
import pytest
import torch
from torch import nn
from watching import capture, hook_count, joined, packed, stored, watched, writers

import tsstore
from tsstore.errors import (
    CaptureError,
    ColumnsError,
    OutputError,
    SelectionError,
    StoreExistsError,
    TsstoreError,
    TsstoreWarning,
    WriterError,
)
from tsstore.store.writing.part import PartWriter

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def values(count):
    return torch.randn(count, 3)


def run(model, path, *batches):
    """Capture some batches."""
    with capture(model, path):
        for batch in batches:
            model(batch)


def seal(path):
    return tsstore.open(path).parts[0].seal


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


# What arrives in the store


def test_rows_and_columns_arrive(model, path):
    with watched(model[0]) as (first,), capture(model, path) as recorder:
        for ids in ([1, 2, 3], [4, 5]):
            with recorder.batch(id=ids) as batch:
                output = model(values(len(ids)))
                batch.record(prediction=output.argmax(1), name=[f"n{i}" for i in ids])
                batch.record(score=output.max(1).values.bfloat16())
    store = tsstore.open(path)
    assert store.columns == ("id", "prediction", "name", "score")
    assert store.column("id").tolist() == [1, 2, 3, 4, 5]
    assert store.column("name").tolist() == ["n1", "n2", "n3", "n4", "n5"]
    assert store.column("score").dtype == np.float32
    np.testing.assert_array_equal(stored(path, "0"), joined(first))
    assert store.finished


def test_a_column_may_be_filled_again_by_the_caller(model, path):
    labels = np.zeros(2, dtype=np.int64)
    with capture(model, path) as recorder:
        for label in range(50):
            labels[:] = label
            with recorder.batch(label=labels):
                model(values(2))
    assert tsstore.open(path).column("label").tolist() == np.repeat(np.arange(50), 2).tolist()


def test_step_attributes_and_the_model_arrive(model, path):
    attributes = {"note": "first", "sizes": (1, 2)}
    recorder = capture(model, path, step=np.int64(7), attributes=attributes, total=30)
    with recorder:
        model(values(2))
    part = tsstore.open(path).parts[0]
    assert recorder.path == str(path)
    assert recorder.part == part.directory == "part-00000-00000"
    assert part.attributes.step == 7
    assert part.attributes.user == {"note": "first", "sizes": [1, 2]}
    assert (part.attributes.total, part.record.waited) == (30, 0.0)
    assert part.attributes.model["class"] == "Sequential"
    assert part.attributes.model["parameters"] == 3 * 9 + 9 + 9 * 4 + 4
    assert tsstore.open(path).run.software["torch"] == torch.__version__


def test_thresholds_and_codecs_arrive(model, path):
    with capture(model, path, threshold=np.float32(0.1), codec="zstd", level=1):
        output = model(values(20))
    layer = tsstore.open(path)["2"]
    used = float(np.float32(0.1))
    assert layer.attributes.threshold == {"given": used, "used": used}
    assert layer.parts[0].states.spec.codec == "zstd"
    rows = packed(output, threshold=np.float32(0.1))[:, 0]
    np.testing.assert_array_equal(stored(path, "2"), rows)


def test_an_empty_batch_and_an_empty_run(model, path):
    with capture(model, path) as recorder:
        with recorder.batch() as nothing:
            assert nothing is not None
        model(values(0))
        model(values(2))
        assert recorder.statistics.batches == 2
    assert tsstore.open(path).samples == 2
    capture(model, path.with_name("empty")).close("closed: no data")
    store = tsstore.open(path.with_name("empty"))
    assert (store.samples, store.layers, store.finished) == (0, (), True)


def test_statistics_and_repr(model, path):
    recorder = capture(model, path)
    assert repr(recorder) == f"<Recorder {path}: recording, 0 samples, 0 rows>"
    with recorder:
        model(values(600))
        with recorder.batch():
            model(values(600))
            model(values(600))
        done = recorder.statistics
    assert (done.batches, done.samples, done.rows) == (2, 1200, 3600)
    assert (done.calls_outside, done.waited) == (0, 0.0)
    assert repr(recorder) == f"<Recorder {path}: closed, 1,200 samples, 3,600 rows>"


# Columns that do not fit


def wrong_columns():
    return [
        ({}, r"recorded no columns, the first one id, name"),
        ({"id": [1, 2]}, r"recorded id, the first one id, name"),
        ({"id": [1, 2], "name": ["a", "b"], "x": [1, 2]}, r"recorded id, name, x"),
        ({"id": [1.5, 2], "name": ["a", "b"]}, r"'id' is float64 in this batch, but int64"),
        ({"id": [1, 2], "name": [3, 4]}, r"'name' is int64 in this batch, but string"),
        ({"id": [[1], [2]], "name": ["a", "b"]}, r"'id' has shape \(2, 1\)"),
        ({"id": [1, 2], "name": ["a"]}, r"'name' has 1 entries, but the batch has 2 samples"),
        ({"id": [1], "name": ["a"]}, r"'id' has 1 entries, but the input .* has 2; record one"),
        ({"id": [1, 2, 3], "name": ["a", "b", "c"]}, r"'id' has 3 entries"),
        ({"id": [1, 2, 3, 4], "name": ["a", "b", "c", "d"]}, r"'id' has 4 entries"),
        ({"id": [1, 2], "name": ["a", object()]}, r"'name' has dtype object"),
        ({"id": [1, 2], "name": ["a", "\ud800"]}, r"'name' has an entry .*; expected text"),
    ]


@pytest.mark.parametrize(("columns", "message"), wrong_columns())
def test_a_batch_whose_columns_do_not_fit_is_dropped_whole(model, path, columns, message):
    with watched(model[0]) as (first,), capture(model, path) as recorder:
        with recorder.batch(id=[1, 2], name=["a", "b"]):
            model(values(2))
        with pytest.raises(ColumnsError, match=message), recorder.batch(**columns):
            model(values(2))
        with recorder.batch(id=[3, 4], name=["c", "d"]):
            model(values(2))
    store = tsstore.open(path)
    assert store.column("id").tolist() == [1, 2, 3, 4]
    assert store.column("name").tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(stored(path, "0"), joined([first[0], first[-1]]))
    assert store.finished


def test_a_column_that_is_recorded_twice(model, path):
    with capture(model, path) as recorder:
        twice = pytest.raises(ColumnsError, match="'id' was recorded twice")
        with twice, recorder.batch(id=[1, 2]) as batch:
            model(values(2))
            batch.record(id=[1, 2])
        assert recorder.statistics.batches == 0


def test_an_explicit_number_of_samples(model, path):
    with capture(model, path) as recorder:
        with recorder.batch(3, sample_index="contiguous", samples=[1, 2, 3]):
            model(values(6))
        short = pytest.raises(ColumnsError, match="'samples' has 2 entries, but the batch has 3")
        with short, recorder.batch(3, samples=[1, 2]):
            model(values(6))
        # How many they are does not say which entry belongs to which.
        unsaid = pytest.raises(OutputError, match=r"axis 0 has 6 entries of 3 samples .*: say")
        with unsaid, recorder.batch(3, samples=[1, 2, 3]):
            model(values(6))
        odd = pytest.raises(OutputError, match="found 7 entries, which 3 samples cannot share")
        with odd, recorder.batch(3, sample_index="contiguous", samples=[1, 2, 3]):
            model(values(7))
        with pytest.raises(ColumnsError, match="expected the number of samples"):
            recorder.batch(torch.tensor([1, 2])).__enter__()
    assert tsstore.open(path)["0"].positions == 2
    assert tsstore.open(path).samples == 3


def test_columns_without_a_forward_pass(model, path):
    with capture(model, path) as recorder:
        none = pytest.raises(SelectionError, match="none of the selected layers ran")
        with none, recorder.batch(id=[1, 2]):
            pass
        with recorder.batch(id=[1, 2]):
            model(values(2))
        silent = pytest.raises(CaptureError, match="0, 2 gave no states in this batch")
        with silent, recorder.batch(id=[1, 2]):
            pass
    assert tsstore.open(path).samples == 2


# Layers that do not run


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(3, 4) for _ in range(3))
        self.active = [0, 1]

    def forward(self, inputs):
        return sum(self.experts[index](inputs) for index in self.active)


def test_layers_selected_by_class_that_never_run_are_left_out_with_one_warning(path):
    experts = Experts()
    recorder = capture(experts, path, nn.Linear)
    with recorder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            experts(values(2))
        experts.active = [0, 1, 2]
        experts(values(2))
        assert list(recorder.hooks) == ["experts.0", "experts.1"]
        assert len(experts.experts[2]._forward_hooks) == 0
    (warning,) = caught
    assert warning.category is TsstoreWarning
    assert "left out: experts.2" in str(warning.message)
    assert tsstore.open(path).layers == ("experts.0", "experts.1")
    assert tsstore.open(path).samples == 8


def test_a_named_layer_that_does_not_run(path):
    experts = Experts()
    silent = pytest.raises(SelectionError, match=r"experts.2 was named but did not run")
    with capture(experts, path, ["experts.0", "experts.2"]), silent:
        experts(values(2))
    assert tsstore.open(path).samples == 0


def test_a_layer_that_falls_silent(path):
    experts = Experts()
    with capture(experts, path, ["experts.0", "experts.1"]):
        experts(values(2))
        experts.active = [1]
        with pytest.raises(CaptureError, match=r"experts.0 gave no states.*missing='empty'"):
            experts(values(2))
    assert tsstore.open(path).samples == 2


def test_missing_layers_may_be_empty(path):
    experts = Experts()
    with capture(experts, path, nn.Linear, missing="empty") as recorder:
        for experts.active in ([0], [1, 2], [0, 2]):
            with recorder.batch(id=[1, 2]):
                experts(values(2))
    store = tsstore.open(path)
    assert store.samples == 6
    found = {name: store[name].read_positions().tolist() for name in sorted(store)}
    assert found == {
        "experts.0": [1, 1, 0, 0, 1, 1],
        "experts.1": [0, 0, 1, 1, 0, 0],
        "experts.2": [0, 0, 1, 1, 1, 1],
    }


# Commits


def test_a_commit_makes_everything_visible_while_the_recorder_is_open(model, path):
    with watched(model[0]) as (first,), capture(model, path, commit_every=1e6) as recorder:
        for count in (3, 2):
            model(values(count))
            recorder.commit()
            np.testing.assert_array_equal(stored(path, "0"), joined(first))
            assert tsstore.open(path).samples == recorder.statistics.samples
        assert not tsstore.open(path).finished
        model(values(4))
        assert tsstore.open(path).samples == 5
    assert tsstore.open(path).samples == 9
    assert seal(path).why == "closed"


def test_commits_come_by_themselves(model, path):
    with capture(model, path, commit_every=0.02):
        model(values(3))
        wait_until(lambda: tsstore.open(path).samples == 3)


def test_commits_at_the_end_only(model, path):
    with capture(model, path, commit_every=float("inf")):
        model(values(3))
        time.sleep(0.02)
        assert tsstore.open(path).samples == 0
    assert tsstore.open(path).samples == 3


def test_the_queue_is_bounded(model, path, monkeypatch):
    append = PartWriter.append

    held = []

    def once_the_job_waits(writer, batch):
        if not held:
            wait_until(lambda: recorder._sink._thread._waiting)
            held.append(recorder.statistics.batches * batch.nbytes)
        append(writer, batch)

    monkeypatch.setattr(PartWriter, "append", once_the_job_waits)
    with capture(model, path, queue_bytes=450) as recorder:
        for _ in range(10):
            model(values(50))
        assert recorder.statistics.waited > 0
    assert 225 < held[0] <= 450
    assert tsstore.open(path).samples == 500


# How it ends


def test_other_peoples_hooks_stay(model, path):
    called = []
    handles = [
        module.register_forward_hook(lambda *_: called.append(1)) for module in (model, model[0])
    ]
    with capture(model, path, ["0", "Sequential"]):
        model(values(2))
        assert hook_count(model) > 2
    assert hook_count(model) == 2
    model(values(2))
    assert len(called) == 4
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_in_the_block_is_the_one_that_is_raised(model, path, error):
    recorder = capture(model, path)

    def run():
        with recorder:
            with recorder.batch(id=[1, 2]):
                model(values(2))
            with recorder.batch(id=[3, 4]):
                model(values(2))
                raise error

    with pytest.raises(type(error)) as raised:
        run()
    assert raised.value is error
    assert recorder.closed
    assert tsstore.open(path).column("id").tolist() == [1, 2]
    assert seal(path).why == f"stopped by {type(error).__name__}"
    assert not tsstore.open(path).finished


def test_an_exception_in_a_forward_pass(model, path):
    with pytest.raises(RuntimeError, match="shapes"):
        run(model, path, values(2), torch.randn(2, 5))
    assert tsstore.open(path).samples == 2
    assert seal(path).why == "stopped by RuntimeError"


@pytest.fixture
def broken_disk(monkeypatch):
    """Let the writer fail with the second batch."""
    append = PartWriter.append
    batches = []

    def fail(writer, batch):
        batches.append(batch)
        if len(batches) > 1:
            raise OSError(28, "No space left on device")
        append(writer, batch)

    monkeypatch.setattr(PartWriter, "append", fail)


def test_a_writers_error_is_raised_with_its_cause(model, path, broken_disk):
    def run_on():
        with capture(model, path) as recorder:
            model(values(2))
            recorder.commit()
            for _ in range(1000):
                model(values(2))
                time.sleep(0.001)

    with pytest.raises(WriterError, match="No space left") as raised:
        run_on()
    assert isinstance(raised.value.__cause__, OSError)
    assert not getattr(raised.value, "__notes__", [])
    assert tsstore.open(path).samples == 2
    assert seal(path).why == "the writer failed: OSError: [Errno 28] No space left on device"


def test_a_writers_error_in_the_last_batch_is_raised_on_closing(model, path, broken_disk):
    with pytest.raises(WriterError, match="No space left"):
        run(model, path, values(2), values(2))


def test_a_writers_error_before_a_block(model, path, broken_disk):
    recorder = capture(model, path)
    model(values(2))
    model(values(2))
    for call in (recorder.commit, recorder.batch().__enter__, recorder.close):
        with pytest.raises(WriterError, match="No space left"):
            call()


def test_a_writers_error_beside_another_one_becomes_a_note(model, path, broken_disk):
    def run_and_raise():
        with capture(model, path):
            model(values(2))
            model(values(2))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        run_and_raise()
    assert f"tsstore: {path}: the writer failed: OSError" in raised.value.__notes__[0]


def test_a_closed_recorder_takes_nothing_more(model, path):
    recorder = capture(model, path)
    model(values(2))
    assert not recorder.closed
    recorder.close()
    recorder.close()
    assert recorder.closed
    model(values(2))
    with pytest.raises(CaptureError, match=r"closed; open a new one with tsstore.capture"):
        recorder.batch().__enter__()
    with pytest.raises(CaptureError, match="closed"):
        recorder.commit()
    assert tsstore.open(path).samples == 2


def test_closing_inside_a_block_drops_its_batch(model, path):
    recorder = capture(model, path)
    model(values(1))

    def close_inside():
        with recorder.batch():
            model(values(2))
            recorder.close()

    with pytest.raises(WriterError, match="closed"):
        close_inside()
    assert tsstore.open(path).samples == 1


def test_two_recorders_on_one_model(model, path):
    other = path.with_name("other")
    with watched(model[0]) as (first,), capture(model, path, "0"):
        model(values(2))
        with capture(model, other, "0", threshold=0.5):
            model(values(3))
        model(values(1))
    np.testing.assert_array_equal(stored(path, "0"), joined(first))
    np.testing.assert_array_equal(stored(other, "0"), joined(first[1:2], threshold=0.5))


def test_a_path_that_is_taken(model, path):
    capture(model, path).close("closed: no data")
    threads = writers()
    with pytest.raises(StoreExistsError, match="exists already"):
        capture(model, path)
    assert hook_count(model) == 0
    assert not writers() - threads


@pytest.mark.parametrize(
    "options",
    [
        {"layers": "zzz"},
        {"threshold": float("nan")},
        {"codec": "gzip"},
        {"step": 1.5},
        {"attributes": {"a": object()}},
        {"where": "behind"},
    ],
)
def test_what_is_refused_creates_nothing(model, path, options):
    with pytest.raises(TsstoreError):
        capture(model, path, **options)
    assert not path.exists()


def test_hooks_that_cannot_be_attached_leave_nothing_behind(model, path, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("no hooks here")

    monkeypatch.setattr(model[2], "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hooks here"):
        capture(model, path)
    assert seal(path).why == "its hooks could not be attached"


def test_a_recorder_that_nobody_closed_is_sealed_when_it_is_collected(path):
    forgotten = nn.Sequential(nn.Linear(3, 9))
    recorder = capture(forgotten, path, "0")
    forgotten(values(2))
    del recorder, forgotten
    gc.collect()
    assert tsstore.open(path).samples == 2
    assert seal(path).why == "never closed"


def test_a_recorder_that_nobody_holds_goes_on_as_long_as_the_model(path):
    model = nn.Sequential(nn.Linear(3, 9))
    capture(model, path, "0")
    gc.collect()
    model(values(2))
    assert hook_count(model) == 3
    del model
    gc.collect()
    assert tsstore.open(path).samples == 2


SCRIPT = """
import sys, torch, tsstore
model = torch.nn.Sequential(torch.nn.Linear(3, 9))
recorder = tsstore.capture(model, sys.argv[1], layers="0", durable=False)
model(torch.ones(5, 3))
{end}
"""


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(3)", "raise ValueError('mine')"])
def test_a_recorder_that_nobody_closed_is_sealed_when_the_interpreter_ends(path, end):
    run = children.run(SCRIPT.format(end=end), path)
    assert run.returncode == {"p": 0, "S": 3, "V": 1}[end.removeprefix("raise ")[0]]
    assert ("ValueError: mine" in run.stderr) == ("mine" in end)
    assert "tsstore" not in run.stderr
    assert tsstore.open(path).samples == 5
    assert seal(path).why == "never closed"
