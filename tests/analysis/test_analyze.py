from __future__ import annotations

import dataclasses
import math
import os
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_batch, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import WIDTHS, count, draw_layer, found, layer, numbered_rows, write_layers

import tsstore
from tsstore.analysis import layers as module
from tsstore.analysis.cluster import DistributedScheduler
from tsstore.analysis.layers import count_layer
from tsstore.analysis.memory import parse_memory
from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.random_groups import GROUPS, RandomGroups
from tsstore.analysis.request import Request, choose
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.counting.arena import Arena
from tsstore.errors import (
    AnalysisError,
    CountingError,
    DamageError,
    EmptyStoreError,
    MemoryTooSmallError,
    NotAStoreError,
    UnknownLayerError,
)
from tsstore.statistics.estimators import plug_in
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.reading.store import open_store

CHUNK = 64 << 10


@pytest.fixture(params=["threads", "synchronous", "cluster"])
def scheduler(request):
    if request.param == "cluster":
        return request.getfixturevalue("client")
    return request.param


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def spilling(monkeypatch):
    """Let records go through files on threads too, as they do where memory is short."""
    monkeypatch.setattr(LocalScheduler, "shared_memory", False)


def smallest_memory(states, scheduler, groups: int) -> str:
    with pytest.raises(MemoryTooSmallError) as error:
        layer_plan(states, 1, choose(scheduler), groups)
    return re.search(r"memory='(\d+KiB)'", str(error.value))[1]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_scheduler_counts_as_sorting_does(tmp_path, scheduler, width):
    parts = [draw_layer(seed, 40, width, distinct=30) for seed in (1, 2, 3)]
    store = write_layers(tmp_path / "run", *({"conv_1": part} for part in parts))
    result = tsstore.analyze(store, scheduler=scheduler)["conv_1"]
    expected = count(*parts)
    assert found(result) == expected
    counts = np.repeat(expected.spectrum.multiplicity, expected.spectrum.states)
    shares = counts / counts.sum()
    assert plug_in(result.spectrum) == pytest.approx(-(shares * np.log2(shares)).sum())
    assert plug_in(result.spectrum, 0) == pytest.approx(math.log2(len(counts)))
    assert plug_in(result.spectrum, 2) == pytest.approx(-np.log2((shares**2).sum()))
    assert plug_in(result.spectrum, math.inf) == pytest.approx(-np.log2(shares.max()))
    assert result.samples == 120


