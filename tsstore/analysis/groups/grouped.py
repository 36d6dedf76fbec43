"""What results by group have in common: values of the groups, one of them, all together."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from tsstore.analysis.results.by_layer import ByLayer
from tsstore.errors import AnalysisError
from tsstore.text import counted, listed, printable

Result = TypeVar("Result", bound=ByLayer[Any])

MOST_SHOWN = 20
"""Groups of a layer in a table that is printed; of more, the first and the last ones."""


class Grouped(ABC, Generic[Result]):
    """A result of each group of a run's samples.

    Parameters
    ----------
    by
        What the groups are by: a sample column, ``"step"`` or ``"window"``.
    groups
        The result of each group by its value: of a step its name, of a window the number of its
        first sample, of bins a `pandas.Interval`.
    whole
        The result of all samples together; None if these are of several steps.
    ungrouped
        How many samples are in no group: their value is missing, or in no bin.
    """

    def __init__(
        self, by: str, groups: Mapping[Any, Result], whole: Result | None, ungrouped: int = 0
    ) -> None:
        self.by = by
        self.groups: dict[Any, Result] = dict(groups)
        self.ungrouped = ungrouped
        self._whole = whole

    @property
    @abstractmethod
    def run(self) -> str:
        """Path of the run."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them; a group's value is a text."""

    @property
    def whole(self) -> Result:
        """The result of all samples together; AnalysisError if they are of several steps."""
        if self._whole is None:
            raise AnalysisError(
                f"{self.run}: there is nothing of all groups together, as steps are not pooled; "
                "take one of them: .sel(step=…)"
            )
        return self._whole

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(next(iter(self.groups.values())))

    @property
    def values(self) -> tuple[Any, ...]:
        """What the samples of each group have in common, in order."""
        return tuple(self.groups)

    def items(self) -> Iterator[tuple[Any, Result]]:
        """Yield the value of each group and its result."""
        yield from self.groups.items()

    def __len__(self) -> int:
        return len(self.groups)

    def sel(self, **value: Any) -> Result:
        """Return the result of one group: ``grouped.sel(label=3)``.

        Of bins, any number within one selects it. AnalysisError if there is no such group.
        """
        if list(value) != [self.by]:
            raise AnalysisError(f"groups are by {self.by!r:.80}; found {list(value)}")
        wanted = value[self.by]
        for held, found in self.groups.items():
            if held == wanted or (hasattr(held, "mid") and _is_within(held, wanted)):
                return found
        raise AnalysisError(
            f"there is no group {printable(self.by)} = {wanted!r:.80}; there are "
            f"{listed(list(map(str, self.groups)))}"
        )

    def to_json(self) -> str:
        """Return `to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @property
    def shown(self) -> list[tuple[str, Result]]:
        """The groups that a table shows, by their names in it; all together at last."""
        shown = [(_named(value), found) for value, found in self.items()]
        if len(shown) > MOST_SHOWN:
            shown = [*shown[: MOST_SHOWN // 2], *shown[-(MOST_SHOWN // 2) :]]
        return shown if self._whole is None else [*shown, ("all", self._whole)]

    @property
    def left_out(self) -> list[str]:
        """Which groups a table does not show, and which samples are in none, in sentences."""
        lines = []
        if len(self) > MOST_SHOWN:
            lines.append(f"{len(self):,} groups, of which the first and the last ones are shown.")
        if self.ungrouped:
            lines.append(
                f"{counted(self.ungrouped, 'sample')} in no group, as {printable(self.by)} is "
                "missing or in no bin."
            )
        return lines


def _named(value: Any) -> str:
    """Return a group's value as a table shows it: of an interval few digits."""
    if not hasattr(value, "mid"):
        return printable(str(value))
    return f"{value.left:.4g} to {value.right:.4g}"


def _is_within(interval: Any, number: Any) -> bool:
    try:
        return bool(number in interval)
    except TypeError:
        return False
