"""Results as pictures for a paper or a notebook, by matplotlib (the extra ``plot``).

Blue, orange and their like are told apart by the colour-blind; what is a bound is an arrow, not a
colour alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tsstore.errors import AnalysisError
from tsstore.text import printable

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from tsstore.analysis.results.estimates import Rarefied
    from tsstore.statistics.intervals import Interval
    from tsstore.statistics.spectrum import Spectrum

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


Shown = tuple[float, "Interval | None", bool]
"""An efficiency, its interval, and whether it is a lower bound."""


def plot_efficiency(names: Sequence[str], shown: Sequence[Shown], ax: Any) -> Any:
    """Draw efficiencies by name with their intervals, lower bounds as arrows; return the axes."""
    ax = axes(ax, (6.4, 1.2 + 0.28 * len(shown)))
    for at, (value, interval, is_bound) in enumerate(shown):
        if is_bound:
            ax.plot(value, at, marker="|", color=ORANGE, markersize=10)
            arrow = {"arrowstyle": "->", "color": ORANGE}
            ax.annotate("", (value + ARROW, at), (value, at), arrowprops=arrow)
            continue
        if interval is not None:
            ax.plot([interval.lower, interval.upper], [at, at], color=BLUE, linewidth=2)
        ax.plot(value, at, marker="o", color=BLUE, markersize=5)
    _name_rows(ax, names)
    ax.set_xlim(0, 1.02)
    words = "efficiency: entropy in bits by neurons"
    if any(interval is not None for _, interval, _ in shown):
        words += " (bars: 95 % intervals)"
    if any(is_bound for _, _, is_bound in shown):
        words += "\n(→ at least: too few samples for an estimate)"
    ax.set_xlabel(words)
    return _tidy(ax, "x")


def plot_groups(groups: Sequence[str], layers: Mapping[str, Sequence[Shown]], ax: Any) -> Any:
    """Draw efficiencies of groups, layer after layer, with lines between; return the axes."""
    names = [
        f"{layer}   {group}" if number == 0 else group
        for layer in layers
        for number, group in enumerate(groups)
    ]
    ax = plot_efficiency(names, [one for own in layers.values() for one in own], ax)
    for layer in range(1, len(layers)):
        ax.axhline(layer * len(groups) - 0.5, color=GREY, linewidth=0.8)
    return ax


def plot_curve(points: Sequence[Rarefied], title: str, needed: int | None, ax: Any) -> Any:
    """Draw how many states fewer samples show, with the 95 % band; return the axes.

    `needed` is how many samples the layer needs.
    """
    ax = axes(ax)
    distinct = [point.distinct for point in points]
    ax.plot([point.samples for point in points], distinct, color=BLUE, label="distinct states")
    band = [
        (point.samples, point.distinct_interval.lower, point.distinct_interval.upper)
        for point in points
        if point.distinct_interval is not None
    ]
    if band:
        ax.fill_between(*zip(*band, strict=True), color=BLUE, alpha=0.25, label="95 % interval")
    if needed is not None and needed > points[-1].samples:
        ax.axvline(needed, color=ORANGE, linestyle="--", label=f"{needed:,} samples needed")
    ax.set(xlabel="samples", ylabel="distinct states", title=title)
    ax.set_xlim(0)
    ax.set_ylim(0)
    ax.legend(frameon=False)
    return _tidy(ax, "both")


def plot_spectrum(spectrum: Spectrum, title: str, ax: Any) -> Any:
    """Draw how many states were seen in so many samples, both by logarithm; return the axes."""
    ax = axes(ax)
    incidence, which = np.unique(spectrum.incidence, return_inverse=True)
    states = np.bincount(which, spectrum.states, len(incidence))
    ax.loglog(incidence, states, ".", color=BLUE)
    ax.set(xlabel="samples that show a state", ylabel="distinct states", title=title)
    return _tidy(ax, "both")


def plot_rates(rates: Mapping[str, npt.NDArray[np.float64]], ax: Any) -> Any:
    """Draw each layer's firing rates, from the least to the largest; return the axes."""
    ax = axes(ax, (6.4, 1.2 + 0.28 * len(rates)))
    for at, rate in enumerate(rates.values()):
        ax.plot(rate, np.full(len(rate), at), "|", color=GREY, markersize=9, alpha=0.6)
        ax.plot(np.median(rate), at, "o", color=BLUE, markersize=5)
    _name_rows(ax, rates)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("firing rate: share of rows (a line a neuron, the dot their median)")
    return _tidy(ax, "x")


