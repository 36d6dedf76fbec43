from __future__ import annotations

import json
import re
from contextlib import suppress
from inspect import signature

import numpy as np
import pytest
from synthetic import draw_layer, layer, write_layers

import tsstore
from tsstore.analysis.memory import DEFAULT_SHARE, available_memory, parse_memory
from tsstore.analysis.planning.layers import layer_plan, plan_batches
from tsstore.analysis.planning.plan import plan
from tsstore.analysis.planning.run_plan import RunPlan
from tsstore.analysis.random_groups import GROUPS
from tsstore.analysis.request import choose
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import (
    AnalysisError,
    EmptyStoreError,
    MemoryTooSmallError,
    StoreError,
    UnknownLayerError,
)
from tsstore.text import format_memory

MIB = 1 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("planning") / "run.zarr"
    layers = {"conv_1": draw_layer(0, 6_000, 3), "conv_2": draw_layer(1, 6_000, 16, 5_000)}
    ids = {"id": np.arange(6_000) // 2}
    return write_layers(path, layers, columns=ids, chunk_bytes=1 << 14)


@pytest.fixture
def workers(monkeypatch):
    """A scheduler whose three threads share no memory with this process."""

    class Workers(LocalScheduler):
        shared_memory = False

    some = Workers(3)
    monkeypatch.setattr(
        "tsstore.analysis.planning.plan.choose",
        lambda scheduler: some if scheduler is some else choose(scheduler),
    )
    return some


def least_that_works(store, layer="conv_2"):
    with pytest.raises(MemoryTooSmallError) as error:
        # Enough to compare the ids with: what they need to be held is a part of the plan.
        plan(store, layer, memory="1MiB")
    return re.search(r"memory='(\w+)'", str(error.value))[1]


@pytest.mark.parametrize("options", [{}, {"intervals": False}, {"scheduler": "synchronous"}])
@pytest.mark.parametrize("memory", ["1GiB", "64MiB", None])
def test_the_plans_are_those_by_which_an_analysis_counts(store, memory, options, monkeypatch):
    counted = []

    def note(plans, threads):
        counted.extend(plans)
        return plan_batches(plans, threads)

    monkeypatch.setattr("tsstore.analysis.layers.plan_batches", note)
    found = plan(store, memory=memory, **options)
    assert not counted
    tsstore.analyze(store, memory=memory, **options)
    assert list(found.values()) == counted


def test_it_takes_what_an_analysis_takes_that_changes_how_it_counts():
    analysis = set(signature(tsstore.analyze).parameters)
    how_it_is_answered = {"progress", "seed", "patience", "cache"}
    assert analysis - set(signature(plan).parameters) == how_it_is_answered


@pytest.mark.usefixtures("small_sizes")
def test_a_plan_is_a_mapping_from_layers_that_adds_up(store):
    found = plan(store.path, memory="64MiB")
    assert isinstance(found, RunPlan)
    assert list(found) == ["conv_1", "conv_2"]
    assert len(found) == 2
    assert found["conv_1_post_states"] is found["conv_1"] is found.layers["conv_1"].plan
    assert found.run == store.path
    assert found.memory == 64 * MIB
    assert found.threads == choose(None).threads
    assert found.rows == store["conv_1"].rows + store["conv_2"].rows
    assert found.tasks == sum(plan.tasks for plan in found.values()) > 2
    assert found.layers_at_once == 2
    assert found.projected_peak == sum(plan.projected_peak for plan in found.values()) <= 64 * MIB
    with pytest.raises(UnknownLayerError, match="no layer 'fc' in this RunPlan; there are conv_1"):
        found["fc"]


def test_some_layers_can_be_asked_for_and_memory_is_a_quarter_unless_given(store):
    found = plan(store, "conv_2")
    assert list(found) == ["conv_2"]
    assert found.memory == int(DEFAULT_SHARE * available_memory())
    assert plan(store, ["conv_2", "conv_1"]).rows == plan(store).rows


@pytest.mark.usefixtures("small_sizes")
def test_scratch_is_that_of_the_layers_that_are_counted_at_once(store, workers):
    spilled = plan(store, memory="1GiB", scheduler=workers)
    amounts = [plan.scratch_bytes for plan in spilled.values()]
    assert spilled.scratch_bytes == sum(amounts) > min(amounts) > 0
    smallest = plan(store, memory=spilled.smallest_memory, scheduler=workers)
    assert smallest.layers_at_once == 1
    assert smallest.scratch_bytes == max(amounts)


def test_threads_that_have_the_memory_need_no_scratch(store):
    assert plan(store, memory="1GiB", scheduler="threads").scratch_bytes == 0


def test_the_memory_with_which_nothing_goes_through_files_is_true_and_close(store):
    for asked in ("1GiB", plan(store).smallest_memory):
        least = plan(store, memory=asked).in_memory_from
        assert plan(store, memory=least).scratch_bytes == 0
        with suppress(MemoryTooSmallError):
            assert plan(store, memory=int(0.85 * least)).scratch_bytes > 0


def test_the_smallest_memory_works_and_much_less_does_not(store):
    smallest = plan(store).smallest_memory
    assert plan(store, memory=smallest).smallest_memory == smallest
    with pytest.raises(MemoryTooSmallError, match="give at least memory="):
        plan(store, memory=int(0.85 * smallest))
    exactly = parse_memory(least_that_works(store, "conv_1"))
    assert plan(store, "conv_1", memory=exactly).smallest_memory == exactly


def test_what_is_named_can_be_given(store):
    least = plan(store).in_memory_from
    assert parse_memory(format_memory(least)) == least


@pytest.mark.usefixtures("small_sizes")
def test_on_a_cluster_everything_goes_through_files(store, workers):
    found = plan(store, memory="1GiB", scheduler=workers)
    assert not found.shared_memory
    assert found.in_memory_from is None
    assert found.threads == 3
    assert found.scratch_bytes > 0
    assert "workers share nothing else" in found.sentences[0]


def test_a_real_cluster_is_asked_for_its_threads(store, client):
    found = plan(store, scheduler=client, memory="64MiB")
    assert (found.threads, found.shared_memory) == (1, False)
    with pytest.raises(AnalysisError, match="more than the workers can give"):
        plan(store, scheduler=client, memory="1.9GiB")


def test_no_state_is_read(tmp_path):
    ids = {"id": np.arange(500) // 2}
    layers = {"conv_1": draw_layer(0, 500, 3)}
    store = write_layers(tmp_path / "run.zarr", layers, columns=ids, chunk_bytes=256)
    before = plan(store, unique_by="id").to_dict()
    states = (tmp_path / "run.zarr").glob("*/layers/*/states/c/**/*")
    files = [path for path in states if path.is_file()]
    assert len(files) > 5
    for path in files:
        path.unlink()
    assert plan(store.path, unique_by="id").to_dict() == before


def test_samples_that_repeat_others_are_counted_as_left_out(store):
    every, once = plan(store, memory="64MiB"), plan(store, memory="64MiB", unique_by="id")
    runner = choose(None)
    expected = layer_plan(store["conv_1"], 64 * MIB, runner, GROUPS, 3_000)
    assert once["conv_1"] == expected.whole != every["conv_1"]
    with pytest.raises(StoreError, match="no sample column 'name'"):
        plan(store, unique_by="name")
    with pytest.raises(MemoryTooSmallError, match="layer conv_2: memory of 16 KiB is too small"):
        plan(store, unique_by="id", memory="16KiB")


def test_what_an_analysis_refuses_a_plan_refuses(store, tmp_path):
    for options in ({"layers": "fc"}, {"memory": "lots"}, {"scheduler": "mine"}, {"layers": []}):
        with pytest.raises(AnalysisError) as refused:
            plan(store, **options)
        with pytest.raises(type(refused.value), match=re.escape(str(refused.value))):
            tsstore.analyze(store, **options)
    rows = np.zeros((0, 1), np.uint8)
    empty = write_layers(tmp_path / "run.zarr", {"fc": layer(rows, [0, 0])})
    with pytest.raises(EmptyStoreError, match="layer fc has no rows"):
        plan(empty)


def test_a_frame_has_a_line_for_each_layer(store):
    found = plan(store, memory="64MiB")
    frame = found.to_frame()
    assert frame.index.name == "layer"
    assert list(frame.index) == ["conv_1", "conv_2"]
    line = frame.loc["conv_2"]
    chosen = found["conv_2"]
    assert line["rows"] == store["conv_2"].rows
    assert line["row_bytes"] == 16
    assert line["partitions"] == 2**chosen.partition_bits
    assert line["scratch_bytes"] == (chosen.scratch_bytes if chosen.spill else 0)
    for name in ("blocks", "block_rows", "piece_rows", "slice_bytes", "threads", "tasks"):
        assert line[name] == vars(chosen)[name]


def test_a_document_holds_all_numbers(store):
    found = plan(store, memory="64MiB")
    document = json.loads(found.to_json())
    assert document == found.to_dict()
    assert document["memory"] == 64 * MIB
    assert document["sentences"] == found.sentences
    assert document["layers"]["conv_1"] == found.to_frame().loc["conv_1"].to_dict()
    for name in ("rows", "tasks", "scratch_bytes", "projected_peak", "in_memory_from"):
        assert document[name] == getattr(found, name)
