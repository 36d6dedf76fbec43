"""What was found in groups of samples: a table of layers by groups, each group an analysis."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.keeping.saving import load_analyses, read_value, save_analyses, value_document
from tsstore.analysis.results.by_layer import ByLayer, Shown
from tsstore.analysis.results.layer import LayerResult, efficiency_text
from tsstore.analysis.results.network import Analysis
from tsstore.errors import AnalysisError, FormatError
from tsstore.store.format.documents import number, sequence, text
from tsstore.text import counted, listed, printable

if TYPE_CHECKING:
    import pandas as pd

KIND = "analyses of groups"
"""What a file of them says that it is."""


Result = TypeVar("Result", bound=ByLayer[Any])

MOST_SHOWN = 20
"""Groups of a layer in a table that is printed; of more, the first and the last ones."""


class Grouped(Shown, Generic[Result]):
    """A result of each group of a run's samples; parameters as of `GroupedAnalysis`."""

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

    @property
    def subject(self) -> str:
        """The run, and what its groups are by."""
        return f"{self.run} by {self.by}"

    def _document(self, **how: Any) -> dict[str, Any]:
        """Return the numbers of all groups as JSON can hold them; a group's value is a text."""
        return {
            "run": self.run,
            "by": self.by,
            "ungrouped_samples": self.ungrouped,
            "groups": {str(value): found.to_dict(**how) for value, found in self.items()},
            "whole": None if self._whole is None else self._whole.to_dict(**how),
        }


class GroupedAnalysis(Grouped[Analysis]):
    """Analyses of a run's groups of samples; made by `analyze` with ``by=`` or ``window=``.

    Parameters
    ----------
    by
        What the groups are by: a sample column, ``"step"`` or ``"window"``.
    groups
        The analysis of each group by its value: of a step its name, of a window the number of its
        first sample, of bins a `pandas.Interval`.
    whole
        The analysis of all samples together; None if these are of several steps.
    ungrouped
        How many samples are in no group: their value is missing, or in no bin.
    provenance
        The run's id and commit, versions and arguments; None if it is not known.
    """

    def __init__(
        self,
        by: str,
        groups: Mapping[Any, Analysis],
        whole: Analysis | None,
        ungrouped: int = 0,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(by, groups, whole, ungrouped)
        self.provenance = provenance

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all analyses to a new local path; all as `Analysis.save`."""
        provenance = self.provenance
        about = {
            "by": self.by,
            "values": [value_document(value) for value in self.groups],
            "ungrouped": self.ungrouped,
            "provenance": provenance and provenance.to_dict(),
        }
        every = [*self.groups.values(), *([] if self._whole is None else [self._whole])]
        save_analyses(path, KIND, [analysis.told for analysis in every], about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` has written; all as `Analysis.load`."""
        told, about = load_analyses(path, KIND)
        where = os.fspath(path)
        values = [
            read_value(value, where) for value in sequence(about.get("values"), "values", where)
        ]
        analyses = [Analysis(**one) for one in told]
        if not values or len(set(values)) != len(values):
            raise FormatError(f"{where}: found groups {values!r:.80}; expected some, each once")
        if len(analyses) not in (len(values), len(values) + 1):
            raise FormatError(f"{where}: {len(analyses)} analyses for {len(values)} groups")
        whole = analyses[-1] if len(analyses) > len(values) else None
        provenance = about.get("provenance")
        return cls(
            text(about.get("by"), "by", where),
            dict(zip(values, analyses, strict=False)),
            whole,
            number(about.get("ungrouped"), "ungrouped", where),
            provenance and Provenance.from_json(provenance, where, "provenance"),
        )

    def of_run(self, path: str) -> Self:
        """Return the same analyses, of a run that lies there now."""
        groups = {value: analysis.of_run(path) for value, analysis in self.groups.items()}
        whole = None if self._whole is None else self._whole.of_run(path)
        return type(self)(self.by, groups, whole, self.ungrouped, self.provenance)

    @property
    def run(self) -> str:
        """Path of the run."""
        return next(iter(self.groups.values())).run

    @property
    def fewest_samples(self) -> int:
        """Samples of the smallest group: at so many, groups can be compared."""
        samples: list[int] = [analysis.samples for analysis in self.groups.values()]
        return min(samples)

    def to_frame(self) -> pd.DataFrame:
        """Return the numbers of each layer and group, indexed by both.

        Columns as of `Analysis.to_frame`, led by the efficiency's estimate and limits; and what so
        many samples as the smallest group has would have shown of each, on average: distinct
        states, with limits where samples were told apart by random groups.
        """
        import pandas as pd

        frames = {value: analysis.to_frame() for value, analysis in self.items()}
        frame: pd.DataFrame = pd.concat(frames).swaplevel()
        rarefied = [
            analysis[layer].rarefied(self.fewest_samples)
            for analysis in self.groups.values()
            for layer in analysis
        ]
        limits = [found.distinct_interval for found in rarefied]
        frame["rarefied_samples"] = self.fewest_samples
        frame["rarefied_distinct"] = [found.distinct for found in rarefied]
        frame["rarefied_distinct_lower"] = [getattr(own, "lower", np.nan) for own in limits]
        frame["rarefied_distinct_upper"] = [getattr(own, "upper", np.nan) for own in limits]
        first = [name for name in _LEADING if name in frame]
        others = [name for name in frame if name not in first]
        frame.index.names = ["layer", self.by if self.by not in ("layer", *frame) else "group"]
        # Layer by layer: sorted by where each stands, as values need not sort.
        order = np.argsort([self.layers.index(layer) for layer, _ in frame.index], kind="stable")
        return frame[first + others].iloc[order]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them; a group's value is a text."""
        return self._document()

    def plot(self, ax: Any = None) -> Any:
        """Draw each group's efficiency with its interval, layer after layer; as `Analysis.plot`.

        Lower bounds are arrows. Of many groups the first and the last ones are shown.
        """
        from tsstore.analysis.results.plots import plot_groups, short

        shown = {
            layer: [
                (own.shown_efficiency, own.efficiency_interval(), own.sample_limited)
                for own in (analysis[layer] for _, analysis in self.shown)
            ]
            for layer in self.layers
        }
        ax = plot_groups([name for name, _ in self.shown], shown, ax)
        ax.set_title(f"by layer and {short(self.by)}")
        return ax

    @property
    def headings(self) -> tuple[str, ...]:
        """Headings of the table."""
        at = f"distinct at {self.fewest_samples:,}"
        return "layer", printable(self.by), "samples", "distinct", at, "efficiency", "verdict"

    def cells(self) -> list[tuple[str, ...]]:
        """Return a line of the table for each layer and group; of all together where they are."""
        return [
            self._line(analysis[layer], name)
            for layer in self.layers
            for name, analysis in self.shown
        ]

    def _line(self, layer: LayerResult, group: str) -> tuple[str, ...]:
        at = layer.rarefied(self.fewest_samples).distinct
        return (
            printable(layer.name),
            group,
            f"{layer.samples:,}",
            f"{layer.distinct:,}",
            f"{at:,.0f}",
            efficiency_text(layer),
            layer.verdict,
        )

    @property
    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        return [
            f"Compare groups by 'distinct at {self.fewest_samples:,}', what so many samples show "
            "on average: where they differ in samples, more samples show more states.",
            *self.left_out,
        ]


_LEADING = (
    "efficiency",
    "efficiency_interval_lower",
    "efficiency_interval_upper",
    "efficiency_lower_bound",
    "verdict",
    "samples",
    "distinct",
)


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
