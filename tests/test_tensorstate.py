"""The tutorial of TensorState, and the API around it."""

from __future__ import annotations

import copy
import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from object_stores import fresh_url, s3_environment, s3_server
from torch import nn

import tsstore
from tsstore import bits
from tsstore.demo import mnist
from tsstore.demo.model import load_lenet5
from tsstore.errors import EmptyStoreError, SelectionError, StoreError, StoreExistsError


@pytest.fixture(autouse=True)
def hooks_are_gone():
    """Hooks close their stores when they are thrown away; other tests look for their threads."""
    yield
    gc.collect()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 11))


def images(count, seed=0):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def packed(tensor):
    array = (tensor.detach() > 0).numpy()
    return bits.pack(np.moveaxis(array, 1, -1).reshape(-1, array.shape[1]))


def rows_of(model, batch):
    """Rows of the model's convolution; a copy of a hooked model captures nothing."""
    return packed(copy.deepcopy(model)[0](batch))


def oracle(rows):
    return np.unique(rows.view(f"V{rows.shape[1]}"), return_counts=True)


def test_the_tutorial_runs_as_written(capsys):
    model = load_lenet5()
    all_images, all_labels = mnist.test_images()
    valid_ds = torch.utils.data.TensorDataset(
        torch.from_numpy(mnist.to_model_input(all_images)),
        torch.from_numpy(all_labels.astype(np.int64)),
    )
    valid_dl = torch.utils.data.DataLoader(valid_ds, batch_size=200)
    namespace = {"model": model, "valid_dl": valid_dl, "dev": torch.device("cpu"), "torch": torch}
    namespace["loss_func"] = nn.CrossEntropyLoss()
    exec(TUTORIAL, namespace)
    out = capsys.readouterr().out
    assert "Layer conv_1_post_states number of states: 5760000" in out
    assert "Layer conv_2_post_states number of states: 640000" in out
    assert "Layer conv_3_post_states number of states: 10000" in out
    assert "Layer conv_1_post_states efficiency: 34.0%" in out
    assert "Layer conv_2_post_states efficiency: 37.7%" in out
    assert "Layer conv_3_post_states efficiency: 13.3%" in out
    assert "Network efficiency: 25.7%" in out
    assert "Network accuracy: 98.5%" in out
    assert "aIQ: 63.0%" in out
    tsstore.remove_state_layers(model)


# From build_efficiency_model on, as the tutorial has it, but for the import, numpy's import, and
# float(accuracy) instead of accuracy.cpu().item(): NumPy's scalars have no .cpu.
TUTORIAL = """
import numpy as np
import tsstore as ts

def epoch_func(x,y,train=False):
    predictions = model(x)
    num = len(x)
    accuracy = (torch.argmax(predictions,axis=1)==y).float().sum()/num
    loss = loss_func(predictions,y)
    return loss,accuracy,num

efficiency_model = ts.build_efficiency_model(model,attach_to=['Conv2d'],method='after')

model.eval()
with torch.no_grad():
    losses, accuracies, nums = zip(
        *[epoch_func(xb.to(dev), yb.to(dev), False) for xb, yb in valid_dl]
    )

for layer in efficiency_model.efficiency_layers:
    print('Layer {} number of states: {}'.format(layer.name,layer.state_count))

for layer in efficiency_model.efficiency_layers:
    layer_efficiency = layer.efficiency()
    print('Layer {} efficiency: {:.1f}%'.format(layer.name,100*layer_efficiency))

beta = 2 # fudge factor giving a slight bias toward accuracy over efficiency

print()
print('Network metrics...')
print('Beta: {}'.format(beta))

network_efficiency = ts.network_efficiency(efficiency_model)
print('Network efficiency: {:.1f}%'.format(100*network_efficiency))

accuracy = np.sum(np.multiply(accuracies,nums))/np.sum(nums)
print('Network accuracy: {:.1f}%'.format(100*accuracy))

aIQ  = ts.aIQ(network_efficiency,float(accuracy),beta)
print('aIQ: {:.1f}%'.format(100*aIQ))
"""


def test_golden_values():
    assert tsstore.aIQ(0.2, 0.9, 2) == pytest.approx(0.5451361778, abs=5e-11)
    counts = np.array([5, 3, 2])
    for alpha, value in ((0, 1.58496), (0.5, 1.53453), (1, 1.48548), (2, 1.39593)):
        assert tsstore.entropy(counts, alpha) == pytest.approx(value, abs=5e-6)


