"""What a page on a run says: its first screen, its layers with their charts, its tables."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from tsstore import __version__, charts
from tsstore.analysis.comparing.comparison import Comparison
from tsstore.analysis.comparing.flips import HEADINGS as FLIP_HEADINGS
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.neurons.layer import HEADINGS as NEURON_HEADINGS
from tsstore.analysis.neurons.layer import LayerNeurons
from tsstore.analysis.neurons.results import Neurons
from tsstore.analysis.results.difference import HEADINGS as DIFFERENCE_HEADINGS
from tsstore.analysis.results.difference import Difference
from tsstore.analysis.results.layer import LayerResult, efficiency_text, layer_cells
from tsstore.analysis.results.layer import headings as layer_headings
from tsstore.analysis.results.network import Analysis, efficiency_row, notes
from tsstore.analysis.results.network_numbers import network_lines
from tsstore.store.reading.store import StateStore
from tsstore.text import counted, is_number, listed, printable

CURVE_POINTS = 20
"""Of a curve so many points are shown, in the chart and in the table under it."""
EXTREMES = 3
"""So many layers the first screen names from either end."""
VERDICTS = {
    "saturated": "the estimate is as good as exact",
    "usable": "the estimate holds within its interval",
    "imprecise": "the interval is wide",
    "constant": "one state alone was seen",
    "sample-limited": "too few samples for an estimate: a lower bound is shown",
}
"""What each verdict means, in words for somebody who reads no manual."""


class Found(NamedTuple):
    """What was counted for a page, and where; what was not asked for, or cannot be, is None."""

    analysis: Analysis
    groups: GroupedAnalysis | None = None
    store: StateStore | None = None
    neurons: Neurons | None = None
    comparison: Comparison | None = None
    difference: Difference | None = None


def page(found: Found) -> dict[str, Any]:
    """Return all that the template shows."""
    analysis, neurons = found.analysis, found.neurons
    # Of each layer all groups, one layer after the other.
    lines = [] if found.groups is None else found.groups.cells()
    groups = len(lines) // len(analysis)
    tables = [_table("Efficiency", layer_headings(True), [
        layer_cells(layer, True) for layer in analysis.values()
    ])]  # fmt: skip
    if neurons is not None:
        counts = [layer.cells for layer in neurons.values()]
        tables.append(_table("Neurons", NEURON_HEADINGS, counts))
    return {
        "run": printable(analysis.run),
        "samples": f"{analysis.samples:,}",
        "network": network_lines(analysis),
        "warnings": analysis.warnings,
        "answers": [
            ("Which layers use their neurons?", users(analysis)),
            ("How sure is that?", certainty(analysis)),
            ("What to do next?", next_steps(analysis, neurons)),
        ],
        "layers": [
            _layer(analysis[name], found, lines[index * groups :][:groups])
            for index, name in enumerate(analysis)
        ],
        "compared": _compared(found),
        "chart_style": charts.Svg(charts.STYLE),
        "tables": tables,
        "notes": [*notes(analysis), *([] if found.groups is None else found.groups.sentences)],
        "provenance": _provenance(found),
    }


def users(analysis: Analysis) -> list[str]:
    """Say which layers use most and least of what their neurons could tell apart."""
    ranked = sorted(analysis.values(), key=lambda layer: -layer.shown_efficiency)
    named = ranked if len(ranked) <= 2 * EXTREMES else ranked[:EXTREMES] + ranked[-EXTREMES:]
    lines = [f"{printable(layer.name)}: {efficiency_text(layer)}" for layer in named]
    if len(named) < len(ranked):
        between = f"… and {counted(len(ranked) - len(named), 'layer')} between"
        lines.insert(EXTREMES, between)
    return lines


def certainty(analysis: Analysis) -> list[str]:
    """Say how many layers have which verdict, and what it means."""
    verdicts = Counter(layer.verdict for layer in analysis.values())
    return [
        f"{counted(verdicts[name], 'layer')} {name}: {meaning}"
        for name, meaning in VERDICTS.items()
        if verdicts[name]
    ]


def next_steps(analysis: Analysis, neurons: Neurons | None) -> list[str]:
    """Say what somebody would do who has these numbers."""
    steps = [analysis.sentence] if any(layer.needs for layer in analysis.values()) else []
    counts = [] if neurons is None else list(neurons.values())
    kinds = (
        ("dead", lambda layer: len(layer.dead), "never fired: leave them out, or train them"),
        ("always on", lambda layer: len(layer.always_on), "always fired, and tell nothing apart"),
        ("duplicate", lambda layer: layer.duplicates, "always fire with another one: merge them"),
    )
    for kind, number, advice in kinds:
        having = [layer for layer in counts if number(layer)]
        if having:
            total = sum(map(number, having))
            names = listed([layer.name for layer in having])
            steps.append(f"{counted(total, f'{kind} neuron')} in {names}: they {advice}.")
    return steps or ["Nothing stands out: all layers have samples enough, and no neuron is idle."]


def _layer(layer: LayerResult, found: Found, by_group: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Return a layer's charts with the tables under them; `by_group` has its line of each group."""
    name, shown = printable(layer.name), efficiency_text(layer)
    row = efficiency_row(layer, name)
    drawn = [_curve(layer), _octaves(layer)]
    if found.neurons is not None:
        drawn.append(_rates(found.neurons[layer.name]))
    if found.groups is not None:
        drawn.append(_by_group(layer.name, found.groups, by_group))
    return {
        "name": name,
        "efficiency": shown,
        "verdict": layer.verdict,
        "reason": layer.reason,
        "bar": charts.bar(row, title=f"{name}: efficiency {shown}"),
        "charts": drawn,
    }


