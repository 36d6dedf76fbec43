"""What Lightning alone has: stages, the sanity check, several data loaders, two names."""

from __future__ import annotations

import copy
import pickle
import runpy
import sys

import numpy as np
import pytest
from trainers import WARNINGS, Failure, LightningTrainer, loader, make_data
from watching import joined, stored, watched

import tsstore
from tsstore.errors import CaptureError

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


@pytest.fixture(scope="module", autouse=True)
def lightning():
    """Load it for these tests alone: it takes seconds."""
    return pytest.importorskip("lightning")


@pytest.fixture
def trainer(tmp_path):
    return LightningTrainer(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


def parts(path):
    """Step, what Lightning said, and ids of each part."""
    store = tsstore.open(path)
    return [
        (part.step, part.attributes.user, store.at_step(part.step).column("id").tolist())
        for part in store.parts
    ]


def said(stage, dataloader=0):
    return {"stage": stage, "dataloader": dataloader}


def test_the_sanity_check_leaves_nothing(trainer, path):
    callback = trainer.callback(path, layers="conv", columns="id")
    fitted = trainer.trainer(callback, max_epochs=1, num_sanity_val_steps=2)
    with watched(trainer.model.conv) as (conv,):
        fitted.fit(trainer.model, loader(make_data(4)), loader(make_data(10)))
    assert len(conv) == 2 + 1 + 3
    assert parts(path) == [(1, said("validate"), list(range(10)))]
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv[3:]))


def test_a_job_that_fails_after_the_sanity_check_leaves_no_run(trainer, path):
    callback = trainer.callback(path, layers="conv", columns="id")
    fitted = trainer.trainer(callback, max_epochs=1, num_sanity_val_steps=2)
    with pytest.raises(Failure):
        fitted.fit(trainer.model, loader(make_data(4, fail=2)), loader(make_data(10)))
    assert not path.exists()


def test_all_stages_are_recorded_and_none_is_pooled(trainer, path):
    callback = trainer.callback(path, layers="conv", columns="id")
    fitted = trainer.trainer(callback, max_epochs=1)
    fitted.fit(trainer.model, loader(make_data(4)), loader(make_data(2)))
    fitted.validate(trainer.model, loader(make_data(3)), verbose=False)
    fitted.test(trainer.model, loader(make_data(4)), verbose=False)
    fitted.predict(trainer.model, loader(make_data(5)))
    assert parts(path) == [
        (1, said("validate"), [0, 1]),
        ("1#2", said("validate"), [0, 1, 2]),
        ("1#3", said("test"), [0, 1, 2, 3]),
        ("1#4", said("predict"), [0, 1, 2, 3, 4]),
    ]


@pytest.mark.parametrize("stages", ["predict", ["predict"], ("test", "predict")])
def test_stages_that_were_not_asked_for_leave_nothing(trainer, path, stages):
    callback = trainer.callback(path, layers="conv", columns="id", stages=stages)
    fitted = trainer.trainer(callback)
    fitted.validate(trainer.model, loader(make_data(3)), verbose=False)
    assert not path.exists()
    fitted.predict(trainer.model, loader(make_data(2)))
    assert parts(path) == [(0, said("predict"), [0, 1])]


@pytest.mark.parametrize("stages", ["fit", [], ("test", "training")])
def test_stages_that_do_not_exist_are_refused(trainer, path, stages):
    with pytest.raises(CaptureError, match="expected some of validate, test, predict"):
        trainer.callback(path, stages=stages)


def test_each_data_loader_is_a_step_of_its_own(trainer, path):
    class Two(type(trainer.model)):
        def test_step(self, batch, batch_idx, dataloader_idx):
            return self.validation_step(batch, batch_idx)

    callback = trainer.callback(path, layers="conv", columns="id")
    fitted = trainer.trainer(callback)
    for _ in range(2):
        fitted.test(Two(), [loader(make_data(5)), loader(make_data(6, 50))], verbose=False)
    first, second = list(range(5)), list(range(50, 56))
    assert parts(path) == [
        (0, said("test"), first),
        ("0#2", said("test", 1), second),
        ("0#3", said("test"), first),
        ("0#4", said("test", 1), second),
    ]


@pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor:UserWarning")
@pytest.mark.filterwarnings(
    "ignore:Found `dataloader_iter` argument in the `test_step`:UserWarning"
)
def test_a_step_that_takes_its_own_batches(trainer, path):
    class Fetching(type(trainer.model)):
        def test_step(self, dataloader_iter):
            batch, _, _ = next(dataloader_iter)
            self(batch["x"])

    callback = trainer.callback(path, layers="conv", columns="id")
    trainer.trainer(callback).test(Fetching(), loader(make_data(7)), verbose=False)
    assert parts(path) == [(0, said("test"), list(range(7)))]


def test_an_interrupt_closes_the_run(trainer, path, monkeypatch):
    def interrupt(batch, outputs):
        raise KeyboardInterrupt

    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    callback = trainer.callback(path, layers="conv", columns=interrupt)
    with pytest.raises(SystemExit):
        trainer.evaluate(callback, make_data(2))
    store = tsstore.open(path)
    assert (store.samples, store.parts[0].seal.why) == (0, "stopped by KeyboardInterrupt")


def test_the_error_in_the_job_is_raised_as_it_was(trainer, path):
    callback = trainer.callback(path, layers="conv")
    with pytest.raises(Failure) as caught:
        trainer.evaluate(callback, make_data(2, fail=1))
    assert caught.value.__context__ is None
    assert caught.traceback[-1].name == "logits_of"
    assert not hasattr(caught.value, "__notes__")


def test_the_callback_keeps_no_state_in_checkpoints(trainer, path):
    assert trainer.callback(path).state_dict() == {}


def test_the_package_by_its_other_name(monkeypatch):
    other = pytest.importorskip("pytorch_lightning")
    for name in ("lightning.pytorch", "tsstore.integrations.lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = runpy.run_module("tsstore.integrations.lightning")
    assert issubclass(module["CaptureCallback"], other.Callback)


def test_numbers_of_each_evaluation_are_logged_when_told(trainer, path):
    logged = []

    callback = trainer.callback(path, layers="conv", columns="id", log=logged.append)
    fitted = trainer.trainer(callback, max_epochs=2)
    fitted.fit(trainer.model, loader(make_data(4)), loader(make_data(12)))
    fitted.test(trainer.model, loader(make_data(6)), verbose=False)
    store = tsstore.open(path)
    assert len(logged) == len(store.steps) == 3
    for step, scalars in zip(store.steps, logged, strict=True):
        found = tsstore.analyze(store.at_step(step), intervals=False)
        assert scalars == found.to_scalars("tsstore/")
        assert scalars["tsstore/samples"] == found.samples


def test_the_trainers_loggers_are_given_the_numbers(trainer, path, tmp_path, monkeypatch):
    from lightning.pytorch.loggers import CSVLogger

    logged = []
    monkeypatch.setattr(CSVLogger, "log_metrics", lambda _, *given, **named: logged.append(named))
    callback = trainer.callback(path, layers="conv", columns="id", log=True)
    fitted = trainer.trainer(callback, max_epochs=1)
    fitted.loggers = [CSVLogger(tmp_path / "logs")]
    fitted.fit(trainer.model, loader(make_data(4)), loader(make_data(12)))
    ours = [named for named in logged if "tsstore/conv/distinct" in named["metrics"]]
    assert [named["step"] for named in ours] == [1]


def test_a_copy_of_a_callback_has_nothing_to_log(trainer, path):
    logged = []
    callback = trainer.callback(path, layers="conv", columns="id", log=logged.append)
    copied = pickle.loads(pickle.dumps(trainer.callback(path, layers="conv", log=True)))
    copied.on_validation_end(None, None)
    copy.copy(callback).on_validation_end(None, None)
    assert logged == []