@pytest.fixture(scope="module")
def large_run(tmp_path_factory):
    """Give a function that makes a run of rows of a width, once, and counts it by sorting."""

    @cache
    def make(width: int):
        rows = layer(numbered_rows(np.arange(400_000) // 2, width), 10)
        path = tmp_path_factory.mktemp("large") / "run"
        return write_layers(path, {"conv_1": rows}, chunk_bytes=CHUNK), count(rows)

    return make


@pytest.mark.parametrize(
    ("width", "intervals"),
    [
        *((3, False), (8, True), (16, False), (38, True)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((3, True), (8, False), (16, True), (38, False))
        ),
    ],
)
def test_the_smallest_memory_that_is_named_works_through_files(
    large_run, scheduler, scratch, width, intervals
):
    store, expected = large_run(width)
    groups = GROUPS if intervals else 0
    memory = smallest_memory(store["conv_1"], scheduler, groups)
    plan = layer_plan(store["conv_1"], parse_memory(memory), choose(scheduler), groups)
    assert plan.spill
    options = {"scheduler": scheduler, "intervals": intervals}
    result = tsstore.analyze(store, memory=memory, scratch=scratch, **options)["conv_1"]
    assert found(result) == expected
    assert (result.changes is not None) == intervals
    assert list(scratch.iterdir()) == []
    with pytest.raises(MemoryTooSmallError, match=f"layer conv_1: .*'{memory}'"):
        tsstore.analyze(store, memory=parse_memory(memory) - 1024, **options)


def samples_of(part, kept):
    return layer(part.rows[np.repeat(kept, part.positions)], part.positions[kept])


def check_changes(store, name: str, parts: list, result, cluster: str | None = None) -> None:
    """Compare each spectrum without a group with that of sorting the rows of the others."""
    groups = RandomGroups.of_parts(store.parts, cluster)
    dealt = [groups.of_samples(part.directory, 0, part.samples) for part in store.parts]
    assert result.changes.groups == GROUPS
    for group in range(GROUPS):
        kept = [samples_of(part, own != group) for part, own in zip(parts, dealt, strict=True)]
        assert result.changes.without(result.spectrum, group) == count(*kept).spectrum
        assert result.changes.samples[group] == sum((own == group).sum() for own in dealt)


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("width", [1, 8, 9, 17, 40])
def test_groups_are_left_out_exactly_by_every_scheduler(tmp_path, scheduler, scratch, width):
    parts = [draw_layer(seed, 90, width, distinct=150) for seed in (4, 5)]
    dense = [layer(part.rows[:90]) for part in parts]
    both = zip(parts, dense, strict=True)
    store = write_layers(tmp_path / "run", *({"conv": one, "fc": other} for one, other in both))
    analysis = tsstore.analyze(store, scheduler=scheduler, scratch=scratch)
    check_changes(store, "conv", parts, analysis["conv"])
    check_changes(store, "fc", dense, analysis["fc"])
    assert np.array_equal(analysis["fc"].changes.samples, analysis["conv"].changes.samples)


@pytest.mark.usefixtures("small_sizes", "spilling")
def test_groups_are_left_out_exactly_through_files(tmp_path, scratch):
    parts = [draw_layer(seed, 90, 9, distinct=150) for seed in (4, 5)]
    store = write_layers(tmp_path / "run", *({"conv": part} for part in parts))
    check_changes(store, "conv", parts, tsstore.analyze(store, scratch=scratch)["conv"])


def test_clusters_are_dealt_whole_in_layers_and_in_the_accuracy(tmp_path):
    parts = [draw_layer(seed, 60, 3) for seed in (1, 2)]
    for seed, part in enumerate(parts):
        columns = {
            "patient": np.array([f"p{number % 9}" for number in range(60)], dtype=object),
            "label": np.arange(60) % 3,
            "prediction": np.arange(60) % (seed + 2),
        }
        store = write_layers(tmp_path / "run", {"a": part}, columns=columns)
    analysis = tsstore.analyze(store, dependent_by="patient")
    check_changes(store, "a", parts, analysis["a"], "patient")
    assert np.count_nonzero(analysis["a"].changes.samples) <= 9
    assert analysis["a"].clusters == 9
    assert analysis["a"].sample_limited
    assert "there are 9 clusters of samples (fewer than 64)" in analysis["a"].reason
    by_group = analysis.accuracy_by_group
    assert np.array_equal(by_group.samples, analysis["a"].changes.samples)
    assert by_group.share == analysis.accuracy == pytest.approx((20 + 60) / 120)
    alone = tsstore.analyze(store)
    assert alone.accuracy_by_group.right.sum() == 80
    assert alone["a"].clusters is None


def test_without_intervals_no_groups_are_counted(tmp_path):
    columns = {name: np.arange(30) for name in ("label", "prediction")}
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 30, 2)}, columns=columns)
    analysis = tsstore.analyze(store, intervals=False)
    assert analysis["a"].changes is None
    assert analysis.accuracy_by_group is None
    assert analysis.accuracy == 1
    assert analysis["a"].spectrum == tsstore.analyze(store)["a"].spectrum


def test_a_cluster_column_that_makes_no_sense_is_refused(tmp_path):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 30, 2)})
    with pytest.raises(AnalysisError, match="no sample column 'patient' to make clusters of"):
        tsstore.analyze(store, dependent_by="patient")
    with pytest.raises(AnalysisError, match="dependent_by='patient' is for intervals"):
        tsstore.analyze(store, dependent_by="patient", intervals=False)