def test_counts_ids_and_states_are_aligned_and_in_order(model):
    tsstore.build_efficiency_model(model, ["Conv2d", "3"])
    conv, linear = model.efficiency_layers
    seen = [rows_of(model, images(7)), packed(model(images(7)))]
    assert [conv.name, linear.name] == ["0_post_states", "3_post_states"]
    assert conv.state_count == 7 * 36
    for hook, rows in ((conv, seen[0]), (linear, seen[1])):
        distinct, counts = oracle(rows)
        assert hook.counts().tolist() == counts.tolist()
        assert hook.state_ids() == [row.tobytes() for row in distinct]
        np.testing.assert_array_equal(hook.raw_states[:], rows)
        assert hook.entropy() == pytest.approx(tsstore.entropy(counts), abs=1e-12)
        assert hook.entropy(0) == pytest.approx(np.log2(len(counts)))
        assert hook.entropy(None) == hook.max_entropy()
        assert hook.efficiency() == pytest.approx(hook.entropy() / hook.max_entropy())
        assert hook.efficiency(2, 0) == pytest.approx(hook.entropy(2) / hook.entropy(0))
        np.testing.assert_array_equal(
            bits.pack(hook.states),
            np.stack([np.frombuffer(row, np.uint8) for row in hook.state_ids()]),
        )
    assert (conv.max_entropy(), linear.max_entropy()) == (5.0, 11.0)
    assert (conv.states_per_instance(), linear.states_per_instance()) == (36.0, 1.0)
    expected = tsstore.network_efficiency([conv.efficiency(), linear.efficiency()])
    assert tsstore.network_efficiency(model) == expected
    tsstore.remove_state_layers(model)
    assert not hasattr(model, "efficiency_layers")
    assert not any(module._forward_hooks for module in model.modules())


def test_index_chooses_samples(model):
    tsstore.build_efficiency_model(model, "Conv2d")
    (hook,) = model.efficiency_layers
    rows = rows_of(model, images(6))
    model(images(6))
    mask = np.array([False, True, False, False, True, False])
    for index in ([1, 4], np.array([1, 4]), mask):
        wanted = rows.reshape(6, 36, 1)[[1, 4]].reshape(-1, 1)
        assert hook.counts(index).tolist() == oracle(wanted)[1].tolist()
    assert hook.counts(2).sum() == 36


def test_an_experiment_is_made_once_over_all_resets():
    class Frames(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 9)
            self.seen = sizes

        def forward(self, values):
            self.seen.append(len(values))
            return self.inner(values.flatten(0, 1))

    sizes = []
    model = tsstore.build_efficiency_model(Frames().eval(), ["Linear"])
    for _ in range(3):
        with torch.no_grad():
            model(torch.randn(6, 4, 3))
        tsstore.reset_efficiency_model(model)
    assert sizes == [6, 2, 2, 2, 2, 2, 2, 6, 6]


def test_states_accumulate_until_a_reset(model, tmp_path):
    path = tmp_path / "run.zarr"
    tsstore.build_efficiency_model(model, "Conv2d", storage_path=path)
    (hook,) = model.efficiency_layers
    model(images(3))
    model(images(4))
    assert hook.state_count == 7 * 36
    tsstore.reset_efficiency_model(model)
    assert hook.state_count == 0
    assert hook.counts().tolist() == []
    assert hook.state_ids() == []
    model(images(5))
    assert hook.state_count == 5 * 36
    store = tsstore.open(path)
    assert [part.samples for part in store.parts] == [7, 5]
    assert store.steps == (0, 1)
    tsstore.remove_state_layers(model)
    assert tsstore.analyze(tsstore.open(path).at_step(1))["0"].rows == 5 * 36


