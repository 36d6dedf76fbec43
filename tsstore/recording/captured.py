"""What the forward passes of one batch gave, call by call."""

from __future__ import annotations

from dataclasses import dataclass, field

from tsstore.errors import CaptureError
from tsstore.recording.pack import Packed
from tsstore.recording.select import Target
from tsstore.recording.settings import Calls


@dataclass(frozen=True)
class NamedRows:
    """What one batch gave under one public name: the calls that belong together, in order."""

    target: Target
    call: int | None
    calls: list[Packed]

    @property
    def name(self) -> str:
        """Public name of the layer."""
        return self.target.name if self.call is None else f"{self.target.name}#{self.call}"


@dataclass
class _OfTarget:
    """The rows of one target by the number of the forward pass that they come from."""

    target: Target
    by_forward: dict[int, list[Packed]] = field(default_factory=dict)

    @property
    def calls(self) -> list[Packed]:
        return [packed for group in self.by_forward.values() for packed in group]


class Captured:
    """The rows of all targets; those of a forward pass may be dropped again."""

    def __init__(self) -> None:
        self._targets: dict[str, _OfTarget] = {}

    @property
    def calls(self) -> list[Packed]:
        """The rows of all calls, target by target."""
        return [packed for captured in self._targets.values() for packed in captured.calls]

    def add(self, target: Target, forward: int, packed: Packed) -> None:
        """Add the rows of one call in a forward pass."""
        captured = self._targets.setdefault(target.name, _OfTarget(target))
        captured.by_forward.setdefault(forward, []).append(packed)

    def drop(self, forward: int) -> None:
        """Forget what a forward pass gave."""
        for name, captured in list(self._targets.items()):
            captured.by_forward.pop(forward, None)
            if not captured.by_forward:
                del self._targets[name]

    def named(self, calls: Calls) -> list[NamedRows]:
        """Return the rows by public name.

        Raises
        ------
        CaptureError
            If a module was called a different number of times in the batch's forward passes.
        """
        named: list[NamedRows] = []
        for name, captured in self._targets.items():
            if calls == "merge":
                named.append(NamedRows(captured.target, None, captured.calls))
                continue
            counts = {len(group) for group in captured.by_forward.values()}
            if len(counts) > 1:
                raise changed_calls(name, min(counts), max(counts))
            # The n-th calls of all forward passes belong together.
            groups = list(zip(*captured.by_forward.values(), strict=True))
            for number, group in enumerate(groups, start=1):
                call = number if len(groups) > 1 else None
                named.append(NamedRows(captured.target, call, list(group)))
        return named


def changed_calls(name: str, before: int, now: int) -> CaptureError:
    """Return the error for a number of calls that changes."""
    return CaptureError(
        f"{name} was called {before} times in one forward pass and {now} times in another; pass "
        "calls='merge' to capture all calls as positions of one layer"
    )
