"""A batch while it lasts: rows of all layers and sample columns, dropped as a whole or finished."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sized
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from tsstore.errors import ColumnsError
from tsstore.recording.axes.layer import Waiting
from tsstore.recording.axes.tensor import choose, is_time_first
from tsstore.recording.batches.columns import Masks, to_column
from tsstore.recording.packing.packed import Packed
from tsstore.recording.samples.index import MANY_EACH, PACKED_SEQUENCES, SampleIndex, parsed
from tsstore.recording.samples.inputs import Arguments
from tsstore.recording.selection.outputs import first_value
from tsstore.recording.selection.select import Target, unwrapped


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


class Call(NamedTuple):
    """The rows of one call, with the number of the forward pass that it was a part of."""

    target: Target
    forward: int
    packed: Packed


class _WaitingCall(NamedTuple):
    """A call whose rows wait for the end of the batch."""

    target: Target
    forward: int
    waiting: Waiting


class OpenBatch:
    """A batch while it lasts: calls of one forward pass are told apart, further ones add positions.

    One that is not `wanted` is let through. `inputs` are the arguments of the first forward pass,
    where the model may be run on some of its samples; `forwards` the numbers of passes that count.
    """

    def __init__(
        self,
        samples: int | None = None,
        first_sample: int = 0,
        wanted: bool = True,
        told: SampleIndex | Mapping[str, SampleIndex] | None = None,
    ) -> None:
        self.explicit_samples = None if samples is None else _checked_samples(samples)
        self.first_sample = first_sample
        self.wanted = wanted
        self.masks = Masks()
        self.columns: dict[str, npt.NDArray[Any]] = {}
        self.sample_index: SampleIndex | dict[str, SampleIndex] | None = None
        self.inputs: Arguments | None = None
        self.forwards: list[int] = []
        self.is_sampled = False
        self._told = told
        self._forward = 0
        self._input: ModelInput | None = None
        self._input_of = 0
        self._has_unseen = False
        self._calls: list[Call | _WaitingCall] = []

    def record(
        self, columns: Mapping[str, Any], mask: Any = None, sample_index: Any = None
    ) -> None:
        """Add sample columns, a mask, and an index; ColumnsError if one is no such, or too late."""
        if sample_index is not None:
            self._check_in_time("sample_index")
            if self.sample_index is not None:
                raise ColumnsError("sample_index was recorded twice in one batch; record it once")
            self.sample_index = parsed(sample_index)
        if mask is not None:
            self._check_in_time("mask")
            self.masks.record(mask)
        for name, values in columns.items():
            if name in self.columns:
                raise ColumnsError(
                    f"column {name!r} was recorded twice in one batch; record it once"
                )
            self.columns[name] = to_column(name, values)

    def _check_in_time(self, what: str) -> None:
        if self.is_sampled:
            raise ColumnsError(
                f"the {what} came when positions had been chosen without it; with positions= give "
                f"it before the forward pass: recorder.batch({what}=…)"
            )

    @property
    def calls(self) -> list[Call]:
        """All calls, in order, but for those that wait."""
        return [call for call in self._calls if isinstance(call, Call)]

    @calls.setter
    def calls(self, calls: list[Call]) -> None:
        self._calls = [*calls]

    @property
    def packed(self) -> list[Packed]:
        """The rows of all calls, in order."""
        return [call.packed for call in self.calls]

    @property
    def form(self) -> Hashable:
        """What there is but for states and values: the same in batches that are alike."""
        columns = *self.columns, *map(len, self.columns.values())
        said = bool(self.masks), self.sample_index is not None
        calls = [
            (call.forward, call.packed.form if isinstance(call, Call) else object())
            for call in self._calls
        ]
        return self.explicit_samples, self._input, columns, said, *calls

    def begin_forward(
        self, model_input: ModelInput = NO_INPUT, arguments: Arguments | None = None
    ) -> None:
        """Note that a forward pass begins, with arguments if the model may be run on them again."""
        self._forward += 1
        self.forwards.append(self._forward)
        self._has_unseen |= model_input.is_doubtful and not model_input.shape
        if self._input is None and model_input.shape:
            self._input = model_input
            self._input_of = self._forward
            self.inputs = arguments

    def add(self, target: Target, packed: Packed | Waiting) -> None:
        """Add one call: its rows, or what they are to be made of when the batch is over."""
        make = _WaitingCall if isinstance(packed, Waiting) else Call
        self._calls.append(make(target, self._forward, packed))  # type: ignore[arg-type]

    def wait_no_longer(self, pack: Callable[[Target, Waiting], Packed | None]) -> None:
        """Let the rows be made that had to wait for the batch's end; None leaves them out."""
        calls, self._calls = self._calls, []
        for call in calls:
            if isinstance(call, Call):
                self._calls.append(call)
            elif (packed := pack(call.target, call.waiting)) is not None:
                self._calls.append(Call(call.target, call.forward, packed))

    def drop_forward(self) -> None:
        """Forget the forward pass that was begun last: it has failed."""
        self._calls = [call for call in self._calls if call.forward != self._forward]
        self.forwards = [number for number in self.forwards if number != self._forward]
        if self._input_of == self._forward:
            self._input = self.inputs = None

    def told(self, layer: str) -> SampleIndex | None:
        """Return which sample each entry of a layer belongs to, as the user said it, or None."""
        return choose(self.sample_index, layer) or choose(self._told, layer)

    def samples(self) -> int | None:
        """Return how many samples there are, as said or seen; None where nothing happened."""
        samples = _samples_said(self.explicit_samples, self.columns)
        if samples is None:
            self._check_input_is_seen()
            return self.input_samples()
        if self.explicit_samples is None and not self._fits(samples):
            column, found = next(iter(self.columns)), self.input_samples()
            shape = f" of shape {self._input.shape}" if self._input else ""
            raise ColumnsError(
                f"column {column!r} has {samples} entries, but the input{shape} has {found}; "
                "record one entry a sample, or, if several inputs belong to one sample, say which: "
                f"recorder.batch({samples}, sample_index=…, …)"
            )
        return samples

    @property
    def is_number_said(self) -> bool:
        """Whether the user said how many samples there are, as a number or by a column."""
        return self.explicit_samples is not None or bool(self.columns)

    @property
    def has_one_sample(self) -> bool:
        """Whether a single sample is certain: said, or all that the model takes has one entry."""
        return self.is_number_said or self._input is None or not self._input.is_doubtful

    def input_samples(self) -> int | None:
        """Return the number of samples as the layers and the model's input have it, or None."""
        calls = self.calls
        # Of layers of which the user does not say whose an entry is, if there are.
        untold = [call for call in calls if self.told(call.target.axes.layer) is None]
        packed = [call.packed for call in untold or calls]
        if (known := _samples_told_by(packed)) is not None:
            return known
        if self._input is not None:
            return self._input.samples
        return packed[0].form.samples if packed else None

    def samples_so_far(self, size: int, sample_axis: int) -> int:
        """Return how many samples a tensor holds, as far as is known while the batch lasts."""
        known = _samples_said(self.explicit_samples, self.columns)
        if known is None and sample_axis == 0:
            known = self.input_samples()
        return size if known is None else known

    def _check_input_is_seen(self) -> None:
        if self._input is None and self._has_unseen and self.calls:
            if _samples_told_by(self.packed) is not None:
                return
            raise ColumnsError(
                "the model was called without a tensor, so nothing tells how many samples the "
                "batch has; say it: recorder.batch(32), or record a column, of one entry a sample"
            )

    def _fits(self, samples: int) -> bool:
        """Whether so many samples fit without that several inputs are taken for one of them."""
        if samples == self.input_samples():
            return True
        # The input may be (time, sample, feature).
        if self._input is not None and self._input.shape[1:-1][:1] == (samples,):
            return True
        return all(
            self.told(call.target.axes.layer) is not None or call.packed.form.samples == samples
            for call in self.calls
        )


def _checked_samples(samples: object) -> int:
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 0:
        raise ColumnsError(
            f"recorder.batch({samples!r:.80}): found a {type(samples).__name__}, expected the "
            "number of samples; pass columns by name, as in recorder.batch(label=labels)"
        )
    return int(samples)


def _samples_said(explicit: int | None, columns: Mapping[str, Sized]) -> int | None:
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


def _samples_told_by(calls: Iterable[Packed]) -> int | None:
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
