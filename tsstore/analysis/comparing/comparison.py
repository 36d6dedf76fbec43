"""Two runs of the same samples: how their efficiencies differ, and which bits do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from tsstore.analysis.comparing.flips import HEADINGS, LayerFlips
from tsstore.analysis.comparing.overlap import find_overlap, plan_overlap
from tsstore.analysis.comparing.together import (
    analyze_together,
    compare_layers,
    comparing_checks,
    memory_checks,
)
from tsstore.analysis.memory import all_fit
from tsstore.analysis.repeats import choose_samples, plan_samples
from tsstore.analysis.request import Layers, Request, Run, countable, running, with_layers
from tsstore.analysis.results.by_layer import ByLayer, names_by_phrase
from tsstore.analysis.results.difference import Difference, difference
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.results.overlap import Overlap
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import AnalysisError, UnknownLayerError
from tsstore.text import counted, html_lines, html_table, html_title, listed, printable, text_table

if TYPE_CHECKING:
    import pandas as pd

    from tsstore.store.reading.layer import LayerStates
    from tsstore.store.reading.store import StateStore
    from tsstore.text import Progress

ALIKE = 1.05
"""Runs whose samples have so many times as many rows are alike, at most."""

_Side = TypeVar("_Side")
Pair: TypeAlias = tuple[_Side, _Side]
"""Of the first run, and of the second one."""


class Comparison(ByLayer[LayerFlips]):
    """What was found of two runs: a mapping from layer names to how their states differ.

    Attributes
    ----------
    first, second
        Paths of the runs.
    efficiency
        The efficiencies of the first run less those of the second one, as of `difference`; None
        if it was not asked for.
    overlap
        Which distinct states both runs show, and how much of the second one is new, by layer; None
        if it was not asked for.
    warnings
        What speaks against comparing, in sentences.
    """

    headings = HEADINGS

    def __init__(
        self,
        runs: tuple[str, str],
        layers: Mapping[str, LayerFlips],
        efficiency: Difference | None,
        warnings: Iterable[str] = (),
        overlap: Overlap | None = None,
    ) -> None:
        self.first, self.second = runs
        self.subject = f"{self.first} with {self.second}"
        self.layers = dict(layers)
        self.efficiency = efficiency
        self.overlap = overlap
        self.warnings = list(warnings)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        return {
            "first": self.first,
            "second": self.second,
            "warnings": self.warnings,
            "efficiency": None if self.efficiency is None else self.efficiency.to_dict(),
            "overlap": None if self.overlap is None else self.overlap.to_dict(),
            "layers": {name: layer.to_dict() for name, layer in self.items()},
        }

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of all neurons that were compared, indexed by layer and neuron.

        Columns are `share`, of rows in which the neuron differs, and the limits `lower` and
        `upper` of its confidence interval, by samples.
        """
        import pandas as pd

        frames = {}
        for name, layer in self.items():
            if layer.flips is not None:
                lower, upper = layer.flips.rate_limits(level)
                columns = {"share": layer.flips.rate, "lower": lower, "upper": upper}
                frames[name] = pd.DataFrame(columns).rename_axis("neuron")
        if not frames:
            return pd.DataFrame(columns=["share", "lower", "upper"])
        return pd.concat(frames, names=["layer"])

    def plot(self, ax: Any = None) -> Any:
        """Draw for each layer the share of rows in which each neuron differs; as `Analysis.plot`.

        Layers whose rows cannot be compared are left out.
        """
        from tsstore.analysis.results.plots import plot_rates

        shown = {name: layer.flips for name, layer in self.items()}
        rates = {name: flips.rate for name, flips in shown.items() if flips is not None}
        ax = plot_rates(rates, ax)
        ax.set_xlabel("share of rows in which a neuron differs (a line a neuron, dot: median)")
        return ax

    @property
    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        why = names_by_phrase((layer.name, layer.reason) for layer in self.values())
        lines = [f"{listed(names)}: rows are not compared: {what}." for what, names in why.items()]
        unequal = [layer for layer in self.values() if layer.unequal]
        lines += [
            f"{printable(layer.name)}: {counted(layer.unequal, 'sample')} left out, which "
            "had other numbers of rows."
            for layer in unequal
        ]
        return lines

    def __repr__(self) -> str:
        title = f"<Comparison {printable(self.first)} with {printable(self.second)}>"
        table = text_table([HEADINGS, *(layer.cells for layer in self.values())]) if self else []
        efficiency = [] if self.efficiency is None else [repr(self.efficiency)]
        overlap = [] if self.overlap is None else [repr(self.overlap)]
        lines = [f"  {line}" for line in (*self.warnings, *self.sentences)]
        return "\n".join([title, *efficiency, *table, *lines, *overlap])

    def _repr_html_(self) -> str:
        title = html_title("Comparison", f"{self.first} with {self.second}")
        efficiency = "" if self.efficiency is None else self.efficiency._repr_html_()
        table = html_table(HEADINGS, [layer.cells for layer in self.values()]) if self else ""
        lines = html_lines([*self.warnings, *self.sentences])
        overlap = "" if self.overlap is None else self.overlap._repr_html_()
        return title + efficiency + table + lines + overlap