def plot_sorted_rates(
    rate: npt.NDArray[np.float64],
    limits: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    title: str,
    ax: Any,
) -> Any:
    """Draw a layer's firing rates from the least to the largest, with limits; return the axes."""
    ax = axes(ax)
    order = np.argsort(rate, kind="stable")
    edges = np.arange(len(rate) + 1)
    ax.stairs(limits[1][order], edges, baseline=limits[0][order], fill=True, color=BLUE, alpha=0.25)
    ax.stairs(rate[order], edges, baseline=None, color=BLUE, linewidth=1.5)
    ylabel = "firing rate: share of rows (band: 95 %)"
    ax.set(xlabel="neurons, from the least to the most firing", ylabel=ylabel)
    ax.set_title(title)
    ax.set_xlim(0, len(rate))
    ax.set_ylim(-0.02, 1.02)
    ax.xaxis.get_major_locator().set_params(integer=True)
    return _tidy(ax, "both")


def plot_map(rates: npt.NDArray[np.float64], what: str, title: str, ax: Any) -> Any:
    """Draw a number of each position, of one axis or two; return the axes.

    AnalysisError where positions have more axes.
    """
    if rates.ndim > 2:
        raise AnalysisError(
            f"positions have {rates.ndim} axes; expected 1 or 2: draw a part of the array .map"
        )
    ax = axes(ax)
    if rates.ndim == 1:
        ax.plot(np.arange(len(rates)), rates, color=BLUE, marker=".")
        ax.set(xlabel="position", ylabel=what, title=title)
        ax.set_ylim(-0.02, 1.02)
        ax.xaxis.get_major_locator().set_params(integer=True)
        return _tidy(ax, "both")
    image = ax.imshow(rates, cmap="cividis", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label=what)
    ax.set(xlabel="position_1", ylabel="position_0", title=title)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)
    return ax


def plot_steps(network: pd.DataFrame, ax: Any) -> Any:
    """Draw accuracy, efficiency and the share of dead neurons by step; return the axes.

    Of each step there is a line with the columns of `Steps.to_frame`.
    """
    ax = axes(ax)
    names = network.index.get_level_values("step")
    steps, at = [short(str(step)) for step in names], np.arange(len(network))
    efficiency, is_bound = network["efficiency"].to_numpy(), network["is_lower_bound"].to_numpy()
    if network["accuracy"].notna().any():
        ax.plot(at, network["accuracy"], "s--", color="black", markersize=4, label="accuracy")
    ax.plot(at, efficiency, color=BLUE, linewidth=1)
    for chosen, marker, words in ((~is_bound, "o", ""), (is_bound, "^", ", at least")):
        if chosen.any():
            label = f"network efficiency{words}"
            ax.plot(at[chosen], efficiency[chosen], marker, color=BLUE, label=label)
    ax.vlines(at, network["lower"], network["upper"], color=BLUE, linewidth=2)
    ax.plot(at, network["dead"] / network["neurons"], "x:", color=ORANGE, label="dead neurons")
    # Some ten names fit.
    every = slice(None, None, 1 + len(at) // 10)
    ax.set_xticks(at[every], steps[every])
    ax.set(xlabel="step", ylabel="share, from 0 to 1")
    ax.set_ylim(-0.02, 1.02)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    return _tidy(ax, "both")


def plot_beside(
    shown: Mapping[str, tuple[float, float]], labels: tuple[str, str], words: str, ax: Any
) -> Any:
    """Draw a share by layer as a dot, and as a bar the one that was expected; return the axes."""
    ax = axes(ax, (6.4, 1.6 + 0.32 * len(shown)))
    rows = range(len(shown))
    found, expected = zip(*shown.values(), strict=True)
    ax.barh(rows, expected, height=0.5, color="#dddddd", edgecolor=GREY, label=labels[1])
    ax.plot(found, rows, "o", color=BLUE, markersize=6, label=labels[0])
    _name_rows(ax, shown)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(words)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    return _tidy(ax, "x")


def short(name: str) -> str:
    """Return a name that an axis can hold, and matplotlib takes no formula from."""
    shown = printable(name)
    if len(shown) > NAME_LENGTH:
        half = NAME_LENGTH // 2
        shown = f"{shown[:half]}…{shown[-half:]}"
    return shown.replace("$", r"\$")


def _name_rows(ax: Any, names: Collection[str]) -> None:
    """Write names beside rows, the first one at the top."""
    ax.set_yticks(range(len(names)), [short(name) for name in names])
    ax.set_ylabel("layer")
    ax.set_ylim(len(names) - 0.5, -0.5)


def _tidy(ax: Any, grid: str) -> Any:
    ax.grid(axis=grid, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
