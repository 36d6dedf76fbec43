from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest
from synthetic import count, draw_layer, found, write_layers

import tsstore
from tsstore.analysis.execution import graph
from tsstore.analysis.layers import analyze_layers, count_layer
from tsstore.analysis.planning.layers import layer_plan, plan_batches
from tsstore.analysis.random_groups import GROUPS, RandomGroups
from tsstore.analysis.request import Request, choose
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import CountingError, DamageError

SAMPLES = 90
WIDTHS = {"middle": 9, "tiny": 1, "wide": 40, "alike": 9, "other": 17}
GROUPED = Samples(groups=RandomGroups())

pytestmark = pytest.mark.usefixtures("small_sizes")


@pytest.fixture(scope="module")
def rows():
    return {name: draw_layer(n, SAMPLES, width) for n, (name, width) in enumerate(WIDTHS.items())}


@pytest.fixture(scope="module")
def store(rows, tmp_path_factory):
    return write_layers(tmp_path_factory.mktemp("layers") / "run", rows)


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def runs(monkeypatch):
    """The layers that are counted in each graph that runs on threads."""
    batches, run = [], LocalScheduler.run

    def watched(self, graph, key, *arguments):
        jobs = [value for value in graph.values() if hasattr(value, "states")]
        batches.append([job.states.name for job in jobs])
        return run(self, graph, key, *arguments)

    monkeypatch.setattr(LocalScheduler, "run", watched)
    return batches


def numbers(result) -> tuple:
    """Return all that was counted of a layer."""
    changes = [getattr(result.changes, one.name).tolist() for one in fields(result.changes)]
    return found(result), changes, result.samples, result.collision_bound, result.own_dependence


@pytest.mark.parametrize("spilling", [False, True])
def test_layers_counted_at_once_are_counted_as_one_by_one(store, rows, monkeypatch, runs, spilling):
    monkeypatch.setattr(LocalScheduler, "shared_memory", not spilling)
    scheduler, request = LocalScheduler(2), Request(memory="1GiB")
    jobs = [(store[name], GROUPED) for name in rows]
    results = analyze_layers(jobs, request, scheduler)
    assert [sorted(batch) for batch in runs] == [sorted(rows)]
    assert [result.name for result in results] == list(rows)
    for name, result in zip(rows, results, strict=True):
        assert found(result) == count(rows[name])
        assert numbers(result) == numbers(count_layer(store[name], request, scheduler, GROUPED))


def test_a_cluster_counts_layers_at_once_as_threads_do(store, scratch, client, monkeypatch):
    graphs, get = [], client.get
    monkeypatch.setattr(client, "get", lambda *a, **k: graphs.append(1) or get(*a, **k))
    expected = tsstore.analyze(store, scheduler="synchronous")
    for progress in (None, lambda *_: None):
        options = {"scheduler": client, "scratch": scratch, "progress": progress}
        assert tsstore.analyze(store, **options).to_json() == expected.to_json()
    assert len(graphs) == 2
    assert list(scratch.iterdir()) == []


def test_where_the_memory_holds_one_layer_each_is_counted_alone(store, rows, runs):
    scheduler = LocalScheduler(2)
    peaks = [layer_plan(store[n], 1 << 30, scheduler, GROUPS).projected_peak for n in rows]
    jobs, calls = [(store[name], GROUPED) for name in rows], []
    request = Request(memory=max(peaks) + 4096, progress=lambda *call: calls.append(call))
    results = analyze_layers(jobs, request, scheduler)
    assert [len(batch) for batch in runs] == [1] * len(rows)
    assert [found(result) for result in results] == [count(rows[name]) for name in rows]
    # How many tasks there will be is known for certain when the last layer begins.
    assert [done for _, done, _ in calls] == list(range(1, len(calls) + 1))
    assert all(done <= total for _, done, total in calls)
    assert calls[-1] == ("5 layers", len(calls), len(calls))


def test_layers_share_the_memory_and_the_largest_comes_first(store, rows):
    scheduler = LocalScheduler(2)
    plans = [layer_plan(store[name], 40 << 20, scheduler, GROUPS) for name in rows]
    peaks = [plan.projected_peak for plan in plans]
    batches = plan_batches(plans, scheduler.threads)
    assert sorted(place for batch in batches for place in batch.layers) == list(range(len(rows)))
    assert 1 < len(batches) < len(rows)
    assert batches[0].layers[0] == peaks.index(max(peaks))
    assert not any(plan.in_one_task for plan in plans)
    for batch in batches:
        held = [peaks[place] for place in batch.layers]
        assert held == sorted(held, reverse=True)
        assert batch.projected_peak == sum(held) <= 40 << 20
        assert batch.gives_back == (2 * sum(held) > 40 << 20)


def test_a_layer_that_must_do_without_threads_is_alone(store, rows):
    scheduler = LocalScheduler(2)
    plans = [layer_plan(store[name], 1 << 30, scheduler, GROUPS) for name in rows]
    alone = [batch.layers for batch in plan_batches(plans, scheduler.threads + 1)]
    assert sorted(alone) == [(place,) for place in range(len(rows))]


@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize("kind", ["threads", "cluster"])
def test_damage_of_one_layer_ends_all_and_leaves_no_scratch(
    tmp_path, rows, scratch, request, monkeypatch, kind, reported
):
    scheduler = request.getfixturevalue("client") if kind == "cluster" else kind
    monkeypatch.setattr(LocalScheduler, "shared_memory", False)
    write_layers(tmp_path / "run", rows)
    chunk = sorted((tmp_path / "run").rglob("*alike/states/c/*/0"))[-1]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 16
    chunk.write_bytes(data)
    progress = (lambda *_: None) if reported else None
    with pytest.raises(DamageError, match=re.escape(str(chunk.relative_to(tmp_path)))):
        tsstore.analyze(tmp_path / "run", scheduler=scheduler, scratch=scratch, progress=progress)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("error", [CountingError("the blocks are few"), ZeroDivisionError("by 0")])
def test_an_error_says_of_which_layer_it_is(store, rows, monkeypatch, error):
    check, rows_of_wide = graph.check_receipts, len(rows["wide"].rows)

    def fail(receipts, expected, *others):
        if expected == rows_of_wide:
            raise error
        return check(receipts, expected, *others)

    monkeypatch.setattr(graph, "check_receipts", fail)
    with pytest.raises(type(error)) as raised:
        tsstore.analyze(store, scheduler="threads")
    said = [str(raised.value), *getattr(raised.value, "__notes__", [])]
    assert said in (
        [f"{store.path}: layer wide: the blocks are few"],
        ["by 0", f"It is of layer wide of {store.path}."],
    )


def test_an_interrupt_leaves_no_scratch(store, scratch, client):
    def interrupt(_: str, done: int, total: int) -> None:
        if done == 7:
            assert any(Path(folder).glob("*.records") for folder in scratch.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tsstore.analyze(store, scheduler=client, scratch=scratch, progress=interrupt)
    assert os.listdir(scratch) == []
    assert not any(client.processing().values())
    assert choose(client).threads == 1
