"""What running a model on two samples tells of its layers, and that it leaves no trace."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from watching import hook_count

import tsstore
from tsstore.recording.samples.differences import ANOTHER_ORDER, Findings, Found
from tsstore.recording.samples.experiment import find_samples
from tsstore.recording.samples.inputs import NotPossible, selected
from tsstore.recording.selection.select import select

SINGLE = Found(0, "single", 1)


def leaves(model):
    return select(model, lambda _, module: next(module.children(), None) is None)


def tried(model, *arguments, samples=None, **keywords):
    return find_samples(model, leaves(model), arguments, keywords, samples)


class Applies(nn.Module):
    """Lets a function use a linear layer."""

    def __init__(self, function, inputs=3):
        super().__init__()
        self.function = function
        self.inner = nn.Linear(inputs, 5)

    def forward(self, *arguments, **keywords):
        return self.function(self.inner, *arguments, **keywords)


ORDERS = {
    "one entry a sample": (lambda inner, x: inner(x), SINGLE),
    "windows": (lambda inner, x: inner(x.reshape(-1, 2, 3)), Found(0, "contiguous", 4)),
    "doubled": (lambda inner, x: inner(torch.cat([x, x + 1])), Found(0, "interleaved", 2)),
    "time first": (lambda inner, x: inner(x.transpose(0, 1)), Found(1, "single", 1)),
    "in the middle": (
        lambda inner, x: inner(x.reshape(-1, 2, 4, 3).transpose(0, 2)), Found(2, "single", 1)
    ),
    "windows in the middle": (
        lambda inner, x: inner(x.reshape(1, -1, 2, 3)), Found(1, "contiguous", 4)
    ),
}  # fmt: skip


@pytest.mark.parametrize("samples", [2, 3, 6])
@pytest.mark.parametrize("order", ORDERS)
def test_where_the_entries_of_a_sample_are(order, samples):
    function, expected = ORDERS[order]
    found = tried(Applies(function), torch.randn(samples, 8, 3))
    assert found.found == {"inner": expected}
    # What may be even by chance is looked at twice.
    assert (found.problems, found.passes) == ({}, 4 if expected.order == "single" else 6)
    assert found.seconds > 0


def sorted_tokens(inner, x):
    flat = x.flatten(0, 1)
    return inner(flat[flat[:, 0].argsort()])


def positive_tokens(inner, x):
    return inner(x[x[..., 0] > 0])


def mixed(inner, x):
    return inner(x - x.mean(0))


def of_positions(inner, x):
    inner(torch.ones(4, 3))
    return x


def twice_in_other_orders(inner, x):
    inner(torch.cat([x, x]))
    return inner(x)


def test_tokens_dealt_out_evenly_by_chance():
    """As many of each sample as of the other, in their order: only other values show it."""
    tokens = torch.ones(2, 4, 3)
    tokens[0, :2, 0] = tokens[1, 1:3, 0] = -1
    found = tried(Applies(positive_tokens), tokens)
    assert found.found == {}
    assert found.problems == {"inner": "its shape changes with the values"}


@pytest.mark.parametrize(
    ("function", "problem", "is_unclear"),
    [
        (sorted_tokens, "its entries are not those of one sample each", True),
        (positive_tokens, "its shape changes with the values", True),
        (mixed, "its entries are not those of one sample each", True),
        (of_positions, "nothing in it depends on the sample", False),
        (twice_in_other_orders, "its entries are not those of one sample each", False),
        (lambda inner, x: x, "it did not run", False),
    ],
)
def test_what_does_not_tell(function, problem, is_unclear):
    found = tried(Applies(function), torch.randn(6, 8, 3))
    assert found.found == {}
    assert found.problems == {"inner": problem}
    assert found.unclear == (found.problems if is_unclear else {})


def test_what_differs_hardly_ever_is_looked_for_in_several_samples():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    values = torch.randn(6, 3)
    with torch.no_grad():
        # Only the fifth sample lets a neuron fire.
        model[0].weight[:] = 0
        model[0].weight[0, 0] = 1
        model[0].bias[:] = 0
        values[:, 0] = -1
        values[4, 0] = 1
    found = tried(model, values)
    assert found.found == {"0": SINGLE, "1": SINGLE}
    assert found.passes == 10
    values[:, 0] = -1
    found = tried(model, values)
    assert (found.found, found.problems.keys()) == ({}, {"0", "1"})


@pytest.mark.parametrize(
    ("function", "order"),
    [
        (lambda inner, x: inner(x.flip(0)), "order"),
        (lambda inner, x: inner(x[x[:, 0, 0].argsort()]), "order"),
        (lambda inner, x: inner(x[x[:, 0, 0].argsort()].flatten(0, 1)), "order"),
        (lambda inner, x: inner(x + torch.arange(len(x) * 1.0)[:, None, None]), "change"),
    ],
)
def test_an_order_of_the_models_own(function, order):
    values = torch.randn(5, 3, 3)
    # Whatever takes the place of one of the first two, they stay in order.
    values[:, 0, 0] = torch.tensor([0, 9, 1, 2, 3])
    found = tried(Applies(function), values)
    assert found.problems == {
        "inner": ANOTHER_ORDER
        if order == "order"
        else "its entries change with the order of the samples"
    }


def test_nan_is_equal_to_nan():
    model = Applies(lambda inner, x: inner(torch.cat([x, x]) / 0 * 0))
    assert tried(model, torch.randn(4, 3)).problems == {
        "inner": "nothing in it depends on the sample"
    }


def test_samples_that_are_all_alike_tell_nothing():
    found = tried(Applies(lambda inner, x: inner(x)), torch.ones(4, 3))
    assert found.problems == {"inner": "the samples of the batch are all alike"}
    assert found.passes == 0


def test_one_sample_tells_nothing():
    found = tried(Applies(lambda inner, x: inner(x)), torch.ones(1, 3))
    assert found.problems == {"inner": "there is but one sample"}


# What a model takes


def attended(inner, tokens, *, mask=None, table=None, flag=False):
    assert mask.shape == tokens.shape
    assert flag
    assert table["of all"].shape == (9, 3)
    return inner(table["of all"][tokens] * mask[..., None]).flatten(0, 1)


def test_whole_numbers_keywords_and_mappings():
    tokens = torch.randint(0, 9, (4, 5))
    table = {"of all": torch.randn(9, 3), "no tensor": None}
    keywords = {"mask": torch.ones(4, 5), "table": table, "flag": True}
    assert tried(Applies(attended), tokens, **keywords).found == {"inner": SINGLE}
    assert tried(Applies(attended), tokens=tokens, **keywords).found == {"inner": SINGLE}
    example = {"tokens": tokens, **keywords}
    assert list(tsstore.layers(Applies(attended), example).index) == ["inner"]


@pytest.mark.parametrize("unknown", [object(), {1}, pack_sequence([torch.ones(2, 3)])])
def test_what_cannot_be_given_for_some_samples(unknown):
    name = type(unknown).__name__
    with pytest.raises(NotPossible, match=f"called with a {name}, of which samples cannot"):
        selected((unknown,), 0, 2, [0])
    found = tried(Applies(lambda inner, x, *_: inner(x)), torch.randn(4, 3), unknown)
    assert found.problems["inner"].startswith(f"the model was called with a {name}")
    assert tried(Applies(lambda inner: inner(torch.ones(3)))).problems == {
        "inner": "the model was called without a tensor"
    }


def test_a_model_that_cannot_take_two_samples_takes_them_all():
    def picky(inner, x):
        if len(x) != 6:
            raise ValueError("six at a time")
        return inner(torch.cat([x, x]))

    found = tried(Applies(picky), torch.randn(6, 3))
    assert found.found == {"inner": Found(0, "interleaved", 2)}
    found = tried(Applies(picky), torch.randn(5, 3))
    assert found.problems["inner"] == (
        "run on 5 samples, the model failed with ValueError: six at a time"
    )


def test_what_is_too_large_to_be_kept(monkeypatch):
    def picky(inner, x):
        if len(x) != 6:
            raise ValueError("six at a time")
        return inner(torch.cat([x, x]))

    monkeypatch.setattr("tsstore.recording.samples.experiment.MOST_BYTES_KEPT", 100)
    found = tried(Applies(picky), torch.randn(6, 3))
    assert found.problems["inner"].endswith("is too large to be kept")


class Sparse(nn.Module):
    def forward(self, values):
        return values.to_sparse()


def test_tensors_that_cannot_be_compared():
    found = tried(nn.Sequential(nn.Linear(3, 5), Sparse()), torch.randn(6, 3))
    assert found.problems["1"].startswith("comparing failed with ")


@pytest.mark.parametrize("samples", [None, 4])
def test_time_and_samples_in_the_first_two_axes(samples):
    model = Applies(lambda inner, x: inner(x.cumsum(0)))
    # Without a number, and a module that takes time first, the first axis is taken for samples.
    found = tried(model, torch.randn(7, 4, 3), samples=samples)
    assert found.found == ({} if samples is None else {"inner": Found(1, "single", 1)})
    lstm = nn.LSTM(3, 5)
    assert tried(lstm, torch.randn(7, 4, 3), samples=samples).found == {
        "LSTM": Found(1, "single", 1)
    }
    assert tried(model, torch.randn(4, 4, 3), samples=samples).found == {
        "inner": Found(1, "single", 1)
    }
    model = Applies(lambda inner, x: inner(x.cumsum(1)))
    assert tried(model, torch.randn(4, 4, 3), samples=samples).found == {"inner": SINGLE}
    # Where nothing passes between the entries of either axis, samples come first, unless a module
    # takes time first.
    model = Applies(lambda inner, x: inner(x))
    assert tried(model, torch.randn(4, 4, 3), samples=samples).found == {"inner": SINGLE}
    model.lstm = nn.LSTM(3, 5)
    found = find_samples(
        model, select(model, lambda name, _: name == "inner"), (torch.randn(4, 4, 3),), {}, samples
    )
    assert found.problems == {
        "inner": "the model's input may hold its samples in axis 0 or in axis 1"
    }


def test_an_input_without_an_axis_of_so_many_samples():
    found = tried(Applies(lambda inner, x: inner(x)), torch.randn(6, 3), samples=4)
    assert found.problems == {"inner": "none of the input's first axes, [6, 3], has 4 entries"}


def test_later_findings_take_the_place_of_earlier_ones():
    first = Findings({"a": SINGLE}, {"b": "no", "c": "no"})
    both = first.updated(Findings({"b": SINGLE}, {"c": "never"}, passes=3))
    assert both == Findings({"a": SINGLE, "b": SINGLE}, {"c": "never"}, passes=3)


# Without a trace


class Restless(nn.Module):
    """Changes all that a forward pass may change."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.inplace = nn.ReLU(inplace=True)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", None)
        self.cache = torch.zeros(2)
        self.calls = 0

    def forward(self, values):
        values = self.inplace(values)
        self.count += 1
        self.last = values.detach().clone()
        self.cache.fill_(7)
        self.calls += 1
        noise = torch.rand(()) + random.random() + np.random.rand()
        return self.drop(self.norm(self.inner(values) + noise))


