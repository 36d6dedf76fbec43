"""The page: what is said of a run, and how it becomes one file of HTML."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tsstore.analysis.analyze import analyze
from tsstore.analysis.neurons.count import neurons as count_neurons
from tsstore.analysis.neurons.layer import HEADINGS as NEURON_HEADINGS
from tsstore.analysis.neurons.layer import LayerNeurons
from tsstore.analysis.neurons.results import Neurons
from tsstore.analysis.results.layer import LayerResult, efficiency_text, layer_cells
from tsstore.analysis.results.layer import headings as layer_headings
from tsstore.analysis.results.network import Analysis, notes
from tsstore.analysis.results.network_numbers import network_lines
from tsstore.errors import AnalysisError
from tsstore.store.files.base import partial_name
from tsstore.store.files.open import is_url, open_files
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.targets import check_target, not_writable
from tsstore.text import Progress, counted, is_number, listed, printable, silent

if TYPE_CHECKING:
    from tsstore.store.files.open import StorePath

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


def report(
    run: StateStore | StorePath,
    path: str | os.PathLike[str],
    *,
    analysis: Analysis | None = None,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> int:
    """Write a page on a run: one file of HTML that needs nothing else, neither script nor network.

    The run's rows are read twice: to count its states, and to count what single neurons do.

    Parameters
    ----------
    run
        The run, or where it is.
    path
        Where to write the page, also a URL of an object store; what is there already is replaced,
        as a whole or not at all.
    analysis
        What `analyze` found in the run, if it is there already: rows are then read once.
    memory, scheduler, scratch, progress
        As for `analyze`.

    Returns
    -------
    int
        Bytes of the page.

    Raises
    ------
    AccessError, StoreError
        If the page cannot be written; if the path lies within a run.
    AnalysisError
        If Jinja2 is not installed (the extra ``report``), and whatever `analyze` raises.
    """
    template = _template()
    check_target(path, replaces=True)
    store = run if isinstance(run, StateStore) else open_store(run)
    options: dict[str, Any] = {"memory": memory, "scheduler": scheduler, "progress": progress}
    if analysis is None:
        analysis = analyze(store, scratch=scratch, **options)
    found = count_neurons(store, list(analysis), **options)
    text = template.render(page(store, analysis, found)).lstrip()
    _write(os.fspath(path), text.encode())
    return len(text.encode())


def _write(path: str, data: bytes) -> None:
    """Write a file, whole or not at all."""
    if is_url(path):
        parent, _, name = path.rpartition("/")
        open_files(parent).write(name, data)
        return
    target = Path(path)
    temporary = target.with_name(partial_name(target.name))
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    except OSError as error:
        raise not_writable(target, error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)


def page(store: StateStore, analysis: Analysis, neurons: Neurons) -> dict[str, Any]:
    """Return all that the template shows."""
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
        "layers": [_layer(analysis[name], neurons[name]) for name in analysis],
        "tables": [
            _table("Efficiency", layer_headings(True), [
                layer_cells(layer, True) for layer in analysis.values()
            ]),
            _table("Neurons", NEURON_HEADINGS, [layer.cells for layer in neurons.values()]),
        ],
        "notes": notes(analysis),
        "provenance": _provenance(store),
    }  # fmt: skip


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


def next_steps(analysis: Analysis, neurons: Neurons) -> list[str]:
    """Say what somebody would do who has these numbers."""
    steps = [analysis.sentence] if any(layer.needs for layer in analysis.values()) else []
    kinds = (
        ("dead", lambda layer: len(layer.dead), "never fired: leave them out, or train them"),
        ("always on", lambda layer: len(layer.always_on), "always fired, and tell nothing apart"),
        ("duplicate", lambda layer: layer.duplicates, "always fire with another one: merge them"),
    )
    for kind, number, advice in kinds:
        having = [layer for layer in neurons.values() if number(layer)]
        if having:
            total = sum(map(number, having))
            names = listed([layer.name for layer in having])
            steps.append(f"{counted(total, f'{kind} neuron')} in {names}: they {advice}.")
    return steps or ["Nothing stands out: all layers have samples enough, and no neuron is idle."]


def _layer(layer: LayerResult, neurons: LayerNeurons) -> dict[str, Any]:
    """Return a layer's charts with the tables under them."""
    from tsstore.reporting import charts

    name, shown = printable(layer.name), efficiency_text(layer)
    interval = layer.efficiency_interval()
    value = layer.shown_efficiency
    ends = (value, value) if interval is None else (interval.lower, interval.upper)
    curve = layer.rarefaction_curve(CURVE_POINTS)
    bands = [
        (point.samples, point.distinct_interval.lower, point.distinct_interval.upper)
        for point in curve
        if point.distinct_interval is not None
    ]
    octaves = charts.octaves(layer.spectrum.incidence.tolist(), layer.spectrum.states.tolist())
    heights, edges = np.histogram(neurons.rate, bins=10, range=(0, 1))
    rates = [f"{edge:.1f}" for edge in edges[:-1]]
    return {
        "name": name,
        "efficiency": shown,
        "verdict": layer.verdict,
        "reason": layer.reason,
        "bar": charts.bar(
            value, *ends, is_bound=layer.sample_limited, title=f"{name}: efficiency {shown}"
        ),
        "charts": [
            (
                charts.curve(
                    [(point.samples, point.distinct) for point in curve],
                    bands,
                    "samples",
                    "distinct states",
                    f"{name}: distinct states in so many samples",
                ),
                "How many states so many samples show: a curve that still climbs wants more.",
                _table("", ("samples", "distinct states"), [
                    (f"{point.samples:,}", f"{point.distinct:,.1f}") for point in curve
                ]),
            ),
            (
                charts.bars(
                    *octaves,
                    "seen in so many samples, or up to twice as many",
                    "states",
                    f"{name}: states by the samples they were seen in",
                ),
                "How often states come again: those seen in one sample alone hint at unseen ones.",
                _table("", ("samples, from", "states"), [
                    (low, f"{states:,}") for low, states in zip(*octaves, strict=True)
                ]),
            ),
            (
                charts.bars(
                    rates,
                    heights.tolist(),
                    "firing rate, from: share of rows",
                    "neurons",
                    f"{name}: neurons by their firing rate",
                ),
                "How often neurons fire: those at 0 or 1 tell little apart.",
                _table("", ("rate, from", "neurons"), [
                    (rate, f"{number:,}") for rate, number in zip(rates, heights, strict=True)
                ]),
            ),
        ],
    }  # fmt: skip