def test_a_store_stays_where_it_is_when_the_directory_changes(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tsstore.build_efficiency_model(model, "Conv2d", storage_path="run.zarr")
    (hook,) = model.efficiency_layers
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model(images(3))
    assert hook.state_count == 3 * 36
    tsstore.remove_state_layers(model)
    assert tsstore.open(tmp_path / "run.zarr").samples == 3


def test_a_store_does_not_lie_within_a_run(model, tmp_path):
    tsstore.build_efficiency_model(model, "Conv2d", storage_path=tmp_path / "run.zarr")
    tsstore.remove_state_layers(model)
    (tmp_path / "run.zarr").rename(tmp_path / "run")
    for path in (tmp_path / "run", tmp_path / "run" / "more.zarr"):
        with pytest.raises(StoreError, match="lies within the run"):
            tsstore.build_efficiency_model(model, "Conv2d", storage_path=path)


def test_a_store_may_be_a_url(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with s3_server() as server, s3_environment(server):
        url = fresh_url()
        tsstore.build_efficiency_model(model, "Conv2d", storage_path=url)
        (hook,) = model.efficiency_layers
        model(images(3))
        assert hook.state_count == 3 * 36
        assert hook.raw_states.location == url
        tsstore.remove_state_layers(model)
        assert tsstore.open(url).samples == 3
        by_hand = tsstore.StateCaptureHook("by hand", disk_path=url + "/more")
        handle = model[0].register_forward_hook(by_hand)
        model(images(2))
        handle.remove()
        assert by_hand.raw_states.location == f"{url}/more/by_hand.zarr"
        model.efficiency_layers = [by_hand]
        tsstore.remove_state_layers(model)
    assert list(tmp_path.iterdir()) == []


def test_attaching_twice_does_not_count_twice(model):
    tsstore.build_efficiency_model(model, "Conv2d")
    tsstore.build_efficiency_model(model, "Conv2d")
    model(images(3))
    assert [hook.state_count for hook in model.efficiency_layers] == [3 * 36]


def test_capture_can_be_switched_off_and_on(model):
    tsstore.build_efficiency_model(model, ["Conv2d", "Linear"])
    conv, linear = model.efficiency_layers
    conv.capture_on = False
    model(images(3))
    assert (conv.state_count, linear.state_count) == (0, 3)
    conv.capture_on = True
    model(images(2))
    linear.capture_on = False
    model(images(1))
    assert (conv.state_count, linear.state_count) == (3 * 36, 5)
    assert conv.states_per_instance() == 36
    rows = rows_of(model, images(1))
    assert conv.counts([2]).tolist() == oracle(rows)[1].tolist()


def test_method_before_and_both_and_exclude(model):
    tsstore.build_efficiency_model(model, ["Conv2d", "Linear"], exclude=["Linear"], method="both")
    names = [hook.name for hook in model.efficiency_layers]
    assert names == ["0_pre_states", "0_post_states"]
    model(images(2))
    assert [hook.max_entropy() for hook in model.efficiency_layers] == [1.0, 5.0]
    with pytest.raises(SelectionError):
        tsstore.build_efficiency_model(model, "NoSuchLayer")
    with pytest.raises(SelectionError):
        tsstore.build_efficiency_model(model, "Conv2d", method="around")


def test_a_hook_placed_by_hand_has_its_own_store(model, tmp_path):
    hook = tsstore.StateCaptureHook("by hand", disk_path=tmp_path)
    before = tsstore.StateCaptureHook("before")
    handles = [
        model[0].register_forward_hook(hook),
        model[0].register_forward_pre_hook(before),
    ]
    with pytest.raises(EmptyStoreError):
        hook.max_entropy()
    rows = packed(model[0](images(3)))
    model(images(4, seed=1))
    assert hook.state_count == 7 * 36
    assert before.state_count == 7 * 64
    np.testing.assert_array_equal(hook.raw_states[: 3 * 36], rows)
    (path,) = tmp_path.glob("*.zarr")
    assert tsstore.open(path)["by hand"].rows == 7 * 36
    for handle in handles:
        handle.remove()


def test_other_peoples_hooks_stay(model):
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    tsstore.build_efficiency_model(model, "Conv2d")
    assert tsstore.remove_state_layers(model) is model
    model(images(1))
    assert calls == [1]


def test_a_temporary_store_is_removed(model, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tsstore.build_efficiency_model(model, "Conv2d")
    model(images(2))
    assert model.efficiency_layers[0].state_count == 72
    assert list(tmp_path.iterdir())
    tsstore.remove_state_layers(model)
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_an_existing_path_is_refused_and_leaves_no_hooks(model, tmp_path):
    (tmp_path / "run.zarr").mkdir()
    (tmp_path / "run.zarr" / "mine").touch()
    with pytest.raises(StoreExistsError):
        tsstore.build_efficiency_model(model, "Conv2d", storage_path=Path(tmp_path / "run.zarr"))
    assert not any(module._forward_hooks for module in model.modules())


def test_compress_decompress_and_sort():
    values = np.array([[1.0, -1, 0, 2, np.nan], [0.5, 0, 0, 0, 1]], dtype=np.float32)
    rows = tsstore.compress_states(values)
    assert rows.tolist() == [[0b01001], [0b10001]]
    assert torch.equal(tsstore.compress_states(torch.from_numpy(values)), torch.from_numpy(rows))
    np.testing.assert_array_equal(tsstore.decompress_states(rows, 5), values > 0)
    many = np.random.default_rng(0).integers(0, 3, (50, 9), dtype=np.uint8)
    edges, index = tsstore.sort_states(many, 50)
    distinct, counts = oracle(many)
    assert np.diff(edges).tolist() == counts.tolist()
    assert [row.tobytes() for row in many[index][edges[:-1]]] == [row.tobytes() for row in distinct]