def state_of(model):
    values = {name: value.clone() for name, value in model.state_dict().items()}
    others = model.calls, model.cache.tolist(), model.last is None
    modes = [module.training for module in model.modules()]
    numbers = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    return values, others, modes, numbers


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1:] == other[1:]


@pytest.mark.parametrize("gradients", [False, True])
def test_an_experiment_leaves_no_trace(gradients):
    model = Restless()
    model.norm.eval()
    seen = []
    handles = [
        model.inner.register_forward_hook(lambda *_: seen.append("after")),
        model.register_forward_pre_hook(lambda *_, **__: seen.append("before"), with_kwargs=True),
        model.register_forward_hook(lambda *_: seen.append("always"), always_call=True),
    ]
    values = torch.randn(4, 3)
    before, inputs = state_of(model), values.clone()
    with torch.set_grad_enabled(gradients):
        found = tried(model, values)
    assert found.found == dict.fromkeys(["inner", "norm", "drop", "inplace"], SINGLE)
    assert seen == []
    assert_same(before, state_of(model))
    assert torch.equal(values, inputs)
    model.eval()(values)
    assert seen == ["before", "after", "always"]
    for handle in handles:
        handle.remove()
    assert hook_count(model) == 0


def test_a_failure_leaves_no_trace():
    class Fails(Restless):
        def forward(self, values):
            super().forward(values)
            raise ValueError("at the end")

    model, values = Fails(), torch.randn(4, 3)
    before = state_of(model)
    assert "ValueError: at the end" in tried(model, values).problems["inner"]
    assert_same(before, state_of(model))
    assert hook_count(model) == 0


