from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from watching import hook_count

import tsstore
from tsstore.demo.model import LeNet5
from tsstore.errors import SelectionError

COLUMNS = [
    "class", "neurons", "neuron_axis", "decided", "positions", "bytes_per_sample", "recommended",
    "hint",
]  # fmt: skip
FIRING = "an activation with its threshold at 0: on is firing"


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Conv2d(3, 20, 3),
        nn.BatchNorm2d(20),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(320, 10),
        nn.Softmax(dim=1),
    )


def test_without_an_example_it_tells_what_the_modules_tell(net):
    table = tsstore.layers(net)
    assert list(table.columns) == COLUMNS
    assert table.index.name == "layer"
    assert list(table.index) == ["0", "1", "2", "3", "4", "5"]
    assert table["class"]["0"] == "Conv2d"
    assert table["neurons"].tolist() == [20, 20, pd.NA, pd.NA, 10, pd.NA]
    assert table["positions"].isna().all()
    assert table["bytes_per_sample"].isna().all()


@pytest.mark.parametrize(
    ("module", "neurons"),
    [
        (nn.Linear(2, 3), 3),
        (nn.Embedding(9, 4), 4),
        (nn.LSTM(2, 5), 5),
        (nn.GroupNorm(2, 8), 8),
    ],
)
def test_neurons_as_a_module_declares_them(module, neurons):
    assert tsstore.layers(nn.Sequential(module))["neurons"]["0"] == neurons


def test_a_parametrised_layer_is_listed_and_what_makes_its_weights_is_not():
    net = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 1)), nn.ReLU(), spectral_norm(nn.Linear(5, 6)))
    for example in (None, torch.randn(2, 3, 5, 5)):
        table = tsstore.layers(net, example)
        assert table["class"].tolist() == ["ParametrizedConv2d", "ReLU", "ParametrizedLinear"]
        assert table["neurons"].tolist()[::2] == [4, 6]


def test_with_an_example_it_tells_what_a_sample_takes(net):
    table = tsstore.layers(net, torch.randn(2, 3, 6, 6))
    assert table["neurons"].tolist() == [20, 20, 20, 320, 10, 10]
    assert table["positions"].tolist() == [16, 16, 16, 1, 1, 1]
    assert table["bytes_per_sample"].tolist() == [48, 48, 48, 40, 2, 2]
    assert table["neurons"].dtype == table["positions"].dtype == "Int64"


def test_what_a_run_will_weigh_is_what_it_weighs(net, tmp_path):
    example = torch.randn(2, 3, 6, 6)
    for positions, expected in ((None, [48, 40]), (5, [15, 40])):
        table = tsstore.layers(net, example, samples=70, positions=positions)
        assert list(table.columns) == [*COLUMNS[:6], "bytes", *COLUMNS[6:]]
        assert table["bytes_per_sample"][["0", "3"]].tolist() == expected
        path = tmp_path / f"run{positions}"
        with tsstore.capture(net, path, layers=["0", "3"], positions=positions) as recorder:
            net(example)
            assert recorder.projected_bytes(70) == table["bytes"][["0", "3"]].sum()
            for _ in range(34):
                net(example)
            assert recorder.statistics.bytes == recorder.projected_bytes(70)
    assert tsstore.layers(net, samples=70)["bytes"].isna().all()


@pytest.mark.parametrize("example", [None, torch.randn(2, 3, 6, 6)])
def test_hints(net, example):
    table = tsstore.layers(net, example)
    hints = table["hint"]
    assert hints["0"] == "feeds BatchNorm2d: its sign is not the activation's"
    assert hints["5"] == "its output is always on: nothing to count"
    assert hints["2"] == FIRING
    assert hints[["1", "3", "4"]].tolist() == [""] * 3
    assert table["recommended"].tolist() == [False, False, True, False, False, False]


def test_an_activation_before_a_norm_is_fine_even_in_place():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(4))
    for example in (None, torch.randn(2, 3, 5, 5)):
        table = tsstore.layers(net, example)
        assert table["hint"].tolist() == ["", FIRING, ""]
        assert table["recommended"].tolist() == [False, True, False]


