"""What a model is called with: how many samples it holds, and the same call for some of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from tsstore.errors import ColumnsError
from tsstore.recording.axes.tensor import is_time_first
from tsstore.recording.packing.packed import Packed
from tsstore.recording.samples.index import MANY_EACH, PACKED_SEQUENCES
from tsstore.recording.selection.outputs import first_value
from tsstore.recording.selection.select import unwrapped

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments and keyword arguments of a call of the model."""

_PLAIN: Final = (
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size,
)  # fmt: skip


class NotPossible(Exception):  # noqa: N818
    """A model cannot be tried on some of its samples; the message says why."""


class ModelInput(NamedTuple):
    """The first tensor that the model was called with in a forward pass; () where there is none.

    What is doubtful does not tell how many samples there are: it has one, or there is no tensor,
    and something else may hold several.
    """

    shape: tuple[int, ...] = ()
    sample_axis: int = 0
    is_doubtful: bool = False
    is_packed: bool = False

    @classmethod
    def of(cls, model: nn.Module, arguments: Arguments) -> ModelInput:
        """Return what a model is called with."""
        tensor = first_value(arguments, with_axes=True)
        if isinstance(tensor, PackedSequence):
            shape = int(tensor.batch_sizes[0]), *tensor.data.shape[1:]
            return cls(shape, is_packed=True)
        if tensor is None:
            return cls(is_doubtful=True)
        if tensor.is_nested:
            return cls()
        axis = int(tensor.ndim == 3 and is_time_first(unwrapped(model)))
        if torch._C._is_tracing():
            return cls(tuple(tensor.shape), axis)  # Sizes are tensors there.
        is_doubtful = tensor.shape[axis] == 1 and _may_hold_several(arguments, axis)
        return cls(tuple(tensor.shape), axis, is_doubtful)

    @property
    def samples(self) -> int:
        """Size of its sample axis."""
        return self.shape[self.sample_axis]


NO_INPUT: Final = ModelInput()


def arguments_of(example: Any) -> Arguments:
    """Return what an example input stands for: a batch, a tuple of arguments, or a mapping of them.

    A model whose one argument is a mapping has the example ``(mapping,)``.
    """
    if isinstance(example, Mapping):
        return (), {str(name): value for name, value in example.items()}
    return (example if isinstance(example, tuple) else (example,)), {}


def samples_said(explicit: int | None, columns: Mapping[str, Sized]) -> int | None:
    """Return the number of samples as the user said it, by itself or by columns; None if not."""
    samples = explicit
    for name, column in columns.items():
        samples = len(column) if samples is None else samples
        if len(column) != samples:
            raise ColumnsError(
                f"column {name!r} has {len(column)} entries, but the batch has {samples} "
                "samples; record one entry a sample"
            )
    return samples


def samples_told_by(calls: Iterable[Packed]) -> int | None:
    """Return the number of samples that calls themselves tell, all the same, or None."""
    known = {_samples_of(packed) for packed in calls} - {None}
    return known.pop() if len(known) == 1 else None


def _samples_of(packed: Packed) -> int | None:
    """Return the number of samples that a call itself tells, or None."""
    owners = packed.owners
    if owners is not None and owners.samples is not None and owners.reason == PACKED_SEQUENCES:
        return int(owners.samples.max(initial=-1)) + 1
    # A sample axis that is not the first one is known: by the layer's class, or from the user.
    form = packed.form
    several = (form.decided or {}).get("sample_axis", "").endswith(MANY_EACH)
    return form.samples if form.sample_axis > 0 and not several else None


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


def _may_hold_several(value: Any, axis: int) -> bool:
    """Whether some tensor in arguments may hold several samples, or a list has one for each."""
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0]) != 1
    if isinstance(value, torch.Tensor):
        return value.ndim > 0 and value.shape[min(axis, value.ndim - 1)] != 1
    if isinstance(value, list) and sum(isinstance(item, torch.Tensor) for item in value) > 1:
        return True
    inside: Any = value if isinstance(value, list | tuple) else ()
    inside = value.values() if isinstance(value, Mapping) else inside
    return any(_may_hold_several(item, axis) for item in inside)
