"""What a model was called with: its tensors, and the same call for some of the samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch.nn.utils.rnn import PackedSequence

_PLAIN: Final = (
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size,
)  # fmt: skip


class NotPossible(Exception):  # noqa: N818
    """A model cannot be tried on some of its samples; the message says why."""


def tensors_in(value: Any, strict: bool = True) -> list[torch.Tensor]:
    """Return the tensors in arguments, however nested in tuples, lists and mappings.

    Raises
    ------
    NotPossible
        If there is anything else but plain values, and `strict`.
    """
    return list(_tensors(value, strict))


def may_hold_several(value: Any, axis: int) -> bool:
    """Whether some tensor in arguments, however nested, may hold more than one sample.

    Parameters
    ----------
    value
        Arguments; a list of tensors may have one for each sample.
    axis
        Sample axis of the first tensor.
    """
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0]) != 1
    if isinstance(value, torch.Tensor):
        return value.ndim > 0 and value.shape[min(axis, value.ndim - 1)] != 1
    if isinstance(value, list) and sum(isinstance(item, torch.Tensor) for item in value) > 1:
        return True
    inside: Any = value if isinstance(value, list | tuple) else ()
    inside = value.values() if isinstance(value, Mapping) else inside
    return any(may_hold_several(item, axis) for item in inside)


def selected(value: Any, axis: int, size: int, chosen: list[int]) -> Any:
    """Return arguments with some of the samples.

    Parameters
    ----------
    value
        Arguments, however nested.
    axis, size
        Tensors of that size along that axis hold samples there; tensors of one axis along it.
        Others are copied as they are.
    chosen
        Numbers of samples; of :func:`flattened` ones all steps are as the first.

    Raises
    ------
    NotPossible
        If there is anything but tensors and plain values.
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


def flattened(number: int) -> int:
    """Return the number by which :func:`selected` knows a sample with all steps as the first."""
    return -1 - number


def _tensors(value: Any, strict: bool) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
        return
    inside: Any = ()
    if strict and isinstance(value, PackedSequence):
        raise _unknown(value)
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list | tuple):
        inside = value
    elif strict and not isinstance(value, _PLAIN):
        raise _unknown(value)
    for item in inside:
        yield from _tensors(item, strict)


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
    raise _unknown(value)


def _unknown(value: Any) -> NotPossible:
    return NotPossible(
        f"the model was called with a {type(value).__name__}, of which samples cannot be taken"
    )