class Wired(nn.Module):
    """No Sequential: only a run shows what feeds what."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.first = nn.Linear(3, 4)
        self.act = nn.ReLU()
        self.unused = nn.Linear(3, 7)

    def forward(self, values, scale=None):
        return self.act(self.act(self.norm(self.first(values))))


def test_a_run_shows_what_feeds_what_and_what_is_called_twice():
    table = tsstore.layers(Wired(), (torch.randn(2, 3), None))
    assert table["hint"]["first"].startswith("feeds BatchNorm1d")
    assert table["hint"]["act"].startswith("called 2 times a forward pass: as many layers, or")
    assert table["positions"]["act"] == 2
    assert table["neurons"]["unused"] == 7
    assert pd.isna(table["positions"]["unused"])
    assert table["hint"]["act"].endswith(f"; {FIRING}")
    assert tsstore.layers(Wired())["hint"].tolist() == ["", "", FIRING, ""]


class Branching(nn.Module):
    """Its first layer feeds two others."""

    def __init__(self, norm_first):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.act = nn.ReLU()
        self.norm_first = norm_first

    def forward(self, values):
        values = self.first(values)
        takers = [self.norm, self.act] if self.norm_first else [self.act, self.norm]
        return takers[0](values) + takers[1](values)


@pytest.mark.parametrize("norm_first", [True, False])
def test_of_two_followers_the_first_one_counts(norm_first):
    table = tsstore.layers(Branching(norm_first), torch.randn(2, 3))
    assert ("feeds" in table["hint"]["first"]) == norm_first


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.text = Text()
        self.act = nn.ReLU()
        self.complex = Complex()

    def forward(self, values):
        self.text(values)
        self.complex(values)
        return self.act(values)


class Text(nn.Module):
    def forward(self, values):
        return "text"


class Complex(nn.Module):
    def forward(self, values):
        return values.to(torch.complex64)


def test_what_cannot_be_captured_says_why():
    hints = tsstore.layers(Odd(), torch.randn(2, 3, 4))["hint"]
    assert hints["text"] == "gives no tensor"
    assert "neuron_axis={'act': -1}" in hints["act"]
    assert "complex64" in hints["complex"]


def test_the_sample_axis_of_a_recurrent_layer():
    table = tsstore.layers(nn.Sequential(nn.LSTM(3, 5)), torch.randn(7, 2, 3))
    assert (table["neurons"]["0"], table["positions"]["0"]) == (5, 7)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_model_stays_as_it_is(net, training, fails):
    net.train(training)
    net[1].train(not training)
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    if fails:
        with pytest.raises(RuntimeError):
            tsstore.layers(net, torch.randn(2, 99))
    else:
        tsstore.layers(net, torch.randn(2, 3, 6, 6))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert hook_count(net) == 0


def test_a_layer_alone_is_its_own_model():
    table = tsstore.layers(nn.Linear(3, 4), torch.randn(2, 3))
    assert table.index.tolist() == ["Linear"]
    assert table["neurons"]["Linear"] == 4


def test_a_model_that_cannot_be_hooked():
    with pytest.raises(SelectionError, match="DataParallel"):
        tsstore.layers(nn.DataParallel(nn.Linear(3, 4)))


def test_the_demos_network():
    model = LeNet5()
    table = tsstore.layers(model, torch.zeros(2, 1, 28, 28))
    convolutions = table.loc[["conv_1", "conv_2", "conv_3", "pred"]]
    assert convolutions["neurons"].tolist() == [20, 50, 100, 10]
    assert convolutions["positions"].tolist() == [576, 64, 1, 1]
    assert convolutions["bytes_per_sample"].tolist() == [576 * 3, 64 * 7, 13, 2]
    activations = table["class"] == "ELU"
    assert table["recommended"].tolist() == activations.tolist()
    assert (table["hint"] == "").tolist() == (~activations).tolist()
    assert tsstore.layers(model)["neurons"]["conv_3"] == 100


def test_a_share_of_the_positions_is_what_a_sample_has_on_average(net):
    table = tsstore.layers(net, torch.randn(2, 3, 6, 6), samples=100, positions=0.1)
    # 1.6 of 16 positions; layers without positions have theirs.
    assert table["positions"].tolist() == [2, 2, 2, 1, 1, 1]
    assert table["bytes_per_sample"][["0", "3"]].tolist() == [5, 40]
