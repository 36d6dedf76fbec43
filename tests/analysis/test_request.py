from __future__ import annotations

from inspect import signature

import numpy as np
import pytest
from helpers import draw_batch, write_run
from synthetic import draw_layer, layer, write_layers

import tsstore
from tsstore.analysis.random_groups import GROUPS
from tsstore.analysis.repeats import deal_groups
from tsstore.analysis.request import Request, check_rows, countable, with_layers
from tsstore.errors import AnalysisError, EmptyStoreError, NotAStoreError, UnknownLayerError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.run import create_run


@pytest.fixture
def store(tmp_path):
    layers = {"conv_1": draw_layer(0, 20, 3), "fc.2": draw_layer(1, 20, 1)}
    return write_layers(tmp_path / "run.zarr", layers)


def test_a_path_and_a_store_are_the_same_run(store):
    assert countable(store.path).path == countable(store).path == store.path
    assert countable(store) is not store


def test_a_run_that_grows_meanwhile_stays_as_it_was(tmp_path):
    batch = draw_batch(np.random.default_rng(0), 3)
    writer = write_run(tmp_path / "run.zarr", [batch], close=False)
    store = tsstore.open(tmp_path / "run.zarr")
    pinned = countable(store)
    writer.append(batch)
    writer.seal()
    store.refresh()
    assert (pinned.samples, store.samples) == (3, 6)


def test_runs_that_cannot_be_counted_are_refused(tmp_path):
    with pytest.raises(NotAStoreError):
        countable(tmp_path / "nowhere.zarr")
    create_run(LocalFiles(tmp_path / "empty.zarr", durable=False))
    with pytest.raises(EmptyStoreError, match="wait for the first commit"):
        countable(tmp_path / "empty.zarr")
    for step in (1, 2):
        part = PartAttributes(step=step)
        write_run(tmp_path / "run.zarr", [draw_batch(np.random.default_rng(0), 3)], part=part)
    with pytest.raises(AnalysisError, match="holds the steps 1, 2, which are not pooled"):
        countable(tmp_path / "run.zarr")
    assert countable(tsstore.open(tmp_path / "run.zarr").at_step(2)).samples == 3


def test_layers_are_named_once_and_by_their_public_names(store):
    assert with_layers(store, None).layers == ("conv_1", "fc.2")
    assert with_layers(store, "fc.2").layers == ("fc.2",)
    names = ["fc.2", "conv_1_post_states", "conv_1"]
    assert with_layers(store, names).layers == ("fc.2", "conv_1")
    with pytest.raises(UnknownLayerError, match="has no layer 'fc'"):
        with_layers(store, ["conv_1", "fc"])
    with pytest.raises(AnalysisError, match="no layer was asked for"):
        with_layers(store, [])


def test_groups_are_for_intervals(store):
    assert deal_groups(store, Request()).count == GROUPS
    assert deal_groups(store, Request(intervals=False)) is None
    with pytest.raises(AnalysisError, match="no sample column 'patient'"):
        deal_groups(store, Request(dependent_by="patient"))
    with pytest.raises(AnalysisError, match="leave one of the two out"):
        Request(intervals=False, dependent_by="patient")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"memory": "lots"}, "memory is 'lots'; expected a positive amount"),
        ({"memory": 0}, "memory is 0; expected a positive amount"),
        ({"repeats": "twice"}, "repeats is 'twice'; expected 'once' or 'each'"),
        ({"patience": -1}, "patience is -1; expected how many seconds a cluster may be without"),
        ({"patience": float("nan")}, "patience is nan; expected how many seconds"),
        ({"patience": "600"}, "patience is '600'; expected how many seconds"),
        ({"scratch": "ftp://host/x"}, "scratch is ftp://host/x; expected a folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(wrong, message):
    with pytest.raises(AnalysisError, match=message):
        Request(**wrong)
    for call in (tsstore.analyze, tsstore.plan):
        if set(wrong) <= set(signature(call).parameters):
            with pytest.raises(AnalysisError, match=message):
                call("nowhere.zarr", **wrong)


def test_progress_is_told_by_layer():
    calls = []
    Request(progress=lambda *call: calls.append(call)).report("a")(1, 2)
    assert calls == [("a", 1, 2)]
    assert Request().report("a") is None


def test_a_layer_without_rows_that_count_is_refused(tmp_path):
    rows = np.arange(6, dtype=np.uint8).reshape(6, 1)
    layers = {"some": layer(rows, [6, 0]), "none": layer(rows[:0], [0, 0])}
    store = write_layers(tmp_path / "run.zarr", layers)
    check_rows(store["some"])
    with pytest.raises(EmptyStoreError, match="layer none has no rows to analyse"):
        check_rows(store["none"])
    sample_filter = SampleFilter({store.parts[0].directory: np.array([0])})
    with pytest.raises(EmptyStoreError, match="layer some has no rows"):
        check_rows(store["some"], sample_filter)
