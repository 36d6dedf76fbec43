"""An experiment: which entries of the layers' tensors belong to which sample of a model's input.

The model runs on two samples, then once more with the second one replaced by another sample, and
once with the first one: the entries that differ are those of the sample that was replaced.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tsstore.recording.inputs import NotPossible, selected, tensors_in
from tsstore.recording.outputs import first_tensor, value_at
from tsstore.recording.select import Target, unwrapped
from tsstore.recording.undisturbed import undisturbed

Order = Literal["single", "contiguous", "interleaved"]
"""One entry a sample; those of a sample side by side; sample after sample, and again."""

_Bools = npt.NDArray[np.bool_]
_LOG: Final = logging.getLogger("tsstore")
_MOST_REPLACEMENTS: Final = 3
_OUTPUT: Final = ""
"""Where the tensors that the model itself gives are kept, beside those of layers by name."""


class Found(NamedTuple):
    """What the experiment found of a layer.

    Attributes
    ----------
    axis
        Axis of its tensors that holds the samples' entries, counted from the front.
    order
        How the entries of a sample lie there.
    entries
        Entries of one sample.
    """

    axis: int
    order: Order
    entries: int


@dataclass(frozen=True)
class Findings:
    """What the experiment found.

    Attributes
    ----------
    found
        By public name of the layer, where it tells.
    problems
        By public name, what was seen where it does not tell, or why it was not possible.
    unclear
        Those of them whose entries are not those of one sample each.
    passes
        Forward passes that it took.
    seconds
        Time that it took.
    """

    found: Mapping[str, Found] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    unclear: Mapping[str, str] = field(default_factory=dict)
    passes: int = 0
    seconds: float = 0.0

    def updated(self, later: Findings) -> Findings:
        """Return these findings with later ones in the place of those of the same layers."""
        problems = {
            name: problem for name, problem in self.problems.items() if name not in later.found
        }
        return replace(
            later, found={**self.found, **later.found}, problems={**problems, **later.problems}
        )


def log(findings: Findings, what: str) -> None:
    """Say in the log that the model was run, and on samples of what."""
    layers = len(findings.found) + len(findings.problems)
    _LOG.info(
        "ran the model %d times on samples of %s, in %.2f s, to see which entries of the layers' "
        "tensors belong to which sample; found it for %d of %d layers",
        *(findings.passes, what, findings.seconds, len(findings.found), layers),
    )


def find_samples(
    model: nn.Module,
    targets: Iterable[Target],
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    samples: int | None = None,
    neuron_axes: Mapping[str, int] | None = None,
) -> Findings:
    """Find out which entries of layers' tensors belong to which sample, by running the model.

    It runs in evaluation mode, without gradients and without anybody's hooks; random numbers,
    buffers and modes are afterwards as they were.

    Parameters
    ----------
    model
        The model.
    targets
        Layers.
    arguments, keywords
        What the model is called with: a batch of at least two samples that differ.
    samples
        Number of samples in it; None for the size of the first tensor.
    neuron_axes
        Axes that hold neurons, by public name, where these are known, counted from the front.
    """
    begun = time.perf_counter()
    targets = list(targets)
    model = unwrapped(model)
    trial = _Trial(model, targets, (tuple(arguments), dict(keywords)), neuron_axes or {})
    try:
        seen = trial.find(samples)
        found, problems, unclear = seen.found, seen.problems, seen.unclear
    except NotPossible as reason:
        found, problems, unclear = {}, {target.name: str(reason) for target in targets}, {}
    seconds = time.perf_counter() - begun
    return Findings(found, problems, unclear, trial.passes, seconds)


class _Trial:
    """Runs a model on some samples of its input, and compares what its layers give."""

    def __init__(
        self,
        model: nn.Module,
        targets: list[Target],
        inputs: tuple[tuple[Any, ...], dict[str, Any]],
        neuron_axes: Mapping[str, int],
    ) -> None:
        self.passes = 0
        self._model = model
        self._targets = targets
        self._inputs = inputs
        self._neuron_axes = neuron_axes

    def find(self, samples: int | None) -> _Seen:
        """Return what is seen along that axis of the input that holds the samples.

        Raises
        ------
        NotPossible
            If the model cannot be tried with these inputs.
        """
        sizes = self._first_axes()
        if all(samples not in (None, size) for size in sizes):
            raise NotPossible(f"none of the input's first axes, {sizes}, has {samples} entries")
        seen = self._along(0, sizes[0])
        if sizes[1:] and (samples or sizes[0]) == sizes[1]:
            return self._the_one(seen, self._along(1, sizes[1]))
        if samples is None and sizes[1:] and not seen.is_apart:
            with suppress(NotPossible):
                other = self._along(1, sizes[1])
                seen = other if other.is_apart else seen
        return seen

    def _the_one(self, first: _Seen, second: _Seen) -> _Seen:
        """Return what was seen along that axis of two from which nothing passes to others."""
        if first.is_apart == second.is_apart:
            raise NotPossible("the model's input may hold its samples in axis 0 or in axis 1")
        return first if first.is_apart else second

    def _first_axes(self) -> list[int]:
        """Return the sizes of those axes of the model's first tensor that may hold samples."""
        tensors = [tensor for tensor in tensors_in(self._inputs) if tensor.ndim]
        if not tensors:
            raise NotPossible("the model was called without a tensor")
        return list(tensors[0].shape[:2])

    def _along(self, axis: int, size: int) -> _Seen:
        """Try an axis of the inputs with two samples, or, if the model cannot take them, all."""
        if size < 2:
            raise NotPossible("there is but one sample")
        try:
            return self._replace(axis, size, [0, 1])
        except NotPossible:
            if size == 2:
                raise
            return self._replace(axis, size, list(range(size)))

    def _replace(self, axis: int, size: int, base: list[int]) -> _Seen:
        """Run the model on samples of which first the second one is replaced, then the first."""
        seen = _Seen(self._targets, self._neuron_axes, len(base))
        others = [
            list(islice(self._others(axis, size, sample), _MOST_REPLACEMENTS))
            for sample in base[:2]
        ]
        if not all(others):
            raise NotPossible("the samples of the batch are all alike")
        before = self._run(axis, size, base)
        for turn in range(max(map(len, others))):
            for place, choice in enumerate(others):
                replaced = list(base)
                replaced[place] = choice[turn % len(choice)]
                seen.compare(before, self._run(axis, size, replaced), place)
            if seen.is_complete:
                break
        return seen

    def _others(self, axis: int, size: int, sample: int) -> Iterator[int]:
        """Yield samples that differ from one, those far from the first ones before these."""
        mine = tensors_in(selected(self._inputs, axis, size, [sample]))
        for other in [*range(2, size), 0, 1]:
            theirs = tensors_in(selected(self._inputs, axis, size, [other]))
            if other != sample and any(map(_differ, mine, theirs)):
                yield other

    def _run(self, axis: int, size: int, chosen: list[int]) -> dict[str, list[torch.Tensor]]:
        """Return what the layers, and the model itself, give for some of the samples."""
        given: dict[str, list[torch.Tensor]] = {target.name: [] for target in self._targets}
        arguments, keywords = selected(self._inputs, axis, size, chosen)
        self.passes += 1
        with undisturbed(self._model):
            for target in self._targets:
                _listen(target, given[target.name])
            try:
                output = self._model(*arguments, **keywords)
            except Exception as error:
                raise NotPossible(
                    f"run on {len(chosen)} samples, the model failed with {type(error).__name__}: "
                    f"{error!s:.200}"
                ) from None
        given[_OUTPUT] = [tensor for tensor in tensors_in(output, strict=False) if tensor.ndim > 1]
        return given