@pytest.mark.parametrize("column", ["rows", "samples"])
def test_groups_that_do_not_add_up_are_an_error(tmp_path, monkeypatch, column):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 8)})

    def finish(counts, *choice):
        changes = finish_counts(counts, *choice).changes
        wrong = getattr(changes, column) + np.eye(GROUPS, dtype=np.int64)[0]
        return dataclasses.replace(
            counts, changes=dataclasses.replace(changes, **{column: wrong}), entries=()
        )

    finish_counts = module.finish_counts
    monkeypatch.setattr(module, "finish_counts", finish)
    with pytest.raises(CountingError, match="a: the groups' changes take"):
        tsstore.analyze(store)


@pytest.mark.usefixtures("small_sizes")
def test_many_blocks_and_partitions_are_counted_by_every_scheduler(tmp_path, scheduler, scratch):
    parts = [draw_layer(seed, 80, 9, distinct=200) for seed in (4, 5)]
    store = write_layers(tmp_path / "run", *({"conv_1": part} for part in parts))
    result = tsstore.analyze(store, scheduler=scheduler, scratch=scratch)
    assert found(result["conv_1"]) == count(*parts)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=3),
    st.sampled_from(WIDTHS),
    st.integers(1, 60),
    st.integers(1, 9),
)
def test_any_small_store_is_analysed_exactly(samples, width, distinct, largest):
    parts = [draw_layer(n, many, width, distinct, largest) for n, many in enumerate(samples)]
    with tempfile.TemporaryDirectory() as folder:
        store = write_layers(Path(folder) / "run", *({"a": part} for part in parts))
        if sum(part.rows.size for part in parts):
            assert found(tsstore.analyze(store)["a"]) == count(*parts)
        else:
            with pytest.raises(EmptyStoreError):
                tsstore.analyze(store)


def test_layers_are_those_asked_for_in_that_order_and_once(tmp_path):
    layers = {name: draw_layer(number, 30, 2) for number, name in enumerate(("a", "b", "c"))}
    store = write_layers(tmp_path / "run", layers)
    assert list(tsstore.analyze(store)) == ["a", "b", "c"]
    assert list(tsstore.analyze(store, "b")) == ["b"]
    assert list(tsstore.analyze(store, ["c", "a_post_states", "a"])) == ["c", "a"]
    assert list(tsstore.analyze(store, iter(["a"]))) == ["a"]
    with pytest.raises(AnalysisError, match="no layer was asked for; it has"):
        tsstore.analyze(store, [])


def test_the_tutorial_s_names_mean_the_same_layers(tmp_path):
    layers = {name: draw_layer(1, 30, 2) for name in ("conv_1", "conv_1:before")}
    store = write_layers(tmp_path / "run", layers)
    assert list(tsstore.analyze(store, "conv_1_post_states")) == ["conv_1"]
    assert list(tsstore.analyze(store, "conv_1_pre_states")) == ["conv_1:before"]
    analysis = tsstore.analyze(store)
    assert analysis["conv_1_pre_states"] is analysis["conv_1:before"]


def test_a_path_does_as_well_as_a_store(tmp_path, monkeypatch):
    write_layers(tmp_path / "run", {"a": draw_layer(1, 30, 2)})
    monkeypatch.chdir(tmp_path)
    assert tsstore.analyze(tmp_path / "run").run == str(tmp_path / "run")
    assert tsstore.analyze("run")["a"].samples == 30


def test_only_what_was_committed_is_analysed(tmp_path):
    first, second = draw_layer(1, 30, 2), draw_layer(2, 30, 2)
    store = write_layers(tmp_path / "run", {"a": first}, close=False)
    write_layers(tmp_path / "run", {"a": second})
    assert found(tsstore.analyze(store)["a"]) == count(first)
    assert found(tsstore.analyze(tmp_path / "run")["a"]) == count(first, second)


@pytest.mark.parametrize(("layers", "name"), [("a", "a"), (None, "2 layers")])
def test_progress_counts_up_to_the_total_of_all_layers(tmp_path, scheduler, layers, name):
    store = write_layers(tmp_path / "run", {n: draw_layer(1, 30, 2) for n in ("a", "b")})
    calls = []
    tsstore.analyze(store, layers, scheduler=scheduler, progress=lambda *call: calls.append(call))
    assert calls == [(name, done, len(calls)) for done in range(1, len(calls) + 1)]
    assert len(calls) >= (1 if layers else 2)


