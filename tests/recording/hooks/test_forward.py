"""What a capture sees of a running model: passes, calls, axes, wrappers, other processes."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint
from watching import capture, hook_count, joined, packed, stored, watched

import tsstore
from tsstore.errors import (
    CaptureError,
    ColumnsError,
    OutputError,
    SelectionError,
    TsstoreWarning,
)

EAGER = {"backend": "eager"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 9, 3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(9, 4)
        self.before_head = lambda: None

    def encode(self, images):
        return self.relu(self.conv(images))

    def forward(self, images):
        features = self.encode(images).mean((2, 3))
        self.before_head()
        return self.head(features)


@pytest.fixture
def net():
    return Net().eval()


def images(count, size=6):
    return torch.randn(count, 1, size, size)


def fail(error):
    raise error


def test_each_outermost_forward_pass_is_a_batch(net, path):
    with watched(net.conv, net.head) as (conv, head), capture(net, path, ["conv", "head"]) as rec:
        for count in (4, 4, 1):
            net(images(count))
        assert rec.statistics.batches == 3
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv))
    np.testing.assert_array_equal(stored(path, "head"), joined(head))
    assert tsstore.open(path).samples == 9
    assert tsstore.open(path)["conv"].positions == 16


def test_the_output_is_untouched_and_an_in_place_operation_changes_no_row(net, path):
    values = images(3)
    expected = net(values)
    before = net.conv(values)
    with capture(net, path, ["conv", "relu"]):
        assert torch.equal(net(values), expected)
    np.testing.assert_array_equal(stored(path, "conv"), joined([before]))
    np.testing.assert_array_equal(stored(path, "relu"), joined([before.relu()]))


def test_image_sizes_may_vary(net, path):
    with watched(net.conv) as (conv,), capture(net, path, "conv"):
        for size in (6, 9, 3):
            net(images(2, size))
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv))
    assert tsstore.open(path)["conv"].read_positions().tolist() == [16, 16, 49, 49, 1, 1]


def test_several_forward_passes_in_one_batch_add_positions(net, path):
    with watched(net.conv) as (conv,), capture(net, path, "conv") as recorder:
        for _ in range(2):
            with recorder.batch(label=[0, 1]):
                for size in (6, 4):
                    net(images(2, size))
    rows = [
        np.concatenate([packed(large), packed(small)], axis=1).reshape(-1, 2)
        for large, small in zip(conv[::2], conv[1::2], strict=True)
    ]
    np.testing.assert_array_equal(stored(path, "conv"), np.concatenate(rows))
    assert tsstore.open(path)["conv"].positions == 20
    assert tsstore.open(path).samples == 4


def test_a_part_of_the_model_can_be_called_alone(net, path):
    with watched(net.conv, net.head) as (conv, head), capture(net, path, ["conv", "head"]) as rec:
        for _ in range(2):
            with rec.batch(label=[1, 2, 3]):
                net.head(net.encode(images(3)).mean((2, 3)))
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv))
    np.testing.assert_array_equal(stored(path, "head"), joined(head))


def test_a_part_that_is_called_again_adds_positions(net, path):
    with (
        watched(net.conv) as (conv,),
        capture(net, path, "conv") as recorder,
        recorder.batch(label=[1, 2, 3]),
    ):
        net.encode(images(3))
        net.encode(images(3, 4))
    rows = np.concatenate([packed(tensor) for tensor in conv], axis=1)
    np.testing.assert_array_equal(stored(path, "conv"), rows.reshape(-1, 2))
    assert tsstore.open(path).layers == ("conv",)


def test_after_a_failed_pass_calls_are_outside_again(net, path):
    with capture(net, path, "conv") as recorder:
        net.before_head = lambda: fail(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            net(images(2))
        with pytest.warns(TsstoreWarning, match="outside of any batch"):
            net.encode(images(2))
        assert recorder.statistics.calls_outside == 1


def test_calls_outside_of_any_batch_are_counted_and_warned_of_once(net, path):
    with capture(net, path, ["conv", "head"]) as recorder:
        with pytest.warns(TsstoreWarning, match=r"outside of any batch.*recorder.batch\(\)") as w:
            net.encode(images(2))
        assert len(w) == 1
        net.encode(images(2))
        net.head(torch.ones(2, 9))
        net(images(2))
        assert recorder.statistics.calls_outside == 3
        assert recorder.statistics.samples == 2
    assert tsstore.open(path)["conv"].rows == 32


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.second = nn.Linear(8, 8)
        self.relu = nn.ReLU()
        self.times = 2

    def forward(self, values):
        values = self.relu(self.first(values))
        for _ in range(self.times - 1):
            values = self.relu(self.second(values))
        return values


def test_calls_of_a_shared_module_are_layers_of_their_own(path):
    model = Shared()
    with watched(model.relu) as (relu,), capture(model, path, "relu"):
        for count in (3, 2):
            model(torch.randn(count, 3))
    assert tsstore.open(path).layers == ("relu#1", "relu#2")
    np.testing.assert_array_equal(stored(path, "relu#1"), joined(relu[::2]))
    np.testing.assert_array_equal(stored(path, "relu#2"), joined(relu[1::2]))
    assert tsstore.open(path)["relu#2"].attributes.call == 2


def test_calls_can_be_merged_however_many_they_are(path):
    model = Shared()
    with watched(model.relu) as (relu,), capture(model, path, "relu", calls="merge"):
        for model.times in (2, 3):
            model(torch.randn(2, 3))
    assert tsstore.open(path).layers == ("relu",)
    first = np.concatenate([packed(tensor) for tensor in relu[:2]], axis=1)
    second = np.concatenate([packed(tensor) for tensor in relu[2:]], axis=1)
    expected = np.concatenate([first.reshape(-1, 1), second.reshape(-1, 1)])
    np.testing.assert_array_equal(stored(path, "relu"), expected)
    assert tsstore.open(path)["relu"].read_positions().tolist() == [2, 2, 3, 3]


@pytest.mark.parametrize("now", [1, 3])
def test_a_number_of_calls_that_changes_is_an_error(path, now):
    model = Shared()
    with capture(model, path, "relu") as recorder:
        model(torch.randn(2, 3))
        model.times = now
        with pytest.raises(CaptureError, match=f"called 2 times .* {now} times .*calls='merge'"):
            model(torch.randn(2, 3))
        assert recorder.statistics.batches == 1


class Reentrant(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.depth = depth
        self.layer = nn.Linear(4, 4)

    def forward(self, values, depth=None):
        depth = self.depth if depth is None else depth
        values = self.layer(values)
        return self(values, depth - 1) if depth > 1 else values


def test_a_model_that_calls_itself_is_one_batch(path):
    model = Reentrant(3)
    with watched(model.layer) as (layer,), capture(model, path, ["layer", "Reentrant"]) as recorder:
        model(torch.randn(2, 4))
        assert recorder.statistics.batches == 1
    assert set(tsstore.open(path).layers) == {
        f"{name}#{call}" for name in ("layer", "Reentrant") for call in (1, 2, 3)
    }
    for call in (1, 2, 3):
        np.testing.assert_array_equal(stored(path, f"layer#{call}"), packed(layer[call - 1])[:, 0])


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_forward_pass_that_fails_is_dropped(net, path, error):
    with watched(net.conv) as (conv,), capture(net, path, "conv") as recorder:
        net(images(2))
        net.before_head = lambda: fail(error)
        with pytest.raises(type(error)):
            net(images(2))
        net.before_head = lambda: None
        net(images(2))
        assert recorder.statistics.samples == 4
    np.testing.assert_array_equal(stored(path, "conv"), joined([conv[0], conv[2]]))


@pytest.mark.parametrize("error", [ValueError("out of memory"), KeyboardInterrupt()])
def test_a_forward_pass_that_is_retried_in_its_batch_is_recorded_once(net, path, error):
    with watched(net.conv) as (conv,), capture(net, path, "conv") as recorder:
        for _ in range(2):
            with recorder.batch(label=[1, 2]):
                net.before_head = lambda: fail(error)
                with pytest.raises(type(error)):
                    net(images(4))
                net.before_head = lambda: None
                net(images(2))
    np.testing.assert_array_equal(stored(path, "conv"), joined([conv[1], conv[3]]))


def test_a_batch_that_ends_with_an_interrupted_pass_is_without_it(net, path):
    with watched(net.conv) as (conv,), capture(net, path, "conv") as recorder:
        with recorder.batch(label=[1, 2]):
            net(images(2))
            net.before_head = lambda: fail(KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                net(images(2))
        net.before_head = lambda: None
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv[:1]))


def test_a_block_can_follow_an_interrupted_pass(net, path):
    with capture(net, path, "conv") as recorder:
        net.before_head = lambda: fail(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            net(images(2))
        net.before_head = lambda: None
        with recorder.batch():
            net(images(3))
        assert recorder.statistics.samples == 3


def test_another_hook_that_fails_before_the_pass_begins_drops_nothing(net, path):
    handles = []
    with capture(net, path, "conv") as recorder:
        with recorder.batch(label=[1, 2]):
            net(images(2))
            refuse = lambda *_: fail(ValueError("no"))  # noqa: E731
            handles.append(net.register_forward_pre_hook(refuse, prepend=True))
            with pytest.raises(ValueError, match="no"):
                net(images(2))
        handles[0].remove()
    assert tsstore.open(path)["conv"].rows == 32


def test_nested_batches_are_refused_and_the_outer_one_goes_on(net, path):
    with capture(net, path, "conv") as recorder:
        with recorder.batch():
            with pytest.raises(CaptureError, match="open already, and batches cannot be nested"):
                recorder.batch().__enter__()
            net(images(2))
        with pytest.raises(CaptureError, match="nested"), recorder.batch(), recorder.batch():
            pass
        net.before_head = lambda: recorder.batch().__enter__()
        with pytest.raises(CaptureError, match="nested"):
            net(images(2))
        net.before_head = lambda: None
    assert tsstore.open(path).samples == 2


def test_two_threads_at_once_are_refused(net, path):
    errors = []

    def call():
        try:
            net(images(2))
        except CaptureError as error:
            errors.append(str(error))

    def call_elsewhere():
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    with watched(net.conv) as (conv,), capture(net, path, "conv"):
        net.before_head = call_elsewhere
        net(images(2))
    assert len(errors) == 1
    assert "two threads" in errors[0]
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv[:1]))


def test_before_and_both(net, path):
    values = images(2)
    with watched(net.conv) as (conv,), capture(net, path, "conv", where="both"):
        net(values)
    assert tsstore.open(path).layers == ("conv:before", "conv")
    np.testing.assert_array_equal(stored(path, "conv:before"), joined([values]))
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv))


def test_calls_by_keywords_alone(path):
    class Keywords(nn.Linear):
        def forward(self, *, values, scale=None):
            return super().forward(values)

    model = Keywords(3, 4)
    values = torch.randn(5, 3)
    with capture(model, path, "Keywords", where="both"):
        output = model(scale=None, values=values)
    np.testing.assert_array_equal(stored(path, "Keywords:before"), packed(values)[:, 0])
    np.testing.assert_array_equal(stored(path, "Keywords"), packed(output)[:, 0])
    assert tsstore.open(path).samples == 5


def test_dictionaries_and_tuples(path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 4)

        def forward(self, batch):
            return {"loss": None, "logits": self.inner(batch["values"]), "other": (1, 2)}

    model = Model()
    with capture(model, path, ["Model", "inner"]) as recorder:
        output = model({"mask": None, "values": torch.randn(2, 3)})
        assert recorder.statistics.samples == 2
    np.testing.assert_array_equal(stored(path, "Model"), packed(output["logits"])[:, 0])


def test_an_output_without_a_tensor_is_an_error(path):
    class Model(nn.Module):
        def forward(self, values):
            return "text"

    with capture(Model(), path, "Model") as recorder:
        with pytest.raises(OutputError, match="Model: found no tensor in the output str"):
            recorder.model(torch.ones(2, 3))
        assert recorder.statistics.batches == 0


class Sequences(nn.Module):
    """An LSTM with a head on each step, as (time, sample, …) or (sample, time, …)."""

    def __init__(self, batch_first):
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=batch_first)
        self.head = nn.Linear(5, 2)

    def forward(self, values):
        return self.head(self.lstm(values)[0])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("columns", [{}, {"label": range(4)}])
def test_the_sample_axis_of_an_lstm(path, batch_first, columns):
    model = Sequences(batch_first)
    axis = 0 if batch_first else 1
    values = torch.randn(4, 7, 3) if batch_first else torch.randn(7, 4, 3)
    with capture(model, path, ["lstm", "head"]) as recorder, recorder.batch(**columns):
        head = model(values)
    output = model.lstm(values)[0]
    store = tsstore.open(path)
    assert store.samples == 4
    assert store["lstm"].positions == 7
    np.testing.assert_array_equal(stored(path, "lstm"), packed(output, 2, axis).reshape(-1, 1))
    np.testing.assert_array_equal(stored(path, "head"), packed(head, 2, axis).reshape(-1, 1))


def test_an_lstm_alone_tells_its_own_sample_axis(path):
    model = nn.LSTM(3, 5)
    with capture(model, path, nn.LSTM):
        model(torch.randn(7, 4, 3))
    assert tsstore.open(path).samples == 4


def test_columns_of_the_wrong_axis_are_refused(path):
    model = Sequences(batch_first=False)
    with capture(model, path, ["lstm", "head"]) as recorder:
        wrong = pytest.raises(ColumnsError, match="'label' has 7 entries, but the input of shape")
        with wrong, recorder.batch(label=range(7)):
            model(torch.randn(7, 4, 3))


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_sample_axis_of_a_transformer(path, batch_first):
    layer = nn.TransformerEncoderLayer(8, 2, 20, batch_first=batch_first, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    values = torch.randn(3, 6, 8) if batch_first else torch.randn(6, 3, 8)
    wanted = ["layers.0.linear1", "layers.1.self_attn"]
    inner = model.layers[0].linear1
    with watched(inner) as (seen,), capture(model, path, wanted):
        model(values)
    store = tsstore.open(path)
    assert (store.samples, store["layers.1.self_attn"].positions) == (3, 6)
    axis = 0 if batch_first else 1
    expected = packed(seen[0], 2, axis).reshape(-1, 3)
    np.testing.assert_array_equal(stored(path, "layers.0.linear1"), expected)


def test_a_hooked_transformer_leaves_its_fast_path_and_says_so_once(path):
    layer = nn.TransformerEncoderLayer(8, 2, 20, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    with pytest.warns(TsstoreWarning, match="leaves its fast path") as warned:
        recorder = capture(model, path, "*.linear1")
    assert len(warned) == 1
    # It names the line that begins the capture, none of the package.
    assert Path(tsstore.__file__).parent not in Path(warned[0].filename).parents
    with recorder, torch.no_grad():
        model(torch.randn(2, 5, 8))
    assert tsstore.open(path)["layers.0.linear1"].rows == 10


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_inside_a_transformer_are_refused_with_advice(path):
    layer = nn.TransformerEncoderLayer(8, 2, 20, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 3:] = True
    with pytest.warns(TsstoreWarning, match="fast path"):
        recorder = capture(model, path, "*.linear1")
    with recorder, torch.no_grad(), pytest.raises(OutputError, match="enable_nested_tensor=False"):
        model(torch.randn(2, 5, 8), src_key_padding_mask=mask)


@pytest.mark.parametrize("linear", [nn.Linear, "Linear"])
def test_multihead_attention_never_runs_its_projection(path, linear):
    model = nn.MultiheadAttention(8, 2)
    values = torch.randn(6, 3, 8)
    with capture(model, path, [nn.MultiheadAttention, linear]) as recorder:
        with pytest.warns(TsstoreWarning, match="left out: out_proj$"):
            output, _ = model(values, values, values)
        model(values, values, values)
        assert list(recorder.hooks) == ["MultiheadAttention"]
    rows = stored(path, "MultiheadAttention")
    np.testing.assert_array_equal(rows[:18], packed(output, 2, 1).reshape(-1, 1))
    assert tsstore.open(path).samples == 6


class Conv2dSame(nn.Conv2d):
    """Pads so that the output has the input's size by its stride, as TensorFlow does."""

    def forward(self, images):
        size, stride, kernel = images.shape[-1], self.stride[0], self.kernel_size[0]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before = missing // 2
        padding = (before, missing - before) * 2
        return super().forward(nn.functional.pad(images, padding))