class _Seen:
    """Which entries differed, in each call of each layer, for either sample that was replaced."""

    def __init__(self, targets: list[Target], neuron_axes: Mapping[str, int], samples: int) -> None:
        self._names = [target.name for target in targets]
        self._neuron_axes = neuron_axes
        self._samples = samples
        self._calls: dict[str, list[_Call]] = {}

    def compare(
        self,
        before: Mapping[str, list[torch.Tensor]],
        after: Mapping[str, list[torch.Tensor]],
        place: int,
    ) -> None:
        """Take in what differs where the sample at a place was replaced."""
        for name, tensors in before.items():
            calls = self._calls.setdefault(name, [_Call(tensor.shape) for tensor in tensors])
            alike = len(calls) == len(after[name])
            for call, old, new in zip(calls, tensors, after[name], strict=False):
                call.compare(old, new, place)
            for call in () if alike else calls:
                call.changes_shape = True

    @property
    def is_complete(self) -> bool:
        """Whether more replacements would tell no more."""
        return all(
            call.found(self._samples, self._neuron_axes.get(name)) or call.is_mixed
            for name in self._names
            for call in self._calls.get(name, [])
        )

    @property
    def is_apart(self) -> bool:
        """Whether nothing passed from one sample to another, in the layers and the output."""
        return not any(call.is_mixed for calls in self._calls.values() for call in calls)

    @property
    def found(self) -> dict[str, Found]:
        """What is found, by public name."""
        every = {name: self._found_of(name) for name in self._names}
        return {name: found for name, found in every.items() if found}

    @property
    def problems(self) -> dict[str, str]:
        """What was seen where nothing is found."""
        return {
            name: _problem(self._calls.get(name, []))
            for name in self._names
            if not self._found_of(name)
        }

    @property
    def unclear(self) -> dict[str, str]:
        """Problems of layers whose entries are not those of one sample each."""
        return {
            name: problem
            for name, problem in self.problems.items()
            if any(call.is_mixed for call in self._calls.get(name, []))
        }

    def _found_of(self, name: str) -> Found | None:
        found = {
            call.found(self._samples, self._neuron_axes.get(name))
            for call in self._calls.get(name, [])
        }
        return found.pop() if len(found) == 1 else None