def damage(run: Path) -> Path:
    chunk = sorted(run.rglob("states/c/*/0"))[-1]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 16
    chunk.write_bytes(data)
    return chunk


@pytest.mark.parametrize("reported", [False, True])
def test_damage_is_an_error_on_every_scheduler_and_never_a_number(tmp_path, scheduler, reported):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 8)})
    chunk = damage(tmp_path / "run")
    progress = (lambda *call: None) if reported else None
    with pytest.raises(DamageError, match=re.escape(str(chunk.relative_to(tmp_path)))):
        tsstore.analyze(store, scheduler=scheduler, progress=progress)


@pytest.mark.usefixtures("small_sizes")
def test_a_missing_chunk_leaves_no_scratch_files(tmp_path, scheduler, scratch, spilling):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 8)})
    sorted((tmp_path / "run").rglob("states/c/*/0"))[1].unlink()
    with pytest.raises(DamageError):
        tsstore.analyze(store, scheduler=scheduler, scratch=scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("small_sizes", "spilling")
@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_scratch_file_that_changes_is_an_error(tmp_path, scratch, monkeypatch, change):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 8)})

    def check(receipts, rows, *others):
        file = Path(receipts[1].slices.file)
        data = file.read_bytes()
        file.unlink()
        if change != "remove":
            file.write_bytes(data[:-1] + b"?" * (change == "flip"))
        return check_receipts(receipts, rows, *others)

    check_receipts = module.build_graph.__globals__["check_receipts"]
    monkeypatch.setattr("tsstore.analysis.execution.graph.check_receipts", check)
    with pytest.raises(CountingError, match=r"scratch file .*\.records (has changed|cannot be)"):
        tsstore.analyze(store, scratch=scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("small_sizes")
def test_a_lost_receipt_is_an_error(tmp_path, monkeypatch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 8)})
    check = module.build_graph.__globals__["check_receipts"]
    monkeypatch.setattr(
        "tsstore.analysis.execution.graph.check_receipts",
        lambda receipts, *others: check(receipts[1:], *others),
    )
    with pytest.raises(CountingError, match="expected"):
        tsstore.analyze(store)


@pytest.mark.usefixtures("small_sizes")
def test_multiplicities_that_do_not_add_up_to_the_rows_are_an_error(tmp_path, monkeypatch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 8)})
    merge = module.build_graph.__globals__["merge_all"]
    monkeypatch.setattr(
        "tsstore.analysis.execution.graph.merge_all",
        lambda counts, entries: merge(counts[:-1], entries),
    )
    with pytest.raises(CountingError, match=r"a: the multiplicities add up to \d+, but \d+ rows"):
        tsstore.analyze(store)


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("cluster", [None, "id"])
def test_samples_that_never_met_a_layer_count_as_samples_of_it(tmp_path, cluster):
    path, rng = tmp_path / "run.zarr", np.random.default_rng(0)
    for rank, neurons in enumerate(({"a": 3, "b": 5}, {"a": 3}, {"a": 3, "b": 5})):
        batch = draw_batch(rng, 40, neurons=neurons, columns={"id": np.arange(40)})
        write_run(path, [batch], neurons=neurons, part=PartAttributes(rank, missing="empty"))
    store = open_store(path)
    result = tsstore.analyze(store, dependent_by=cluster)["b"]
    assert (result.samples, result.spectrum.rows) == (120, 80)
    assert result.changes.samples.sum() == 120
    assert result.distinct == len(np.unique(store["b"][:], axis=0))


@pytest.mark.usefixtures("small_sizes", "spilling")
@pytest.mark.parametrize("parent", ["file", "gone"])
def test_scratch_that_cannot_be_used_is_an_error_with_advice(tmp_path, parent):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 8)})
    (tmp_path / "file").touch()
    with pytest.raises(AnalysisError, match=f"{parent} cannot be used .* pass another one as"):
        tsstore.analyze(store, scratch=tmp_path / parent)


def test_scratch_that_is_another_url_is_an_error_before_anything_is_counted(tmp_path, monkeypatch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 8)})
    monkeypatch.setattr("tsstore.analysis.runs.analyze_layers", None)
    with pytest.raises(AnalysisError, match="scratch is ftp://host/x; expected a folder"):
        tsstore.analyze(store, scratch="ftp://host/x")


