"""What the callbacks of all trainers keep: one contract, with the real packages."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import trainers
from trainers import BATCH, PACKAGES, WARNINGS, Failure, logits_of, make_data
from watching import hook_count, joined, stored, watched, writers

import tsstore
from tsstore.errors import CaptureError, ColumnsError, SelectionError, StoreExistsError

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]
RANKS = """
import sys, torch
from pathlib import Path

package, folder, tests = sys.argv[1:]
sys.path.insert(0, tests)
from trainers import PACKAGES, make_data

trainer = PACKAGES[package](Path(folder))
callback = trainer.callback(Path(folder) / "run", layers="tail.0", columns="id")
with trainer.over(callback):
    for first in (0, 50):
        trainer.evaluate(callback, make_data(16, first), **trainer.ranks)
torch.distributed.destroy_process_group()
"""
LAYERS = ("conv", "tail.0", "relu")


@pytest.fixture(params=PACKAGES)
def trainer(request, tmp_path):
    pytest.importorskip(request.param)
    return PACKAGES[request.param](tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def nothing_is_left(trainer):
    """After each test no hook of ours is on the model, and no writer's thread lives."""
    before, threads = hook_count(trainer.model), writers()
    yield
    assert hook_count(trainer.model) == before
    assert writers() <= threads


def ids(path, step):
    return tsstore.open(path).at_step(step).column("id").tolist()


@contextmanager
def evaluated(module):
    """Keep what a module gives in evaluation mode."""
    kept = []

    def keep(module, arguments, output):
        if not module.training:
            kept.append(output.detach().clone())

    handle = module.register_forward_hook(keep)
    yield kept
    handle.remove()


def test_states_and_columns_are_what_plain_hooks_see(trainer, path):
    data = make_data(10)
    callback = trainer.callback(
        path,
        layers=LAYERS,
        columns=lambda batch, outputs: {
            "id": batch["id"],
            "label": batch["labels"],
            "prediction": outputs["logits"].argmax(1),
        },
    )
    model = trainer.model
    modules = model.conv, model.relu, model.tail[0], model.tail
    with watched(*modules) as (conv, relu, middle, logits), trainer.over(callback):
        trainer.evaluate(callback, data)
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv))
    np.testing.assert_array_equal(stored(path, "tail.0"), joined(middle))
    np.testing.assert_array_equal(stored(path, "relu#1"), joined(relu[::2]))
    np.testing.assert_array_equal(stored(path, "relu#2"), joined(relu[1::2]))
    store = tsstore.open(path)
    assert (store.finished, store.parts[0].seal.why) == (True, "closed")
    assert store.column("id").tolist() == list(range(10))
    assert store.column("label").tolist() == [sample["labels"] for sample in data]
    assert store.column("prediction").tolist() == [int(x.argmax()) for b in logits for x in b]


def test_evaluations_within_training_are_steps_and_training_is_not_recorded(trainer, path):
    callback = trainer.callback(path, layers="tail.0", columns="id")
    with evaluated(trainer.model.tail[0]) as middle, trainer.over(callback):
        trainer.train(callback, make_data(8), make_data(6, first=100))
    store = tsstore.open(path)
    assert (store.steps, store.samples) == ((2, 4), 12)
    first, second = joined(middle[:2]), joined(middle[2:])
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(store.at_step(2)["tail.0"][:], first)
    np.testing.assert_array_equal(store.at_step(4)["tail.0"][:], second)
    assert ids(path, 2) == ids(path, 4) == list(range(100, 106))
    assert store.finished


def test_a_second_evaluation_at_a_step_is_not_pooled_with_the_first(trainer, path):
    callback = trainer.callback(path, layers="conv", columns=["id", "labels"])
    with trainer.over(callback):
        trainer.evaluate(callback, make_data(5))
        trainer.evaluate(callback, make_data(3, first=70))
    assert tsstore.open(path).steps == (0, "0#2")
    assert ids(path, 0) == [0, 1, 2, 3, 4]
    assert ids(path, "0#2") == [70, 71, 72]
    assert tsstore.open(path).columns == ("id", "labels")


def test_a_failure_closes_the_run_with_the_batches_that_had_ended(trainer, path):
    callback = trainer.callback(path, layers="conv", columns=["id"])
    with (
        watched(trainer.model.conv) as (conv,),
        pytest.raises(Failure),
        trainer.over(callback),
    ):
        trainer.evaluate(callback, make_data(12, fail=9))
    store = tsstore.open(path)
    assert store.parts[0].seal.why == "stopped by Failure"
    assert store.column("id").tolist() == list(range(2 * BATCH))
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv[:2]))


def test_the_evaluation_after_a_failed_one_is_whole(trainer, path):
    callback = trainer.callback(path, layers="conv", columns=["id"])
    with trainer.over(callback):
        with pytest.raises(Failure):
            trainer.evaluate(callback, make_data(12, fail=5))
        trainer.evaluate(callback, make_data(12))
    store = tsstore.open(path)
    assert store.steps == (0, "0#2")
    assert [part.seal.why[:10] for part in store.parts] == ["stopped by", "closed"]
    assert ids(path, 0) == [0, 1, 2, 3]
    assert ids(path, "0#2") == list(range(12))