def _table(caption: str, headings: Any, rows: Any) -> dict[str, Any]:
    """Return a table as the template shows it: cells, and which of them stand to the right."""
    cells = [[(cell, is_number(cell)) for cell in row] for row in rows]
    return {"caption": caption, "headings": list(headings), "rows": cells}


def _provenance(store: StateStore) -> list[tuple[str, str]]:
    """Return where the numbers come from."""
    software = ", ".join(f"{name} {number}" for name, number in store.run.software.items())
    commit = store.last_commit
    now = datetime.now(UTC)
    facts = [
        ("run", store.run.run_id),
        ("recorded with", software),
        ("last commit", "none" if commit is None else commit.isoformat(timespec="seconds")),
        ("analysed with", f"tsstore {version('tsstore')}, {now.isoformat(timespec='seconds')}"),
    ]
    view = store.view
    chosen = [("--step", str(step)) for step in view.steps or () if step is not None]
    chosen += [("--layer", layer) for layer in view.layers or ()]
    words = ["tsstore", "report", store.path, *(word for option in chosen for word in option)]
    if view.told:
        facts.append(("samples where", " and ".join(view.told)))
    else:
        # Not every condition of samples can be said on the command line.
        facts.append(("command", shlex.join(words)))
    if view.steps:
        facts.append(("step", ", ".join(map(str, view.steps))))
    return [(name, printable(value)) for name, value in facts]


def _template() -> Any:
    try:
        from jinja2 import Environment
    except ImportError:
        raise AnalysisError(
            "a report needs Jinja2, which is not installed; install tsstore[report]"
        ) from None
    source = (package_files("tsstore.reporting") / "page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
