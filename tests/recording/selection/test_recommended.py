"""Which layers are recommended: those whose sign is the firing of their neurons."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from watching import hook_count, joined, stored, watched

import tsstore
from tsstore.errors import SelectionError


def recommended(model, example):
    table = tsstore.layers(model, example)
    return table.index[table["recommended"]].tolist()


@pytest.mark.parametrize(
    "module",
    [
        nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU(), nn.ELU(), nn.SELU(),
        nn.CELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish(),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_activations_with_a_threshold_at_zero(module):
    """They let through what is above zero, and hold what is below at or near it."""
    values = torch.linspace(-9, 9, 37)
    given = module.eval()(values)
    assert torch.equal(given > 0, values > 0)
    assert abs(float(given[0].detach())) <= float(given[-1].detach()) / 2
    for example in (None, torch.randn(2, 3)):
        table = tsstore.layers(nn.Sequential(nn.Linear(3, 4), module), example)
        assert table["recommended"].tolist() == [False, True]
        assert "on is firing" in table["hint"]["1"]


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        (nn.Sigmoid(), "always on"),
        (nn.Softplus(), "always on"),
        (nn.Tanh(), '"> 0" is a convention here: it is alike on both sides'),
        (nn.Softsign(), '"> 0" is a convention here'),
        (nn.Dropout(), '"> 0" is a convention here: it passes on the sign'),
        (nn.LayerNorm(4), '"> 0" is a convention here: what it gives lies around 0'),
        (nn.GLU(), ""),
        (nn.Identity(), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_others_are_not_recommended_and_say_what_their_sign_is(module, hint):
    for example in (None, torch.randn(2, 3)):
        table = tsstore.layers(nn.Sequential(nn.Linear(3, 4), module), example)
        assert not table["recommended"].any()
        assert hint in table["hint"]["1"]
        assert bool(table["hint"]["1"]) == bool(hint)


@pytest.mark.parametrize("module", [nn.LSTM(3, 4), nn.GRUCell(3, 4), nn.Embedding(3, 4)])
def test_a_layer_without_a_threshold_says_that_it_is_a_convention(module):
    assert '"> 0" is a convention here: ' in tsstore.layers(module)["hint"].item()


class Functional(nn.Module):
    """A residual network whose activations are functions, as many are written."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = weight_norm(nn.Linear(8, 9))
        self.drop = nn.Dropout()
        self.last = nn.Linear(9, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, images):
        first = torch.relu(self.stem(images))
        features = functional.relu(self.norm(self.conv(first)) + first)
        features = functional.silu(self.norm(features), inplace=True) * self.gate(first).sigmoid()
        hidden = functional.gelu(self.hidden(self.pool(features).flatten(1)))
        return self.head(self.last(self.drop(hidden)).relu_())


def test_where_activations_are_functions_it_is_the_layer_before():
    table = tsstore.layers(Functional(), torch.randn(2, 3, 6, 6))
    expected = {"stem": "relu", "norm": "silu", "hidden": "gelu", "last": "relu"}
    assert table.index[table["recommended"]].tolist() == list(expected)
    for name, function in expected.items():
        assert f"{function} with its threshold at 0: on is firing" in table["hint"][name]
    assert table["hint"]["conv"].startswith("feeds BatchNorm2d")


class AddedInPlace(nn.Module):
    """The block of a ResNet as torchvision writes it, with functions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        out = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        out += x
        return functional.relu(out, inplace=True)


def test_what_is_added_to_before_its_activation_has_other_signs():
    assert recommended(AddedInPlace(), torch.randn(3, 4, 5, 5)) == ["norm1"]


class Own(nn.Module):
    """An activation of a user's own."""

    def forward(self, values):
        return functional.gelu(values * 1.0)


class Fused(nn.Linear):
    """A layer with its activation in it."""

    def forward(self, values):
        return torch.relu(super().forward(values))


class Inner(nn.Linear):
    """A layer in which an activation comes before its weights."""

    def forward(self, values):
        return super().forward(torch.relu(values))


