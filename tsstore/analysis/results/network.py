"""What was found in a run: numbers of the network as a whole, a table, a JSON document."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from html import escape
from typing import TYPE_CHECKING, Any, Self

from tsstore import charts
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.keeping.saving import load_analyses, save_analyses
from tsstore.analysis.random_groups import Dealt
from tsstore.analysis.results.by_layer import dataset_of, names_by_phrase
from tsstore.analysis.results.estimates import PLUG_IN
from tsstore.analysis.results.layer import (
    HEADINGS,
    VERBOSE_HEADINGS,
    LayerResult,
    headings,
    layer_cells,
    layer_document,
    sampling_text,
    table_row,
)
from tsstore.analysis.results.layer_parts import for_combining
from tsstore.analysis.results.network_numbers import (
    NetworkNumbers,
    flat_scalars,
    network_document,
    network_lines,
)
from tsstore.statistics.rates import Answers
from tsstore.text import (
    MOST_NAMED,
    html_folded,
    html_lines,
    html_table,
    html_title,
    listed,
    printable,
    text_table,
)

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

LEVEL = 0.95
"""Nominal confidence of all intervals and bounds: what their functions take unless told."""

KIND = "an analysis"
"""What a file of one says that it is."""

MANY_DEPENDENT = 0.05
"""Of the samples: where more have the id of another one and other rows, that leads the table."""


@dataclass(eq=False, repr=False)
class Analysis(NetworkNumbers[LayerResult]):
    """What was found in a run: a mapping from layer names to results; made by `analyze`.

    Attributes
    ----------
    run, samples
        Path of the run, and the number of samples that were counted.
    layers
        Results by layer.
    accuracy, accuracy_by_group
        Share of samples whose recorded prediction is their label, and the same by the groups of
        samples of the layers' changes; None if they were not recorded.
    samples_left_out
        Number of samples of the run that were left out, because they repeat others.
    repeated_samples
        Number of samples that have the id of an earlier one, and were counted; None if it is not
        known.
    repeats
        ``"once"`` if samples of one id depend on each other, ``"each"`` if none do.
    not_compared
        Why ids were not compared, in a phrase; empty if they were, or there are none.
    dealt
        Which samples the groups hold, for the difference to another analysis; None if no column
        tells.
    chosen
        Which samples of the run were asked for, in a phrase; empty if all.
    provenance
        The run's id and commit, versions and arguments; None if it is not known.
    """

    run: str
    samples: int
    layers: Mapping[str, LayerResult]
    accuracy: float | None
    accuracy_by_group: Answers | None = None
    _: KW_ONLY
    samples_left_out: int = 0
    repeated_samples: int | None = None
    repeats: str = "once"
    not_compared: str = ""
    dealt: Dealt | None = None
    chosen: str = ""
    provenance: Provenance | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the analysis to a new local path, such as ``"run.analysis.zarr"``.

        Spectra, and what each group of samples changes in them, are written as a Zarr v3 group,
        with where they come from: of them every number follows again, bit for bit.

        Raises
        ------
        StoreError, StoreExistsError, AccessError
            If the path is a URL; if something is there; if it cannot be written.
        """
        save_analyses(path, KIND, [self.told], {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` has written, from anyone: all of it is checked.

        Raises
        ------
        NotAStoreError
            If there is none.
        FormatError, DamageError
            If it is of another version, or not valid; if it is not what was written.
        AccessError
            If it cannot be read.
        """
        ((told,), _) = load_analyses(path, KIND)
        return cls(**told)

    @property
    def told(self) -> dict[str, Any]:
        """What the analysis is made of, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def of_run(self, path: str) -> Self:
        """Return the same analysis, of a run that lies there now."""
        return replace(self, run=path)

    @property
    def sentence(self) -> str:
        """Which layers need more samples, and how many."""
        needs = names_by_phrase((layer.name, layer.needs) for layer in self.values())
        if not needs:
            return "" if self.warnings else "The samples suffice for every layer."
        first, rest = list(needs.items())[:MOST_NAMED], list(needs.values())[MOST_NAMED:]
        parts = [
            f"{self._named(names)} need{'s' * (len(names) == 1)} {what}" for what, names in first
        ]
        if others := sum(map(len, rest)):
            parts.append(f"{others} more need more than there are")
        return "; ".join(parts) + "."

    def _named(self, names: list[str]) -> str:
        """Return layers as a sentence lists them; many that are all there are by their number."""
        every = len(names) == len(self) >= MOST_NAMED
        return f"All {len(names):,} layers" if every else listed(names)

    @property
    def warnings(self) -> list[str]:
        """What speaks against most numbers, in sentences; they lead the table."""
        most = MANY_DEPENDENT * self.samples
        if self.repeats == "each" or (self.repeated_samples or 0) <= most:
            return []
        return _dependence_lines(self)

    def table(self, verbose: bool = False) -> str:
        """Return the table of layers and what is said of the network, as text.

        If it is verbose, with rows, plug-ins, their caps, and the reason of each verdict.
        """
        rows = [headings(verbose), *(layer_cells(layer, verbose) for layer in self.values())]
        lines = [*_said(self), *(reasons(self) if verbose else [])]
        leading, shown = ([f"  {line}" for line in own if line] for own in (self.warnings, lines))
        title = f"<Analysis {printable(self.run)}>"
        return "\n".join([title, *leading, *text_table(rows), *shown])

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        return analysis_document(self)

    def to_frame(self) -> pd.DataFrame:
        """Return the layers' numbers as a table, one line a layer; the first columns say most."""
        import pandas as pd

        rows = {name: table_row(layer) for name, layer in self.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def to_xarray(self) -> xr.Dataset:
        """Return the numbers of `to_frame` as an xarray Dataset along ``layer``.

        Numbers of the network are its attributes. AnalysisError if xarray is not installed.
        """
        return dataset_of(
            self.to_frame().drop(columns="sampling"),
            {"run": self.run, "samples": self.samples}
            | flat_scalars(self.to_dict() | {"layers": {}}),
        )

    def to_scalars(self, prefix: str = "") -> dict[str, float]:
        """Return the numbers that a curve over training is drawn of: for W&B, TensorBoard and such.

        Names are ``"conv_1/efficiency"``, its ends ``_lower`` and ``_upper``, and of the network
        ``"network_efficiency"``, ``"accuracy"``, ``"aiq"``, each after the prefix. What there is
        not is left out: of a layer with too few samples no efficiency but its lower bound is there.
        """
        return flat_scalars(self.to_dict(), prefix)

    def plot(self, ax: Any = None) -> Any:
        """Draw each layer's efficiency with its interval, lower bounds as arrows.

        Parameters
        ----------
        ax
            matplotlib axes to draw on; new ones unless given.

        Returns
        -------
        matplotlib.axes.Axes
            What was drawn on.

        Raises
        ------
        AnalysisError
            If matplotlib is not installed (the extra ``plot``).
        """
        from tsstore.analysis.results.plots import plot_efficiency

        shown = [
            (layer.shown_efficiency, layer.efficiency_interval(), layer.sample_limited)
            for layer in self.values()
        ]
        return plot_efficiency(list(self), shown, ax)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        layers = list(self.values())
        leading = "".join(f"<p><b>{escape(line)}</b></p>" for line in self.warnings)
        table = html_table(HEADINGS, map(layer_cells, layers), list(map(_tooltips, layers)))
        drawn = [efficiency_row(layer, printable(layer.name)) for layer in layers]
        chart = charts.rows(drawn, "efficiency", "efficiency by layer")
        shown = table + html_folded("chart", chart) + html_lines(_said(self))
        return html_title("Analysis", self.run) + leading + shown


def analysis_document(analysis: Analysis) -> dict[str, Any]:
    """Return an analysis's numbers, in the same way as a layer's."""
    plug_ins = [layer.efficiency(PLUG_IN) for layer in analysis.values()]
    return {
        "run": analysis.run,
        "samples": analysis.samples,
        "samples_where": analysis.chosen,
        "samples_left_out": analysis.samples_left_out,
        "repeated_samples": analysis.repeated_samples,
        "repeats": analysis.repeats,
        "not_compared": analysis.not_compared,
        "warnings": analysis.warnings,
        "level": LEVEL,
        "layers": {name: layer_document(layer) for name, layer in analysis.items()},
        **network_document(analysis, plug_ins),
        "sentence": analysis.sentence,
        "for_combining": for_combining(
            analysis.provenance, analysis.accuracy_by_group, analysis.layers
        ),
    }


def efficiency_row(layer: LayerResult, name: str) -> charts.Row:
    """Return the line of a chart with a layer's efficiency, and its interval if it has one."""
    interval, value = layer.efficiency_interval(), layer.shown_efficiency
    lower, upper = (value, value) if interval is None else (interval.lower, interval.upper)
    return charts.Row(name, value, lower, upper, is_bound=layer.sample_limited)


def notes(analysis: Analysis) -> list[str]:
    """Return what else is to be known of the samples, a line each."""
    lines = [f"Samples where {analysis.chosen}."] if analysis.chosen else []
    if left_out := analysis.samples_left_out:
        lines.append(f"{_repeating(left_out)} (left out).")
    if not analysis.warnings:
        lines += _dependence_lines(analysis)
    if why := printable(analysis.not_compared):
        lines.append(f"Whether samples repeat others is not known: {why}.")
    # What was left out of layers on purpose: a line for those of which the same was.
    sampled = names_by_phrase((layer.name, sampling_text(layer)) for layer in analysis.values())
    return lines + [f"{listed(names)}: {phrase}." for phrase, names in sampled.items()]


def _dependence_lines(analysis: Analysis) -> list[str]:
    """Return what is said of samples that count though they have the id of another one."""
    number = analysis.repeated_samples
    if not number:
        return []
    if analysis.repeats == "each":
        return [f'{_repeating(number)}, and each counts as a draw of its own (repeats="each").']
    clusters = max((layer.clusters or 0 for layer in analysis.values()), default=0)
    have = "1 sample has" if number == 1 else f"{number:,} of {analysis.samples:,} samples have"
    return [
        f"{have} the id of another one and other rows: samples of one id depend on each other, "
        f'and make {clusters:,} clusters (unique_by="id" counts the first of each id, '
        'repeats="each" takes all for draws).'
    ]


def reasons(analysis: Analysis) -> list[str]:
    """Return the reason of each layer's verdict, a line each."""
    return [f"{printable(layer.name)}: {layer.reason}" for layer in analysis.values()]


def _said(analysis: Analysis) -> list[str]:
    """Return what is said below the table, a line each."""
    return [" · ".join(network_lines(analysis)), analysis.sentence, *notes(analysis)]


def _tooltips(layer: LayerResult) -> dict[str, str]:
    cells = dict(zip(VERBOSE_HEADINGS, layer_cells(layer, verbose=True), strict=True))
    return {
        "distinct": f"in {cells['rows']} rows",
        "efficiency": f"plug-in {cells['plug-in']}, cap {cells['cap']}",
        "verdict": layer.reason,
    }


def _repeating(samples: int) -> str:
    return "1 sample repeats another one" if samples == 1 else f"{samples:,} samples repeat others"