class _Call:
    """Which entries differed, along each axis of one tensor."""

    def __init__(self, shape: torch.Size) -> None:
        self.changes_shape = False
        self._touched = [[np.zeros(size, dtype=np.bool_) for size in shape] for _ in (0, 1)]

    def compare(self, old: torch.Tensor, new: torch.Tensor, place: int) -> None:
        """Take in what differs where the sample at a place was replaced."""
        if old.shape != new.shape:
            self.changes_shape = True
            return
        differs = _differing(old, new)
        for axis, touched in enumerate(self._touched[place]):
            others = tuple(number for number in range(differs.ndim) if number != axis)
            touched |= (differs.any(others) if others else differs).cpu().numpy()

    def found(self, samples: int, neuron_axis: int | None) -> Found | None:
        """Return where the samples' entries are, if that is plain."""
        if self.changes_shape:
            return None
        fits = [
            found
            for axis, touched in enumerate(zip(*self._touched, strict=True))
            if axis != neuron_axis
            for found in _fitting(axis, touched, samples)
        ]
        return fits[0] if len(fits) == 1 else None

    @property
    def is_silent(self) -> bool:
        """Whether nothing differed."""
        return not any(touched.any() for axes in self._touched for touched in axes)

    @property
    def is_mixed(self) -> bool:
        """Whether some entry along each axis differed for either sample."""
        both = zip(*self._touched, strict=True)
        return self.changes_shape or all((first & second).any() for first, second in both)


def _fitting(axis: int, touched: tuple[_Bools, _Bools], samples: int) -> list[Found]:
    """Return the orders in which entries that differed are each of the sample that was replaced."""
    size = len(touched[0])
    entries = size // samples
    if size % samples or not all(differs.any() for differs in touched):
        return []
    numbers = np.arange(size)
    orders: dict[Order, npt.NDArray[np.int64]] = {
        "contiguous": numbers // entries,
        "interleaved": numbers % samples,
    }
    if entries == 1:
        orders = {"single": numbers}
    return [
        Found(axis, order, entries)
        for order, owner in orders.items()
        if all((owner[differs] == place).all() for place, differs in enumerate(touched))
    ]


def _problem(calls: list[_Call]) -> str:
    if not calls:
        return "it did not run"
    if any(call.changes_shape for call in calls):
        return "its shape changes with the values"
    if all(call.is_silent for call in calls):
        return "nothing in it depends on the sample"
    return "its entries are not those of one sample each"


def _listen(target: Target, given: list[torch.Tensor]) -> None:
    """Keep what a layer takes or gives, until its hooks are those of before again."""

    def keep(_: nn.Module, arguments: Any, value: Any) -> None:
        captured = value if target.where == "after" else (arguments, value)
        if target.output is not None:
            captured = value_at(captured, target.output)
        tensor = first_tensor(captured)
        if tensor is not None:
            given.append(tensor.detach().clone())

    if target.where == "before":
        target.module.register_forward_pre_hook(keep, with_kwargs=True)
    else:
        target.module.register_forward_hook(keep)


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape != other.shape or bool(_differing(one, other).any())


def _differing(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return which values differ; NaN is equal to NaN."""
    return (one != other) & ~((one != one) & (other != other))
