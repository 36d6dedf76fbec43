"""What Hugging Face's Trainer alone has: it does not say when an evaluation begins or fails."""

from __future__ import annotations

import gc
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn
from trainers import Failure, HuggingFaceTrainer, make_data
from watching import hook_count, joined, watched, writers

import tsstore
from tsstore.errors import CaptureError

pytestmark = pytest.mark.skipif(not find_spec("transformers"), reason="there is no transformers")


@pytest.fixture
def trainer(tmp_path):
    return HuggingFaceTrainer(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


def bert():
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    config = transformers.BertConfig(vocab_size=30, num_attention_heads=2, **sizes)
    return transformers.BertForSequenceClassification(config)


def sentences(count):
    words = torch.randint(30, (count, 7), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": i % 2, "id": f"s{i}"} for i, row in enumerate(words)]


def collate(samples):
    batch = {name: torch.stack([s[name] for s in samples]) for name in ["input_ids"]}
    labels = torch.tensor([sample["labels"] for sample in samples])
    return batch | {"labels": labels, "id": [sample["id"] for sample in samples]}


def without_ids(count):
    return [{"x": sample["x"], "labels": sample["labels"]} for sample in make_data(count)]


def test_a_model_of_the_package_in_training_evaluation_and_prediction(trainer, path):
    model = bert()
    callback = trainer.callback(
        path,
        layers="*intermediate.dense",
        columns=lambda inputs, outputs: {
            "id": inputs["id"],
            "label": inputs["labels"],
            "prediction": outputs.logits.argmax(1),
        },
    )
    data = {"train_dataset": sentences(8), "eval_dataset": sentences(6)}
    with callback:
        job = trainer.trainer(callback, model, eval_strategy="epoch", num_train_epochs=1, **data)
        job.data_collator = collate
        job.train()
        dense = [layer.intermediate.dense for layer in model.bert.encoder.layer]
        with watched(*dense) as seen:
            found = job.predict(sentences(10))
    store = tsstore.open(path)
    assert store.steps == (2, "2#2")
    predicted = store.at_step("2#2")
    assert predicted.column("id").tolist() == [f"s{i}" for i in range(10)]
    assert predicted.column("label").tolist() == found.label_ids.tolist()
    assert predicted.column("prediction").tolist() == found.predictions.argmax(1).tolist()
    for number, outputs in enumerate(seen):
        name = f"bert.encoder.layer.{number}.intermediate.dense"
        np.testing.assert_array_equal(predicted[name][:], joined(outputs, 2))
        assert store.at_step(2)[name].samples == 6


def test_calls_of_the_model_outside_evaluations_are_not_recorded(trainer, path):
    with trainer.callback(path, layers="conv", columns="id") as callback:
        job = trainer.trainer(callback)
        samples = torch.stack([sample["x"] for sample in make_data(4)])
        trainer.model.eval()
        trainer.model(samples)
        assert not path.exists()
        job.evaluate(make_data(6))
        trainer.model(samples)
        job.evaluate(make_data(5))
    assert [part.samples for part in tsstore.open(path).parts] == [6, 5]


def test_a_prediction_step_of_several_calls_is_one_batch(trainer, path):
    from transformers import Trainer

    class Twice(Trainer):
        def prediction_step(self, model, inputs, *arguments, **keywords):
            model(inputs["x"] + 1, inputs["labels"])
            return super().prediction_step(model, inputs, *arguments, **keywords)

    with (
        trainer.callback(path, layers="tail.0", columns=["id", "labels"]) as callback,
        watched(trainer.model.tail[0]) as (middle,),
    ):
        job = trainer.trainer(callback)
        job.__class__ = Twice
        job.evaluate(make_data(6))
    layer = tsstore.open(path)["tail.0"]
    assert (layer.samples, len(layer)) == (6, 12)
    rows = [joined(middle[i : i + 2]).reshape(2, -1, 2).swapaxes(0, 1) for i in (0, 2)]
    np.testing.assert_array_equal(layer[:], np.concatenate(rows).reshape(-1, 2))


def test_without_a_context_the_next_evaluation_closes_one_that_failed(trainer, path):
    callback = trainer.callback(path, layers="conv", columns="id")
    job = trainer.trainer(callback)
    with pytest.raises(Failure):
        job.evaluate(make_data(8, fail=6))
    job.evaluate(make_data(3))
    store = tsstore.open(path)
    assert [part.seal.why for part in store.parts] == ["stopped by CaptureError", "closed"]
    assert [part.samples for part in store.parts] == [4, 3]
    callback.close()
    assert hook_count(trainer.model) == 0


def test_a_failure_between_batches_ends_the_evaluation_as_well(trainer, path):
    def fail(prediction):
        raise Failure

    with trainer.callback(path, layers="conv", columns="id") as callback:
        job = trainer.trainer(callback)
        job.compute_metrics = fail
        with pytest.raises(Failure):
            job.evaluate(make_data(8))
        job.compute_metrics = None
        job.evaluate(make_data(3))
    assert [part.samples for part in tsstore.open(path).parts] == [8, 3]


def test_training_after_a_failure_closes_what_was_open(trainer, path):
    callback = trainer.callback(path, layers="conv", columns="id")
    job = trainer.trainer(callback, train_dataset=make_data(4), num_train_epochs=1)
    with pytest.raises(Failure):
        job.evaluate(make_data(8, fail=6))
    job.train()
    assert tsstore.open(path).parts[0].seal.why == "stopped by CaptureError"
    assert hook_count(trainer.model) == 2
    callback.close()


def test_what_nobody_closed_is_closed_when_it_is_gone(trainer, path):
    threads = writers()
    job = trainer.trainer(trainer.callback(path, layers="conv", columns="id"))
    with pytest.raises(Failure):
        job.evaluate(make_data(8, fail=6))
    del job, trainer.model
    gc.collect()
    store = tsstore.open(path)
    assert (store.samples, store.parts[0].seal.why) == (4, "never closed")
    assert writers() <= threads


def test_a_callback_that_came_late_says_so(trainer, path):
    with trainer.callback(path, layers="conv") as callback:
        job = trainer.trainer(None)
        job.add_callback(callback)
        with pytest.raises(CaptureError, match=r"pass the callback to Trainer\(callbacks="):
            job.evaluate(without_ids(3))
    job.evaluate(without_ids(3))
    assert not path.exists()


def test_after_its_end_the_callback_does_nothing(trainer, path):
    data = {"train_dataset": without_ids(4), "eval_dataset": without_ids(3)}
    with trainer.callback(path, layers="conv") as callback:
        job = trainer.trainer(callback, eval_strategy="epoch", num_train_epochs=1, **data)
    assert callback.closed
    job.train()
    job.predict(without_ids(3))
    assert hook_count(trainer.model) == 0
    assert not path.exists()


def test_a_model_that_is_made_anew_for_training_is_the_one_recorded(trainer, path):
    models = []

    def make():
        models.append(type(trainer.model)())
        return models[-1]

    data = {"train_dataset": make_data(4), "eval_dataset": make_data(3)}
    with trainer.callback(path, layers="conv", columns="id") as callback:
        job = trainer.trainer(callback, nn.Identity(), eval_strategy="epoch", **data)
        job.args.num_train_epochs, job.model_init = 1, make
        job.train()
        assert hook_count(models[-1]) == 2
    assert tsstore.open(path).column("id").tolist() == [0, 1, 2]
    assert [hook_count(model) for model in models] == [0] * len(models)


def test_extra_inputs_reach_a_model_that_knows_them(trainer, path):
    class Knowing(type(trainer.model)):
        def forward(self, x, labels=None, id=None):
            assert id is not None
            return super().forward(x, labels)

    with trainer.callback(path, layers="conv", columns="id") as callback:
        trainer.trainer(callback, Knowing()).evaluate(make_data(3))
    assert tsstore.open(path).column("id").tolist() == [0, 1, 2]
    with trainer.callback(path.with_name("other"), layers="conv", extra=()) as callback:
        job = trainer.trainer(callback)
        with pytest.raises(TypeError, match="unexpected keyword argument 'id'"):
            job.evaluate(make_data(3))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("_n_gpu", 2, r"over 2 devices by DataParallel; expected one device a process"),
        ("torch_compile", True, r"found torch_compile=True"),
        ("predict_with_generate", True, r"found predict_with_generate=True"),
    ],
)
def test_what_would_record_something_else_is_refused(trainer, path, name, value, message):
    with trainer.callback(path, layers="conv") as callback:
        job = trainer.trainer(None)
        setattr(job.args, name, value)
        with pytest.raises(CaptureError, match=message):
            callback.on_init_end(job.args, job.state, job.control, model=job.model)
    assert hook_count(trainer.model) == 0


def test_numbers_of_each_evaluation_are_logged_when_told(trainer, path):
    logged = []
    callback = trainer.callback(path, layers="conv", columns="id", log=logged.append)
    with callback:
        trainer.train(callback, make_data(8), make_data(12))
    store = tsstore.open(path)
    assert len(logged) == len(store.steps) == 2
    for step, scalars in zip(store.steps, logged, strict=True):
        found = tsstore.analyze(store.at_step(step), intervals=False)
        assert scalars == found.to_scalars("tsstore/")
