"""An experiment: which entries of the layers' tensors belong to which sample of a model's input.

The model runs on two samples, then once more with the first one replaced by another sample, and
once with the second one: the entries that differ are those of the sample that was replaced. Where
that may be chance, or too little differs, other samples are tried. At last the two are swapped: so
must be their entries, or the model sorts them by their values.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from tsstore.recording.axes.tensor import is_time_first
from tsstore.recording.axes.watch import as_written
from tsstore.recording.samples.differences import Differences, Findings, differ
from tsstore.recording.samples.inputs import (
    Arguments,
    NotPossible,
    check_can_select,
    flattened,
    selected,
)
from tsstore.recording.selection.outputs import first_tensor, tensors_in
from tsstore.recording.selection.select import Target, unwrapped

_LOG: Final = logging.getLogger("tsstore")
_MOST_REPLACEMENTS: Final = 4
MOST_BYTES_KEPT: Final = 1 << 30
"""Bytes that are kept of a pass that takes more than two samples."""
_OUTPUT: Final = ""
"""Where the tensors that the model itself gives are kept, beside those of layers by name."""
_HOOKS: Final = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip


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
    buffers and modes are afterwards as they were. The arguments are a batch of at least two samples
    that differ, as many as the first tensor's size unless `samples` says it.
    """
    begun = time.perf_counter()
    targets = list(targets)
    model = unwrapped(model)
    trial = _Trial(model, targets, (tuple(arguments), dict(keywords)), neuron_axes or {})
    try:
        findings = trial.find(samples).findings()
    except Exception as error:
        # Whatever tensors the layers give, and however large: it must not end the job.
        reason = str(error) if isinstance(error, NotPossible) else _failure("comparing", error)
        findings = Findings(problems={target.name: reason for target in targets})
    return replace(findings, passes=trial.passes, seconds=time.perf_counter() - begun)


