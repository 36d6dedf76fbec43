"""What people do with the API of the TensorState tutorial: every row is counted, or an error."""

from __future__ import annotations

import copy
import gc
import pickle
import tempfile
import threading
from pathlib import Path

import children
import numpy as np
import pytest
import torch
from torch import nn

import tsstore
from tsstore import bits
from tsstore.errors import (
    CaptureError,
    EmptyStoreError,
    OutputError,
    RowIndexError,
    SelectionError,
    TsstoreError,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed(*tensors, axis=1):
    """Rows of tensors whose samples come first, by NumPy alone."""
    arrays = [np.moveaxis((tensor.detach() > 0).numpy(), axis, -1) for tensor in tensors]
    rows = [array.reshape(-1, array.shape[-1]) for array in arrays]
    return np.packbits(np.concatenate(rows), axis=1, bitorder="little")


def check(hook, *tensors, axis=1):
    """Hold a hook to an independent count of tensors' states."""
    rows = packed(*tensors, axis=axis)
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    np.testing.assert_array_equal(hook.raw_states, rows)
    assert hook.state_count == len(rows)
    assert hook.state_ids() == [row.tobytes() for row in distinct]
    assert hook.counts().tolist() == counts.tolist()
    assert hook.entropy() == pytest.approx(tsstore.entropy(counts), abs=1e-12)
    assert hook.states_per_instance() == len(rows) / sum(map(len, tensors))


@pytest.fixture(autouse=True)
def hooks_are_gone():
    """Hooks close their stores when they are thrown away; other tests look for their threads."""
    yield
    gc.collect()


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """The folder of all temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 11))


# One hook in several places.


def test_one_hook_on_two_modules_keeps_the_rows_of_both():
    first, second = nn.Linear(4, 5), nn.Linear(7, 5)
    hook = tsstore.StateCaptureHook("both")
    for module in (first, second):
        module.register_forward_hook(hook)
    outputs = [first(draw(30, 4)), second(draw(30, 7)), first(draw(3, 4, seed=1))]
    check(hook, *outputs)
    assert hook.counts([0, 62]).sum() == 2


def test_modules_of_other_kinds_share_a_hook_whatever_their_axes():
    convolution, tokens, dense = nn.Conv2d(1, 5, 3), nn.Linear(4, 5), nn.Linear(3, 5)
    hook = tsstore.StateCaptureHook("all")
    for module in (convolution, tokens, dense):
        module.register_forward_hook(hook)
    outputs = [
        convolution(draw(2, 1, 8, 8)),
        tokens(draw(6, 5, 4)).movedim(2, 1),
        dense(draw(9, 3)),
    ]
    rows = packed(outputs[0]), packed(outputs[1]), packed(outputs[2])
    np.testing.assert_array_equal(hook.raw_states, np.concatenate(rows))
    assert hook.counts([2]).sum() == 5


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 5, 7, 6)])
def test_what_keeps_its_shape_by_hand_needs_a_word(shape):
    """Whether channels come first or last, nothing tells: what made the tensor is not seen."""
    hook, told = (tsstore.StateCaptureHook("it", neuron_axis=axis) for axis in (None, -1))
    act = nn.ReLU()
    handle = act.register_forward_hook(hook)
    with pytest.raises(OutputError, match=r"of a ReLU .*StateCaptureHook\('it', neuron_axis=…\)"):
        act(draw(*shape))
    handle.remove()
    act.register_forward_hook(told)
    check(told, act(draw(*shape)).movedim(-1, 1))


def test_what_treats_whole_channels_by_hand_says_where_they_are():
    hook = tsstore.StateCaptureHook("it")
    for module in (nn.Dropout2d(), nn.MaxPool2d(2)):
        module.register_forward_hook(hook)
        first = module(draw(4, 6, 4, 4))
        check(hook, first)
        hook.reset_states()


def test_another_width_is_an_error_that_costs_no_row():
    first, other = nn.Linear(4, 5), nn.Linear(4, 6)
    hook = tsstore.StateCaptureHook("one")
    for module in (first, other):
        module.register_forward_hook(hook)
    outputs = [first(draw(8, 4))]
    with pytest.raises(CaptureError, match=r"one: 6 neurons .* but 5 neurons"):
        other(draw(8, 4))
    outputs.append(first(draw(2, 4, seed=1)))
    check(hook, *outputs)


def test_a_hook_of_a_model_takes_the_rows_of_another_module_too(model):
    tsstore.build_efficiency_model(model, "Conv2d")
    (hook,) = model.efficiency_layers
    other, tokens = nn.Conv2d(2, 5, 3), nn.Linear(4, 5)
    for module in (other, tokens):
        module.register_forward_hook(hook)
    model(draw(3, 1, 8, 8))
    output = other(draw(2, 2, 4, 4))
    assert hook.state_count == 3 * 36 + 2 * 4
    np.testing.assert_array_equal(hook.raw_states[-8:], packed(output))


@pytest.mark.parametrize("shape", [(30, 5), (4, 5, 3, 2), (2, 5, 2, 2, 2)])
def test_a_tensor_is_captured_without_its_module(shape):
    hook = tsstore.StateCaptureHook("tensor")
    tensors = [draw(*shape), draw(*shape, seed=1)]
    for tensor in tensors:
        assert hook(None, None, tensor) is None
    check(hook, *tensors)


def test_a_tensor_of_three_axes_without_its_module_needs_a_word():
    with pytest.raises(OutputError, match=r"it: .*StateCaptureHook\('it', neuron_axis=…\)"):
        tsstore.StateCaptureHook("it")(None, None, draw(4, 3, 5))
    hook = tsstore.StateCaptureHook("it", neuron_axis=-1)
    tensor = draw(4, 3, 5)
    hook(None, None, tensor)
    check(hook, tensor, axis=2)
    turned = tsstore.StateCaptureHook("it", neuron_axis={"it": 0}, sample_axis=2)
    turned(None, None, tensor.permute(2, 1, 0))
    check(turned, tensor, axis=2)


@pytest.mark.parametrize("with_kwargs", [False, True])
def test_a_hook_before_or_after_a_call_may_ask_for_keyword_arguments(with_kwargs):
    module = nn.Linear(4, 5)
    before, after = tsstore.StateCaptureHook("before"), tsstore.StateCaptureHook("after")
    module.register_forward_pre_hook(before, with_kwargs=with_kwargs)
    module.register_forward_hook(after, with_kwargs=with_kwargs)
    inputs = draw(9, 4)
    output = module(inputs)
    check(before, inputs)
    check(after, output)
    if with_kwargs:
        check(after, output, module(input=inputs))
        check(before, inputs, inputs)


def test_time_comes_first_where_the_module_says_so():
    lstm = nn.LSTM(4, 5)
    hook = tsstore.StateCaptureHook("lstm")
    lstm.register_forward_hook(hook)
    output, _ = lstm(draw(7, 3, 4))
    rows = packed(output.movedim(0, 1), axis=2)
    np.testing.assert_array_equal(hook.raw_states, rows)
    assert hook.states_per_instance() == 7
    assert hook.counts(1).tolist() == np.unique(rows[7:14], axis=0, return_counts=True)[1].tolist()


def test_a_compiled_function_calls_a_hook_placed_by_hand():
    module = nn.Linear(4, 5)
    hook = tsstore.StateCaptureHook("compiled")
    module.register_forward_hook(hook)
    compiled = torch.compile(module, backend="eager")
    check(hook, compiled(draw(8, 4)), compiled(draw(8, 4, seed=1)))


def test_threads_may_share_a_hook():
    modules = [nn.Linear(4, 5) for _ in range(4)]
    hook = tsstore.StateCaptureHook("threads")
    outputs = {}

    def run(number):
        modules[number].register_forward_hook(hook)
        outputs[number] = [modules[number](draw(6, 4, seed=seed)) for seed in range(20)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = packed(*(output for each in outputs.values() for output in each))
    assert hook.state_count == len(rows) == 480
    assert hook.counts().tolist() == np.unique(rows, return_counts=True)[1].tolist()
    assert hook.states_per_instance() == 1


# Models that are called in parts, fail, train, move and are copied.


def test_a_submodule_called_by_itself_counts(model):
    tsstore.build_efficiency_model(model, ["Conv2d", "ReLU", "Linear"])
    convolution, relu, linear = model.efficiency_layers
    inputs = [draw(count, 1, 8, 8, seed=count) for count in (3, 4, 2)]
    model[0](inputs[0])
    model(inputs[1])
    model[:2](inputs[2])
    bare = copy.deepcopy(model)
    tsstore.remove_state_layers(model)
    check(convolution, *(bare[0](each) for each in inputs))
    check(relu, bare[:2](inputs[1]), bare[:2](inputs[2]))
    check(linear, bare(inputs[1]))
    mask = np.arange(9) >= 7
    last = np.unique(packed(bare[0](inputs[2])), axis=0, return_counts=True)[1]
    assert convolution.counts(mask).tolist() == last.tolist()


def test_a_pass_that_fails_leaves_nothing_and_the_next_one_counts(model):
    tsstore.build_efficiency_model(model, ["Conv2d", "Linear"])
    convolution, linear = model.efficiency_layers
    model(draw(3, 1, 8, 8))
    with pytest.raises(RuntimeError):
        model(draw(3, 1, 9, 9))
    with pytest.raises(RuntimeError):
        model[3](draw(2, 7))
    model(draw(1, 1, 8, 8, seed=1))
    assert (convolution.state_count, linear.state_count) == (4 * 36, 4)


def test_training_and_evaluating_count_alike(model):
    tsstore.build_efficiency_model(model, ["Linear"])
    (hook,) = model.efficiency_layers
    model.train()
    outputs = [model(draw(3, 1, 8, 8))]
    outputs[0].sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    model.eval()
    with torch.inference_mode():
        outputs.append(model(draw(2, 1, 8, 8, seed=1)))
        outputs.append(model(draw(2, 1, 8, 8, seed=1)))
    check(hook, *outputs)


def test_a_model_may_change_its_dtype_at_a_reset(model):
    tsstore.build_efficiency_model(model, ["Linear"])
    (hook,) = model.efficiency_layers
    model(draw(3, 1, 8, 8))
    tsstore.reset_efficiency_model(model)
    model.double()
    check(hook, model(draw(5, 1, 8, 8).double()))


def test_a_copy_of_a_model_captures_nothing_and_its_hooks_say_so(model):
    tsstore.build_efficiency_model(model, ["Linear"])
    (hook,) = model.efficiency_layers
    output = model(draw(3, 1, 8, 8))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other(draw(2, 1, 8, 8))
        assert other.efficiency_layers[0].state_count == 0
        with pytest.raises(EmptyStoreError, match=r"3_post_states has captured nothing .* a copy"):
            tsstore.network_efficiency(other)
        tsstore.build_efficiency_model(other, ["Linear"])
        check(other.efficiency_layers[0], other(draw(4, 1, 8, 8)))
        tsstore.remove_state_layers(other)
    check(hook, output)


def test_a_model_and_a_part_of_it_are_captured_independently(model):
    tsstore.build_efficiency_model(model, ["Linear"])
    part = model[3]
    tsstore.build_efficiency_model(part, ["Linear"])
    output = model(draw(3, 1, 8, 8))
    check(model.efficiency_layers[0], output)
    tsstore.remove_state_layers(model)
    again = model(draw(2, 1, 8, 8, seed=1))
    check(part.efficiency_layers[0], output, again)


def test_data_parallel_is_refused(model):
    with pytest.raises(SelectionError, match="DataParallel"):
        tsstore.build_efficiency_model(nn.DataParallel(model), "Conv2d")
    assert not hasattr(model, "efficiency_layers")


def test_options_that_would_change_the_numbers_are_refused(model):
    tsstore.build_efficiency_model(model, "Conv2d", memory_device="cpu")
    with pytest.raises(TsstoreError, match=r"found the option threshold; .*memory_device"):
        tsstore.build_efficiency_model(model, "Conv2d", threshold=0.5)
    with pytest.raises(TsstoreError, match="found the option step"):
        tsstore.StateCaptureHook("it", step=3)
    assert len(model.efficiency_layers) == 1


def test_axes_and_outputs_are_chosen_as_for_capture():
    model = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.LSTM(5, 3, batch_first=True))
    tsstore.build_efficiency_model(model, ["GELU"], neuron_axis=-1)
    (hook,) = model.efficiency_layers
    inputs = draw(6, 7, 4)
    model(inputs)
    tsstore.remove_state_layers(model)
    check(hook, model[:2](inputs), axis=2)


@pytest.mark.parametrize("index", [9, [0, -9], np.ones(3, dtype=bool)])
def test_samples_that_are_not_there_are_refused(model, index):
    tsstore.build_efficiency_model(model, ["Linear"])
    (hook,) = model.efficiency_layers
    model(draw(4, 1, 8, 8))
    with pytest.raises(RowIndexError, match="3_post_states has 4 samples"):
        hook.counts(index)
    assert hook.counts(torch.tensor([1, -1])).sum() == 2


# Resets.


def test_a_reset_leaves_zeros_until_the_model_has_run_again(model):
    tsstore.build_efficiency_model(model, ["Conv2d", "Linear"])
    convolution, linear = model.efficiency_layers
    model(draw(3, 1, 8, 8))
    tsstore.reset_efficiency_model(model)
    for hook, neurons, positions in ((convolution, 5, 36), (linear, 11, 1)):
        assert (hook.state_count, hook.counts().tolist(), hook.state_ids()) == (0, [], [])
        assert hook.entropy() == hook.entropy(0) == hook.entropy(2) == 0.0
        assert hook.efficiency() == hook.efficiency(2, 0) == 0.0
        assert hook.max_entropy() == hook.entropy(None) == neurons
        assert hook.states_per_instance() == positions
        assert hook.states.shape == (0, neurons)
        assert hook.raw_states[:].shape == (0, bits.row_bytes(neurons))
    assert tsstore.network_efficiency(model) == 0.0
    check(linear, model(draw(2, 1, 8, 8)))
    assert tsstore.network_efficiency(model) > 0


def test_one_hook_is_reset_and_the_others_go_on(model, temporary):
    tsstore.build_efficiency_model(model, ["Conv2d", "Linear"])
    convolution, linear = model.efficiency_layers
    outputs = []
    for seed in range(4):
        convolution.reset_states()
        convolution.reset_states()
        outputs.append(model(draw(3, 1, 8, 8, seed=seed)))
        assert convolution.state_count == 3 * 36
        check(linear, *outputs)
    linear.reset_states()
    check(linear, model(draw(2, 1, 8, 8)))
    assert convolution.state_count == 5 * 36
    convolution.reset_states()
    assert linear.state_count == 2
    assert len(parts_in(temporary)) == 2


def parts_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/run.zarr/*") if path.is_dir()]


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_reset_frees_the_disk_that_a_temporary_store_took(model, temporary, by_hand):
    hook = tsstore.StateCaptureHook("by hand")
    if by_hand:
        handle = model[0].register_forward_hook(hook)
    else:
        tsstore.build_efficiency_model(model, ["Conv2d"])
        (hook,) = model.efficiency_layers
    sizes = []
    for seed in range(6):
        model(draw(20, 1, 8, 8, seed=seed))
        assert hook.state_count == 20 * 36
        hook.reset_states()
        assert len(parts_in(temporary)) == 1
        sizes.append(sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file()))
    assert max(sizes) < 1.1 * min(sizes)
    if by_hand:
        handle.remove()
    tsstore.remove_state_layers(model)
    del hook
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_reset_opens_no_part_from_before_it(model, tmp_path, monkeypatch):
    tsstore.build_efficiency_model(model, ["Linear"], storage_path=tmp_path / "run.zarr")
    (hook,) = model.efficiency_layers
    opened = []
    part = tsstore.store.reading.part.Part
    original = part.open.__func__
    monkeypatch.setattr(
        part, "open", classmethod(lambda cls, *where: opened.append(where) or original(cls, *where))
    )
    for seed in range(12):
        model(draw(2, 1, 8, 8, seed=seed))
        assert hook.state_count == 2
        assert hook.entropy() >= 0
        tsstore.reset_efficiency_model(model)
    assert len(opened) <= 2 * 12
    tsstore.remove_state_layers(model)
    store = tsstore.open(tmp_path / "run.zarr")
    assert [part.samples for part in store.parts] == [2] * 12 + [0]


def test_a_reset_changes_nothing_of_the_order_of_hooks(model):
    tsstore.build_efficiency_model(model, ["Linear"])
    (hook,) = model.efficiency_layers
    model[3].register_forward_hook(lambda module, inputs, output: output - 1e9)
    for _ in range(2):
        model(draw(3, 1, 8, 8))
        assert hook.counts().sum() == 3
        assert hook.state_ids() != [b"\0\0"]
        tsstore.reset_efficiency_model(model)


def test_rows_that_were_handed_out_are_read_after_the_hooks_are_gone(model, temporary):
    tsstore.build_efficiency_model(model, ["Linear"])
    output = model(draw(3, 1, 8, 8))
    rows = model.efficiency_layers[0].raw_states
    tsstore.remove_state_layers(model)
    gc.collect()
    np.testing.assert_array_equal(rows, packed(output))
    del rows
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_hooks_are_read_and_reset_after_they_were_removed(model):
    tsstore.build_efficiency_model(model, ["Linear"])
    (hook,) = model.efficiency_layers
    output = model(draw(3, 1, 8, 8))
    tsstore.remove_state_layers(model)
    model(draw(3, 1, 8, 8))
    check(hook, output)
    hook.reset_states()
    assert (hook.state_count, hook.entropy()) == (0, 0.0)


def test_torch_s_handles_of_the_hooks_are_on_the_model(model):
    tsstore.build_efficiency_model(model, ["Conv2d", "Linear"], method="both")
    assert len(model.state_capture_hooks) == len(model.efficiency_layers) == 4
    tsstore.reset_efficiency_model(model)
    model(draw(3, 1, 8, 8))
    tsstore.reset_efficiency_model(model)
    model.state_capture_hooks[0].remove()
    model(draw(2, 1, 8, 8))
    counts = [hook.state_count for hook in model.efficiency_layers]
    assert counts == [0, 2 * 36, 2, 2]
    tsstore.remove_state_layers(model)
    assert not hasattr(model, "state_capture_hooks")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# Where stores lie.


def test_a_folder_may_hold_other_things_and_serve_several_models(model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    models = [model, copy.deepcopy(model), nn.Linear(4, 5)]
    for each in models:
        tsstore.build_efficiency_model(each, ["Linear", "Linear*"], storage_path=tmp_path)
    counts = (3, 4, 5)
    for each, count in zip(models, counts, strict=True):
        each(draw(count, 4) if isinstance(each, nn.Linear) else draw(count, 1, 8, 8))
    for each, count in zip(models, counts, strict=True):
        assert [hook.state_count for hook in each.efficiency_layers] == [count]
        tsstore.remove_state_layers(each)
    names = ["linear.zarr", "mine.txt", "sequential-2.zarr", "sequential.zarr"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert tsstore.open(tmp_path / "sequential-2.zarr").samples == 4


def test_hooks_of_one_name_in_one_folder_have_stores_of_their_own(tmp_path):
    hooks = [tsstore.StateCaptureHook("it", disk_path=tmp_path) for _ in range(2)]
    for hook, count in zip(hooks, (2, 3), strict=True):
        hook(None, None, draw(count, 5))
    assert [hook.state_count for hook in hooks] == [2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it-2.zarr", "it.zarr"]


REMOVED = """
import shutil, torch, tsstore
from torch import nn
models = []
for path in ("run.zarr", "folder", None) * 2:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU())
    tsstore.build_efficiency_model(model, ["Linear"], storage_path=path)
    by_hand = tsstore.StateCaptureHook("by hand", disk_path="folder")
    model[1].register_forward_hook(by_hand)
    model(torch.randn(8, 4))
    hooks = (by_hand, *model.efficiency_layers)
    assert [hook.state_count for hook in hooks] == [8, 8]
    places = [hook.raw_states.location for hook in hooks]
    model(torch.randn(8, 4))
    for place in places:
        shutil.rmtree(place)
    models.append(model)
del hooks, by_hand
for model in models[:2]:
    tsstore.remove_state_layers(model)
del model, models[:3]
"""


def test_a_store_that_is_removed_while_hooks_live_ends_without_a_traceback(tmp_path):
    done = children.run(REMOVED, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.count("TsstoreWarning: the run is gone: ") == 2
    assert list((tmp_path / "folder").iterdir()) == []