def _curve(layer: LayerResult) -> tuple[Any, str, dict[str, Any]]:
    curve = layer.rarefaction_curve(CURVE_POINTS)
    bands = [
        (point.samples, point.distinct_interval.lower, point.distinct_interval.upper)
        for point in curve
        if point.distinct_interval is not None
    ]
    title = f"{printable(layer.name)}: distinct states in so many samples"
    points = [(point.samples, point.distinct) for point in curve]
    lines = [(f"{point.samples:,}", f"{point.distinct:,.1f}") for point in curve]
    return (
        charts.curve(points, bands, "samples", "distinct states", title),
        "How many states so many samples show: a curve that still climbs wants more.",
        _table("", ("samples", "distinct states"), lines),
    )


def _octaves(layer: LayerResult) -> tuple[Any, str, dict[str, Any]]:
    spectrum = layer.spectrum
    octaves = charts.octaves(spectrum.incidence.tolist(), spectrum.states.tolist())
    words = "seen in so many samples, or up to twice as many", "states"
    title = f"{printable(layer.name)}: states by the samples they were seen in"
    lines = [(low, f"{states:,}") for low, states in zip(*octaves, strict=True)]
    return (
        charts.bars(*octaves, *words, title),
        "How often states come again: those seen in one sample alone hint at unseen ones.",
        _table("", ("samples, from", "states"), lines),
    )


def _rates(neurons: LayerNeurons) -> tuple[Any, str, dict[str, Any]]:
    heights, edges = np.histogram(neurons.rate, bins=10, range=(0, 1))
    rates = [f"{edge:.1f}" for edge in edges[:-1]]
    words = "firing rate, from: share of rows", "neurons"
    title = f"{printable(neurons.name)}: neurons by their firing rate"
    lines = [(rate, f"{number:,}") for rate, number in zip(rates, heights, strict=True)]
    return (
        charts.bars(rates, heights.tolist(), *words, title),
        "How often neurons fire: those at 0 or 1 tell little apart.",
        _table("", ("rate, from", "neurons"), lines),
    )


