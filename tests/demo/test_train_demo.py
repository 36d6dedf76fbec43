from __future__ import annotations

import gzip
import struct
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tsstore.demo.model import LeNet5, load_lenet5  # noqa: E402
from tsstore.errors import TsstoreError  # noqa: E402

PROGRAM = spec_from_file_location(
    "train_demo", Path(__file__).parents[2] / "benchmarks" / "train_demo.py"
)
train = sys.modules["train_demo"] = module_from_spec(PROGRAM)
PROGRAM.loader.exec_module(train)
Epoch, Examples = train.Epoch, train.Examples


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1))


def write_split(directory: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    write_idx(directory / f"{split}-images-idx3-ubyte.gz", images)
    write_idx(directory / f"{split}-labels-idx1-ubyte.gz", labels)


def bars(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that anything can learn: the label is where the bright bar lies."""
    random = np.random.default_rng(seed)
    labels = random.integers(10, size=size, dtype=np.uint8)
    images = random.integers(40, size=(size, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 6] = 250
    return images, labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("mnist")
    write_split(directory, "train", *bars(300, seed=1))
    write_split(directory, "t10k", *bars(50, seed=2))
    return directory


@pytest.fixture
def tiny(folder) -> Examples:
    return train.load_examples(folder, "train")[:40]


def numbered(size: int) -> Examples:
    return Examples(torch.arange(size).reshape(size, 1, 1, 1).float(), torch.arange(size))


def test_one_epoch_end_to_end_writes_weights_that_load(folder, tmp_path, capsys):
    output = tmp_path / "weights.npz"
    train.main(["--mnist", str(folder), "--output", str(output), "--epochs", "1"])
    assert load_lenet5(output).norm_1.num_batches_tracked == 2  # 250 images, 200 a batch
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch   1  loss ")
    assert str(output) in lines[1]
    assert lines[2].startswith("test accuracy ")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder, tmp_path):
    for name, seed in [("first", "3"), ("again", "3"), ("other", "4")]:
        arguments = ["--mnist", str(folder), "--output", str(tmp_path / name), "--seed", seed]
        train.main([*arguments, "--epochs", "2"])
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    assert (tmp_path / "first").read_bytes() != (tmp_path / "other").read_bytes()


def test_the_callers_random_numbers_go_on_undisturbed(folder, tmp_path):
    before = torch.get_rng_state()
    train.main(["--mnist", str(folder), "--output", str(tmp_path / "w.npz"), "--epochs", "1"])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_test_images_do_not_influence_the_weights(folder, tmp_path):
    other = tmp_path / "mnist"
    other.mkdir()
    write_split(other, "train", *bars(300, seed=1))
    write_split(other, "t10k", *bars(70, seed=9))
    for directory, name in [(folder, "one"), (other, "two")]:
        train.main(["--mnist", str(directory), "--output", str(tmp_path / name), "--epochs", "1"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_error_is_one_line_and_exit_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--mnist", str(tmp_path)])
    assert caught.value.code == 2
    assert "train-images-idx3-ubyte" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("epochs", ["0", "-1", "many"])
def test_epochs_that_are_no_positive_number_are_refused(folder, epochs, capsys):
    with pytest.raises(SystemExit):
        train.main(["--mnist", str(folder), "--epochs", epochs])
    assert "--epochs" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "held_out"), [(6, 1), (11, 1), (300, 50), (60_000, 10_000)])
def test_the_last_sixth_is_held_out(size, held_out):
    training, validation = train.hold_out(numbered(size))
    assert (len(training), len(validation)) == (size - held_out, held_out)
    assert torch.equal(torch.cat([training.labels, validation.labels]), torch.arange(size))


def test_too_few_images_to_hold_any_out_are_refused():
    with pytest.raises(TsstoreError, match="found 5, expected at least 6"):
        train.hold_out(numbered(5))


@pytest.mark.parametrize(("size", "sizes"), [(7, [3, 3, 1]), (6, [3, 3]), (0, [])])
def test_batches_hold_every_example_once_and_in_order(size, sizes):
    batches = list(numbered(size).batches(3))
    assert [len(batch) for batch in batches] == sizes
    assert [label for batch in batches for label in batch.labels.tolist()] == list(range(size))


def test_examples_are_scaled_images_and_whole_number_labels(tiny):
    assert (tiny.images.dtype, tiny.images.shape) == (torch.float32, (40, 1, 28, 28))
    assert tiny.images.max() == 250 / 256
    assert tiny.labels.dtype == torch.int64


def test_accuracy_is_the_share_of_right_answers_and_keeps_running_means(tiny):
    network = load_lenet5()
    with torch.inference_mode():
        answers = network(tiny.images).argmax(dim=1)
    half = torch.where(torch.arange(len(tiny)) % 2 == 0, answers, (answers + 1) % 10)
    before = network.norm_1.running_mean.clone()
    assert train.accuracy(network.train(), Examples(tiny.images, half)) == 0.5
    assert torch.equal(network.norm_1.running_mean, before)


def test_an_epoch_of_training_lowers_the_loss(folder):
    examples = train.load_examples(folder, "train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = LeNet5()
        optimizer = train.SGD(network.parameters(), lr=0.001, momentum=0.9)
        losses = [train.train_epoch(network, optimizer, examples) for _ in range(6)]
    assert losses[-1] < losses[0]


def play(monkeypatch, tiny, accuracies: list[float], epochs: int) -> tuple[Epoch, list[Epoch], int]:
    """Fit with accuracies made up; also return the epochs that were reported, and the mark
    that the fitted network carries: the number of the epoch whose weights it holds."""
    played = iter(accuracies)
    reported: list[Epoch] = []

    def mark(network, optimizer, examples):
        network.pred.bias.data.add_(1)
        return 0.0

    monkeypatch.setattr(train, "train_epoch", mark)
    monkeypatch.setattr(train, "accuracy", lambda network, examples: next(played))
    network = LeNet5()
    best = train.fit(network, tiny, tiny, epochs, reported.append)
    return best, reported, int(network.pred.bias[0].item())


def test_fitting_stops_after_five_epochs_without_a_rise(monkeypatch, tiny):
    accuracies = [0.1, 0.6, 0.5, 0.6, 0.2, 0.3, 0.4, 0.9]
    best, reported, mark = play(monkeypatch, tiny, accuracies, epochs=200)
    assert [epoch.accuracy for epoch in reported] == accuracies[:7]
    assert best == Epoch(2, 0.0, 0.6)
    assert mark == 2


def test_a_rise_in_the_fifth_epoch_keeps_fitting_alive(monkeypatch, tiny):
    accuracies = [0.5, 0.1, 0.1, 0.1, 0.1, 0.6, 0.1, 0.1]
    best, reported, mark = play(monkeypatch, tiny, accuracies, epochs=8)
    assert len(reported) == 8
    assert best.number == mark == 6


def test_the_number_of_epochs_is_an_upper_bound(monkeypatch, tiny):
    best, reported, mark = play(monkeypatch, tiny, [0.0, 0.1, 0.2, 0.3], epochs=3)
    assert [epoch.number for epoch in reported] == [1, 2, 3]
    assert best.number == mark == 3


def test_saved_weights_come_back_bit_by_bit_and_in_the_same_bytes(tmp_path):
    network = LeNet5()
    train.save_weights(network, tmp_path / "weights")
    train.save_weights(network, str(tmp_path / "again"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "weights"]
    assert (tmp_path / "weights").read_bytes() == (tmp_path / "again").read_bytes()
    loaded = load_lenet5(tmp_path / "weights").state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_weights_in_no_folder_cannot_be_written(tmp_path):
    with pytest.raises(TsstoreError, match="cannot be written"):
        train.save_weights(LeNet5(), tmp_path / "absent" / "weights.npz")