def test_a_module_with_the_function_in_it_is_judged_by_what_it_gives():
    model = nn.Sequential(nn.Linear(3, 4), Own(), Fused(4, 4), Inner(4, 4), nn.ReLU())
    assert recommended(model, torch.randn(2, 3)) == ["1", "2", "4"]


class Biased(nn.Module):
    """Adds what a network of its own makes of a table of positions, as Swin V2 does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(1, 6, 2))
        self.register_buffer("memory", torch.zeros(2, 6, 8))
        self.bias = nn.Sequential(weight_norm(nn.Linear(2, 8)), nn.ReLU(), nn.Linear(8, 8))
        self.first, self.act, self.last = nn.Linear(3, 8), nn.ReLU(), nn.ReLU()

    def forward(self, tokens):
        self.memory[:] = self.act(self.first(tokens) + self.bias(self.table))
        return self.last(self.memory)


def test_what_does_not_depend_on_the_input_is_not_recommended():
    example = torch.randn(2, 6, 3)
    model = Biased()
    assert recommended(model, example) == ["act", "last"]
    hints = tsstore.layers(model, example)["hint"]
    same = {name for name in hints.index if "whatever the input is" in hints[name]}
    assert {"bias.0", "bias.2"} <= same
    assert not same & {"act", "first", "last"}


class Rows(nn.Module):
    """Takes a row of a table twice, and writes to what it has made of another."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 3))
        self.fixed, self.mixed, self.act = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        same = self.fixed(self.table[0]) + self.fixed(self.table[0])
        written = self.table * 1
        written[1:3] = x[:2]
        return self.act(x) + same + self.mixed(written)[0]


def test_looking_at_a_part_of_a_constant_is_no_writing():
    assert recommended(Rows(), torch.randn(4, 3)) == ["mixed", "act"]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 20, batch_first=True, activation="gelu")
        self.embed = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, input_ids=None):
        return self.encoder(self.embed(input_ids))


def test_a_transformer_by_keyword_arguments():
    example = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]])}
    model = Encoder()
    names = ["encoder.layers.0.linear1", "encoder.layers.1.linear1"]
    assert recommended(model, example) == names
    assert hook_count(model) == 0


def test_activations_of_transformers_are_known():
    transformers = pytest.importorskip("transformers")
    configuration = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=20, max_position_embeddings=16,
    )  # fmt: skip
    model = transformers.BertModel(configuration)
    example = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]])}
    assert recommended(model, example) == [
        f"encoder.layer.{number}.intermediate.intermediate_act_fn" for number in (0, 1)
    ]


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="this torch has no stances")
def test_a_compiled_model_is_watched_as_it_is_written():
    torch.compiler.reset()
    model = torch.compile(Functional(), backend="eager", fullgraph=True)
    with torch.no_grad():
        model.eval()(torch.randn(2, 3, 6, 6))
    assert recommended(model, torch.randn(2, 3, 6, 6)) == ["stem", "norm", "hidden", "last"]
    torch.compiler.reset()


def test_capturing_what_is_recommended(tmp_path):
    model = Functional().eval()
    values = torch.randn(4, 3, 6, 6)
    options = {"example_input": values[:2], "exclude": "norm", "durable": False}
    run = tsstore.capture(model, tmp_path / "run", layers="recommended", **options)
    with watched(model.stem, model.hidden, model.last) as seen, run as recorder:
        assert list(recorder.hooks) == ["stem", "hidden", "last"]
        model(values)
    for name, tensors in zip(recorder.hooks, seen, strict=True):
        np.testing.assert_array_equal(stored(tmp_path / "run", name), joined(tensors))


def test_capturing_what_is_recommended_needs_an_example(tmp_path):
    with pytest.raises(SelectionError, match=r"expected capture.*example_input="):
        tsstore.capture(Functional(), tmp_path / "run", layers="recommended")
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    with pytest.raises(SelectionError, match="no layer's sign is the firing"):
        tsstore.capture(
            model, tmp_path / "run", layers="recommended", example_input=torch.ones(2, 3)
        )
    assert not (tmp_path / "run").exists()
