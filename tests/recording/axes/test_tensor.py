from __future__ import annotations

import pytest
import torch
from torch import nn

from tsstore.errors import OutputError
from tsstore.recording.axes.tensor import Axes, UndecidedAxisError, choose, is_time_first


def axes_of(module: nn.Module, *shape: int, **options) -> tuple[int, int]:
    return Axes("layer", module, **options).of(torch.empty(shape))


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Linear(3, 4), (2, 4), (1, 0)),
        (nn.Linear(3, 4), (2, 5, 4), (2, 0)),
        (nn.Linear(3, 4), (2, 5, 6, 4), (3, 0)),
        (nn.LayerNorm(4), (2, 5, 4), (2, 0)),
        (nn.RMSNorm(4), (2, 5, 4), (2, 0)),
        (nn.Embedding(9, 4), (2, 5, 4), (2, 0)),
        (nn.LSTM(3, 4), (2, 5, 4), (2, 1)),
        (nn.LSTM(3, 4, batch_first=True), (2, 5, 4), (2, 0)),
        (nn.MultiheadAttention(4, 2), (2, 5, 4), (2, 1)),
        (nn.MultiheadAttention(4, 2, batch_first=True), (2, 5, 4), (2, 0)),
        (nn.Conv1d(3, 4, 1), (2, 4, 5), (1, 0)),
        (nn.Conv2d(3, 4, 1), (2, 4, 5, 6), (1, 0)),
        (nn.ConvTranspose3d(3, 4, 1), (2, 4, 5, 6, 7), (1, 0)),
        (nn.BatchNorm1d(4), (2, 4), (1, 0)),
        (nn.BatchNorm1d(4), (2, 4, 5), (1, 0)),
        (nn.GroupNorm(2, 4), (2, 4, 5), (1, 0)),
        (nn.MaxPool2d(2), (2, 4, 5, 6), (1, 0)),
        (nn.ReLU(), (2, 4), (1, 0)),
    ],
)
def test_a_modules_class_tells_where_neurons_and_samples_are(module, shape, expected):
    assert axes_of(module, *shape) == expected


def test_in_time_first_modules_samples_are_in_axis_1_of_three():
    assert axes_of(nn.Linear(3, 4), 5, 2, 4, time_first=True) == (2, 1)
    assert axes_of(nn.Linear(3, 4), 2, 4, time_first=True) == (1, 0)


def test_what_the_user_says_wins():
    assert axes_of(nn.ReLU(), 2, 4, 5, neuron_axis=1) == (1, 0)
    assert axes_of(nn.ReLU(), 2, 4, 5, neuron_axis=-1) == (2, 0)
    assert axes_of(nn.Linear(3, 4), 2, 4, 5, neuron_axis=1, sample_axis=-1) == (1, 2)


def test_more_axes_of_a_class_that_does_not_tell_are_ambiguous():
    for shape in ((2, 4, 5), (2, 4, 5, 6), (2, 4, 5, 6, 7)):
        with pytest.raises(UndecidedAxisError, match=r"neurons of a ReLU with .*\(2, 4, 5"):
            axes_of(nn.ReLU(), *shape)
        assert axes_of(nn.ReLU(), *shape, fallback=1) == (1, 0)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv1d(3, 4, 1), (4, 5)),
        (nn.Conv2d(3, 4, 1), (4, 5, 6)),
        (nn.Conv3d(3, 4, 1), (4, 5, 6, 7)),
        (nn.MaxPool2d(2), (4, 5, 6)),
        (nn.LSTM(3, 4), (5, 4)),
        (nn.MultiheadAttention(4, 2), (5, 4)),
    ],
)
def test_a_single_sample_without_an_axis_of_its_own_is_refused(module, shape):
    with pytest.raises(OutputError, match=r"no sample axis; feed batches.*unsqueeze"):
        axes_of(module, *shape)


@pytest.mark.parametrize("shape", [(), (7,)])
def test_a_tensor_without_room_for_both_is_refused(shape):
    with pytest.raises(OutputError, match="at least a sample axis and a neuron axis"):
        axes_of(nn.Linear(3, 4), *shape)


def test_axes_that_cannot_be_are_refused():
    with pytest.raises(OutputError, match=r"no axis 5 in shape \(2, 4\)"):
        axes_of(nn.ReLU(), 2, 4, neuron_axis=5)
    with pytest.raises(OutputError, match=r"axis 1 of \(2, 4\) cannot hold both"):
        axes_of(nn.ReLU(), 2, 4, neuron_axis=1, sample_axis=1)


def test_a_choice_is_for_all_or_by_name_or_glob():
    assert choose(None, "a") is None
    assert choose(2, "a") == 2
    assert choose({"block.*": 1, "block.act": 2}, "block.act") == 2
    assert choose({"block.*": 1}, "block.norm") == 1
    assert choose({"block.*": 1}, "head") is None


def test_time_first_follows_batch_first():
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    assert is_time_first(nn.LSTM(3, 4))
    assert is_time_first(nn.MultiheadAttention(4, 2))
    assert is_time_first(layer)
    assert is_time_first(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False))
    assert not is_time_first(nn.GRU(3, 4, batch_first=True))
    assert not is_time_first(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    assert not is_time_first(nn.Linear(3, 4))
