"""What differs in the layers' tensors where a sample was replaced, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tsstore.recording.axes.tensor import BY_EXPERIMENT
from tsstore.recording.packing.packed import Packed, Rows
from tsstore.recording.samples.index import MANY_EACH

Order = Literal["single", "contiguous", "interleaved"]
"""One entry a sample; those of a sample side by side; sample after sample, and again."""

ANOTHER_ORDER: Final = "the order of its entries is not that of the samples"
"""The problem of a layer with one entry a sample, and those of others in their places."""

_Bools = npt.NDArray[np.bool_]


class Found(NamedTuple):
    """The axis that holds the samples' entries, how they lie there, and how many a sample has."""

    axis: int
    order: Order
    entries: int


@dataclass(frozen=True)
class Findings:
    """What the experiment found, by public name of the layer, and what it took.

    `problems` are what was seen where it does not tell, or why it was not possible; `unclear` those
    of layers whose entries are not those of one sample each.
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


class Differences:
    """What differed in each call of the layers in question, for either sample that was replaced."""

    def __init__(self, names: Iterable[str], neuron_axes: Mapping[str, int], samples: int) -> None:
        self._names = list(names)
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
            made = (self._samples, self._neuron_axes.get(name))
            calls = self._calls.setdefault(name, [_Call(one.shape, *made) for one in tensors])
            alike = len(calls) == len(after[name])
            for call, old, new in zip(calls, tensors, after[name], strict=False):
                call.compare(old, new, place)
            for call in () if alike else calls:
                call.changes_shape = True

    def check_order(
        self, before: Mapping[str, list[torch.Tensor]], swapped: Mapping[str, list[torch.Tensor]]
    ) -> None:
        """Take in what two swapped samples give: what sorts had its entries in order by chance."""
        for name in self._names:
            calls = self._calls.get(name, [])
            for call, old, new in zip(calls, before[name], swapped[name], strict=False):
                call.check_order(old, new)

    @property
    def is_complete(self) -> bool:
        """Whether more replacements would tell no more."""
        return all(
            call.is_mixed or call.found
            for name in self._names
            for call in self._calls.get(name, [])
        )

    @property
    def is_apart(self) -> bool:
        """Whether nothing passed from one sample to another, in the layers and the output."""
        return not any(call.is_mixed for calls in self._calls.values() for call in calls)

    def findings(self) -> Findings:
        """Return what is found, and what was seen where nothing is."""
        found, problems, unclear = {}, {}, {}
        for name in self._names:
            calls = self._calls.get(name, [])
            only = {call.found for call in calls}
            if len(only) == 1 and (one := only.pop()):
                found[name] = one
                continue
            problems[name] = _problem(calls)
            if any(call.is_mixed for call in calls):
                unclear[name] = problems[name]
        return Findings(found, problems, unclear)


class _Call:
    """Which entries differed, along each axis of one tensor."""

    def __init__(self, shape: torch.Size, samples: int, neuron_axis: int | None) -> None:
        self._samples = samples
        self._neuron_axis = neuron_axis
        self.changes_shape = self.is_reordered = self.changes_with_order = False
        self._turns = [0, 0]
        self.touched = [[np.zeros(size, dtype=np.bool_) for size in shape] for _ in (0, 1)]

    def compare(self, old: torch.Tensor, new: torch.Tensor, place: int) -> None:
        """Take in what differs where the sample at a place was replaced."""
        self._turns[place] += 1
        if old.shape != new.shape:
            self.changes_shape = True
            return
        differs = _differing(old, new)
        for axis, touched in enumerate(self.touched[place]):
            others = tuple(number for number in range(differs.ndim) if number != axis)
            touched |= (differs.any(others) if others else differs).cpu().numpy()

    def check_order(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """Take in what the first two samples give in each other's place."""
        if (found := self.found) is None:
            return
        if old.shape != new.shape:
            self.changes_shape = True
            return
        moved = old.index_select(found.axis, _swapped(found, self._samples, old.device))
        self.changes_with_order = not _are_close(moved, new)
        # In the same place as before: they have another order of their own.
        self.is_reordered = self.changes_with_order and _are_close(old, new)

    @property
    def found(self) -> Found | None:
        """Return where the samples' entries are, if that is plain and no chance, as of tokens."""
        if self.changes_shape or self.changes_with_order:
            return None
        fits = self._fitting()
        if len(fits) != 1:
            return None
        return fits[0] if fits[0].order == "single" or min(self._turns) > 1 else None

    @property
    def has_another_order(self) -> bool:
        """Whether there is one entry a sample, in the places of others."""
        if self.changes_shape or self.changes_with_order:
            return self.is_reordered
        elsewhere = (
            first.any() and second.any() and not (first & second).any()
            for axis, (first, second) in enumerate(zip(*self.touched, strict=True))
            if axis != self._neuron_axis and len(first) == self._samples
        )
        return not self._fitting() and any(elsewhere)

    def _fitting(self) -> list[Found]:
        return [
            found
            for axis, touched in enumerate(zip(*self.touched, strict=True))
            if axis != self._neuron_axis
            for found in _fitting(axis, touched, self._samples)
        ]

    @property
    def is_mixed(self) -> bool:
        """Whether some entry along each axis differed for either sample."""
        both = zip(*self.touched, strict=True)
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


