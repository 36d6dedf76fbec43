from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tsstore.demo import mnist, model  # noqa: E402
from tsstore.demo.model import LeNet5, load_lenet5  # noqa: E402
from tsstore.errors import TsstoreError  # noqa: E402

SHIPPED = Path(model.__file__).parent / "data" / "lenet5.npz"


@pytest.fixture(scope="module")
def trained() -> LeNet5:
    return load_lenet5()


def test_layers_come_in_the_order_and_under_the_names_of_the_tutorial():
    assert [name for name, _ in LeNet5().named_children()] == [
        *("conv_1", "elu_1", "norm_1", "maxp_1"),
        *("conv_2", "elu_2", "norm_2", "maxp_2"),
        *("conv_3", "elu_3", "norm_3"),
        "pred",
    ]


def test_layers_give_the_neurons_and_positions_that_the_docstring_states(trained):
    shapes = {}
    handles = [
        layer.register_forward_hook(
            lambda _module, _args, output, name=name: shapes.__setitem__(name, tuple(output.shape))
        )
        for name, layer in trained.named_children()
    ]
    trained(torch.zeros(2, 784))
    for handle in handles:
        handle.remove()
    assert shapes["conv_1"] == shapes["elu_1"] == shapes["norm_1"] == (2, 20, 24, 24)
    assert shapes["conv_2"] == shapes["elu_2"] == shapes["norm_2"] == (2, 50, 8, 8)
    assert shapes["conv_3"] == shapes["elu_3"] == shapes["norm_3"] == (2, 100, 1, 1)
    assert shapes["pred"] == (2, 10)


def test_normalisation_is_set_as_in_the_tutorial():
    network = LeNet5()
    for layer, channels in [(network.norm_1, 20), (network.norm_2, 50), (network.norm_3, 100)]:
        assert (layer.num_features, layer.eps, layer.momentum) == (channels, 1e-5, 0.9)


def test_a_new_network_starts_from_kaiming_normal_weights_and_zero_biases():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = LeNet5()
    for layer in (network.conv_1, network.conv_2, network.conv_3, network.pred):
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)
        assert torch.count_nonzero(layer.bias) == 0


@pytest.mark.parametrize("shape", [(6, 784), (6, 28, 28), (6, 1, 28, 28)])
def test_any_shape_with_784_values_an_image_gives_the_same_scores(trained, shape):
    images = torch.linspace(0, 1, 6 * 784)
    with torch.inference_mode():
        scores = trained(images.reshape(shape))
        expected = trained(images.reshape(6, 1, 28, 28))
    assert scores.shape == (6, 10)
    torch.testing.assert_close(scores, expected, rtol=0, atol=0)


def test_the_shipped_weights_classify_the_test_images(trained):
    images, labels = mnist.test_images()
    with torch.inference_mode():
        scores = trained(torch.from_numpy(mnist.to_model_input(images[:2000])))
    assert (scores.argmax(dim=1).numpy() == labels[:2000]).mean() > 0.96


def test_the_shipped_network_is_in_eval_mode_with_parameters_that_can_be_trained(trained):
    assert not any(module.training for module in trained.modules())
    assert all(parameter.requires_grad for parameter in trained.parameters())


def test_the_shipped_weights_are_small_and_plain_float32():
    assert SHIPPED.stat().st_size < 500_000
    with np.load(SHIPPED, allow_pickle=False) as arrays:
        for name in arrays.files:
            is_counter = name.endswith("num_batches_tracked")
            assert arrays[name].dtype == (np.int64 if is_counter else np.float32), name
            assert np.isfinite(arrays[name]).all(), name


def test_each_load_is_a_network_of_its_own():
    first, second = load_lenet5(), load_lenet5()
    with torch.no_grad():
        first.pred.weight.zero_()
    assert torch.count_nonzero(second.pred.weight) > 0


def test_a_missing_file_of_weights_is_a_clear_error(tmp_path, monkeypatch):
    with pytest.raises(TsstoreError, match=r"absent\.npz: cannot be read"):
        load_lenet5(tmp_path / "absent.npz")
    monkeypatch.setattr(model, "DATA", tmp_path)
    with pytest.raises(TsstoreError, match="install tsstore again"):
        load_lenet5()


def npz(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def zip_of_text() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("notes.txt", "no array")
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip file",
        pickle.dumps({"conv_1.weight": [1.0]}),
        npy(np.zeros(3)),
        npz(weight=np.array([{"an": "object"}])),
        npz(weight=np.array(["text"])),
        zip_of_text(),
        SHIPPED.read_bytes()[:5000],
    ],
    ids=["empty", "text", "pickle", "npy", "objects", "strings", "zip", "cut"],
)
def test_a_file_without_readable_arrays_is_refused(tmp_path, content):
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(TsstoreError, match=r"weights\.npz: found no arrays that can be read"):
        load_lenet5(tmp_path / "weights.npz")


def test_damaged_weights_are_refused(tmp_path):
    content = bytearray(SHIPPED.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(TsstoreError, match="found no arrays that can be read"):
        load_lenet5(tmp_path / "weights.npz")


@pytest.mark.parametrize(
    "arrays",
    [{}, {"conv_1.weight": np.zeros((20, 1, 5, 5))}, {"other": np.zeros(1)}],
    ids=["nothing", "one layer", "another name"],
)
def test_weights_of_another_network_are_refused(tmp_path, arrays):
    (tmp_path / "weights.npz").write_bytes(npz(**arrays))
    with pytest.raises(TsstoreError, match=r"weights\.npz: found the weights of another network"):
        load_lenet5(tmp_path / "weights.npz")


def test_weights_of_another_shape_are_refused(tmp_path):
    state = {name: value.numpy() for name, value in LeNet5().state_dict().items()}
    state["pred.bias"] = np.zeros(11, dtype=np.float32)
    (tmp_path / "weights.npz").write_bytes(npz(**state))
    with pytest.raises(TsstoreError, match=r"pred\.bias"):
        load_lenet5(tmp_path / "weights.npz")