class _Trial:
    """Runs a model on some samples of its input, and compares what its layers give."""

    def __init__(
        self,
        model: nn.Module,
        targets: list[Target],
        inputs: Arguments,
        neuron_axes: Mapping[str, int],
    ) -> None:
        self.passes = 0
        self._model = model
        self._targets = targets
        self._inputs = inputs
        self._neuron_axes = neuron_axes

    def find(self, samples: int | None) -> Differences:
        """Return what is seen along that axis of the input that holds the samples."""
        sizes = self._first_axes()
        if all(samples not in (None, size) for size in sizes):
            raise NotPossible(f"none of the input's first axes, {sizes}, has {samples} entries")
        seen = self._along(0, sizes[0])
        if sizes[1:] and (samples or sizes[0]) == sizes[1]:
            return self._the_one(samples, seen, self._along(1, sizes[1]))
        if samples is None and sizes[1:] and not seen.is_apart and self._may_be_time_first:
            with suppress(NotPossible):
                other = self._along(1, sizes[1])
                seen = other if other.is_apart else seen
        return seen

    @property
    def _may_be_time_first(self) -> bool:
        return any(map(is_time_first, self._model.modules()))

    def _the_one(self, samples: int | None, first: Differences, second: Differences) -> Differences:
        """Return what was seen along that axis of two between whose entries nothing passes."""
        if first.is_apart and second.is_apart and not self._may_be_time_first:
            return first
        if first.is_apart == second.is_apart:
            raise NotPossible("the model's input may hold its samples in axis 0 or in axis 1")
        if first.is_apart and samples not in (None, self._first_axes()[0]):
            raise NotPossible(f"the first axis of the model's input has not {samples} entries")
        return first if first.is_apart else second

    def _first_axes(self) -> list[int]:
        """Return the sizes of those axes of the model's first tensor that may hold samples."""
        check_can_select(self._inputs)
        tensors = [tensor for tensor in tensors_in(self._inputs) if tensor.ndim]
        if not tensors:
            raise NotPossible("the model was called without a tensor")
        return list(tensors[0].shape[:2])

    def _along(self, axis: int, size: int) -> Differences:
        """Try an axis of the inputs with two samples, or, if the model cannot take them, all."""
        if size < 2:
            raise NotPossible("there is but one sample")
        try:
            return self._replace(axis, size, [0, 1])
        except NotPossible:
            if size == 2:
                raise
            return self._replace(axis, size, list(range(size)))

    def _replace(self, axis: int, size: int, base: list[int]) -> Differences:
        """Run the model on samples of which first the second one is replaced, then the first."""
        names = [target.name for target in self._targets]
        seen = Differences(names, self._neuron_axes, len(base))
        others = [
            list(islice(self._others(axis, size, sample), _MOST_REPLACEMENTS))
            for sample in base[:2]
        ]
        if not all(others):
            raise NotPossible("the samples of the batch are all alike")
        before = self._run(axis, size, base)
        for turn in range(max(map(len, others))):
            for place, choice in enumerate(others):
                if turn >= len(choice):
                    continue
                replaced = [*base[:place], choice[turn], *base[place + 1 :]]
                try:
                    seen.compare(before, self._run(axis, size, replaced), place)
                except NotPossible:
                    # No model must take a sample that was made up.
                    if choice[turn] >= 0:
                        raise
            if seen.is_complete:
                break
        if seen.findings().found:
            seen.check_order(before, self._run(axis, size, [base[1], base[0], *base[2:]]))
        return seen

    def _others(self, axis: int, size: int, sample: int) -> Iterator[int]:
        """Yield samples that differ from one: another, this one with all steps alike, others."""
        mine = list(tensors_in(selected(self._inputs, axis, size, [sample])))
        numbers = [number for number in [*range(2, size), 0, 1] if number != sample]
        for other in [numbers[0], flattened(sample), *numbers[1:]]:
            theirs = tensors_in(selected(self._inputs, axis, size, [other]))
            if any(map(differ, mine, theirs)):
                yield other

    def _run(self, axis: int, size: int, chosen: list[int]) -> dict[str, list[torch.Tensor]]:
        """Return what the layers, and the model itself, give for some of the samples."""
        given: dict[str, list[torch.Tensor]] = {target.name: [] for target in self._targets}
        arguments, keywords = selected(self._inputs, axis, size, chosen)
        self.passes += 1
        with undisturbed(self._model):
            most = MOST_BYTES_KEPT if len(chosen) > 2 else math.inf
            for target in self._targets:
                _keep(target, given, most)
            try:
                output = self._model(*arguments, **keywords)
            except NotPossible:
                raise
            except Exception as error:
                failure = _failure("the model", error)
                raise NotPossible(f"run on {len(chosen)} samples, {failure}") from None
        given[_OUTPUT] = [tensor for tensor in tensors_in(output) if tensor.ndim > 1]
        return given


def _failure(what: str, error: Exception) -> str:
    return f"{what} failed with {type(error).__name__}: {error!s:.200}"


def _keep(target: Target, given: dict[str, list[torch.Tensor]], most: float) -> None:
    """Keep what a layer takes or gives, until its hooks are those of before again.

    NotPossible where all that is kept has more than `most` bytes.
    """

    def keep(_: nn.Module, arguments: Any, value: Any) -> None:
        tensor = first_tensor(target.value(arguments, value))
        if tensor is None:
            return
        kept = chain([tensor], *given.values())
        if sum(one.numel() * one.element_size() for one in kept) > most:
            raise NotPossible(
                "the model cannot take two samples, and what its layers give of all of them is "
                "too large to be kept"
            )
        given[target.name].append(tensor.detach().clone())

    target.register(keep)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Let a model run in evaluation mode, without gradients, hooks or compiled code, for a while.

    Modules' attributes, modes, hooks and buffers, and the random numbers of torch, NumPy and
    Python, are afterwards as they were; what a module holds in lists of its own is not looked at.
    """
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    tensors = [(tensor, tensor.clone()) for tensor in _own_tensors(modules)]
    try:
        for module in modules:
            quiet: dict[str, Any] = {name: OrderedDict() for name in _HOOKS}
            vars(module).update(quiet, training=False, _compiled_call_impl=None)
        with torch.no_grad(), _random_numbers_kept(model), as_written():
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
