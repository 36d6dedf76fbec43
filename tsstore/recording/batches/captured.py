"""What the forward passes of one batch gave, call by call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tsstore.errors import CaptureError
from tsstore.recording.axes.layer import Waiting
from tsstore.recording.packing.packed import Packed
from tsstore.recording.samples.index import PACKED_SEQUENCES, Indices
from tsstore.recording.selection.select import Target
from tsstore.recording.settings import Calls


@dataclass(frozen=True)
class NamedRows:
    """What one batch gave under one public name: the calls that belong together, in order.

    Attributes
    ----------
    target
        Where it was captured.
    call
        Number of the call within its forward pass, from 1; None if there is but one.
    calls, forwards
        Rows of each call, and the number of the forward pass that it was a part of.
    """

    target: Target
    call: int | None
    calls: list[Packed]
    forwards: list[int]

    @property
    def name(self) -> str:
        """Public name of the layer."""
        return self.target.name if self.call is None else f"{self.target.name}#{self.call}"

    @property
    def is_joined(self) -> bool:
        """Whether the layer's rows are others than those of one call."""
        return len(self.calls) > 1 or self.calls[0].there is not None

    @property
    def order(self) -> Indices | None:
        """The call's entries, sample after sample; None where they lie so."""
        owners = self.calls[0].owners
        if owners is None or owners.samples is None:
            return None
        order = np.argsort(owners.samples, kind="stable")
        return order[owners.samples[order] >= 0]

    @property
    def is_alike(self) -> bool:
        """Whether batches with calls of the same form have their rows in the same order."""
        owners = self.calls[0].owners
        if owners is None or owners.samples is None:
            return True
        return owners.reason != PACKED_SEQUENCES and bool((owners.samples >= 0).all())


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


class Captured:
    """The rows of all calls; those of a forward pass may be dropped again."""

    def __init__(self) -> None:
        self._calls: list[Call | _WaitingCall] = []

    @property
    def calls(self) -> list[Call]:
        """What was called, in which forward pass, and its rows, in order."""
        return [call for call in self._calls if isinstance(call, Call)]

    @calls.setter
    def calls(self, calls: list[Call]) -> None:
        self._calls = [*calls]

    @property
    def packed(self) -> list[Packed]:
        """The rows of all calls."""
        return [call.packed for call in self.calls]

    @property
    def form(self) -> Hashable:
        """What there is but for the states: the same in batches whose calls are alike."""
        return tuple(
            (call.forward, call.packed.form if isinstance(call, Call) else object())
            for call in self._calls
        )

    def add(self, target: Target, forward: int, packed: Packed | Waiting) -> None:
        """Add one call in a forward pass: its rows, or what they are to be made of."""
        if isinstance(packed, Waiting):
            self._calls.append(_WaitingCall(target, forward, packed))
        else:
            self._calls.append(Call(target, forward, packed))

    def drop(self, forward: int) -> None:
        """Forget what a forward pass gave."""
        self._calls = [call for call in self._calls if call.forward != forward]

    def wait_no_longer(self, pack: Callable[[Target, Waiting], Packed | None]) -> None:
        """Let the rows be made that had to wait; None leaves them out."""
        calls = self._calls
        self._calls = []
        for call in calls:
            if isinstance(call, Call):
                self._calls.append(call)
            elif (packed := pack(call.target, call.waiting)) is not None:
                self._calls.append(Call(call.target, call.forward, packed))

    def named(self, calls: Calls) -> list[NamedRows]:
        """Return the rows by public name.

        Raises
        ------
        CaptureError
            If a module was called a different number of times in the batch's forward passes.
        """
        named: list[NamedRows] = []
        for target, by_forward in self._by_target():
            groups = list(by_forward.values())
            if calls == "merge":
                merged = [packed for group in groups for packed in group]
                forwards = [number for number, group in by_forward.items() for _ in group]
                named.append(NamedRows(target, None, merged, forwards))
                continue
            counts = {len(group) for group in groups}
            if len(counts) > 1:
                raise changed_calls(target.name, min(counts), max(counts))
            # The n-th calls of all forward passes belong together.
            for number, group in enumerate(zip(*groups, strict=True), start=1):
                call = number if len(groups[0]) > 1 else None
                named.append(NamedRows(target, call, list(group), list(by_forward)))
        return named

    def _by_target(self) -> Iterable[tuple[Target, dict[int, list[Packed]]]]:
        """Return each target with its rows by forward pass."""
        targets: dict[str, tuple[Target, dict[int, list[Packed]]]] = {}
        for target, forward, packed in self.calls:
            _, by_forward = targets.setdefault(target.name, (target, {}))
            by_forward.setdefault(forward, []).append(packed)
        return targets.values()


def changed_calls(name: str, before: int, now: int) -> CaptureError:
    """Return the error for a number of calls that changes."""
    return CaptureError(
        f"{name} was called {before} times in one forward pass and {now} times in another; pass "
        "calls='merge' to capture all calls as positions of one layer"
    )