def compare(
    first: Run | Analysis,
    second: Run | Analysis,
    layers: Layers = None,
    *,
    efficiency: bool = True,
    novelty: bool = False,
    seed: int = 0,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two runs: efficiencies, bits of the same samples that differ, states both show.

    Samples are the same where their ids are; of samples of one id in a run the first one counts.
    Rows are the same by their place in the sample. What is in one run alone is left out.

    Parameters
    ----------
    first, second
        Two runs, their paths, or views of one: ``store.at_step(1)`` and ``store.at_step(2)``. Or
        two analyses, such as those of two groups: of them the efficiencies alone are compared.
    layers
        Names of layers, or patterns; those that both runs have unless given.
    efficiency
        Whether to count states as well, for the difference of efficiencies; both runs are then
        analysed, with intervals.
    novelty
        Whether to find which distinct states both runs show, and what is new in the second: how
        many rows and samples, and how far it is from what the first one shows.
    seed
        Chooses the new states whose distances are told, of which there are 200 at most.
    memory, scheduler, scratch, progress
        As for `tsstore.analyze`.

    Returns
    -------
    Comparison
        A mapping from layer names.

    Raises
    ------
    AnalysisError
        If a layer has other widths in both runs, a run is given beside an analysis, or memory or
        scheduler make no sense.
    UnknownLayerError
        If no layer is in both runs, or one that was asked for is not.
    NotAStoreError, FormatError, DamageError, EmptyStoreError, MemoryTooSmallError
        As for `tsstore.analyze`.

    Notes
    -----
    The rows of both runs are read once where both hold the samples in the same order, and the
    memory holds both at once; else once more, besides what the efficiencies take. Ids of both are
    held in memory, some 64 bytes a sample. Novelty takes another pass over both runs, whose records
    are 8 bytes a row longer than those of `analyze`; and one over the first run, in which each row
    is compared with 200 states.
    """
    if isinstance(first, Analysis) or isinstance(second, Analysis):
        return _compare_analyses(first, second)
    request = Request(memory, scheduler, progress, scratch, intervals=False)
    stores = countable(first), countable(second)
    pairs = common_layers(*stores, layers)
    names = [states.name for states, _ in pairs]
    warnings = [*warnings_of(pairs), *(_other_lengths(pairs) if novelty else ())]
    runs = stores[0].select(*names), stores[1].select(*names)
    counting = replace(request, intervals=True)
    found, overlap = None, None
    with running(request, *stores) as runner:
        checks = [*(memory_checks if efficiency else comparing_checks)(*runs, counting, runner)]
        if novelty:
            samples = [plan_samples(store, request, runner) for store in stores]
            checks += (partial(plan_overlap, pair, samples, request, runner) for pair in pairs)
        all_fit(checks)
        if efficiency:
            both, _ = analyze_together(*runs, counting, runner)
            flips, found = both.flips, difference(both.whole, both.second)
        else:
            flips = compare_layers(*runs, request, runner)
        if novelty:
            overlap = _overlap(stores, pairs, request, runner, seed)
    return Comparison((stores[0].path, stores[1].path), flips, found, warnings, overlap)


def _compare_analyses(first: Any, second: Any) -> Comparison:
    """Compare what alone two analyses tell: their efficiencies."""
    if not (isinstance(first, Analysis) and isinstance(second, Analysis)):
        raise AnalysisError("found a run and an analysis; compare two runs, or two analyses")
    return Comparison((first.run, second.run), {}, difference(first, second))


def _overlap(
    stores: Pair[StateStore],
    pairs: Sequence[Pair[LayerStates]],
    request: Request,
    runner: Scheduler,
    seed: int,
) -> Overlap:
    """Find what layers of two runs share, of the samples that an analysis would count."""
    names = [first.name for first, _ in pairs]
    samples = choose_samples([store.select(*names) for store in stores], request, runner)
    found = {}
    for name, pair in zip(names, pairs, strict=True):
        found[name] = find_overlap(pair, samples, request, runner, seed)
    return Overlap((stores[0].path, stores[1].path), found)


def common_layers(first: StateStore, second: StateStore, layers: Layers) -> list[Pair[LayerStates]]:
    """Return the layers, of one name, of two runs; AnalysisError where they have other widths."""
    if layers is not None:
        names = list(with_layers(first, layers))
    else:
        names = [name for name in first.layers if name in second.layers]
    if not names:
        raise UnknownLayerError(
            f"{first.path} and {second.path} have no layer in common: found "
            f"{listed(list(first.layers))}, and {listed(list(second.layers))}"
        )
    pairs = [(first[name], second[name]) for name in names]
    for one, other in pairs:
        if one.neurons != other.neurons:
            raise AnalysisError(
                f"layer {printable(one.name)} has {counted(one.neurons, 'neuron')} in "
                f"{one.location}, and {counted(other.neurons, 'neuron')} in {other.location}; "
                "expected the same: compare layers of one width, by layers="
            )
    return pairs


def warnings_of(pairs: Iterable[Pair[LayerStates]]) -> Iterator[str]:
    """Yield what speaks against comparing."""
    for first, second in pairs:
        name = printable(first.name)
        limits = [_threshold(states) for states in (first, second)]
        if limits[0] != limits[1]:
            above = " and ".join(f"{limit:g}" for limit in limits)
            yield f"{name}: on is above {above}: what differs may be the threshold alone."
        shapes = [states.attributes.position_shape for states in (first, second)]
        if all(shapes) and shapes[0] != shapes[1]:
            sizes = " and ".join("×".join(map(str, shape)) for shape in shapes)
            yield f"{name}: positions are {sizes}: rows may be of other places in a sample."


def _other_lengths(pairs: Iterable[Pair[LayerStates]]) -> Iterator[str]:
    """Yield what speaks against comparing states at equal numbers of samples."""
    for pair in pairs:
        lengths = [states.rows / states.samples for states in pair]
        if max(lengths) > ALIKE * min(lengths):
            rows = " and ".join(f"{length:,.4g}" for length in lengths)
            yield (
                f"{printable(pair[0].name)}: a sample has {rows} rows on average: what has more "
                "shows more states, at equal numbers of samples, too."
            )


def _threshold(states: LayerStates) -> float:
    return float(states.attributes.threshold["given"])