class Efficient(nn.Module):
    """A block of an EfficientNet: convolutions of several classes."""

    def __init__(self):
        super().__init__()
        self.stem = Conv2dSame(1, 8, 3, stride=2)
        self.expand = nn.Conv2d(8, 24, 1)
        self.depthwise = Conv2dSame(24, 24, 3, stride=2, groups=24)
        self.squeeze = weight_norm(nn.Conv2d(24, 9, 1))
        self.excite = spectral_norm(nn.Conv2d(9, 24, 1))
        self.project = nn.Conv2d(24, 16, 1)

    def forward(self, images):
        inner = self.depthwise(self.expand(self.stem(images)).relu())
        gate = self.excite(self.squeeze(inner.mean((2, 3), keepdim=True)).relu())
        return self.project(inner * gate.sigmoid())


def test_a_class_name_takes_every_convolution_of_a_network(path):
    model = Efficient().eval()
    names = [name for name, _ in model.named_children()]
    with watched(*model.children()) as seen, capture(model, path, "Conv2d"):
        for _ in range(2):
            model(images(3, 9))
    store = tsstore.open(path)
    assert store.layers == tuple(names)
    for name, tensors in zip(names, seen, strict=True):
        np.testing.assert_array_equal(stored(path, name), joined(tensors))
    assert store["squeeze"].attributes.module_class == "ParametrizedConv2d"


