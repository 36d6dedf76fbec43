from __future__ import annotations

import json
import os
from itertools import chain

import numpy as np
import pytest
from synthetic import draw_layer, write_layers

import tsstore
from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import AnalysisError, CountingError, UnknownLayerError, UnknownRunError

HOSTILE = "<b>\x1b[31m"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two runs of networks that share a layer's name."""
    folder = tmp_path_factory.mktemp("runs")
    columns = {"id": np.arange(60), "label": np.arange(60) % 2}
    layers = {"one": {"a": (1, 2), "b": (2, 9)}, "two": {"a": (3, 9)}}
    return {
        name: write_layers(
            folder / name,
            {layer: draw_layer(seed, 60, width) for layer, (seed, width) in own.items()},
            columns=columns,
        )
        for name, own in layers.items()
    }


@pytest.fixture
def graphs(monkeypatch):
    """The layers that are counted in each graph."""
    found, run = [], LocalScheduler.run

    def watched(self, graph, *arguments):
        small = [jobs for task in graph.values() if isinstance(task, tuple) for jobs in task[1:2]]
        held = chain(graph.values(), *(jobs for jobs in small if isinstance(jobs, list)))
        found.append([job.states.name for job in held if isinstance(job, LayerJob)])
        return run(self, graph, *arguments)

    monkeypatch.setattr(LocalScheduler, "run", watched)
    return found


def test_runs_are_analysed_together_as_each_by_itself(stores, graphs):
    asked = {"second": stores["two"], "first": stores["one"].path}
    found = tsstore.analyze(asked, scheduler="threads")
    assert isinstance(found, tsstore.Analyses)
    assert [sorted(layers) for layers in graphs] == [["a", "a", "b"]]
    assert list(found) == ["second", "first"]
    assert found["first"].to_json() == tsstore.analyze(stores["one"]).to_json()
    assert found["second"].to_json() == tsstore.analyze(stores["two"]).to_json()
    assert found["second"].provenance.run_id == stores["two"].run.run_id


def test_layers_are_asked_for_of_each_run(stores):
    found = tsstore.analyze(stores, iter(["a"]), intervals=False)
    assert {name: list(analysis) for name, analysis in found.items()} == {
        "one": ["a"],
        "two": ["a"],
    }
    with pytest.raises(UnknownLayerError, match="two has no layer 'b'"):
        tsstore.analyze(stores, "b")


def test_what_was_found_is_shown_run_under_run_and_is_one_document(stores):
    found = tsstore.analyze({HOSTILE: stores["one"], "two": stores["two"]}, intervals=False)
    shown = repr(found).split("\n\n")
    assert shown[0].startswith("<b>\\x1b[31m\n<Analysis ")
    assert shown[1] == f"two\n{found['two']!r}"
    html = found._repr_html_()
    assert html.count("<table>") == 2
    assert "<b>\x1b" not in html
    assert json.loads(found.to_json())["runs"]["two"] == found["two"].to_dict()
    frame = found.to_frame()
    assert frame.index.names == ["run", "layer"]
    assert frame.index.tolist() == [(HOSTILE, "a"), (HOSTILE, "b"), ("two", "a")]
    with pytest.raises(UnknownRunError, match=r"no run 'three' was analysed; there are .* and two"):
        found["three"]
    assert "three" not in found


def test_views_of_one_run_are_several_and_the_same_one_twice_is_an_error(stores, monkeypatch):
    run = stores["one"]
    views = {"even": run.filter(label=0), "odd": run.filter(label=1)}
    assert [one.samples for one in tsstore.analyze(views, intervals=False).values()] == [30, 30]
    monkeypatch.chdir(os.path.dirname(run.path))
    for again in (run.path, "./one", run):
        with pytest.raises(AnalysisError, match=r"'x' and 'y' are the same run, .*; expected each"):
            tsstore.analyze({"x": run, "y": again})


@pytest.mark.parametrize(
    ("runs", "options", "words"),
    [
        ({}, {}, "no run was given; expected a mapping from names to runs"),
        (["run", "run"], {}, "found a list of runs; expected a mapping from names"),
        ({1: "run"}, {}, "1 is no name of a run; expected text"),
        ({"a": "run"}, {"by": "label"}, "are for one run; analyse each run by itself"),
        ({"a": "run"}, {"window": 3}, "are for one run; analyse each run by itself"),
        ({"a": "run"}, {"bins": [0, 1]}, "are for one run; analyse each run by itself"),
    ],
)
def test_what_makes_no_sense_of_several_runs_is_refused(runs, options, words):
    with pytest.raises(AnalysisError, match=words):
        tsstore.analyze(runs, **options)


def test_an_error_says_of_which_run_it_is(stores, monkeypatch):
    rows = stores["two"]["a"].rows

    def check(receipts, expected, *others):
        if expected == rows:
            raise CountingError("there are few")
        return checked(receipts, expected, *others)

    from tsstore.analysis.execution import graph

    checked = graph.check_receipts
    monkeypatch.setattr(graph, "check_receipts", check)
    with pytest.raises(CountingError) as raised:
        tsstore.analyze(stores, scheduler="threads")
    assert str(raised.value) == f"{stores['two'].path}: layer a: there are few"


def test_runs_that_were_kept_are_not_counted_again(stores, tmp_path, graphs):
    first = tsstore.analyze(stores["one"], scheduler="threads", cache=tmp_path)
    found = tsstore.analyze(stores, scheduler="threads", cache=tmp_path)
    assert [sorted(layers) for layers in graphs] == [["a", "b"], ["a"]]
    assert found["one"].to_json() == first.to_json()
    again = tsstore.analyze(stores, scheduler="threads", cache=tmp_path)
    assert len(graphs) == 2
    assert again.to_json() == found.to_json()
