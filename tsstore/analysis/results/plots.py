"""Results as pictures for a paper or a notebook, by matplotlib (the extra ``plot``).

Blue, orange and their like are told apart by the colour-blind; what is a bound is an arrow, not a
colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tsstore.errors import AnalysisError
from tsstore.text import printable

if TYPE_CHECKING:
    import numpy.typing as npt

    from tsstore.analysis.results.layer import LayerResult

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#808080"
"""Of Okabe and Ito's palette for all kinds of sight."""
ARROW = 0.08
"""Length of the arrow at a lower bound, as a share of the axis."""
NAME_LENGTH = 40


def axes(given: Any, size: tuple[float, float] = (6.4, 4.0)) -> Any:
    """Return the axes that were given, or new ones; AnalysisError without matplotlib."""
    if given is not None:
        return given
    try:
        from matplotlib import pyplot
    except ImportError:
        raise AnalysisError(
            "plots need matplotlib, which is not installed; install tsstore[plot]"
        ) from None
    return pyplot.subplots(figsize=size, layout="constrained")[1]


def plot_efficiency(layers: Iterable[LayerResult], ax: Any = None) -> Any:
    """Draw each layer's efficiency with its interval, lower bounds as arrows; return the axes."""
    layers = list(layers)
    ax = axes(ax, (6.4, 1.2 + 0.28 * len(layers)))
    for at, layer in enumerate(layers):
        value = layer.shown_efficiency
        if layer.sample_limited:
            ax.plot(value, at, marker="|", color=ORANGE, markersize=10)
            ax.annotate(
                "",
                (value + ARROW, at),
                (value, at),
                arrowprops={"arrowstyle": "->", "color": ORANGE},
            )
        else:
            interval = layer.efficiency_interval()
            if interval is not None:
                ax.plot([interval.lower, interval.upper], [at, at], color=BLUE, linewidth=2)
            ax.plot(value, at, marker="o", color=BLUE, markersize=5)
    ax.set_yticks(range(len(layers)), [short(layer.name) for layer in layers])
    ax.set_ylim(len(layers) - 0.5, -0.5)
    ax.set_xlim(0, 1.02)
    words = "efficiency: entropy in bits by neurons"
    if any(layer.sample_limited for layer in layers):
        words += "\n(→ at least: too few samples for an estimate)"
    ax.set_xlabel(words)
    return _tidy(ax, "x")


def plot_curve(layer: LayerResult, ax: Any = None) -> Any:
    """Draw how many states fewer samples show, with the 95 % band; return the axes."""
    ax = axes(ax)
    points = layer.rarefaction_curve()
    ax.plot(
        [point.samples for point in points],
        [point.distinct for point in points],
        color=BLUE,
        label="distinct states",
    )
    banded = [point for point in points if point.distinct_interval is not None]
    ends = [point.distinct_interval for point in banded]
    if ends:
        ax.fill_between(
            [point.samples for point in banded],
            [end.lower for end in ends if end],
            [end.upper for end in ends if end],
            color=BLUE,
            alpha=0.25,
            linewidth=0,
            label="95 % interval",
        )
    needed = layer.samples_needed
    if needed is not None and needed > layer.samples:
        ax.axvline(needed, color=ORANGE, linestyle="--", label=f"{needed:,} samples needed")
    ax.set_xlabel("samples")
    ax.set_ylabel("distinct states")
    ax.set_xlim(0)
    ax.set_ylim(0)
    ax.set_title(f"{short(layer.name)}: {layer.verdict}")
    ax.legend(frameon=False)
    return _tidy(ax, "both")


def plot_spectrum(layer: LayerResult, ax: Any = None) -> Any:
    """Draw how many states were seen in so many samples, both by logarithm; return the axes."""
    ax = axes(ax)
    incidence, which = np.unique(layer.spectrum.incidence, return_inverse=True)
    states = np.bincount(which, layer.spectrum.states, len(incidence))
    ax.loglog(incidence, states, ".", color=BLUE)
    ax.set_xlabel("samples that show a state")
    ax.set_ylabel("distinct states")
    ax.set_title(short(layer.name))
    return _tidy(ax, "both")


def plot_rates(rates: dict[str, npt.NDArray[np.float64]], ax: Any = None) -> Any:
    """Draw each layer's firing rates, from the least to the largest; return the axes."""
    ax = axes(ax, (6.4, 1.2 + 0.28 * len(rates)))
    for at, rate in enumerate(rates.values()):
        ax.plot(rate, np.full(len(rate), at), "|", color=GREY, markersize=9, alpha=0.6)
        ax.plot(np.median(rate), at, "o", color=BLUE, markersize=5)
    ax.set_yticks(range(len(rates)), [short(name) for name in rates])
    ax.set_ylim(len(rates) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("firing rate: share of rows (a line a neuron, the dot their median)")
    return _tidy(ax, "x")


def short(name: str) -> str:
    """Return a name that an axis can hold, and matplotlib takes no formula from."""
    shown = printable(name)
    if len(shown) > NAME_LENGTH:
        half = NAME_LENGTH // 2
        shown = f"{shown[:half]}…{shown[-half:]}"
    return shown.replace("$", r"\$")


def _tidy(ax: Any, grid: str) -> Any:
    ax.grid(axis=grid, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
