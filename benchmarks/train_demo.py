"""Train the demo network: ``python benchmarks/train_demo.py --mnist DIR``.

The recipe is that of the TensorState PyTorch tutorial: batches of 200 in random order, SGD with
Nesterov momentum, cross entropy, and early stopping on the accuracy of images held out from the
training set. The test images (t10k) play no part until the training is over.

With one seed, one version of torch and one number of threads the result is the same each time.
It needs torch.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.sgd import SGD

from tsstore.demo.mnist import Split, load_split, to_model_input
from tsstore.demo.model import LeNet5
from tsstore.errors import TsstoreError

BATCH_SIZE: Final = 200
PATIENCE: Final = 5
HELD_OUT_FRACTION: Final = 6  # one in six: the last 10,000 of 60,000


@dataclass(frozen=True)
class Examples:
    """Images ready for the network, float32 (N, 1, 28, 28), and their labels, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: slice | Tensor) -> Examples:
        return Examples(self.images[chosen], self.labels[chosen])

    def batches(self, size: int) -> Iterator[Examples]:
        """Give the examples in order, so many at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images: its number from 1, mean loss (nats), accuracy after."""

    number: int
    loss: float
    accuracy: float


def load_examples(directory: str | Path, split: Split) -> Examples:
    """Load one split of MNIST as tensors; raises what :func:`.mnist.load_split` raises."""
    images, labels = load_split(directory, split)
    return Examples(torch.from_numpy(to_model_input(images)), torch.from_numpy(labels).long())


def hold_out(examples: Examples) -> tuple[Examples, Examples]:
    """Split examples into those to train on and the last sixth, to validate with.

    Raises
    ------
    TsstoreError
        If there are fewer than six.
    """
    held_out = len(examples) // HELD_OUT_FRACTION
    if held_out == 0:
        raise TsstoreError(
            f"training images: found {len(examples)}, expected at least {HELD_OUT_FRACTION}; "
            "name a folder with more of them"
        )
    return examples[:-held_out], examples[-held_out:]


def accuracy(model: LeNet5, examples: Examples) -> float:
    """Return the share of examples that the network classifies correctly; sets eval mode."""
    model.eval()
    correct = 0
    with torch.inference_mode():
        for batch in examples.batches(1000):
            correct += int((model(batch.images).argmax(dim=1) == batch.labels).sum())
    return correct / len(examples)


def train_epoch(model: LeNet5, optimizer: SGD, examples: Examples) -> float:
    """Go once through the examples in random order; return their mean loss in nats."""
    model.train()
    total = 0.0
    for batch in examples[torch.randperm(len(examples))].batches(BATCH_SIZE):
        optimizer.zero_grad()
        loss = cross_entropy(model(batch.images), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(examples)


def fit(
    model: LeNet5,
    training: Examples,
    validation: Examples,
    epochs: int,
    report: Callable[[Epoch], None],
) -> Epoch:
    """Train until the validation accuracy has not risen for five epochs; keep the best weights.

    Parameters
    ----------
    model
        Trained in place; holds the weights of the best epoch at the end.
    training, validation
        Examples to learn from, and others to judge each epoch by.
    epochs
        At most so many, at least one.
    report
        Called after each epoch.

    Returns
    -------
    The best epoch, the earliest of equal ones.
    """
    optimizer = SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0005, nesterov=True)
    best, best_weights = Epoch(0, float("inf"), -1.0), deepcopy(model.state_dict())
    for number in range(1, epochs + 1):
        loss = train_epoch(model, optimizer, training)
        epoch = Epoch(number, loss, accuracy(model, validation))
        report(epoch)
        if epoch.accuracy > best.accuracy:
            best, best_weights = epoch, deepcopy(model.state_dict())
        elif number - best.number >= PATIENCE:
            break
    model.load_state_dict(best_weights)
    return best


def save_weights(model: LeNet5, path: str | Path) -> None:
    """Write the network's weights for `load_lenet5`, under exactly this name.

    The same weights give the same bytes. A file of that name is replaced.

    Raises
    ------
    TsstoreError
        If the file cannot be written.
    """
    arrays = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    try:
        Path(path).write_bytes(content.getvalue())
    except OSError as error:
        raise TsstoreError(
            f"{path}: cannot be written ({error.strerror}), expected a file name in an existing "
            "folder; name another one"
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save the best weights, and print one line an epoch and the test accuracy."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        best, tested = _run(options, lambda epoch: print(_line(epoch), flush=True))
    except TsstoreError as error:
        parser.error(str(error))
    print(f"saved {options.output}: epoch {best.number}, validation {best.accuracy:.2%}")
    print(f"test accuracy {tested:.2%}")


def _run(options: argparse.Namespace, report: Callable[[Epoch], None]) -> tuple[Epoch, float]:
    """Train and save as the command line says; return the best epoch and the test accuracy."""
    training, validation = hold_out(load_examples(options.mnist, "train"))
    # The caller's random numbers go on as if nothing had happened.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = LeNet5()
        best = fit(model, training, validation, options.epochs, report)
    save_weights(model, options.output)
    return best, accuracy(model, load_examples(options.mnist, "t10k"))


def _line(epoch: Epoch) -> str:
    """Describe an epoch in one line."""
    return f"epoch {epoch.number:3d}  loss {epoch.loss:.4f}  validation {epoch.accuracy:.2%}"


def _positive(text: str) -> int:
    """Read a number of epochs for argparse, which words the error."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="python benchmarks/train_demo.py", description=__doc__)
    parser.add_argument("--mnist", required=True, metavar="DIR", help="folder of the idx files")
    parser.add_argument("--output", default="lenet5.npz", help="file to write (%(default)s)")
    parser.add_argument("--epochs", type=_positive, default=200, help="at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of torch (%(default)s)")
    return parser


if __name__ == "__main__":
    main()