def test_tensors_of_inference_mode():
    model = Applies(lambda inner, x: inner(torch.cat([x, x]))).eval()
    with torch.inference_mode():
        model.register_buffer("count", torch.zeros(1))
        found = tried(model, torch.randn(4, 3))
    assert found.found == {"inner": Found(0, "interleaved", 2)}


def test_a_part_that_was_compiled_runs_as_it_is_written():
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    model[0].compile(backend="eager")
    model(torch.randn(2, 3))
    assert tried(model, torch.randn(4, 3)).found == {"0": SINGLE, "1": SINGLE}
    torch.compiler.reset()
    assert model[0]._compiled_call_impl is not None


@pytest.mark.parametrize("inference", [False, True])
def test_an_experiment_up_front_and_one_in_the_first_batch_find_the_same(tmp_path, inference):
    model = Applies(ORDERS["windows"][0]).train()
    values = torch.randn(4, 8, 3)
    rows = []
    for name, options in (("early", {"example_input": values}), ("late", {})):
        model.train(name == "early")
        mode = torch.inference_mode if inference else torch.no_grad
        path = tmp_path / name
        options |= {"layers": "inner", "durable": False}
        with mode(), tsstore.capture(model, path, **options) as recorder:
            model(values)
            assert recorder.statistics.batches == 1
        rows.append(tsstore.open(path)["inner"])
    assert (rows[0][:] == rows[1][:]).all()
    assert rows[0].read_positions().tolist() == rows[1].read_positions().tolist() == [8] * 4
    assert rows[0].attributes == rows[1].attributes


def test_the_table_shows_what_an_experiment_finds():
    table = tsstore.layers(Applies(ORDERS["windows"][0]), torch.randn(4, 8, 3))
    assert table["positions"]["inner"] == 8
    assert table["decided"]["inner"] == (
        "its width; samples: 4 entries each, contiguous: found by experiment"
    )
    table = tsstore.layers(Applies(ORDERS["time first"][0]), torch.randn(4, 8, 3))
    assert table["positions"]["inner"] == 8
    assert table["decided"]["inner"] == "its width; samples: axis 1: found by experiment"
    table = tsstore.layers(Applies(positive_tokens), torch.randn(4, 8, 3))
    assert table["decided"]["inner"].endswith("; samples: its shape changes with the values")
