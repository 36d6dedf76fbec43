"""What modules of known kinds say of the tensors that they take and give.

A module is trusted to what its class says of axes where its ``forward`` is that of a known library:
a subclass with one of its own may do anything, as a LayerNorm does that permutes by itself. The
number of neurons that it declares still holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import nn


class Declared(NamedTuple):
    """How many neurons a tensor has and which axis holds them; None where a module does not say."""

    width: int | None
    axis: int | None


_TRUSTED: Final = ("torch.", "transformers.pytorch_utils")
"""Where a ``forward`` comes from that does what its class says."""
_KEEPING: Final = (
    "torch.nn.modules.activation", "torch.nn.modules.dropout", "torch.nn.modules.normalization",
    "torch.ao.nn.quantized.modules.activation", "transformers.activations",
    "timm.layers.activations", "timm.layers.activations_me", "timm.layers.drop",
)  # fmt: skip
"""Where a ``forward`` comes from that keeps shape and axes, but for the exceptions below."""
_NOT_KEEPING = (nn.MultiheadAttention, nn.GLU)

_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_FEATURE_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
_NEURONS_FIRST = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, nn.LPPool1d, nn.LPPool2d, nn.LPPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.PixelShuffle, nn.PixelUnshuffle,
    nn.ChannelShuffle, nn.Upsample, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.FeatureAlphaDropout, nn.LocalResponseNorm, nn.CrossMapLRN2d, nn.Softmax2d,
)  # fmt: skip
"""Classes that tell the axis, and nothing else: pooling, and what treats whole channels."""
_SEQUENCE = (
    nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer,
    nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer,
)  # fmt: skip
"""Classes whose ``batch_first`` tells the sample axis."""
_BATCHED_AXES: Final = {
    3: (
        nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d,
        nn.AdaptiveMaxPool1d, nn.InstanceNorm1d, *_SEQUENCE,
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


def gives(module: nn.Module, output: str | None = None) -> Declared | None:
    """Return what a module says of what it gives, at a path; None where its kind is unknown."""
    return _declared(module, _given, output)


def takes(module: nn.Module) -> Declared | None:
    """Return what a module says of the first tensor that it takes; None if its kind is unknown."""
    return _declared(module, _taken, None)


def is_trusted(module: nn.Module) -> bool:
    """Whether a module does what its class says: its ``forward`` is none of a user's own."""
    if _exported_class(module) is not None:
        return True
    return "forward" not in module.__dict__ and _home_of_forward(module).startswith(_TRUSTED)


def keeps_layout(module: nn.Module) -> bool:
    """Whether each axis of what a module takes is the same axis of what it gives, for certain."""
    kind = class_of(module)
    if issubclass(kind, nn.Identity):
        return is_trusted(module)
    if kind is not type(module):
        home = kind.forward.__module__
    else:
        home = "" if "forward" in module.__dict__ else _home_of_forward(module)
    return home in _KEEPING and not issubclass(kind, _NOT_KEEPING)


def keeps_positions(module: nn.Module) -> bool:
    """Whether a module treats each position by itself, so that all axes but the last one stay."""
    kind = class_of(module)
    if issubclass(kind, nn.EmbeddingBag) or is_sequence_module(module):
        return False
    declared = gives(module)
    return declared is not None and declared.axis == -1


def is_sequence_module(module: nn.Module) -> bool:
    """Whether a module's ``batch_first`` tells the sample axis of what it takes and gives."""
    kind = class_of(module)
    known = issubclass(kind, _SEQUENCE) or _is_recurrent(module, kind)
    return known and is_trusted(module)


def axes_of_a_batch(module: nn.Module) -> int | None:
    """Return how many axes a batch for a module has that takes a single sample, too; else None."""
    if not is_trusted(module):
        return None
    kind = class_of(module)
    return next((axes for axes, kinds in _BATCHED_AXES.items() if issubclass(kind, kinds)), None)


def class_of(module: nn.Module) -> type[nn.Module]:
    """Return a module's class: that of the original for what torch.export made of it."""
    return _exported_class(module) or type(module)


