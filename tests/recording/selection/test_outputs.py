from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import tsstore
from tsstore.errors import OutputError, ResumeError, SelectionError
from tsstore.recording.axes.tensor import is_time_first_at
from tsstore.recording.selection.outputs import first_tensor, value_at
from tsstore.recording.selection.select import select

Named = namedtuple("Named", ["values", "indices"])


@dataclass
class Result:
    loss: float
    hidden: list


FOUND = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ((None, FOUND), "1"),
        ([1, (2, FOUND)], "1.1"),
        ((None, (FOUND, None)), "-1.-2"),
        ({"last_hidden_state": FOUND}, "last_hidden_state"),
        ({"hidden_states": (None, FOUND)}, "hidden_states.-1"),
        (OrderedDict([(0, None), (7, FOUND)]), "7"),
        (Named(None, FOUND), "indices"),
        (Named(None, FOUND), "1"),
        (Result(0.5, [FOUND]), "hidden.0"),
    ],
)
def test_a_path_leads_to_a_value(value, path):
    assert value_at(value, path) is FOUND


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ((FOUND, FOUND), "2", r"no '2' in the output, a tuple with 0, 1; .* than '2'"),
        ((FOUND, (FOUND,)), "1.4", r"no '4' in '1' of the output, a tuple with 0; .* than '1.4'"),
        ({"a": FOUND}, "b", "a dict with a; pass another outputs="),
        ({}, "b", "a dict with nothing in it"),
        (Named(1, 2), "shape", "a Named with 0, 1, values, indices"),
        (FOUND, "0", r"a Tensor of shape \(2, 3\)"),
        ({"a": FOUND}, "a.T", r"no 'T' in 'a' of the output, a Tensor of shape"),
        ("text", "0", "a str with nothing in it"),
        (None, "0", "a NoneType with nothing in it"),
        (Result(0.5, []), "logits", "a Result with loss, hidden"),
        (pack_sequence([FOUND]), "length", "a PackedSequence with 0, 1, 2, 3, data, batch_sizes"),
    ],
)
def test_a_path_to_nothing_says_what_there_is(value, path, message):
    with pytest.raises(OutputError, match=message):
        value_at(value, path)


def test_the_first_tensor_of_what_a_path_leads_to():
    assert first_tensor(value_at({"a": (None, [FOUND])}, "a")) is FOUND


def test_paths_belong_to_outputs_of_layers_by_name_or_glob():
    model = nn.Sequential(nn.LSTM(3, 4), nn.GRU(4, 5))
    targets = select(model, nn.RNNBase, where="both", outputs={"0": "1.0"})
    assert [(target.name, target.output) for target in targets] == [
        ("0:before", None), ("0", "1.0"), ("1:before", None), ("1", None),
    ]  # fmt: skip
    assert [target.output for target in select(model, nn.RNNBase, outputs="1")] == ["1", "1"]
    assert [target.output for target in select(model, ["0", "1"], outputs={"*": "1"})] == ["1", "1"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"lstn": "1.0"}, "outputs names 'lstn', which fits none of the layers .*: 0$"),
        ({"0": "1.0", "b*": "1"}, r"outputs names 'b\*'"),
        ({"0": 1}, "outputs has 1 for '0'; expected a path"),
        ({"0": ""}, "outputs has '' for '0'"),
        (1, r"outputs has 1 for '\*'"),
    ],
)
def test_paths_that_lead_nowhere_are_refused_at_once(outputs, message):
    with pytest.raises(SelectionError, match=message):
        select(nn.Sequential(nn.LSTM(3, 4)), nn.LSTM, outputs=outputs)


def test_an_output_that_is_not_there_names_the_layer(tmp_path):
    model = nn.Sequential(nn.LSTM(3, 4))
    with tsstore.capture(model, tmp_path / "run", layers="0", outputs={"0": "1.2"}) as recorder:
        with pytest.raises(OutputError, match=r": 0: there is no '2' in '1' of the output"):
            model(torch.randn(7, 2, 3))
        assert recorder.statistics.batches == 0


def test_another_output_is_another_layer_to_go_on_from(tmp_path):
    model = nn.GRU(3, 4)
    for outputs, resume in (("0", False), ("0", True), ("1", True)):
        recorder = tsstore.capture(
            model, tmp_path / "run", layers="GRU", outputs=outputs, resume=resume, durable=False
        )
        with recorder:
            if outputs == "1":
                with pytest.raises(ResumeError, match="output: 1 in this job, 0 there"):
                    model(torch.randn(7, 2, 3))
            else:
                model(torch.randn(7, 2, 3))
    assert tsstore.open(tmp_path / "run").samples == 4


def test_where_samples_are_in_another_output_of_a_module():
    lstm, attention = nn.LSTM(3, 4, batch_first=True), nn.MultiheadAttention(4, 2)
    assert is_time_first_at(lstm, "1.0", False)
    assert not is_time_first_at(lstm, "0", False)
    assert not is_time_first_at(attention, "1", True)
    assert is_time_first_at(attention, "0", True)
    assert is_time_first_at(nn.TransformerEncoder, None, True)
