from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from synthetic import count, draw_layer, found, write_layers

import tsstore
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import DamageError

LAYERS = 40
NOWHERE = "/proc/no/folder"


@pytest.fixture(scope="module")
def rows():
    return {f"layer_{n:02}": draw_layer(n, 30, 1 + n % 20) for n in range(LAYERS)}


@pytest.fixture(scope="module")
def store(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "run"
    return write_layers(path, rows, columns={"label": np.arange(30) % 2})


@pytest.fixture
def graphs(client, monkeypatch):
    """The kinds of the tasks of each graph that runs on the cluster."""
    kinds, get = [], client.get

    def watched(graph, *arguments, **options):
        kinds.append([str(key[0] if isinstance(key, tuple) else key)[:13] for key in graph])
        return get(graph, *arguments, **options)

    monkeypatch.setattr(client, "get", watched)
    return kinds


@pytest.mark.parametrize("options", [{}, {"scratch": NOWHERE}, {"intervals": False}])
def test_a_cluster_counts_small_layers_in_few_tasks_and_their_records_go_nowhere(
    store, rows, client, graphs, options, monkeypatch
):
    monkeypatch.setattr(client, "register_plugin", None)
    calls = []
    asked = {"scheduler": client, "progress": lambda *call: calls.append(call), **options}
    analysis = tsstore.analyze(store, **asked)
    assert {name: found(result) for name, result in analysis.items()} == {
        name: count(own) for name, own in rows.items()
    }
    (kinds,) = graphs
    tasks = len(kinds)
    assert set(kinds) == {"tsstore-small"}
    assert tasks < LAYERS / 2
    assert calls == [(f"{LAYERS} layers", done, tasks) for done in range(1, tasks + 1)]
    assert list(analysis) == list(rows)
    options.pop("scratch", None)
    assert analysis.to_json() == tsstore.analyze(store, scheduler="threads", **options).to_json()


def test_a_plan_says_so(store, client):
    plan = tsstore.plan(store, scheduler=client, scratch=NOWHERE)
    assert {own["records"] for own in plan.to_dict()["layers"].values()} == {"memory"}
    assert (plan.tasks, plan.layers_at_once, plan.scratch_bytes) == (LAYERS, LAYERS, 0)
    assert plan.sentences[0].startswith("All records stay in memory")
    groups = tsstore.plan(store, scheduler=client, by="label")
    assert {own["records"] for own in groups.to_dict()["layers"].values()} == {"workers"}


def test_threads_count_each_by_a_task_of_its_own(store, monkeypatch):
    graphs, run = [], LocalScheduler.run
    monkeypatch.setattr(
        LocalScheduler,
        "run",
        lambda self, graph, *a: graphs.append(len(graph)) or run(self, graph, *a),
    )
    tsstore.analyze(store, scheduler="threads")
    assert graphs == [LAYERS]


def test_small_layers_are_counted_beside_large_ones(client, graphs, tmp_path, small_sizes):
    few = {name: draw_layer(n, 8, 3, largest=1) for n, name in enumerate(("x", "y", "z"))}
    large = draw_layer(4, 8, 9, largest=60)
    store = write_layers(tmp_path / "run", {**few, "large": large})
    analysis = tsstore.analyze(store, scheduler=client)
    assert {name: found(result) for name, result in analysis.items()} == {
        **{name: count(own) for name, own in few.items()},
        "large": count(large),
    }
    (kinds,) = graphs
    assert kinds.count("tsstore-small") == 3
    assert kinds.count("tsstore-block") > 1


@pytest.mark.parametrize("kind", ["threads", "cluster"])
def test_an_error_says_of_which_of_them_it_is(rows, request, tmp_path, kind):
    scheduler = request.getfixturevalue("client") if kind == "cluster" else kind
    write_layers(tmp_path / "run", rows)
    chunk: Path = sorted((tmp_path / "run").rglob("*layer_23/states/c/*/0"))[-1]
    chunk.unlink()
    with pytest.raises(DamageError, match=re.escape(str(chunk.relative_to(tmp_path)))) as raised:
        tsstore.analyze(tmp_path / "run", scheduler=scheduler)
    assert "layer_23" in str(raised.value)


def test_threads_load_the_loops_of_large_layers_before_and_of_small_ones_as_they_come(
    store, client, monkeypatch, request
):
    loaded = []
    monkeypatch.setattr("tsstore.analysis.layers.warm_up", lambda *of: loaded.append(of))
    tsstore.analyze(store, scheduler="threads")
    assert loaded == []
    # Workers find in the cache what this process has compiled.
    tsstore.analyze(store, scheduler=client)
    assert len(loaded) == LAYERS
    loaded.clear()
    request.getfixturevalue("small_sizes")
    tsstore.analyze(store, "layer_07", scheduler="threads")
    assert len(loaded) == 1