class Windows(nn.Module):
    """Cuts each sample into windows along the first axis."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 5)

    def forward(self, values):
        samples, tokens, features = values.shape
        return self.inner(values.reshape(samples * 4, tokens // 4, features))


@pytest.mark.parametrize("columns", [{}, {"label": [1, 2]}])
@torch.no_grad()
def test_windows_folded_into_the_first_axis_are_positions(path, columns):
    model = Windows().eval()
    recorder = capture(model, path, "inner")
    with watched(model.inner) as (inner,), recorder, recorder.batch(**columns):
        model(torch.randn(2, 8, 3))
    store = tsstore.open(path)
    assert (store.samples, store["inner"].positions) == (2, 8)
    assert store["inner"].attributes.position_shape == (4, 2)
    np.testing.assert_array_equal(stored(path, "inner"), joined(inner, 2))


def test_windows_given_to_the_model_need_the_number_of_samples(path):
    model = nn.Sequential(nn.Linear(3, 5))
    with capture(model, path, "0") as recorder:
        wrong = pytest.raises(ColumnsError, match=r"say which: recorder.batch\(2, sample_index=…")
        with wrong, recorder.batch(label=[1, 2]):
            model(torch.randn(8, 3))
        # How many samples there are does not say which input belongs to which.
        message = r"axis 0 has 8 entries of 2 samples .*, as in sample_index=…"
        with pytest.raises(OutputError, match=message), recorder.batch(2, label=[1, 2]):
            model(torch.randn(8, 3))
        with recorder.batch(2, label=[1, 2], sample_index="contiguous"):
            model(torch.randn(8, 3))
    assert tsstore.open(path)["0"].positions == 4


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_an_activation_that_nothing_tells_of_needs_the_neuron_axis(path, axis):
    model = nn.Sequential(nn.ReLU())
    with capture(model, path, nn.ReLU) as recorder:
        with pytest.raises(OutputError, match=r"0: nothing tells .* of a ReLU .*neuron_axis=…$"):
            model(torch.randn(2, 7, 3))
        assert recorder.statistics.batches == 0
    other = path.with_name("other")
    with capture(model, other, nn.ReLU, neuron_axis={"0": axis}):
        output = model(torch.randn(2, 7, 3))
    np.testing.assert_array_equal(stored(other, "0"), packed(output, axis).reshape(-1, 1))


def test_a_convolution_without_batches_is_refused(path):
    model = nn.Conv2d(1, 4, 3)
    with capture(model, path, nn.Conv2d), pytest.raises(OutputError, match="has no sample axis"):
        model(torch.randn(1, 6, 6))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_gradient_modes(net, path, mode):
    with mode(), watched(net.conv) as (conv,), capture(net, path, "conv"):
        net(images(2))
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv))


def test_autocast_gives_the_states_of_what_was_computed(net, path):
    recorder = capture(net, path, "head", threshold=0.1)
    with recorder, watched(net.head) as (head,), torch.autocast("cpu", torch.bfloat16):
        net(images(20))
    attributes = tsstore.open(path)["head"].attributes
    assert attributes.dtype == "bfloat16"
    assert attributes.threshold == {"given": 0.1, "used": 0.10009765625}
    np.testing.assert_array_equal(stored(path, "head"), joined(head, threshold=0.10009765625))


def test_channels_last(net, path):
    net.to(memory_format=torch.channels_last)
    with watched(net.conv) as (conv,), capture(net, path, "conv"):
        net(images(2).to(memory_format=torch.channels_last))
    assert not conv[0].is_contiguous()
    np.testing.assert_array_equal(stored(path, "conv"), joined(conv))


def test_training_is_unaffected(path):
    def train(model, recorder=None):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
        return [(p.detach(), p.grad) for p in model.parameters()]

    model = nn.Sequential(
        nn.Linear(3, 9), nn.BatchNorm1d(9), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(9, 2)
    )
    twin = copy.deepcopy(model)
    with watched(model[0]) as (seen,), capture(model, path, nn.Module):
        found = train(model)
    for (weight, gradient), (expected, expected_gradient) in zip(found, train(twin), strict=True):
        assert torch.equal(weight, expected)
        assert torch.equal(gradient, expected_gradient)
    assert torch.equal(model[1].running_mean, twin[1].running_mean)
    np.testing.assert_array_equal(stored(path, "0"), joined(seen))


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_checkpointing_runs_again_is_not_recorded_again(path, reentrant):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 5)
            self.whole = nn.Sequential(self.inner, nn.Linear(5, 2))

        def forward(self, values):
            return checkpoint(self.whole, values, use_reentrant=reentrant)

    model = Model()
    with watched(model.inner) as (inner,), capture(model, path, "inner") as recorder:
        with recorder.batch():
            model(torch.randn(4, 3, requires_grad=True)).sum().backward()
        model(torch.randn(4, 3, requires_grad=True)).sum().backward()
        assert recorder.statistics.calls_outside == 0
    assert len(inner) == 4, "it did run again"
    np.testing.assert_array_equal(stored(path, "inner"), joined([inner[0], inner[2]]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_a_captured_model_write_nothing(path, copied):
    model = nn.Sequential(nn.Conv2d(1, 9, 3), nn.ReLU())
    values = images(2)
    with capture(model, path, ["0", "Sequential"]) as recorder:
        other = copied(model)
        with pytest.warns(TsstoreWarning, match="a copy of the captured model ran") as warned:
            found = other(values)
        assert len(warned) == 1
        assert torch.equal(found, model(values))
        assert torch.equal(other(values), found), "beside the model it is silent"
        assert recorder.statistics.batches == 1
    assert torch.equal(other(values), model(values))
    assert tsstore.open(path).samples == 2


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_model(path, in_place):
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 5))
    if in_place:
        model.compile(**EAGER)
    called = model if in_place else torch.compile(model, **EAGER)
    values = [torch.randn(4, 3) for _ in range(3)]
    with torch.no_grad():
        with capture(called, path, ["0", nn.ReLU]) as recorder:
            outputs = [called(value) for value in values]
            with recorder.batch():
                called(values[0])
                called(values[1])
        linear = [model[0](value) for value in values]
        store = tsstore.open(path)
        assert (store.layers, store.samples) == (("0", "1"), 16)
        np.testing.assert_array_equal(stored(path, "0")[:12], joined(linear))
        np.testing.assert_array_equal(stored(path, "1")[:12], joined(linear))
        assert store["0"].read_positions().tolist() == [1] * 12 + [2] * 4
        assert torch.equal(outputs[0], model[2](linear[0].relu()))
        called(values[0])
    torch.compiler.reset()


def test_a_model_that_was_compiled_and_called_before_is_an_error_with_advice(path):
    torch.compiler.reset()
    model = torch.compile(nn.Sequential(nn.Linear(3, 9)), **EAGER)
    with torch.no_grad():
        model(torch.randn(4, 3))
        with capture(model, path, "0"):
            with pytest.raises(SelectionError, match=r"none of .* ran .*torch.compiler.reset\(\)"):
                model(torch.randn(4, 3))
            torch.compiler.reset()
            model(torch.randn(4, 3))
    assert tsstore.open(path)["0"].rows == 4
    torch.compiler.reset()


def test_distributed_data_parallel(path):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        net = Net()
        model = nn.parallel.DistributedDataParallel(net)
        with watched(net.conv) as (conv,), capture(model, path, ["conv", "Net"]):
            model(images(3)).sum().backward()
        np.testing.assert_array_equal(stored(path, "conv"), joined(conv))
        assert tsstore.open(path).layers == ("conv", "Net")
        assert hook_count(model) == 0
    finally:
        dist.destroy_process_group()


def run_in_a_fork(work):
    """Run `work` in a forked child and return what it raised, as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # Torch's own threads did not survive the fork.
            torch.set_num_threads(1)
            work()
            message = "nothing"
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        os.write(write, message.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        message = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return message


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_nothing(net, path):
    values = images(2)
    with capture(net, path, "conv") as recorder:
        net(values)

        def run_the_model():
            net.encode(values)
            net(values)
            assert recorder.statistics.samples == 2
            assert recorder.statistics.calls_outside == 0
            recorder.close()
            assert hook_count(net) == 0
            net(values)

        assert run_in_a_fork(run_the_model) == "nothing"
        refused = f"CaptureError: {path}: the recorder belongs to the process that made it"
        assert refused in run_in_a_fork(recorder.commit)
        assert "open one of its own" in run_in_a_fork(lambda: recorder.batch().__enter__())
        assert not recorder.closed
        net(values)
    store = tsstore.open(path)
    assert store.samples == 4
    assert store.finished