def _by_group(
    name: str, groups: GroupedAnalysis, lines: Sequence[tuple[str, ...]]
) -> tuple[Any, str, dict[str, Any]]:
    """Return a layer's efficiency in each group that a table shows."""
    by = printable(groups.by)
    shown = [(group, analysis[name]) for group, analysis in groups.shown]
    rows = [efficiency_row(layer, group) for group, layer in shown]
    return (
        charts.rows(rows, "efficiency", f"{printable(name)}: efficiency by {by}"),
        f"The efficiency by {by}: a point with its interval, or an arrow from a lower bound.",
        _table("", groups.headings[1:], [line[1:] for line in lines]),
    )


def _compared(found: Found) -> dict[str, Any] | None:
    """Return what is said of another run: differences of efficiencies, and bits that differ."""
    comparison, difference = found.comparison, found.difference
    if comparison is None or difference is None:
        return None
    flips = [layer.cells for layer in comparison.values()]
    return {
        "other": printable(comparison.second),
        "warnings": [printable(line) for line in comparison.warnings],
        "tables": [
            _table("Efficiencies of both", DIFFERENCE_HEADINGS, difference.cells()),
            _table("Bits of the same samples", FLIP_HEADINGS, flips),
        ],
        "lines": [difference.pairing, *comparison.sentences],
    }


def _table(caption: str, headings: Any, rows: Any) -> dict[str, Any]:
    """Return a table as the template shows it: cells, and which of them stand to the right."""
    cells = [[(cell, is_number(cell)) for cell in row] for row in rows]
    columns = zip(*cells, strict=True) if cells else [()] * len(headings)
    named = [
        (heading, bool(column) and all(number for _, number in column))
        for heading, column in zip(headings, columns, strict=True)
    ]
    # The first column names the lines.
    named[0] = (named[0][0], False)
    return {"caption": caption, "headings": named, "rows": cells}


def _provenance(found: Found) -> list[tuple[str, str]]:
    """Return where the numbers come from."""
    now = f"tsstore {__version__}, {datetime.now(UTC).isoformat(timespec='seconds')}"
    facts = (
        _facts_of_analysis(found.analysis) if found.store is None else _facts(found.store, found)
    )
    return [(name, printable(value)) for name, value in [*facts, ("page by", now)]]


def _facts_of_analysis(analysis: Analysis) -> list[tuple[str, str]]:
    told = analysis.provenance
    if told is None:
        return []
    software = ", ".join(f"{name} {number}" for name, number in told.software.items())
    return [("run", told.run_id), ("commit", told.commit), ("analysed", f"{told.time}, {software}")]


def _facts(store: StateStore, found: Found) -> list[tuple[str, str]]:
    software = ", ".join(f"{name} {number}" for name, number in store.run.software.items())
    commit = store.last_commit
    facts = [
        ("run", store.run.run_id),
        ("recorded with", software),
        ("last commit", "none" if commit is None else commit.isoformat(timespec="seconds")),
    ]
    view = store.view
    chosen = [("--step", str(step)) for step in view.steps or () if step is not None]
    chosen += [("--layer", layer) for layer in view.layers or ()]
    asked: dict[str, Any] = {}
    if found.groups is not None and found.groups.provenance is not None:
        asked = dict(found.groups.provenance.arguments)
        options = ((name, asked.get(name)) for name in ("by", "bins", "window"))
        chosen += [(f"--{name}", str(value)) for name, value in options if value is not None]
    if found.comparison is not None:
        chosen.append(("--compare", found.comparison.second))
    words = ["tsstore", "report", store.path, *(word for option in chosen for word in option)]
    if view.told:
        facts.append(("samples where", " and ".join(view.told)))
    elif not isinstance(asked.get("bins"), list):
        # Not every condition of samples, nor edges of bins, can be said on the command line.
        facts.append(("command", shlex.join(words)))
    if view.steps:
        facts.append(("step", ", ".join(map(str, view.steps))))
    return facts
