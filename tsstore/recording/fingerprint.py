"""What of a model goes into the store, so that a resumed run can be told from another model's."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tsstore.recording.selection.select import unwrapped

SAMPLE = 64
"""Values of each parameter that are hashed at most, evenly spread."""


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Return a model's class, its number of parameters, and a hash.

    The hash covers the names, shapes and dtypes of all parameters and buffers, and a fixed sample
    of the values of each. Wrappers of the model change nothing; parameters that no forward pass
    has given a shape yet do not count, nor do values that are spread over several processes, or
    sparse, or quantized.
    """
    model = unwrapped(model)
    digest = hashlib.sha256()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor) and not is_lazy(tensor):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_sample(tensor))
    known = [parameter for parameter in model.parameters() if not is_lazy(parameter)]
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in known),
        "sha256": digest.hexdigest(),
    }


def _sample(tensor: torch.Tensor) -> bytes:
    tensor = tensor.detach()
    dense = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta
    # Of a subclass, as of a tensor that is spread over processes, values may not be at hand.
    if not dense or type(tensor.data) is not torch.Tensor or not tensor.numel():
        return b""
    every = -(-tensor.numel() // SAMPLE)
    values = tensor.reshape(-1)[::every].cpu().resolve_conj().resolve_neg().contiguous()
    return values.view(torch.uint8).numpy().tobytes()
