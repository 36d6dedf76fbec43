"""Networks for the benchmarks: the demo's LeNet-5, a ResNet-18, and a transformer encoder.

The last two have random weights: what a capture costs does not depend on them. Inputs are MNIST
images, enlarged where that is needed: neighbouring positions are alike, as in photographs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsstore.demo import mnist
from tsstore.demo.model import load_lenet5

LENET_LAYERS = ("conv_1", "conv_2", "conv_3", "pred")


@dataclass(frozen=True)
class Case:
    """A network, a batch for it, and the layers that are captured.

    Attributes
    ----------
    name
        For tables.
    model
        In evaluation mode.
    inputs
        One batch.
    layers
        Names of modules.
    """

    name: str
    model: nn.Module
    inputs: Tensor
    layers: tuple[str, ...]


class BasicBlock(nn.Module):
    """Two convolutions and a short cut (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        stride = 1 if channels_in == channels else 2
        self.conv_1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride == 2:
            narrow = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut.extend([narrow, nn.BatchNorm2d(channels)])

    def forward(self, planes: Tensor) -> Tensor:
        """Return planes of half the size where there are twice as many channels."""
        inner = self.relu(self.norm_1(self.conv_1(planes)))
        outer: Tensor = self.norm_2(self.conv_2(inner))
        return self.relu(outer.add_(self.shortcut(planes)))


class ResNet18(nn.Sequential):
    """16 convolutions in 8 blocks, for images of 3 × 224 × 224 or so."""

    def __init__(self) -> None:
        blocks = [
            BasicBlock(channels_in, channels)
            for before, channels in ((64, 64), (64, 128), (128, 256), (256, 512))
            for channels_in in (before, channels)
        ]
        super().__init__(
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Sequential(*blocks),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, 1000),
        )


class EncoderLayer(nn.Module):
    """Self-attention and an MLP, both behind a norm; no fast path that hooks could turn off."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape, (batch, tokens, width)."""
        parts = self.project_in(self.norm_1(tokens)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.project_out(attended.transpose(1, 2).flatten(2))
        return tokens + self.narrow(functional.gelu(self.widen(self.norm_2(tokens))))


def images(count: int, size: int = 28, channels: int = 1) -> Tensor:
    """Return the first MNIST test images, float32 (count, channels, size, size)."""
    small = torch.from_numpy(mnist.to_model_input(mnist.test_images()[0][:count]))
    if size == 28:
        return small
    large = functional.interpolate(small, (size, size), mode="bilinear")
    return large.expand(-1, channels, -1, -1).contiguous()


def lenet(layers: tuple[str, ...], batch: int = 200) -> Case:
    """Return the demo's LeNet-5."""
    what = layers[0] if len(layers) == 1 else f"{len(layers)} layers"
    return Case(f"LeNet-5, {what}", load_lenet5(), images(batch), layers)


def resnet(batch: int = 8, size: int = 224) -> Case:
    """Return a ResNet-18 with the convolutions of its blocks."""
    torch.manual_seed(1)
    model = ResNet18().eval()
    layers = tuple(f"4.{block}.conv_{number}" for block in range(8) for number in (1, 2))
    return Case("ResNet-18, 16 convolutions", model, images(batch, size, 3), layers)


def transformer(batch: int = 8, depth: int = 6, width: int = 512, tokens: int = 128) -> Case:
    """Return a transformer encoder with the wide layers of its MLPs."""
    torch.manual_seed(1)
    model = nn.Sequential(*(EncoderLayer(width, 8) for _ in range(depth))).eval()
    layers = tuple(f"{index}.widen" for index in range(depth))
    return Case(f"transformer, {depth} MLPs", model, torch.randn(batch, tokens, width), layers)