def _exported_class(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of a module of torch.nn that torch.export has unflattened."""
    type_name = getattr(module, "type_name", None)
    if not callable(type_name) or not type(module).__module__.startswith("torch.export."):
        return None
    home, _, name = str(type_name()).rpartition(".")
    kind = getattr(nn, name, None)
    return kind if isinstance(kind, type) and kind.__module__ == home else None


def _is_trusted_of_timm(module: nn.Module, axis: int) -> bool:
    """Whether a layer of timm does what its class says: all but norms of maps, which permute."""
    ours = _home_of_forward(module).startswith("timm.layers.")
    return ours and (axis == 1 or not type(module).__name__.endswith("2d"))


def _home_of_forward(module: nn.Module) -> str:
    return str(getattr(type(module).forward, "__module__", ""))


_Widths = tuple[int | None, int]
"""How many neurons, and which axis holds them."""


def _declared(
    module: nn.Module, find: Callable[[nn.Module, str | None], _Widths | None], path: str | None
) -> Declared | None:
    base = getattr(module, "base_layer", None)
    if isinstance(base, nn.Module) and _home_of_forward(module).startswith("peft."):
        return _declared(base, find, path)
    found = find(module, path)
    if found is None:
        return None
    width, axis = found
    if is_trusted(module) or _is_trusted_of_timm(module, axis):
        return Declared(width, axis)
    return None if width is None else Declared(width, None)


def _given(module: nn.Module, path: str | None) -> _Widths | None:
    kind = class_of(module)
    if _is_recurrent(module, kind):
        return _given_by_rnn(module, path)
    if issubclass(kind, nn.MultiheadAttention) and path not in (None, "0"):
        return None
    if issubclass(kind, (nn.Linear, nn.Bilinear)):
        return _number(module, "out_features", 0), -1
    if issubclass(kind, _CONVOLUTIONS):
        return _number(module, "out_channels", None if "Transpose" in kind.__name__ else 0), 1
    if issubclass(kind, (nn.Embedding, nn.EmbeddingBag)):
        return _number(module, "embedding_dim", 1), -1
    if _is_conv1d_of_transformers(module):
        return _number(module, "nf", 1), -1
    if _is_quantized(module, "out_features"):
        return _number(module, "out_features", None), -1
    if _is_quantized(module, "out_channels"):
        return _number(module, "out_channels", None), 1
    return _both(module, kind)


def _taken(module: nn.Module, path: str | None) -> _Widths | None:
    kind = class_of(module)
    if issubclass(kind, (nn.Embedding, nn.EmbeddingBag)):
        return None
    if _is_recurrent(module, kind) or issubclass(kind, nn.RNNCellBase):
        return _number(module, "input_size", None), -1
    if issubclass(kind, nn.Linear) or _is_quantized(module, "in_features"):
        return _number(module, "in_features", 1), -1
    if issubclass(kind, _CONVOLUTIONS) or _is_quantized(module, "in_channels"):
        return _number(module, "in_channels", None), 1
    if _is_conv1d_of_transformers(module):
        return _number(module, "nx", 0), -1
    return _both(module, kind)


def _both(module: nn.Module, kind: type[nn.Module]) -> _Widths | None:
    """Return what holds for both sides, as of norms and of what is made of attention."""
    if issubclass(kind, _FEATURE_NORMS):
        return _number(module, "num_features", 0), 1
    if issubclass(kind, nn.GroupNorm):
        return _number(module, "num_channels", 0), 1
    if issubclass(kind, (nn.LayerNorm, nn.RMSNorm)):
        shape = tuple(getattr(module, "normalized_shape", None) or _shape_of_weight(module))
        # Over several axes it does not tell which of them holds the neurons.
        return (int(shape[0]), -1) if len(shape) == 1 else None
    if issubclass(kind, nn.PReLU) and (width := _number(module, "num_parameters", 0)) != 1:
        return width, 1
    if issubclass(kind, nn.RNNCellBase):
        return _number(module, "hidden_size", None), -1
    if issubclass(kind, _SEQUENCE):
        return _model_width(module), -1
    return (None, 1) if issubclass(kind, _NEURONS_FIRST) else None


def _given_by_rnn(module: nn.Module, path: str | None) -> _Widths | None:
    """Return the width of a recurrent module's states, directions and projections counted."""
    hidden = _number(module, "hidden_size", None)
    if hidden is None:
        return None
    projected = _number(module, "proj_size", None) or hidden
    if path is None or path == "0":
        return projected * (2 if getattr(module, "bidirectional", False) else 1), -1
    return (hidden if path == "1.1" else projected), -1


def _model_width(module: nn.Module) -> int | None:
    for name in ("embed_dim", "d_model"):
        if (width := _number(module, name, None)) is not None:
            return width
    if isinstance(attention := getattr(module, "self_attn", None), nn.Module):
        return _model_width(attention)
    stacked = getattr(module, "layers", None)
    return _model_width(stacked[0]) if isinstance(stacked, nn.ModuleList) and stacked else None


def _is_recurrent(module: nn.Module, kind: type[nn.Module]) -> bool:
    return issubclass(kind, nn.RNNBase) or _is_quantized(module, "num_layers")


def _is_conv1d_of_transformers(module: nn.Module) -> bool:
    names = ((one.__module__, one.__name__) for one in type(module).__mro__)
    return ("transformers.pytorch_utils", "Conv1D") in names


def _is_quantized(module: nn.Module, attribute: str) -> bool:
    return _home_of_forward(module).startswith("torch.ao.") and hasattr(module, attribute)


def _number(module: nn.Module, attribute: str, axis_of_weight: int | None) -> int | None:
    """Return a number that a module declares, else that of its weights, else None."""
    value = getattr(module, attribute, None)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    shape = _shape_of_weight(module)
    if axis_of_weight is None or axis_of_weight >= len(shape):
        return None
    return int(shape[axis_of_weight])


def _shape_of_weight(module: nn.Module) -> tuple[int, ...]:
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) else ()
