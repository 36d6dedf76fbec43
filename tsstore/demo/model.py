"""The demo network: a LeNet-5 with ELU and batch normalisation, and its trained weights.

Layers and names follow the network of the TensorState PyTorch tutorial, so that results can be
compared layer by layer. It needs torch.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from tsstore.demo import DATA, read
from tsstore.errors import TsstoreError

_WRITE_AGAIN: Final = "write the file again with python benchmarks/train_demo.py"


class LeNet5(nn.Module):
    """Three convolutions and one dense layer for images of 28 × 28 pixels and 10 classes.

    Each convolution goes through ELU and batch normalisation, the first two through 2 × 2
    maximum pooling as well. Convolutions and ``pred`` start from Kaiming-normal weights (He et
    al. 2015, https://arxiv.org/abs/1502.01852) and zero biases.

    =========  =======  ================
    layer      neurons  positions
    =========  =======  ================
    conv_1     20       24 × 24
    conv_2     50       8 × 8
    conv_3     100      1
    pred       10       1
    =========  =======  ================
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(1, 20, kernel_size=5)
        self.elu_1 = nn.ELU()
        self.norm_1 = _batch_norm(20)
        self.maxp_1 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.conv_2 = nn.Conv2d(20, 50, kernel_size=5)
        self.elu_2 = nn.ELU()
        self.norm_2 = _batch_norm(50)
        self.maxp_2 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.conv_3 = nn.Conv2d(50, 100, kernel_size=4)
        self.elu_3 = nn.ELU()
        self.norm_3 = _batch_norm(100)

        self.pred = nn.Linear(100, 10)

        for layer in (self.conv_1, self.conv_2, self.conv_3, self.pred):
            _start(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Score the ten classes of each image.

        Parameters
        ----------
        images
            float32, of any shape with 784 values an image, such as (N, 784) or (N, 1, 28, 28);
            pixels are value / 256.

        Returns
        -------
        float32 (N, 10), scores before softmax.
        """
        planes = images.reshape(-1, 1, 28, 28)
        planes = self.maxp_1(self.norm_1(self.elu_1(self.conv_1(planes))))
        planes = self.maxp_2(self.norm_2(self.elu_2(self.conv_2(planes))))
        planes = self.norm_3(self.elu_3(self.conv_3(planes)))
        scores: Tensor = self.pred(planes.flatten(start_dim=1))
        return scores


def load_lenet5(path: str | Path | None = None) -> LeNet5:
    """Build the demo network with trained weights, in eval mode on the CPU.

    Parameters
    ----------
    path
        An ``.npz`` file that ``python benchmarks/train_demo.py`` wrote; by default the weights
        that come with the package. Nothing is ever unpickled.

    Raises
    ------
    TsstoreError
        If the file cannot be read, or does not hold this network's weights.
    """
    path = DATA / "lenet5.npz" if path is None else path
    content = read(path, "an .npz file of weights; check the path, or install tsstore again")
    weights, model = _parse_weights(content, path), LeNet5()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise TsstoreError(
            f"{path}: found the weights of another network, expected those of LeNet5; "
            f"{_WRITE_AGAIN} ({error})"
        ) from error
    return model.eval()


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    """Normalise each channel, with a running mean that follows the latest batches closely."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.9)


def _start(layer: nn.Conv2d | nn.Linear) -> None:
    """Give a layer Kaiming-normal weights and zero biases."""
    nn.init.kaiming_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _parse_weights(content: bytes, path: str | Path) -> dict[str, Tensor]:
    """Turn the bytes of an .npz file into tensors, one for each name of the state dict."""
    try:
        # NpzFile and not np.load, which would also take a bare array, without names.
        with np.lib.npyio.NpzFile(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, TypeError, EOFError) as error:
        raise TsstoreError(
            f"{path}: found no arrays that can be read ({error}), expected an .npz file of "
            f"weights; {_WRITE_AGAIN}"
        ) from error
