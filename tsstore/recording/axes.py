"""Which axis of a captured tensor holds the neurons, and which the samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import nn

from tsstore.errors import OutputError

_Choice = TypeVar("_Choice")

AxisChoice = int | Mapping[str, int] | None
"""An axis for all layers, or by layer name (globs allowed), or None to let the class decide."""

_NEURONS_FIRST = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.PixelShuffle, nn.Upsample, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
_NEURONS_LAST = (
    nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag,
    nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer,
    nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer, nn.RNNBase,
)  # fmt: skip
_AXES_OF_BATCHES = {
    3: (
        nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d,
        nn.AdaptiveMaxPool1d, nn.InstanceNorm1d, nn.RNNBase, nn.MultiheadAttention, nn.Transformer,
        nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.TransformerEncoder,
        nn.TransformerDecoder,
    ),
    4: (
        nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
        nn.AdaptiveMaxPool2d, nn.InstanceNorm2d,
    ),
    5: (
        nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d,
        nn.AdaptiveMaxPool3d, nn.InstanceNorm3d,
    ),
}  # fmt: skip
"""Classes that take a single sample, too, by the number of axes that a batch has."""


@dataclass(frozen=True)
class Axes:
    """How the axes of one layer's tensors are found.

    Attributes
    ----------
    layer
        Name of the layer, for messages.
    module
        The module.
    neuron_axis, sample_axis
        As the user chose them, or None.
    time_first
        Whether 3-D tensors here are (time, sample, neuron).
    """

    layer: str
    module: nn.Module
    neuron_axis: int | None = None
    sample_axis: int | None = None
    time_first: bool = False

    def of(self, tensor: torch.Tensor) -> tuple[int, int]:
        """Return the neuron axis and the sample axis of a tensor, both counted from the front.

        Raises
        ------
        OutputError
            If the tensor has no room for both, or its neuron axis cannot be told.
        """
        if tensor.ndim < 2:
            raise OutputError(
                f"found a tensor of shape {tuple(tensor.shape)}, expected at least a sample axis "
                "and a neuron axis; exclude the layer"
            )
        self._check_batched(tensor)
        neurons = _counted_from_front(self._neurons(tensor), tensor)
        samples = _counted_from_front(self._samples(tensor), tensor)
        if neurons == samples:
            raise OutputError(
                f"axis {neurons} of {tuple(tensor.shape)} cannot hold both samples and neurons; "
                "pass sample_axis= or neuron_axis="
            )
        return neurons, samples

    def _neurons(self, tensor: torch.Tensor) -> int:
        if self.neuron_axis is not None:
            return self.neuron_axis
        if isinstance(self.module, _NEURONS_LAST):
            return -1
        if tensor.ndim == 3 and not isinstance(self.module, _NEURONS_FIRST):
            raise OutputError(
                f"a {type(self.module).__name__} with a tensor of shape {tuple(tensor.shape)} may "
                f"hold its neurons in axis 1 or 2; say which: neuron_axis={{{self.layer!r}: 2}}"
            )
        return 1

    def _samples(self, tensor: torch.Tensor) -> int:
        if self.sample_axis is not None:
            return self.sample_axis
        return 1 if self.time_first and tensor.ndim == 3 else 0

    def _check_batched(self, tensor: torch.Tensor) -> None:
        for axes, kinds in _AXES_OF_BATCHES.items():
            if isinstance(self.module, kinds) and tensor.ndim == axes - 1:
                raise OutputError(
                    f"a {type(self.module).__name__} with a tensor of shape "
                    f"{tuple(tensor.shape)} has no sample axis; feed batches, as in "
                    "input.unsqueeze(0)"
                )


def _counted_from_front(axis: int, tensor: torch.Tensor) -> int:
    if not -tensor.ndim <= axis < tensor.ndim:
        raise OutputError(
            f"there is no axis {axis} in shape {tuple(tensor.shape)}; pass another neuron_axis= "
            "or sample_axis="
        )
    return axis % tensor.ndim


def choose(choice: _Choice | Mapping[str, _Choice] | None, name: str) -> _Choice | None:
    """Return what the user chose for a layer, by its name or by the first glob that fits, or None.

    Parameters
    ----------
    choice
        A choice for all layers, or a mapping from layer names or globs.
    name
        Name of the layer.
    """
    if not isinstance(choice, Mapping):
        return choice
    if name in choice:
        return choice[name]
    return next((axis for pattern, axis in choice.items() if fnmatchcase(name, pattern)), None)


def is_time_first_at(module: nn.Module, output: str | None, time_first: bool) -> bool:
    """Whether a tensor in a module's output is (time, sample, neuron), or has its axes so.

    Parameters
    ----------
    module
        The module.
    output
        Path of the tensor; None for the first one.
    time_first
        Whether the first one is.
    """
    if output is None or output.split(".")[0] != "1":
        return time_first
    # Last states are (layer, sample, neuron), attention's weights (sample, target, source): both
    # whatever batch_first says.
    return isinstance(module, nn.RNNBase) or (
        time_first and not isinstance(module, nn.MultiheadAttention)
    )


def is_time_first(module: nn.Module) -> bool:
    """Whether a module takes and gives (time, sample, neuron), by its ``batch_first``."""
    if isinstance(module, nn.TransformerEncoder | nn.TransformerDecoder) and len(module.layers):
        return is_time_first(module.layers[0])
    own = getattr(module, "batch_first", None)
    attention = getattr(getattr(module, "self_attn", None), "batch_first", None)
    return own is False or attention is False
