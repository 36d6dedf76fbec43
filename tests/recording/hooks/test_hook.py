from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from watching import packed

from tsstore.errors import OutputError
from tsstore.recording.axes.layer import LayerAxes
from tsstore.recording.hooks.copies import CopiedHook, Copies
from tsstore.recording.hooks.hook import CaptureHook
from tsstore.recording.packing.packed import RowMemory
from tsstore.recording.selection.outputs import first_tensor
from tsstore.recording.selection.select import select


class Received(list):
    """A batch that is open, and what hooks hand on to it: (public name, rows)."""

    copies, sampler = Copies(""), None

    def __init__(self, active=True):
        self.active = active

    def takes_rows(self):
        return self.active

    def take(self, target, packed):
        self.append((target.name, packed))


@pytest.fixture
def received():
    return Received()


def attach(model, received, layers, *, threshold=0.0, **options):
    hooks = [
        CaptureHook(target, threshold, received, LayerAxes(target.axes), RowMemory())
        for target in select(model, layers, **options)
    ]
    for hook in hooks:
        hook.target.register(hook)
    return hooks


def test_it_packs_the_output_and_leaves_it_as_it_is(received):
    layer = nn.Linear(3, 11)
    plain = layer(torch.ones(2, 3))
    attach(layer, received, nn.Linear)
    output = layer(torch.ones(2, 3))
    ((name, found),) = received
    assert name == "Linear"
    assert (found.rows == packed(output)).all()
    assert torch.equal(output, plain)
    assert output.grad_fn is not None


def test_the_output_is_the_same_object(received):
    given = torch.randn(2, 4)
    identity = nn.Identity()
    attach(identity, received, nn.Identity)
    assert identity(given) is given
    assert len(received) == 1


def test_rows_are_packed_before_an_in_place_operation(received):
    model = nn.Sequential(nn.Linear(3, 20), nn.Hardtanh(0.5, 0.6, inplace=True))
    values = torch.randn(5, 3)
    expected = packed(model[0](values))
    attach(model, received, "0")
    assert (model(values) >= 0.5).all()
    assert (received[0][1].rows == expected).all()


def test_a_call_by_keywords_alone_is_captured_before(received):
    class Keywords(nn.Linear):
        def forward(self, *, values):
            return super().forward(values)

    layer = Keywords(3, 4)
    attach(layer, received, "Keywords", where="both")
    values = torch.randn(2, 3)
    layer(values=values)
    assert [name for name, _ in received] == ["Keywords:before", "Keywords"]
    assert (received[0][1].rows == packed(values)).all()


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(1),
        [None, (3, torch.ones(1))],
        {"hidden": None, "logits": torch.ones(1), "other": torch.zeros(1)},
        OrderedDict(a=[], b=(torch.ones(1), torch.zeros(1))),
        ((), {"values": torch.ones(1)}),
    ],
)
def test_the_first_tensor_however_nested(value):
    assert torch.equal(first_tensor(value), torch.ones(1))


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [[None], {"a": 1.5}]])
def test_no_tensor(value):
    assert first_tensor(value) is None


def test_packed_sequences_say_whose_each_entry_is(received):
    lstm = nn.LSTM(3, 4)
    attach(lstm, received, nn.LSTM)
    sequences = [torch.randn(2, 3), torch.randn(3, 3)]
    output, _ = lstm(pack_sequence(sequences, enforce_sorted=False))
    ((_, found),) = received
    assert found.owners.samples.tolist() == [1, 0, 1, 0, 1]
    assert found.form.decided == dict.fromkeys(
        ("neuron_axis", "sample_axis"), "its packed sequences"
    )
    np.testing.assert_array_equal(found.rows, packed(output.data))


class Gives(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, values):
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"Gives: found no tensor in the output NoneType of a Gives.*exclude the layer"),
        ("text", "in the output str"),
        (torch.ones(3), r"Gives: found a tensor of shape \(3,\)"),
        (torch.ones(2, 3, dtype=torch.complex64), "Gives: found a torch.strided tensor of"),
        (torch.ones(2, 0), r"Gives: found shape \(2, 0\)"),
    ],
)
def test_an_output_without_rows_is_an_error_that_names_the_layer(received, value, message):
    model = Gives(value)
    attach(model, received, Gives)
    with pytest.raises(OutputError, match=message):
        model(torch.ones(2, 3))


def test_a_copy_waits_where_nothing_tells_yet(received):
    value = torch.ones(2, 3, 4)
    model = Gives(value)
    attach(model, received, Gives)
    model(torch.ones(2, 3))
    ((name, waiting),) = received
    value.zero_()
    assert name == "Gives"
    assert torch.equal(waiting.tensor, torch.ones(2, 3, 4))


def test_an_input_without_tensor(received):
    model = Gives(torch.ones(2, 3))
    attach(model, received, Gives, where="before")
    with pytest.raises(OutputError, match="Gives:before: found no tensor in the input of a Gives"):
        model(None)


def test_a_threshold_beyond_the_outputs_dtype(received):
    layer = nn.Linear(3, 4).bfloat16()
    attach(layer, received, nn.Linear, threshold=1e39)
    with pytest.raises(OutputError, match=r"Linear: the threshold 1e\+39 is beyond"):
        layer(torch.ones(2, 3, dtype=torch.bfloat16))


def test_the_threshold_follows_the_dtype_of_each_call(received):
    identity = nn.Identity()
    attach(identity, received, nn.Identity, threshold=0.1)
    for dtype in (torch.float32, torch.float64):
        identity(torch.tensor([[0.1, 0.2]], dtype=dtype))
    assert [found.rows.item() for _, found in received] == [2, 2]
    assert received[0][1].form.threshold != received[1][1].form.threshold == 0.1


def test_while_a_model_is_compiled_a_hook_stays_outside(received, monkeypatch):
    layer = nn.Linear(3, 4)
    (hook,) = attach(layer, received, nn.Linear)
    monkeypatch.setattr(torch.compiler, "is_dynamo_compiling", lambda: True)
    output = layer(torch.randn(2, 3))
    assert (received[0][1].rows == packed(output)).all()
    assert hook.is_compiled


def test_rows_are_taken_only_when_they_are_wanted(received):
    layer = nn.Linear(3, 4)
    (hook,) = attach(layer, received, nn.Linear)
    received.active = False
    layer(torch.ones(2, 3))
    assert not received
    received.active = True
    layer(torch.ones(2, 3))
    hook.enabled = False
    layer(torch.ones(2, 3))
    assert len(received) == 1


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))]
)
@pytest.mark.parametrize("where", ["before", "after"])
def test_copies_of_a_hooked_model_work_and_capture_nothing(received, copied, where):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    attach(model, received, [nn.Sequential, nn.Linear, nn.ReLU], where=where)
    other = copied(model)
    values = torch.randn(2, 3)
    assert torch.equal(other[0](values).relu(), other(values))
    if copied is copy.copy:
        # The modules inside are the same ones; the copy itself is another.
        assert {name for name, _ in received} <= {"0", "1", "0:before", "1:before"}
    else:
        assert not received
        hooks = list(other[0]._forward_hooks.values()) + list(other[0]._forward_pre_hooks.values())
        assert [type(hook) for hook in hooks] == [CopiedHook]


def test_a_hooked_model_can_be_saved_whole(received, tmp_path):
    model = nn.Sequential(nn.Linear(3, 4))
    attach(model, received, "0")
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(loaded(torch.ones(2, 3)), model(torch.ones(2, 3)))
    assert len(received) == 1