def _swapped(found: Found, samples: int, device: torch.device) -> torch.Tensor:
    """Return which entry is in the place of each where the first two samples are swapped."""
    order = torch.tensor([1, 0, *range(2, samples)], device=device)
    numbers = torch.arange(samples * found.entries, device=device)
    if found.order == "interleaved":
        return numbers.reshape(found.entries, samples)[:, order].flatten()
    return numbers.reshape(samples, found.entries)[order].flatten()


def _are_close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same values, but for what other places in a batch change."""
    if not one.dtype.is_floating_point and not one.dtype.is_complex:
        return not differ(one, other)
    kind = torch.promote_types(one.dtype, torch.float32)
    one, other = one.to(kind), other.to(kind)
    largest = float(one.nan_to_num(0, 0, 0).abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-2, atol=1e-3 * largest, equal_nan=True)


def _problem(calls: list[_Call]) -> str:
    if not calls:
        return "it did not run"
    if any(call.changes_shape for call in calls):
        return "its shape changes with the values"
    if not any(touched.any() for call in calls for axes in call.touched for touched in axes):
        return "nothing in it depends on the sample"
    if any(call.has_another_order for call in calls):
        return ANOTHER_ORDER
    if any(call.changes_with_order for call in calls):
        return "its entries change with the order of the samples"
    return "its entries are not those of one sample each"


def differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have other shapes or values."""
    return one.shape != other.shape or bool(_differing(one, other).any())


def _differing(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return which values differ; NaN is equal to NaN."""
    return (one != other) & ~((one != one) & (other != other))


def along_axis(packed: Packed, found: Found) -> Packed:
    """Return rows with samples along the axis that was found."""
    form = packed.form
    why = BY_EXPERIMENT if found.order == "single" else f"{BY_EXPERIMENT}: {MANY_EACH}"
    decided = {**(form.decided or {}), "sample_axis": why}
    if found.axis == form.sample_axis:
        return packed._replace(form=replace(form, decided=decided))
    rows = _moved(packed, found.axis)
    made = replace(
        form,
        samples=rows.shape[0],
        position_shape=rows.shape[1:-1],
        sample_axis=found.axis,
        decided=decided,
    )
    flat = np.ascontiguousarray(rows).reshape(rows.shape[0], -1, rows.shape[-1])
    return packed._replace(rows=flat, form=made, arrived=None)


def _moved(packed: Packed, axis: int) -> Rows:
    """Return rows, (samples, …, row_bytes), with another axis of the tensor for the samples."""
    form, rows = packed.form, packed.in_memory()
    others = [n for n in range(len(form.position_shape) + 2) if n != form.neuron_axis]
    # As they were packed: the sample axis comes first, then the others in their order.
    old = [form.sample_axis, *(n for n in others if n != form.sample_axis)]
    new = [axis, *(n for n in others if n != axis)]
    apart = rows.reshape(form.samples, *form.position_shape, rows.shape[2])
    return apart.transpose(*(old.index(n) for n in new), len(old))
