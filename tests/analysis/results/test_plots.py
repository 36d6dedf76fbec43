"""Plots: what they show is what the results say, and they need no screen."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers import draw_batch, write_run

import tsstore
from tsstore.errors import AnalysisError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("plots") / "run.zarr"
    layers = {"few $x^$": 4, "layer." * 20 + "many": 64}
    batch = draw_batch(np.random.default_rng(0), 300, neurons=layers)
    write_run(path, [batch], neurons=layers)
    return path


@pytest.fixture(scope="module")
def analysis(run):
    return tsstore.analyze(run)


@pytest.fixture(autouse=True)
def pyplot():
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def test_an_analysis_draws_a_point_a_layer_and_says_what_an_arrow_is(analysis):
    ax = analysis.plot()
    ax.figure.canvas.draw()
    points = [line for line in ax.lines if line.get_marker() in ("o", "|")]
    shown = [layer.shown_efficiency for layer in analysis.values()]
    assert [float(np.ravel(line.get_xdata())[0]) for line in points] == shown
    assert len(ax.texts) == sum(layer.sample_limited for layer in analysis.values()) == 1
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == r"few \$x^\$"
    assert len(names[1]) <= 41
    assert "at least" in ax.get_xlabel()


def test_groups_are_drawn_layer_after_layer_with_a_line_between(run):
    grouped = tsstore.analyze(run, window=100)
    ax = grouped.plot()
    ax.figure.canvas.draw()
    points = [line for line in ax.lines if line.get_marker() in ("o", "|")]
    drawn = [float(np.ravel(line.get_xdata())[0]) for line in points]
    analyses = [*grouped.groups.values(), grouped.whole]
    layers = grouped.layers
    assert drawn == [one[layer].shown_efficiency for layer in layers for one in analyses]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[:4] == [r"few \$x^\$   0", "100", "200", "all"]
    assert len(ax.texts) == sum(one[layer].sample_limited for layer in layers for one in analyses)
    assert ax.get_title() == "by layer and window"


def test_all_draw_on_axes_that_are_given_and_return_them(analysis, run, pyplot):
    drawings = [
        analysis.plot,
        analysis["few $x^$"].plot_curve,
        analysis["few $x^$"].plot_spectrum,
        tsstore.neurons(run).plot,
    ]
    for draw in drawings:
        _, ax = pyplot.subplots()
        assert draw(ax=ax) is ax
        ax.figure.canvas.draw()
        assert ax.get_xlabel()


def test_a_curve_ends_at_all_samples_with_what_they_show(analysis):
    layer = analysis["few $x^$"]
    curve = layer.plot_curve().lines[0]
    assert (curve.get_xdata()[-1], curve.get_ydata()[-1]) == (layer.samples, layer.distinct)


def test_a_spectrum_holds_all_states(analysis):
    for layer in analysis.values():
        (dots,) = layer.plot_spectrum().lines
        assert dots.get_ydata().sum() == layer.distinct
        assert dots.get_xdata().max() == layer.spectrum.incidence.max()


def test_rates_are_a_line_a_neuron(run):
    neurons = tsstore.neurons(run)
    lines = neurons.plot().lines[::2]
    for line, layer in zip(lines, neurons.values(), strict=True):
        assert line.get_xdata().tolist() == layer.rate.tolist()


def test_sorted_rates_are_those_of_the_neurons_with_their_limits(run):
    layer = next(iter(tsstore.neurons(run).values()))
    ax = layer.plot()
    ax.figure.canvas.draw()
    band, rates = (patch.get_data() for patch in ax.patches)
    order = np.argsort(layer.rate, kind="stable")
    np.testing.assert_array_equal(rates.values, layer.rate[order])
    np.testing.assert_array_equal(band.baseline, layer.rate_limits()[0][order])
    np.testing.assert_array_equal(band.values, layer.rate_limits()[1][order])
    assert ax.get_title() == r"few \$x^\$"
    assert "neurons" in ax.get_xlabel()
    assert "rate" in ax.get_ylabel()


def test_a_map_shows_the_rates_of_positions(run):
    layer = next(iter(tsstore.neurons(run, maps=True).values()))
    line = layer.plot_map(2).lines[0]
    assert line.get_ydata().tolist() == [layer.rate[2]]
    image = replace(layer, by_position=np.arange(24).reshape(6, 4), position_shape=(2, 3))
    ax = image.plot_map()
    ax.figure.canvas.draw()
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown, image.map.mean("neuron"))
    assert ax.get_xlabel() == "position_1"
    assert [own.get_ylabel() for own in ax.figure.axes] == [
        "position_0",
        "rate: mean of the neurons",
    ]
    with pytest.raises(AnalysisError, match="has no neuron 4; expected a number from 0 to 3"):
        image.plot_map(4)
    with pytest.raises(AnalysisError, match="positions have 3 axes"):
        replace(image, position_shape=(1, 2, 3)).plot_map()


def test_groups_have_a_row_each(run):
    ax = tsstore.neurons(run, window=100).plot()
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[:4] == [
        r"few \$x^\$   0",
        r"few \$x^\$   100",
        r"few \$x^\$   200",
        r"few \$x^\$   all",
    ]
    assert ax.get_title() == "by layer and window"


def test_without_matplotlib_the_error_names_the_extra(analysis, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(AnalysisError, match=r"install tsstore\[plot\]"):
        analysis.plot()
