"""What a model is called with, and the same call for some of its samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch.nn.utils.rnn import PackedSequence

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments and keyword arguments of a call of the model."""

_PLAIN: Final = (
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size,
)  # fmt: skip


class NotPossible(Exception):  # noqa: N818
    """A model cannot be tried on some of its samples; the message says why."""


def arguments_of(example: Any) -> Arguments:
    """Return what an example input stands for: a batch, a tuple of arguments, or a mapping of them.

    A model whose one argument is a mapping has the example ``(mapping,)``.
    """
    if isinstance(example, Mapping):
        return (), {str(name): value for name, value in example.items()}
    return (example if isinstance(example, tuple) else (example,)), {}


def selected(value: Any, axis: int, size: int, chosen: list[int]) -> Any:
    """Return nested arguments with the samples whose numbers are `chosen`.

    Tensors of `size` along `axis` hold samples there, those of one axis along it; others are copied
    as they are. Of :func:`flattened` numbers all steps are as the first. NotPossible if there is
    anything but tensors and plain values.
    """

    def choose(tensor: torch.Tensor) -> torch.Tensor:
        along = min(axis, tensor.ndim - 1)
        if tensor.ndim == 0 or tensor.shape[along] != size:
            return tensor.detach().clone()
        numbers = [number if number >= 0 else flattened(number) for number in chosen]
        made = tensor.detach().index_select(along, torch.tensor(numbers, device=tensor.device))
        for place, number in enumerate(chosen):
            sample = made.select(along, place)
            if number < 0 and sample.ndim:
                sample.copy_(sample[:1].clone().expand_as(sample))
        return made

    return _mapped(value, choose)


def check_can_select(value: Any) -> None:
    """Raise NotPossible where :func:`selected` cannot take some samples of arguments."""
    _mapped(value, lambda tensor: tensor)


def flattened(number: int) -> int:
    """Return the number by which :func:`selected` knows a sample with all steps as the first."""
    return -1 - number


def _mapped(value: Any, choose: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return arguments, with their tensors replaced."""
    if isinstance(value, torch.Tensor):
        return choose(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict):
        made = copy.copy(value)
        made.update({key: _mapped(item, choose) for key, item in value.items()})
        return made
    if isinstance(value, list | tuple) and not isinstance(value, PackedSequence):
        items = [_mapped(item, choose) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    raise NotPossible(
        f"the model was called with a {type(value).__name__}, of which samples cannot be taken"
    )
