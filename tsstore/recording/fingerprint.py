"""What of a model goes into the store, so that a resumed run can be told from another model's."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

SAMPLE = 64
"""Values of each parameter that are hashed, evenly spread."""


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Return a model's class, its number of parameters, and a hash.

    The hash covers the names, shapes and dtypes of all parameters and buffers, and a fixed sample
    of the values of each.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict(keep_vars=False).items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_sample(tensor))
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": digest.hexdigest(),
    }


def _sample(tensor: torch.Tensor) -> bytes:
    if tensor.layout is not torch.strided or tensor.is_quantized or not tensor.numel():
        return b""
    flat = tensor.detach().reshape(-1)
    values = flat[:: max(flat.numel() // SAMPLE, 1)][:SAMPLE].cpu().contiguous()
    return values.view(torch.uint8).numpy().tobytes()
