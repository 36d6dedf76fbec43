"""Recorders that are still open when another one begins: cells of a notebook that were stopped."""

from __future__ import annotations

import gc
import logging
import weakref

import children
import pytest
import torch
from torch import nn
from watching import hook_count, logged

import tsstore
from tsstore.errors import ColumnsError, OutputError, StoreExistsError, TsstoreError
from tsstore.recording.recorder import open_recorders


def make():
    return nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4))


def capture(model, path, **options):
    return tsstore.capture(model, path, layers=["0", "2"], durable=False, **options)


def values(count=2):
    return torch.randn(count, 3)


@pytest.mark.parametrize("same_model", [True, False])
def test_overwriting_closes_the_one_that_is_open(path, same_model, monkeypatch):
    model = make()
    first = capture(model, path)
    model(values(5))
    model = model if same_model else make()
    monkeypatch.chdir(path.parent)
    with capture(model, path.name, overwrite=True) as second:
        assert first.closed
        assert open_recorders() == [second]
        model(values(2))
    assert hook_count(model) == 0
    store = tsstore.open(path)
    assert (store.samples, store.finished, len(store.parts)) == (2, True, 1)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"run_id": "mine"}])
def test_without_overwrite_it_says_what_is_open(path, options):
    model = make()
    with capture(model, path, **({"run_id": "mine"} if "run_id" in options else {})) as first:
        model(values(5))
        message = (
            rf"{path} is being recorded by this process: part-00000-00000, with 5 samples so far, "
            r"is open; close it first \(recorder.close\(\).*overwrite=True"
        )
        with pytest.raises(StoreExistsError, match=message):
            capture(model, path, **options)
        assert not first.closed
        model(values(1))
    assert tsstore.open(path).samples == 6


def test_ranks_in_one_process_do_not_stand_in_each_others_way(path):
    options = {"world_size": 2, "run_id": "mine"}
    models = make(), make()
    with capture(models[0], path, rank=0, **options), capture(models[1], path, rank=1, **options):
        for model in models:
            model(values())
    assert tsstore.open(path).samples == 4


def test_another_run_of_the_same_model_is_logged(path, caplog):
    model = make()
    other = path.with_name("other")
    with capture(model, path):
        model(values(5))
        with capture(model, other):
            model(values(2))
        with capture(make(), path.with_name("third")) as third:
            third.model(values(2))
    (record,) = logged(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{other}: the model is recorded into {path} as well: part-00000-00000, with 5 samples so "
        "far, is open; if that is not meant, close it (recorder.close())"
    )
    assert (tsstore.open(path).samples, tsstore.open(other).samples) == (7, 2)


def test_nothing_is_kept_alive(path):
    model = make()
    recorder = capture(model, path)
    model(values())
    gone = weakref.ref(recorder)
    recorder.close()
    del recorder
    gc.collect()
    assert gone() is None


def wrong_ways(recorder, model):
    """What a recorder refuses, of each kind."""

    def nested():
        with recorder.batch(), recorder.batch():
            pass

    def twice():
        with recorder.batch(id=[1, 2]) as batch:
            model(values())
            batch.record(id=[1, 2])

    def too_few():
        with recorder.batch(id=[1]):
            model(values())

    def shape():
        model(torch.randn(3))

    return {
        "nested": nested,
        "twice": twice,
        "too few": too_few,
        "shape": shape,
        "number": lambda: recorder.batch("a").__enter__(),
        "too early": lambda: recorder.projected_bytes(3),
        "no run": lambda: model[0](torch.randn(3)),
    }


@pytest.mark.parametrize("way", ["nested", "twice", "too few", "shape", "number", "too early"])
def test_an_error_of_a_recorder_names_its_run(path, way):
    model = make()
    with capture(model, path) as recorder:
        with pytest.raises(TsstoreError) as raised:
            wrong_ways(recorder, model)[way]()
        assert str(raised.value).startswith(f"{path}: ")
        assert raised.value.run == str(path)
        model(values())
    with pytest.raises(TsstoreError, match=f"^{path}: the recorder is closed"):
        recorder.commit()
    assert tsstore.open(path).samples == 2


def test_an_error_that_passes_through_another_recorders_block_names_its_own_run(path):
    outer, inner = make(), make()
    with capture(outer, path) as first, capture(inner, path.with_name("inner")) as second:

        def both():
            with first.batch():
                outer(values())
                with second.batch(id=[1]):
                    inner(values())

        with pytest.raises(ColumnsError, match=f"^{path.with_name('inner')}: column"):
            both()

        def mine():
            with first.batch():
                raise OutputError("the user's own")

        with pytest.raises(OutputError, match=r"^the user's own$"):
            mine()
        outer(values())
        inner(values())


FORGOTTEN = """
import shutil, sys, torch, tsstore
model = torch.nn.Sequential(torch.nn.Linear(3, 9))
recorder = tsstore.capture(model, sys.argv[1], layers="0", durable=False)
model(torch.ones(5, 3))
recorder.commit()
{end}
"""
ENDS = {
    "removed": "shutil.rmtree(sys.argv[1])",
    "overwritten": (
        "other = tsstore.capture(model, sys.argv[1], layers='0', overwrite=True)\n"
        "model(torch.ones(5, 3))"
    ),
}


def test_one_that_was_forgotten_and_recorded_nothing_logs_why(path, caplog):
    recorder = capture(make(), path)
    del recorder
    gc.collect()
    (record,) = logged(caplog)
    assert record.getMessage().startswith(
        f"{path}/part-00000-00000 was never closed, and no sample was recorded: the model was not"
    )


@pytest.mark.parametrize("end", ENDS)
def test_at_exit_there_is_no_traceback(path, end):
    run = children.run(FORGOTTEN.format(end=ENDS[end]), path)
    assert run.returncode == 0
    if end == "overwritten":
        assert run.stderr == ""
        assert tsstore.open(path).samples == 5
    else:
        (line,) = run.stderr.splitlines()
        assert line.startswith(f"{path}/part-00000-00000 was never closed, and could not be: ")
        assert "was deleted" in line
