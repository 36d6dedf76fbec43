"""Running a model beside the job, and leaving no trace of it."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

import numpy as np
import torch
from torch import nn

_HOOKS: Final = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Let a model run in evaluation mode, without gradients, hooks or compiled code, for a while.

    Afterwards its modules' attributes, modes, hooks and buffers, and the random numbers of torch,
    NumPy and Python, are as they were. What a module holds in lists of its own is not looked at.
    """
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    tensors = [(tensor, tensor.clone()) for tensor in _own_tensors(modules)]
    try:
        for module in modules:
            quiet: dict[str, Any] = {name: OrderedDict() for name in _HOOKS}
            vars(module).update(quiet, training=False, _compiled_call_impl=None)
        with torch.no_grad(), _random_numbers_kept(model), _eager():
            yield
    finally:
        for module, before, held in zip(modules, attributes, buffers, strict=True):
            vars(module).clear()
            vars(module).update(before)
            module._buffers.clear()
            module._buffers.update(held)
        with torch.no_grad():
            for tensor, value in tensors:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)


def _own_tensors(modules: list[nn.Module]) -> Iterator[torch.Tensor]:
    """Yield buffers, and tensors that modules keep as plain attributes."""
    for module in modules:
        for value in (*module._buffers.values(), *vars(module).values()):
            if isinstance(value, torch.Tensor):
                yield value


@contextmanager
def _random_numbers_kept(model: nn.Module) -> Iterator[None]:
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    on_gpu = [device.index for device in devices if device.type == "cuda"]
    python, by_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(on_gpu):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(by_numpy)


@contextmanager
def _eager() -> Iterator[None]:
    """Let parts of a model that were compiled run as they were written, where torch can do that."""
    with ExitStack() as until_end:
        # Whoever has not imported it has compiled nothing.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            with suppress(RuntimeError):
                until_end.enter_context(torch.compiler.set_stance("force_eager"))
        yield