def test_columns_that_do_not_fit_stop_the_evaluation(trainer, path):
    callback = trainer.callback(path, layers="conv", columns=["id", "length"])
    message = r"'length': found a .* with .*id.*pass columns="
    with pytest.raises(ColumnsError, match=message), trainer.over(callback):
        trainer.evaluate(callback, make_data(3))
    store = tsstore.open(path)
    assert (store.samples, store.parts[0].seal.why) == (0, "stopped by ColumnsError")


def test_copies_are_separate_and_hold_nothing_open(trainer, path):
    copies = []

    def columns(batch, outputs):
        copies.extend([copy.deepcopy(callback), copy.deepcopy(trainer.model)])
        return {"id": batch["id"]}

    callback = trainer.callback(path, layers="conv", columns=columns)
    with trainer.over(callback):
        trainer.evaluate(callback, make_data(3))
    again, model = copies
    assert again._evaluations.is_open is False
    with torch.inference_mode():
        model(make_data(1)[0]["x"][None])
    assert tsstore.open(path).samples == 3
    with trainer.over(again):
        trainer.evaluate(again, make_data(2))
    assert tsstore.open(path).steps == (0, "0#2")


def test_callbacks_can_be_pickled(trainer, path):
    callback = pickle.loads(pickle.dumps(trainer.callback(path, layers="conv", columns="id")))
    with trainer.over(callback):
        trainer.evaluate(callback, make_data(3))
    assert tsstore.open(path).column("id").tolist() == [0, 1, 2]


def test_layers_of_a_submodule(trainer, path):
    callback = trainer.callback(path, module="tail", layers=["0", "1"])
    with watched(trainer.model.tail[0]) as (middle,), trainer.over(callback):
        trainer.evaluate(callback, make_data(6))
    assert tsstore.open(path).layers == ("1", "0")
    np.testing.assert_array_equal(stored(path, "0"), joined(middle))


def test_a_step_and_attributes_of_ones_own(trainer, path):
    callback = trainer.callback(path, layers="conv", step="best", attributes={"note": "mine"})
    with trainer.over(callback):
        trainer.evaluate(callback, make_data(2))
        trainer.evaluate(callback, make_data(2))
    store = tsstore.open(path)
    assert store.steps == ("best", "best#2")
    assert [part.attributes.user["note"] for part in store.parts] == ["mine", "mine"]
    assert [(part.attributes.rank, part.attributes.world_size) for part in store.parts] == [
        (0, 1),
        (0, 1),
    ]


def test_a_path_that_is_taken_is_refused_resumed_or_overwritten(trainer, path):
    def evaluate(*samples, **options):
        callback = trainer.callback(path, layers="conv", columns="id", **options)
        with trainer.over(callback):
            for count in samples:
                trainer.evaluate(callback, make_data(count))

    evaluate(2, step="first")
    with pytest.raises(StoreExistsError, match="resume=True goes on with it"):
        evaluate(3)
    evaluate(3, 3, resume=True, step="second")
    assert tsstore.open(path).steps == ("first", "second", "second#2")
    evaluate(4, 5, overwrite=True, step="third")
    assert (tsstore.open(path).steps, tsstore.open(path).samples) == (("third", "third#2"), 9)


def test_what_makes_no_sense_is_said(trainer, path):
    with pytest.raises(TypeError, match="unexpected keyword argument 'layer'"):
        trainer.callback(path, layer="conv")
    callback = trainer.callback(path, layers="cnov")
    with pytest.raises(SelectionError, match="cnov"), trainer.over(callback):
        trainer.evaluate(callback, make_data(2))
    assert issubclass(SelectionError, CaptureError)
    assert not path.exists()


@pytest.mark.slow
def test_each_rank_writes_a_part_of_each_evaluation(trainer, path, request):
    script = path.with_name("script.py")
    script.write_text(RANKS, encoding="utf-8")
    package = request.node.callspec.params["trainer"]
    support = str(Path(trainers.__file__).parent)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(script), package, str(path.parent), support]
    environment = os.environ | {"PYTHONPATH": str(Path(tsstore.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    store = tsstore.open(path)
    found = {(part.step, part.attributes.rank, part.attributes.world_size) for part in store.parts}
    assert found == {(0, 0, 2), (0, 1, 2), ("0#2", 0, 2), ("0#2", 1, 2)}
    assert [part.samples for part in store.parts] == [8, 8, 8, 8]
    for step, first in ((0, 0), ("0#2", 50)):
        data = make_data(16, first)
        with watched(trainer.model.tail[0]) as (middle,), torch.inference_mode():
            logits_of(trainer.model, torch.stack([sample["x"] for sample in data]))
        assert sorted(ids(path, step)) == list(range(first, first + 16))
        order = np.array(ids(path, step)) - first
        rows = store.at_step(step)["tail.0"][:]
        np.testing.assert_array_equal(rows, joined(middle)[order])