@pytest.mark.usefixtures("small_sizes")
def test_scratch_that_a_worker_does_not_see_is_an_error(tmp_path, scratch, client, monkeypatch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 8)})
    monkeypatch.setattr(DistributedScheduler, "reading", lambda *_: nullcontext())
    monkeypatch.setattr(client, "run", lambda *_, **__: {"tcp://far:1": None})
    with pytest.raises(AnalysisError, match=r"is not seen by tcp://far:1; pass a folder"):
        tsstore.analyze(store, scheduler=client, scratch=scratch)
    assert list(scratch.iterdir()) == []


def test_a_client_of_an_address_is_closed_after_success_and_after_an_error(tmp_path, client):
    from distributed import Client

    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 8)})
    address = client.scheduler.address
    result = tsstore.analyze(store, scheduler=address)
    assert result["a"].samples == 60
    damage(tmp_path / "run")
    with pytest.raises(DamageError):
        tsstore.analyze(store, scheduler=address)
    others = [other.status for other in Client._instances if other is not client]
    assert set(others) <= {"closed"}
    assert client.status == "running"


def test_the_current_client_is_used_unless_told_otherwise(tmp_path, client, monkeypatch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 8)})
    used = []
    get = client.get
    monkeypatch.setattr(client, "get", lambda *a, **k: used.append(1) or get(*a, **k))
    with client.as_current():
        on_cluster = tsstore.analyze(store)
        assert used == [1]
        assert tsstore.analyze(store, scheduler="threads")["a"].spectrum == on_cluster["a"].spectrum
    assert used == [1]


def test_memory_beyond_a_worker_s_limit_is_refused(tmp_path, client):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 8)})
    with pytest.raises(AnalysisError, match=r"their limit is 2 GiB; give at most memory=\d+$"):
        tsstore.analyze(store, memory="1.9GiB", scheduler=client)


@pytest.mark.parametrize("memory", ["abc", -1, 0, "nothing"])
def test_memory_that_is_no_amount_is_refused(tmp_path, memory):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 8)})
    with pytest.raises(AnalysisError, match="expected a positive amount"):
        tsstore.analyze(store, memory=memory)


def test_a_scheduler_that_is_none_is_refused(tmp_path):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 8)})
    with pytest.raises(AnalysisError, match="scheduler is 'fast'; expected"):
        tsstore.analyze(store, scheduler="fast")


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(NotAStoreError, match="nowhere is no tsstore run"):
        tsstore.analyze(tmp_path / "nowhere")
    with pytest.raises(NotAStoreError, match="is no tsstore run"):
        tsstore.analyze(tmp_path)


def test_an_unknown_layer_is_refused_with_those_that_are_there(tmp_path):
    store = write_layers(tmp_path / "run", {"conv_1": draw_layer(1, 60, 8)})
    with pytest.raises(UnknownLayerError, match="has no layer 'conv_2'; it has conv_1") as error:
        tsstore.analyze(store, ["conv_1", "conv_2"])
    assert isinstance(error.value, KeyError)


def test_nothing_committed_is_an_error(tmp_path):
    empty = layer(np.empty((0, 1), np.uint8), [])
    with pytest.raises(EmptyStoreError, match="holds no committed samples; wait for the first"):
        tsstore.analyze(write_layers(tmp_path / "run", {"a": empty}))
    nothing = layer(np.empty((0, 1), np.uint8), [0, 0])
    with pytest.raises(EmptyStoreError, match="layer a has no rows to analyse"):
        tsstore.analyze(write_layers(tmp_path / "other", {"a": nothing}))


def test_steps_are_not_pooled(tmp_path):
    parts = {step: draw_layer(step, 50, 2) for step in (100, 200)}
    for step, rows in parts.items():
        write_layers(tmp_path / "run", {"a": rows}, part=PartAttributes(step=step))
    store = open_store(tmp_path / "run")
    with pytest.raises(AnalysisError, match=r"holds the steps 100, 200, which are not pooled"):
        tsstore.analyze(store)
    assert found(tsstore.analyze(store.at_step(200))["a"]) == count(parts[200])


