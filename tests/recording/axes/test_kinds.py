from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn
from watching import needs_exported_classes

from tsstore.recording.axes import kinds
from tsstore.recording.axes.kinds import Declared, gives, takes


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(x).mT


@pytest.mark.parametrize(
    ("module", "taken", "given"),
    [
        (nn.Linear(3, 4), (3, -1), (4, -1)),
        (nn.Conv1d(3, 4, 1), (3, 1), (4, 1)),
        (nn.ConvTranspose2d(3, 4, 1), (3, 1), (4, 1)),
        (nn.BatchNorm3d(4), (4, 1), (4, 1)),
        (nn.GroupNorm(2, 4), (4, 1), (4, 1)),
        (nn.LayerNorm(4), (4, -1), (4, -1)),
        (nn.Embedding(9, 4), None, (4, -1)),
        (nn.GRU(3, 4, bidirectional=True), (3, -1), (8, -1)),
        (nn.LSTM(3, 4, proj_size=2), (3, -1), (2, -1)),
        (nn.LSTMCell(3, 4), (3, -1), (4, -1)),
        (nn.MultiheadAttention(4, 2), (4, -1), (4, -1)),
        (nn.TransformerEncoderLayer(4, 2, 8), (4, -1), (4, -1)),
        (nn.PReLU(4), (4, 1), (4, 1)),
        (nn.MaxPool2d(2), (None, 1), (None, 1)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), (3, -1), (4, -1)),
        (Own(3, 4), (3, None), (4, None)),
        (nn.LayerNorm((3, 4)), None, None),
        (nn.PReLU(), None, None),
        (nn.ReLU(), None, None),
        (nn.Sequential(nn.Linear(3, 4)), None, None),
    ],
)
def test_what_modules_say(module, taken, given):
    assert takes(module) == (None if taken is None else Declared(*taken))
    assert gives(module) == (None if given is None else Declared(*given))


def test_other_outputs_of_a_module():
    lstm = nn.LSTM(3, 6, proj_size=2, bidirectional=True)
    widths = {path: gives(lstm, path).width for path in ("0", "1.0", "1.1")}
    assert widths == {"0": 4, "1.0": 2, "1.1": 6}
    assert gives(nn.MultiheadAttention(4, 2), "1") is None


def test_a_forward_that_was_replaced_is_not_trusted():
    layer = nn.Linear(3, 4)
    layer.forward = lambda x: x
    assert gives(layer) == Declared(4, None)


def test_a_wrapper_of_peft_says_what_its_layer_says(monkeypatch):
    """As peft wraps a layer for LoRA: the package itself is no dependency of the tests."""
    peft = ModuleType("peft.tuners.lora.layer")
    monkeypatch.setitem(sys.modules, peft.__name__, peft)
    source = "def forward(self, x):\n    return self.base_layer(x)\n"
    names = {"__name__": peft.__name__}
    exec(source, names)
    wrapper = type("Linear", (nn.Module,), {"forward": names["forward"]})()
    wrapper.base_layer = nn.Linear(3, 4)
    assert (gives(wrapper), takes(wrapper)) == (Declared(4, -1), Declared(3, -1))
    own = nn.Sequential()
    own.base_layer = nn.Conv2d(3, 4, 1)
    assert gives(own) is None


def test_transformers_linear_that_is_called_a_convolution():
    layer = pytest.importorskip("transformers.pytorch_utils").Conv1D(4, 3)
    assert (takes(layer), gives(layer)) == (Declared(3, -1), Declared(4, -1))


def test_what_keeps_its_layout():
    kept = (nn.GELU(), nn.Dropout(), nn.Identity(), nn.Softmax(-1), nn.LayerNorm((3, 4)))
    assert all(kinds.keeps_layout(module) for module in kept)
    others = (nn.GLU(), nn.MultiheadAttention(4, 2), nn.Flatten(), nn.Sequential(), Own(3, 4))
    assert not any(kinds.keeps_layout(module) for module in others)


def test_where_each_position_is_treated_by_itself():
    assert all(map(kinds.keeps_positions, (nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(3, 4))))
    others = (nn.Conv2d(3, 4, 1), nn.LSTM(3, 4), nn.EmbeddingBag(3, 4), nn.ReLU(), Own(3, 4))
    assert not any(map(kinds.keeps_positions, others))


@needs_exported_classes
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_what_torch_export_made_of_a_layer():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 4, 1), nn.LayerNorm(5)).eval()
    program = torch.export.export(model, (torch.randn(2, 3, 5, 5),), strict=False)
    layers = list(torch.export.unflatten(program).children())
    assert [gives(layer) for layer in layers] == [
        Declared(6, 1), Declared(None, 1), Declared(5, -1),
    ]  # fmt: skip
