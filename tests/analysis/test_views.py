"""What is counted of a view is what would be of a run that holds nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic import draw_layer, write_layers

import tsstore
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import EmptyStoreError
from tsstore.store.format.attributes import PartAttributes

SIZES = (70, 1, 60)


def selected(layer, kept):
    """Return those samples of a layer's batch that are kept."""
    rows = layer.rows[np.repeat(kept, layer.positions)]
    return type(layer)(rows, layer.positions[kept])


@pytest.fixture(scope="module", params=[None, 4])
def runs(request, tmp_path_factory):
    """A run, and one that holds only its samples of label 1."""
    folder = tmp_path_factory.mktemp("views")
    rng = np.random.default_rng(1)
    for number, size in enumerate(SIZES):
        columns = {
            "id": rng.integers(0, 90, size),
            "label": rng.integers(0, 3, size),
            "prediction": rng.integers(0, 3, size),
        }
        layers = {name: draw_layer(9 * number + w, size, w) for name, w in (("a", 2), ("b", 20))}
        if request.param:
            rows = rng.integers(0, 3, (size * request.param, 9)).astype(np.uint8)
            layers["c"] = type(layers["a"])(rows, np.full(size, request.param))
        kept = columns["label"] == 1
        part = PartAttributes(number, len(SIZES))
        store = write_layers(folder / "all", layers, columns=columns, part=part)
        few = {name: selected(layer, kept) for name, layer in layers.items()}
        own = {name: values[kept] for name, values in columns.items()}
        alone = write_layers(folder / "few", few, columns=own, part=part)
    return store, alone


@pytest.fixture(params=["threads", "through files", "cluster"])
def scheduler(request, monkeypatch):
    if request.param == "cluster":
        return request.getfixturevalue("client")
    monkeypatch.setattr(LocalScheduler, "shared_memory", request.param == "threads")
    return "threads"


def numbers(analysis):
    document = analysis.to_dict()
    assert document.pop("run")
    assert document.pop("samples_where") in ("", "label = 1")
    assert document["for_combining"].pop("question")
    return document


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("options", [{"repeats": "once"}, {"unique_by": "id"}])
def test_an_analysis_of_a_view_is_that_of_its_samples(runs, scheduler, options, tmp_path):
    store, alone = runs
    view = store.filter(label=1)
    options |= {"scheduler": scheduler, "scratch": tmp_path}
    assert numbers(tsstore.analyze(view, **options)) == numbers(tsstore.analyze(alone, **options))


def test_neurons_of_a_view_are_those_of_its_samples(runs):
    store, alone = runs
    found, expected = (tsstore.neurons(of).to_dict() for of in (store.filter(label=1), alone))
    assert found["layers"] == expected["layers"]


def test_states_of_a_view_are_those_of_its_samples(runs, tmp_path):
    view = runs[0].filter(label=1)
    for name in view:
        found, expected = (tsstore.states(store, name, 30) for store in (view, runs[1]))
        pd.testing.assert_frame_equal(found.to_frame(), expected.to_frame())
        out = tmp_path / f"{name}.parquet"
        assert tsstore.export(view, name, out) == found.distinct
        assert pd.read_parquet(out)["multiplicity"].sum() == runs[1][name].rows


def test_a_filter_comes_before_repeats_are_found(tmp_path):
    columns = {"id": np.array([1, 1, 2]), "label": np.array([0, 5, 5])}
    store = write_layers(tmp_path, {"a": draw_layer(0, 3, 1)}, columns=columns)
    assert tsstore.analyze(store, unique_by="id").samples == 2
    # Of the id 1 the first sample is not there: the second one counts.
    assert tsstore.analyze(store.filter(label=5), unique_by="id").samples == 2


def test_a_view_says_so_in_its_analysis_and_its_plan(runs):
    view = runs[0].filter(label=1)
    analysis = tsstore.analyze(view.select("b"))
    assert list(analysis) == ["b"]
    assert analysis.samples == view.samples
    assert "Samples where label = 1." in str(analysis)
    assert analysis.to_dict()["samples_where"] == "label = 1"
    assert list(tsstore.plan(view, "b*")) == ["b"]


def test_a_view_of_nothing_cannot_be_counted(runs):
    store = runs[0]
    view = store.filter(np.zeros(store.samples, bool))
    for count in (tsstore.analyze, tsstore.neurons, tsstore.plan):
        with pytest.raises(EmptyStoreError, match="no sample is shown where chosen one by one"):
            count(view)
