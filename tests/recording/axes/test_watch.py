"""Looking at all modules for one batch: fast paths, compiled code and others stay as they are."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from watching import has_any_global_hook, joined, stored, watched

import tsstore
from tsstore.errors import OutputError


class Block(nn.Module):
    """Its activation is told by the layer before, which is not captured."""

    def __init__(self, width):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 7), nn.GELU(), nn.Linear(7, width)

    def forward(self, x):
        return x + self.fc2(self.act(self.fc1(torch.sin(x) * 2)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 1)
        self.blocks = nn.ModuleList([Block(5), Block(5)])
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x) * 2


@pytest.fixture
def compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def values():
    return torch.randn(2, 3, 4, 4)


def compiled(net, how, backend):
    """Compile a network; return what is captured and what is called."""
    if how == "whole":
        called = torch.compile(net, backend=backend)
        return called, called
    if how == "in place":
        net.compile(backend=backend)
    elif how == "a part":
        net.blocks[0] = torch.compile(net.blocks[0], backend=backend)
    elif how == "a part in place":
        net.blocks[0].compile(backend=backend)
    return net, net


@pytest.mark.parametrize(
    ("how", "in_block"),
    [("whole", False), ("in place", False), ("in place", True), ("a part", False),
     ("a part in place", True)],
)  # fmt: skip
def test_nothing_is_compiled_anew(tmp_path, compiler, values, how, in_block):
    from torch._dynamo.testing import CompileCounter

    frames = {}
    for name, options in {"told": {"neuron_axis": -1}, "followed": {}}.items():
        torch.compiler.reset()
        counter = CompileCounter()
        net = Net().eval()
        with torch.no_grad(), watched(*(block.act for block in net.blocks)) as seen:
            net(values)
        model, call = compiled(net, how, counter)
        before = getattr(net, "_compiled_call_impl", None)
        capturing = tsstore.capture(
            model, tmp_path / name, layers=nn.GELU, durable=False, **options
        )
        with torch.no_grad(), capturing as recorder:
            counts = []
            for _ in range(3):
                if in_block:
                    with recorder.batch():
                        call(values)
                else:
                    call(values)
                counts.append(counter.frame_count)
        frames[name] = counts
        assert getattr(net, "_compiled_call_impl", None) is before
        store = tsstore.open(tmp_path / name)
        assert [store[layer].neurons for layer in store.layers] == [7, 7]
        for layer, tensors in zip(store.layers, seen, strict=True):
            np.testing.assert_array_equal(stored(tmp_path / name, layer), joined(3 * tensors, 3))
    assert frames["told"][0] > 0
    assert frames["followed"][0] == 0, "the first batch runs as it is written"
    assert frames["followed"][1:] == frames["told"][1:]
    assert not has_any_global_hook()


def test_a_model_that_is_compiled_behind_the_captures_back(tmp_path, compiler, values):
    """Its own hooks run in compiled code: what they could see would be compiled with them."""
    from torch._dynamo.testing import CompileCounter

    net = Net().eval()
    counter = CompileCounter()
    call = torch.compile(net, backend=counter)
    with torch.no_grad(), tsstore.capture(net, tmp_path / "run", layers=nn.GELU) as recorder:
        message = r"compiled code.* recorder.batch\(\) .*neuron_axis=…"
        with pytest.raises(OutputError, match=message):
            call(values)
        with recorder.batch():
            call(values)
        before = counter.frame_count
        call(values)
        assert counter.frame_count == before
    assert [layer.neurons for layer in tsstore.open(tmp_path / "run").values()] == [7, 7]


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
def test_a_transformer_stays_on_its_fast_path(tmp_path, monkeypatch):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(layer, nn.Linear(8, 6), nn.GELU()).eval()
    values = torch.randn(3, 5, 8)
    calls = []
    fast = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(
        torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(1) or fast(*a)
    )
    with torch.no_grad():
        plain = model(values)
        with tsstore.capture(model, tmp_path / "run", layers=nn.GELU, durable=False):
            outputs = [model(values), model(values)]
    assert len(calls) == 3
    assert all(torch.equal(output, plain) for output in outputs)
    layer = tsstore.open(tmp_path / "run")["2"].attributes
    assert (layer.neuron_axis, layer.decided["neuron_axis"]) == (2, "the layer it follows: 1")


def test_other_models_that_run_meanwhile_are_let_pass(tmp_path):
    other = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU())

    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = nn.Linear(6, 6), nn.ReLU()

        def forward(self, x):
            other(x)
            return self.act(self.fc(x))

    model = Calls()
    with tsstore.capture(model, tmp_path / "run", layers="act"):
        model(torch.randn(2, 6, 6, 6))
    layer = tsstore.open(tmp_path / "run")["act"].attributes
    assert layer.neuron_axis == 3


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_stays_behind_when_the_first_batch_is_cut_off(tmp_path, compiler, values, error):
    net = Net()
    net.compile(backend="eager")
    before = net._compiled_call_impl

    def fail(*call):
        raise error

    handle = net.head.register_forward_hook(fail)
    with tsstore.capture(net, tmp_path / "run", layers=nn.GELU):
        with pytest.raises(error):
            net(values)
        handle.remove()
        with torch.no_grad():
            net(values)
        assert net._compiled_call_impl is before
    assert not has_any_global_hook()
    assert tsstore.open(tmp_path / "run").samples == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.compile(nn.Linear(2, 2), backend="eager")(torch.ones(1, 2))


@pytest.mark.filterwarnings("ignore:.*the capture ended without a sample")
def test_a_capture_that_never_ran_leaves_the_model_compiled(tmp_path, compiler):
    net = Net()
    net.compile(backend="eager")
    before = net._compiled_call_impl
    with tsstore.capture(net, tmp_path / "run", layers=nn.GELU):
        assert net._compiled_call_impl is None
    assert net._compiled_call_impl is before


class Experts(nn.Module):
    """One of two runs."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(Block(4) for _ in range(2))
        self.number = 0

    def forward(self, x):
        return self.experts[self.number](x)


def test_a_layer_that_never_comes_is_not_looked_for_for_ever(tmp_path):
    model, values, during = Experts(), torch.randn(2, 3, 4), []
    hooks = torch_module._global_forward_hooks
    model.experts[0].fc2.register_forward_hook(lambda *call: during.append(len(hooks)))
    options = {"layers": nn.GELU, "missing": "empty", "durable": False}
    with tsstore.capture(model, tmp_path / "run", **options):
        for _ in range(20):
            model(values)
        assert during == [1] * 17 + [0] * 3
        model.number = 1
        with pytest.raises(OutputError, match=r"experts.1.act: nothing tells .*neuron_axis="):
            model(values)
    assert tsstore.open(tmp_path / "run").samples == 40


def test_a_layer_that_comes_later_is_looked_at_then(tmp_path):
    model = Experts()
    with tsstore.capture(model, tmp_path / "run", layers=nn.GELU, missing="empty"):
        for number in (0, 0, 1):
            model.number = number
            model(torch.randn(2, 3, 4))
        assert not has_any_global_hook()
    store = tsstore.open(tmp_path / "run")
    assert [store[name].attributes.neuron_axis for name in store.layers] == [2, 2]
    assert [store[name].rows for name in store.layers] == [12, 6]