def test_accuracy_comes_from_labels_and_predictions_of_all_parts(tmp_path):
    def write(name: str, **columns: list[int]):
        values = {key: np.array(value) for key, value in columns.items()}
        return write_layers(tmp_path / name, {"a": draw_layer(1, 4, 1, 3)}, columns=values)

    write("both", label=[1, 2, 3, 4], prediction=[1, 2, 3, 0])
    store = write("both", label=[1, 2, 3, 4], prediction=[0, 0, 0, 4])
    assert tsstore.analyze(store).accuracy == 0.5
    assert tsstore.analyze(write("labels", label=[1, 2, 3, 4])).accuracy is None
    write("half", label=[1, 2, 3, 4], prediction=[1, 2, 3, 0])
    assert tsstore.analyze(write("half", label=[1, 2, 3, 4])).accuracy is None


def test_damaged_labels_are_an_error_not_a_missing_accuracy(tmp_path):
    columns = {name: np.arange(40) for name in ("label", "prediction")}
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 40, 1)}, columns=columns)
    next((tmp_path / "run").rglob("samples/label/c/0")).write_bytes(b"damage" * 9)
    with pytest.raises(DamageError, match="label"):
        tsstore.analyze(store)


def test_fingerprints_are_bounded_and_narrow_rows_exact(tmp_path):
    layers = {str(width): draw_layer(1, 40, width) for width in (16, 17)}
    analysis = tsstore.analyze(write_layers(tmp_path / "run", layers))
    assert analysis["16"].collision_bound == 0
    assert 0 < analysis["17"].collision_bound < 1e-30


def test_one_layer_can_be_counted_alone(tmp_path):
    rows = draw_layer(7, 60, 17)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    calls = []
    scheduler = LocalScheduler(2)
    result = count_layer(
        states, Request(memory=1 << 28, progress=lambda *call: calls.append(call)), scheduler
    )
    assert found(result) == count(rows)
    assert result.changes is None
    by_group = count_layer(states, Request(1 << 28), scheduler, Samples(groups=RandomGroups(3)))
    assert by_group.spectrum == result.spectrum
    assert by_group.changes.groups == 3
    name, done, total = calls[-1]
    assert (name, done) == ("a", total)


def test_the_largest_sample_is_found_across_parts_and_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("tsstore.store.reading.layer_part.PIECE_SAMPLES", 7)
    parts = [layer(np.zeros((n * 20, 1), np.uint8), n) for n in (3, 5)]
    parts.append(layer(np.zeros((40, 1), np.uint8), [1] * 31 + [9]))
    store = write_layers(tmp_path / "run", *({"a": part} for part in parts))
    assert store["a"].largest_sample == 9
    assert write_layers(tmp_path / "one", {"a": parts[1]})["a"].largest_sample == 5


def test_neither_opening_nor_analysing_imports_torch(tmp_path):
    write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 8)})
    script = """if True:
        import sys, tsstore
        result = tsstore.analyze(tsstore.open(sys.argv[1]), memory="64MiB", scheduler="threads")
        print(result["a"].samples, "torch" in sys.modules, "distributed" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(tsstore.__file__).parents[1])},
    )
    assert done.stdout.split() == ["60", "False", "False"]
    assert done.stderr == ""


def test_memory_is_given_back_around_layers_that_take_most_of_it(tmp_path, monkeypatch):
    rows = draw_layer(1, 500, 8)
    write_layers(tmp_path / "run", {"a": rows, "b": rows})
    given = []
    monkeypatch.setattr(module, "give_back_memory", lambda arena: given.append(arena))
    roomy = tsstore.plan(tmp_path / "run", memory="4GiB")
    tsstore.analyze(tmp_path / "run", memory="4GiB")
    assert given == []
    most = max(planned.plan.projected_peak for planned in roomy.layers.values())
    tsstore.analyze(tmp_path / "run", memory=3 * most // 2)
    # Before each, before its changes are sorted, and after it.
    assert len(given) == 6
    assert all(isinstance(arena, Arena) and arena is given[0] for arena in given)
